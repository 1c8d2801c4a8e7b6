//! What has been revoked, as far as a living access token could still be concerned (TOKENS.md §4 step 6, §8).
//!
//! Owns the entries of the feed, their form in JSON, and the [`Registry`] that answers for them from memory. Pure: must
//! not know where entries come from, nor read a clock.

mod line;
mod registry;
#[cfg(test)]
mod tests;

use super::clock::{APART, Timestamp};
use super::id::{SessionId, TokenId};
use super::jwt::{AccessClaims, MAX_TOLERANCE};
use super::policy::MAX_ACCESS;

pub use line::LineError;
pub use registry::{Registry, Remembered, Verdict};

/// When no access token that was issued until `issued_until` can be accepted by anybody any more, by whichever node's clock.
#[must_use]
pub fn all_expired_at(issued_until: Timestamp) -> Timestamp {
    issued_until.plus(MAX_ACCESS + MAX_TOLERANCE + APART)
}

/// Whose tokens are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those of one session.
    Session {
        /// `sid`.
        id: SessionId,
        /// Only tokens of a smaller generation (`rg`); none: all of them, the session is over.
        below: Option<u64>,
    },
    /// Those of one person or service, issued before a moment.
    Subject {
        /// `sub`.
        sub: String,
        /// Tokens issued at this moment are good again. Judged by the time in the token's `jti` (a `UUIDv7`, in
        /// milliseconds): `iat` counts whole seconds and would also hit what was issued right after.
        before: Timestamp,
    },
    /// Those that a key signed.
    Key {
        /// `kid`.
        id: String,
    },
    /// One token.
    Token {
        /// `jti`.
        id: TokenId,
    },
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, in the order of the commits.
    pub cursor: u64,
    /// Whose tokens.
    pub target: Target,
    /// When it was revoked.
    pub at: Timestamp,
    /// From then on none of those tokens lives any more, and the entry may be forgotten.
    pub until: Timestamp,
}

/// What a verified access token says that a revocation may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The key that signed it.
    pub kid: &'a str,
    /// `sub`.
    pub sub: &'a str,
    /// `sid`; services have none.
    pub session: Option<SessionId>,
    /// `rg`.
    pub generation: u64,
    /// `jti`.
    pub token: TokenId,
    /// Issued at, in milliseconds.
    pub issued_at: Timestamp,
}

impl<'a> Presented<'a> {
    /// Of a person's access token that was verified with the key `kid`; `sub` is the text of its subject.
    #[must_use]
    pub fn of(claims: &AccessClaims, kid: &'a str, sub: &'a str) -> Self {
        Self {
            kid,
            sub,
            session: Some(claims.sid),
            generation: claims.rg,
            token: claims.jti,
            issued_at: issued_at(claims.jti, claims.iat),
        }
    }
}

/// The moment of issue: that of the `jti` if it fits to `iat`, or else the earliest one that `iat` allows.
#[must_use]
pub fn issued_at(jti: TokenId, iat: i64) -> Timestamp {
    jti.created_at()
        .filter(|at| at.as_seconds() == iat)
        .unwrap_or(Timestamp::from_seconds(iat))
}
