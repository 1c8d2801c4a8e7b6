//! Tests of error bodies and of the last resort.

use super::*;
use crate::domain::audit::Kind;
use crate::http::protect::recorder::{Recorder, edge};
use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

async fn breaks() -> &'static str {
    panic!("CANARY")
}

fn app(sink: &Arc<Recorder>) -> Router {
    let routes = Router::new()
        .route("/panic", get(breaks))
        .route("/busy", get(|| async { Problem::unavailable().with("left", 3) }))
        .route("/json", post(|axum::Json(_): axum::Json<Vec<u8>>| async {}))
        .route(
            "/page",
            get(|| async { (StatusCode::NOT_FOUND, axum::response::Html("ours")) }),
        );
    edge(sink, routes)
}

/// The request's id, as the answer's header names it.
fn id(response: &Response<()>) -> &str {
    response.headers()["x-request-id"].to_str().unwrap()
}

async fn call(sink: &Arc<Recorder>, method: &str, path: &str, accept: &str) -> (Response<()>, String) {
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let request = request
        .header("content-type", "application/json")
        .body(Body::from("["))
        .unwrap();
    let (parts, body) = app(sink).oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (
        Response::from_parts(parts, ()),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn problems_carry_the_request_id_and_retry_after() {
    let (response, body) = call(&Arc::default(), "GET", "/busy", "*/*").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["retry-after"], "2");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["type"], "urn:mayfly:problem:unavailable");
    assert_eq!(body["instance"], format!("urn:mayfly:request:{}", id(&response)));
    assert_eq!(body["status"], 503);
    assert_eq!(body["left"], 3);
}

#[tokio::test]
async fn l8_a_panic_is_a_plain_500_that_is_reported() {
    let sink = Arc::<Recorder>::default();
    let (response, body) = call(&sink, "GET", "/panic", "application/json").await;
    assert_eq!(response.status(), 500);
    assert!(!body.contains("CANARY") && body.contains(id(&response)), "{body}");
    assert_eq!(sink.kinds(), [Kind::HandlerPanicked]);
    assert_eq!(
        call(&sink, "GET", "/busy", "*/*").await.0.status(),
        503,
        "the process lives"
    );
}

#[tokio::test]
async fn f29_messages_of_libraries_never_get_out() {
    for (method, path, status) in [("POST", "/json", 400), ("GET", "/json", 405), ("GET", "/nowhere", 404)] {
        let (response, body) = call(&Arc::default(), method, path, "*/*").await;
        assert_eq!(response.status(), status);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], status);
        assert_eq!(body["instance"], format!("urn:mayfly:request:{}", id(&response)));
    }
    assert!(
        call(&Arc::default(), "GET", "/json", "*/*")
            .await
            .0
            .headers()
            .contains_key("allow")
    );
}

#[tokio::test]
async fn people_get_a_page_and_pages_stay_as_they_are() {
    let (response, body) = call(&Arc::default(), "GET", "/busy", "text/html,*/*").await;
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert!(body.contains(id(&response)) && body.contains("/pkg/main.css"), "{body}");
    let (response, body) = call(&Arc::default(), "GET", "/page", "text/html").await;
    assert_eq!((response.status().as_u16(), body.as_str()), (404, "ours"));
}
