//! Headers of every answer, and the content security policy of pages.

use std::collections::HashSet;

use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, HOST};
use serde_json::json;

use crate::app::TestApp;
use crate::browser::Browser;
use crate::people::Admin;

#[tokio::test]
async fn c5_every_answer_carries_the_protective_headers() {
    let app = TestApp::start_with("c5", &[("PUBLIC_URL", "https://id.example.org")]).await;
    let mut browser = Browser::new(&app);
    let mut replies = Vec::new();
    for path in [
        "/",
        "/sign-in",
        "/security",
        "/admin/people",
        "/welcome",
        "/nowhere",
        "/pkg/nowhere.js",
        "/api/openapi.json",
        "/api/nowhere",
        "/api/v1/me/sessions",
        "/.well-known/jwks.json",
        "/healthz",
        "/readyz",
        "/actions/sign_in",
        "/welcome/open/x",
    ] {
        replies.push((path, browser.get(path).await));
    }
    replies.push(("login", browser.fetch(Method::POST, "/auth/login", &json!({})).await));
    replies.push(("form", browser.submit("sign_in", &[]).await));
    let odd = browser
        .request(Method::TRACE, "/")
        .body(Body::empty())
        .expect("a request");
    replies.push(("trace", browser.send(odd).await.expect(405)));
    app.backend().store().close().await;
    replies.push(("no database", browser.get("/").await));
    for (what, reply) in replies {
        let header = |name: &str| {
            reply
                .header(name)
                .unwrap_or_else(|| panic!("{what}: no {name} in {:?}", reply.headers))
        };
        assert!(
            header("strict-transport-security").contains("max-age=63072000; includeSubDomains"),
            "{what}"
        );
        assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
        assert_eq!(header("x-frame-options"), "DENY", "{what}");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{what}");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{what}");
        assert!(
            ["same-origin", "no-referrer"].contains(&header("referrer-policy")),
            "{what}"
        );
        let csp = header("content-security-policy");
        assert!(
            csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"),
            "{what}: {csp}"
        );
        assert!(csp.contains("base-uri 'none'"), "{what}: {csp}");
        assert!(
            !csp.contains("unsafe-inline") && !csp.contains("'unsafe-eval'"),
            "{what}: {csp}"
        );
        assert!(
            reply.header("server").is_none() && reply.header("x-powered-by").is_none(),
            "{what}"
        );
        assert!(
            reply.header("access-control-allow-origin").is_none(),
            "{what}: nobody else's scripts read this"
        );
        assert!(header("x-request-id").len() >= 16, "{what}");
    }
    let local = TestApp::start("c5 local").await;
    let reply = Browser::new(&local).get("/sign-in").await.expect(200);
    assert!(
        reply.header("strict-transport-security").is_none(),
        "without TLS the promise would be false"
    );
}

#[tokio::test]
async fn c6_pages_run_only_scripts_with_the_nonce_of_this_very_answer() {
    let app = TestApp::start("c6").await;
    let mut admin = Admin::sign_in(&app).await;
    let mut seen = HashSet::new();
    let paths = [
        "/",
        "/security",
        "/admin/roles/member",
        "/admin/people",
        "/admin/audit",
        "/sign-in",
        "/nowhere",
    ];
    for round in 0..10 {
        for path in paths {
            let reply = admin.browser.get(path).await;
            let csp = reply.header("content-security-policy").expect("a policy").to_owned();
            let nonce = csp
                .split("'nonce-")
                .nth(1)
                .and_then(|rest| rest.split('\'').next())
                .expect("a nonce");
            assert!(nonce.len() >= 22, "{nonce}");
            assert!(
                seen.insert(nonce.to_owned()),
                "round {round}: the nonce of {path} came before"
            );
            for (directive, value) in [
                ("object-src", "'none'"),
                ("base-uri", "'none'"),
                ("frame-ancestors", "'none'"),
                ("form-action", "'self'"),
                ("report-uri", "/csp-report"),
            ] {
                assert!(csp.contains(&format!("{directive} {value}")), "{path}: {csp}");
            }
            for tag in reply.body.split("<script").skip(1) {
                let tag = tag.split('>').next().expect("the tag ends");
                assert!(tag.contains(&format!("nonce=\"{nonce}\"")), "{path}: <script{tag}>");
            }
            let lower = reply.body.to_lowercase();
            for inline in [" style=\"", " onclick=", " onload=", " onerror=", "javascript:"] {
                assert!(!lower.contains(inline), "{path}: {inline}");
            }
        }
    }
    assert_eq!(seen.len(), 70);
}

#[tokio::test]
async fn c6_browsers_report_violations_to_us_and_hostile_reports_are_refused() {
    let app = TestApp::start("c6 reports").await;
    let browser = Browser::new(&app);
    let send = |kind: &'static str, body: String| {
        let request = browser.request(Method::POST, "/csp-report").header(CONTENT_TYPE, kind);
        let request = request
            .header("origin", "null")
            .body(Body::from(body))
            .expect("a request");
        app.send(browser.peer, request)
    };
    let report =
        json!({"csp-report": {"blocked-uri": "https://evil.example/x", "document-uri": "http://localhost:3000/"}});
    send("application/csp-report", report.to_string()).await.expect(204);
    send(
        "application/reports+json",
        json!([{"body": {"blockedURL": "inline"}}]).to_string(),
    )
    .await
    .expect(204);
    send("text/plain", report.to_string()).await.expect(415);
    for nothing in ["{", "{}", "[]", "1", "null", "[{}]"] {
        send("application/csp-report", nothing.to_owned()).await.expect(400);
    }
    send("application/csp-report", "9".repeat(20_000)).await.expect(413);
}

#[tokio::test]
async fn c13_an_unknown_file_is_a_404_and_no_page_of_the_application() {
    let app = TestApp::start("c13").await;
    let mut browser = Browser::new(&app);
    for path in [
        "/pkg/main-0000.js",
        "/pkg/../mayfly.db",
        "/pkg/%2e%2e/mayfly.db",
        "/robots.txt",
        "/.env",
    ] {
        let reply = browser.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(!reply.body.contains("SQLite format"), "{path}");
        let kind = reply.header("content-type").expect("a type");
        assert!(
            kind == "application/problem+json" || kind.contains("charset=utf-8"),
            "{path}: {kind}"
        );
    }
}

#[tokio::test]
async fn c14_forwarded_headers_of_strangers_change_nothing() {
    let app = TestApp::start("c14").await;
    let mut browser = Browser::new(&app);
    let request = browser
        .request(Method::POST, "/auth/login")
        .header(CONTENT_TYPE, "application/json")
        .header("x-forwarded-for", "10.9.8.7")
        .header("forwarded", "for=10.9.8.7;host=evil.example;proto=https")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "https")
        .body(Body::from(
            json!({"identifier": "nobody", "password": "nothing"}).to_string(),
        ))
        .expect("a request");
    browser.send(request).await.expect(401);
    let rows = app
        .rows("SELECT address FROM audit_events WHERE kind = 'authn_login_fail'")
        .await;
    assert_eq!(rows, [[Some("198.51.100.7".to_owned())]]);
    let mut evil = Browser::new(&app);
    let request = evil.navigation(Method::GET, "/", "none").header(HOST, "evil.example");
    let reply = evil.send(request.body(Body::empty()).expect("a request")).await;
    assert!(!reply.body.contains("evil.example"));
    assert!(
        !reply.header("location").unwrap_or_default().contains("evil.example"),
        "{:?}",
        reply.headers
    );
}
