//! Rows and views that the fakes answer with.

use app::types::*;

/// 12 March 2026, 10:42:05 UTC.
pub const NOW: i64 = 1_773_312_125_000;
pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

pub fn rule(role: &str, version: u32) -> Rule {
    Rule {
        role: role.to_owned(),
        version,
    }
}

pub fn session(id: &str, current: bool, kind: DeviceKind, device: &str) -> SessionView {
    SessionView {
        id: id.to_owned(),
        current,
        kind,
        device: device.to_owned(),
        network: "198.51.100.x".to_owned(),
        started_at: NOW - 2 * DAY,
        last_active_at: NOW - 3 * MINUTE,
        signed_in_with: "password and code".to_owned(),
        bound_to_key: kind == DeviceKind::Program,
        ends_at: NOW + 12 * MINUTE,
        ends_idle: true,
        idle_limit_s: 900,
        idle_rule: rule("finance", 7),
        absolute_end_at: NOW + 5 * DAY,
        absolute_rule: rule("staff", 2),
    }
}

pub fn living() -> Vec<SessionView> {
    vec![
        session("s-1", true, DeviceKind::Computer, "Firefox on Windows"),
        session("s-2", false, DeviceKind::Phone, "Safari on iPhone"),
        SessionView {
            ends_idle: false,
            ..session("s-3", false, DeviceKind::Tablet, "Chrome on Android")
        },
        session("s-4", false, DeviceKind::Program, "Backup program"),
    ]
}

pub fn ended() -> Vec<EndedSessionView> {
    let over = |id: &str, reason, rule, limit_s, days| EndedSessionView {
        id: id.to_owned(),
        kind: DeviceKind::Computer,
        device: "Edge on Windows".to_owned(),
        network: "203.0.113.x".to_owned(),
        started_at: NOW - (days + 1) * DAY,
        ended_at: NOW - days * DAY,
        ending: Ending { reason, rule, limit_s },
    };
    vec![
        over("e-1", EndReason::Idle, Some(rule("finance", 7)), Some(900), 1),
        over("e-2", EndReason::TokenReused, None, None, 3),
        over("e-3", EndReason::SignedOut, None, None, 9),
    ]
}

pub fn limits() -> Lifetimes {
    Lifetimes {
        access_s: 300,
        idle_s: 900,
        absolute_s: 43_200,
        idle_warning_s: 120,
        remember_device_s: 0,
        mfa: MfaRule::Required,
        step_up_s: 600,
        max_sessions: 5,
    }
}

pub fn role(name: &str, people: u32) -> RoleView {
    RoleView {
        name: name.to_owned(),
        description: "Books and payments".to_owned(),
        people,
        version: 7,
        lifetimes: limits(),
        changed_by: "ada".to_owned(),
        changed_at: NOW - 20 * DAY,
        reason: "Quarterly review".to_owned(),
        justification: None,
    }
}

pub fn person(id: &str, name: &str) -> PersonRow {
    PersonRow {
        id: id.to_owned(),
        username: name.to_lowercase().replace(' ', "."),
        display_name: name.to_owned(),
        email: format!("{}@example.org", name.to_lowercase().replace(' ', ".")),
        roles: vec!["staff".to_owned(), "finance".to_owned()],
        disabled: false,
        invited: false,
        has_factor: true,
        sessions: 4,
        last_active_at: Some(NOW - HOUR),
    }
}

pub fn event(id: &str, kind: &str, outcome: AuditOutcome, summary: &str) -> AuditRow {
    AuditRow {
        id: id.to_owned(),
        at: NOW - HOUR,
        kind: kind.to_owned(),
        outcome,
        actor: "ada".to_owned(),
        subject: "grace".to_owned(),
        address: "198.51.100.23".to_owned(),
        summary: summary.to_owned(),
    }
}

pub fn enrolment() -> Enrolment {
    Enrolment {
        qr_svg: "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 29 29\"><path d=\"M2 2h7v7h-7zM20 2h7v7h-7zM2 20h7v7h-7zM12 12h5v5h-5z\"/></svg>".to_owned(),
        text_key: "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP".to_owned(),
        account: "ada".to_owned(),
    }
}
