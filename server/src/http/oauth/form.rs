//! Parameters as the standard sends them: a form in the body, each at most once (RFC 6749, section 3.2).

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use zeroize::Zeroizing;

use super::error::OAuthError;
use crate::http::protect::is_form;

/// More than any request of ours or of an extension has.
const MOST_PARAMETERS: usize = 32;

/// The parameters, which may be secrets: wiped on drop, never shown.
pub struct Form(BTreeMap<String, Zeroizing<String>>);

impl Form {
    /// A parameter; one without a value counts as not sent (section 3.1).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|value| value.as_str())
            .filter(|value| !value.is_empty())
    }

    fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            // Unknown ones are ignored, but doubled ones of any name may mean different things to different readers.
            let doubled = parameters.insert(name.into_owned(), Zeroizing::new(value.into_owned()));
            if doubled.is_some() {
                return Err(OAuthError::invalid_request("A parameter was sent twice."));
            }
            if parameters.len() > MOST_PARAMETERS {
                return Err(OAuthError::invalid_request("There are too many parameters."));
            }
        }
        Ok(Self(parameters))
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = OAuthError;

    async fn from_request(request: Request, state: &S) -> Result<Self, OAuthError> {
        if !is_form(request.headers()) {
            return Err(OAuthError::invalid_request(
                "The body must be application/x-www-form-urlencoded.",
            ));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            let is_too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let why = if is_too_large {
                "The request is too large."
            } else {
                "The body could not be read."
            };
            OAuthError::new(rejection.status(), "invalid_request", why)
        })?;
        Self::parse(&body)
    }
}
