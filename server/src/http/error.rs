//! Refusals and faults as answers: RFC 9457 problem documents for programs, one plain page for people.
//!
//! Owns: the shape of every error body. Must not know why something was refused.
//! No body ever carries a Rust type, a library's message or anybody's data.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::client::RequestId;
use super::limits::RetryAfter;
use crate::storage::StorageError;

/// An error as RFC 9457 describes it. Returned by handlers and layers; [`Bodies`] adds the request's id.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:mayfly:problem:<code>`: the same for the same kind of problem, for ever.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short sentence, the same for every problem of this type.
    pub title: Cow<'static, str>,
    /// HTTP status.
    pub status: u16,
    /// What happened this time and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'static, str>>,
    /// `urn:mayfly:request:<id>`, also in the header `x-request-id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Further members of this type of problem.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Map<String, Value>,
    /// Seconds, for the header `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this type.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, title: &'static str) -> Self {
        Self {
            kind: format!("urn:mayfly:problem:{code}"),
            title: title.into(),
            status: status.as_u16(),
            detail: None,
            instance: None,
            extra: Map::new(),
            retry_after: None,
        }
    }

    /// With a sentence about this very case.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// With `Retry-After`.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 400: the request could not be read.
    #[must_use]
    pub fn bad_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request could not be read.")
    }

    /// 401: nobody is signed in, or no longer.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "signed-out", "Sign in first.")
    }

    /// 403: not allowed.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not allowed.")
    }

    /// 403: an unsafe request that did not come from our own pages.
    #[must_use]
    pub fn foreign_origin() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            "The request did not come from this site.",
        )
        .detail("Open the page again and retry from there.")
    }

    /// 403: the form token is missing or too old.
    #[must_use]
    pub fn form_expired() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "form-expired",
            "The page was open for too long. Nothing was changed.",
        )
        .detail("Load the page again and retry.")
    }

    /// 404: no such thing, or not yours.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here.")
    }

    /// 405: not this method.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This method is not allowed here.",
        )
    }

    /// 408: the request's body did not arrive in time.
    #[must_use]
    pub fn request_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "The request took too long to arrive.",
        )
    }

    /// 409: something else happened meanwhile.
    #[must_use]
    pub fn conflict() -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Something else happened meanwhile.")
    }

    /// 413: the body is too large.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large.")
    }

    /// 415: not this content type.
    #[must_use]
    pub fn unsupported_media_type(expected: &'static str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "This content type is not accepted.",
        )
        .detail(format!("Send {expected}."))
    }

    /// 429 with `Retry-After`.
    #[must_use]
    pub fn too_many_requests(wait: RetryAfter) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many tries.")
            .detail(format!("Try again in {} s.", wait.seconds))
            .retry_after(wait.seconds)
    }

    /// 500, without a word about what it was; the log knows, by the request's id.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong on our side.",
        )
    }

    /// 503 with `Retry-After`.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "The service cannot answer right now.",
        )
        .detail("Nothing was changed. Try again in a moment.")
        .retry_after(2)
    }

    /// The general problem of a status.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            StatusCode::FORBIDDEN => Self::forbidden(),
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => Self::method_not_allowed(),
            StatusCode::REQUEST_TIMEOUT => Self::request_timeout(),
            StatusCode::CONFLICT => Self::conflict(),
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(status, "unsupported-media-type", "This content type is not accepted.")
            }
            StatusCode::UNPROCESSABLE_ENTITY => Self::new(status, "unprocessable", "The request makes no sense here."),
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(),
            status if status.is_client_error() => Self {
                status: status.as_u16(),
                ..Self::bad_request()
            },
            status => Self {
                status: status.as_u16(),
                ..Self::internal()
            },
        }
    }
}

impl From<&StorageError> for Problem {
    /// 503 if the database cannot be reached (F7), else 500. Logs it: call this once, at the boundary.
    fn from(error: &StorageError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(%error, "the database cannot be reached");
            Self::unavailable()
        } else {
            tracing::error!(%error, "the database refused");
            Self::internal()
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // A problem is plain data with text keys; serialising it cannot fail, and an empty body would still be right.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The shape of error bodies.
#[derive(Clone, Debug)]
pub struct Bodies {
    /// Path of the style sheet for the page people see, if this build has one.
    pub style: Option<Arc<str>>,
}

impl Bodies {
    /// Gives every error its body. A [`Problem`] gets the request's id, and becomes a plain page where the browser asks
    /// for one (`for_people`). Error bodies that a library wrote (axum's rejections name Rust types) are replaced by the
    /// general problem of their status. Pages and server functions keep what they said.
    #[must_use]
    pub fn give(&self, mut response: Response, id: &RequestId, for_people: bool) -> Response {
        let problem = match response.extensions_mut().remove::<Problem>() {
            Some(problem) => problem,
            None if written_by_a_library(&response) => {
                let mut problem = Problem::of_status(response.status());
                let wait = response
                    .headers()
                    .get(header::RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.parse().ok());
                problem.retry_after = wait.or(problem.retry_after);
                problem
            }
            None => return response,
        };
        render(response, problem, id, for_people, self.style.as_deref())
    }
}

/// Text for nobody: an error without a body, or with a library's plain text.
fn written_by_a_library(response: &Response) -> bool {
    let status = response.status();
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let server_function = response.headers().contains_key("serverfnerror");
    (status.is_client_error() || status.is_server_error()) && plain && !server_function
}

fn render(response: Response, mut problem: Problem, id: &RequestId, for_people: bool, style: Option<&str>) -> Response {
    problem.instance = Some(format!("urn:mayfly:request:{}", id.0));
    let page = for_people.then(|| page(&problem, id, style));
    let (mut old, _) = response.into_parts();
    let (new, body) = problem.into_response().into_parts();
    // Cookies, Allow and the like stay; what describes the old body goes.
    old.headers.remove(header::CONTENT_LENGTH);
    old.headers.remove(header::CONTENT_ENCODING);
    old.headers.remove(header::TRANSFER_ENCODING);
    for (name, value) in &new.headers {
        old.headers.insert(name, value.clone());
    }
    old.headers.remove(header::CONTENT_LENGTH);
    old.status = new.status;
    let Some(page) = page else {
        return Response::from_parts(old, body);
    };
    old.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    old.headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    Response::from_parts(old, Body::from(page))
}

fn page(problem: &Problem, id: &RequestId, style: Option<&str>) -> String {
    let style = style
        .map(|path| format!("<link rel=\"stylesheet\" href=\"{path}\">"))
        .unwrap_or_default();
    let detail = problem
        .detail
        .as_deref()
        .map(|text| format!("<p>{text}</p>"))
        .unwrap_or_default();
    let (title, id) = (&problem.title, &id.0);
    // Titles and details are our own words and numbers; nothing here comes from the request.
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title} · Mayfly</title>{style}</head><body><main><h1>{title}</h1>\
         {detail}<p>Request <code>{id}</code></p><p><a href=\"/\">Go to the start</a></p></main></body></html>"
    )
}

/// A browser that loads a document, not a program.
#[must_use]
pub fn accepts_html(headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/html"));
    headers.get_all(header::ACCEPT).iter().any(accepts)
}

/// Panics go to the log as one line with their place and without their message.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic");
    }));
}

#[cfg(test)]
mod tests;
