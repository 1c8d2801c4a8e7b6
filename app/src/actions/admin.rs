//! Forms of the admin console.

use leptos::prelude::*;
use leptos::server_fn::codec::PostUrl;

use super::{go_on, refuse, services};
use crate::error::ActionError;
use crate::pages::admin::role::LimitsForm;
use crate::types::{Invitee, PolicyChange};

/// The limits arrive as fields of their own (`access_minutes` …); flattened, because a function with twelve
/// arguments helps nobody.
#[server(prefix = "/actions", endpoint = "save_policy", input = PostUrl)]
pub async fn save_policy(
    role: String,
    based_on: u32,
    #[server(flatten)] limits: LimitsForm,
    reason: String,
    justification: String,
) -> Result<(), ActionError> {
    let lifetimes = limits.lifetimes().or_else(refuse)?;
    let change = PolicyChange {
        role,
        based_on,
        lifetimes,
        reason,
        justification,
    };
    go_on(services()?.admin.save_policy(change).await)
}

/// `roles` arrives as `roles[]=a&roles[]=b`; none is ticked, none is sent.
#[server(prefix = "/actions", endpoint = "invite_person", input = PostUrl)]
pub async fn invite_person(
    username: String,
    email: String,
    display_name: String,
    #[server(default)] roles: Vec<String>,
) -> Result<(), ActionError> {
    let invitee = Invitee {
        username,
        email,
        display_name,
        roles,
    };
    go_on(services()?.admin.invite(invitee).await)
}

#[server(prefix = "/actions", endpoint = "invite_person_again", input = PostUrl)]
pub async fn invite_person_again(person_id: String) -> Result<(), ActionError> {
    go_on(services()?.admin.invite_again(person_id).await)
}

#[server(prefix = "/actions", endpoint = "disable_person", input = PostUrl)]
pub async fn disable_person(person_id: String, reason: String) -> Result<(), ActionError> {
    go_on(services()?.admin.disable(person_id, reason).await)
}

#[server(prefix = "/actions", endpoint = "enable_person", input = PostUrl)]
pub async fn enable_person(person_id: String) -> Result<(), ActionError> {
    go_on(services()?.admin.enable(person_id).await)
}

#[server(prefix = "/actions", endpoint = "set_roles", input = PostUrl)]
pub async fn set_roles(person_id: String, #[server(default)] roles: Vec<String>) -> Result<(), ActionError> {
    go_on(services()?.admin.set_roles(person_id, roles).await)
}

#[server(prefix = "/actions", endpoint = "end_person_sessions", input = PostUrl)]
pub async fn end_person_sessions(person_id: String) -> Result<(), ActionError> {
    go_on(services()?.admin.end_sessions(person_id).await)
}

#[server(prefix = "/actions", endpoint = "end_person_session", input = PostUrl)]
pub async fn end_person_session(person_id: String, session_id: String) -> Result<(), ActionError> {
    go_on(services()?.admin.end_session(person_id, session_id).await)
}
