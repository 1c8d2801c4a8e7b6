//! Access tokens at the doors: what is accepted in which place, and what revokes it.

use axum::http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use server::domain::client::REVOCATIONS;
use server::domain::jwt::{AccessClaims, Verifier, sign_access};

use crate::app::TestApp;
use crate::binding::{BOUND, BoundBrowser, REGISTER, RENEW, RESPONSE, SESSION_ID, offered};
use crate::browser::{ACCESS, Browser, DEVICE, FLOW, REFRESH};
use crate::holder::{Holder, ME};
use crate::people::{Admin, Member, Person};
use crate::program::Program;
use crate::service::{Key, Service, post_text};

/// The claims of a token as JSON.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The header of a token as JSON.
pub fn header(token: &str) -> Value {
    part(token, 0)
}

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).expect("a token has three parts");
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(text.as_bytes())
        .expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The kind that is at its right place as the bearer's token at people's doors.
fn is_a_persons_access(kind: &str) -> bool {
    matches!(kind, "access" | "browser access")
}

/// What a receiver is told of a session that ends: `secevent+jwt`, signed with the key of access tokens.
async fn security_event(app: &TestApp, program: &Program, person: &Person) -> String {
    let token = Service::add(app, "receiver", "security_events").await.token().await;
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let now = r#"{ "returnImmediately": true }"#;
    post_text(app, "/oauth/events", &headers, now).await.expect(200);
    let other = Program::signed_in(app, person).await;
    assert!(program.end(&other.session_id).await.status.is_success());
    app.seal().await;
    let told = post_text(app, "/oauth/events", &headers, now).await.expect(200).json();
    let mut sets = told["sets"].as_object().expect("by id").values();
    let set = sets.next().and_then(Value::as_str).expect("one").to_owned();
    assert_eq!(header(&set)["typ"], "secevent+jwt");
    set
}

#[expect(clippy::too_many_lines, reason = "a table: every kind at every door")]
#[tokio::test]
async fn j4_each_secret_is_accepted_at_its_own_door_only() {
    let app = TestApp::start("j4").await;
    let mut admin = Admin::sign_in(&app).await;
    let link = admin.invite("newcomer", &["member"]).await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    browser.open("/").await.expect(200);
    let program = Program::signed_in(&app, &person).await;
    let invitation = link.rsplit('/').next().expect("a secret").to_owned();
    let reader = Service::add(&app, "reader", REVOCATIONS).await;
    let signs = Service::with_key(&app, "signs", "read", Key::es256()).await;
    let resource_server = Service::resource_server(&app).await;
    let security_event = security_event(&app, &program, &person).await;
    let ended = program.session_id.parse().expect("an id");
    let logout_token = resource_server.logout_token(&person, ended);
    let mut owner = BoundBrowser::signed_in(&app, &person).await;
    // Time for a refresh to be due, so that a token at its right door is exchanged; and for a bound cookie to be asked for.
    app.pass(60);
    owner.renew().await.expect(200);
    let mut offered_to = BoundBrowser::new(&app);
    let offer = offered_to.sign_in(&person).await;
    let registration = offered_to.registration(&offered(&offer).expect("an offer"));
    // Good at this moment, for the one request that it is made for.
    let holder = Holder::signed_in(&app, &person, Key::es256()).await;
    let bound = holder.program.access.clone();
    let proof = holder.proof("GET", ME, Some(&bound));
    let secrets = [
        ("access", program.access.clone()),
        ("browser access", browser.cookie(ACCESS)),
        ("refresh", program.refresh.clone()),
        ("browser refresh", browser.cookie(REFRESH)),
        ("device", browser.cookie(DEVICE)),
        ("flow", browser.jar.get(FLOW).cloned().unwrap_or_default()),
        ("form token", browser.form_token.clone()),
        ("invitation", invitation),
        ("service token", reader.token().await),
        ("assertion", signs.assertion("once")),
        ("client secret", reader.secret.clone()),
        ("proof of possession", proof),
        ("security event", security_event),
        ("logout token", logout_token),
        ("bound cookie", owner.browser.cookie(BOUND)),
        ("signed for a bound cookie", owner.renewal(&owner.challenge)),
        ("signed to be bound", registration),
    ];
    for (kind, secret) in &secrets {
        assert!(!secret.is_empty(), "{kind}");
        let bearer = program
            .ask_with(secret, Method::GET, "/api/v1/me/sessions")
            .await
            .status
            .as_u16();
        assert_eq!(
            bearer == 200,
            is_a_persons_access(kind),
            "{kind} as a bearer token: {bearer}"
        );

        let mut jar = Browser::new(&app);
        jar.jar.insert(ACCESS.to_owned(), secret.clone());
        let cookie = jar
            .fetch_empty(Method::GET, "/api/v1/me/sessions")
            .await
            .status
            .as_u16();
        assert_eq!(
            cookie == 200,
            is_a_persons_access(kind),
            "{kind} as the access cookie: {cookie}"
        );

        let mut asking = Program::new(&app);
        let refreshed = asking.present(secret).await.status.as_u16();
        assert_eq!(
            refreshed == 200,
            *kind == "refresh",
            "{kind} as a program's refresh token: {refreshed}"
        );

        let mut jar = Browser::new(&app);
        jar.jar.insert(REFRESH.to_owned(), secret.clone());
        let refreshed = jar
            .fetch(Method::POST, "/auth/refresh", &json!({}))
            .await
            .status
            .as_u16();
        // The program's token was rotated just now; a browser's is not touched by the steps before.
        assert_eq!(
            refreshed == 200,
            *kind == "browser refresh",
            "{kind} as the refresh cookie: {refreshed}"
        );

        let proven = holder.ask("DPoP", &bound, &[secret.as_str()]).await.status.as_u16();
        assert_eq!(
            proven == 200,
            *kind == "proof of possession",
            "{kind} as a proof of possession: {proven}"
        );

        let mut slot = owner.clone();
        slot.browser.jar.insert(BOUND.to_owned(), secret.clone());
        let bound = slot.browser.fetch_empty(Method::GET, ME).await.status.as_u16();
        assert_eq!(
            bound == 200,
            *kind == "bound cookie",
            "{kind} as the bound cookie: {bound}"
        );

        let session = owner.session_id.clone();
        let renewal = [(SESSION_ID, session.as_str()), (RESPONSE, secret.as_str())];
        let renewed = owner.clone().post(RENEW, &renewal).await.status.as_u16();
        assert_eq!(
            renewed == 200,
            *kind == "signed for a bound cookie",
            "{kind} for a bound cookie: {renewed}"
        );

        let registered = offered_to.clone().post(REGISTER, &[(RESPONSE, secret)]).await;
        let registered = registered.status.as_u16();
        assert_eq!(
            registered == 200,
            *kind == "signed to be bound",
            "{kind} to be bound: {registered}"
        );

        let feed = program
            .ask_with(secret, Method::GET, "/oauth/revocations")
            .await
            .status
            .as_u16();
        assert_eq!(
            feed == 200,
            *kind == "service token",
            "{kind} at a service's door: {feed}"
        );

        let proven = signs.present(secret).await.status.as_u16();
        assert_eq!(proven == 200, *kind == "assertion", "{kind} as an assertion: {proven}");

        let claimed = Service {
            secret: secret.clone(),
            ..reader.clone()
        };
        let fields = [("grant_type", "client_credentials")];
        let issued = claimed.ask("/oauth/token", &fields).await.status.as_u16();
        assert_eq!(
            issued == 200,
            *kind == "client secret",
            "{kind} as a client's secret: {issued}"
        );

        // Introspection is about access tokens; that of everything else is not active.
        let active = resource_server.introspect(secret).await["active"] == true;
        assert_eq!(
            active,
            is_a_persons_access(kind) || *kind == "service token",
            "{kind} introspected"
        );

        let mut jar = Browser::new(&app);
        if secret.len() < 60 {
            jar.get(&format!("/welcome/open/{secret}")).await.expect(303);
            let welcome = jar.get("/welcome").await.status.as_u16();
            assert_eq!(
                welcome == 200,
                *kind == "invitation",
                "{kind} as an invitation: {welcome}"
            );
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn j5_a_token_of_our_own_key_with_one_wrong_claim_is_refused() {
    let app = TestApp::start("j5").await;
    let (_, program) = app.add_program("max").await;
    let (_, stranger) = app.add_program("moritz").await;
    let keys = app.backend().keys();
    let verifier = Verifier {
        issuer: app.backend().issuer().to_owned(),
        audience: claims(&program.access)["aud"]
            .as_str()
            .expect("one audience")
            .to_owned(),
        tolerance: std::time::Duration::from_secs(30),
        max_lifetime: std::time::Duration::from_hours(1),
    };
    let read = |token: &str| verifier.verify_access(&keys, token, app.now()).expect("our own token");
    let (good, strange) = (read(&program.access), read(&stranger.access));
    let sign = |claims: &AccessClaims| sign_access(&keys, claims).expect("signed").expose_secret().to_owned();
    program
        .ask_with(&sign(&good), Method::GET, "/api/v1/me/sessions")
        .await
        .expect(200);
    let now = app.now().as_seconds();
    let wrong: [(&str, AccessClaims); 12] = [
        (
            "another issuer",
            AccessClaims {
                iss: "https://evil.example".to_owned(),
                ..good.clone()
            },
        ),
        (
            "issuer with a slash",
            AccessClaims {
                iss: format!("{}/", good.iss),
                ..good.clone()
            },
        ),
        (
            "another audience",
            AccessClaims {
                aud: "https://other.example".to_owned(),
                ..good.clone()
            },
        ),
        (
            "another person",
            AccessClaims {
                sub: strange.sub,
                ..good.clone()
            },
        ),
        (
            "another person's session",
            AccessClaims {
                sid: strange.sid,
                ..good.clone()
            },
        ),
        (
            "a generation that never was",
            AccessClaims {
                rg: good.rg + 1,
                ..good.clone()
            },
        ),
        (
            "expired",
            AccessClaims {
                iat: now - 900,
                nbf: now - 900,
                exp: now - 31,
                ..good.clone()
            },
        ),
        (
            "not yet valid",
            AccessClaims {
                nbf: now + 31,
                ..good.clone()
            },
        ),
        (
            "issued in the future",
            AccessClaims {
                iat: now + 31,
                ..good.clone()
            },
        ),
        (
            "valid for too long",
            AccessClaims {
                exp: now + 3601,
                ..good.clone()
            },
        ),
        (
            "an unknown session",
            AccessClaims {
                sid: server::domain::id::SessionId(uuid::Uuid::nil()),
                ..good.clone()
            },
        ),
        (
            "ends before it begins",
            AccessClaims {
                exp: now - 1,
                iat: now,
                nbf: now,
                ..good.clone()
            },
        ),
    ];
    for (what, claims) in wrong {
        let reply = program
            .ask_with(&sign(&claims), Method::GET, "/api/v1/me/sessions")
            .await;
        assert_eq!(reply.status, 401, "{what}: {}", reply.body);
    }
    assert!(
        app.events("access_token_refused").await >= 1,
        "a generation that never was is recorded"
    );
}

#[tokio::test]
async fn j8_each_revocation_is_felt_by_the_very_next_request() {
    let app = TestApp::start("j8").await;
    let mut admin = Admin::sign_in(&app).await;
    // A new role: old access tokens are refused, the session goes on by refreshing.
    let (person, mut program) = app.add_program("max").await;
    let old = program.access.clone();
    let id = person.id.to_string();
    admin.browser.open(&format!("/admin/people/{id}")).await.expect(200);
    let fields = [
        ("person_id", id.as_str()),
        ("roles[]", "member"),
        ("roles[]", "auditor"),
    ];
    app.add_role("extra", server::domain::policy::presets()[0].lifetimes.clone())
        .await;
    let fields_now = [fields[0], fields[1], ("roles[]", "extra")];
    admin
        .browser
        .submit_and_follow("set_roles", &fields_now)
        .await
        .expect(200);
    program.sessions().await.expect(401);
    let reply = program.renew().await.expect(200);
    assert_eq!(
        reply.header("mayfly-refresh"),
        Some("rotated"),
        "at once, though the last rotation is fresh"
    );
    program.sessions().await.expect(200);
    assert_eq!(claims(&program.access)["roles"], json!(["extra", "member"]));
    program
        .ask_with(&old, Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);

    // Ended by the person from elsewhere.
    let (person, first) = app.add_program("moritz").await;
    let second = Program::signed_in(&app, &person).await;
    second.end(&first.session_id).await.expect(200);
    first.sessions().await.expect(401);
    second.sessions().await.expect(200);

    // A role that demands a second factor.
    let (person, third) = app.add_program("paul").await;
    let id = person.id.to_string();
    admin.browser.open(&format!("/admin/people/{id}")).await.expect(200);
    admin
        .browser
        .submit_and_follow("set_roles", &[("person_id", &id), fields[1], fields[2]])
        .await
        .expect(200);
    let over = third.sessions().await.expect(401);
    assert_eq!(over.json()["reason"], "factor_required");
}

/// RFC 6750, section 3.1: a client refreshes for the one, and signs in for the other.
#[tokio::test]
async fn j5_a_token_that_is_not_good_is_told_from_none() {
    let app = TestApp::start("j5 challenge").await;
    let (_, program) = app.add_program("max").await;
    app.pass(3600);
    for token in [program.access.as_str(), "nothing", ""] {
        let asked = program.ask_with(token, Method::GET, "/api/v1/me/sessions");
        let reply = asked.await.expect(401);
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Bearer error=\"invalid_token\""),
            "{token}"
        );
    }
    let without = Browser::new(&app).get("/api/v1/me/sessions").await.expect(401);
    assert_eq!(without.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn j11_the_key_set_has_public_members_only_and_verifies_our_tokens() {
    let app = TestApp::start("j11").await;
    let (_, program) = app.add_program("max").await;
    let reply = Browser::new(&app).get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    assert!(reply.cookies().is_empty());
    let set = reply.json();
    let keys = set["keys"].as_array().expect("keys");
    assert!(!keys.is_empty());
    for key in keys {
        let mut members: Vec<&str> = key.as_object().expect("an object").keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert_eq!((&key["use"], &key["alg"]), (&json!("sig"), &json!("ES256")));
    }
    let header = header(&program.access);
    assert!(keys.iter().any(|key| key["kid"] == header["kid"]));
    let mut names: Vec<&String> = header.as_object().expect("an object").keys().collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "kid", "typ"]);
}

#[tokio::test]
async fn j15_without_the_database_no_token_is_accepted() {
    let app = TestApp::start("j15").await;
    let (_, mut program) = app.add_program("max").await;
    program.sessions().await.expect(200);
    app.backend().store().close().await;
    let reply = program.sessions().await.expect(503);
    assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
    app.pass(60);
    program.renew().await.expect(503);
    Browser::new(&app).get("/readyz").await.expect(503);
    Browser::new(&app).get("/healthz").await.expect(200);
}

#[tokio::test]
async fn c3_cookies_say_nothing_about_a_person() {
    let app = TestApp::start("c3").await;
    let member = Member::sign_in(&app, "maximiliane").await;
    let jar = &member.browser.jar;
    let mut names: Vec<String> = claims(&jar[ACCESS])
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "acr",
            "amr",
            "aud",
            "auth_time",
            "client_id",
            "exp",
            "iat",
            "iss",
            "jti",
            "nbf",
            "rg",
            "roles",
            "sid",
            "sub"
        ]
    );
    for (name, value) in jar {
        let decoded: Vec<u8> = value
            .split(['.', '_'])
            .filter_map(|part| data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok())
            .flatten()
            .collect();
        let shown = format!("{value} {}", String::from_utf8_lossy(&decoded)).to_lowercase();
        for personal in ["maximiliane", "example.org", "example "] {
            assert!(!shown.contains(personal), "{name}: {shown}");
        }
    }
}
