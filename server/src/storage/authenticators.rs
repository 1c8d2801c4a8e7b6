//! Second factors: authenticator apps and recovery codes. Must not know how codes are computed or sealed.

use super::columns::Table;
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::UserId;

statements! {
    FIND_AUTHENTICATOR = "SELECT secret_sealed, last_step, created_at FROM authenticators WHERE user_id = $1";
    PUT_AUTHENTICATOR = "INSERT INTO authenticators (user_id, secret_sealed, last_step, created_at) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (user_id) DO UPDATE SET secret_sealed = excluded.secret_sealed, \
        last_step = excluded.last_step, created_at = excluded.created_at";
    ACCEPT_STEP = "UPDATE authenticators SET last_step = $2 WHERE user_id = $1 AND last_step < $2";
    DELETE_AUTHENTICATOR = "DELETE FROM authenticators WHERE user_id = $1";
    DELETE_RECOVERY_CODES = "DELETE FROM recovery_codes WHERE user_id = $1";
    INSERT_RECOVERY_CODE = "INSERT INTO recovery_codes (user_id, code_hash, created_at) VALUES ($1, $2, $3)";
    CONSUME_RECOVERY_CODE = "UPDATE recovery_codes SET used_at = $3 \
        WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL";
    COUNT_RECOVERY_CODES = "SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL";
}

/// A person's authenticator app.
#[derive(Clone)]
pub struct Authenticator {
    /// TOTP secret, sealed with the key-encryption key.
    pub secret_sealed: Vec<u8>,
    /// Last accepted time step; only a greater one is accepted.
    pub last_step: i64,
    /// Set up at.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator")
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

/// The person's authenticator, if one is set up.
///
/// # Errors
/// When the database fails.
pub async fn find_authenticator(tx: &mut Tx, user: UserId) -> Result<Option<Authenticator>, StorageError> {
    let row: Option<(Vec<u8>, i64, i64)> = on_backend!(tx, |connection| sqlx::query_as(FIND_AUTHENTICATOR)
        .bind(user.0)
        .fetch_optional(connection)
        .await)?;
    Ok(row.map(|(secret_sealed, last_step, created_at)| Authenticator {
        secret_sealed,
        last_step,
        created_at: Timestamp::from_millis(created_at),
    }))
}

/// Sets up or replaces the authenticator.
///
/// # Errors
/// When the database fails.
pub async fn put_authenticator(
    tx: &mut Tx,
    user: UserId,
    secret_sealed: &[u8],
    last_step: i64,
    now: Timestamp,
) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(PUT_AUTHENTICATOR)
        .bind(user.0)
        .bind(secret_sealed)
        .bind(last_step)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Uses up a time step. Whether it was still unused: a code is good for one success, however many try at once (F36).
///
/// # Errors
/// When the database fails.
pub async fn accept_step(tx: &mut Tx, user: UserId, step: i64) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(ACCEPT_STEP)
        .bind(user.0)
        .bind(step)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Removes the authenticator. Whether there was one.
///
/// # Errors
/// When the database fails.
pub async fn delete_authenticator(tx: &mut Tx, user: UserId) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(DELETE_AUTHENTICATOR)
        .bind(user.0)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Replaces all recovery codes; none of the old ones counts any more. An empty list removes them.
///
/// # Errors
/// When the database fails.
pub async fn replace_recovery_codes(
    tx: &mut Tx,
    user: UserId,
    hashes: &[[u8; 32]],
    now: Timestamp,
) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(DELETE_RECOVERY_CODES)
        .bind(user.0)
        .execute(connection)
        .await
        .map(drop))?;
    for hash in hashes {
        on_backend!(tx, |connection| sqlx::query(INSERT_RECOVERY_CODE)
            .bind(user.0)
            .bind(hash.as_slice())
            .bind(now.as_millis())
            .execute(connection)
            .await
            .map(drop))?;
    }
    Ok(())
}

/// Uses up a recovery code. Whether it was one and still unused (F40).
///
/// # Errors
/// When the database fails.
pub async fn consume_recovery_code(
    tx: &mut Tx,
    user: UserId,
    hash: &[u8; 32],
    now: Timestamp,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(CONSUME_RECOVERY_CODE)
        .bind(user.0)
        .bind(hash.as_slice())
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Unused recovery codes.
///
/// # Errors
/// When the database fails.
pub async fn count_recovery_codes(tx: &mut Tx, user: UserId) -> Result<u32, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_RECOVERY_CODES)
        .bind(user.0)
        .fetch_one(connection)
        .await)?;
    Table("recovery_codes").small("count", count)
}
