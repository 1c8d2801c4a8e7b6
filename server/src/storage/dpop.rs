//! Proofs of possession that were used: a program's (RFC 9449, section 11.1) and a browser's (DBSC). Must not know what
//! they prove.

use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;

statements! {
    CONSUME_PROOF = "INSERT INTO dpop_proofs (id, expires_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    DELETE_EXPIRED_PROOFS = "DELETE FROM dpop_proofs WHERE id IN \
        (SELECT p.id FROM dpop_proofs p WHERE p.expires_at <= $1 ORDER BY p.expires_at LIMIT $2)";
}

/// Uses up a proof, to be remembered until nobody would accept it any more. Whether it was new: of many at once, on
/// whatever node, one succeeds.
///
/// # Errors
/// When the database fails.
pub async fn consume_proof(tx: &mut Tx, id: &[u8; 32], until: Timestamp) -> Result<bool, StorageError> {
    let inserted = on_backend!(tx, |connection| sqlx::query(CONSUME_PROOF)
        .bind(id.as_slice())
        .bind(until.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(inserted == 1)
}

/// Forgets at most `limit` proofs that nobody accepts any more. How many.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired_proofs(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(DELETE_EXPIRED_PROOFS)
        .bind(now.as_millis())
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}
