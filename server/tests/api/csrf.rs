//! Requests that other sites make a browser send: for every server function there is, and for the JSON doors.

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, ORIGIN as ORIGIN_HEADER, REFERER};
use axum::http::{Method, Request};

use crate::app::{ORIGIN, TestApp};
use crate::browser::{Browser, encode};
use crate::people::{Admin, Person};

/// Every server function with fields that would work, who may send them, and where its form stands. A function that
/// is not here fails [`f63_every_server_function_has_a_row`]; a row that is not a function fails it, too.
pub fn rows(victim: &Person, session: &str) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let id = || victim.id.to_string();
    let text = str::to_owned;
    vec![
        (
            "sign_in",
            vec![
                ("identifier", text("victim")),
                ("password", victim.password.clone()),
                ("return_to", text("/")),
            ],
        ),
        ("verify_code", vec![("code", text("123456"))]),
        ("confirm_sign_in_enrolment", vec![("code", text("123456"))]),
        ("acknowledge_recovery_codes", vec![]),
        ("step_up", vec![("answer", text("123456")), ("return_to", text("/"))]),
        ("sign_out", vec![]),
        (
            "accept_invitation",
            vec![
                ("username", text("intruder")),
                ("email", text("intruder@example.org")),
                ("display_name", text("Intruder")),
                ("password", text("a long enough password for this")),
            ],
        ),
        ("end_session", vec![("session_id", text(session))]),
        ("end_other_sessions", vec![]),
        ("stay_signed_in", vec![]),
        (
            "change_password",
            vec![
                ("current_password", victim.password.clone()),
                ("new_password", text("a long enough new password")),
            ],
        ),
        ("confirm_authenticator", vec![("code", text("123456"))]),
        ("remove_authenticator", vec![]),
        ("renew_recovery_codes", vec![]),
        (
            "save_policy",
            vec![
                ("role", text("member")),
                ("based_on", text("1")),
                ("access_minutes", text("5")),
                ("idle_minutes", text("10")),
                ("absolute_hours", text("1")),
                ("absolute_minutes", text("0")),
                ("idle_warning_seconds", text("30")),
                ("remember_device_days", text("0")),
                ("mfa", text("optional")),
                ("step_up_minutes", text("5")),
                ("max_sessions", text("5")),
                ("reason", text("because")),
                ("justification", text("")),
            ],
        ),
        (
            "invite_person",
            vec![
                ("username", text("intruder")),
                ("email", text("intruder@example.org")),
                ("display_name", text("Intruder")),
                ("roles[]", text("admin")),
            ],
        ),
        ("invite_person_again", vec![("person_id", id())]),
        ("disable_person", vec![("person_id", id()), ("reason", text("because"))]),
        ("enable_person", vec![("person_id", id())]),
        ("set_roles", vec![("person_id", id()), ("roles[]", text("admin"))]),
        ("end_person_sessions", vec![("person_id", id())]),
        (
            "end_person_session",
            vec![("person_id", id()), ("session_id", text(session))],
        ),
    ]
}

/// An administrator who is signed in, a victim with a living session, and the rows.
async fn world(name: &str) -> (TestApp, Admin, Vec<(&'static str, Vec<(&'static str, String)>)>) {
    let app = TestApp::start(name).await;
    let admin = Admin::sign_in(&app).await;
    let victim = app.add_person("victim", &["member"], false).await;
    let program = crate::program::Program::signed_in(&app, &victim).await;
    let rows = rows(&victim, &program.session_id);
    (app, admin, rows)
}

fn body(fields: &[(&'static str, String)], token: &str) -> String {
    let mut all = vec![("form_token", token)];
    all.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
    encode(&all)
}

#[tokio::test]
async fn f63_every_server_function_has_a_row() {
    let (_app, _admin, rows) = world("f63 rows").await;
    let mut there: Vec<String> = app::action_paths()
        .into_iter()
        .map(|(path, _)| path.to_owned())
        .collect();
    there.sort();
    let mut known: Vec<String> = rows.iter().map(|(name, _)| format!("/actions/{name}")).collect();
    known.sort();
    assert_eq!(
        there, known,
        "each server function has exactly one row in the table above"
    );
    assert!(
        app::action_paths().iter().all(|(_, method)| *method == Method::POST),
        "and none takes GET"
    );
}

/// Headers as the browser of somebody who was lured to another site would send them.
const FOREIGN: [&[(&str, &str)]; 9] = [
    &[],
    &[("origin", "null"), ("sec-fetch-site", "cross-site")],
    &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
    &[
        ("origin", "http://evil.localhost:3000"),
        ("sec-fetch-site", "same-site"),
    ],
    &[("origin", "http://localhost:3001"), ("sec-fetch-site", "same-site")],
    &[
        ("origin", "http://localhost:3000.evil.example"),
        ("sec-fetch-site", "cross-site"),
    ],
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", "none")],
];

#[tokio::test]
async fn f63_no_server_function_obeys_another_site() {
    let (app, mut admin, rows) = world("f63").await;
    admin.browser.open("/admin/people/new").await.expect(200);
    let before = app.state().await;
    let (mut refused, recorded) = (0, app.events("malicious_csrf").await);
    for (name, fields) in &rows {
        // Even a stolen form token does not help from elsewhere.
        for (kind, text) in [
            (
                "application/x-www-form-urlencoded",
                body(fields, &admin.browser.form_token),
            ),
            ("text/plain", body(fields, &admin.browser.form_token)),
        ] {
            for headers in FOREIGN {
                let mut request = admin
                    .browser
                    .request(Method::POST, &format!("/actions/{name}"))
                    .header(ACCEPT, "text/html")
                    .header(CONTENT_TYPE, kind);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request = request.body(Body::from(text.clone())).expect("a request");
                let reply = app.send(admin.browser.peer, request).await;
                assert_eq!(reply.status, 403, "{name} {headers:?}: {}", reply.body);
                assert!(
                    reply.cookies().iter().all(|line| !line.contains("mayfly-rt=")),
                    "{name} {headers:?}"
                );
                refused += 1;
            }
        }
    }
    assert_eq!(app.state().await, before, "nothing was changed");
    assert_eq!(
        app.events("malicious_csrf").await,
        recorded + refused,
        "every one is recorded"
    );
}

#[tokio::test]
async fn c8_a_form_without_this_browsers_token_changes_nothing() {
    let (app, mut admin, rows) = world("c8 tokens").await;
    let mut other = Browser::elsewhere(&app);
    other.open("/sign-in").await.expect(200);
    admin.browser.open("/admin/people/new").await.expect(200);
    let own = admin.browser.form_token.clone();
    assert_ne!(own, other.form_token);
    let before = app.state().await;
    for (name, fields) in &rows {
        let without = encode(
            &fields
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect::<Vec<_>>(),
        );
        for text in [
            without,
            body(fields, ""),
            body(fields, &other.form_token),
            body(fields, &own[1..]),
            format!("form_token={own}&{}", body(fields, &own)),
        ] {
            for (accept, status) in [("application/json", 403), ("text/html", 303)] {
                let request = ours(&admin.browser, name).header(ACCEPT, accept);
                let request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Body::from(text.clone()))
                    .expect("a request");
                let reply = app.send(admin.browser.peer, request).await;
                assert_eq!(reply.status, status, "{name}: {}", reply.body);
                if status == 303 {
                    assert_eq!(
                        reply.location(),
                        "/admin/people/new",
                        "back to the page, to be sent again"
                    );
                }
            }
        }
        let typed = ours(&admin.browser, name).header(CONTENT_TYPE, "text/plain");
        let typed = typed.body(Body::from(body(fields, &own))).expect("a request");
        app.send(admin.browser.peer, typed).await.expect(415);
    }
    assert_eq!(app.state().await, before, "nothing was changed");
}

fn ours(browser: &Browser, name: &str) -> axum::http::request::Builder {
    browser
        .request(Method::POST, &format!("/actions/{name}"))
        .header("sec-fetch-site", "same-origin")
        .header(ORIGIN_HEADER, ORIGIN)
        .header(REFERER, format!("{ORIGIN}{}", browser.here))
}

#[tokio::test]
async fn c8_nobody_is_signed_in_from_another_site() {
    let (app, _, rows) = world("c8 login").await;
    let (_, fields) = rows.iter().find(|(name, _)| *name == "sign_in").expect("there is one");
    let mut victim = Browser::new(&app);
    victim.open("/sign-in").await.expect(200);
    let request: Request<Body> = victim
        .navigation(Method::POST, "/actions/sign_in", "cross-site")
        .header(ORIGIN_HEADER, "https://evil.example")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body(fields, &victim.form_token)))
        .expect("a request");
    victim.send(request).await.expect(403);
    assert!(!victim.is_signed_in());
}

#[tokio::test]
async fn c8_the_json_doors_obey_no_other_site_either() {
    let app = TestApp::start("c8 json").await;
    let person = app.add_person("victim", &["member"], false).await;
    let mut browser = Browser::new(&app);
    browser.sign_in(&person).await;
    browser.open("/").await.expect(200);
    let before = app.state().await;
    app.pass(60);
    for (method, path) in [
        (Method::POST, "/auth/login"),
        (Method::POST, "/auth/mfa"),
        (Method::POST, "/auth/refresh"),
        (Method::POST, "/auth/logout"),
        (Method::DELETE, "/api/v1/me/sessions"),
    ] {
        for headers in FOREIGN {
            let mut request = browser
                .request(method.clone(), path)
                .header(CONTENT_TYPE, "application/json");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::from("{}")).expect("a request");
            let reply = app.send(browser.peer, request).await;
            assert_eq!(reply.status, 403, "{method} {path} {headers:?}: {}", reply.body);
            assert!(reply.cookies().is_empty(), "{method} {path} {headers:?}");
        }
    }
    // From our own page, but without the page's token, the browser's cookies end nothing.
    let request = browser
        .request(Method::DELETE, "/api/v1/me/sessions")
        .header("sec-fetch-site", "same-origin")
        .header(ORIGIN_HEADER, ORIGIN)
        .body(Body::empty())
        .expect("a request");
    app.send(browser.peer, request).await.expect(403);
    assert_eq!(app.state().await, before);
    browser
        .fetch_empty(Method::DELETE, "/api/v1/me/sessions")
        .await
        .expect(200);
}

#[tokio::test]
async fn c9_no_safe_method_changes_anything() {
    let (app, admin, rows) = world("c9").await;
    let before = app.state().await;
    for (name, fields) in &rows {
        let query = body(fields, &admin.browser.form_token);
        for method in [
            Method::GET,
            Method::HEAD,
            Method::OPTIONS,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            for path in [
                format!("/actions/{name}?{query}"),
                format!("/actions/{name}?_method=POST&{query}"),
            ] {
                let safe = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
                let mut request = admin
                    .browser
                    .request(method.clone(), &path)
                    .header("x-http-method-override", "POST")
                    .header("sec-fetch-site", "same-origin")
                    .header("sec-fetch-mode", "navigate")
                    .header("sec-fetch-dest", "document");
                if !safe {
                    request = request.header(ORIGIN_HEADER, ORIGIN);
                }
                let reply = app
                    .send(admin.browser.peer, request.body(Body::empty()).expect("a request"))
                    .await;
                assert!(reply.status.is_client_error(), "{method} {path}: {}", reply.status);
            }
        }
    }
    for path in ["/auth/logout", "/auth/refresh", "/auth/login", "/auth/mfa"] {
        let reply = admin.browser.clone().get(path).await;
        assert_eq!(reply.status, 405, "{path}: {}", reply.body);
    }
    assert_eq!(app.state().await, before, "nothing was changed");
}

#[tokio::test]
async fn c7_no_origin_is_ever_let_in_to_read() {
    let app = TestApp::start("c7").await;
    let mut browser = Browser::new(&app);
    for path in ["/auth/login", "/api/v1/me/sessions", "/sign-in", "/actions/sign_in"] {
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3001",
            "HTTP://LOCALHOST:3000",
            ORIGIN,
        ] {
            for method in [Method::OPTIONS, Method::GET] {
                let request = browser
                    .request(method, path)
                    .header(ORIGIN_HEADER, origin)
                    .header("access-control-request-method", "POST")
                    .body(Body::empty())
                    .expect("a request");
                let reply = browser.send(request).await;
                for name in reply.headers.keys() {
                    assert!(!name.as_str().starts_with("access-control-"), "{path} {origin}: {name}");
                }
            }
        }
    }
}
