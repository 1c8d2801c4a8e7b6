//! Data of the audit pages.

use serde::{Deserialize, Serialize};

/// Outcome of an audited act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// Done.
    Success,
    /// Tried and failed (wrong password).
    Failure,
    /// Refused by a rule.
    Denied,
}

/// Filters of the audit page; empty strings mean "any".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditFilter {
    /// Sign-in name of actor or subject.
    pub person: String,
    /// Kind, e.g. `session_revoked`.
    pub kind: String,
    /// `success`, `failure` or `denied`.
    pub outcome: String,
    /// Session id.
    pub session: String,
    /// From, `YYYY-MM-DDTHH:MM` in UTC.
    pub from: String,
    /// To, `YYYY-MM-DDTHH:MM` in UTC.
    pub to: String,
}

/// One row of the audit log.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Event id.
    pub id: String,
    /// When.
    pub at: i64,
    /// Kind, past tense.
    pub kind: String,
    /// Outcome.
    pub outcome: AuditOutcome,
    /// Who did it; "system" or "anonymous" where nobody did.
    pub actor: String,
    /// Whom or what it was done to.
    pub subject: String,
    /// Network address.
    pub address: String,
    /// One line in words.
    pub summary: String,
}

/// A page of the audit log, newest first.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// Rows.
    pub rows: Vec<AuditRow>,
    /// Cursor for older rows.
    pub next: Option<String>,
    /// The filter as it was understood.
    pub filter: AuditFilter,
    /// All kinds, for the filter's list.
    pub kinds: Vec<String>,
    /// When the newest seal was made, if there is one.
    pub sealed_until: Option<i64>,
    /// The checkpoint outside the database speaks against the log.
    pub is_contradicted: bool,
}

/// Everything known about one event.
#[derive(Clone, Debug)]
pub struct AuditDetail {
    /// The row.
    pub row: AuditRow,
    /// Account id of the actor.
    pub actor_id: Option<String>,
    /// Account id of the subject.
    pub subject_id: Option<String>,
    /// Session.
    pub session_id: Option<String>,
    /// Device.
    pub device_id: Option<String>,
    /// Browser as it named itself.
    pub user_agent: Option<String>,
    /// Browser and system in words.
    pub device: Option<String>,
    /// Request id.
    pub request_id: Option<String>,
    /// Reason code.
    pub reason: Option<String>,
    /// Further facts: name and value.
    pub facts: Vec<(String, String)>,
    /// Changes: field, before, after.
    pub changes: Vec<(String, String, String)>,
    /// Hash that seals this row, hexadecimal.
    pub seal: Option<String>,
}
