//! Logout tokens (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6): what a receiver of ours takes, and all
//! that it refuses.

use super::*;
use crate::domain::id::EventId;

const SHOP: &str = "svc-AAAAAAAAAAAAAAAAAAAAAA";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn logout_claims() -> LogoutClaims {
    let (now, random) = (Timestamp::from_seconds(NOW), SystemRandom::default());
    LogoutClaims {
        iss: "https://mayfly.example".to_owned(),
        aud: SHOP.to_owned(),
        iat: NOW,
        exp: NOW + 120,
        jti: EventId::new(now, &random),
        sub: UserId::new(now, &random),
        sid: SessionId::new(now, &random),
        events: LogoutEvent,
    }
}

/// A receiver: the same issuer, itself as the audience.
fn shop(algorithm: Algorithm) -> World {
    let mut world = world(algorithm);
    SHOP.clone_into(&mut world.verifier.audience);
    world
}

impl World {
    fn logout_header(&self) -> Value {
        let mut header = self.header();
        header["typ"] = json!("logout+jwt");
        header
    }

    fn verify_logout_at(&self, token: &str, seconds: i64) -> Result<LogoutClaims, Refusal> {
        self.verifier
            .verify_logout(&self.ring, token, Timestamp::from_seconds(seconds))
    }
}

/// Good claims with one of them changed, or gone.
fn with(name: &str, value: Option<Value>) -> Value {
    let mut claims = serde_json::to_value(logout_claims()).unwrap();
    let members = claims.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    claims
}

#[test]
fn r16_a_logout_token_says_what_the_standard_says_and_nothing_else() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let (world, claims) = (shop(algorithm), logout_claims());
        let token = sign_logout(&world.ring, &claims).unwrap();
        assert_eq!(world.verify_logout_at(token.expose_secret(), NOW), Ok(claims.clone()));
        let written = serde_json::to_value(&claims).unwrap();
        let expected = json!({
            "iss": "https://mayfly.example", "aud": SHOP, "iat": NOW, "exp": NOW + 120, "jti": claims.jti.to_string(),
            "sub": claims.sub.to_string(), "sid": claims.sid.to_short(), "events": { EVENT: {} },
        });
        assert_eq!(written, expected);
        let header = jsonwebtoken::decode_header(token.expose_secret()).unwrap();
        assert_eq!(header.typ.as_deref(), Some("logout+jwt"));
    }
}

/// What is wrong with it, the claims, and why they are refused.
fn wrong_claims() -> Vec<(String, Value, Refusal)> {
    let mut wrong = Vec::new();
    let claims = [
        Claim::Iss,
        Claim::Aud,
        Claim::Iat,
        Claim::Exp,
        Claim::Jti,
        Claim::Sub,
        Claim::Sid,
        Claim::Events,
    ];
    for claim in claims {
        let name = claim.as_str();
        wrong.push((format!("no {name}"), with(name, None), Refusal::ClaimMissing(claim)));
        for value in [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!(""),
            json!([]),
            json!([SHOP]),
            json!({}),
            json!([{}]),
        ] {
            let shown = format!("{name} {value}");
            wrong.push((shown, with(name, Some(value)), Refusal::ClaimMistyped(claim)));
        }
    }
    for name in ["nonce", "nbf", "typ", "scope", "client_id", "acr", "act", "trace_id"] {
        // Above all no nonce: with one it could be an ID token (section 2.4).
        wrong.push((name.to_owned(), with(name, Some(json!("x"))), Refusal::ClaimUnknown));
    }
    let (id, short) = (logout_claims().sub.to_string(), logout_claims().sid.to_short());
    for (claim, text) in [
        (Claim::Sub, id.to_uppercase()),
        (Claim::Sub, id.replace('-', "")),
        (Claim::Sub, short.clone()),
        (Claim::Sub, SHOP.to_owned()),
        (Claim::Sid, id.clone()),
        (Claim::Sid, format!("{short}=")),
        (Claim::Sid, short[1..].to_owned()),
        (Claim::Jti, id.to_uppercase()),
        (Claim::Jti, short.clone()),
    ] {
        let claims = with(claim.as_str(), Some(json!(text)));
        wrong.push((format!("{claim:?} {text}"), claims, Refusal::ClaimMistyped(claim)));
    }
    for events in [
        json!({ EVENT: null }),
        json!({ EVENT: [] }),
        json!({ EVENT: true }),
        json!({ EVENT: { "reason": "x" } }),
        json!({ EVENT: {}, "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} }),
        json!({ "http://schemas.openid.net/event/backchannel-logout/": {} }),
        json!({ "https://schemas.openid.net/event/backchannel-logout": {} }),
        json!({ "http://schemas.openid.net/event/frontchannel-logout": {} }),
        json!([EVENT]),
        json!(EVENT),
    ] {
        let claims = with("events", Some(events.clone()));
        wrong.push((
            format!("events {events}"),
            claims,
            Refusal::ClaimMistyped(Claim::Events),
        ));
    }
    for iss in [
        "https://mayfly.example/",
        "http://mayfly.example",
        "https://evil.example",
    ] {
        wrong.push((iss.to_owned(), with("iss", Some(json!(iss))), Refusal::Issuer));
    }
    for aud in ["https://mayfly.example", "svc-AAAAAAAAAAAAAAAAAAAAAQ", "svc-", "*"] {
        wrong.push((aud.to_owned(), with("aud", Some(json!(aud))), Refusal::Audience));
    }
    for (name, seconds, refusal) in [
        ("exp", NOW - 30, Refusal::Expired),
        ("exp", 0, Refusal::Expired),
        ("exp", NOW, Refusal::Lifetime),
        ("exp", NOW - 1, Refusal::Lifetime),
        ("exp", NOW + 121, Refusal::Lifetime),
        ("exp", i64::MAX, Refusal::Lifetime),
        ("iat", NOW - 1, Refusal::Lifetime),
        ("iat", 0, Refusal::Lifetime),
        ("iat", NOW + 31, Refusal::IssuedInFuture),
    ] {
        let claims = with(name, Some(json!(seconds)));
        wrong.push((format!("{name} {seconds}"), claims, refusal));
    }
    wrong
}

#[test]
fn r16_a_receiver_refuses_every_other_logout_token_for_its_own_reason() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let world = shop(algorithm);
        let (header, good) = (world.logout_header(), with("iat", Some(json!(NOW))));
        let mut refused = 0;
        let mut check = |what: &str, token: &str, expected: Refusal| {
            let answer = world.verify_logout_at(token, NOW);
            assert_eq!(answer.map(drop), Err(expected), "{algorithm:?}: {what}");
            refused += 1;
        };
        for (what, claims, expected) in wrong_claims() {
            check(&what, &world.sign(&header, &claims), expected);
        }
        for typ in [
            "JWT",
            "at+jwt",
            "secevent+jwt",
            "Logout+JWT",
            "application/logout+jwt",
            "logout+jwt ",
            "",
        ] {
            let mut header = header.clone();
            header["typ"] = json!(typ);
            check(typ, &world.sign(&header, &good), Refusal::Typ);
        }
        for (name, value, expected) in [
            ("alg", json!("none"), Refusal::Algorithm),
            ("alg", json!("HS256"), Refusal::Algorithm),
            ("alg", json!("ES384"), Refusal::Algorithm),
            ("kid", json!("unknown"), Refusal::KeyUnknown),
            ("kid", json!(world.removed_kid.clone()), Refusal::KeyUnknown),
            ("kid", json!(world.next_kid.clone()), Refusal::Signature),
            ("kid", json!("../key"), Refusal::KeyId),
            ("crit", json!(["exp"]), Refusal::HeaderForbidden),
            ("jwk", json!({}), Refusal::HeaderForbidden),
            ("jku", json!("https://evil.example/keys"), Refusal::HeaderForbidden),
            ("cty", json!("JWT"), Refusal::HeaderUnknown),
        ] {
            let mut header = header.clone();
            header[name] = value;
            check(name, &world.sign(&header, &good), expected);
        }
        let token = world.sign(&header, &good);
        let (message, _) = token.rsplit_once('.').unwrap();
        check("no signature", &format!("{message}."), Refusal::Signature);
        check("two parts", message, Refusal::Parts);
        let other = world.sign(&header, &with("iat", Some(json!(NOW))));
        let (_, others) = other.rsplit_once('.').unwrap();
        check(
            "another's signature",
            &format!("{message}.{others}"),
            Refusal::Signature,
        );
        let twice = good.to_string().replacen('{', r#"{"sid":"AAAAAAAAAAAAAAAAAAAAAA","#, 1);
        let twice = world.sign_bytes(header.to_string().as_bytes(), twice.as_bytes());
        check("a session twice", &twice, Refusal::DuplicateMember);
        println!("{algorithm:?}: {refused} bad logout tokens refused");
        assert!(refused > 140, "{refused}");
        // The times hold to the second.
        assert!(world.verify_logout_at(&token, NOW + 149).is_ok());
        assert_eq!(world.verify_logout_at(&token, NOW + 150), Err(Refusal::Expired));
        assert!(world.verify_logout_at(&token, NOW - 30).is_ok());
        assert_eq!(world.verify_logout_at(&token, NOW - 31), Err(Refusal::IssuedInFuture));
    }
}

/// TOKENS.md, section 4: each kind of signed token has its own `typ`, and only the diagonal is accepted, even if one set
/// of claims came under the `typ` of another.
#[test]
fn j4_of_all_kinds_of_our_tokens_each_is_read_as_itself_only() {
    let mut world = world(Algorithm::Es256);
    // The same for all, so that only the kind can make the difference.
    SHOP.clone_into(&mut world.verifier.audience);
    let service = json!({
        "iss": "https://mayfly.example", "aud": SHOP, "sub": SHOP, "client_id": SHOP, "scope": "read",
        "jti": logout_claims().sid.to_short(), "iat": NOW, "nbf": NOW, "exp": NOW + 120,
    });
    let mut person = serde_json::to_value(claims()).unwrap();
    person["aud"] = json!(SHOP);
    let security_event = json!({
        "iss": "https://mayfly.example", "aud": SHOP, "jti": logout_claims().jti.to_string(), "iat": NOW,
        "sub_id": {}, "events": {},
    });
    let all = [
        ("person", person),
        ("service", service),
        ("security event", security_event),
        ("logout", serde_json::to_value(logout_claims()).unwrap()),
    ];
    for (said, claims) in &all {
        for kind in [TokenKind::Access, TokenKind::SecurityEvent, TokenKind::Logout] {
            let mut header = world.header();
            header["typ"] = json!(kind.typ());
            let token = world.sign(&header, claims);
            let now = Timestamp::from_seconds(NOW);
            let read = [
                ("person", world.verifier.verify_access(&world.ring, &token, now).is_ok()),
                (
                    "service",
                    world.verifier.verify_service(&world.ring, &token, now).is_ok(),
                ),
                ("logout", world.verifier.verify_logout(&world.ring, &token, now).is_ok()),
            ];
            for (as_what, is_accepted) in read {
                let own = match as_what {
                    "logout" => TokenKind::Logout,
                    _ => TokenKind::Access,
                };
                assert_eq!(
                    is_accepted,
                    *said == as_what && kind == own,
                    "{said} as {kind:?}, read as {as_what}"
                );
            }
        }
    }
}
