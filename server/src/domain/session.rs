//! A session: one sign-in on one device, its limits, and how it ends.

use std::time::Duration;

use super::clock::Timestamp;
use super::dbsc::BrowserKey;
use super::dpop::Thumbprint;
use super::id::{DeviceId, SessionId, UserId};
use super::policy::{Limits, Mfa, Rule};
use super::user::{User, UserStatus};

/// Kind of client; native programs get their tokens in the response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A browser: tokens only in cookies.
    Browser,
    /// A program without a browser.
    Native,
}

impl Client {
    /// The text in the database and in the claim `client_id`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Native => "native",
        }
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "documented in `app::types::EndReason`, which has the same names"
)]
pub enum EndReason {
    SignedOut,
    EndedByUser,
    EndedByAdmin,
    Idle,
    Expired,
    PasswordChanged,
    FactorChanged,
    UserDisabled,
    TokenReused,
    DatabaseRolledBack,
    Replaced,
    TooManySessions,
    FactorRequired,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SignedOut,
        Self::EndedByUser,
        Self::EndedByAdmin,
        Self::Idle,
        Self::Expired,
        Self::PasswordChanged,
        Self::FactorChanged,
        Self::UserDisabled,
        Self::TokenReused,
        Self::DatabaseRolledBack,
        Self::Replaced,
        Self::TooManySessions,
        Self::FactorRequired,
    ];

    /// The code in the database, the audit log and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::EndedByUser => "ended_by_user",
            Self::EndedByAdmin => "ended_by_admin",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::PasswordChanged => "password_changed",
            Self::FactorChanged => "factor_changed",
            Self::UserDisabled => "user_disabled",
            Self::TokenReused => "token_reused",
            Self::DatabaseRolledBack => "database_rolled_back",
            Self::Replaced => "replaced",
            Self::TooManySessions => "too_many_sessions",
            Self::FactorRequired => "factor_required",
        }
    }

    /// From its code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == code)
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// The rule behind it, where a limit was the reason.
    pub rule: Option<Rule>,
    /// That limit.
    pub limit: Option<Duration>,
}

/// A row of the sessions table, without its secret.
#[derive(Clone, Debug)]
pub struct Session {
    /// `sid`.
    pub id: SessionId,
    /// Whose.
    pub user_id: UserId,
    /// On which device.
    pub device_id: Option<DeviceId>,
    /// Kind of client.
    pub client: Client,
    /// Session secret, sealed with the key-encryption key; refresh tokens are derived from it.
    pub secret_sealed: Vec<u8>,
    /// One step per rotation; the refresh token of this generation is the child.
    pub generation: u64,
    /// When this generation began. It says which edge key tags its refresh token, so it never moves.
    pub rotated_at: Timestamp,
    /// When tokens of this generation were last handed out: by the rotation, or by a re-issue after it.
    pub handed_out_at: Timestamp,
    /// Since when the parent is good for nothing: the client first showed the child, or the child was handed out for
    /// the last time.
    pub superseded_at: Timestamp,
    /// The client itself has shown something of this generation.
    pub child_confirmed: bool,
    /// How often the child was handed out again.
    pub reissues: u32,
    /// `exp` of the access token that went out with this generation.
    pub access_expires_at: Timestamp,
    /// Access tokens of a smaller generation are refused.
    pub min_generation: u64,
    /// The user's epoch at sign-in.
    pub auth_epoch: i64,
    /// The user's grant epoch when tokens were last issued.
    pub grant_epoch: i64,
    /// Sign-in.
    pub started_at: Timestamp,
    /// Last factor shown (`auth_time`).
    pub authenticated_at: Timestamp,
    /// Last activity of the person's own.
    pub last_active_at: Timestamp,
    /// Lifetime of access tokens.
    pub access: Duration,
    /// Idle limit.
    pub idle: Duration,
    /// Set it.
    pub idle_rule: Rule,
    /// Absolute end.
    pub absolute_expires_at: Timestamp,
    /// Set it.
    pub absolute_rule: Rule,
    /// Methods of RFC 8176, space-separated.
    pub amr: String,
    /// Address at sign-in.
    pub address: String,
    /// Browser as it named itself at sign-in.
    pub user_agent: String,
    /// The program's key that its tokens are bound to; set at sign-in, never changed.
    pub jkt: Option<Thumbprint>,
    /// The browser's key that its cookies are bound to; set once, right after sign-in.
    pub browser_key: Option<BrowserKey>,
    /// Set once, never taken back.
    pub ending: Option<Ending>,
}

/// Authentication context class of a session with these methods: `aal2` with a second factor, else `aal1`.
#[must_use]
pub fn acr(amr: &str) -> &'static str {
    if amr.split(' ').any(|method| method == "otp" || method == "recovery") {
        "aal2"
    } else {
        "aal1"
    }
}

/// A session looked at now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It lives, under these limits.
    Alive(Tightened),
    /// It is over; if `ending.at` is now, nobody has written that down yet.
    Over(Ending),
}

/// Limits of a living session after the policies in force were applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tightened {
    /// Access token lifetime.
    pub access: Duration,
    /// Idle limit.
    pub idle: Duration,
    /// Set it.
    pub idle_rule: Rule,
    /// Absolute end.
    pub absolute_expires_at: Timestamp,
    /// Set it.
    pub absolute_rule: Rule,
    /// Differs from what the row says: write it.
    pub changed: bool,
}

/// Now, as limits go by it.
#[derive(Clone, Copy, Debug)]
pub struct LimitsNow {
    /// For the absolute limit, which every token that is handed out keeps as well.
    pub now: Timestamp,
    /// For the idle limit: by the slowest clock of those that may have written when somebody was last there.
    pub idle_now: Timestamp,
}

impl From<Timestamp> for LimitsNow {
    fn from(now: Timestamp) -> Self {
        Self { now, idle_now: now }
    }
}

impl Session {
    /// Whether a browser has registered this very key, and has not signed again with it yet.
    #[must_use]
    pub fn is_registered_with(&self, point: &[u8]) -> bool {
        let key = self.browser_key.as_ref();
        self.ending.is_none() && key.is_some_and(|key| key.proved_at.is_none() && key.point == point)
    }

    /// Whether its tokens are worth nothing without a key: its program's, or its browser's if browsers are asked for theirs.
    #[must_use]
    pub fn is_bound(&self, asks_browsers: bool) -> bool {
        let by_browser = self.browser_key.as_ref().is_some_and(|key| key.proved_at.is_some());
        self.jkt.is_some() || asks_browsers && by_browser
    }

    /// The session under the policies in force: a tighter policy applies at once, a looser one does not
    /// (TOKENS.md §6). Pure; whoever calls writes what it finds.
    #[must_use]
    pub fn standing(&self, user: &User, limits: Option<&Limits>, now: impl Into<LimitsNow>) -> Standing {
        let LimitsNow { now, idle_now } = now.into();
        if let Some(ending) = &self.ending {
            return Standing::Over(ending.clone());
        }
        let over = |reason, rule, limit| {
            Standing::Over(Ending {
                at: now,
                reason,
                rule,
                limit,
            })
        };
        // Without any role nobody signs in; that is the same as being disabled.
        let Some(limits) = limits else {
            return over(EndReason::UserDisabled, None, None);
        };
        if user.status != UserStatus::Active {
            return over(EndReason::UserDisabled, None, None);
        }
        if user.auth_epoch != self.auth_epoch {
            return over(EndReason::PasswordChanged, None, None);
        }
        if limits.lifetimes.mfa == Mfa::Required && acr(&self.amr) != "aal2" {
            // A role that demands a second factor was given, or a policy tightened: sign in again and show one.
            return over(EndReason::FactorRequired, Some(limits.mfa_rule.clone()), None);
        }
        let mut tight = Tightened {
            access: self.access.min(limits.lifetimes.access),
            idle: self.idle,
            idle_rule: self.idle_rule.clone(),
            absolute_expires_at: self.absolute_expires_at,
            absolute_rule: self.absolute_rule.clone(),
            changed: limits.lifetimes.access < self.access,
        };
        if limits.lifetimes.idle < self.idle {
            tight.idle = limits.lifetimes.idle;
            tight.idle_rule = limits.idle_rule.clone();
            tight.changed = true;
        }
        let absolute = self.started_at.plus(limits.lifetimes.absolute);
        if absolute < self.absolute_expires_at {
            tight.absolute_expires_at = absolute;
            tight.absolute_rule = limits.absolute_rule.clone();
            tight.changed = true;
        }
        if now >= tight.absolute_expires_at {
            let limit = tight.absolute_expires_at.since(self.started_at);
            return over(EndReason::Expired, Some(tight.absolute_rule), Some(limit));
        }
        if idle_now >= self.last_active_at.plus(tight.idle) {
            return over(EndReason::Idle, Some(tight.idle_rule), Some(tight.idle));
        }
        Standing::Alive(tight)
    }

    /// Takes over tightened limits.
    pub fn tighten(&mut self, tight: &Tightened) {
        self.access = tight.access;
        self.idle = tight.idle;
        self.idle_rule = tight.idle_rule.clone();
        self.absolute_expires_at = tight.absolute_expires_at;
        self.absolute_rule = tight.absolute_rule.clone();
    }

    /// When it ends if nothing more happens.
    #[must_use]
    pub fn idle_expires_at(&self) -> Timestamp {
        self.last_active_at.plus(self.idle)
    }
}
