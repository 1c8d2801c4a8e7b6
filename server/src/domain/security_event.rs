//! Security events for other software (RFC 8417, `OpenID` CAEP 1.0 and RISC 1.0): which events of the audit log concern a
//! receiver, and what it is told of them.
//!
//! Pure: owns the claims. Must not know where events are kept, nor how they are delivered or signed.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::audit::{Event, Kind};
use super::client::ClientId;
use super::clock::Timestamp;
use super::session::EndReason;

/// What an event of the log is to a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// CAEP 1.0, section 3.1.
    SessionRevoked,
    /// CAEP 1.0, section 3.3: type of the credential, and how it changed.
    CredentialChange(&'static str, &'static str),
    /// RISC 1.0, section 2.2.
    AccountDisabled,
    /// RISC 1.0, section 2.3.
    AccountEnabled,
}

impl Meaning {
    const fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::SignedOut
            | Kind::SessionRevoked
            | Kind::SessionExpired
            | Kind::SessionReplaced
            | Kind::TokenReused
            | Kind::DatabaseRolledBack => Self::SessionRevoked,
            Kind::InvitationAccepted => Self::CredentialChange("password", "create"),
            Kind::PasswordChanged => Self::CredentialChange("password", "update"),
            Kind::AuthenticatorAdded => Self::CredentialChange("app", "create"),
            Kind::AuthenticatorRemoved => Self::CredentialChange("app", "delete"),
            Kind::RecoveryCodesRenewed => Self::CredentialChange("recovery-codes", "update"),
            Kind::UserDisabled => Self::AccountDisabled,
            Kind::UserEnabled => Self::AccountEnabled,
            _ => return None,
        })
    }

    const fn uri(self) -> &'static str {
        match self {
            Self::SessionRevoked => "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
            Self::CredentialChange(..) => "https://schemas.openid.net/secevent/caep/event-type/credential-change",
            Self::AccountDisabled => "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
            Self::AccountEnabled => "https://schemas.openid.net/secevent/risc/event-type/account-enabled",
        }
    }
}

/// The kinds of the log that a receiver hears of.
pub static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let all = Kind::ALL.iter().copied();
    all.filter(|kind| Meaning::of(*kind).is_some()).collect()
});

/// The kinds by which a session ended.
pub static ENDS_OF_SESSIONS: LazyLock<Vec<Kind>> =
    LazyLock::new(|| KINDS.iter().copied().filter(|kind| is_end_of_session(*kind)).collect());

/// Whether a session ended by an event of this kind.
#[must_use]
pub fn is_end_of_session(kind: Kind) -> bool {
    Meaning::of(kind) == Some(Meaning::SessionRevoked)
}

/// The claims of the security event token (RFC 8417, section 2.2): the same `jti` at every delivery, neither `exp` nor
/// `sub` (SSF 1.0). None for events that do not concern a receiver.
#[must_use]
pub fn claims(event: &Event, issuer: &str, audience: &ClientId, now: Timestamp) -> Option<Value> {
    let meaning = Meaning::of(event.kind)?;
    let user = json!({ "format": "iss_sub", "iss": issuer, "sub": event.subject_id? });
    let mut told = Map::new();
    told.insert("event_timestamp".to_owned(), event.at.as_seconds().into());
    told.insert("initiating_entity".to_owned(), initiator(event).into());
    let subject = match meaning {
        Meaning::SessionRevoked => {
            told.insert("reason_admin".to_owned(), json!({ "en": reason(event) }));
            // As access tokens name it in `sid`.
            let session = json!({ "format": "opaque", "id": event.session_id?.to_short() });
            json!({ "format": "complex", "session": session, "user": user })
        }
        Meaning::CredentialChange(credential, change) => {
            told.insert("credential_type".to_owned(), credential.into());
            told.insert("change_type".to_owned(), change.into());
            user
        }
        Meaning::AccountDisabled | Meaning::AccountEnabled => user,
    };
    let mut claims = json!({
        "iss": issuer,
        "aud": audience.as_str(),
        "jti": event.id,
        "iat": now.as_seconds(),
        "sub_id": subject,
        "events": { meaning.uri(): told },
    });
    if let Some(request) = &event.request_id {
        claims["txn"] = request.as_str().into();
    }
    Some(claims)
}

/// CAEP 1.0, section 2: who brought it about.
fn initiator(event: &Event) -> &'static str {
    match (event.kind, event.actor_id) {
        (Kind::SessionExpired | Kind::TokenReused, _) => "policy",
        (Kind::DatabaseRolledBack, _) | (_, None) => "system",
        (_, actor) if actor == event.subject_id => "user",
        _ => "admin",
    }
}

/// Why a session ended, for the administrators of the receiver.
fn reason(event: &Event) -> &'static str {
    let code = event.reason.as_deref();
    match EndReason::ALL.into_iter().find(|reason| Some(reason.as_str()) == code) {
        Some(EndReason::SignedOut) => "Signed out",
        Some(EndReason::EndedByUser) => "Ended by the person on another device",
        Some(EndReason::EndedByAdmin) => "Ended by an administrator",
        Some(EndReason::Idle) => "Not used for longer than its role allows",
        Some(EndReason::Expired) => "Reached the longest life its role allows",
        Some(EndReason::PasswordChanged) => "The password was changed",
        Some(EndReason::FactorChanged) => "A second factor was changed",
        Some(EndReason::UserDisabled) => "The account was disabled",
        Some(EndReason::TokenReused) => "A refresh token that was already used came back: it may have been stolen",
        Some(EndReason::DatabaseRolledBack) => "The database went back in time",
        Some(EndReason::Replaced) => "Replaced by a new session when a factor was shown again",
        Some(EndReason::TooManySessions) => "The oldest of more sessions than the role allows",
        Some(EndReason::FactorRequired) => "The role now requires a second factor",
        None => "Ended",
    }
}
