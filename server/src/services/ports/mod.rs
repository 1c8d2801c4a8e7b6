//! The ports of `app`, implemented for one request: maps outcomes of the services to the words of the pages.

mod admin;
mod audit;
mod devices;
mod security;
mod sign_in;
mod view;
mod welcome;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use app::error::{ActionError, Field, PageError, Problem};
use app::services::Services;
use app::types::{Ending, NextStep, Notice, Viewer};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_sessions::Session as WebSession;

use super::admin::{is_admin, may_read_audit};
use super::sessions::{Issued, Live};
use super::sign_in::{Caller, DeviceCookie, SignedIn};
use super::{Backend, ServiceError};
use crate::domain::password::PasswordProblem;
use crate::domain::user::NameProblem;

/// Keys of the tower-sessions session.
pub mod slot {
    /// The sign-in in progress ([`crate::domain::sign_in::Flow`]).
    pub const FLOW: &str = "flow";
    /// Why the last session in this browser ended ([`app::types::Ending`]).
    pub const ENDING: &str = "ending";
    /// Good news for the next page ([`app::types::Notice`]).
    pub const NOTICE: &str = "notice";
    /// Recovery codes until they are acknowledged.
    pub const RECOVERY_CODES: &str = "recovery_codes";
    /// Where to go after the recovery codes.
    pub const RETURN_TO: &str = "return_to";
    /// Secret of the authenticator being set up on the security page, base32.
    pub const ENROLMENT: &str = "enrolment";
    /// The last session was not to be used any more in this browser, which is not the one it is bound to.
    pub const OTHER_BROWSER: &str = "other_browser";
    /// The person signed out in this browser just now.
    pub const SIGNED_OUT: &str = "signed_out";
    /// Secret of the invitation opened in this browser.
    pub const INVITATION: &str = "invitation";
    /// What was typed of a person who could not be invited ([`app::types::Invitee`]).
    pub const INVITEE: &str = "invitee";
    /// An invitation link made just now, with the id of its person.
    pub const NEW_LINK: &str = "new_link";
}

/// What has to reach the browser with this response; the HTTP layer turns it into cookies.
#[derive(Debug)]
pub enum Delivery {
    /// A new pair of tokens.
    Tokens(Box<Issued>),
    /// The device cookie.
    Device(DeviceCookie),
    /// Signed out: tokens are deleted, and whatever the browser kept.
    SignedOut,
}

/// What is to be delivered with the response to one request, until its headers are written.
#[derive(Clone, Debug)]
pub struct Deliveries(Arc<Mutex<Option<Vec<Delivery>>>>);

impl Default for Deliveries {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Deliveries {
    /// Adds one. Once the headers are written it would never arrive: a fault of ours, which breaks the answer off in
    /// tests.
    pub fn push(&self, delivery: Delivery) {
        if let Some(waiting) = &mut *self.waiting() {
            waiting.push(delivery);
        } else {
            tracing::error!("something was to be delivered after the headers of its response");
            debug_assert!(false, "too late");
        }
    }

    /// Everything, for the headers that are about to be written.
    #[must_use]
    pub fn close(&self) -> Vec<Delivery> {
        self.waiting().take().unwrap_or_default()
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Delivery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Per-account limits, asked before a guess is looked at.
pub trait Throttle: Send + Sync {
    /// Counts a try. `known_device`: what [`Backend::knows_device`] says.
    ///
    /// # Errors
    /// The seconds to wait.
    fn check(&self, guess: Guess, caller: &Caller, account: &str, known_device: bool) -> Result<(), u32>;
}

/// What may be guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// A password.
    Password,
    /// A code of a second factor, or a recovery code.
    Code,
}

/// One request, as the ports see it.
pub struct Visit {
    /// The services.
    pub backend: Arc<Backend>,
    /// Who knocks.
    pub caller: Caller,
    /// Who is signed in.
    pub live: Option<Live>,
    /// State before and beside a sign-in.
    pub web: WebSession,
    /// Limits.
    pub throttle: Arc<dyn Throttle>,
    /// For the response.
    pub deliveries: Deliveries,
}

/// Takes a value out of the session. A page that finds none writes nothing: the library counts every removal as a
/// change, and a change is a durable write.
///
/// # Errors
/// When the session cannot be read.
pub async fn take<T: DeserializeOwned>(
    web: &WebSession,
    slot: &str,
) -> Result<Option<T>, tower_sessions::session::Error> {
    if web.get_value(slot).await?.is_none() {
        return Ok(None);
    }
    web.remove(slot).await
}

impl Visit {
    /// The bundle that goes into the leptos context.
    #[must_use]
    pub fn services(self: Arc<Self>) -> Services {
        Services {
            sign_in: self.clone(),
            welcome: self.clone(),
            devices: self.clone(),
            security: self.clone(),
            admin: self.clone(),
            audit: self,
        }
    }

    /// The viewer as pages know them.
    #[must_use]
    pub fn viewer(&self) -> Option<Viewer> {
        let live = self.live.as_ref()?;
        Some(Viewer {
            user_id: live.user.id.to_string(),
            username: live.user.username.clone(),
            display_name: live.user.display_name.clone(),
            roles: live.user.roles.clone(),
            is_admin: is_admin(live),
            may_read_audit: may_read_audit(live),
            session_id: live.session.id.to_string(),
            idle_limit_s: view::seconds(live.session.idle),
            idle_warning_s: view::seconds(live.limits.lifetimes.idle_warning),
            absolute_end_at: live.session.absolute_expires_at.as_millis(),
        })
    }

    /// Counts a try at this account before it is looked at.
    async fn count_try(&self, guess: Guess, account: &str) -> Result<(), ActionError> {
        let known = self
            .backend
            .knows_device(self.caller.device.as_ref(), account)
            .await
            .map_err(action_fault)?;
        self.throttle
            .check(guess, &self.caller, account, known)
            .map_err(|wait_s| ActionError::TooManyTries { wait_s })
    }

    fn deliver(&self, delivery: Delivery) {
        self.deliveries.push(delivery);
    }

    fn signed_in_for_action(&self) -> Result<&Live, ActionError> {
        self.live.as_ref().ok_or(ActionError::SignedOut)
    }

    fn signed_in_for_page(&self) -> Result<&Live, PageError> {
        self.live.as_ref().ok_or(PageError::NotSignedIn)
    }

    async fn get<T: DeserializeOwned>(&self, slot: &str) -> Result<Option<T>, ServiceError> {
        Ok(self.web.get(slot).await?)
    }

    async fn put<T: Serialize>(&self, slot: &str, value: T) -> Result<(), ServiceError> {
        Ok(self.web.insert(slot, value).await?)
    }

    async fn take<T: DeserializeOwned>(&self, slot: &str) -> Result<Option<T>, ServiceError> {
        Ok(take(&self.web, slot).await?)
    }

    /// The news kept for this page; shown once.
    async fn notice(&self) -> Result<Option<Notice>, PageError> {
        self.take(slot::NOTICE).await.map_err(page_fault)
    }

    async fn notify(&self, notice: Notice) -> Result<(), ServiceError> {
        self.put(slot::NOTICE, notice).await
    }

    /// Forgets everything of this browser but that the person signed out, for the sign-in page to say.
    async fn forget_signed_out(&self) -> Result<(), ServiceError> {
        self.web.flush().await?;
        self.put(slot::SIGNED_OUT, true).await?;
        self.deliver(Delivery::SignedOut);
        Ok(())
    }

    /// Hands out a finished sign-in: a new flow id (fixation) and nothing left of the flow.
    async fn hand_out(&self, signed_in: SignedIn) -> Result<(), ServiceError> {
        self.web.remove_value(slot::FLOW).await?;
        self.web.remove_value(slot::ENDING).await?;
        self.web.remove_value(slot::OTHER_BROWSER).await?;
        self.web.remove_value(slot::INVITATION).await?;
        self.web.remove_value(slot::NOTICE).await?;
        self.renew_flow().await?;
        self.deliver(Delivery::Tokens(signed_in.issued));
        self.deliver(Delivery::Device(signed_in.device));
        Ok(())
    }

    /// A new id and a new form token for the state that stays.
    async fn renew_flow(&self) -> Result<(), ServiceError> {
        self.web.remove_value("form_token").await?;
        Ok(self.web.cycle_id().await?)
    }

    async fn keep_codes(&self, codes: &[SecretString], return_to: &str) -> Result<(), ServiceError> {
        use secrecy::ExposeSecret;
        let texts: Vec<&str> = codes.iter().map(ExposeSecret::expose_secret).collect();
        self.put(slot::RECOVERY_CODES, texts).await?;
        self.put(slot::RETURN_TO, return_to).await
    }
}

/// Logs a fault once, here at the boundary, and says what the person is told.
fn action_fault(error: ServiceError) -> ActionError {
    match error {
        ServiceError::Busy => ActionError::Busy,
        error => {
            tracing::error!(%error, "an action failed");
            ActionError::Unavailable
        }
    }
}

/// Logs a fault once, here at the boundary, and says what the person is told.
#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn page_fault(error: ServiceError) -> PageError {
    tracing::error!(%error, "a page failed");
    PageError::Unavailable
}

const fn done(path: String) -> NextStep {
    NextStep::Done { path }
}

const fn invalid(field: Field, problem: Problem) -> ActionError {
    ActionError::Invalid { field, problem }
}

fn password_problem(field: Field, problem: PasswordProblem) -> ActionError {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let problem = match problem {
        PasswordProblem::TooShort { min } => Problem::TooShort { min: count(min) },
        PasswordProblem::TooLong { max } => Problem::TooLong { max: count(max) },
        PasswordProblem::TooCommon => Problem::TooCommon,
    };
    invalid(field, problem)
}

fn name_problem(field: Field, problem: NameProblem) -> ActionError {
    let problem = match problem {
        NameProblem::Missing => Problem::Missing,
        NameProblem::TooShort(min) => Problem::TooShort { min },
        NameProblem::TooLong(max) => Problem::TooLong { max },
        NameProblem::BadCharacters => Problem::BadCharacters,
    };
    invalid(field, problem)
}

/// An ending in the words of the pages.
#[must_use]
pub fn ending_view(ending: &crate::domain::session::Ending) -> Ending {
    view::ending(ending)
}
