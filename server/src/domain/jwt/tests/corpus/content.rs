//! J5 and J6: claims and times.

use super::*;

pub(in crate::domain::jwt::tests) fn j5(world: &World) -> Vec<Bad> {
    let mut bad = Vec::new();
    let mut refused = |what: String, claims: Value, refusal| {
        bad.push((what, world.sign(&world.header(), &claims), refusal));
    };
    for claim in Claim::ALL {
        let name = claim.as_str();
        refused(
            format!("{name} missing"),
            with(name, None),
            Refusal::ClaimMissing(claim),
        );
        let good = good_claims()[name].clone();
        let candidates = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!(""),
            json!("1800000000"),
            json!("text"),
            json!(1_800_000_000),
            json!([]),
            json!([good]),
            json!([1, 2]),
            json!([null]),
            json!([""]),
            json!({}),
            json!({ "0": good }),
        ];
        let wrong = candidates.into_iter().filter(|value| match &good {
            // "text" and "1800000000" are texts, and an issuer of another name is another refusal.
            Value::String(_) => value.as_str().is_none_or(str::is_empty) || is_id(claim),
            Value::Number(_) => value.as_u64().is_none(),
            _ => !value.as_array().is_some_and(Vec::is_empty),
        });
        for value in wrong {
            refused(
                format!("{name}: {value}"),
                with(name, Some(value)),
                Refusal::ClaimMistyped(claim),
            );
        }
    }
    bad_ids(&mut refused);
    for name in ["admin", "scope", "email", "EXP", "iss ", "__proto__", "act"] {
        refused(
            format!("unknown claim {name}"),
            with(name, Some(json!(true))),
            Refusal::ClaimUnknown,
        );
    }
    let jkt = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for cnf in [
        json!(true),
        json!(null),
        json!(jkt),
        json!([jkt]),
        json!({}),
        json!({ "jkt": "" }),
        json!({ "jkt": [jkt] }),
        json!({ "jkt": format!("{jkt}=") }),
        json!({ "jkt": &jkt[1..] }),
        json!({ "jkt": jkt, "x5t#S256": jkt }),
    ] {
        refused(
            format!("cnf {cnf}"),
            with("cnf", Some(cnf)),
            Refusal::ClaimMistyped(Claim::Cnf),
        );
    }
    for issuer in [
        "https://mayfly.example/",
        "http://mayfly.example",
        "https://MAYFLY.example",
        "https://staging.mayfly.example",
        "mayfly.example",
        "https://mayfly.example\0",
        "https://mayfly.example.evil.example",
    ] {
        refused(
            format!("iss {issuer:?}"),
            with("iss", Some(json!(issuer))),
            Refusal::Issuer,
        );
        refused(
            format!("aud {issuer:?}"),
            with("aud", Some(json!(issuer))),
            Refusal::Audience,
        );
    }
    bad
}

fn is_id(claim: Claim) -> bool {
    matches!(claim, Claim::Sub | Claim::Sid | Claim::Jti)
}

pub(in crate::domain::jwt::tests) fn j6(world: &World) -> Vec<Bad> {
    let table = [
        ("exp", NOW - 30, Refusal::Expired),
        ("exp", NOW - 31, Refusal::Expired),
        ("exp", 0, Refusal::Expired),
        ("exp", NOW, Refusal::Lifetime),
        ("exp", NOW - 1, Refusal::Lifetime),
        ("exp", NOW + 3601, Refusal::Lifetime),
        ("exp", NOW + 10 * 365 * 86400, Refusal::Lifetime),
        ("exp", i64::MAX, Refusal::Lifetime),
        ("exp", i64::MAX / 1000, Refusal::Lifetime),
        ("nbf", NOW + 31, Refusal::NotYetValid),
        ("nbf", NOW + 86400, Refusal::NotYetValid),
        ("nbf", i64::MAX, Refusal::NotYetValid),
        ("iat", NOW + 31, Refusal::IssuedInFuture),
        ("iat", NOW + 86400, Refusal::IssuedInFuture),
        ("iat", i64::MAX, Refusal::IssuedInFuture),
        ("iat", 0, Refusal::Lifetime),
        ("iat", NOW - 2701, Refusal::Lifetime),
    ];
    table
        .into_iter()
        .map(|(name, value, refusal)| {
            let what = format!("{name} = now{:+}", value.saturating_sub(NOW));
            (
                what,
                world.sign(&world.header(), &with(name, Some(json!(value)))),
                refusal,
            )
        })
        .collect()
}

/// Ids in every spelling but ours.
fn bad_ids(refused: &mut impl FnMut(String, Value, Refusal)) {
    let claims = claims();
    let sub = claims.sub.to_string();
    for form in [
        sub.to_uppercase(),
        sub.replace('-', ""),
        format!("{{{sub}}}"),
        format!("urn:uuid:{sub}"),
        sub + " ",
    ] {
        refused(
            format!("sub {form}"),
            with("sub", Some(json!(form))),
            Refusal::ClaimMistyped(Claim::Sub),
        );
    }
    for (claim, id) in [(Claim::Sid, claims.sid.0), (Claim::Jti, claims.jti.0)] {
        let short = BASE64URL_NOPAD.encode(id.as_bytes());
        // The last character carries two bits; the other four must be zero.
        let sloppy = format!("{}B", &short[..21]);
        let long = BASE64URL_NOPAD.encode(&[id.as_bytes().as_slice(), &[0]].concat());
        for form in [
            id.to_string(),
            format!("{short}=="),
            sloppy,
            long,
            short[..21].to_owned(),
            format!(" {short}"),
        ] {
            refused(
                format!("id {form}"),
                with(claim.as_str(), Some(json!(form))),
                Refusal::ClaimMistyped(claim),
            );
        }
    }
}
