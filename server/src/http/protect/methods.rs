//! Methods that no route has: TRACE, CONNECT and invented ones (L12, F25).

use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::Problem;

/// Layer: 405 for everything but the methods routes can have. `_method` and `X-HTTP-Method-Override` mean nothing
/// here or anywhere.
pub async fn refuse_odd_methods(request: Request, next: Next) -> Response {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if known.contains(request.method()) {
        return next.run(request).await;
    }
    let mut response = Problem::method_not_allowed().into_response();
    response.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"),
    );
    response
}

/// Changes nothing (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
