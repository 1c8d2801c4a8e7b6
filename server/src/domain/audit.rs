//! What the audit log records: every security act, complete, in the same transaction as the act.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::clock::Timestamp;
use super::id::{DeviceId, EventId, SessionId, UserId};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// Kind of an event, in the past tense; OWASP Logging Vocabulary words where it has one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $name),+ }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The text in the log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

kinds! {
    /// The password was right.
    PasswordAccepted = "password_accepted",
    /// Name or password was wrong.
    SignInFailed = "authn_login_fail",
    /// Signed in completely.
    SignedIn = "authn_login_success",
    /// A second factor was wrong.
    CodeRefused = "code_refused",
    /// Too many tries.
    RateLimited = "excess_rate_limit_exceeded",
    /// Signed out.
    SignedOut = "session_signed_out",
    /// A session was made.
    SessionCreated = "session_created",
    /// Refresh token exchanged; exactly one per generation.
    TokenRotated = "token_rotated",
    /// The same child handed out again after a lost response.
    TokenReissued = "token_reissued",
    /// Refresh refused without ending anything.
    RefreshRefused = "refresh_refused",
    /// A used refresh token came back.
    TokenReused = "authn_token_reuse",
    /// A token from the future of this database.
    DatabaseRolledBack = "database_rolled_back",
    /// After a restored backup everything handed out since was made harmless.
    DatabaseRecovered = "database_recovered",
    /// A limit passed.
    SessionExpired = "session_expired",
    /// Somebody ended it.
    SessionRevoked = "session_revoked",
    /// Step-up gave a new session.
    SessionReplaced = "session_replaced",
    /// A token of an ended session was shown.
    SessionUsedAfterEnd = "session_use_after_expire",
    /// Somebody did not prove to hold the key that something is bound to.
    ProofRefused = "proof_refused",
    /// A browser's session was bound to a key of that browser.
    SessionBound = "session_bound",
    /// A bound cookie came after its end, when its browser had deleted it.
    BoundCookieCopied = "bound_cookie_copied",
    /// An access token was refused.
    AccessTokenRefused = "access_token_refused",
    /// A factor was shown again.
    SteppedUp = "stepped_up",
    /// Password changed.
    PasswordChanged = "authn_password_change",
    /// Hash parameters rose; hashed again at sign-in.
    PasswordRehashed = "password_rehashed",
    /// Authenticator app set up.
    AuthenticatorAdded = "authenticator_added",
    /// Authenticator app removed.
    AuthenticatorRemoved = "authenticator_removed",
    /// Recovery code used.
    RecoveryCodeUsed = "recovery_code_used",
    /// Ten new recovery codes.
    RecoveryCodesRenewed = "recovery_codes_renewed",
    /// Account made.
    UserCreated = "user_created",
    /// Invitation sent or made again.
    UserInvited = "user_invited",
    /// Invitation accepted.
    InvitationAccepted = "invitation_accepted",
    /// Account disabled.
    UserDisabled = "user_disabled",
    /// Account enabled.
    UserEnabled = "user_enabled",
    /// Roles changed.
    RolesChanged = "privilege_permissions_changed",
    /// Role made.
    RoleCreated = "role_created",
    /// Policy saved.
    PolicyChanged = "policy_changed",
    /// A page or call that the role does not allow.
    AccessDenied = "authz_fail",
    /// An unsafe request from somewhere else.
    CsrfRefused = "malicious_csrf",
    /// Two cookies of the same name.
    DuplicateCookie = "duplicate_cookie",
    /// A key was made.
    KeyCreated = "key_created",
    /// A key came into use.
    KeyActivated = "key_activated",
    /// A key went out of use and still verifies.
    KeyRetired = "key_retired",
    /// A key is gone: nothing of it is accepted.
    KeyRemoved = "key_removed",
    /// How many living access tokens a revoked key had signed.
    RevokedTokensCounted = "revoked_tokens_counted",
    /// A client was added: other software that gets tokens in its own name.
    ClientAdded = "client_added",
    /// Where it is told of ended sessions changed.
    ClientChanged = "client_changed",
    /// It gets no more tokens, and those it has are refused.
    ClientDisabled = "client_disabled",
    /// Somebody who is not that client, or no longer, claimed to be it.
    ClientAuthenticationFailed = "client_authentication_failed",
    /// A client got an access token.
    ServiceTokenIssued = "service_token_issued",
    /// A client's access token was given back, and is refused from then on.
    ServiceTokenRevoked = "service_token_revoked",
    /// A service could not be told of ended sessions for some seconds; it is tried again.
    LogoutsDelayed = "backchannel_logouts_delayed",
    /// It takes them again.
    LogoutsResumed = "backchannel_logouts_resumed",
    /// A service never took the end of this session, and is not told of it again.
    LogoutRefused = "backchannel_logout_refused",
    /// Ending many sessions at once began.
    MassRevocationBegun = "mass_revocation_begun",
    /// It is done.
    MassRevocationDone = "mass_revocation_done",
    /// The database no longer had what this server knew to be revoked; it was revoked again.
    RevocationsLost = "revocations_lost",
    /// The key file is gone, or cannot be looked at: the next start would fail.
    KeyFileMissing = "key_file_missing",
    /// The stored keys cannot be opened as a whole any more: the next start would fail.
    KeysDamaged = "stored_keys_damaged",
    /// The checkpoint beside the database shows an end of this log that the log does not have.
    AuditLogContradicted = "audit_log_contradicted",
    /// The security desk was alerted: so many events of a rule.
    AlertRaised = "alert_raised",
    /// The mail server took a mail about an event.
    MailSent = "mail_sent",
    /// A mail about an event was not sent, and is not tried again.
    MailGivenUp = "mail_given_up",
    /// The mail server has been away for some seconds; mails wait.
    MailsDelayed = "mails_delayed",
    /// It takes them again.
    MailsResumed = "mails_resumed",
    /// The wall clock was set, or the machine was suspended.
    ClockJumped = "clock_jump",
    /// Server started.
    ServerStarted = "sys_startup",
    /// A handler panicked.
    HandlerPanicked = "sys_crash",
    /// Something that this version does not know: a newer one wrote it, and then somebody went back.
    Newer = "of_a_newer_version",
}

/// How an act went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// Tried and failed.
    Failure,
    /// Refused by a rule.
    Denied,
}

impl Outcome {
    /// The text in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }
}

/// Where a request came from, as every event records it. Its texts are shared: every request carries a few copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Network address of the client; none for acts of the server itself.
    pub address: Option<Arc<str>>,
    /// Browser as it named itself, cut to 512 characters, control characters removed.
    pub user_agent: Option<Arc<str>>,
    /// Request id, also in the logs and on error pages.
    pub request_id: Option<Arc<str>>,
    /// Who acts, if signed in.
    pub actor_id: Option<UserId>,
    /// With which session.
    pub session_id: Option<SessionId>,
    /// On which device.
    pub device_id: Option<DeviceId>,
}

/// A row of the log. Holds ids and closed codes, never a secret.
#[derive(Clone, Debug)]
pub struct Event {
    /// Row id; given by the storage layer's caller at writing time.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: Kind,
    /// How it went.
    pub outcome: Outcome,
    /// Who.
    pub actor_id: Option<UserId>,
    /// Whom it concerns.
    pub subject_id: Option<UserId>,
    /// Session it concerns.
    pub session_id: Option<SessionId>,
    /// Device it concerns.
    pub device_id: Option<DeviceId>,
    /// Address.
    pub address: Option<String>,
    /// Browser.
    pub user_agent: Option<String>,
    /// Request id.
    pub request_id: Option<String>,
    /// Closed reason code.
    pub reason: Option<String>,
    /// Further facts.
    pub facts: Map<String, Value>,
    /// Changes: field → before, after.
    pub changes: Map<String, Value>,
}

impl Event {
    /// A successful act in these circumstances; the acting session and device are the event's until told otherwise.
    #[must_use]
    pub fn new(id: EventId, at: Timestamp, kind: Kind, from: &Circumstances) -> Self {
        Self {
            id,
            at,
            kind,
            outcome: Outcome::Success,
            actor_id: from.actor_id,
            subject_id: from.actor_id,
            session_id: from.session_id,
            device_id: from.device_id,
            address: from.address.as_deref().map(str::to_owned),
            user_agent: from.user_agent.as_deref().map(str::to_owned),
            request_id: from.request_id.as_deref().map(str::to_owned),
            reason: None,
            facts: Map::new(),
            changes: Map::new(),
        }
    }

    /// Another outcome than success.
    #[must_use]
    pub const fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Whom it concerns.
    #[must_use]
    pub fn subject(mut self, user: impl Into<Option<UserId>>) -> Self {
        self.subject_id = user.into();
        self
    }

    /// The person acts who is concerned (at sign-in nobody is signed in yet).
    #[must_use]
    pub const fn by_subject(mut self, user: UserId) -> Self {
        self.actor_id = Some(user);
        self.subject_id = Some(user);
        self
    }

    /// Session it concerns.
    #[must_use]
    pub const fn session(mut self, session: SessionId) -> Self {
        self.session_id = Some(session);
        self
    }

    /// Device it concerns.
    #[must_use]
    pub const fn device(mut self, device: Option<DeviceId>) -> Self {
        self.device_id = device;
        self
    }

    /// Closed reason code.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// A further fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// A change, if before and after differ.
    #[must_use]
    pub fn change(mut self, field: &str, before: impl Into<Value>, after: impl Into<Value>) -> Self {
        let (before, after) = (before.into(), after.into());
        if before != after {
            self.changes
                .insert(field.to_owned(), json!({ "before": before, "after": after }));
        }
        self
    }
}
