//! Who may do what: every route for everybody, and fields that nobody may send.

use std::collections::BTreeSet;

use axum::http::Method;

use crate::app::TestApp;
use crate::browser::Browser;
use crate::csrf;
use crate::people::{Admin, Auditor, Member};
use crate::program::Program;

/// What the six kinds of visitor get at one door.
struct Door {
    /// Route as the router names it.
    route: &'static str,
    /// Path that is asked for.
    path: String,
    /// Status for: nobody, a member, an auditor, an administrator, somebody before the second step, somebody whose
    /// session has ended.
    expected: [u16; 6],
}

/// A page for people who are signed in.
fn own(route: &'static str, path: &str) -> Door {
    Door {
        route,
        path: path.to_owned(),
        expected: [303, 200, 200, 200, 303, 303],
    }
}

fn console(route: &'static str, path: &str) -> Door {
    Door {
        route,
        path: path.to_owned(),
        expected: [303, 403, 403, 200, 303, 303],
    }
}

fn pages(member: &str, event: &str) -> Vec<Door> {
    let at = |route, path: &str, expected| Door {
        route,
        path: path.to_owned(),
        expected,
    };
    vec![
        own("/", "/"),
        own("/security", "/security"),
        own("/security/authenticator", "/security/authenticator"),
        // Somebody without an authenticator, or whose role requires one, has nothing to remove.
        at(
            "/security/remove-authenticator",
            "/security/remove-authenticator",
            [303, 404, 404, 404, 303, 303],
        ),
        at("/devices/end", "/devices/end?session=x", [303, 404, 404, 404, 303, 303]),
        own("/devices/end-others", "/devices/end-others"),
        at("/recovery-codes", "/recovery-codes", [303, 404, 404, 404, 303, 303]),
        own("/step-up", "/step-up"),
        // Whoever is signed in has nothing to do there and is led on.
        at("/sign-in", "/sign-in", [200, 303, 303, 303, 200, 200]),
        at("/sign-in/code", "/sign-in/code", [303, 303, 303, 303, 200, 303]),
        at("/sign-in/enrol", "/sign-in/enrol", [303, 303, 303, 303, 404, 303]),
        at("/welcome", "/welcome", [404; 6]),
        at("/admin", "/admin", [303, 403, 303, 303, 303, 303]),
        console("/admin/roles", "/admin/roles"),
        console("/admin/roles/{role}", "/admin/roles/member"),
        console("/admin/people", "/admin/people"),
        console("/admin/people/new", "/admin/people/new"),
        console("/admin/people/{id}", &format!("/admin/people/{member}")),
        console("/admin/people/{id}/disable", &format!("/admin/people/{member}/disable")),
        console(
            "/admin/people/{id}/end-sessions",
            &format!("/admin/people/{member}/end-sessions"),
        ),
        at("/admin/audit", "/admin/audit", [303, 403, 200, 200, 303, 303]),
        at(
            "/admin/audit/{id}",
            &format!("/admin/audit/{event}"),
            [303, 403, 200, 200, 303, 303],
        ),
    ]
}

/// What a script of the page gets for each form. Administrators reach the act itself: whatever it answers then is
/// neither 401 nor 403.
fn actions() -> Vec<(&'static str, [u16; 6])> {
    let own = [401, 0, 0, 0, 401, 303];
    let console = [401, 403, 403, 0, 401, 303];
    vec![
        ("sign_in", [401; 6]),
        ("verify_code", [409, 409, 409, 409, 401, 409]),
        ("confirm_sign_in_enrolment", [409; 6]),
        ("acknowledge_recovery_codes", own),
        ("step_up", [401, 422, 401, 401, 401, 303]),
        ("accept_invitation", [409; 6]),
        ("end_session", [401, 404, 404, 404, 401, 303]),
        ("stay_signed_in", own),
        ("change_password", [401, 422, 422, 422, 401, 303]),
        ("confirm_authenticator", [401, 0, 0, 0, 401, 303]),
        ("remove_authenticator", [401, 404, 403, 403, 401, 303]),
        ("renew_recovery_codes", own),
        ("save_policy", console),
        ("invite_person", console),
        ("invite_person_again", console),
        ("disable_person", console),
        ("enable_person", console),
        ("set_roles", console),
        ("end_person_sessions", console),
        ("end_person_session", console),
        // Last, because it ends things.
        ("end_other_sessions", own),
        ("sign_out", [0, 0, 0, 0, 0, 0]),
    ]
}

struct World {
    app: TestApp,
    member_id: String,
    visitors: [Browser; 6],
}

/// Everybody, each in a browser.
async fn everybody(name: &str) -> World {
    let app = TestApp::start(name).await;
    let member = Member::sign_in(&app, "max").await;
    let auditor = Auditor::sign_in(&app).await;
    let admin = Admin::sign_in(&app).await;
    let waiting = app.add_person("wendy", &["member"], true).await;
    let mut pending = Browser::new(&app);
    pending.give_password(&waiting.username, &waiting.password).await;
    let gone = app.add_person("gone", &["member"], false).await;
    let mut ended = Browser::new(&app);
    ended.sign_in(&gone).await;
    app.execute(
        "UPDATE sessions SET ended_at = started_at, end_reason = 'ended_by_admin' WHERE user_id = \
        (SELECT id FROM users WHERE username = 'gone')",
    )
    .await;
    let member_id = member.person.id.to_string();
    let visitors = [
        Browser::new(&app),
        member.browser,
        auditor.browser,
        admin.browser,
        pending,
        ended,
    ];
    World {
        app,
        member_id,
        visitors,
    }
}

const WHO: [&str; 6] = [
    "nobody",
    "a member",
    "an auditor",
    "an administrator",
    "before the second step",
    "ended",
];

#[tokio::test]
async fn l1_every_page_opens_for_those_it_is_for_and_nobody_else() {
    let world = everybody("l1 pages").await;
    let event = world.app.rows("SELECT id FROM audit_events LIMIT 0").await;
    assert!(event.is_empty());
    let mut admin = world.visitors[3].clone();
    let log = admin.open("/admin/audit").await.expect(200);
    let event = log.between("href=\"/admin/audit/", "\"");
    let doors = pages(&world.member_id, &event);

    // Each route of the router has its door here.
    let routes: BTreeSet<String> = leptos_axum::generate_route_list(app::App)
        .iter()
        .map(|route| route.path().to_owned())
        .collect();
    let known: BTreeSet<String> = doors.iter().map(|door| door.route.to_owned()).collect();
    assert_eq!(routes, known);

    let mut wrong = Vec::new();
    for door in &doors {
        for (index, visitor) in world.visitors.iter().enumerate() {
            let mut browser = visitor.clone();
            let reply = browser.get(&door.path).await;
            if reply.status.as_u16() != door.expected[index] {
                wrong.push(format!(
                    "{} for {}: {} not {}",
                    door.path, WHO[index], reply.status, door.expected[index]
                ));
            }
            let led_on = door.path == "/sign-in" && reply.header("location") == Some("/");
            if reply.status == 303 && door.path != "/admin" && !led_on {
                let location = reply.location();
                assert!(
                    location.starts_with("/sign-in"),
                    "{} for {}: {location}",
                    door.path,
                    WHO[index]
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(world.app.events("authz_fail").await > 0, "what was denied is recorded");
}

#[tokio::test]
async fn l1_every_form_obeys_those_it_is_for_and_nobody_else() {
    let world = everybody("l1 forms").await;
    let victim = world.app.add_person("victim", &["member"], false).await;
    let rows = csrf::rows(&victim, "01890a5d-ac96-774b-bcce-b302099a8057");
    let known: BTreeSet<&str> = actions().iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = app::action_paths()
        .into_iter()
        .map(|(path, _)| path.trim_start_matches("/actions/"))
        .collect();
    assert_eq!(known, there);
    let mut wrong = Vec::new();
    for (name, expected) in actions() {
        let (_, fields) = rows.iter().find(|(row, _)| *row == name).expect("a row for each");
        let fields: Vec<(&str, &str)> = fields
            .iter()
            // Wrong passwords: this is about who may ask.
            .map(|(field, value)| {
                (
                    *field,
                    if field.contains("password") {
                        "wrong"
                    } else {
                        value.as_str()
                    },
                )
            })
            .collect();
        for (index, visitor) in world.visitors.iter().enumerate() {
            let before = world.app.state().await;
            let mut browser = visitor.clone();
            // A page that shows a form; for whoever has no session any more it is the sign-in page.
            let flow = browser.jar.get(crate::browser::FLOW).cloned();
            let path = [
                "/sign-in",
                "/security",
                "/security",
                "/security",
                "/sign-in",
                "/sign-in",
            ][index];
            browser.get(path).await.expect(200);
            if index == 5 {
                // The page that says why has taken the dead tokens away: the form is sent with them once more.
                browser.jar.extend(visitor.jar.clone());
                if let Some(flow) = flow {
                    browser.jar.insert(crate::browser::FLOW.to_owned(), flow);
                }
            }
            let reply = browser.submit_by_script(name, &fields).await;
            let status = reply.status.as_u16();
            let right = match expected[index] {
                0 => status != 401 && status != 403 && status < 500,
                // A form of nobody's session leads to the sign-in page; its own forms are simply refused.
                303 => status == 303 && reply.location().starts_with("/sign-in"),
                wanted => status == wanted,
            };
            if !right {
                wrong.push(format!(
                    "{name} for {}: {status} not {} {}",
                    WHO[index], expected[index], reply.body
                ));
            }
            if matches!(status, 401 | 403) && !["sign_in", "verify_code", "step_up"].contains(&name) {
                assert_eq!(world.app.state().await, before, "{name} for {}", WHO[index]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn l1_the_api_opens_for_those_it_is_for_and_nobody_else() {
    let world = everybody("l1 api").await;
    let unknown = "/api/v1/me/sessions/01890a5d-ac96-774b-bcce-b302099a8057";
    let mut wrong = Vec::new();
    for (method, path, expected) in [
        (Method::GET, "/api/v1/me", [401, 200, 200, 200, 401, 401]),
        (Method::GET, "/api/v1/me/sessions", [401, 200, 200, 200, 401, 401]),
        (Method::DELETE, unknown, [401, 404, 404, 404, 401, 401]),
        (
            Method::DELETE,
            "/api/v1/me/sessions/nonsense",
            [401, 404, 404, 404, 401, 401],
        ),
        (Method::GET, "/api/v1/nowhere", [404, 404, 404, 404, 404, 401]),
        (Method::GET, "/.well-known/jwks.json", [200; 6]),
        (Method::GET, "/.well-known/oauth-authorization-server", [200; 6]),
        (Method::GET, "/.well-known/ssf-configuration", [200; 6]),
        (Method::GET, "/api/openapi.json", [200; 6]),
        (Method::GET, "/healthz", [200; 6]),
        (Method::GET, "/readyz", [200; 6]),
        (Method::DELETE, "/api/v1/me/sessions", [401, 200, 200, 200, 401, 401]),
    ] {
        for (index, visitor) in world.visitors.iter().enumerate() {
            let mut browser = visitor.clone();
            if index != 5 {
                browser
                    .open(["/sign-in", "/security", "/security", "/security", "/sign-in/code"][index])
                    .await
                    .expect(200);
            }
            let reply = browser.fetch_empty(method.clone(), path).await;
            if reply.status.as_u16() != expected[index] {
                wrong.push(format!(
                    "{method} {path} for {}: {} not {}",
                    WHO[index], reply.status, expected[index]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let document = Browser::new(&world.app)
        .get("/api/openapi.json")
        .await
        .expect(200)
        .json();
    let paths: BTreeSet<&String> = document["paths"].as_object().expect("paths").keys().collect();
    let expected: BTreeSet<String> = [
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/ssf-configuration",
        "/api/v1/me",
        "/api/v1/me/sessions",
        "/api/v1/me/sessions/{id}",
        "/auth/binding",
        "/auth/binding/renew",
        "/auth/login",
        "/auth/logout",
        "/auth/mfa",
        "/auth/refresh",
        "/healthz",
        "/oauth/events",
        "/oauth/introspect",
        "/oauth/revocations",
        "/oauth/revocations/stream",
        "/oauth/revoke",
        "/oauth/token",
        "/readyz",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(
        paths,
        expected.iter().collect(),
        "the document describes every door of the API"
    );
}

#[tokio::test]
async fn l2_a_role_that_was_taken_away_is_gone_at_the_next_click() {
    let app = TestApp::start("l2").await;
    let mut admin = Admin::sign_in(&app).await;
    let second = app.add_person("second", &["admin"], true).await;
    let mut browser = Browser::elsewhere(&app);
    browser.sign_in(&second).await;
    browser.get("/admin/roles").await.expect(200);
    let id = second.id.to_string();
    admin.browser.open(&format!("/admin/people/{id}")).await.expect(200);
    admin
        .browser
        .submit_and_follow("set_roles", &[("person_id", &id), ("roles[]", "member")])
        .await
        .expect(200);
    browser.open("/admin/roles").await.expect(403);
    let page = browser.open("/").await.expect(200).page();
    assert!(page.contains("Your devices"), "the session itself goes on");
}

#[tokio::test]
async fn f53_a_demoted_administrators_next_call_is_refused_at_every_node_within_a_second() {
    let here = TestApp::start("f53 demoted").await;
    let there = here.restart().await;
    let mut admin = Admin::sign_in(&here).await;
    // The other node has heard of it, and no time has passed; or it has not, and a second has.
    for (name, hears) in [("second", true), ("third", false)] {
        let person = here.add_person(name, &["admin"], true).await;
        let mut browsers = Vec::new();
        for app in [&here, &there] {
            let mut browser = Browser::elsewhere(app);
            browser.sign_in(&person).await;
            browsers.push(browser);
        }
        let program = Program::signed_in(&here, &person).await;
        let elsewhere = Program {
            app: there.clone(),
            ..program.clone()
        };
        let id = person.id.to_string();
        admin.browser.open(&format!("/admin/people/{id}")).await.expect(200);
        for app in [&here, &there] {
            app.backend()
                .catch_up_with_revocations()
                .await
                .expect("the database answers");
        }
        // Twice: then they are remembered.
        for _ in 0..2 {
            for browser in &mut browsers {
                browser.get("/admin/roles").await.expect(200);
            }
            for program in [&program, &elsewhere] {
                program
                    .ask_with(&program.access, Method::GET, "/admin/roles")
                    .await
                    .expect(200);
            }
        }
        let told_at = here.now();
        admin
            .browser
            .submit_and_follow("set_roles", &[("person_id", &id), ("roles[]", "member")])
            .await
            .expect(200);
        if hears {
            let new = there.backend().catch_up_with_revocations().await;
            assert!(new.expect("the database answers") > 0);
        } else {
            here.pass(1);
        }
        for browser in &mut browsers {
            browser.open("/admin/roles").await.expect(403);
        }
        for program in [&program, &elsewhere] {
            let reply = program.ask_with(&program.access, Method::GET, "/admin/roles").await;
            assert!(reply.location().starts_with("/sign-in"), "{}", reply.body);
            program.sessions().await.expect(401);
        }
        assert!(here.now().since(told_at) <= std::time::Duration::from_secs(1));
    }
}

#[tokio::test]
async fn l1_the_last_administrator_cannot_be_removed() {
    let app = TestApp::start("f56").await;
    let mut admin = Admin::sign_in(&app).await;
    let id = admin.person.id.to_string();
    admin.browser.open("/admin/people").await.expect(200);
    let roles = [("person_id", id.as_str()), ("roles[]", "member")];
    assert_eq!(admin.browser.submit_by_script("set_roles", &roles).await.status, 409);
    let disable = [("person_id", id.as_str()), ("reason", "tired")];
    assert_eq!(
        admin.browser.submit_by_script("disable_person", &disable).await.status,
        409
    );
    admin.browser.get("/admin/people").await.expect(200);
}

#[tokio::test]
async fn s12_every_act_of_administration_needs_a_recent_factor() {
    let app = TestApp::start("s12").await;
    let admin = Admin::sign_in(&app).await;
    let victim = app.add_person("victim", &["member"], false).await;
    let program = Program::signed_in(&app, &victim).await;
    let mut browser = admin.browser;
    // The role allows ten minutes since the last factor.
    app.pass(601);
    browser.open("/admin/people").await.expect(200);
    let before = app.state().await;
    let mut acts = 0;
    for (name, fields) in csrf::rows(&victim, &program.session_id) {
        let expected = actions()
            .into_iter()
            .find(|(action, _)| *action == name)
            .expect("a row for each")
            .1;
        if expected[1] != 403 {
            continue;
        }
        let fields: Vec<(&str, &str)> = fields.iter().map(|(field, value)| (*field, value.as_str())).collect();
        let reply = browser.submit(name, &fields).await;
        assert!(
            reply.location().starts_with("/step-up?return_to=%2Fadmin")
                || reply.location().starts_with("/step-up?return_to=/admin"),
            "{name}: {}",
            reply.location()
        );
        acts += 1;
    }
    assert_eq!(acts, 8);
    assert_eq!(app.state().await, before, "nothing was done");
    browser.step_up(&admin.person, "/admin/people").await.expect(200);
    let id = victim.id.to_string();
    browser
        .submit_and_follow("end_person_sessions", &[("person_id", &id)])
        .await
        .expect(200);
    program.sessions().await.expect(401);
}

#[tokio::test]
async fn p13_an_administrator_can_set_nobodys_password() {
    let app = TestApp::start("p13").await;
    let admin = Admin::sign_in(&app).await;
    let victim = app.add_person("victim", &["member"], false).await;
    let hash = app
        .rows("SELECT password_hash FROM users WHERE username = 'victim'")
        .await;
    let mut browser = admin.browser;
    browser.open("/admin/people").await.expect(200);
    let id = victim.id.to_string();
    for (name, expected) in actions() {
        if expected[1] != 403 || name == "save_policy" || name == "invite_person" {
            continue;
        }
        let fields = [
            ("person_id", id.as_str()),
            ("reason", "because"),
            ("roles[]", "member"),
            ("password", "a password of the administrator"),
            ("new_password", "a password of the administrator"),
            ("password_hash", "$argon2id$"),
        ];
        browser.submit(name, &fields).await;
    }
    assert_eq!(
        app.rows("SELECT password_hash FROM users WHERE username = 'victim'")
            .await,
        hash
    );
}
