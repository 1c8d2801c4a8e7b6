//! Second factors: what a code is good for, once, and in which order the steps go.

use axum::http::Method;
use serde_json::json;
use server::domain::clock::Timestamp;
use server::domain::mfa::{TotpSecret, check};

use crate::app::{BEGIN, SeededRandom, TestApp};
use crate::browser::{Browser, DEVICE, FLOW};
use crate::people::{Admin, Person, make_first_admin};
use crate::program::Program;

async fn with_factor(name: &str) -> (TestApp, Person) {
    let app = TestApp::start(name).await;
    let person = app.add_person("ada", &["member"], true).await;
    (app, person)
}

/// A browser whose password was right and that waits for the code.
async fn waiting(app: &TestApp, person: &Person) -> Browser {
    let mut browser = Browser::new(app);
    let reply = browser.give_password(&person.username, &person.password).await;
    assert_eq!(reply.location(), "/sign-in/code");
    browser.open("/sign-in/code").await.expect(200);
    browser
}

async fn gets_in(browser: &mut Browser, code: &str) -> bool {
    browser.submit("verify_code", &[("code", code)]).await;
    browser.is_signed_in()
}

#[tokio::test]
async fn p14_a_code_is_good_once_and_an_older_one_never_again() {
    let (app, person) = with_factor("p14").await;
    let mut first = waiting(&app, &person).await;
    let mut second = waiting(&app, &person).await;
    let mut third = waiting(&app, &person).await;
    let before = app.now();
    app.pass(30);
    let code = person.code(&app);
    assert!(gets_in(&mut first, &code).await);
    assert!(!gets_in(&mut second, &code).await, "the same code in another browser");
    let older = person.totp.as_ref().expect("has one").code_at(before);
    assert!(
        !gets_in(&mut third, &older).await,
        "the code of the step before, still within the window"
    );
    assert!(
        !gets_in(&mut third, &format!("{} {}", &code[..3], &code[3..])).await,
        "nor with a space in it"
    );
    assert_eq!(app.events("authn_login_success").await, 1);
    let reasons = app
        .rows("SELECT reason FROM audit_events WHERE kind = 'code_refused'")
        .await;
    assert!(
        reasons.iter().all(|row| row[0].as_deref() == Some("code_replayed")),
        "{reasons:?}"
    );
    let next = person.code(&app);
    assert!(gets_in(&mut second, &next).await, "the next code is good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f36_of_50_uses_of_one_code_at_once_exactly_one_succeeds() {
    let (app, person) = with_factor("f36").await;
    let browsers = [waiting(&app, &person).await, waiting(&app, &person).await];
    let code = person.code(&app);
    let mut tries = tokio::task::JoinSet::new();
    for i in 0..50 {
        let (mut browser, code) = (browsers[i % 2].clone(), code.clone());
        tries.spawn(async move { gets_in(&mut browser, &code).await });
    }
    let successes = tries.join_all().await.into_iter().filter(|success| *success).count();
    assert_eq!(successes, 1);
    assert_eq!(app.events("authn_login_success").await, 1);
    assert_eq!(app.number("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn f36_a_used_code_stays_used_after_a_restart() {
    let (app, person) = with_factor("f36 restart").await;
    let mut first = waiting(&app, &person).await;
    let mut second = waiting(&app, &person).await;
    let code = person.code(&app);
    assert!(gets_in(&mut first, &code).await);
    let restarted = app.restart().await;
    second.app = restarted.clone();
    first.app = restarted.clone();
    assert!(!gets_in(&mut second, &code).await);
    first.get("/").await.expect(200);
    assert!(first.is_signed_in(), "the session outlives the restart");
    second.open("/sign-in/code").await.expect(200);
    let next = person.code(&restarted);
    assert!(gets_in(&mut second, &next).await, "and so does the sign-in in progress");
}

#[tokio::test]
async fn p15_codes_of_this_step_and_the_one_before_are_taken_and_no_others() {
    for (offset, good) in [(-60, false), (-30, true), (0, true), (30, false), (60, false)] {
        let (app, person) = with_factor(&format!("p15 {offset}")).await;
        app.set_clock(Timestamp::from_seconds(BEGIN.as_seconds() + 3600 + 7));
        let mut browser = waiting(&app, &person).await;
        let shown_at = Timestamp::from_seconds(app.now().as_seconds() + offset);
        let code = person.totp.as_ref().expect("has one").code_at(shown_at);
        assert_eq!(gets_in(&mut browser, &code).await, good, "{offset} s");
    }
}

#[tokio::test]
async fn f38_the_window_is_as_documented_to_the_second() {
    let secret = TotpSecret::generate(&SeededRandom::new("f38"));
    // A phone whose clock differs by so many seconds, at each second of our step.
    for second in [0, 1, 15, 29] {
        let now = Timestamp::from_seconds(BEGIN.as_seconds() + second);
        for drift in -120..=120 {
            let code = secret.code_at(Timestamp::from_seconds(now.as_seconds() + drift));
            let steps = (now.as_seconds() + drift).div_euclid(30) - now.as_seconds() / 30;
            let taken = check(&secret, &code, now, i64::MIN).is_some();
            assert_eq!(taken, steps == 0 || steps == -1, "second {second}, drift {drift} s");
        }
    }
    // Setting the server's clock back does not open a step again.
    let (app, person) = with_factor("f38 back").await;
    let mut first = waiting(&app, &person).await;
    let mut second = waiting(&app, &person).await;
    app.pass(90);
    let code = person.code(&app);
    assert!(gets_in(&mut first, &code).await);
    app.set_clock(BEGIN);
    let old = person.totp.as_ref().expect("has one").code_at(BEGIN);
    assert!(!gets_in(&mut second, &old).await);
}

#[tokio::test]
async fn p17_recovery_codes_are_strong_single_use_and_forgiving_in_form() {
    let app = TestApp::start("p17").await;
    let mut admin = make_first_admin(&app).await;
    let codes = admin.person.recovery_codes.clone();
    for code in &codes {
        let characters = code.chars().filter(char::is_ascii_alphanumeric).count();
        assert!(characters * 5 >= 64, "at least 64 bits: {code}");
    }
    let kept = app.everything_kept().await;
    for code in &codes {
        let bare = code.replace('-', "");
        for text in [code.as_str(), &bare] {
            assert!(
                !kept.windows(text.len()).any(|window| window == text.as_bytes()),
                "{text} is stored readable"
            );
        }
    }
    let mut first = waiting(&app, &admin.person).await;
    let typed = format!(" {} ", codes[0].to_lowercase().replace('-', " "));
    assert!(gets_in(&mut first, &typed).await, "in another form");
    let mut second = waiting(&app, &admin.person).await;
    assert!(!gets_in(&mut second, &codes[0]).await, "once");
    assert!(gets_in(&mut second, &codes[1]).await);
    assert_eq!(app.events("recovery_code_used").await, 2);
    // New codes end the old ones.
    admin.browser.open("/security").await.expect(200);
    let page = admin
        .browser
        .submit_and_follow("renew_recovery_codes", &[])
        .await
        .expect(200);
    let renewed = page.all_between("<li><code>", "</code>");
    assert_eq!(renewed.len(), 10);
    assert!(renewed.iter().all(|code| !codes.contains(code)));
    let mut third = waiting(&app, &admin.person).await;
    assert!(!gets_in(&mut third, &codes[2]).await);
    assert!(gets_in(&mut third, &renewed[0]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_of_20_uses_of_one_recovery_code_at_once_exactly_one_succeeds() {
    let (app, person) = with_factor("p17 parallel").await;
    let browser = waiting(&app, &person).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (mut browser, code) = (browser.clone(), person.recovery_codes[3].clone());
        tries.spawn(async move { gets_in(&mut browser, &code).await });
    }
    assert_eq!(tries.join_all().await.into_iter().filter(|success| *success).count(), 1);
    assert_eq!(app.events("recovery_code_used").await, 1);
}

#[tokio::test]
async fn p16_wrong_codes_end_the_flow_after_five() {
    let (app, person) = with_factor("p16").await;
    let mut browser = waiting(&app, &person).await;
    for _ in 0..5 {
        let wrong = [("code", "000000")];
        browser.submit("verify_code", &wrong).await.expect(303);
        browser.open("/sign-in/code").await;
    }
    let code = person.code(&app);
    assert!(!gets_in(&mut browser, &code).await, "the password is due again");
    let mut again = waiting(&app, &person).await;
    let code = person.code(&app);
    assert!(gets_in(&mut again, &code).await, "and nobody is locked out");
}

#[tokio::test]
async fn p19_a_sign_in_in_progress_is_no_session() {
    let (app, person) = with_factor("p19").await;
    let mut browser = waiting(&app, &person).await;
    assert!(!browser.is_signed_in());
    browser
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    browser
        .fetch_empty(Method::DELETE, "/api/v1/me/sessions")
        .await
        .expect(401);
    browser
        .fetch(Method::POST, "/auth/refresh", &json!({}))
        .await
        .expect(400);
    for page in [
        "/",
        "/security",
        "/security/authenticator",
        "/recovery-codes",
        "/step-up",
        "/admin/roles",
        "/admin/audit",
    ] {
        let reply = browser.get(page).await;
        assert!(reply.location().starts_with("/sign-in"), "{page}: {:?}", reply.headers);
    }
    browser.open("/sign-in/code").await.expect(200);
    for action in [
        "acknowledge_recovery_codes",
        "end_other_sessions",
        "renew_recovery_codes",
        "remove_authenticator",
    ] {
        let reply = browser.submit_by_script(action, &[]).await;
        assert_eq!(reply.status, 401, "{action}: {}", reply.body);
    }
    let mut program = Program::new(&app);
    let login = json!({"identifier": person.username, "password": person.password});
    let reply = program.post("/auth/login", &login).await.expect(200);
    assert_eq!(reply.json(), json!({"status": "mfa_required"}), "and no token");
    program
        .ask_with(&program.jar[FLOW], Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
}

#[tokio::test]
async fn f44_every_id_that_was_known_before_is_worth_nothing_after() {
    let (app, person) = with_factor("f44").await;
    let mut browser = Browser::new(&app);
    browser.open("/sign-in").await.expect(200);
    let before = browser.cookie(FLOW);
    let fields = [
        ("identifier", "ada"),
        ("password", person.password.as_str()),
        ("return_to", ""),
    ];
    browser.submit_and_follow("sign_in", &fields).await.expect(200);
    let pending = browser.cookie(FLOW);
    // Whoever planted the first id sees nothing of the flow.
    let mut thief = Browser::new(&app);
    thief.jar.insert(FLOW.to_owned(), before);
    assert!(thief.get("/sign-in/code").await.location().starts_with("/sign-in"));
    let code = person.code(&app);
    browser
        .submit_and_follow("verify_code", &[("code", &code)])
        .await
        .expect(200);
    let device = browser.cookie(DEVICE);
    let mut thief = Browser::new(&app);
    thief.jar.insert(FLOW.to_owned(), pending);
    assert!(thief.get("/sign-in/code").await.location().starts_with("/sign-in"));
    assert!(thief.get("/").await.location().starts_with("/sign-in"));
    // The device is known again, with a new secret.
    browser.open("/").await.expect(200);
    browser.submit("sign_out", &[]).await.expect(303);
    app.pass(30);
    browser.sign_in(&person).await;
    assert_ne!(browser.cookie(DEVICE), device);
    assert_eq!(browser.cookie(DEVICE).split('.').next(), device.split('.').next());
    assert_eq!(app.number("SELECT count(*) FROM devices").await, 1);
    // The old secret is a stranger's now.
    let mut thief = Browser::new(&app);
    thief.jar.insert(DEVICE.to_owned(), device);
    app.pass(30);
    thief.sign_in(&person).await;
    assert_eq!(app.number("SELECT count(*) FROM devices").await, 2);
}

#[tokio::test]
async fn f45_no_step_can_be_skipped_repeated_or_swapped() {
    let (app, person) = with_factor("f45").await;
    let other = app.add_person("bob", &["member"], true).await;
    let newcomer = app.add_person("eve", &["auditor"], false).await;

    // Nothing begun: no step answers.
    let mut nobody = Browser::new(&app);
    nobody.open("/sign-in").await.expect(200);
    let code = person.code(&app);
    for action in ["verify_code", "confirm_sign_in_enrolment"] {
        let reply = nobody.submit_by_script(action, &[("code", &code)]).await;
        assert_eq!(reply.status, 409, "{action}: {}", reply.body);
    }
    assert!(nobody.get("/sign-in/enrol").await.location().starts_with("/sign-in"));
    Program::new(&app)
        .post("/auth/mfa", &json!({"code": code}))
        .await
        .expect(401);

    // Waiting for a code: setting up another authenticator is no way around it.
    app.pass(30);
    let mut browser = waiting(&app, &person).await;
    browser.get("/sign-in/enrol").await;
    assert!(!browser.is_signed_in());
    browser.open("/sign-in/code").await.expect(200);
    let code = person.code(&app);
    let reply = browser
        .submit_by_script("confirm_sign_in_enrolment", &[("code", &code)])
        .await;
    assert_eq!(reply.status, 409, "{}", reply.body);

    // Waiting for enrolment: no code of anybody's helps.
    let mut enrolling = Browser::new(&app);
    let reply = enrolling.give_password(&newcomer.username, &newcomer.password).await;
    assert_eq!(reply.location(), "/sign-in/enrol");
    enrolling.open("/sign-in/enrol").await.expect(200);
    let code = other.code(&app);
    let reply = enrolling.submit_by_script("verify_code", &[("code", &code)]).await;
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert!(!enrolling.is_signed_in());

    // Another person's code in my flow.
    let mut mine = waiting(&app, &person).await;
    let theirs = other.code(&app);
    assert!(!gets_in(&mut mine, &theirs).await);

    // Two tabs, two flows: the one begun last counts, the one before is gone.
    let mut first = waiting(&app, &person).await;
    let mut second = first.clone();
    second.open("/sign-in").await.expect(200);
    let fields = [
        ("identifier", "bob"),
        ("password", other.password.as_str()),
        ("return_to", ""),
    ];
    second.submit_and_follow("sign_in", &fields).await.expect(200);
    let code = person.code(&app);
    assert!(!gets_in(&mut first, &code).await, "its state went with the id");
    app.pass(30);
    let code = other.code(&app);
    assert!(gets_in(&mut second, &code).await);

    // A finished flow is not finished twice.
    app.pass(30);
    let mut finished = waiting(&app, &person).await;
    let second_use = finished.clone();
    let code = person.code(&app);
    assert!(gets_in(&mut finished, &code).await);
    app.pass(30);
    let code = person.code(&app);
    assert!(!gets_in(&mut second_use.clone(), &code).await);

    // Ten minutes between the steps are too long.
    let mut late = waiting(&app, &person).await;
    app.pass(600);
    let code = person.code(&app);
    assert!(!gets_in(&mut late, &code).await);
}

#[tokio::test]
async fn p18_another_authenticator_needs_a_recent_factor() {
    let app = TestApp::start("p18").await;
    let mut admin = Admin::sign_in(&app).await;
    admin.browser.get("/security/authenticator").await.expect(200);
    // Eleven minutes of work later the last factor is older than the ten that the role allows.
    app.pass(11 * 60);
    let reply = admin.browser.get("/security/authenticator").await;
    assert!(
        reply.location().starts_with("/step-up?return_to="),
        "{:?}",
        reply.headers
    );
    admin.browser.open("/security").await.expect(200);
    let reply = admin.browser.submit("renew_recovery_codes", &[]).await;
    assert!(
        reply.location().starts_with("/step-up?return_to="),
        "{:?}",
        reply.headers
    );
    assert_eq!(app.events("recovery_codes_renewed").await, 0);
    admin.browser.open("/security").await.expect(200);
    let reply = admin.browser.submit_by_script("remove_authenticator", &[]).await;
    assert_eq!(
        reply.status, 403,
        "a role that requires a factor keeps it: {}",
        reply.body
    );
}
