//! Forms of a person's own sessions.

use leptos::prelude::*;
use leptos::server_fn::codec::PostUrl;

use super::{go_on, refuse, services};
use crate::error::ActionError;

#[server(prefix = "/actions", endpoint = "end_session", input = PostUrl)]
pub async fn end_session(session_id: String) -> Result<(), ActionError> {
    go_on(services()?.devices.end(session_id).await)
}

#[server(prefix = "/actions", endpoint = "end_other_sessions", input = PostUrl)]
pub async fn end_other_sessions() -> Result<(), ActionError> {
    go_on(services()?.devices.end_others().await)
}

/// Called by the idle warning with `Accept: application/json`; as a plain form it comes back to its page.
#[server(prefix = "/actions", endpoint = "stay_signed_in", input = PostUrl)]
pub async fn stay_signed_in() -> Result<(), ActionError> {
    services()?.devices.stay_signed_in().await.or_else(refuse)
}
