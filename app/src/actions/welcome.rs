//! The form of the first run and of invitations.

use leptos::prelude::*;
use leptos::server_fn::codec::PostUrl;

use super::{go_on, services};
use crate::error::ActionError;

#[server(prefix = "/actions", endpoint = "accept_invitation", input = PostUrl)]
pub async fn accept_invitation(
    username: String,
    email: String,
    display_name: String,
    password: String,
) -> Result<(), ActionError> {
    go_on(
        services()?
            .welcome
            .accept(username, email, display_name, password)
            .await,
    )
}
