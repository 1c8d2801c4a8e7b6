//! What services hear about tokens (RFC 7662), and how recently a factor was shown (RFC 9470).

use axum::http::Method;
use serde_json::{Value, json};

use crate::access_tokens::claims;
use crate::app::TestApp;
use crate::browser::{ACCESS, Browser};
use crate::people::Admin;
use crate::program::Program;
use crate::service::{Service, post_form};

#[tokio::test]
async fn r11_a_service_hears_the_claims_of_a_living_token() {
    let app = TestApp::start("r11 active").await;
    let asking = Service::resource_server(&app).await;
    let person = app.add_person("max", &["member"], true).await;
    let program = Program::signed_in(&app, &person).await;
    let reply = asking
        .ask("/oauth/introspect", &[("token", &program.access)])
        .await
        .expect(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let mut expected = claims(&program.access);
    for (name, value) in [("active", json!(true)), ("token_type", json!("Bearer"))] {
        expected[name] = value;
    }
    assert_eq!(reply.json(), expected);
    assert_eq!(expected["sub"], person.id.to_string());
    for name in ["sid", "roles", "exp", "iat", "acr", "auth_time", "amr", "client_id"] {
        assert!(!expected[name].is_null(), "{name}");
    }
    let browser_token = {
        let mut browser = Browser::new(&app);
        browser.sign_in(&person).await;
        browser.cookie(ACCESS)
    };
    assert_eq!(asking.introspect(&browser_token).await["client_id"], "mayfly-browser");

    let other = Service::add(&app, "other", "read write").await;
    let token = other.token().await;
    let said = asking.introspect(&token).await;
    assert_eq!(
        (&said["active"], &said["sub"], &said["scope"]),
        (&json!(true), &json!(other.client_id), &json!("read write"))
    );
    assert!(said.get("sid").is_none() && said.get("roles").is_none());
}

#[tokio::test]
async fn r11_everything_not_fully_valid_is_inactive_and_nothing_more_is_said() {
    let app = TestApp::start("r11 inactive").await;
    let asking = Service::resource_server(&app).await;
    let other = Service::add(&app, "other", "read").await;
    let mut admin = Admin::sign_in(&app).await;
    let (person, program) = app.add_program("max").await;
    let stranger = TestApp::start_with("r11 stranger", &[("PUBLIC_URL", "https://other.example")]).await;
    let (_, elsewhere) = stranger.add_program("max").await;
    let inactive = json!({ "active": false });
    let hears = async |token: &str| asking.introspect(token).await;
    let altered = program.access.replacen('.', ".A", 1);
    for token in [
        "x",
        "a.b.c",
        &program.refresh,
        &altered,
        &elsewhere.access,
        &"x".repeat(9000),
    ] {
        assert_eq!(hears(token).await, inactive, "{token:.40}");
    }
    assert!(hears(&program.access).await["active"].as_bool().expect("a boolean"));

    // The session over.
    let ended = Program::signed_in(&app, &person).await;
    program.end(&ended.session_id).await.expect(200);
    assert_eq!(hears(&ended.access).await, inactive);
    // Roles changed: the token says what is no longer so.
    admin
        .browser
        .open(&format!("/admin/people/{}", person.id))
        .await
        .expect(200);
    let id = person.id.to_string();
    admin
        .browser
        .submit_and_follow(
            "set_roles",
            &[("person_id", &id), ("roles[]", "member"), ("roles[]", "auditor")],
        )
        .await;
    assert_eq!(hears(&program.access).await, inactive);
    // A service whose client is gone.
    let token = other.token().await;
    assert_eq!(hears(&token).await["active"], json!(true));
    other.disable().await;
    assert_eq!(hears(&token).await, inactive);
    // Time.
    let (_, late) = app.add_program("moritz").await;
    app.pass(900 + 29);
    assert_eq!(hears(&late.access).await["active"], json!(true));
    app.pass(1);
    assert_eq!(hears(&late.access).await, inactive);
}

#[tokio::test]
async fn r11_only_clients_that_may_ask_get_an_answer() {
    let app = TestApp::start("r11 who").await;
    let (_, program) = app.add_program("max").await;
    let plain = Service::add(&app, "plain", "read").await;
    let denied = app.events("authz_fail").await;
    let refused = plain
        .ask("/oauth/introspect", &[("token", &program.access)])
        .await
        .expect(403);
    assert_eq!(refused.code(), "unauthorized_client");
    assert!(!refused.body.contains("active"));
    assert_eq!(app.events("authz_fail").await, denied + 1);
    for headers in [vec![], vec![("authorization", format!("Bearer {}", program.access))]] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let fields = [("token", &*program.access), ("client_id", "mayfly-native")];
        post_form(&app, "/oauth/introspect", &headers, &fields)
            .await
            .expect(401);
    }
    let asking = Service::resource_server(&app).await;
    for fields in [&[][..], &[("token", "")], &[("token", "x"), ("token", "y")]] {
        let refused = asking.ask("/oauth/introspect", fields).await.expect(400);
        assert_eq!(refused.code(), "invalid_request");
    }
    asking.disable().await;
    asking
        .ask("/oauth/introspect", &[("token", &program.access)])
        .await
        .expect(401);
}

#[tokio::test]
async fn r11_asking_about_a_token_keeps_nobody_signed_in() {
    let app = TestApp::start("r11 idle").await;
    let asking = Service::resource_server(&app).await;
    let (_, program) = app.add_program("max").await;
    let active = async || app.number("SELECT last_active_at FROM sessions").await;
    let before = active().await;
    app.pass(600);
    assert_eq!(asking.introspect(&program.access).await["active"], json!(true));
    assert_eq!(
        active().await,
        before,
        "a service's question is no activity of the person"
    );
    program.sessions().await.expect(200);
    assert!(active().await > before);
}

#[tokio::test]
async fn r13_a_challenge_says_how_strongly_and_how_recently_and_one_new_sign_in_meets_it() {
    let app = TestApp::start("r13").await;
    let asking = Service::resource_server(&app).await;
    for (name, roles, with_factor, classes, step_up) in [
        ("max", ["member"], false, "aal2 aal1", 15 * 60),
        ("root", ["admin"], true, "aal2", 10 * 60),
    ] {
        let person = app.add_person(name, &roles, with_factor).await;
        let target = Program::signed_in(&app, &person).await;
        let program = Program::signed_in(&app, &person).await;
        app.pass(step_up + 1);
        let mut program = program;
        program.renew().await.expect(200);
        let old = asking.introspect(&program.access).await;
        let challenge = program.end(&target.session_id).await.expect(401);
        let challenge = challenge.header("www-authenticate").expect("a challenge").to_owned();
        for part in [
            "Bearer error=\"insufficient_user_authentication\"",
            "error_description=\"",
            &format!("acr_values=\"{classes}\""),
            "max_age=",
        ] {
            assert!(challenge.contains(part), "{part} in {challenge}");
        }
        let max_age: i64 = challenge
            .rsplit("max_age=")
            .next()
            .expect("an age")
            .parse()
            .expect("a number");
        let age = |said: &Value| app.now().as_seconds() - said["auth_time"].as_i64().expect("a time");
        assert!(age(&old) > max_age, "a service that asks sees the same");

        let program = Program::signed_in(&app, &person).await;
        let new = asking.introspect(&program.access).await;
        assert!(age(&new) < max_age);
        assert!(classes.split(' ').any(|class| new["acr"] == class), "{new}");
        let path = format!("/api/v1/me/sessions/{}", target.session_id);
        program
            .ask_with(&program.access, Method::DELETE, &path)
            .await
            .expect(200);
    }
}

/// Our own challenge never says `max_age=0`: a policy allows a minute at least. A service with rules of its own may say
/// it, and then one new sign-in has to be enough, or the client would go round for ever.
#[tokio::test]
async fn r13_a_service_that_says_max_age_0_is_met_by_one_new_sign_in_and_by_no_refresh() {
    let app = TestApp::start("r13 zero").await;
    let asking = Service::resource_server(&app).await;
    let (person, mut program) = app.add_program("max").await;
    let age = async |program: &Program| {
        let said = asking.introspect(&program.access).await;
        app.now().as_seconds() - said["auth_time"].as_i64().expect("a time")
    };
    app.pass(60);
    assert_eq!(age(&program).await, 60, "the service would send it away");
    program.renew().await.expect(200);
    assert_eq!(age(&program).await, 60, "a refresh shows no factor");
    for _ in 0..2 {
        assert_eq!(age(&Program::signed_in(&app, &person).await).await, 0, "once is enough");
        app.pass(1);
    }
}
