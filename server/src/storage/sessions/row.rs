//! How a session stands in its table.

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

use super::super::StorageError;
use super::super::columns::Table;
use super::super::policies::PolicyRow;
use super::super::users::UserRow;
use crate::domain::clock::{Timestamp, millis};
use crate::domain::dbsc::BrowserKey;
use crate::domain::dpop::Thumbprint;
use crate::domain::id::{DeviceId, SessionId, UserId};
use crate::domain::session::{Client, EndReason, Ending, Session};

const TABLE: Table = Table("sessions");

/// The columns of [`SessionRow`].
macro_rules! session_columns {
    () => {
        "s.id, s.user_id, s.device_id, s.client, s.secret_sealed, s.generation, s.rotated_at, s.child_confirmed, \
         s.reissues, s.access_expires_at, s.min_generation, s.auth_epoch, s.grant_epoch, s.started_at, \
         s.authenticated_at, s.last_active_at, s.access_ms, s.idle_ms, s.idle_rule_role, s.idle_rule_version, \
         s.absolute_expires_at, s.absolute_rule_role, s.absolute_rule_version, s.amr, s.address, s.user_agent, \
         s.ended_at, s.end_reason, s.end_rule_role, s.end_rule_version, s.end_limit_ms, s.superseded_at, s.handed_out_at, \
         s.jkt, s.browser_key, s.browser_key_proved_at"
    };
}
pub(super) use session_columns;

#[derive(Clone, sqlx::FromRow)]
pub(super) struct SessionRow {
    pub(super) id: Uuid,
    user_id: Uuid,
    device_id: Option<Uuid>,
    client: String,
    secret_sealed: Vec<u8>,
    generation: i64,
    rotated_at: i64,
    child_confirmed: i64,
    reissues: i64,
    access_expires_at: i64,
    min_generation: i64,
    auth_epoch: i64,
    grant_epoch: i64,
    started_at: i64,
    authenticated_at: i64,
    last_active_at: i64,
    access_ms: i64,
    idle_ms: i64,
    idle_rule_role: String,
    idle_rule_version: i64,
    absolute_expires_at: i64,
    absolute_rule_role: String,
    absolute_rule_version: i64,
    amr: String,
    address: String,
    user_agent: String,
    ended_at: Option<i64>,
    end_reason: Option<String>,
    end_rule_role: Option<String>,
    end_rule_version: Option<i64>,
    end_limit_ms: Option<i64>,
    superseded_at: i64,
    handed_out_at: i64,
    jkt: Option<String>,
    browser_key: Option<Vec<u8>>,
    browser_key_proved_at: Option<i64>,
}

/// A session, its owner, and one of the policies in force of the owner's roles, read in one go.
#[derive(Clone)]
pub(super) struct SessionWithPolicyRow {
    pub(super) session: SessionRow,
    pub(super) user: UserRow,
    /// None for an owner without roles.
    pub(super) policy: Option<PolicyRow>,
}

impl<'r, R> FromRow<'r, R> for SessionWithPolicyRow
where
    R: Row,
    &'static str: ColumnIndex<R>,
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    SessionRow: FromRow<'r, R>,
    UserRow: FromRow<'r, R>,
    PolicyRow: FromRow<'r, R>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let role: Option<String> = row.try_get("p_role")?;
        Ok(Self {
            session: SessionRow::from_row(row)?,
            user: UserRow::from_row(row)?,
            policy: role.map(|_| PolicyRow::from_row(row)).transpose()?,
        })
    }
}

impl TryFrom<SessionRow> for Session {
    type Error = StorageError;

    fn try_from(row: SessionRow) -> Result<Self, StorageError> {
        let ending = ending(&row)?;
        let clients = [Client::Browser, Client::Native];
        Ok(Self {
            id: SessionId(row.id),
            user_id: UserId(row.user_id),
            device_id: row.device_id.map(DeviceId),
            client: TABLE.word("client", &row.client, &clients, Client::as_str)?,
            secret_sealed: row.secret_sealed,
            generation: TABLE.count("generation", row.generation)?,
            rotated_at: Timestamp::from_millis(row.rotated_at),
            handed_out_at: Timestamp::from_millis(row.handed_out_at),
            superseded_at: Timestamp::from_millis(row.superseded_at),
            child_confirmed: row.child_confirmed != 0,
            reissues: TABLE.small("reissues", row.reissues)?,
            access_expires_at: Timestamp::from_millis(row.access_expires_at),
            min_generation: TABLE.count("min_generation", row.min_generation)?,
            auth_epoch: row.auth_epoch,
            grant_epoch: row.grant_epoch,
            started_at: Timestamp::from_millis(row.started_at),
            authenticated_at: Timestamp::from_millis(row.authenticated_at),
            last_active_at: Timestamp::from_millis(row.last_active_at),
            access: TABLE.duration("access_ms", row.access_ms)?,
            idle: TABLE.duration("idle_ms", row.idle_ms)?,
            idle_rule: TABLE.rule("idle_rule_version", row.idle_rule_role, row.idle_rule_version)?,
            absolute_expires_at: Timestamp::from_millis(row.absolute_expires_at),
            absolute_rule: TABLE.rule(
                "absolute_rule_version",
                row.absolute_rule_role,
                row.absolute_rule_version,
            )?,
            amr: row.amr,
            address: row.address,
            user_agent: row.user_agent,
            jkt: row
                .jkt
                .map(|jkt| Thumbprint::parse(&jkt).ok_or(TABLE.impossible("jkt")))
                .transpose()?,
            browser_key: row.browser_key.map(|point| BrowserKey {
                point,
                proved_at: row.browser_key_proved_at.map(Timestamp::from_millis),
            }),
            ending,
        })
    }
}

fn ending(row: &SessionRow) -> Result<Option<Ending>, StorageError> {
    let Some(at) = row.ended_at else { return Ok(None) };
    let reason = row
        .end_reason
        .as_deref()
        .and_then(EndReason::parse)
        .ok_or(TABLE.impossible("end_reason"))?;
    let rule = match (&row.end_rule_role, row.end_rule_version) {
        (Some(role), Some(version)) => Some(TABLE.rule("end_rule_version", role.clone(), version)?),
        (None, None) => None,
        _ => return Err(TABLE.impossible("end_rule_role")),
    };
    let limit = row
        .end_limit_ms
        .map(|limit| TABLE.duration("end_limit_ms", limit))
        .transpose()?;
    Ok(Some(Ending {
        at: Timestamp::from_millis(at),
        reason,
        rule,
        limit,
    }))
}

/// The columns of an ending, in the order of the statements: at, reason, rule's role and version, limit.
pub(super) struct EndingColumns<'a> {
    pub(super) at: i64,
    pub(super) reason: &'static str,
    pub(super) role: Option<&'a str>,
    pub(super) version: Option<i64>,
    pub(super) limit: Option<i64>,
}

impl<'a> From<&'a Ending> for EndingColumns<'a> {
    fn from(ending: &'a Ending) -> Self {
        Self {
            at: ending.at.as_millis(),
            reason: ending.reason.as_str(),
            role: ending.rule.as_ref().map(|rule| rule.role.as_str()),
            version: ending.rule.as_ref().map(|rule| i64::from(rule.version)),
            limit: ending.limit.map(millis),
        }
    }
}
