//! The real program: how it ends, and what it says of its state.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use serde_json::json;
use server::domain::clock::{Clock as _, SystemClock};
use server::domain::id::SessionId;
use server::storage::sessions;

use crate::app::TestApp;
use crate::browser::{Browser, DEVICE};
use crate::program::Program;

fn login(browser: &Browser) -> Request<Body> {
    let body = json!({"identifier": "nobody", "password": "something long enough"});
    browser
        .request(Method::POST, "/auth/login")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request")
}

/// Waits until the program that was asked to stop has ended, in good order.
async fn end_of(app: &TestApp) {
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
    end_of(&app).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f75_a_refresh_under_way_is_finished_and_its_tokens_are_good_after_a_restart() {
    // Signed in a minute ago: the next refresh rotates.
    let here = TestApp::start_at("f75 refresh", SystemClock.now().minus(Duration::from_mins(1))).await;
    let (_, mut program) = here.add_program("max").await;
    here.set_clock(SystemClock.now());
    let served = here.spawn_beside().await;
    program.app = served.clone();

    // What the refresh has to write is held: the whole file on SQLite, else the row.
    let session: SessionId = program.session_id.parse().expect("an id");
    let mut held = here.backend().store().write().await.expect("the database answers");
    let touched = sessions::touch_session(&mut held, session, here.now().into()).await;
    assert!(touched.expect("the database answers"), "the row is held");
    let under_way = tokio::spawn({
        let mut program = program.clone();
        async move {
            let reply = program.renew().await;
            (program, reply)
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    served.process().terminate();
    // It waits no longer than five seconds for what is held; the port closes after one.
    let closed = async {
        let question = || {
            let request = Browser::new(&served).request(Method::GET, "/healthz");
            request.body(Body::empty()).expect("a request")
        };
        while served.process().try_send(question()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), closed)
        .await
        .expect("nobody new is let in");
    assert!(!under_way.is_finished(), "it is under way");
    drop(held);

    let (mut program, reply) = under_way.await.expect("what was under way is answered");
    assert_eq!(
        (reply.status.as_u16(), reply.header("mayfly-refresh")),
        (200, Some("rotated")),
        "{}",
        reply.body
    );
    end_of(&served).await;
    let again = here.restart().await;
    again.set_clock(SystemClock.now().plus(Duration::from_secs(10)));
    program.app = again.clone();
    program.sessions().await.expect(200);
    let reply = program.renew().await.expect(200);
    assert_eq!(reply.header("mayfly-refresh"), Some("rotated"));
    assert_eq!(again.events("token_rotated").await, 2);
}

#[tokio::test]
async fn f75_readiness_goes_before_anything_else_stops() {
    let app = TestApp::start("f75 readiness").await;
    let (_, mut program) = app.add_program("max").await;
    let mut browser = Browser::new(&app);
    let ready = browser.get("/readyz").await.expect(200).json();
    assert_eq!(
        ready,
        json!({"status": "ready", "database": true, "keys": true, "clock": true, "draining": false})
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

#[tokio::test]
async fn m13_strangers_everywhere_cannot_keep_a_known_device_waiting() {
    let app = TestApp::start_with(
        "m13-known",
        &[
            ("LIMITS__SIGN_IN__ACCOUNT__BURST", "3"),
            ("LIMITS__SIGN_IN__ACCOUNT__EVERY_SECONDS", "3600"),
            ("LIMITS__CODE__ACCOUNT__BURST", "2"),
            ("LIMITS__CODE__ACCOUNT__EVERY_SECONDS", "3600"),
        ],
    )
    .await;
    let person = app.add_person("max", &["member"], true).await;
    let other = app.add_person("ann", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    browser.submit("sign_out", &[]).await.expect(303);
    let mut neighbour = Browser::elsewhere(&app);
    neighbour.sign_in(&other).await;
    neighbour.submit("sign_out", &[]).await.expect(303);

    let guess = json!({"identifier": "max", "password": "wrong but long enough"});
    for _ in 0..3 {
        let _ = Program::new(&app).post("/auth/login", &guess).await;
    }
    Program::new(&app).post("/auth/login", &guess).await.expect(429);
    // Somebody else's device is a stranger here, and so is a made-up secret.
    neighbour.fetch(Method::POST, "/auth/login", &guess).await.expect(429);
    let mut liar = browser.clone();
    let made_up = format!("{}x", liar.cookie(DEVICE));
    liar.jar.insert(DEVICE.to_owned(), made_up);
    liar.fetch(Method::POST, "/auth/login", &guess).await.expect(429);
    app.pass(30);
    browser.sign_in(&person).await;
}

#[tokio::test]
async fn a_page_that_is_looked_at_writes_nothing_into_the_web_session() {
    let app = TestApp::start("page view").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    for path in ["/", "/security", "/sign-in"] {
        browser.open(path).await;
        // Every write moves the end of the session.
        let end = app.rows("SELECT expires_at FROM flows").await;
        app.pass(60);
        browser.open(path).await;
        assert_eq!(app.rows("SELECT expires_at FROM flows").await, end, "{path}");
    }
}

#[tokio::test]
async fn f71_a_stranger_who_throws_cookies_away_cannot_fill_the_database() {
    let app = TestApp::start_with(
        "f71-flows",
        &[
            ("LIMITS__FORM__ADDRESS__BURST", "5"),
            ("LIMITS__FORM__ADDRESS__EVERY_SECONDS", "60"),
        ],
    )
    .await;
    let mut known = Browser::new(&app);
    known.get("/sign-in").await.expect(200);
    for _ in 0..4 {
        Browser::new(&app).get("/sign-in").await.expect(200);
    }
    let told = Browser::new(&app).get("/sign-in").await.expect(429);
    assert!(told.body.contains("<html"), "a page for people: {}", told.body);
    assert!(told.header("retry-after").is_some());
    // Who was here before, and who comes from elsewhere, notices nothing.
    known.get("/sign-in").await.expect(200);
    Browser::elsewhere(&app).get("/sign-in").await.expect(200);
}
