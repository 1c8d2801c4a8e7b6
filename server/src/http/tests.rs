//! Tests of the edge: whatever it answers itself is as complete as what a handler answers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use tower::ServiceExt as _;

use super::Edge;
use super::protect::recorder::{Recorder, edge, rules};
use crate::domain::audit::Kind;

async fn breaks() {
    panic!("CANARY")
}

fn routes() -> Router {
    Router::new()
        .route("/here", get(|| async {}))
        .route("/breaks", get(breaks))
        .route("/hangs", get(std::future::pending::<()>))
        .route("/reads", post(|_: Bytes| async {}))
}

async fn ask(router: Router, method: &str, path: &str, header: (&str, &str), body: &str) -> Response {
    let request = Request::builder().method(method).uri(path).header(header.0, header.1);
    let request = request.header("content-type", "application/json");
    let answer = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await;
    answer.unwrap()
}

fn is_complete(headers: &HeaderMap) -> bool {
    [
        "x-request-id",
        "strict-transport-security",
        "content-security-policy",
        "x-content-type-options",
        "cache-control",
    ]
    .iter()
    .all(|name| headers.contains_key(*name))
}

#[tokio::test]
async fn c5_what_the_edge_answers_itself_carries_the_protective_headers_and_an_id() {
    let sink = Arc::<Recorder>::default();
    let twice = ("cookie", "__Host-Http-mayfly-at=1; __Host-Http-mayfly-at=2");
    let foreign = ("origin", "https://evil.example");
    let plain = ("accept", "*/*");
    let large = "x".repeat(2000);
    for (method, path, header, body, status) in [
        ("GET", "/here", plain, "", 200),
        ("TRACE", "/here", plain, "", 405),
        ("POST", "/here", plain, "", 405),
        ("GET", "/here", twice, "", 400),
        ("POST", "/reads", foreign, "", 403),
        ("POST", "/reads", plain, &large, 413),
        ("GET", "/nowhere", plain, "", 404),
        ("GET", "/breaks", plain, "", 500),
        ("GET", "/hangs", plain, "", 503),
    ] {
        let answer = ask(edge(&sink, routes()), method, path, header, body).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        let headers = answer.headers();
        assert!(is_complete(headers), "{method} {path}: {headers:?}");
        let is_problem = headers
            .get("content-type")
            .is_some_and(|kind| kind == "application/problem+json");
        assert_eq!(is_problem, status != 200, "{method} {path}");
        assert_eq!(headers.contains_key("retry-after"), status == 503, "{method} {path}");
    }
    assert_eq!(
        sink.kinds(),
        [Kind::DuplicateCookie, Kind::CsrfRefused, Kind::HandlerPanicked]
    );
}

#[tokio::test]
async fn c14_nothing_is_answered_to_a_connection_from_nowhere() {
    let sink = Arc::<Recorder>::default();
    let blind = Edge::around(routes(), rules(&sink));
    let answer = ask(blind, "GET", "/here", ("accept", "*/*"), "").await;
    assert_eq!(answer.status(), 500);
}
