//! An event that is all its act writes down: one step for the database, and one for many such acts.

use serde_json::{Value, json};
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, PgConnection};
use uuid::Uuid;

use super::super::connect::Pools;
use super::super::sqlite::Sqlite;
use super::super::sqlite::whole::{Whole, whole};
use super::super::together::{AskPostgres, AskSqlite, Question};
use super::super::{StorageError, Store, statements};
use super::{add_event, add_events, json as text, storable, written_event_columns};
use crate::domain::audit::Event;

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
macro_rules! append_many {
    () => {
        append!(
            "SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), unhex(value ->> 5), \
             unhex(value ->> 6), unhex(value ->> 7), value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, \
             value ->> 13 FROM json_each($1)"
        )
    };
}

statements! {
    @SQLITE_STATEMENTS
    // As parts of the next two.
    APPEND_ONE = append_one!();
    APPEND_MANY = append_many!();
}

/// One row: it was written.
const ONE_ON_SQLITE: Whole = whole!(append_one!(), " RETURNING 1");
/// A row for each.
const MANY_ON_SQLITE: Whole = whole!(append_many!(), " RETURNING 1");

statements! {
    @POSTGRES_STATEMENTS
    // Each value is an array with one for each event. Asked once more after it was written, it is not written again.
    ON_POSTGRES = append!(
        "SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], \
         $7::uuid[], $8::uuid[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[]) \
         ON CONFLICT (id) DO NOTHING"
    );
}

/// Adds an event as a transaction of its own, durable when this returns; for acts that write nothing else.
///
/// # Errors
/// When the database fails or does not answer in time: then whether it was written is unknown.
pub async fn append_alone(store: &Store, event: Event) -> Result<(), StorageError> {
    fail::fail_point!("commit::before", |_| Err(StorageError::Abandoned));
    match &store.pools {
        Pools::Sqlite { together, .. } => together.events.ask(Alone(event)).await?,
        Pools::Postgres { together, .. } => together.events.ask(Alone(event)).await?,
    }
    fail::fail_point!("commit::after", |_| Err(StorageError::Together(std::sync::Arc::new(
        sqlx::Error::WorkerCrashed
    ))));
    Ok(())
}

/// An event that somebody wants to have written down.
pub(in crate::storage) struct Alone(Event);

impl Question for Alone {
    type Answer = ();
}

impl AskPostgres for Alone {
    async fn ask(connection: &mut PgConnection, asked: &[Self]) -> Result<Vec<()>, sqlx::Error> {
        let mut arguments = PgArguments::default();
        let events: Vec<&Event> = asked.iter().map(|alone| &alone.0).collect();
        add_events(&mut arguments, &events).map_err(sqlx::Error::Encode)?;
        sqlx::query_with(ON_POSTGRES, arguments).execute(connection).await?;
        Ok(vec![(); asked.len()])
    }
}

impl AskSqlite for Alone {
    async fn ask(sqlite: &Sqlite, asked: &[Self]) -> Result<Vec<()>, StorageError> {
        let mut arguments = SqliteArguments::default();
        let whole = if let [Self(event)] = asked {
            add_event(&mut arguments, event).map_err(sqlx::Error::Encode)?;
            &ONE_ON_SQLITE
        } else {
            let events: Value = asked.iter().map(|alone| values(&alone.0)).collect();
            arguments.add(events.to_string()).map_err(sqlx::Error::Encode)?;
            &MANY_ON_SQLITE
        };
        sqlite.write_whole(whole, arguments).await?;
        Ok(vec![(); asked.len()])
    }
}

/// The values of an event in the order of [`written_event_columns`].
fn values(event: &Event) -> Value {
    let id = |id: Option<Uuid>| id.map(|id| id.simple().to_string());
    json!([
        id(Some(event.id.0)),
        event.at.as_millis(),
        event.kind.as_str(),
        event.outcome.as_str(),
        id(event.actor_id.map(|id| id.0)),
        id(event.subject_id.map(|id| id.0)),
        id(event.session_id.map(|id| id.0)),
        id(event.device_id.map(|id| id.0)),
        storable(event.address.as_deref()),
        storable(event.user_agent.as_deref()),
        storable(event.request_id.as_deref()),
        storable(event.reason.as_deref()),
        text(&event.facts),
        text(&event.changes),
    ])
}
