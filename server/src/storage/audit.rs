//! The audit log: appending, searching, sealing. Rows are only ever added; triggers refuse anything else.

pub(super) mod alone;
pub(super) mod append;
pub mod notices;
mod search;

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::columns::{Table, bigint};
use super::many::{json, write_many};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::audit::{Event, Kind, Outcome};
use crate::domain::audit_seal::{AuditRow, Seal, SealedRow};
use crate::domain::clock::Timestamp;
use crate::domain::id::{DeviceId, EventId, SessionId, UserId};

pub use alone::append_alone;
pub use append::append_events;
pub use search::{EventFilter, list_events};

const TABLE: Table = Table("audit_events");

macro_rules! event_columns {
    () => {
        "e.id, e.at, e.kind, e.outcome, e.actor_id, e.subject_id, e.session_id, e.device_id, e.address, e.user_agent, \
         e.request_id, e.reason, e.facts, e.changes"
    };
}
use event_columns;

statements! {
    FIND_EVENT = concat!("SELECT ", event_columns!(), " FROM audit_events e WHERE e.id = $1");
    // OFFSET 0 has PostgreSQL look for the seal of each event; else it may go through all seals there are.
    LIST_UNSEALED = concat!("SELECT ", event_columns!(), " FROM audit_events e \
        WHERE (e.at, e.id) >= ($1, $2) AND (e.at, e.id) <= ($3, $4) AND NOT EXISTS (SELECT 1 FROM audit_seals s WHERE s.event_id = e.id LIMIT 1 \
        OFFSET 0) ORDER BY e.at, e.id LIMIT $5");
    FIND_PLACE = "SELECT e.at, e.id FROM audit_events e WHERE (e.at, e.id) >= ($1, $2) ORDER BY e.at, e.id LIMIT 1 OFFSET $3";
    LIST_ISSUED = "SELECT e.id, e.at, e.kind, e.facts, s.access_ms, s.absolute_expires_at FROM audit_events e \
        LEFT JOIN sessions s ON s.id = e.session_id WHERE (e.at, e.id) > ($1, $2) AND e.at < $3 AND e.kind IN \
        ('session_created', 'token_rotated', 'token_reissued', 'service_token_issued') ORDER BY e.at, e.id LIMIT $4";
    LAST_SEAL = "SELECT seq, event_id, hash, sealed_at FROM audit_seals ORDER BY seq DESC LIMIT 1";
    SEALED_AFTER_AHEAD = "SELECT s.sealed_at FROM audit_seals s WHERE s.seq > (SELECT MAX(a.seq) FROM audit_events e \
        JOIN audit_seals a ON a.event_id = e.id WHERE e.at > $1) ORDER BY s.seq LIMIT 1";
    SEAL_OF = "SELECT seq, event_id, hash, sealed_at FROM audit_seals WHERE event_id = $1";
    LIST_SEALS = "SELECT seq, event_id, hash, sealed_at FROM audit_seals WHERE seq >= $1 ORDER BY seq LIMIT $2";
    LIST_SEALED_EVENTS = concat!("SELECT ", event_columns!(), " FROM audit_seals s \
        JOIN audit_events e ON e.id = s.event_id WHERE s.seq >= $1 AND s.seq <= $2");
    // $3 is a list with commas round each word: an array would be another text on each database.
    LIST_SEALED_OF_KINDS = concat!("SELECT s.seq, ", event_columns!(), " FROM audit_seals s \
        JOIN audit_events e ON e.id = s.event_id WHERE s.seq > $1 AND s.seq <= $2 \
        AND $3 LIKE '%,' || e.kind || ',%' ORDER BY s.seq LIMIT $4");
}

statements! {
    @SQLITE_STATEMENTS
    APPEND_SEALS_ON_SQLITE = "INSERT INTO audit_seals (seq, event_id, hash, sealed_at) SELECT value ->> 'seq', \
        unhex(value ->> 'event_id'), unhex(value ->> 'hash'), value ->> 'sealed_at' FROM jsonb_each($1)";
}

statements! {
    @POSTGRES_STATEMENTS
    APPEND_SEALS_ON_POSTGRES = "INSERT INTO audit_seals (seq, event_id, hash, sealed_at) \
        SELECT seq, event_id, decode(hash, 'hex'), sealed_at FROM json_to_recordset($1::json) \
        AS seals (seq bigint, event_id uuid, hash text, sealed_at bigint)";
}

/// A place in the order of time: that of an event.
pub type Place = (Timestamp, EventId);

/// The first place there is.
pub const BEGINNING: Place = (Timestamp::from_millis(i64::MIN), EventId(Uuid::nil()));
const END: Place = (Timestamp::from_millis(i64::MAX), EventId(Uuid::max()));

/// So many events are looked through, sealed or not, for each unsealed one that is asked for. A statement is done long
/// before the database's time limit, however long the log.
const LOOKED_THROUGH: u32 = 20;

/// A row of the log as it is read: the event itself. Its seal is [`seal_of`]'s to tell.
pub type StoredEvent = Event;

#[derive(sqlx::FromRow)]
struct EventRow {
    id: Uuid,
    at: i64,
    kind: String,
    outcome: String,
    actor_id: Option<Uuid>,
    subject_id: Option<Uuid>,
    session_id: Option<Uuid>,
    device_id: Option<Uuid>,
    address: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    reason: Option<String>,
    facts: String,
    changes: String,
}

#[derive(sqlx::FromRow)]
struct PlacedRow {
    seq: i64,
    #[sqlx(flatten)]
    event: EventRow,
}

impl From<EventRow> for AuditRow {
    fn from(row: EventRow) -> Self {
        Self {
            id: EventId(row.id),
            at: Timestamp::from_millis(row.at),
            kind: row.kind,
            outcome: row.outcome,
            actor_id: row.actor_id.map(UserId),
            subject_id: row.subject_id.map(UserId),
            session_id: row.session_id.map(SessionId),
            device_id: row.device_id.map(DeviceId),
            address: row.address,
            user_agent: row.user_agent,
            request_id: row.request_id,
            reason: row.reason,
            facts: row.facts,
            changes: row.changes,
        }
    }
}

/// The fact that says what an event of a newer version calls itself.
const NEWER_KIND: &str = "newer_kind";

impl TryFrom<EventRow> for Event {
    type Error = StorageError;

    fn try_from(row: EventRow) -> Result<Self, StorageError> {
        let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Denied];
        let mut facts: Map<String, Value> = serde_json::from_str(&row.facts).map_err(|_| TABLE.impossible("facts"))?;
        let known = Kind::ALL.iter().copied().find(|kind| kind.as_str() == row.kind);
        // The log has to be readable after going back to an older version, too (F77).
        let kind = known.unwrap_or_else(|| {
            facts.insert(NEWER_KIND.to_owned(), row.kind.into());
            Kind::Newer
        });
        Ok(Self {
            id: EventId(row.id),
            at: Timestamp::from_millis(row.at),
            kind,
            outcome: TABLE.word("outcome", &row.outcome, &outcomes, Outcome::as_str)?,
            actor_id: row.actor_id.map(UserId),
            subject_id: row.subject_id.map(UserId),
            session_id: row.session_id.map(SessionId),
            device_id: row.device_id.map(DeviceId),
            address: row.address,
            user_agent: row.user_agent,
            request_id: row.request_id,
            reason: row.reason,
            facts,
            changes: serde_json::from_str(&row.changes).map_err(|_| TABLE.impossible("changes"))?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct SealRow {
    seq: i64,
    event_id: Uuid,
    hash: Vec<u8>,
    sealed_at: i64,
}

/// The same as it is written, with bytes in hexadecimal.
#[derive(serde::Serialize)]
struct WrittenSeal {
    seq: i64,
    event_id: uuid::fmt::Simple,
    hash: String,
    sealed_at: i64,
}

impl TryFrom<SealRow> for Seal {
    type Error = StorageError;

    fn try_from(row: SealRow) -> Result<Self, StorageError> {
        let table = Table("audit_seals");
        Ok(Self {
            seq: table.count("seq", row.seq)?,
            event_id: EventId(row.event_id),
            hash: table.hash("hash", &row.hash)?,
            sealed_at: Timestamp::from_millis(row.sealed_at),
        })
    }
}

/// One event.
///
/// # Errors
/// When the database fails.
pub async fn find_event(tx: &mut Tx, id: EventId) -> Result<Option<StoredEvent>, StorageError> {
    let row: Option<EventRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_EVENT)
        .bind(id.0)
        .fetch_optional(connection)
        .await)?;
    row.map(Event::try_from).transpose()
}

/// Events without a seal.
#[derive(Debug)]
pub struct Unsealed {
    /// Oldest first.
    pub rows: Vec<AuditRow>,
    /// Where to look on, once these are sealed; `None` at the end of the log.
    pub next: Option<Place>,
}

/// At most `limit` events without a seal, from one place in the order of time on, as far as one statement should look. A
/// transaction may commit an older event after a newer one was sealed, so begin well before that; and at [`BEGINNING`] at
/// start and when verifying.
///
/// # Errors
/// When the database fails.
pub async fn list_unsealed(tx: &mut Tx, from: Place, limit: u32) -> Result<Unsealed, StorageError> {
    let end: Option<(i64, Uuid)> = on_backend!(tx, |connection| sqlx::query_as(FIND_PLACE)
        .bind(from.0.as_millis())
        .bind(from.1.0)
        .bind(i64::from(limit.saturating_mul(LOOKED_THROUGH)))
        .fetch_optional(connection)
        .await)?;
    let end = end.map(|(at, id)| (Timestamp::from_millis(at), EventId(id)));
    let until = end.unwrap_or(END);
    let rows: Vec<EventRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_UNSEALED)
        .bind(from.0.as_millis())
        .bind(from.1.0)
        .bind(until.0.as_millis())
        .bind(until.1.0)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    let rows: Vec<AuditRow> = rows.into_iter().map(AuditRow::from).collect();
    let are_all = rows.len() < limit as usize;
    let next = if are_all {
        end
    } else {
        rows.last().map(|row| (row.at, row.id))
    };
    Ok(Unsealed { rows, next })
}

/// Events of some kinds that were sealed after one place and up to another, with their places, in that order.
///
/// # Errors
/// When the database fails.
pub async fn list_sealed_of_kinds(
    tx: &mut Tx,
    after: u64,
    up_to: u64,
    kinds: &[Kind],
    limit: u32,
) -> Result<Vec<(u64, StoredEvent)>, StorageError> {
    let list = kinds
        .iter()
        .fold(",".to_owned(), |list, kind| list + kind.as_str() + ",");
    let rows: Vec<PlacedRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_SEALED_OF_KINDS)
        .bind(bigint(after))
        .bind(bigint(up_to))
        .bind(&list)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter()
        .map(|row| Ok((Table("audit_seals").count("seq", row.seq)?, row.event.try_into()?)))
        .collect()
}

/// An access token was issued, as the log tells it.
#[derive(Clone, Copy, Debug)]
pub struct TokenIssued {
    /// The event.
    pub id: EventId,
    /// When.
    pub at: Timestamp,
    /// To a service; otherwise to a person's session.
    pub to_service: bool,
    /// Its `exp`, unless the session was given a shorter lifetime since; `None` if the session is long gone.
    pub expires_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct IssuedRow {
    id: Uuid,
    at: i64,
    kind: String,
    facts: String,
    access_ms: Option<i64>,
    absolute_expires_at: Option<i64>,
}

impl TryFrom<IssuedRow> for TokenIssued {
    type Error = StorageError;

    fn try_from(row: IssuedRow) -> Result<Self, StorageError> {
        let at = Timestamp::from_millis(row.at);
        let to_service = row.kind == Kind::ServiceTokenIssued.as_str();
        let facts: serde_json::Value = serde_json::from_str(&row.facts).map_err(|_| TABLE.impossible("facts"))?;
        let expires_at = if to_service {
            let lifetime = facts["lifetime_s"].as_u64().ok_or_else(|| TABLE.impossible("facts"))?;
            Some(at.plus(Duration::from_secs(lifetime)))
        } else if let Some(end) = facts["expires_at"].as_i64() {
            // What is handed out again lives no longer than it did.
            Some(Timestamp::from_millis(end))
        } else if let (Some(access), Some(end)) = (row.access_ms, row.absolute_expires_at) {
            let access = Table("sessions").duration("access_ms", access)?;
            Some(at.plus(access).min(Timestamp::from_millis(end)))
        } else {
            None
        };
        Ok(Self {
            id: EventId(row.id),
            at,
            to_service,
            expires_at,
        })
    }
}

/// Access tokens that were issued after one event and before a moment, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list_issued_tokens(
    tx: &mut Tx,
    after: (Timestamp, EventId),
    until: Timestamp,
    limit: u32,
) -> Result<Vec<TokenIssued>, StorageError> {
    let rows: Vec<IssuedRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_ISSUED)
        .bind(after.0.as_millis())
        .bind(after.1.0)
        .bind(until.as_millis())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter().map(TokenIssued::try_from).collect()
}

/// Adds links to the chain.
///
/// # Errors
/// A unique violation if another process has sealed meanwhile: roll back, read the last seal again.
pub async fn append_seals(tx: &mut Tx, seals: &[Seal]) -> Result<(), StorageError> {
    let row = |seal: &Seal| WrittenSeal {
        seq: bigint(seal.seq),
        event_id: seal.event_id.0.simple(),
        hash: HEXLOWER.encode(&seal.hash),
        sealed_at: seal.sealed_at.as_millis(),
    };
    let rows = json(&seals.iter().map(row).collect::<Vec<_>>());
    let sql = tx.in_words_of(APPEND_SEALS_ON_SQLITE, APPEND_SEALS_ON_POSTGRES);
    write_many(tx, sql, rows).await
}

/// The end of the chain; none before the first sealing.
///
/// # Errors
/// When the database fails.
pub async fn last_seal(tx: &mut Tx) -> Result<Option<Seal>, StorageError> {
    let row: Option<SealRow> = on_backend!(tx, |connection| sqlx::query_as(LAST_SEAL)
        .fetch_optional(connection)
        .await)?;
    row.map(Seal::try_from).transpose()
}

/// When the log first went on after the last event that lies ahead of a moment, by the clock of then. `None`: no event does, or
/// nothing came after it.
///
/// # Errors
/// When the database fails.
pub async fn find_first_seal_after_what_lies_ahead(
    tx: &mut Tx,
    of: Timestamp,
) -> Result<Option<Timestamp>, StorageError> {
    let at: Option<i64> = on_backend!(tx, |connection| sqlx::query_scalar(SEALED_AFTER_AHEAD)
        .bind(of.as_millis())
        .fetch_optional(connection)
        .await)?;
    Ok(at.map(Timestamp::from_millis))
}

/// The seal of an event.
///
/// # Errors
/// When the database fails.
pub async fn seal_of(tx: &mut Tx, event: EventId) -> Result<Option<Seal>, StorageError> {
    let row: Option<SealRow> = on_backend!(tx, |connection| sqlx::query_as(SEAL_OF)
        .bind(event.0)
        .fetch_optional(connection)
        .await)?;
    row.map(Seal::try_from).transpose()
}

/// Links from `from_seq` on with the rows they cover, in the order of the chain.
///
/// # Errors
/// When the database fails.
pub async fn list_seals(tx: &mut Tx, from_seq: u64, limit: u32) -> Result<Vec<SealedRow>, StorageError> {
    let rows: Vec<SealRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_SEALS)
        .bind(bigint(from_seq))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    let Some(last) = rows.last().map(|row| row.seq) else {
        return Ok(Vec::new());
    };
    let events: Vec<EventRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_SEALED_EVENTS)
        .bind(bigint(from_seq))
        .bind(last)
        .fetch_all(connection)
        .await)?;
    let mut events: std::collections::HashMap<Uuid, AuditRow> =
        events.into_iter().map(|row| (row.id, row.into())).collect();
    rows.into_iter()
        .map(|row| {
            let covered = events.remove(&row.event_id);
            Ok(SealedRow {
                seal: row.try_into()?,
                row: covered,
            })
        })
        .collect()
}
