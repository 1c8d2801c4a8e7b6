//! State before or beside a sign-in: ids only as hashes, data only sealed. Must not know what is inside.

use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;

statements! {
    INSERT_FLOW = "INSERT INTO flows (id_hash, data_sealed, expires_at) VALUES ($1, $2, $3) \
        ON CONFLICT (id_hash) DO NOTHING";
    UPDATE_FLOW = "UPDATE flows SET data_sealed = $2, expires_at = $3 WHERE id_hash = $1";
    FIND_FLOW = "SELECT data_sealed FROM flows WHERE id_hash = $1 AND expires_at > $2";
    DELETE_FLOW = "DELETE FROM flows WHERE id_hash = $1";
    DELETE_EXPIRED_FLOWS = "DELETE FROM flows WHERE id_hash IN \
        (SELECT f.id_hash FROM flows f WHERE f.expires_at <= $1 ORDER BY f.expires_at LIMIT $2)";
}

/// Keeps a new flow. `false` if that id is taken: draw another.
///
/// # Errors
/// When the database fails.
pub async fn insert_flow(
    tx: &mut Tx,
    id_hash: &[u8; 32],
    data_sealed: &[u8],
    expires_at: Timestamp,
) -> Result<bool, StorageError> {
    write(tx, INSERT_FLOW, id_hash, data_sealed, expires_at).await
}

/// Keeps the new state of a flow. `false` if it is gone: what was deleted is never brought back.
///
/// # Errors
/// When the database fails.
pub async fn update_flow(
    tx: &mut Tx,
    id_hash: &[u8; 32],
    data_sealed: &[u8],
    expires_at: Timestamp,
) -> Result<bool, StorageError> {
    write(tx, UPDATE_FLOW, id_hash, data_sealed, expires_at).await
}

async fn write(
    tx: &mut Tx,
    statement: &'static str,
    id_hash: &[u8; 32],
    data_sealed: &[u8],
    expires_at: Timestamp,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(statement)
        .bind(id_hash.as_slice())
        .bind(data_sealed)
        .bind(expires_at.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// The sealed state, unless it has expired.
///
/// # Errors
/// When the database fails.
pub async fn find_flow(tx: &mut Tx, id_hash: &[u8; 32], now: Timestamp) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(FIND_FLOW)
        .bind(id_hash.as_slice())
        .bind(now.as_millis())
        .fetch_optional(connection)
        .await)?)
}

/// Forgets a flow. Whether there was one.
///
/// # Errors
/// When the database fails.
pub async fn delete_flow(tx: &mut Tx, id_hash: &[u8; 32]) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(DELETE_FLOW)
        .bind(id_hash.as_slice())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Forgets at most `limit` expired flows. How many.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired_flows(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(DELETE_EXPIRED_FLOWS)
        .bind(now.as_millis())
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}
