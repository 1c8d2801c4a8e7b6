//! What can go wrong on a page: small closed enums without anybody's data, because form errors
//! travel in the query string.

use leptos::prelude::*;
use leptos::server_fn::codec::JsonEncoding;
use serde::{Deserialize, Serialize};

/// A form that was not carried out. The sentence for people is [`crate::words::action_error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionError {
    /// Name or password is wrong, or there is no such account (never says which).
    WrongCredentials,
    /// The code is wrong, old or used.
    WrongCode,
    /// The flow is over or was never started: begin again.
    FlowExpired,
    /// Too many tries.
    TooManyTries {
        /// Seconds to wait.
        wait_s: u32,
    },
    /// The server has more to do than it can.
    Busy,
    /// Signed out meanwhile.
    SignedOut,
    /// The role does not allow this.
    Forbidden,
    /// A factor has to be shown again first.
    StepUpRequired,
    /// No such thing, or not yours.
    NotFound,
    /// Somebody else changed it meanwhile.
    Conflict,
    /// A field is not acceptable.
    Invalid {
        /// Which field.
        field: Field,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The last administrator must remain.
    LastAdmin,
    /// A fault on our side; nothing was changed.
    Unavailable,
    /// The request could not be read.
    Malformed,
}

/// Field of a form that an error belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Field {
    Username,
    Email,
    DisplayName,
    Password,
    CurrentPassword,
    Code,
    AccessLifetime,
    IdleLimit,
    AbsoluteLimit,
    IdleWarning,
    RememberDevice,
    StepUpAge,
    MaxSessions,
    Mfa,
    Reason,
    Justification,
    Roles,
    From,
    To,
    Person,
    Session,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Nothing was entered.
    Missing,
    /// Shorter than so many characters.
    TooShort {
        /// Least number of characters.
        min: u32,
    },
    /// Longer than so many characters.
    TooLong {
        /// Most characters.
        max: u32,
    },
    /// Outside the allowed range: seconds for durations, a plain number for [`Field::MaxSessions`].
    OutOfRange {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// Must not be longer than another field.
    ExceedsLimit {
        /// The other field.
        of: Field,
    },
    /// Beyond NIST SP 800-63B-4 without a written justification.
    NeedsJustification,
    /// A well-known or easily guessed password.
    TooCommon,
    /// Already in use.
    Taken,
    /// Characters that are not allowed.
    BadCharacters,
    /// Wrong value.
    Wrong,
}

impl ActionError {
    /// HTTP status for clients that did not send a page's form.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::WrongCredentials | Self::WrongCode | Self::SignedOut => 401,
            Self::Forbidden | Self::StepUpRequired => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::LastAdmin | Self::FlowExpired => 409,
            Self::Invalid { .. } => 422,
            Self::TooManyTries { .. } => 429,
            Self::Busy | Self::Unavailable => 503,
            Self::Malformed => 400,
        }
    }

    /// The field of the form that this error belongs to, if it belongs to one.
    #[must_use]
    pub const fn field(self) -> Option<Field> {
        match self {
            Self::Invalid { field, .. } => Some(field),
            Self::WrongCode => Some(Field::Code),
            _ => None,
        }
    }
}

impl std::fmt::Display for ActionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::words::action_error(*self))
    }
}

impl std::error::Error for ActionError {}

impl FromServerFnError for ActionError {
    type Encoder = JsonEncoding;

    fn from_server_fn_error(value: ServerFnErrorErr) -> Self {
        match value {
            ServerFnErrorErr::Args(_)
            | ServerFnErrorErr::MissingArg(_)
            | ServerFnErrorErr::Deserialization(_)
            | ServerFnErrorErr::UnsupportedRequestMethod(_) => Self::Malformed,
            _ => Self::Unavailable,
        }
    }
}

/// A page that cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageError {
    /// Nobody is signed in (or not in this flow): go to this page instead.
    NotSignedIn,
    /// The role does not allow this page.
    Forbidden,
    /// No such thing, or not yours.
    NotFound,
    /// A factor has to be shown again first.
    StepUpRequired,
    /// The query in the address is not acceptable.
    BadQuery,
    /// A fault on our side.
    Unavailable,
}
