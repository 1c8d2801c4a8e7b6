//! Who may do what: every route for everybody, and fields that nobody may send.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};

use crate::app::TestApp;
use crate::browser::{Browser, encode};
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
        (Method::GET, "/api/v1/me/sessions", [401, 200, 200, 200, 401, 401]),
        (Method::DELETE, unknown, [401, 404, 404, 404, 401, 401]),
        (
            Method::DELETE,
            "/api/v1/me/sessions/nonsense",
            [401, 404, 404, 404, 401, 401],
        ),
        (Method::GET, "/api/v1/nowhere", [404, 404, 404, 404, 404, 401]),
        (Method::GET, "/.well-known/jwks.json", [200; 6]),
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
        "/api/v1/me/sessions",
        "/api/v1/me/sessions/{id}",
        "/auth/login",
        "/auth/logout",
        "/auth/mfa",
        "/auth/refresh",
        "/healthz",
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
    browser.get("/admin/roles").await.expect(403);
    let page = browser.open("/").await.expect(200).page();
    assert!(page.contains("Your devices"), "the session itself goes on");
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
async fn l3_fields_that_nobody_asked_for_change_nothing() {
    let app = TestApp::start("l3").await;
    let mut admin = Admin::sign_in(&app).await;
    let person = app.add_person("max", &["member"], false).await;
    // JSON: an unknown, doubled or mistyped member makes the whole body unreadable.
    let password = &person.password;
    let mut program = Program::new(&app);
    for body in [
        format!(r#"{{"identifier":"max","password":"{password}","role":"admin"}}"#),
        format!(r#"{{"identifier":"max","password":"{password}","is_admin":true}}"#),
        format!(r#"{{"identifier":"max","password":"{password}","sid":"x"}}"#),
        format!(r#"{{"identifier":"root","identifier":"max","password":"{password}"}}"#),
        format!(r#"{{"identifier":["max"],"password":"{password}"}}"#),
        format!(r#"{{"identifier":"max","password":{{"$ne":null}}}}"#),
        format!(r#"{{"identifier":"max","password":"{password}"}}{{}}"#),
        format!(r#"[{{"identifier":"max","password":"{password}"}}]"#),
        r#"{"identifier":"max"}"#.to_owned(),
        r#"{"identifier":null,"password":null}"#.to_owned(),
        "{\"identifier\":\"max\",\"password\":\"\\ud800\"}".to_owned(),
        "[".repeat(50_000),
        String::new(),
        "null".to_owned(),
    ] {
        let reply = program.post_text("/auth/login", &body).await;
        assert_eq!(reply.status, 400, "{body:.200}: {}", reply.body);
        assert!(
            !reply.body.contains("serde") && !reply.body.contains("line 1"),
            "{}",
            reply.body
        );
    }
    program
        .post_text(
            "/auth/login",
            &format!(r#"{{"identifier":"max","password":"{}"}}"#, "x".repeat(70_000)),
        )
        .await
        .expect(413);

    // Forms: what the account is not asked for is not taken from it.
    let link = admin.invite("climber", &["member"]).await;
    let mut browser = Browser::new(&app);
    browser
        .open(link.strip_prefix(crate::app::ORIGIN).expect("ours"))
        .await
        .expect(200);
    let fields = [
        ("username", "root2"),
        ("email", "climber@example.org"),
        ("display_name", "Climber"),
        ("password", crate::people::PASSWORD),
        ("role", "admin"),
        ("roles[]", "admin"),
        ("is_admin", "true"),
        ("status", "active"),
        ("user_id", &admin.person.id.to_string()),
    ];
    browser.submit("accept_invitation", &fields).await.expect(303);
    assert!(browser.is_signed_in());
    let rows = app.rows(
        "SELECT u.username, r.role FROM users u JOIN user_roles r ON r.user_id = u.id WHERE u.email = 'climber@example.org'",
    );
    assert_eq!(
        rows.await,
        [[Some("climber".to_owned()), Some("member".to_owned())]],
        "name and role were the inviter's"
    );

    // A field that stands there twice is refused, not guessed at.
    browser.open("/security").await.expect(200);
    let fields = [
        ("current_password", crate::people::PASSWORD),
        ("new_password", "one new password for this"),
        ("new_password", "two new passwords for this"),
    ];
    let reply = browser.submit_by_script("change_password", &fields).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(app.events("authn_password_change").await, 0);
}

#[tokio::test]
async fn f29_hostile_forms_get_a_clear_no() {
    let app = TestApp::start("f29").await;
    let admin = Admin::sign_in(&app).await;
    let victim = app.add_person("victim", &["member"], false).await;
    let mut browser = admin.browser.clone();
    browser.open("/admin/people/new").await.expect(200);
    let token = browser.form_token.clone();
    let long = "x".repeat(60_000);
    let many = encode(&vec![("x", "y"); 12_000]);
    for (name, fields) in csrf::rows(&victim, "not-an-id") {
        if name == "sign_out" {
            continue;
        }
        let bodies = [
            format!("form_token={token}"),
            format!("form_token={token}&{many}"),
            format!("form_token={token}&%ff%fe=%00&=&&&"),
            format!(
                "form_token={token}&{}",
                fields
                    .iter()
                    .map(|(field, _)| format!("{field}=%ff%fe%00"))
                    .collect::<Vec<_>>()
                    .join("&")
            ),
            format!(
                "form_token={token}&{}",
                fields
                    .iter()
                    .take(1)
                    .map(|(field, _)| format!("{field}={long}"))
                    .collect::<String>()
            ),
            format!(
                "form_token={token}&{}",
                fields
                    .iter()
                    .map(|(field, _)| format!("{field}[a][b][c][d][e][f]=1"))
                    .collect::<Vec<_>>()
                    .join("&")
            ),
            format!("form_token={token}&based_on=99999999999999999999&person_id=' OR 1=1 --&session_id=%00"),
        ];
        for body in bodies {
            let builder = browser.script(Method::POST, &format!("/actions/{name}"));
            let builder = builder.header("content-type", "application/x-www-form-urlencoded");
            let request: Request<Body> = builder.body(Body::from(body.clone())).expect("a request");
            let reply = app.send(browser.peer, request).await;
            assert!(
                !reply.status.is_server_error(),
                "{name} {body:.120}: {} {}",
                reply.status,
                reply.body
            );
            for word in ["serde", "Option<", "core::", "panicked", "sqlx", "String"] {
                assert!(!reply.body.contains(word), "{name}: {}", reply.body);
            }
            if reply.status.is_success() || reply.status == 303 {
                // An act without arguments obeys: then the browser has new cookies.
                browser.keep(&reply);
            }
        }
        browser.open("/admin/people/new").await.expect(200);
        assert_eq!(token, browser.form_token, "{name}");
    }
    assert_eq!(app.events("sys_crash").await, 0);
    assert!(app.number("SELECT count(*) FROM users").await == 2);
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
        let expected = actions().into_iter().find(|(action, _)| *action == name).expect("a row for each").1;
        if expected[1] != 403 {
            continue;
        }
        let fields: Vec<(&str, &str)> = fields.iter().map(|(field, value)| (*field, value.as_str())).collect();
        let reply = browser.submit(name, &fields).await;
        assert!(reply.location().starts_with("/step-up?return_to=%2Fadmin") || reply.location().starts_with("/step-up?return_to=/admin"), "{name}: {}", reply.location());
        acts += 1;
    }
    assert_eq!(acts, 8);
    assert_eq!(app.state().await, before, "nothing was done");
    browser.step_up(&admin.person, "/admin/people").await.expect(200);
    let id = victim.id.to_string();
    browser.submit_and_follow("end_person_sessions", &[("person_id", &id)]).await.expect(200);
    program.sessions().await.expect(401);
}

#[tokio::test]
async fn p13_an_administrator_can_set_nobodys_password() {
    let app = TestApp::start("p13").await;
    let admin = Admin::sign_in(&app).await;
    let victim = app.add_person("victim", &["member"], false).await;
    let hash = app.rows("SELECT password_hash FROM users WHERE username = 'victim'").await;
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
    assert_eq!(app.rows("SELECT password_hash FROM users WHERE username = 'victim'").await, hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_of_eight_uses_of_one_invitation_at_once_exactly_one_succeeds() {
    let app = TestApp::start("l10").await;
    let mut admin = Admin::sign_in(&app).await;
    let link = admin.invite("newcomer", &["member"]).await;
    let mut browser = Browser::new(&app);
    browser.open(link.strip_prefix(crate::app::ORIGIN).expect("ours")).await.expect(200);
    let mut tries = tokio::task::JoinSet::new();
    for i in 0..8 {
        let mut browser = browser.clone();
        let password = format!("a long enough password, number {i}");
        tries.spawn(async move {
            let fields = [("username", "newcomer"), ("email", ""), ("display_name", ""), ("password", password.as_str())];
            browser.submit("accept_invitation", &fields).await;
            browser.is_signed_in()
        });
    }
    assert_eq!(tries.join_all().await.into_iter().filter(|success| *success).count(), 1);
    assert_eq!(app.events("invitation_accepted").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l11_more_sign_ins_than_can_wait_are_told_to_come_back() {
    let app = TestApp::start_with("l11", &[("PASSWORD__HASHING_THREADS", "1"), ("PASSWORD__QUEUE", "2")]).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut program = Program::new(&app);
        let login = serde_json::json!({"identifier": "nobody", "password": "something long enough"});
        tries.spawn(async move { program.post("/auth/login", &login).await });
    }
    let replies = tries.join_all().await;
    let busy: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(replies.iter().all(|reply| reply.status == 503 || reply.status == 401));
    assert!(replies.len() > busy.len() && !busy.is_empty(), "{} of {} were turned away", busy.len(), replies.len());
    assert!(busy.iter().all(|reply| reply.header("retry-after").is_some()));
    let after = serde_json::json!({"identifier": "nobody", "password": "something long enough"});
    Program::new(&app).post("/auth/login", &after).await.expect(401);
}

#[tokio::test]
async fn l12_nothing_inside_is_shown_to_the_outside() {
    let app = TestApp::start("l12").await;
    let mut browser = Browser::new(&app);
    for path in ["/metrics", "/debug", "/debug/pprof", "/status", "/server-status", "/.git/config", "/actuator", "/console"] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
    for method in ["TRACE", "CONNECT", "PROPFIND", "DEBUG"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = browser.request(method.clone(), "/").header("x-secret", "CANARY").body(Body::empty());
        let reply = browser.send(request.expect("a request")).await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(!reply.body.contains("CANARY"));
    }
    for path in ["/", "/nowhere", "/healthz", "/api/nowhere"] {
        let reply = browser.get(path).await;
        let shown = format!("{:?} {}", reply.headers, reply.body).to_lowercase();
        for word in ["axum", "hyper", "rust/", concat!("mayfly/", env!("CARGO_PKG_VERSION"))] {
            assert!(!shown.contains(word), "{path}: {word}");
        }
    }
}
