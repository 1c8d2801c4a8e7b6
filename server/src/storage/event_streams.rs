//! How far each client has taken note of security events. The events themselves are the audit log's, in the order of
//! its seals: no event ever appears before one that was there already.

use super::columns::{Table, bigint};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::client::ClientId;
use crate::domain::clock::Timestamp;

const TABLE: Table = Table("event_streams");

statements! {
    FIND_STREAM = "SELECT noted_seq FROM event_streams WHERE client_id = $1";
    BEGIN_STREAM = "INSERT INTO event_streams (client_id, noted_seq, created_at) VALUES ($1, $2, $3) \
        ON CONFLICT (client_id) DO NOTHING";
    ADVANCE_STREAM = "UPDATE event_streams SET noted_seq = $3 WHERE client_id = $1 AND noted_seq = $2";
}

/// Place of the last event that a client has taken note of; none before it first asked.
///
/// # Errors
/// When the database fails.
pub async fn find_stream(tx: &mut Tx, client: &ClientId) -> Result<Option<u64>, StorageError> {
    let noted: Option<i64> = on_backend!(tx, |connection| sqlx::query_scalar(FIND_STREAM)
        .bind(client.as_str())
        .fetch_optional(connection)
        .await)?;
    noted.map(|noted| TABLE.count("noted_seq", noted)).transpose()
}

/// Begins after this place; one that has begun stays where it is.
///
/// # Errors
/// When the database fails.
pub async fn begin_stream(tx: &mut Tx, client: &ClientId, after: u64, now: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(BEGIN_STREAM)
        .bind(client.as_str())
        .bind(bigint(after))
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Goes on from one place to another, unless somebody else did.
///
/// # Errors
/// When the database fails.
pub async fn advance_stream(tx: &mut Tx, client: &ClientId, from: u64, to: u64) -> Result<bool, StorageError> {
    let done = on_backend!(tx, |connection| sqlx::query(ADVANCE_STREAM)
        .bind(client.as_str())
        .bind(bigint(from))
        .bind(bigint(to))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(done == 1)
}
