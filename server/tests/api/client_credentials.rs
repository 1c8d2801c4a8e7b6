//! Tokens for other software, the doors they open and those they do not, and the token endpoint for native programs.

use axum::http::{HeaderMap, HeaderValue, Method};
use secrecy::ExposeSecret as _;
use serde_json::json;
use server::domain::audit::Circumstances;
use server::domain::client::{ClientId, Scopes};
use server::domain::clock::Timestamp;
use server::domain::id::{TokenId, UserId};
use server::domain::jwt::{ServiceClaims, sign_access, sign_service};
use server::domain::revocation::{Presented, Verdict};
use server::domain::session::Client;
use server::http::oauth::admit_service;
use server::services::oauth::ServiceOutcome;
use server::services::tokens::{AccessOutcome, RefreshOutcome};

use crate::access_tokens::claims;
use crate::app::{ORIGIN, SeededRandom, TestApp};
use crate::browser::{ACCESS, Browser, REFRESH};
use crate::program::Program;
use crate::service::{Key, Service, post_form, post_text};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn r7_a_client_gets_a_token_for_minutes_with_only_granted_scopes_and_no_refresh_token() {
    let app = TestApp::start("r7 token").await;
    let service = Service::add(&app, "reports", "read write").await;
    let reply = service.ask("/oauth/token", &[GRANT]).await.expect(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    assert!(reply.cookies().is_empty());
    let body = reply.json();
    let token = body["access_token"].as_str().expect("a token");
    let expected = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": "read write" });
    assert_eq!(body, expected, "and nothing else");
    let said = claims(token);
    let now = app.now().as_seconds();
    let expected = json!({
        "iss": ORIGIN, "aud": ORIGIN, "sub": service.client_id, "client_id": service.client_id, "scope": "read write",
        "jti": said["jti"], "iat": now, "nbf": now, "exp": now + 300,
    });
    assert_eq!(said, expected, "and nothing else");
    assert!(token.len() <= 700, "{}", token.len());

    let fields = [
        GRANT,
        ("client_id", &*service.client_id),
        ("client_secret", &*service.secret),
        ("scope", "write"),
    ];
    let in_the_form = post_form(&app, "/oauth/token", &[], &fields).await.expect(200).json();
    assert_eq!(in_the_form["scope"], "write");
    assert_eq!(app.events("service_token_issued").await, 2);

    for scope in ["admin", "read admin", "write  read", "READ", "re\u{e4}d", "read read"] {
        let refused = service
            .ask("/oauth/token", &[GRANT, ("scope", scope)])
            .await
            .expect(400);
        assert_eq!(refused.code(), "invalid_scope", "{scope}");
    }
    let nothing = Service::resource_server(&app).await;
    assert_eq!(
        nothing.ask("/oauth/token", &[GRANT]).await.expect(400).code(),
        "invalid_scope"
    );
    assert_eq!(app.events("service_token_issued").await, 2);
    assert_eq!(
        app.events("authz_fail").await,
        4,
        "what was asked beyond the grant is written down"
    );
}

#[tokio::test]
async fn r7_whoever_proves_nothing_hears_the_same_every_time() {
    let app = TestApp::start("r7 nothing").await;
    let service = Service::add(&app, "reports", "read").await;
    let signing = Service::with_key(&app, "signing", "read", Key::es256()).await;
    let disabled = Service::add(&app, "disabled", "read").await;
    disabled.disable().await;
    let unknown = "svc-AZNxv8lYc4yDkVf0rQk8Vw";
    let mut answers = Vec::new();
    for (client_id, secret) in [
        (&*service.client_id, "wrong"),
        (&service.client_id, ""),
        (&service.client_id, &service.secret[1..]),
        (&service.client_id, &disabled.secret),
        (&signing.client_id, &service.secret),
        (&disabled.client_id, &disabled.secret),
        (unknown, &service.secret),
        ("", ""),
        ("nobody", "wrong"),
        ("mayfly-native", ""),
    ] {
        let basic = Service::basic(client_id, secret);
        let reply = post_form(&app, "/oauth/token", &[("authorization", &basic)], &[GRANT]).await;
        let reply = reply.expect(401);
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Basic realm=\"mayfly\", charset=\"UTF-8\"")
        );
        answers.push(reply.body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    assert_eq!(app.events("client_authentication_failed").await, 10);

    for authorization in [
        "Bearer x",
        "Basic",
        "Basic !",
        "Basic eA==",
        "Basic eDoleg==x",
        "Digest x",
    ] {
        let headers = [("authorization", authorization)];
        let reply = post_form(&app, "/oauth/token", &headers, &[GRANT]).await.expect(401);
        assert_eq!(reply.code(), "invalid_client", "{authorization}");
        assert!(reply.header("www-authenticate").is_some());
    }
    let basic = Service::basic(&service.client_id, &service.secret);
    let header = ("authorization", &*basic);
    let secret = ("client_secret", &*service.secret);
    for (headers, fields) in [
        (vec![header], vec![GRANT, ("client_id", &*service.client_id), secret]),
        (vec![header], vec![GRANT, ("client_id", &signing.client_id)]),
        (vec![header, header], vec![GRANT]),
        (vec![], vec![GRANT, secret]),
    ] {
        let reply = post_form(&app, "/oauth/token", &headers, &fields).await.expect(400);
        assert_eq!(reply.code(), "invalid_request", "{fields:?}");
    }
    post_form(&app, "/oauth/token", &[], &[GRANT]).await.expect(401);
    service.token().await;
}

#[tokio::test]
async fn r7_bad_requests_are_named_in_the_words_of_the_standard() {
    let app = TestApp::start("r7 bad").await;
    let service = Service::add(&app, "reports", "read").await;
    let basic = Service::basic(&service.client_id, &service.secret);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let many: Vec<String> = (0..40).map(|n| format!("p{n}=1")).collect();
    let many = many.join("&");
    let long = format!("grant_type=client_credentials&x={}", "y".repeat(70_000));
    for (kind, body, status, code) in [
        (
            form,
            "grant_type=client_credentials&grant_type=client_credentials",
            400,
            "invalid_request",
        ),
        (
            form,
            "grant_type=client_credentials&scope=read&scope=read",
            400,
            "invalid_request",
        ),
        (
            form,
            "grant_type=client_credentials&unknown=1&unknown=2",
            400,
            "invalid_request",
        ),
        (form, "", 400, "invalid_request"),
        (form, "grant_type=", 400, "invalid_request"),
        (form, "scope=read", 400, "invalid_request"),
        (
            form,
            "grant_type=password&username=a&password=b",
            400,
            "unsupported_grant_type",
        ),
        (
            form,
            "grant_type=authorization_code&code=x",
            400,
            "unsupported_grant_type",
        ),
        (form, "grant_type=Client_Credentials", 400, "unsupported_grant_type"),
        (form, "grant_type=%FF%FE", 400, "unsupported_grant_type"),
        (form, "\0\u{1}=%00&&&===", 400, "invalid_request"),
        (form, &many, 400, "invalid_request"),
        (form, &long, 413, "invalid_request"),
        (
            ("content-type", "application/json"),
            "{\"grant_type\":\"client_credentials\"}",
            400,
            "invalid_request",
        ),
        (
            ("content-type", "text/plain"),
            "grant_type=client_credentials",
            400,
            "invalid_request",
        ),
        (
            ("x-nothing", "x"),
            "grant_type=client_credentials",
            400,
            "invalid_request",
        ),
    ] {
        let reply = post_text(&app, "/oauth/token", &[kind, ("authorization", &basic)], body).await;
        assert_eq!(reply.status, status, "{:.80}: {}", body, reply.body);
        assert_eq!(reply.code(), code, "{body:.80}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{body:.80}");
        assert!(reply.json()["error_description"].is_string());
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let request = Program::new(&app).request(method, "/oauth/token");
        let request = request.body(axum::body::Body::empty()).expect("a request");
        app.send(Program::new(&app).peer, request).await.expect(405);
    }
    assert_eq!(app.events("service_token_issued").await, 0);
}

#[tokio::test]
async fn r7_the_secret_is_not_kept_and_its_bearer_is_limited_without_harm_to_the_owner() {
    let limits = [
        ("LIMITS__CLIENT__ADDRESS__BURST", "3"),
        ("LIMITS__CLIENT__ADDRESS__EVERY_SECONDS", "60"),
        ("LIMITS__CLIENT__ACCOUNT_AT_ADDRESS__BURST", "12"),
        ("LIMITS__CLIENT__ACCOUNT_AT_ADDRESS__EVERY_SECONDS", "60"),
    ];
    let app = TestApp::start_with("r7 limits", &limits).await;
    let service = Service::add(&app, "reports", "read").await;
    let token = service.token().await;
    let kept = String::from_utf8_lossy(&app.everything_kept().await).into_owned();
    for secret in [&*service.secret, &service.secret[4..], &token] {
        assert!(!kept.contains(secret));
    }
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let basic = Service::basic("svc-AZNxv8lYc4yDkVf0rQk8Vw", "guess");
        let fields = [("token", "x")];
        let reply = post_form(&app, "/oauth/introspect", &[("authorization", &basic)], &fields).await;
        if reply.status == 429 {
            assert!(reply.header("retry-after").is_some());
            assert_eq!(reply.code(), "slow_down");
        }
        statuses.push(reply.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429, 429, 429, 429, 429, 429]);
    assert_eq!(
        app.events("client_authentication_failed").await,
        3,
        "a flood is no flood of rows"
    );
    // Nor does it help to know the owner's name.
    for _ in 0..20 {
        let basic = Service::basic(&service.client_id, "guess");
        let reply = post_form(&app, "/oauth/token", &[("authorization", &basic)], &[GRANT]).await;
        reply.expect(429);
    }
    // From the very same network the owner notices nothing, up to its own limit.
    for _ in 0..11 {
        service.token().await;
    }
    service.ask("/oauth/token", &[GRANT]).await.expect(429);
    let other = Service::add(&app, "other", "read").await;
    other.token().await;
}

#[tokio::test]
async fn r7_a_token_signed_while_its_client_is_disabled_is_refused_whatever_its_time() {
    let app = TestApp::start("r7 race").await;
    let (service, other) = (
        Service::add(&app, "reports", "read").await,
        Service::add(&app, "other", "read").await,
    );
    service.disable().await;
    app.backend()
        .catch_up_with_revocations()
        .await
        .expect("the database answers");
    let verdict = |client: &Service, issued_at: Timestamp| {
        app.backend().revocation_verdict(&Presented {
            kid: "any",
            sub: &client.client_id,
            session: None,
            generation: 0,
            token: TokenId::new(issued_at, &SeededRandom::new("r7 race")),
            issued_at,
        })
    };
    // By a node that read the client a moment before, or has a clock that is ahead.
    for seconds in [-60, 0, 1, 5, 60] {
        let issued_at = Timestamp::from_seconds(app.now().as_seconds() + seconds);
        assert_eq!(verdict(&service, issued_at), Verdict::Revoked, "{seconds} s later");
        assert_eq!(verdict(&other, issued_at), Verdict::NotRevoked);
    }
}

#[expect(clippy::too_many_lines, reason = "every token at every kind of door")]
#[tokio::test]
async fn j9_a_persons_door_refuses_a_services_token_and_the_other_way_round() {
    let app = TestApp::start("j9").await;
    let service = Service::add(&app, "feed", "revocations").await;
    let (person, program) = app.add_program("max").await;
    let (backend, from) = (app.backend(), Circumstances::default());
    let token = service.token().await;
    let opens = async |token: &str| match backend.authenticate_service(token, "revocations", &from).await {
        Ok(ServiceOutcome::Valid(admitted)) => admitted.client.id.as_str() == service.client_id,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    };
    let is_person = async |token: &str| {
        let outcome = backend
            .authenticate(token, false, &from)
            .await
            .expect("the database answers");
        matches!(outcome, AccessOutcome::Valid(_))
    };
    assert_eq!((opens(&token).await, is_person(&token).await), (true, false));
    assert_eq!(
        (opens(&program.access).await, is_person(&program.access).await),
        (false, true)
    );
    assert_eq!((opens(&program.refresh).await, opens("").await), (false, false));

    program
        .ask_with(&token, Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    program
        .ask_with(&program.access, Method::GET, "/api/v1/me/sessions")
        .await
        .expect(200);
    let told = "SELECT count(*) FROM audit_events WHERE kind = 'authz_fail' AND reason = 'service_token'";
    assert_eq!(app.number(told).await, 2, "each time it is written down");
    let mut browser = Browser::new(&app);
    for cookie in [ACCESS, REFRESH] {
        browser.jar.insert(cookie.to_owned(), token.clone());
    }
    browser
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    browser.get("/admin").await.expect(303);
    let refreshed = backend
        .refresh(&token, Client::Native, true, &from)
        .await
        .expect("the database answers");
    assert!(matches!(refreshed, RefreshOutcome::Malformed));

    // Tokens that only our own key can sign, between the two kinds.
    let (keys, now) = (backend.keys(), app.now());
    let honest = ServiceClaims {
        iss: ORIGIN.to_owned(),
        aud: ORIGIN.to_owned(),
        client_id: ClientId::parse(&service.client_id).expect("an id"),
        scope: Scopes::parse("revocations").expect("scopes"),
        jti: TokenId::new(now, backend.random()),
        iat: now.as_seconds(),
        nbf: now.as_seconds(),
        exp: now.as_seconds() + 600,
    };
    let signed = |claims: &ServiceClaims| sign_service(&keys, claims).expect("signs").expose_secret().to_owned();
    assert!(opens(&signed(&honest)).await);
    for (what, claims) in [
        (
            "too long",
            ServiceClaims {
                exp: honest.exp + 1,
                ..honest.clone()
            },
        ),
        (
            "no scope",
            ServiceClaims {
                scope: Scopes::default(),
                ..honest.clone()
            },
        ),
        (
            "another issuer",
            ServiceClaims {
                iss: "https://evil.example".to_owned(),
                ..honest.clone()
            },
        ),
        (
            "another audience",
            ServiceClaims {
                aud: "https://evil.example".to_owned(),
                ..honest.clone()
            },
        ),
        (
            "a client that never was",
            ServiceClaims {
                client_id: ClientId::new(now, backend.random()),
                ..honest.clone()
            },
        ),
        (
            "from the future",
            ServiceClaims {
                nbf: now.as_seconds() + 31,
                ..honest.clone()
            },
        ),
    ] {
        assert!(!opens(&signed(&claims)).await, "{what}");
    }
    // A person whose claims name a service in every place where text is allowed is still a person.
    let live = match backend
        .authenticate(&program.access, false, &from)
        .await
        .expect("answers")
    {
        AccessOutcome::Valid(live) => live,
        other => panic!("{other:?}"),
    };
    let disguised = server::domain::jwt::AccessClaims {
        iss: ORIGIN.to_owned(),
        aud: ORIGIN.to_owned(),
        sub: live.user.id,
        client_id: service.client_id.clone(),
        sid: live.session.id,
        rg: 0,
        jti: TokenId::new(now, backend.random()),
        iat: now.as_seconds(),
        nbf: now.as_seconds(),
        exp: now.as_seconds() + 60,
        auth_time: now.as_seconds(),
        acr: "aal1".to_owned(),
        amr: vec!["pwd".to_owned()],
        roles: vec!["revocations".to_owned()],
        cnf: None,
    };
    let disguised = sign_access(&keys, &disguised)
        .expect("signs")
        .expose_secret()
        .to_owned();
    assert!(!opens(&disguised).await);
    assert!(person.id.to_string().parse::<UserId>().is_ok() && ClientId::parse(&person.id.to_string()).is_none());

    app.pass(329);
    assert!(opens(&token).await, "with the tolerance");
    app.pass(1);
    assert!(!opens(&token).await);
    let newer = service.token().await;
    service.disable().await;
    assert!(!opens(&newer).await, "dies with its client");
}

#[tokio::test]
async fn j9_a_door_for_services_says_what_it_misses() {
    let app = TestApp::start("j9 door").await;
    let feed = Service::add(&app, "feed", "revocations").await;
    let other = Service::add(&app, "other", "read").await;
    let (_, program) = app.add_program("max").await;
    let (state, from) = (app.state_of_handlers(), Circumstances::default());
    let knock = async |authorization: Option<String>| {
        let mut headers = HeaderMap::new();
        if let Some(text) = &authorization {
            headers.insert("authorization", HeaderValue::from_str(text).expect("a header"));
        }
        match admit_service(state, &headers, "revocations", &from).await {
            Ok(admitted) => (200, admitted.client.name.as_str().to_owned()),
            Err(refusal) => {
                let response = axum::response::IntoResponse::into_response(refusal);
                let challenge = response.headers()["www-authenticate"]
                    .to_str()
                    .expect("text")
                    .to_owned();
                (response.status().as_u16(), challenge)
            }
        }
    };
    let invalid = || (401, "Bearer error=\"invalid_token\"".to_owned());
    assert_eq!(
        knock(Some(format!("Bearer {}", feed.token().await))).await,
        (200, "feed".to_owned())
    );
    assert_eq!(knock(None).await, (401, "Bearer".to_owned()));
    assert_eq!(knock(Some(Service::basic("a", "b"))).await, (401, "Bearer".to_owned()));
    assert_eq!(knock(Some("Bearer x".to_owned())).await, invalid());
    assert_eq!(knock(Some(format!("Bearer {}", program.access))).await, invalid());
    let denied = app.events("authz_fail").await;
    assert_eq!(
        knock(Some(format!("Bearer {}", other.token().await))).await,
        (
            403,
            "Bearer error=\"insufficient_scope\", scope=\"revocations\"".to_owned()
        )
    );
    assert_eq!(app.events("authz_fail").await, denied + 1);
}
