//! Limits of sessions, their list, and which ids are accepted at all.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use serde_json::json;
use server::domain::policy::{Lifetimes, Mfa};

use crate::access_tokens::claims;
use crate::app::{SeededRandom, TestApp};
use crate::browser::{ACCESS, Browser, FLOW, REFRESH, encode};
use crate::people::{Admin, Member};
use crate::program::Program;
use server::domain::random::Random as _;

/// Ten minutes idle, half an hour at all.
fn short() -> Lifetimes {
    Lifetimes {
        access: Duration::from_mins(5),
        idle: Duration::from_mins(10),
        absolute: Duration::from_mins(30),
        idle_warning: Duration::from_mins(1),
        remember_device: Duration::ZERO,
        mfa: Mfa::Optional,
        step_up: Duration::from_mins(15),
        max_sessions: 10,
    }
}

async fn in_short_role(name: &str) -> (TestApp, Browser) {
    let app = TestApp::start(name).await;
    app.add_role("desk", short()).await;
    let person = app.add_person("dora", &["desk"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    (app, browser)
}

#[tokio::test]
async fn s1_background_requests_do_not_extend_the_idle_limit() {
    let (app, mut browser) = in_short_role("s1 background").await;
    for minute in 1..10 {
        app.pass(60);
        // A script that polls, a renewal by a script, a page fetched ahead: none is the person's own doing.
        browser
            .fetch_empty(Method::GET, "/api/v1/me/sessions")
            .await
            .expect(200);
        let renewed = browser.fetch(Method::POST, "/auth/refresh", &json!({})).await;
        assert!(
            [200, 409].contains(&renewed.status.as_u16()),
            "minute {minute}: {}",
            renewed.body
        );
        let ahead = browser
            .navigation(Method::GET, "/", "same-origin")
            .header("sec-purpose", "prefetch");
        browser.send(ahead.body(Body::empty()).expect("a request")).await;
    }
    app.pass(59);
    browser
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(200);
    app.pass(1);
    let reply = browser
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(401);
    assert_eq!(reply.json()["reason"], "idle");
    let page = browser.open("/").await.expect(200);
    assert!(page.body.contains("name=\"password\""), "the sign-in page is shown");
    assert_eq!(app.events("session_expired").await, 1);
}

#[tokio::test]
async fn s1_the_persons_own_clicks_extend_the_idle_limit_to_the_second() {
    let (app, mut browser) = in_short_role("s1 clicks").await;
    app.pass(599);
    browser.open("/").await.expect(200);
    assert!(browser.is_signed_in());
    app.pass(599);
    browser.open("/security").await.expect(200);
    assert!(browser.is_signed_in(), "the first click counted");
    app.pass(601);
    assert!(browser.get("/").await.location().starts_with("/sign-in"));
    assert!(!browser.is_signed_in());
}

#[tokio::test]
async fn s1_stay_signed_in_counts_as_activity() {
    let (app, mut browser) = in_short_role("s1 stay").await;
    browser.open("/").await.expect(200);
    app.pass(550);
    browser.submit_by_script("stay_signed_in", &[]).await.expect(200);
    app.pass(550);
    browser
        .fetch_empty(Method::GET, "/api/v1/me/sessions")
        .await
        .expect(200);
}

#[tokio::test]
async fn s1_another_role_has_another_idle_limit_and_the_page_names_the_rule() {
    let (app, mut browser) = in_short_role("s1 per role").await;
    let member = Member::sign_in(&app, "max").await;
    let page = browser.open("/").await.expect(200).page();
    assert!(page.contains("desk"), "the rule that set the limit is named: {page}");
    app.pass(700);
    assert!(
        browser.get("/").await.location().starts_with("/sign-in"),
        "ten minutes are over"
    );
    let mut other = member.browser;
    other.get("/").await.expect(200);
    assert!(other.is_signed_in(), "a member's idle limit is a week");
}

#[tokio::test]
async fn s2_refreshing_never_extends_the_absolute_limit() {
    let app = TestApp::start("s2").await;
    app.add_role("desk", short()).await;
    let person = app.add_person("dora", &["desk"], false).await;
    let mut program = Program::signed_in(&app, &person).await;
    let end = app.now().plus(Duration::from_mins(30));
    for minute in 1..30_u64 {
        app.pass(60);
        let reply = program.renew().await.expect(200);
        let left = 1800 - 60 * minute;
        let expires_in = reply.json()["expires_in"].as_u64().expect("seconds");
        assert_eq!(expires_in, left.min(300), "minute {minute}");
        let exp = claims(&program.access)["exp"].as_i64().expect("a number");
        assert!(exp <= end.as_seconds(), "minute {minute}: exp {exp}");
    }
    app.pass(59);
    program.renew().await.expect(200);
    program.sessions().await.expect(200);
    app.pass(1);
    let over = program.renew().await.expect(401);
    assert_eq!(over.json()["reason"], "expired");
    program.sessions().await.expect(401);
}

#[tokio::test]
async fn s2_a_tighter_limit_ends_living_sessions_and_a_looser_one_does_not_lengthen_them() {
    let app = TestApp::start("s2 policy").await;
    let mut admin = Admin::sign_in(&app).await;
    let mut member = Member::sign_in(&app, "max").await;
    admin
        .save_policy(
            "member",
            &[
                ("idle_minutes", "20"),
                ("absolute_hours", "1"),
                ("absolute_minutes", "0"),
            ],
        )
        .await
        .expect(303);
    let page = member.browser.open("/").await.expect(200).page();
    assert!(
        page.contains("policy 2"),
        "the session says which version limits it: {page}"
    );
    admin
        .save_policy(
            "member",
            &[
                ("idle_minutes", "50"),
                ("absolute_hours", "10"),
                ("absolute_minutes", "0"),
            ],
        )
        .await
        .expect(303);
    app.pass(21 * 60);
    let gone = member.browser.get("/").await;
    assert!(
        gone.location().starts_with("/sign-in"),
        "the tighter limit stays: {:?}",
        gone.headers
    );
}

#[tokio::test]
async fn s2_what_a_preview_counts_is_what_saving_ends() {
    let app = TestApp::start("s2 preview").await;
    let desk = Lifetimes {
        idle: Duration::from_mins(30),
        ..short()
    };
    app.add_role("desk", desk).await;
    let ada = app.add_person("ada", &["desk", "member"], true).await;
    let bob = app.add_person("bob", &["desk"], false).await;
    let eve = app.add_person("eve", &["member"], false).await;
    let mut programs = Vec::new();
    for person in [&ada, &ada, &bob, &bob, &eve] {
        programs.push(Program::signed_in(&app, person).await);
    }
    let ended = Program::signed_in(&app, &bob).await;
    assert!(ended.end(&ended.session_id).await.status.is_success());
    app.pass(20 * 60);
    programs.push(Program::signed_in(&app, &bob).await);
    programs.push(Program::signed_in(&app, &ada).await);
    let mut admin = Admin::sign_in(&app).await;

    let path = "/admin/roles/desk?access_minutes=5&idle_minutes=15&absolute_hours=0&absolute_minutes=15&\
                idle_warning_seconds=60&remember_device_days=0&mfa=required&step_up_minutes=15&max_sessions=10";
    let page = admin.browser.open(path).await.expect(200).page();
    assert!(page.contains("Ends 5 sessions of 2 people"), "{page}");
    assert!(page.contains("1 person must set up a second factor"), "{page}");
    let changes = [("idle_minutes", "15"), ("absolute_minutes", "15"), ("mfa", "required")];
    admin.save_policy("desk", &changes).await.expect(303);
    let mut alive = Vec::new();
    for program in &mut programs {
        // Who was just signed in is told so.
        alive.push(program.renew().await.status != 401);
    }
    assert_eq!(
        alive,
        [false, false, false, false, true, false, true],
        "too old, or no second factor"
    );
}

#[tokio::test]
async fn f16_limits_that_contradict_each_other_are_refused_in_words_and_not_saved() {
    let app = TestApp::start("f16 policy").await;
    app.add_role("desk", short()).await;
    let mut admin = Admin::sign_in(&app).await;
    let before = app.state().await;
    let usual = [
        ("access_minutes", "5"),
        ("idle_minutes", "10"),
        ("absolute_hours", "0"),
        ("absolute_minutes", "30"),
        ("idle_warning_seconds", "60"),
        ("remember_device_days", "0"),
        ("mfa", "optional"),
        ("step_up_minutes", "15"),
        ("max_sessions", "10"),
    ];
    for (field, value, words) in [
        (
            "idle_minutes",
            "31",
            "Idle limit: must not be longer than the absolute limit.",
        ),
        (
            "access_minutes",
            "11",
            "Access token lifetime: must not be longer than the idle limit.",
        ),
        (
            "idle_warning_seconds",
            "600",
            "Idle warning: must not be longer than the idle limit.",
        ),
        ("idle_minutes", "0", "Idle limit: must be between 1 minute and 90 days."),
    ] {
        let limits = usual.map(|(name, usual)| (name, if name == field { value } else { usual }));
        let preview = format!("/admin/roles/desk?{}", encode(&limits));
        let page = admin.browser.open(&preview).await.expect(422).page();
        assert!(page.contains(words), "{page}");
        // Nor past the preview, whatever reason is written down.
        admin.browser.open("/admin/roles/desk").await.expect(200);
        let mut fields = vec![("role", "desk"), ("based_on", "1")];
        fields.extend(limits);
        fields.extend([("reason", "a test asks for it"), ("justification", "so does this")]);
        let page = admin.browser.submit_and_follow("save_policy", &fields).await.page();
        assert!(page.contains(words), "{page}");
        assert_eq!(app.state().await, before, "{field}");
    }
}

#[tokio::test]
async fn s14_the_list_of_sessions_shows_only_what_it_should() {
    let app = TestApp::start("s14").await;
    let (person, program) = app.add_program("max").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    let list = program.sessions().await.expect(200).json();
    let list = list.as_array().expect("a list");
    assert_eq!(list.len(), 2);
    assert_eq!(
        list.iter().filter(|session| session["current"] == true).count(),
        1,
        "one is the asker's own"
    );
    assert_eq!(list[0]["current"], true, "which stands first");
    for session in list {
        let mut members: Vec<&str> = session
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        members.sort_unstable();
        let allowed = [
            "absolute_expires_at",
            "acr",
            "amr",
            "bound_to_key",
            "current",
            "device",
            "id",
            "idle_expires_at",
            "last_active_at",
            "network",
            "started_at",
        ];
        assert_eq!(members, allowed);
    }
    assert_eq!(list[1]["device"], "Firefox on Linux");
    assert_eq!(
        list[1]["network"], "198.51.100.x",
        "the address itself stays with the server"
    );
    let mut me = browser.fetch_empty(Method::GET, "/api/v1/me").await.expect(200).json();
    assert_eq!(me["session_id"], list[1]["id"]);
    assert!(me["authenticated_at"].is_i64() && me["id"].is_string());
    for member in ["session_id", "authenticated_at", "id"] {
        me.as_object_mut().expect("an object").remove(member);
    }
    let left = json!({"username": "max", "display_name": "max Example", "roles": ["member"], "acr": "aal1"});
    assert_eq!(me, left, "and nothing else");
    let page = browser.open("/").await.expect(200).page();
    assert!(page.contains("This device") && page.contains("backup-tool"), "{page}");
    assert!(!page.contains("192.0.2.33"), "the address itself stays with the server");
}

#[tokio::test]
async fn s16_everything_with_a_cookie_or_a_persons_data_is_never_stored() {
    let app = TestApp::start("s16").await;
    let mut admin = Admin::sign_in(&app).await;
    let id = admin.person.id.to_string();
    let mut anonymous = Browser::new(&app);
    let person_page = format!("/admin/people/{id}");
    let paths = [
        "/",
        "/security",
        "/devices/end-others",
        "/step-up",
        "/admin/roles",
        "/admin/roles/member",
        "/admin/people",
        "/admin/people/new",
        &person_page,
        "/admin/audit",
        "/sign-in",
        "/welcome",
        "/nowhere",
    ];
    for path in paths {
        for browser in [&mut admin.browser, &mut anonymous] {
            let reply = browser.get(path).await;
            assert_eq!(
                reply.header("cache-control"),
                Some("no-store"),
                "{path}: {:?}",
                reply.headers
            );
        }
    }
    for reply in [
        admin.browser.fetch_empty(Method::GET, "/api/v1/me/sessions").await,
        anonymous.fetch_empty(Method::GET, "/api/v1/me/sessions").await,
        anonymous
            .fetch(
                Method::POST,
                "/auth/login",
                &json!({"identifier": "x", "password": "y"}),
            )
            .await,
        anonymous.fetch(Method::POST, "/auth/refresh", &json!({})).await,
        admin.browser.submit("sign_out", &[]).await,
    ] {
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{:?}", reply.headers);
    }
    let (_, mut program) = app.add_program("max").await;
    app.pass(60);
    assert_eq!(
        program.renew().await.expect(200).header("cache-control"),
        Some("no-store")
    );
}

#[tokio::test]
async fn s17_only_ids_this_server_issued_are_accepted() {
    let app = TestApp::start("s17").await;
    let member = Member::sign_in(&app, "max").await;
    let before = app.state().await;
    let random = SeededRandom::new("s17 guesses");
    let guess = |length: usize| {
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        data_encoding::BASE64URL_NOPAD.encode(&bytes)
    };
    let real_access = member.browser.cookie(ACCESS);
    let (head, _) = real_access.rsplit_once('.').expect("a token has parts");
    for _ in 0..250 {
        let mut browser = Browser::new(&app);
        browser.jar.insert(REFRESH.to_owned(), format!("mfr_{}", guess(58)));
        browser.jar.insert(ACCESS.to_owned(), format!("{head}.{}", guess(64)));
        browser
            .fetch_empty(Method::GET, "/api/v1/me/sessions")
            .await
            .expect(401);
        browser.jar.insert(REFRESH.to_owned(), format!("mfr_{}", guess(58)));
        assert_eq!(
            browser
                .fetch(Method::POST, "/auth/refresh", &json!({}))
                .await
                .expect(400)
                .code(),
            "invalid_grant"
        );
        let mut fixed = Browser::new(&app);
        let planted = guess(16);
        fixed.jar.insert(FLOW.to_owned(), planted.clone());
        fixed.get("/sign-in").await.expect(200);
        assert_ne!(fixed.cookie(FLOW), planted, "an id from outside is not adopted");
        assert!(!fixed.is_signed_in());
    }
    assert_eq!(app.state().await, before);
}

#[tokio::test]
async fn s4_secrets_of_sessions_are_random_and_long_enough() {
    let app = TestApp::start("s4").await;
    let (_, program) = app.add_program("max").await;
    let member = Member::sign_in(&app, "moritz").await;
    let decoded = |text: &str| {
        data_encoding::BASE64URL_NOPAD
            .decode(text.as_bytes())
            .expect("base64url")
    };
    assert_eq!(decoded(&program.refresh[4..]).len(), 58, "two tags of 128 bits each");
    assert_eq!(decoded(&member.browser.form_token).len(), 32);
    assert_eq!(decoded(&member.browser.cookie(FLOW)).len(), 16);
    let device = member.browser.cookie(crate::browser::DEVICE);
    assert_eq!(decoded(device.split_once('.').expect("an id and a secret").1).len(), 32);
    let mut flows = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let mut browser = Browser::new(&app);
        browser.get("/sign-in").await.expect(200);
        assert!(flows.insert(browser.cookie(FLOW)) && flows.insert(browser.form_token));
    }
}
