//! Refusals of the JSON doors: a problem document with the headers that belong to it, and bodies read strictly.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Problem;
use crate::services::ServiceError;

/// A refused request.
#[derive(Debug)]
pub struct Refusal {
    problem: Box<Problem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// `title` is the same sentence for every problem of this code.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, title: &'static str) -> Self {
        Problem::new(status, code, title).into()
    }

    /// What happened this time.
    #[must_use]
    pub fn detail(mut self, detail: String) -> Self {
        self.problem = Box::new(self.problem.detail(detail));
        self
    }

    /// A further member of the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.problem = Box::new(self.problem.with(name, value));
        self
    }

    /// A header of the answer.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        // Values are our own words and numbers; one that were not could not be sent and is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// 429 with the seconds to wait.
    #[must_use]
    pub fn too_many(wait_s: u32) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_tries",
            "Too many tries. Wait, then try again.",
        )
        .with_header("retry-after", &wait_s.to_string())
    }

    /// A fault of ours: 503 where waiting helps, else 500. Logs it: call this once, at the boundary.
    #[must_use]
    pub fn fault(error: &ServiceError) -> Self {
        match error {
            ServiceError::Storage(error) => Problem::from(error).into(),
            ServiceError::Busy | ServiceError::AccountChanged | ServiceError::Flow(_) | ServiceError::Checkpoint(_) => {
                tracing::warn!(%error, "not answered for now");
                Problem::unavailable().into()
            }
            error => {
                tracing::error!(%error, "a fault");
                Problem::internal().into()
            }
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem: Box::new(problem),
            headers: Vec::new(),
        }
    }
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        Self::fault(&error)
    }
}

impl From<tower_sessions::session::Error> for Refusal {
    fn from(error: tower_sessions::session::Error) -> Self {
        Self::fault(&error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

/// A JSON body of exactly this shape: unknown and doubled members are 400. The origin gate has checked the type.
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for StrictJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| Problem::of_status(rejection.status()))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|_| Problem::bad_request().into())
    }
}
