//! Tests of the small layers: methods, doubled cookies, redirects, reports, and what reaches the sink.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::recorder::{Recorder, edge, protection};
use super::*;

async fn send(app: Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, HeaderMap) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(ClientAddress([203, 0, 113, 1].into()));
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    body.collect().await.unwrap();
    (parts.status, parts.headers)
}

#[tokio::test]
async fn f25_methods_that_no_route_has_are_405() {
    let app = || edge(&Arc::default(), Router::new().fallback(any(|| async {})));
    for method in ["TRACE", "CONNECT", "TRACK", "PROPFIND", "get", "MAYFLY"] {
        let (status, headers) = send(app(), method, "/", &[], "").await;
        assert_eq!(status, 405, "{method}");
        assert!(headers.contains_key("allow"));
    }
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let overridden = [("x-http-method-override", "TRACE"), ("x-method-override", "TRACE")];
        assert_eq!(
            send(app(), method, "/?_method=TRACE", &overridden, "").await.0,
            200,
            "{method}"
        );
    }
}

#[tokio::test]
async fn c4_a_doubled_cookie_is_refused_and_told() {
    let sink = Arc::<Recorder>::default();
    let app = |sink: &Arc<Recorder>| edge(sink, Router::new().fallback(any(|| async {})));
    let once = [(
        "cookie",
        "__Host-Http-mayfly-at=1; __Host-Http-mayfly-rt=2; theme=dark; theme=light",
    )];
    assert_eq!(send(app(&sink), "GET", "/", &once, "").await.0, 200);
    assert!(sink.kinds().is_empty());
    for cookie in crate::http::cookies::OURS {
        let twice = format!("{cookie}=1; {cookie}=1");
        assert_eq!(send(app(&sink), "GET", "/", &[("cookie", &twice)], "").await.0, 400);
        let line = format!("{cookie}=1");
        assert_eq!(
            send(app(&sink), "GET", "/", &[("cookie", &line), ("cookie", &line)], "")
                .await
                .0,
            400
        );
    }
    assert_eq!(sink.kinds(), [Kind::DuplicateCookie; 10]);
}

#[tokio::test]
async fn f71_a_flood_of_refusals_is_no_flood_of_audit_rows() {
    let sink = Arc::<Recorder>::default();
    let app = edge(&sink, Router::new());
    for _ in 0..2000 {
        let twice = [("cookie", "__Host-Http-mayfly-at=1; __Host-Http-mayfly-at=1")];
        assert_eq!(
            send(app.clone(), "GET", "/", &twice, "").await.0,
            400,
            "refused all the same"
        );
    }
    let told = sink.kinds().len();
    assert!((1000..1500).contains(&told), "{told}");
}

#[tokio::test]
async fn c10_redirects_of_actions_stay_here_and_are_303() {
    let redirecting = |status: u16, location: &'static str| {
        let answer = (StatusCode::from_u16(status).unwrap(), [("location", location)]);
        Router::new()
            .route("/", post(move || async move { answer }))
            .layer(from_fn_with_state(protection(Arc::default()), keep_redirects_here))
    };
    for (location, kept) in [
        ("/devices", "/devices"),
        (
            "https://id.example/sign-in?__path=x&__err=eyJhIjoxfQ==",
            "/sign-in?__path=x&__err=eyJhIjoxfQ==",
        ),
        ("https://id.example/sign-in#top", "/sign-in"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("https://id.example.evil.example/", "/"),
        ("https://id.example@evil.example/", "/"),
        ("javascript:alert(1)", "/"),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let (status, headers) = send(redirecting(status, location), "POST", "/", &[], "").await;
            assert_eq!(status, 303, "{location}");
            assert_eq!(headers["location"], kept);
        }
    }
    let (status, headers) = send(redirecting(200, "https://evil.example/"), "POST", "/", &[], "").await;
    assert_eq!((status.as_u16(), headers["location"].to_str().unwrap()), (200, "/"));
    let plain = Router::new()
        .route("/", get(|| async {}))
        .layer(from_fn_with_state(protection(Arc::default()), keep_redirects_here));
    assert!(!send(plain, "GET", "/", &[], "").await.1.contains_key("location"));
}

#[tokio::test]
async fn c6_reports_are_bounded_limited_and_never_answered_with_a_body() {
    let sink = Arc::<Recorder>::default();
    let shared = protection(sink.clone());
    let app = || {
        Router::new()
            .route(REPORT_PATH, any(csp_report))
            .with_state(shared.clone())
    };
    let kind = [("content-type", "application/csp-report")];
    let old = r#"{"csp-report":{"document-uri":"https://id.example/x?secret","effective-directive":"script-src"}}"#;
    let new = r#"[{"type":"csp-violation","body":{"effectiveDirective":"script-src","blockedURL":"inline\nx"}}]"#;
    assert_eq!(send(app(), "POST", REPORT_PATH, &kind, old).await.0, 204);
    let reports = [("content-type", "application/reports+json; charset=utf-8")];
    assert_eq!(send(app(), "POST", REPORT_PATH, &reports, new).await.0, 204);
    for odd in ["null", "[]", "{}", "7", "[[[[[]]]]]", r#"{"csp-report":7}"#] {
        assert_eq!(send(app(), "POST", REPORT_PATH, &kind, odd).await.0, 400, "{odd}");
    }
    assert_eq!(send(app(), "POST", REPORT_PATH, &kind, "{").await.0, 400);
    assert_eq!(
        send(app(), "POST", REPORT_PATH, &kind, &"[".repeat(10_000)).await.0,
        400
    );
    assert_eq!(
        send(app(), "POST", REPORT_PATH, &kind, &" ".repeat(20_000)).await.0,
        413
    );
    assert_eq!(
        send(app(), "POST", REPORT_PATH, &[("content-type", "text/plain")], old)
            .await
            .0,
        415
    );
    assert_eq!(send(app(), "GET", REPORT_PATH, &[], "").await.0, 405);
    assert!(sink.kinds().is_empty());
    let mut limited = None;
    for _ in 0..20 {
        let (status, headers) = send(app(), "POST", REPORT_PATH, &kind, old).await;
        if status == 429 {
            limited = Some(headers);
        }
    }
    assert!(limited.unwrap().contains_key("retry-after"));
    assert!(sink.kinds().iter().all(|kind| *kind == Kind::RateLimited) && !sink.kinds().is_empty());
}
