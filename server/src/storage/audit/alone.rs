//! An event that is all its act writes down: one step for the database, and one for many such acts.

use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, PgConnection};

use super::super::changes::Counted;
use super::super::connect::Pools;
use super::super::sqlite::Sqlite;
use super::super::sqlite::whole::{Whole, whole};
use super::super::together::{AskPostgres, AskSqlite, Question};
use super::super::{StorageError, Store, statements};
use super::append::{
    add_event, add_events, append, append_arrays, append_events, append_json, append_one, as_json,
    written_event_columns,
};
use crate::domain::audit::Event;
use crate::domain::notice::is_noticed;

/// One row: it was written.
const ONE_ON_SQLITE: Whole = whole!(append_one!(), " RETURNING 1");
/// A row for each.
const MANY_ON_SQLITE: Whole = whole!(append_json!(), " RETURNING 1");

statements! {
    @POSTGRES_STATEMENTS
    // Asked once more after it was written, it is not written again.
    APPEND_ARRAYS_ONCE = concat!(append_arrays!(), " ON CONFLICT (id) DO NOTHING");
}

/// Adds an event as a transaction of its own, durable when this returns; for acts that write nothing else.
///
/// # Errors
/// When the database fails or does not answer in time: then whether it was written is unknown.
pub async fn append_alone(store: &Store, event: Event) -> Result<(), StorageError> {
    if is_noticed(&event) {
        let mut tx = store.write().await?;
        append_events(&mut tx, &[event]).await?;
        return tx.commit().await;
    }
    fail::fail_point!("commit::before", |_| Err(StorageError::Abandoned));
    let counted = Counted::from(&event);
    match &store.pools {
        Pools::Sqlite { together, .. } => together.events.ask(Alone(event)).await?,
        Pools::Postgres { together, .. } => together.events.ask(Alone(event)).await?,
    }
    store.changes.recorded(&[counted]);
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
        sqlx::query_with(APPEND_ARRAYS_ONCE, arguments)
            .execute(connection)
            .await?;
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
            let events: Vec<&Event> = asked.iter().map(|alone| &alone.0).collect();
            arguments.add(as_json(&events)).map_err(sqlx::Error::Encode)?;
            &MANY_ON_SQLITE
        };
        sqlite.write_whole(whole, arguments).await?;
        Ok(vec![(); asked.len()])
    }
}
