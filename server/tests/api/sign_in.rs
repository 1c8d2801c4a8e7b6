//! From an empty server to the work of a day, in browsers without JavaScript.

use axum::body::Body;
use axum::http::Method;
use axum::http::header::SET_COOKIE;

use crate::app::TestApp;
use crate::browser::{ACCESS, Browser, REFRESH};
use crate::people::{PASSWORD, accept, enrol, first_admin_path, make_first_admin};

#[tokio::test]
async fn p11_a_fresh_server_has_no_account_and_one_link_that_works_once() {
    let app = TestApp::start("p11").await;
    assert_eq!(app.number("SELECT count(*) FROM users").await, 0);
    let page = Browser::new(&app).get("/sign-in").await.expect(200).page();
    assert!(page.contains("one-time link"), "the page says what to do: {page}");
    let mut admin = make_first_admin(&app).await;
    assert!(
        app.backend().first_admin_link().await.expect("answers").is_none(),
        "there is an administrator now"
    );
    admin.browser.open("/admin/people").await.expect(200);
    let used = app
        .number("SELECT count(*) FROM one_time_links WHERE used_at IS NOT NULL")
        .await;
    assert_eq!(used, 1);
}

#[tokio::test]
async fn p11_a_link_is_dead_after_an_hour_and_when_a_newer_one_exists() {
    let app = TestApp::start("p11 links").await;
    let link = async || first_admin_path(&app).await;
    let older = link().await;
    let newer = link().await;
    Browser::new(&app).open(&older).await.expect(404);
    Browser::new(&app).open(&newer).await.expect(200);
    app.pass(3600);
    Browser::new(&app).open(&newer).await.expect(404);
}

#[tokio::test]
async fn f73_a_whole_day_works_without_javascript() {
    let app = TestApp::start("f73").await;
    let mut admin = make_first_admin(&app).await;
    let link = admin.invite("max", &["member"]).await;
    let mut first = Browser::new(&app);
    let max = accept(&mut first, &link, "max").await;
    assert!(first.is_signed_in(), "a member without a second factor is in");
    let link = admin.invite("vera", &["auditor"]).await;
    let mut auditor = Browser::new(&app);
    let mut vera = accept(&mut auditor, &link, "vera").await;
    enrol(&mut auditor, &mut vera).await;

    // Two browsers, one ends the other.
    let mut second = Browser::elsewhere(&app);
    second.sign_in(&max).await;
    let page = second.open("/").await.expect(200);
    assert!(page.page().contains("Firefox on Linux") && page.page().contains("Chrome on Windows"));
    let session = page.between("/devices/end?session=", "\"");
    second
        .open(&format!("/devices/end?session={session}"))
        .await
        .expect(200);
    let page = second
        .submit_and_follow("end_session", &[("session_id", &session)])
        .await
        .expect(200);
    assert!(page.page().contains("Ended in the last 30 days"));
    let page = first.open("/").await.expect(200).page();
    assert!(
        page.contains("name=\"password\"") && page.contains("class=\"message\""),
        "signed out, and told why: {page}"
    );

    // The administrator tightens a limit; it ends a session; the auditor reads about it.
    app.pass(60);
    admin
        .save_policy("member", &[("idle_minutes", "15"), ("absolute_hours", "8")])
        .await;
    let version = app
        .number("SELECT max(version) AS v FROM policies WHERE role = 'member'")
        .await;
    assert_eq!(version, 2);
    app.pass(15 * 60 + 1);
    let page = second.open("/").await.expect(200).page();
    assert!(
        page.contains("15 minutes") && page.contains("member"),
        "the limit and its rule are named: {page}"
    );
    let next = vera.code(&app);
    auditor.give_password("vera", PASSWORD).await;
    auditor.open("/sign-in/code").await;
    auditor.submit_and_follow("verify_code", &[("code", &next)]).await;
    let log = auditor.open("/admin/audit").await.expect(200).page();
    for kind in ["policy_changed", "session_expired", "session_revoked"] {
        let page = auditor
            .open(&format!("/admin/audit?kind={kind}"))
            .await
            .expect(200)
            .page();
        assert!(page.contains(kind) || log.contains(kind), "{kind}");
    }
    auditor.submit("sign_out", &[]).await;
    assert!(!auditor.is_signed_in());
}

#[tokio::test]
async fn f66_the_answer_that_rotated_carries_the_new_cookies() {
    let app = TestApp::start("f66").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    for (round, path) in ["/", "/security", "/step-up", "/nowhere", "/devices/end-others"]
        .into_iter()
        .enumerate()
    {
        app.pass(16 * 60);
        let (access, refresh) = (browser.cookie(ACCESS), browser.cookie(REFRESH));
        let rotations = app.events("token_rotated").await;
        let request = browser
            .navigation(Method::GET, path, "same-origin")
            .body(Body::empty())
            .expect("a request");
        let reply = browser.send(request).await;
        assert_eq!(app.events("token_rotated").await, rotations + 1, "{path}: renewed once");
        for name in [ACCESS, REFRESH] {
            let lines = reply
                .cookies()
                .into_iter()
                .filter(|line| line.starts_with(&format!("{name}=")))
                .count();
            assert_eq!(lines, 1, "{path}: {:?}", reply.headers.get_all(SET_COOKIE));
        }
        assert_ne!((browser.cookie(ACCESS), browser.cookie(REFRESH)), (access, refresh));
        assert_eq!(
            app.number("SELECT max(generation) AS g FROM sessions").await,
            i64::try_from(round).expect("small") + 1
        );
        browser.get(path).await;
        assert_eq!(
            app.events("token_rotated").await,
            rotations + 1,
            "{path}: and not again"
        );
    }
}

#[tokio::test]
async fn f64_pages_fetched_ahead_rotate_nothing() {
    let app = TestApp::start("f64").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    app.pass(16 * 60);
    let before = app.state().await;
    for (name, value) in [
        ("sec-purpose", "prefetch"),
        ("sec-purpose", "prefetch;prerender"),
        ("purpose", "prefetch"),
    ] {
        let request = browser.navigation(Method::GET, "/", "same-origin").header(name, value);
        let reply = browser.send(request.body(Body::empty()).expect("a request")).await;
        assert!(
            reply.cookies().iter().all(|line| !line.starts_with(REFRESH)),
            "{name}: {value}"
        );
        assert!(!reply.page().contains("Your devices"));
    }
    let image = browser
        .request(Method::GET, "/")
        .header("sec-fetch-site", "same-origin");
    let image = image
        .header("sec-fetch-mode", "no-cors")
        .header("sec-fetch-dest", "image");
    browser.send(image.body(Body::empty()).expect("a request")).await;
    assert_eq!(app.state().await, before);
    browser.get("/").await.expect(200);
}

#[tokio::test]
async fn m12_a_link_from_elsewhere_finds_the_person_signed_in() {
    let app = TestApp::start("m12").await;
    let person = app.add_person("max", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    app.pass(16 * 60);
    let rotations = app.events("token_rotated").await;
    let request = browser
        .navigation(Method::GET, "/security", "cross-site")
        .body(Body::empty())
        .expect("a request");
    let reply = browser.send(request).await.expect(200);
    assert_eq!(
        app.events("token_rotated").await,
        rotations,
        "another site starts no renewal"
    );
    assert!(
        reply.body.contains("url=/security"),
        "the browser is asked to open it again as our own: {}",
        reply.body
    );
    browser.get("/security").await.expect(200);
    assert!(browser.is_signed_in());
}
