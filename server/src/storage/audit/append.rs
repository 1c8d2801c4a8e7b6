//! Writing events: the order of an event's values, and how each database takes one or many of them.

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, PgConnection, SqliteConnection};

use super::super::changes::Counted;
use super::super::columns::is_storable;
use super::super::many::json;
use super::super::{StorageError, Tx, on_backend, statements};
use super::notices::add_notices;
use crate::domain::audit::Event;

/// The columns of an event in the order in which it is written.
macro_rules! written_event_columns {
    () => {
        "id, at, kind, outcome, actor_id, subject_id, session_id, device_id, address, user_agent, request_id, reason, \
         facts, changes"
    };
}
pub(in crate::storage) use written_event_columns;

macro_rules! append {
    ($from:literal) => {
        concat!("INSERT INTO audit_events (", written_event_columns!(), ") ", $from)
    };
}

macro_rules! append_one {
    () => {
        append!("VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)")
    };
}

// Of a JSON array of events, each an array of values, ids in hexadecimal.
macro_rules! append_json {
    () => {
        append!(
            "SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), unhex(value ->> 5), \
             unhex(value ->> 6), unhex(value ->> 7), value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, \
             value ->> 13 FROM jsonb_each($1)"
        )
    };
}

// Each value is an array with one for each event.
macro_rules! append_arrays {
    () => {
        append!(
            "SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], \
             $7::uuid[], $8::uuid[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[])"
        )
    };
}
pub(super) use {append, append_arrays, append_json, append_one};

/// Most events of one statement.
const MOST_AT_ONCE: usize = 1000;

statements! {
    APPEND_ONE = append_one!();
}

statements! {
    @SQLITE_STATEMENTS
    APPEND_JSON = append_json!();
}

statements! {
    @POSTGRES_STATEMENTS
    APPEND_ARRAYS = append_arrays!();
}

/// Adds events, in the transaction of the acts they record: neither exists without the other (F71). So it is with what
/// is to follow from them.
///
/// # Errors
/// When the database fails.
pub async fn append_events(tx: &mut Tx, events: &[Event]) -> Result<(), StorageError> {
    for part in events.chunks(MOST_AT_ONCE) {
        let part: Vec<&Event> = part.iter().collect();
        on_backend!(tx, |connection| connection.append(&part).await)?;
    }
    tx.recorded.extend(events.iter().map(Counted::from));
    add_notices(tx, events).await
}

trait Append {
    /// In one statement.
    fn append(&mut self, events: &[&Event]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

impl Append for SqliteConnection {
    async fn append(&mut self, events: &[&Event]) -> Result<(), sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        let sql = if let [event] = events {
            add_event(&mut arguments, event).map_err(sqlx::Error::Encode)?;
            APPEND_ONE
        } else {
            arguments.add(as_json(events)).map_err(sqlx::Error::Encode)?;
            APPEND_JSON
        };
        sqlx::query_with(sql, arguments).execute(self).await.map(drop)
    }
}

impl Append for PgConnection {
    async fn append(&mut self, events: &[&Event]) -> Result<(), sqlx::Error> {
        let mut arguments = PgArguments::default();
        add_events(&mut arguments, events).map_err(sqlx::Error::Encode)?;
        sqlx::query_with(APPEND_ARRAYS, arguments).execute(self).await.map(drop)
    }
}

/// Adds the values of an event in the order of [`written_event_columns`].
pub(in crate::storage) fn add_event(arguments: &mut SqliteArguments, event: &Event) -> Result<(), BoxDynError> {
    arguments.add(event.id.0)?;
    arguments.add(event.at.as_millis())?;
    arguments.add(event.kind.as_str())?;
    arguments.add(event.outcome.as_str())?;
    arguments.add(event.actor_id.map(|id| id.0))?;
    arguments.add(event.subject_id.map(|id| id.0))?;
    arguments.add(event.session_id.map(|id| id.0))?;
    arguments.add(event.device_id.map(|id| id.0))?;
    for text in [&event.address, &event.user_agent, &event.request_id, &event.reason] {
        arguments.add(storable(text.as_deref()))?;
    }
    arguments.add(json(&event.facts))?;
    arguments.add(json(&event.changes))
}

/// The same of many events, each value an array.
pub(in crate::storage) fn add_events(arguments: &mut PgArguments, events: &[&Event]) -> Result<(), BoxDynError> {
    fn each<T>(events: &[&Event], value: impl Fn(&Event) -> T) -> Vec<T> {
        events.iter().map(|event| value(event)).collect()
    }
    arguments.add(each(events, |e| e.id.0))?;
    arguments.add(each(events, |e| e.at.as_millis()))?;
    arguments.add(each(events, |e| e.kind.as_str()))?;
    arguments.add(each(events, |e| e.outcome.as_str()))?;
    arguments.add(each(events, |e| e.actor_id.map(|id| id.0)))?;
    arguments.add(each(events, |e| e.subject_id.map(|id| id.0)))?;
    arguments.add(each(events, |e| e.session_id.map(|id| id.0)))?;
    arguments.add(each(events, |e| e.device_id.map(|id| id.0)))?;
    arguments.add(each(events, |e| storable(e.address.as_deref())))?;
    arguments.add(each(events, |e| storable(e.user_agent.as_deref())))?;
    arguments.add(each(events, |e| storable(e.request_id.as_deref())))?;
    arguments.add(each(events, |e| storable(e.reason.as_deref())))?;
    arguments.add(each(events, |e| json(&e.facts)))?;
    arguments.add(each(events, |e| json(&e.changes)))
}

/// The same of many events as a JSON array of arrays, ids in hexadecimal.
pub(super) fn as_json(events: &[&Event]) -> String {
    let values = |event: &&Event| {
        (
            event.id.0.simple(),
            event.at.as_millis(),
            event.kind.as_str(),
            event.outcome.as_str(),
            event.actor_id.map(|id| id.0.simple()),
            event.subject_id.map(|id| id.0.simple()),
            event.session_id.map(|id| id.0.simple()),
            event.device_id.map(|id| id.0.simple()),
            storable(event.address.as_deref()),
            storable(event.user_agent.as_deref()),
            storable(event.request_id.as_deref()),
            storable(event.reason.as_deref()),
            json(&event.facts),
            json(&event.changes),
        )
    };
    json(&events.iter().map(values).collect::<Vec<_>>())
}

/// What a stranger sent must never keep an event from being written: U+0000 is shown as U+FFFD. (In JSON it is escaped.)
fn storable(text: Option<&str>) -> Option<String> {
    text.map(|text| {
        if is_storable(text) {
            text.to_owned()
        } else {
            text.replace('\0', "\u{FFFD}")
        }
    })
}
