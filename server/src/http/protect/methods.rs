//! Methods that no route has: TRACE, CONNECT and invented ones (L12, F25).

use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};

use crate::http::error::Problem;

/// Gate: 405 for everything but the methods routes can have. `_method` and `X-HTTP-Method-Override` mean nothing
/// here or anywhere.
pub fn refuse_odd_method(method: &Method) -> Option<Response> {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if known.contains(method) {
        return None;
    }
    let mut response = Problem::method_not_allowed().into_response();
    response.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"),
    );
    Some(response)
}

/// Changes nothing (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
