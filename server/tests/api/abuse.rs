//! Hostile, doubled and excessive requests: a clear no, and nothing lost.

use axum::body::Body;
use axum::http::{Method, Request};

use crate::app::TestApp;
use crate::browser::{Browser, encode};
use crate::csrf;
use crate::people::Admin;
use crate::program::Program;

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
        r#"{"identifier":"max","password":{"$ne":null}}"#.to_owned(),
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
                    .first()
                    .map(|(field, _)| format!("{field}={long}"))
                    .unwrap_or_default()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l10_of_eight_uses_of_one_invitation_at_once_exactly_one_succeeds() {
    let app = TestApp::start("l10").await;
    let mut admin = Admin::sign_in(&app).await;
    let link = admin.invite("newcomer", &["member"]).await;
    let mut browser = Browser::new(&app);
    browser
        .open(link.strip_prefix(crate::app::ORIGIN).expect("ours"))
        .await
        .expect(200);
    let mut tries = tokio::task::JoinSet::new();
    for i in 0..8 {
        let mut browser = browser.clone();
        let password = format!("a long enough password, number {i}");
        tries.spawn(async move {
            let fields = [
                ("username", "newcomer"),
                ("email", ""),
                ("display_name", ""),
                ("password", password.as_str()),
            ];
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
    assert!(
        replies.len() > busy.len() && !busy.is_empty(),
        "{} of {} were turned away",
        busy.len(),
        replies.len()
    );
    assert!(busy.iter().all(|reply| reply.header("retry-after").is_some()));
    let after = serde_json::json!({"identifier": "nobody", "password": "something long enough"});
    Program::new(&app).post("/auth/login", &after).await.expect(401);
}

#[tokio::test]
async fn l12_nothing_inside_is_shown_to_the_outside() {
    let app = TestApp::start("l12").await;
    let mut browser = Browser::new(&app);
    for path in [
        "/metrics",
        "/debug",
        "/debug/pprof",
        "/status",
        "/server-status",
        "/.git/config",
        "/actuator",
        "/console",
    ] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
    for method in ["TRACE", "CONNECT", "PROPFIND", "DEBUG"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = browser
            .request(method.clone(), "/")
            .header("x-secret", "CANARY")
            .body(Body::empty());
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
