//! Refusals in the words of RFC 6749, section 5.2.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::limits::RetryAfter;
use crate::services::ServiceError;

/// A refused request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OAuthError {
    /// A code of RFC 6749 (section 5.2) or of the extension that is asked; of our own only where those have none.
    error: &'static str,
    /// What is wrong, for the people who write the client.
    error_description: &'static str,
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl OAuthError {
    /// `description` is ASCII without quotes and backslashes, as the standard wants it.
    #[must_use]
    pub const fn new(status: StatusCode, error: &'static str, description: &'static str) -> Self {
        Self {
            error,
            error_description: description,
            status,
            headers: Vec::new(),
        }
    }

    /// 400: a parameter is missing, sent twice, or makes no sense.
    #[must_use]
    pub const fn invalid_request(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// 401: nobody proved to be a client.
    #[must_use]
    pub fn invalid_client(description: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description).with_header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"mayfly\", charset=\"UTF-8\""),
        )
    }

    /// 400: the refresh token is worth nothing.
    #[must_use]
    pub const fn invalid_grant(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", description)
    }

    /// 400: the client may not have that.
    #[must_use]
    pub const fn invalid_scope(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_scope", description)
    }

    /// 429 with the seconds to wait.
    #[must_use]
    pub fn too_many(wait: RetryAfter) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "slow_down",
            "Too many tries. Wait as long as Retry-After says.",
        )
        .retry_after(wait.seconds)
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, seconds.into())
    }

    /// With a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<ServiceError> for OAuthError {
    /// A fault of ours: 503 where waiting helps (RFC 7009, section 2.2.1), else 500. Logs it.
    fn from(error: ServiceError) -> Self {
        let passes = match &error {
            ServiceError::Storage(error) => error.is_unavailable(),
            ServiceError::Busy | ServiceError::Flow(_) | ServiceError::Checkpoint(_) => true,
            _ => false,
        };
        if passes {
            tracing::warn!(%error, "not answered for now");
            let description = "The service cannot answer right now. Nothing was changed.";
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", description).retry_after(2)
        } else {
            tracing::error!(%error, "a fault");
            Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                "Something went wrong on our side.",
            )
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        response.headers_mut().extend(self.headers);
        never_kept(&mut response);
        response
    }
}

/// RFC 6749, section 5.1: nobody on the way keeps an answer.
pub(super) fn never_kept(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}
