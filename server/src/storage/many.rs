//! Many ids or rows as one parameter: a JSON text, which each database takes apart in its own words. So a statement is the same,
//! and prepared once, however many there are. Must not know any table.

use serde::Serialize;
use uuid::Uuid;

use super::{StorageError, Tx, on_backend};

/// The condition behind a column that it is one of [`ids`], for SQLite.
macro_rules! in_ids_on_sqlite {
    ($parameter:literal) => {
        concat!("IN (SELECT unhex(value) FROM json_each(", $parameter, "))")
    };
}

/// The same for PostgreSQL: an array made beforehand, so that each is looked up by the column's index.
macro_rules! in_ids_on_postgres {
    ($parameter:literal) => {
        concat!(
            "= ANY (ARRAY(SELECT json_array_elements_text(",
            $parameter,
            "::json)::uuid))"
        )
    };
}
pub(super) use {in_ids_on_postgres, in_ids_on_sqlite};

/// A JSON array of ids in hexadecimal.
pub(super) fn ids(ids: impl IntoIterator<Item = Uuid>) -> String {
    json(&ids.into_iter().map(Uuid::simple).collect::<Vec<_>>())
}

/// The text of what consists of texts, numbers, lists and named members.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("nothing in it can fail")
}

/// Carries out a statement that writes what one such text says.
pub(super) async fn write_many(tx: &mut Tx, sql: &'static str, json: String) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(sql)
        .bind(json)
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}
