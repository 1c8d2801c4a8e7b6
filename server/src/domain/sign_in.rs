//! Sign-in as an explicit state machine: which step comes after which (SECURITY.md P19).
//!
//! The state of a sign-in in progress is not a session: nothing but the next step can be done with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::dpop::Thumbprint;
use super::id::UserId;
use super::policy::{Limits, Mfa};

/// How long the second step may take after the first.
pub const FLOW_LIFETIME: Duration = Duration::from_mins(10);
/// Wrong codes after which the flow begins again with the password.
pub const MAX_WRONG_CODES: u32 = 5;

/// The step after the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterPassword {
    /// Nothing more is asked.
    SignedIn,
    /// A code of the authenticator app.
    Code,
    /// Set up an authenticator app.
    Enrol,
}

/// What a right password leads to.
#[must_use]
pub const fn after_password(limits: &Limits, has_authenticator: bool) -> AfterPassword {
    match (limits.lifetimes.mfa, has_authenticator) {
        (Mfa::Required | Mfa::Optional, true) => AfterPassword::Code,
        (Mfa::Required, false) => AfterPassword::Enrol,
        (Mfa::Optional, false) | (Mfa::Off, _) => AfterPassword::SignedIn,
    }
}

/// Step that a flow waits at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// For a code of the authenticator app.
    Code {
        /// Wrong ones so far.
        wrong: u32,
    },
    /// For the first code of a new authenticator.
    Enrol {
        /// Its secret, base32, once it was made. The flow store seals everything it keeps.
        secret: Option<String>,
    },
}

/// A sign-in whose password was right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Whose.
    pub user_id: UserId,
    /// The user's epoch when the password was checked; a change since voids the flow.
    pub auth_epoch: i64,
    /// When the password was checked.
    pub password_at: Timestamp,
    /// Same-origin path to go to afterwards.
    pub return_to: String,
    /// Where it stands.
    pub step: Step,
    /// The key that the program proved to hold with the password: the second factor has to come from its holder too.
    pub key: Option<Thumbprint>,
}

impl Flow {
    /// Still to be continued.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        now.since(self.password_at) < FLOW_LIFETIME
    }
}
