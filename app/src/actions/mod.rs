//! Server functions: what the forms of the pages are sent to, under `/actions`.
//!
//! Owns: reading a form's fields, one call of a port, the redirect afterwards. Must not know: rules.
//! The hidden field `form_token` is checked and used up by the server before a function runs and is
//! no argument here: unknown fields of a form are passed over.

mod admin;
mod devices;
mod security;
mod sign_in;
mod welcome;

use http::{Method, StatusCode, header, request::Parts};
use leptos::prelude::*;

use crate::error::ActionError;
use crate::request::{encode, see_other, set_status};
use crate::services::Services;
use crate::types::NextStep;

/// Method and path of every server function, for tests that must cover each of them.
#[must_use]
pub fn action_paths() -> Vec<(&'static str, Method)> {
    leptos::server_fn::axum::server_fn_paths().collect()
}

/// What the server put into the context of this request.
fn services() -> Result<Services, ActionError> {
    use_context().ok_or(ActionError::Unavailable)
}

/// Goes where the flow goes next, or answers with the error.
fn go_on(outcome: Result<NextStep, ActionError>) -> Result<(), ActionError> {
    see_other(&outcome.or_else(refuse)?.path());
    Ok(())
}

/// Gives the error its status, unless it is a page's form: that one is sent back with the error in its address.
fn refuse<T>(error: ActionError) -> Result<T, ActionError> {
    let from_page = use_context::<Parts>()
        .and_then(|parts| {
            parts
                .headers
                .get(header::ACCEPT)?
                .to_str()
                .ok()
                .map(|accept| accept.contains("text/html"))
        })
        .unwrap_or(false);
    if from_page {
        set_status(StatusCode::SEE_OTHER);
    } else {
        set_status(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    }
    Err(error)
}

impl NextStep {
    /// The same-origin path of this step's page.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Code => "/sign-in/code".to_owned(),
            Self::Enrol => "/sign-in/enrol".to_owned(),
            Self::RecoveryCodes => "/recovery-codes".to_owned(),
            Self::StepUp { return_to } => format!("/step-up?return_to={}", encode(return_to)),
            Self::Done { path } => path.clone(),
        }
    }
}
