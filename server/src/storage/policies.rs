//! Versions of the roles' policies. The highest version of a role is the one in force; none is ever changed.

use uuid::Uuid;

use super::columns::{Table, millis};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::{Timestamp, millis as duration_millis};
use crate::domain::id::UserId;
use crate::domain::policy::{Lifetimes, Mfa, Policy};

const TABLE: Table = Table("policies");

/// The columns of [`PolicyRow`].
macro_rules! policy_columns {
    () => {
        "p.role AS p_role, p.version AS p_version, p.access_ms AS p_access_ms, p.idle_ms AS p_idle_ms, \
         p.absolute_ms AS p_absolute_ms, p.idle_warning_ms AS p_idle_warning_ms, \
         p.remember_device_ms AS p_remember_device_ms, p.mfa AS p_mfa, p.step_up_ms AS p_step_up_ms, \
         p.max_sessions AS p_max_sessions, p.review_at AS p_review_at, p.reason AS p_reason, \
         p.justification AS p_justification, p.author_id AS p_author_id, p.created_at AS p_created_at"
    };
}
pub(super) use policy_columns;

statements! {
    INSERT_POLICY = "INSERT INTO policies (role, version, access_ms, idle_ms, absolute_ms, idle_warning_ms, \
        remember_device_ms, mfa, step_up_ms, max_sessions, review_at, reason, justification, author_id, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    IN_FORCE_OF_USER = concat!("SELECT ", policy_columns!(), " FROM user_roles ur JOIN policies p ON p.role = ur.role \
        WHERE ur.user_id = $1 AND p.version = (SELECT MAX(v.version) FROM policies v WHERE v.role = ur.role) \
        ORDER BY p.role");
    IN_FORCE = concat!("SELECT ", policy_columns!(), " FROM policies p WHERE p.role = $1 ORDER BY p.version DESC LIMIT 1");
    ALL_IN_FORCE = concat!("SELECT ", policy_columns!(), " FROM policies p \
        WHERE p.version = (SELECT MAX(v.version) FROM policies v WHERE v.role = p.role) ORDER BY p.role");
    VERSIONS = concat!("SELECT ", policy_columns!(), " FROM policies p WHERE p.role = $1 \
        ORDER BY p.version DESC LIMIT $2");
}

/// A row of `policies`.
#[derive(Clone, sqlx::FromRow)]
#[expect(clippy::struct_field_names, reason = "the names of `policy_columns!`")]
pub(super) struct PolicyRow {
    p_role: String,
    p_version: i64,
    p_access_ms: i64,
    p_idle_ms: i64,
    p_absolute_ms: i64,
    p_idle_warning_ms: i64,
    p_remember_device_ms: i64,
    p_mfa: String,
    p_step_up_ms: i64,
    p_max_sessions: i64,
    p_review_at: Option<i64>,
    p_reason: String,
    p_justification: Option<String>,
    p_author_id: Option<Uuid>,
    p_created_at: i64,
}

impl TryFrom<PolicyRow> for Policy {
    type Error = StorageError;

    fn try_from(row: PolicyRow) -> Result<Self, StorageError> {
        let words = [Mfa::Off, Mfa::Optional, Mfa::Required];
        Ok(Self {
            version: TABLE.small("version", row.p_version)?,
            lifetimes: Lifetimes {
                access: TABLE.duration("access_ms", row.p_access_ms)?,
                idle: TABLE.duration("idle_ms", row.p_idle_ms)?,
                absolute: TABLE.duration("absolute_ms", row.p_absolute_ms)?,
                idle_warning: TABLE.duration("idle_warning_ms", row.p_idle_warning_ms)?,
                remember_device: TABLE.duration("remember_device_ms", row.p_remember_device_ms)?,
                mfa: TABLE.word("mfa", &row.p_mfa, &words, Mfa::as_str)?,
                step_up: TABLE.duration("step_up_ms", row.p_step_up_ms)?,
                max_sessions: TABLE.small("max_sessions", row.p_max_sessions)?,
            },
            role: row.p_role,
            review_at: row.p_review_at.map(Timestamp::from_millis),
            reason: row.p_reason,
            justification: row.p_justification,
            author_id: row.p_author_id.map(UserId),
            created_at: Timestamp::from_millis(row.p_created_at),
        })
    }
}

fn all(rows: Vec<PolicyRow>) -> Result<Vec<Policy>, StorageError> {
    rows.into_iter().map(Policy::try_from).collect()
}

/// Saves a version; it is in force once committed.
///
/// # Errors
/// A unique violation if somebody else has saved that version: read again and let the person look.
pub async fn insert_policy(tx: &mut Tx, policy: &Policy) -> Result<(), StorageError> {
    let values = &policy.lifetimes;
    on_backend!(tx, |connection| sqlx::query(INSERT_POLICY)
        .bind(&policy.role)
        .bind(i64::from(policy.version))
        .bind(duration_millis(values.access))
        .bind(duration_millis(values.idle))
        .bind(duration_millis(values.absolute))
        .bind(duration_millis(values.idle_warning))
        .bind(duration_millis(values.remember_device))
        .bind(values.mfa.as_str())
        .bind(duration_millis(values.step_up))
        .bind(i64::from(values.max_sessions))
        .bind(millis(policy.review_at))
        .bind(&policy.reason)
        .bind(policy.justification.as_deref())
        .bind(policy.author_id.map(|author| author.0))
        .bind(policy.created_at.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    tx.saves_policy = true;
    Ok(())
}

/// The policies in force of all the person's roles, by role.
///
/// # Errors
/// When the database fails.
pub async fn find_policies_in_force_of_user(tx: &mut Tx, user: UserId) -> Result<Vec<Policy>, StorageError> {
    all(on_backend!(tx, |connection| sqlx::query_as(IN_FORCE_OF_USER)
        .bind(user.0)
        .fetch_all(connection)
        .await)?)
}

/// The role's policy in force.
///
/// # Errors
/// When the database fails.
pub async fn find_policy(tx: &mut Tx, role: &str) -> Result<Option<Policy>, StorageError> {
    if !super::columns::is_storable(role) {
        return Ok(None);
    }
    let row: Option<PolicyRow> = on_backend!(tx, |connection| sqlx::query_as(IN_FORCE)
        .bind(role)
        .fetch_optional(connection)
        .await)?;
    row.map(Policy::try_from).transpose()
}

/// The policies in force of all roles, by role.
///
/// # Errors
/// When the database fails.
pub async fn list_policies_in_force(tx: &mut Tx) -> Result<Vec<Policy>, StorageError> {
    all(on_backend!(tx, |connection| sqlx::query_as(ALL_IN_FORCE)
        .fetch_all(connection)
        .await)?)
}

/// The role's versions, newest first.
///
/// # Errors
/// When the database fails.
pub async fn list_policy_versions(tx: &mut Tx, role: &str, limit: u32) -> Result<Vec<Policy>, StorageError> {
    if !super::columns::is_storable(role) {
        return Ok(Vec::new());
    }
    all(on_backend!(tx, |connection| sqlx::query_as(VERSIONS)
        .bind(role)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?)
}
