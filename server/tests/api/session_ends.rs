//! How sessions end, by whom, and that nothing of an ended one is accepted.

use axum::http::Method;
use serde_json::json;

use server::services::forgetting::Past;

use crate::app::TestApp;
use crate::browser::{ACCESS, Browser, DEVICE, FLOW, REFRESH};
use crate::people::{Admin, Member};
use crate::program::Program;

/// Nothing in this jar is accepted at any door.
async fn is_dead(jar: &Browser) {
    let program = Program::new(&jar.app);
    program
        .ask_with(&jar.cookie(ACCESS), Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    let mut page = jar.clone();
    let reply = page.get("/").await;
    assert!(
        reply.location().starts_with("/sign-in") || reply.location() == "/",
        "{:?}",
        reply.headers
    );
    jar.clone()
        .fetch(Method::POST, "/auth/refresh", &json!({}))
        .await
        .expect(401);
    jar.clone()
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
}

#[tokio::test]
async fn a_script_that_still_has_the_cookies_of_an_ended_session_can_sign_in_again() {
    let app = TestApp::start("ended cookies").await;
    let (person, program) = app.add_program("ada").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    browser.clone().submit("sign_out", &[]).await.expect(303);
    let body = json!({ "identifier": "ada", "password": person.password });
    browser.fetch(Method::POST, "/auth/login", &body).await.expect(200);
    assert!(browser.is_signed_in());
    browser.open("/").await.expect(200);
    program.sessions().await.expect(200);
}

#[tokio::test]
async fn a_request_with_the_cookies_of_before_a_step_up_leaves_the_new_ones_alone() {
    let app = TestApp::start("replaced cookies").await;
    let person = app.add_person("ada", &["member"], true).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    let mut late = browser.clone();
    app.pass(60);
    browser.step_up(&person, "/").await;
    let reply = late.fetch_empty(Method::GET, "/api/v1/me/sessions").await.expect(401);
    let cleared = reply.headers.get_all("set-cookie").iter().count();
    assert_eq!(cleared, 0, "{:?}", reply.headers);
    browser.open("/").await.expect(200);
}

#[tokio::test]
async fn what_comes_with_a_superseded_token_is_not_carried_out() {
    let app = TestApp::start("superseded acts").await;
    let person = app.add_person("ada", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    let mut other = Browser::new(&app);
    other.sign_in(&person).await;
    let mut behind = browser.clone();
    // The access token is over in both; one tab is quicker, and shows what it was given.
    app.pass(61 * 60);
    browser.open("/").await.expect(200);
    browser
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(200);
    behind
        .clone()
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(200);
    let all = "/api/v1/me/sessions";
    let reply = behind.fetch_empty(Method::DELETE, all).await.expect(409);
    assert!(reply.body.contains("superseded"), "{}", reply.body);
    assert_eq!(
        app.number("SELECT count(*) FROM sessions WHERE ended_at IS NULL").await,
        2
    );
}

#[tokio::test]
async fn r1_what_comes_with_a_refresh_token_right_after_it_was_given_out_is_not_carried_out() {
    let app = TestApp::start("fresh acts").await;
    let person = app.add_person("ada", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    app.pass(61 * 60);
    browser.open("/").await.expect(200);
    let mut copy = browser.clone();
    copy.jar.remove(server::http::cookies::ACCESS);
    copy.clone().open("/").await.expect(200);
    let sessions = "/api/v1/me/sessions";
    copy.clone().fetch_empty(Method::GET, sessions).await.expect(200);
    let reply = copy.fetch_empty(Method::DELETE, sessions).await.expect(409);
    assert!(reply.body.contains("superseded"), "{}", reply.body);
    browser.fetch_empty(Method::GET, sessions).await.expect(200);
    // A person is brought back to the page; a script would take that for a success. Not every browser says which it is.
    let mut copy = browser.clone();
    copy.open("/").await.expect(200);
    copy.jar.remove(ACCESS);
    copy.clone().submit_by_script("stay_signed_in", &[]).await.expect(409);
    copy.clone().submit("stay_signed_in", &[]).await.expect(303);
    let mut form = copy.form("stay_signed_in", &[]);
    for header in ["sec-fetch-mode", "sec-fetch-site", "sec-fetch-dest", "sec-fetch-user"] {
        form.headers_mut().remove(header);
    }
    copy.send(form).await.expect(303);
    // Whoever wants to be signed out is, in those seconds too.
    for by_form in [true, false] {
        let mut copy = browser.clone();
        copy.open("/").await.expect(200);
        copy.jar.remove(ACCESS);
        if by_form {
            copy.submit_and_follow("sign_out", &[]).await.expect(200);
        } else {
            copy.fetch_empty(Method::POST, "/auth/logout").await.expect(204);
        }
        is_dead(&browser).await;
        app.pass(31);
        browser.sign_in(&person).await;
    }
}

#[tokio::test]
async fn s5_every_new_proof_gives_new_secrets_and_kills_the_old_ones() {
    let app = TestApp::start("s5").await;
    let person = app.add_person("ada", &["member"], true).await;
    let mut browser = Browser::new(&app);
    browser.jar.insert(FLOW.to_owned(), "cGxhbnRlZGJ5YXRoaWVm".to_owned());
    browser.open("/sign-in").await;
    let before_password = browser.cookie(FLOW);
    assert_ne!(before_password, "cGxhbnRlZGJ5YXRoaWVm");
    let fields = [
        ("identifier", "ada"),
        ("password", person.password.as_str()),
        ("return_to", ""),
    ];
    browser.submit_and_follow("sign_in", &fields).await.expect(200);
    let pending = browser.cookie(FLOW);
    assert_ne!(pending, before_password, "the password step gives a new id");
    let code = person.code(&app);
    browser
        .submit_and_follow("verify_code", &[("code", &code)])
        .await
        .expect(200);
    assert_ne!(browser.jar.get(FLOW), Some(&pending), "the code step gives a new id");

    let signed_in = browser.clone();
    app.pass(31);
    browser.step_up(&person, "/security").await.expect(200);
    assert_ne!(browser.cookie(ACCESS), signed_in.cookie(ACCESS));
    assert_ne!(browser.cookie(REFRESH), signed_in.cookie(REFRESH));
    assert_ne!(browser.jar.get(FLOW), signed_in.jar.get(FLOW));
    is_dead(&signed_in).await;

    let stepped_up = browser.clone();
    browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", person.password.as_str()),
        ("new_password", "another quiet evening in May"),
    ];
    browser.submit_and_follow("change_password", &fields).await.expect(200);
    is_dead(&stepped_up).await;
    browser.open("/").await.expect(200);
    assert!(browser.is_signed_in());
    assert_eq!(
        app.number("SELECT count(*) FROM sessions WHERE ended_at IS NULL").await,
        1
    );
}

#[tokio::test]
async fn s6_after_signing_out_nothing_of_the_session_is_accepted() {
    let app = TestApp::start("s6").await;
    let mut member = Member::sign_in(&app, "max").await;
    let before = member.browser.clone();
    member.browser.submit("sign_out", &[]).await.expect(303);
    is_dead(&before).await;

    let (_, mut program) = app.add_program("moritz").await;
    let was = program.clone();
    let reply = program.ask_with(&program.access, Method::POST, "/auth/logout").await;
    assert_eq!(reply.status, 204, "{}", reply.body);
    was.sessions().await.expect(401);
    program.renew().await.expect(401);
    assert!(
        app.events("session_use_after_expire").await >= 2,
        "use after the end is recorded"
    );
}

#[tokio::test]
async fn r5_a_program_whose_access_token_is_over_is_not_told_that_it_is_signed_out() {
    let app = TestApp::start("r5 over").await;
    let (_, mut program) = app.add_program("ada").await;
    app.pass(16 * 60);
    let reply = program
        .ask_with(&program.access, Method::POST, "/auth/logout")
        .await
        .expect(401);
    assert_eq!(reply.code(), "invalid_token");
    assert!(reply.headers.contains_key("www-authenticate"));
    // It refreshes, and then it can.
    program.renew().await.expect(200);
    program
        .ask_with(&program.access, Method::POST, "/auth/logout")
        .await
        .expect(204);
    program.renew().await.expect(401);
}

#[tokio::test]
async fn s7_disabling_a_person_ends_every_session_at_once() {
    let app = TestApp::start("s7").await;
    let mut admin = Admin::sign_in(&app).await;
    let member = Member::sign_in(&app, "max").await;
    let mut program = Program::signed_in(&app, &member.person).await;
    admin.disable(&member.person).await;

    is_dead(&member.browser).await;
    program.sessions().await.expect(401);
    app.pass(20);
    assert_eq!(program.renew().await.expect(401).json()["reason"], "user_disabled");
    let refused = Program::new(&app).sign_in(&member.person).await.expect(401);
    assert_eq!(
        refused.code(),
        "wrong_credentials",
        "the answer does not say that the account exists"
    );

    let id = member.person.id.to_string();
    let page = admin.browser.open(&format!("/admin/people/{id}")).await.expect(200);
    assert!(page.body.contains("enable_person"));
    admin
        .browser
        .submit_and_follow("enable_person", &[("person_id", &id)])
        .await
        .expect(200);
    program.renew().await.expect(401);
    program.sessions().await.expect(401);
    Program::signed_in(&app, &member.person)
        .await
        .sessions()
        .await
        .expect(200);
}

#[tokio::test]
async fn s10_ending_another_session_needs_a_recent_factor() {
    let app = TestApp::start("s10").await;
    let mut member = Member::sign_in(&app, "max").await;
    let mut other = Browser::elsewhere(&app);
    other.sign_in(&member.person).await;
    let program = Program::signed_in(&app, &member.person).await;
    let list = program.sessions().await.expect(200).json();
    let of_other = list
        .as_array()
        .expect("a list")
        .iter()
        .find(|session| session["device"] == "Chrome on Windows")
        .map(|session| session["id"].as_str().expect("an id").to_owned())
        .expect("the other browser is listed");

    // Fifteen minutes later the last factor is too old.
    app.pass(15 * 60);
    let mut program = program;
    program.renew().await.expect(200);
    let refused = program.end(&of_other).await.expect(401);
    assert_eq!(refused.code(), "insufficient_user_authentication");
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(
        challenge.contains("insufficient_user_authentication") && challenge.contains("max_age=900"),
        "{challenge}"
    );
    let all = program
        .ask_with(&program.access, Method::DELETE, "/api/v1/me/sessions")
        .await
        .expect(401);
    assert_eq!(all.code(), "insufficient_user_authentication");

    let confirm = format!("/devices/end?session={of_other}");
    member.browser.open(&confirm).await.expect(200);
    let reply = member.browser.submit("end_session", &[("session_id", &of_other)]).await;
    assert!(
        reply.location().starts_with("/step-up?return_to="),
        "{}",
        reply.location()
    );
    other.get("/").await.expect(200);

    member.browser.open(reply.location()).await.expect(200);
    let fields = [
        ("answer", member.person.password.as_str()),
        ("return_to", confirm.as_str()),
    ];
    let back = member.browser.submit_and_follow("step_up", &fields).await.expect(200);
    assert!(
        back.page().contains("End this session?"),
        "step-up leads back to where it was asked for"
    );
    member
        .browser
        .submit_and_follow("end_session", &[("session_id", &of_other)])
        .await
        .expect(200);
    let gone = other.open("/").await.expect(200).page();
    assert!(
        gone.contains("name=\"password\""),
        "the other browser is out at its next click: {gone}"
    );
    assert!(
        gone.contains("another device") || gone.contains("ended"),
        "and its page says why: {gone}"
    );
}

#[tokio::test]
async fn s10_nobody_ends_or_sees_a_strangers_session() {
    let app = TestApp::start("s10 strangers").await;
    let (_, victim) = app.add_program("victim").await;
    let (_, thief) = app.add_program("thief").await;
    let before = app.events("authz_fail").await;
    let strange = thief.end(&victim.session_id).await.expect(404);
    let unknown = thief.end("01890a5d-ac96-774b-bcce-b302099a8057").await.expect(404);
    assert_eq!(
        strange.code(),
        unknown.code(),
        "a stranger's id is as unknown as one that never was"
    );
    assert_eq!(app.events("authz_fail").await, before + 2, "both are recorded");
    victim.sessions().await.expect(200);

    let mut browser = Browser::new(&app);
    let person = app.add_person("mallory", &["member"], false).await;
    browser.sign_in(&person).await;
    browser
        .get(&format!("/devices/end?session={}", victim.session_id))
        .await
        .expect(404);
    let reply = browser
        .submit_by_script("end_session", &[("session_id", &victim.session_id)])
        .await;
    assert_eq!(reply.status, 404, "{}", reply.body);
    victim.sessions().await.expect(200);
}

#[tokio::test]
async fn s15_signing_out_deletes_the_cookies_and_what_the_browser_kept() {
    let app = TestApp::start("s15").await;
    let mut member = Member::sign_in(&app, "max").await;
    let device = member.browser.cookie(DEVICE);
    let reply = member.browser.submit("sign_out", &[]).await;
    assert_eq!(reply.location(), "/sign-in");
    let clear = reply.header("clear-site-data").expect("the browser is told to forget");
    assert!(clear.contains("\"cache\"") && clear.contains("\"storage\""), "{clear}");
    for name in [ACCESS, REFRESH] {
        let line = reply
            .cookies()
            .into_iter()
            .find(|line| line.starts_with(&format!("{name}=")));
        let line = line.unwrap_or_else(|| panic!("{name} is deleted: {:?}", reply.cookies()));
        assert!(
            line.starts_with(&format!("{name}=;")) && line.contains("Max-Age=0"),
            "{line}"
        );
    }
    assert!(!member.browser.is_signed_in());
    assert_eq!(member.browser.jar.get(DEVICE), Some(&device), "the device stays known");
    let page = member.browser.open("/").await.expect(200);
    assert!(page.body.contains("name=\"password\""));
}

#[tokio::test]
async fn s9_an_administrator_ends_all_sessions_of_a_person() {
    let app = TestApp::start("s9").await;
    let mut admin = Admin::sign_in(&app).await;
    let member = Member::sign_in(&app, "max").await;
    let program = Program::signed_in(&app, &member.person).await;
    let id = member.person.id.to_string();
    admin
        .browser
        .open(&format!("/admin/people/{id}/end-sessions"))
        .await
        .expect(200);
    admin
        .browser
        .submit_and_follow("end_person_sessions", &[("person_id", &id)])
        .await
        .expect(200);
    is_dead(&member.browser).await;
    program.sessions().await.expect(401);
    let left = app.number("SELECT count(*) FROM sessions WHERE ended_at IS NULL").await;
    assert_eq!(left, 1, "only the administrator's own");
    Program::signed_in(&app, &member.person)
        .await
        .sessions()
        .await
        .expect(200);
}

#[tokio::test]
async fn what_is_over_is_kept_for_thirty_days_and_then_removed() {
    let app = TestApp::start("kept thirty days").await;
    let person = app.add_person("ada", &["member"], false).await;
    let (ended, mut forgotten) = (
        Program::signed_in(&app, &person).await,
        Program::signed_in(&app, &person).await,
    );
    assert!(ended.end(&ended.session_id).await.status.is_success());
    let sql = "SELECT CAST((MAX(absolute_expires_at) - MIN(started_at)) / 1000 AS INTEGER) FROM sessions";
    let longest = u64::try_from(app.number(sql).await).expect("a time");
    let left = || app.number("SELECT count(*) FROM sessions");
    let everything = left().await;

    app.pass(longest + 1);
    app.backend().sweep_expired().await.expect("swept");
    assert_eq!(app.backend().forget(Past::Revocations).await.expect("removed"), 1);
    app.pass(30 * 24 * 60 * 60 - 2);
    assert_eq!(app.backend().forget(Past::Sessions).await.expect("removed"), 0);
    assert_eq!(left().await, everything);

    app.pass(60);
    assert!(app.backend().forget(Past::Sessions).await.expect("removed") > 0);
    assert_eq!(left().await, 0);
    // An honest program that comes back late is no forger.
    let reply = forgotten.renew().await.expect(401);
    assert_eq!(reply.json()["reason"], "expired");
    let refused = "SELECT reason FROM audit_events WHERE kind = 'refresh_refused'";
    assert_eq!(app.rows(refused).await, [[Some("removed_session".to_owned())]]);
}
