//! Clients that prove themselves with a signature (RFC 7523): once, to us, for minutes.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use server::services::forgetting::Past;

use crate::access_tokens::claims;
use crate::app::{ORIGIN, TestApp};
use crate::service::{Key, Service, post_form};

#[tokio::test]
async fn r7_a_signed_assertion_is_good_once() {
    let app = TestApp::start("r7 once").await;
    // Nothing is cleared away so soon after the start.
    app.pass(3600);
    for (name, key) in [("one", Key::es256()), ("two", Key::ed_dsa())] {
        let service = Service::with_key(&app, name, "read", key).await;
        let issued = app.events("service_token_issued").await;
        let assertion = service.assertion("first");
        let reply = service.present(&assertion).await.expect(200).json();
        assert_eq!(
            claims(reply["access_token"].as_str().expect("a token"))["sub"],
            service.client_id.as_str()
        );
        let refused = service.present(&assertion).await.expect(401);
        assert_eq!(refused.code(), "invalid_client");
        // Another signature, the same jti.
        service.present(&service.assertion("first")).await.expect(401);
        // Not even after the program was started again, and until it would be too old anyhow.
        let again = Service {
            app: app.restart().await,
            ..service.clone()
        };
        again.present(&assertion).await.expect(401);
        app.pass(89);
        service.present(&assertion).await.expect(401);
        app.backend()
            .forget(Past::Assertions)
            .await
            .expect("the database answers");
        assert_eq!(app.number("SELECT count(*) FROM client_assertions").await, 1);
        // A node whose clock is two minutes behind takes it for as long.
        app.pass(1);
        service.present(&assertion).await.expect(401);
        app.pass(119);
        app.backend()
            .forget(Past::Assertions)
            .await
            .expect("the database answers");
        assert_eq!(app.number("SELECT count(*) FROM client_assertions").await, 1);
        app.pass(1);
        app.backend()
            .forget(Past::Assertions)
            .await
            .expect("the database answers");
        assert_eq!(app.number("SELECT count(*) FROM client_assertions").await, 0);
        service.present(&assertion).await.expect(401);
        assert_eq!(app.events("service_token_issued").await, issued + 1);
        service.present(&service.assertion("second")).await.expect(200);
        app.execute("DELETE FROM client_assertions").await;
    }
    let replays = "SELECT count(*) FROM audit_events WHERE reason = 'assertion_replayed'";
    assert_eq!(app.number(replays).await, 2 * 4);
}

#[tokio::test]
async fn r7_of_50_uses_of_one_assertion_at_once_exactly_one_succeeds() {
    let app = TestApp::start("r7 at once").await;
    let service = Service::with_key(&app, "one", "read", Key::es256()).await;
    let assertion = service.assertion("only");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (service, assertion) = (service.clone(), assertion.clone());
        asking.spawn(async move { service.present(&assertion).await.status.as_u16() });
    }
    let mut statuses = asking.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 401), "{statuses:?}");
}

/// One member changed; `null` takes it away.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    object
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn r7_an_assertion_with_anything_wrong_proves_nothing() {
    let app = TestApp::start("r7 wrong").await;
    let stranger = Service::with_key(&app, "stranger", "read", Key::es256()).await;
    for (name, key) in [("one", Key::es256()), ("two", Key::ed_dsa())] {
        let service = Service::with_key(&app, name, "read", key.clone()).await;
        let header = json!({ "alg": key.alg(), "kid": "k1", "typ": "JWT" });
        let now = app.now().as_seconds();
        let fraction: Value = serde_json::from_str(&format!("{}.5", now + 60)).expect("a number");
        let mut number = 0;
        let mut fresh = || {
            number += 1;
            service.assertion_claims(&format!("jti {number}"))
        };
        // What clients may do differently.
        for (what, header, claims) in [
            ("as it should be", header.clone(), fresh()),
            ("no kid", with(header.clone(), "kid", Value::Null), fresh()),
            ("no typ", with(header.clone(), "typ", Value::Null), fresh()),
            (
                "its own typ",
                with(header.clone(), "typ", json!("client-authentication+jwt")),
                fresh(),
            ),
            (
                "the endpoint as audience",
                header.clone(),
                with(fresh(), "aud", json!(format!("{ORIGIN}/oauth/token"))),
            ),
            (
                "both audiences",
                header.clone(),
                with(fresh(), "aud", json!([ORIGIN, format!("{ORIGIN}/oauth/token")])),
            ),
            ("no iat", header.clone(), with(fresh(), "iat", Value::Null)),
            ("a fraction", header.clone(), with(fresh(), "exp", fraction)),
            ("five minutes", header.clone(), with(fresh(), "exp", json!(now + 300))),
            ("a further claim", header.clone(), with(fresh(), "htm", json!("POST"))),
        ] {
            let reply = service.present(&key.sign(&header, &claims)).await;
            assert_eq!(reply.status, 200, "{what}: {}", reply.body);
        }
        let token_of = |claims: &Value| key.sign(&header, claims);
        let mut bad: Vec<(&str, String)> = Vec::new();
        for (what, claim, value) in [
            ("no issuer", "iss", Value::Null),
            ("another issuer", "iss", json!(stranger.client_id)),
            ("an issuer of the wrong type", "iss", json!([service.client_id])),
            ("no subject", "sub", Value::Null),
            ("another subject", "sub", json!(stranger.client_id)),
            ("no audience", "aud", Value::Null),
            ("an audience of nobody", "aud", json!([])),
            ("another audience", "aud", json!("https://evil.example")),
            ("a prefix of the audience", "aud", json!(format!("{ORIGIN}/"))),
            ("an audience too many", "aud", json!([ORIGIN, "https://evil.example"])),
            ("an audience of the wrong type", "aud", json!({ "0": ORIGIN })),
            ("no end", "exp", Value::Null),
            ("an end as text", "exp", json!((now + 60).to_string())),
            ("a negative end", "exp", json!(-1)),
            ("an end beyond all numbers", "exp", json!(1e300)),
            ("over", "exp", json!(now - 30)),
            ("too long", "exp", json!(now + 331)),
            ("from the future", "iat", json!(now + 31)),
            ("not yet", "nbf", json!(now + 31)),
            ("no jti", "jti", Value::Null),
            ("an empty jti", "jti", json!("")),
            ("a jti that is a number", "jti", json!(7)),
            ("a jti without end", "jti", json!("j".repeat(257))),
            ("a jti with a zero", "jti", json!("a\0b")),
        ] {
            bad.push((what, token_of(&with(fresh(), claim, value))));
        }
        for (what, member, value) in [
            ("no alg", "alg", Value::Null),
            ("none", "alg", json!("none")),
            (
                "the other alg",
                "alg",
                json!(if key.alg() == "ES256" { "EdDSA" } else { "ES256" }),
            ),
            ("a symmetric alg", "alg", json!("HS256")),
            ("an unknown kid", "kid", json!("k2")),
            ("a kid that is a number", "kid", json!(1)),
            ("the typ of an access token", "typ", json!("at+jwt")),
            ("a key brought along", "jwk", key.jwk()),
            ("an extension", "crit", json!(["exp"])),
        ] {
            bad.push((what, key.sign(&with(header.clone(), member, value), &fresh())));
        }
        let good = token_of(&fresh());
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        bad.push(("no signature", format!("{message}.")));
        bad.push(("somebody else's signature", {
            let theirs = stranger.key.as_ref().expect("has a key");
            theirs.sign(&with(header.clone(), "alg", json!(theirs.alg())), &fresh())
        }));
        let public = BASE64URL_NOPAD.encode(key.jwk()["x"].as_str().expect("text").as_bytes());
        bad.push(("the public key as a signature", format!("{message}.{public}")));
        bad.push(("padding", format!("{message}.{signature}=")));
        bad.push(("four parts", format!("{good}.x")));
        bad.push(("not a token", "x".to_owned()));
        let doubled = fresh()
            .to_string()
            .replacen('{', &format!("{{\"sub\":\"{}\",", service.client_id), 1);
        let parts = [header.to_string(), doubled].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
        bad.push(("a member twice", format!("{}.{}.{signature}", parts[0], parts[1])));
        let before = app.events("client_authentication_failed").await;
        for (what, assertion) in &bad {
            let reply = service.present(assertion).await;
            assert_eq!(reply.status, 401, "{what}: {}", reply.body);
            assert_eq!(reply.code(), "invalid_client", "{what}");
        }
        let refused = app.events("client_authentication_failed").await - before;
        assert_eq!(refused, i64::try_from(bad.len()).expect("few"), "each is written down");
        // Nothing of all this used anything up.
        service.present(&good).await.expect(200);
    }
}

#[tokio::test]
async fn r7_the_parameters_of_an_assertion_belong_together() {
    let app = TestApp::start("r7 parameters").await;
    let service = Service::with_key(&app, "one", "read", Key::es256()).await;
    let other = Service::add(&app, "other", "read").await;
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let assertion = service.assertion("one");
    let grant = ("grant_type", "client_credentials");
    for (fields, status, code) in [
        (vec![grant, ("client_assertion", &*assertion)], 400, "invalid_request"),
        (vec![grant, ("client_assertion_type", kind)], 400, "invalid_request"),
        (
            vec![
                grant,
                ("client_assertion", &assertion),
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
                ),
            ],
            400,
            "invalid_request",
        ),
        (
            vec![
                grant,
                ("client_assertion", &assertion),
                ("client_assertion_type", kind),
                ("client_id", &other.client_id),
            ],
            401,
            "invalid_client",
        ),
        (
            vec![
                grant,
                ("client_assertion", &assertion),
                ("client_assertion_type", kind),
                ("client_id", &service.client_id),
                ("client_secret", "x"),
            ],
            400,
            "invalid_request",
        ),
        (
            vec![grant, ("client_id", &service.client_id), ("client_secret", "x")],
            401,
            "invalid_client",
        ),
    ] {
        let reply = post_form(&app, "/oauth/token", &[], &fields).await.expect(status);
        assert_eq!(reply.code(), code, "{fields:?}");
    }
    let right = [
        grant,
        ("client_assertion", &*assertion),
        ("client_assertion_type", kind),
        ("client_id", &*service.client_id),
    ];
    post_form(&app, "/oauth/token", &[], &right).await.expect(200);
    // At the other doors, too, each is good once.
    let proof = |jti: &str| service.assertion(jti);
    let (two, three) = (proof("two"), proof("three"));
    for (assertion, status) in [(&two, 200), (&two, 401), (&three, 200)] {
        let fields = [
            ("token", "x"),
            ("client_assertion", assertion),
            ("client_assertion_type", kind),
        ];
        post_form(&app, "/oauth/revoke", &[], &fields).await.expect(status);
    }
}
