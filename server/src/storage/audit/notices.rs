//! Events from which something is still to follow, and the windows of alerts.

use uuid::Uuid;

use super::super::columns::{Table, bigint};
use super::super::many::{ids, in_ids_on_postgres, in_ids_on_sqlite, write_many};
use super::super::{StorageError, Tx, on_backend, statements};
use super::{EventRow, StoredEvent, event_columns};
use crate::domain::audit::{Event, Kind};
use crate::domain::clock::Timestamp;
use crate::domain::id::{EventId, UserId};
use crate::domain::notice::{Rule, Window, is_noticed};

const TABLE: Table = Table("alert_windows");

statements! {
    HAS_NOTICES = "SELECT EXISTS (SELECT 1 FROM notices)";
    LIST_NOTICED = concat!("SELECT ", event_columns!(), " FROM notices n JOIN audit_events e ON e.id = n.event_id \
        ORDER BY n.event_id LIMIT $1");
    // Of several nodes one at a time goes on behind this.
    TAKE_TURN = "UPDATE mail_server SET turns = turns + 1 WHERE one = 1";
    LIST_WINDOWS = "SELECT rule, began_at, seen, told, last_event FROM alert_windows ORDER BY rule";
    PUT_WINDOW = "INSERT INTO alert_windows (rule, began_at, seen, told, last_event) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (rule) DO UPDATE SET began_at = excluded.began_at, seen = excluded.seen, told = excluded.told, \
        last_event = excluded.last_event";
    DELETE_WINDOW = "DELETE FROM alert_windows WHERE rule = $1";
    TELL_PERSON = "INSERT INTO people_told (user_id, kind, told_at) VALUES ($1, $2, $3) \
        ON CONFLICT (user_id, kind) DO UPDATE SET told_at = excluded.told_at \
        WHERE people_told.told_at <= $4 OR people_told.told_at > $5";
}

statements! {
    @SQLITE_STATEMENTS
    ADD_NOTICES_ON_SQLITE = "INSERT INTO notices (event_id) SELECT unhex(value) FROM json_each($1)";
    DELETE_NOTICES_ON_SQLITE = concat!("DELETE FROM notices WHERE event_id ", in_ids_on_sqlite!("$1"));
}

statements! {
    @POSTGRES_STATEMENTS
    ADD_NOTICES_ON_POSTGRES = "INSERT INTO notices (event_id) SELECT json_array_elements_text($1::json)::uuid";
    DELETE_NOTICES_ON_POSTGRES = concat!("DELETE FROM notices WHERE event_id ", in_ids_on_postgres!("$1"));
}

#[derive(sqlx::FromRow)]
struct WindowRow {
    rule: String,
    began_at: i64,
    seen: i64,
    told: i64,
    last_event: Uuid,
}

impl WindowRow {
    /// None of a rule that a newer version had: its next node goes on with it.
    fn read(self) -> Result<Option<Window>, StorageError> {
        let Some(rule) = Rule::ALL.into_iter().find(|rule| rule.as_str() == self.rule) else {
            return Ok(None);
        };
        Ok(Some(Window {
            rule,
            began_at: Timestamp::from_millis(self.began_at),
            seen: TABLE.count("seen", self.seen)?,
            told: TABLE.count("told", self.told)?,
            last_event: EventId(self.last_event),
        }))
    }
}

/// Remembers those of these events from which something follows.
pub(super) async fn add_notices(tx: &mut Tx, events: &[Event]) -> Result<(), StorageError> {
    let noticed: Vec<Uuid> = events
        .iter()
        .filter(|event| is_noticed(event))
        .map(|event| event.id.0)
        .collect();
    if noticed.is_empty() {
        return Ok(());
    }
    let sql = tx.in_words_of(ADD_NOTICES_ON_SQLITE, ADD_NOTICES_ON_POSTGRES);
    write_many(tx, sql, ids(noticed)).await
}

/// Whether there are any.
///
/// # Errors
/// When the database fails.
pub async fn has_notices(tx: &mut Tx) -> Result<bool, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(HAS_NOTICES)
        .fetch_one(connection)
        .await)?)
}

/// Waits until no other node draws consequences, and keeps the others waiting until the commit.
///
/// # Errors
/// When the database fails.
pub async fn take_turn(tx: &mut Tx) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(TAKE_TURN)
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// An event that was remembered; without what it says, if that cannot be read.
pub type Noticed = (EventId, Result<StoredEvent, StorageError>);

/// At most `limit` of the events that were remembered, the first of them first.
///
/// # Errors
/// When the database fails.
pub async fn list_noticed(tx: &mut Tx, limit: u32) -> Result<Vec<Noticed>, StorageError> {
    let rows: Vec<EventRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_NOTICED)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    Ok(rows
        .into_iter()
        .map(|row| (EventId(row.id), Event::try_from(row)))
        .collect())
}

/// Everything has followed from these.
///
/// # Errors
/// When the database fails.
pub async fn delete_notices(tx: &mut Tx, events: &[Noticed]) -> Result<(), StorageError> {
    let sql = tx.in_words_of(DELETE_NOTICES_ON_SQLITE, DELETE_NOTICES_ON_POSTGRES);
    write_many(tx, sql, ids(events.iter().map(|(id, _)| id.0))).await
}

/// Notes that a person is told of something of this kind now, unless that was done after the first of the two moments (and
/// not after the second: then the clock was set back).
///
/// # Errors
/// When the database fails.
pub async fn tell_person(
    tx: &mut Tx,
    user: UserId,
    kind: Kind,
    now: Timestamp,
    not_after: (Timestamp, Timestamp),
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(TELL_PERSON)
        .bind(user.0)
        .bind(kind.as_str())
        .bind(now.as_millis())
        .bind(not_after.0.as_millis())
        .bind(not_after.1.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// All windows that are open or wait to be closed.
///
/// # Errors
/// When the database fails.
pub async fn list_alert_windows(tx: &mut Tx) -> Result<Vec<Window>, StorageError> {
    let rows: Vec<WindowRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_WINDOWS)
        .fetch_all(connection)
        .await)?;
    rows.into_iter()
        .map(WindowRow::read)
        .filter_map(Result::transpose)
        .collect()
}

/// Keeps a window as it is now.
///
/// # Errors
/// When the database fails.
pub async fn put_alert_window(tx: &mut Tx, window: &Window) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(PUT_WINDOW)
        .bind(window.rule.as_str())
        .bind(window.began_at.as_millis())
        .bind(bigint(window.seen))
        .bind(bigint(window.told))
        .bind(window.last_event.0)
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Closes a window.
///
/// # Errors
/// When the database fails.
pub async fn delete_alert_window(tx: &mut Tx, rule: Rule) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(DELETE_WINDOW)
        .bind(rule.as_str())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}
