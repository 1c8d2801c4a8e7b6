//! The doors for other software as a whole: refreshing for native programs, the metadata, and browsers kept out.

use axum::http::Method;
use serde_json::json;

use crate::access_tokens::claims;
use crate::app::{ORIGIN, TestApp};
use crate::browser::{Browser, REFRESH};
use crate::people::Member;
use crate::program::Program;
use crate::service::{Key, Service, post_form};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[expect(
    clippy::too_many_lines,
    reason = "the whole table of outcomes, then what is no token at all"
)]
#[tokio::test]
async fn r1_a_native_program_refreshes_at_the_token_endpoint_by_the_same_rules() {
    let app = TestApp::start("r1 token endpoint").await;
    let (person, program) = app.add_program("max").await;
    let present = async |token: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", "mayfly-native"),
        ];
        post_form(&app, "/oauth/token", &[], &fields).await
    };
    let outcome = |reply: &crate::reply::Reply| reply.header("mayfly-refresh").expect("named").to_owned();
    app.pass(3);
    let fresh = present(&program.refresh).await.expect(409);
    assert_eq!(
        (fresh.code(), outcome(&fresh)),
        ("fresh".to_owned(), "fresh".to_owned())
    );
    assert_eq!(fresh.header("retry-after"), Some("7"), "then it is good again");
    app.pass(7);
    let first = present(&program.refresh).await.expect(200);
    assert_eq!(outcome(&first), "rotated");
    assert_eq!(first.header("cache-control"), Some("no-store"));
    assert!(first.cookies().is_empty());
    let child = first.json()["refresh_token"].as_str().expect("a token").to_owned();
    assert_eq!(
        (&first.json()["token_type"], &first.json()["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    app.pass(4);
    let again = present(&program.refresh).await.expect(200);
    assert_eq!(
        (outcome(&again), &again.json()["refresh_token"]),
        ("reissued".to_owned(), &json!(child))
    );
    let fresh = present(&child).await.expect(409);
    assert_eq!(
        fresh.header("retry-after"),
        Some("10"),
        "counted from when it was handed out last"
    );
    app.pass(20);
    present(&child).await.expect(200);
    let lost = present(&program.refresh).await.expect(409);
    assert_eq!(
        (lost.code(), outcome(&lost)),
        ("superseded".to_owned(), "superseded".to_owned())
    );
    assert!(lost.header("retry-after").is_none(), "it is never good again");
    app.pass(61);
    let reused = present(&program.refresh).await.expect(400);
    assert_eq!(
        (reused.code(), outcome(&reused)),
        ("invalid_grant".to_owned(), "reused".to_owned())
    );
    assert_eq!(app.events("authn_token_reuse").await, 1);
    let over = present(&child).await.expect(400);
    assert_eq!(
        (over.code(), outcome(&over)),
        ("invalid_grant".to_owned(), "over".to_owned())
    );
    assert!(
        over.json()["error_description"]
            .as_str()
            .expect("text")
            .contains("came back")
    );

    let program = Program::signed_in(&app, &person).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    app.pass(60);
    for token in ["mfr_x", "x", &program.access, &browser.cookie(REFRESH)] {
        let answer = present(token).await.expect(400);
        assert_eq!(answer.code(), "invalid_grant");
    }
    let service = Service::add(&app, "reports", "read").await;
    let grant = ("grant_type", "refresh_token");
    let token = ("refresh_token", &*program.refresh);
    for (fields, status, code) in [
        (vec![grant], 400, "invalid_request"),
        (vec![grant, ("refresh_token", "")], 400, "invalid_request"),
        (vec![grant, token, token], 400, "invalid_request"),
        (
            vec![grant, token, ("client_id", "mayfly-browser")],
            401,
            "invalid_client",
        ),
        (
            vec![grant, token, ("client_id", &service.client_id)],
            401,
            "invalid_client",
        ),
        (vec![grant, token, ("scope", "admin")], 400, "invalid_scope"),
    ] {
        let answer = post_form(&app, "/oauth/token", &[], &fields).await.expect(status);
        assert_eq!(answer.code(), code, "{fields:?}");
    }
    assert_eq!(
        service.ask("/oauth/token", &[grant, token]).await.expect(400).code(),
        "unauthorized_client"
    );
    post_form(&app, "/oauth/token", &[], &[grant, token]).await.expect(200);
}

#[tokio::test]
async fn r12_the_metadata_lists_exactly_what_is_there() {
    let app = TestApp::start("r12").await;
    let asking = Program::new(&app);
    let reply = asking
        .ask_with("", Method::GET, "/.well-known/oauth-authorization-server")
        .await
        .expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let said = reply.json();
    let (service, signing) = (
        Service::add(&app, "one", "read").await,
        Service::with_key(&app, "two", "read", Key::ed_dsa()).await,
    );
    assert_eq!(said["issuer"], ORIGIN);
    assert_eq!(
        claims(&service.token().await)["iss"],
        said["issuer"],
        "letter by letter"
    );
    for (member, path) in [
        ("token_endpoint", "/oauth/token"),
        ("revocation_endpoint", "/oauth/revoke"),
        ("introspection_endpoint", "/oauth/introspect"),
    ] {
        assert_eq!(said[member], format!("{ORIGIN}{path}"));
        let reply = post_form(&app, path, &[], &[]).await;
        assert!(matches!(reply.status.as_u16(), 400 | 401), "{path}: {}", reply.status);
    }
    assert_eq!(said["jwks_uri"], format!("{ORIGIN}/.well-known/jwks.json"));
    asking
        .ask_with("", Method::GET, "/.well-known/jwks.json")
        .await
        .expect(200);
    assert_eq!(
        said["grant_types_supported"],
        json!(["client_credentials", "refresh_token"])
    );
    let methods = json!(["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]);
    assert_eq!(said["token_endpoint_auth_methods_supported"], methods);
    signing.present(&signing.assertion("one")).await.expect(200);
    for algorithm in said["token_endpoint_auth_signing_alg_values_supported"]
        .as_array()
        .expect("a list")
    {
        let key = if algorithm == "ES256" {
            Key::es256()
        } else {
            Key::ed_dsa()
        };
        let service = Service::with_key(&app, &format!("key {algorithm}"), "read", key.clone()).await;
        let assertion = key.sign(&json!({ "alg": algorithm }), &service.assertion_claims("one"));
        service.present(&assertion).await.expect(200);
    }
    for absent in [
        "authorization_endpoint",
        "registration_endpoint",
        "code_challenge_methods_supported",
    ] {
        assert!(said.get(absent).is_none(), "{absent}");
    }
    assert_eq!(said["response_types_supported"], json!([]));
    let api = asking
        .ask_with("", Method::GET, "/api/openapi.json")
        .await
        .expect(200)
        .json();
    for path in ["/oauth/token", "/oauth/revoke", "/oauth/introspect"] {
        assert!(
            api["paths"][path]["post"].is_object(),
            "{path} is in the document of the API"
        );
    }
    assert!(api["paths"]["/.well-known/oauth-authorization-server"]["get"].is_object());
}

#[tokio::test]
async fn c8_doors_for_programs_refuse_other_sites_and_look_at_no_cookie() {
    let app = TestApp::start("c8 oauth").await;
    let mut member = Member::sign_in(&app, "max").await;
    let cookies: Vec<String> = member
        .browser
        .jar
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let cookie = ("cookie", &*cookies.join("; "));
    let refresh = member.browser.cookie(REFRESH);
    let fields = [("token", &*refresh)];
    for foreign in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("origin", "null"),
    ] {
        post_form(&app, "/oauth/revoke", &[foreign, cookie], &fields)
            .await
            .expect(403);
        post_form(&app, "/oauth/token", &[foreign], &[GRANT]).await.expect(403);
    }
    member.browser.open("/").await.expect(200);
    // With the cookies of somebody who is signed in nothing is different from without.
    for path in ["/oauth/revoke", "/oauth/introspect", "/oauth/token"] {
        let fields = [("grant_type", "refresh_token")];
        let with = post_form(&app, path, &[cookie], &fields).await;
        let without = post_form(&app, path, &[], &fields).await;
        assert_eq!((with.status, &with.body), (without.status, &without.body), "{path}");
        assert!(with.cookies().is_empty(), "{path}");
    }
    member.browser.open("/").await.expect(200);
}
