//! Tests of the edge: whatever it answers itself is as complete as what a handler answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use tower::ServiceExt as _;

use super::Edge;
use super::protect::recorder::{Recorder, edge, rules};
use super::refusal::StrictJson;
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

/// A body that never comes; its length is what the client says of it.
struct Never(Option<u64>);

impl HttpBody for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0
            .map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

/// A body whose framing breaks off.
fn broken() -> Body {
    let (sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
    sender.abort(std::io::Error::other("no such chunk"));
    Body::new(body)
}

#[tokio::test]
async fn f23_a_body_that_does_not_come_is_the_clients_trouble_and_named_so() {
    let sink = Arc::<Recorder>::default();
    let hangs_with_body = |body: Bytes| async move {
        drop(body);
        std::future::pending::<()>().await;
    };
    let routes = || {
        Router::new()
            .route("/reads", post(|_: Bytes| async {}))
            .route("/strict", post(|_: StrictJson<serde_json::Value>| async {}))
            .route("/hangs", post(hangs_with_body))
    };
    for (path, body, status) in [
        ("/reads", Body::new(Never(Some(50))), 408),
        ("/strict", Body::new(Never(None)), 408),
        // Nobody waits for it.
        ("/strict", Body::new(Never(Some(99_999_999_999))), 413),
        ("/strict", broken(), 400),
        ("/strict", Body::from("{}"), 200),
        // It has come, and the fault is ours.
        ("/hangs", Body::from("{}"), 503),
    ] {
        let request = Request::post(path).header("content-type", "application/json");
        let answer = edge(&sink, routes())
            .oneshot(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert!(is_complete(answer.headers()), "{path}: {:?}", answer.headers());
    }
}

#[tokio::test]
async fn f22_a_head_beyond_its_measure_is_431() {
    let sink = Arc::<Recorder>::default();
    for (length, status) in [(60_000, 200), (65_536, 431), (100_000, 431)] {
        let long = "x".repeat(length);
        let answer = ask(edge(&sink, routes()), "GET", "/here", ("x-long", &long), "").await;
        assert_eq!(answer.status(), status, "{length}");
    }
    let half = "x".repeat(35_000);
    let path = format!("/here?{half}");
    let answer = ask(edge(&sink, routes()), "GET", &path, ("x-long", &half), "").await;
    assert_eq!(answer.status(), 431, "both together");
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
