//! Ports: what pages and forms ask of the server, in the words of the user interface.
//!
//! The server implements them once per request (it knows the visitor, the browser and the flow in
//! progress), bundles them in [`Services`] and puts that into the leptos context. Tests put fakes there.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{ActionError, PageError};
use crate::types::{
    AuditDetail, AuditFilter, AuditPage, DeviceList, Enrolment, Invitation, Invitee, Lifetimes, NextStep,
    PendingSignIn, PeopleList, PersonView, PolicyChange, PolicyPreview, RoleEditor, RoleView, SecurityView,
    SignInPrompt, StepUpPrompt,
};

/// Signing in and out.
#[async_trait]
pub trait SignIn: Send + Sync {
    /// What to say above the sign-in form.
    async fn prompt(&self) -> Result<SignInPrompt, PageError>;
    /// First step: name or e-mail, and password. `return_to` may be any text; only a same-origin path is kept.
    async fn start(&self, identifier: String, password: String, return_to: String) -> Result<NextStep, ActionError>;
    /// The sign-in in progress, if there is one.
    async fn pending(&self) -> Result<Option<PendingSignIn>, PageError>;
    /// Second step: a code of the authenticator app or a recovery code.
    async fn verify_code(&self, code: String) -> Result<NextStep, ActionError>;
    /// The authenticator being set up in this flow (made on first call, then the same until confirmed).
    async fn enrolment(&self) -> Result<Enrolment, PageError>;
    /// Confirms it with its first code.
    async fn confirm_enrolment(&self, code: String) -> Result<NextStep, ActionError>;
    /// Recovery codes made just now, until [`Self::acknowledge_recovery_codes`].
    async fn recovery_codes(&self) -> Result<Vec<String>, PageError>;
    /// The person has saved them: they are never shown again.
    async fn acknowledge_recovery_codes(&self) -> Result<NextStep, ActionError>;
    /// What the step-up page asks for.
    async fn step_up_prompt(&self) -> Result<StepUpPrompt, PageError>;
    /// Shows a factor again; gives this device a new session.
    async fn step_up(&self, answer: String, return_to: String) -> Result<NextStep, ActionError>;
    /// Signs this device out.
    async fn sign_out(&self) -> Result<NextStep, ActionError>;
}

/// First run and invitations.
#[async_trait]
pub trait Welcome: Send + Sync {
    /// The invitation opened in this browser.
    async fn invitation(&self) -> Result<Invitation, PageError>;
    /// Makes or completes the account; continues with the second factor where required.
    async fn accept(
        &self,
        username: String,
        email: String,
        display_name: String,
        password: String,
    ) -> Result<NextStep, ActionError>;
}

/// A person's own sessions.
#[async_trait]
pub trait Devices: Send + Sync {
    /// This device first, then the others, then what ended in 30 days.
    async fn list(&self) -> Result<DeviceList, PageError>;
    /// Ends one of the viewer's own sessions.
    async fn end(&self, session_id: String) -> Result<NextStep, ActionError>;
    /// Ends all but this one.
    async fn end_others(&self) -> Result<NextStep, ActionError>;
    /// The person said "Stay signed in": counts as activity.
    async fn stay_signed_in(&self) -> Result<(), ActionError>;
}

/// A person's own password and factors.
#[async_trait]
pub trait Security: Send + Sync {
    /// The page.
    async fn overview(&self) -> Result<SecurityView, PageError>;
    /// Changes the password; every other session ends.
    async fn change_password(&self, current: String, new: String) -> Result<NextStep, ActionError>;
    /// The authenticator being set up (needs a recent factor).
    async fn enrolment(&self) -> Result<Enrolment, PageError>;
    /// Confirms it with its first code; replaces the one before.
    async fn confirm_enrolment(&self, code: String) -> Result<NextStep, ActionError>;
    /// Removes the authenticator, where no role requires one.
    async fn remove_authenticator(&self) -> Result<NextStep, ActionError>;
    /// Ten new recovery codes; the old ones die.
    async fn renew_recovery_codes(&self) -> Result<NextStep, ActionError>;
}

/// The admin console.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Roles with the policy in force.
    async fn roles(&self) -> Result<Vec<RoleView>, PageError>;
    /// One role, with presets and history.
    async fn role(&self, name: String) -> Result<RoleEditor, PageError>;
    /// What these limits would do to the living sessions.
    async fn preview_policy(&self, role: String, lifetimes: Lifetimes) -> Result<PolicyPreview, PageError>;
    /// Saves a new version.
    async fn save_policy(&self, change: PolicyChange) -> Result<NextStep, ActionError>;
    /// People, searched by name or e-mail.
    async fn people(&self, search: String, cursor: String) -> Result<PeopleList, PageError>;
    /// One person.
    async fn person(&self, id: String) -> Result<PersonView, PageError>;
    /// Adds a person; the one-time link is on the page that follows.
    async fn invite(&self, invitee: Invitee) -> Result<NextStep, ActionError>;
    /// What was typed of somebody who could not be invited; once.
    async fn refused_invitee(&self) -> Result<Option<Invitee>, PageError>;
    /// A new one-time link for a person who has not accepted yet; the older one is dead.
    async fn invite_again(&self, id: String) -> Result<NextStep, ActionError>;
    /// Disables an account and ends its sessions.
    async fn disable(&self, id: String, reason: String) -> Result<NextStep, ActionError>;
    /// Enables it again.
    async fn enable(&self, id: String) -> Result<NextStep, ActionError>;
    /// Sets the roles of a person.
    async fn set_roles(&self, id: String, roles: Vec<String>) -> Result<NextStep, ActionError>;
    /// Ends every session of a person.
    async fn end_sessions(&self, id: String) -> Result<NextStep, ActionError>;
    /// Ends one session of a person.
    async fn end_session(&self, id: String, session_id: String) -> Result<NextStep, ActionError>;
}

/// The audit log.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Newest first, 50 at a time.
    async fn list(&self, filter: AuditFilter, cursor: String) -> Result<AuditPage, PageError>;
    /// One event.
    async fn detail(&self, id: String) -> Result<AuditDetail, PageError>;
}

/// Everything a page may ask.
#[derive(Clone)]
pub struct Services {
    /// Signing in and out.
    pub sign_in: Arc<dyn SignIn>,
    /// First run and invitations.
    pub welcome: Arc<dyn Welcome>,
    /// Own sessions.
    pub devices: Arc<dyn Devices>,
    /// Own password and factors.
    pub security: Arc<dyn Security>,
    /// Admin console.
    pub admin: Arc<dyn Admin>,
    /// Audit log.
    pub audit: Arc<dyn Audit>,
}
