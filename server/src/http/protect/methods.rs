//! Requests that no route is for: methods like TRACE, CONNECT and invented ones (L12, F25), heads without measure (F22).

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::error::Problem;

/// Most bytes of a request's address and headers; more are 431.
pub const MOST_HEAD_BYTES: u32 = 64 * 1024;

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

/// Gate: 431 for an address and headers of more than [`MOST_HEAD_BYTES`] together. The connection's own limit is one of
/// its buffer, and lets more through when it arrives in large pieces.
pub fn refuse_long_head(request: &Request) -> Option<Response> {
    let headers = request.headers().iter();
    let headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    let address = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let is_long = headers + address > MOST_HEAD_BYTES as usize;
    is_long.then(|| Problem::of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).into_response())
}

/// Changes nothing (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
