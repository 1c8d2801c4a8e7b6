//! Forms of signing in and out.

use leptos::prelude::*;
use leptos::server_fn::codec::PostUrl;

use super::{go_on, services};
use crate::error::ActionError;

#[server(prefix = "/actions", endpoint = "sign_in", input = PostUrl)]
pub async fn sign_in(identifier: String, password: String, return_to: String) -> Result<(), ActionError> {
    go_on(services()?.sign_in.start(identifier, password, return_to).await)
}

#[server(prefix = "/actions", endpoint = "verify_code", input = PostUrl)]
pub async fn verify_code(code: String) -> Result<(), ActionError> {
    go_on(services()?.sign_in.verify_code(code).await)
}

#[server(prefix = "/actions", endpoint = "confirm_sign_in_enrolment", input = PostUrl)]
pub async fn confirm_sign_in_enrolment(code: String) -> Result<(), ActionError> {
    go_on(services()?.sign_in.confirm_enrolment(code).await)
}

#[server(prefix = "/actions", endpoint = "acknowledge_recovery_codes", input = PostUrl)]
pub async fn acknowledge_recovery_codes() -> Result<(), ActionError> {
    go_on(services()?.sign_in.acknowledge_recovery_codes().await)
}

#[server(prefix = "/actions", endpoint = "step_up", input = PostUrl)]
pub async fn step_up(answer: String, return_to: String) -> Result<(), ActionError> {
    go_on(services()?.sign_in.step_up(answer, return_to).await)
}

#[server(prefix = "/actions", endpoint = "sign_out", input = PostUrl)]
pub async fn sign_out() -> Result<(), ActionError> {
    go_on(services()?.sign_in.sign_out().await)
}
