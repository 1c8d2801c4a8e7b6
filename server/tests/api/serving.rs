//! The real program: how it ends, and what it says of its state.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use serde_json::json;

use crate::app::TestApp;
use crate::browser::Browser;
use crate::program::Program;

fn login(browser: &Browser) -> Request<Body> {
    let body = json!({"identifier": "nobody", "password": "something long enough"});
    browser
        .request(Method::POST, "/auth/login")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f75_asked_to_stop_the_program_finishes_what_is_under_way() {
    let app = TestApp::spawn("f75", &[("LOG__FILTER", "info")]).await;
    let browser = Browser::new(&app);
    Browser::new(&app).get("/readyz").await.expect(200);
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..24 {
        // Each hashes a password; two at a time, so most wait in the program when it is asked to stop.
        let (app, request) = (app.clone(), login(&browser));
        asked.spawn(async move { app.process().try_send(request).await });
    }
    // All of them have arrived once the first one is through.
    let first = asked.join_next().await.expect("one of them").expect("no panic");
    assert_eq!(first.expect("answered").status, 401);
    app.process().terminate();
    let mut finished = 0;
    for answer in asked.join_all().await {
        let reply = answer.expect("what was under way is answered");
        assert_eq!(reply.status, 401, "{}", reply.body);
        finished += 1;
    }
    assert_eq!(finished, 23);
    let mut waited = 0;
    let ended = loop {
        if let Some(ended) = app.process().ended() {
            break ended;
        }
        assert!(waited < 100, "it ends within ten seconds: {}", app.process().said());
        tokio::time::sleep(Duration::from_millis(100)).await;
        waited += 1;
    };
    assert!(ended.success(), "{ended}: {}", app.process().said());
    assert!(
        app.process().try_send(login(&browser)).await.is_err(),
        "nobody answers any more"
    );
    assert!(
        app.number("SELECT count(*) FROM audit_events WHERE kind = 'authn_login_fail'")
            .await
            >= 24,
        "all written"
    );
}

#[tokio::test]
async fn f75_readiness_goes_before_anything_else_stops() {
    let app = TestApp::start("f75 readiness").await;
    let (_, mut program) = app.add_program("max").await;
    let mut browser = Browser::new(&app);
    let ready = browser.get("/readyz").await.expect(200).json();
    assert_eq!(
        ready,
        json!({"status": "ready", "database": true, "keys": true, "draining": false})
    );
    app.state_of_handlers().draining.begin();
    let draining = browser.get("/readyz").await.expect(503).json();
    assert_eq!(draining["draining"], true);
    browser.get("/healthz").await.expect(200);
    app.pass(60);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
}

#[tokio::test]
async fn m13_tries_beyond_the_limit_are_told_when_to_come_back_and_the_owner_elsewhere_is_not() {
    let app = TestApp::start_with(
        "m13",
        &[
            ("LIMITS__SIGN_IN__ACCOUNT_AT_ADDRESS__BURST", "3"),
            ("LIMITS__SIGN_IN__ACCOUNT_AT_ADDRESS__EVERY_SECONDS", "30"),
        ],
    )
    .await;
    let person = app.add_person("max", &["member"], false).await;
    let mut attacker = Program::new(&app);
    let wrong = json!({"identifier": "max", "password": "wrong but long enough"});
    for _ in 0..3 {
        attacker.post("/auth/login", &wrong).await.expect(401);
    }
    let told = attacker.post("/auth/login", &wrong).await.expect(429);
    let wait: u64 = told.header("retry-after").expect("says when").parse().expect("seconds");
    assert!((1..=30).contains(&wait), "{wait}");
    let mut browser = Browser::elsewhere(&app);
    browser.sign_in(&person).await;
    app.pass(wait);
    attacker.post("/auth/login", &wrong).await.expect(401);
}
