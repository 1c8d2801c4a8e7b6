//! Forms of a person's own password and factors.

use leptos::prelude::*;
use leptos::server_fn::codec::PostUrl;

use super::{go_on, services};
use crate::error::ActionError;

#[server(prefix = "/actions", endpoint = "change_password", input = PostUrl)]
pub async fn change_password(current_password: String, new_password: String) -> Result<(), ActionError> {
    go_on(
        services()?
            .security
            .change_password(current_password, new_password)
            .await,
    )
}

#[server(prefix = "/actions", endpoint = "confirm_authenticator", input = PostUrl)]
pub async fn confirm_authenticator(code: String) -> Result<(), ActionError> {
    go_on(services()?.security.confirm_enrolment(code).await)
}

#[server(prefix = "/actions", endpoint = "remove_authenticator", input = PostUrl)]
pub async fn remove_authenticator() -> Result<(), ActionError> {
    go_on(services()?.security.remove_authenticator().await)
}

#[server(prefix = "/actions", endpoint = "renew_recovery_codes", input = PostUrl)]
pub async fn renew_recovery_codes() -> Result<(), ActionError> {
    go_on(services()?.security.renew_recovery_codes().await)
}
