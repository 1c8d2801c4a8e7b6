//! Domain values as the pages' plain data.

use std::time::Duration;

use app::types::{DeviceKind, EndReason, EndedSessionView, Ending, Lifetimes, MfaRule, Rule, SessionView};

use crate::domain::clock::millis;
use crate::domain::device::{self, coarse_network, describe};
use crate::domain::id::SessionId;
use crate::domain::policy::{self, Mfa};
use crate::domain::session::{self, Session};

pub(super) fn seconds(duration: Duration) -> i64 {
    millis(duration) / 1000
}

pub(super) fn rule(rule: &policy::Rule) -> Rule {
    Rule {
        role: rule.role.clone(),
        version: rule.version,
    }
}

pub(super) fn ending(ending: &session::Ending) -> Ending {
    use session::EndReason as R;
    let reason = match ending.reason {
        R::SignedOut => EndReason::SignedOut,
        R::EndedByUser => EndReason::EndedByUser,
        R::EndedByAdmin => EndReason::EndedByAdmin,
        R::Idle => EndReason::Idle,
        R::Expired => EndReason::Expired,
        R::PasswordChanged => EndReason::PasswordChanged,
        R::FactorChanged => EndReason::FactorChanged,
        R::UserDisabled => EndReason::UserDisabled,
        R::TokenReused => EndReason::TokenReused,
        R::DatabaseRolledBack => EndReason::DatabaseRolledBack,
        R::Replaced => EndReason::Replaced,
        R::TooManySessions => EndReason::TooManySessions,
        R::FactorRequired => EndReason::FactorRequired,
    };
    Ending {
        reason,
        rule: ending.rule.as_ref().map(rule),
        limit_s: ending.limit.map(seconds),
    }
}

fn kind(kind: device::DeviceKind) -> DeviceKind {
    match kind {
        device::DeviceKind::Computer => DeviceKind::Computer,
        device::DeviceKind::Phone => DeviceKind::Phone,
        device::DeviceKind::Tablet => DeviceKind::Tablet,
        device::DeviceKind::Program => DeviceKind::Program,
    }
}

/// Coarse network in words; "unknown network" where no address was recorded.
pub(super) fn network(address: &str) -> String {
    address
        .parse()
        .map_or_else(|_| "unknown network".to_owned(), coarse_network)
}

fn methods(amr: &str) -> String {
    let words: Vec<&str> = amr
        .split(' ')
        .map(|method| match method {
            "pwd" => "password",
            "otp" => "code",
            "recovery" => "recovery code",
            other => other,
        })
        .collect();
    words.join(" and ")
}

pub(super) fn living(session: &Session, current: Option<SessionId>, asks_browsers: bool) -> SessionView {
    let described = describe(&session.user_agent);
    let idle_end = session.idle_expires_at();
    SessionView {
        id: session.id.to_string(),
        current: current == Some(session.id),
        kind: kind(described.kind),
        device: described.to_string(),
        network: network(&session.address),
        started_at: session.started_at.as_millis(),
        last_active_at: session.last_active_at.as_millis(),
        signed_in_with: methods(&session.amr),
        bound_to_key: session.is_bound(asks_browsers),
        ends_at: idle_end.min(session.absolute_expires_at).as_millis(),
        ends_idle: idle_end < session.absolute_expires_at,
        idle_limit_s: seconds(session.idle),
        idle_rule: rule(&session.idle_rule),
        absolute_end_at: session.absolute_expires_at.as_millis(),
        absolute_rule: rule(&session.absolute_rule),
    }
}

/// `None` for a session that lives.
pub(super) fn ended(session: &Session) -> Option<EndedSessionView> {
    let over = session.ending.as_ref()?;
    let described = describe(&session.user_agent);
    Some(EndedSessionView {
        id: session.id.to_string(),
        kind: kind(described.kind),
        device: described.to_string(),
        network: network(&session.address),
        started_at: session.started_at.as_millis(),
        ended_at: over.at.as_millis(),
        ending: ending(over),
    })
}

pub(super) fn lifetimes(values: &policy::Lifetimes) -> Lifetimes {
    Lifetimes {
        access_s: seconds(values.access),
        idle_s: seconds(values.idle),
        absolute_s: seconds(values.absolute),
        idle_warning_s: seconds(values.idle_warning),
        remember_device_s: seconds(values.remember_device),
        mfa: match values.mfa {
            Mfa::Off => MfaRule::Off,
            Mfa::Optional => MfaRule::Optional,
            Mfa::Required => MfaRule::Required,
        },
        step_up_s: seconds(values.step_up),
        max_sessions: values.max_sessions,
    }
}

/// Negative durations become zero, which validation refuses by field.
pub(super) fn lifetimes_from(form: &Lifetimes) -> policy::Lifetimes {
    let duration = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or(0));
    policy::Lifetimes {
        access: duration(form.access_s),
        idle: duration(form.idle_s),
        absolute: duration(form.absolute_s),
        idle_warning: duration(form.idle_warning_s),
        remember_device: duration(form.remember_device_s),
        mfa: match form.mfa {
            MfaRule::Off => Mfa::Off,
            MfaRule::Optional => Mfa::Optional,
            MfaRule::Required => Mfa::Required,
        },
        step_up: duration(form.step_up_s),
        max_sessions: form.max_sessions,
    }
}
