//! After a restored backup: what makes everything harmless that was handed out since. Each statement goes over a whole
//! table. Must not know why, nor in which order.

use std::time::Duration;

use uuid::Uuid;

use super::columns::Table;
use super::users::revoke_all_before;
use super::{Connection, Inner, StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::{DeviceId, SessionId, UserId};
use crate::domain::session::EndReason;

/// The time limit is one for requests that somebody waits for. Of PostgreSQL alone, for this transaction.
const WITHOUT_HURRY: &str = "SET LOCAL statement_timeout = 0";

statements! {
    LAST_WRITTEN = "SELECT MAX(at) FROM audit_events";
    END_SOME = "UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE id IN \
        (SELECT s.id FROM sessions s WHERE s.ended_at IS NULL LIMIT $3) RETURNING id, user_id, device_id";
    RAISE_AUTH_EPOCHS = "UPDATE users SET auth_epoch = auth_epoch + 1";
    DELETE_FLOWS = "DELETE FROM flows";
    VOID_ALL_LINKS = "DELETE FROM one_time_links WHERE used_at IS NULL";
    DROP_ALL_TRUST = "UPDATE devices SET trusted_until = NULL WHERE trusted_until IS NOT NULL";
    USE_UP_STEPS = "UPDATE authenticators SET last_step = $1 WHERE last_step < $1";
    RAISE_AUTH_EPOCH = "UPDATE users SET auth_epoch = auth_epoch + 1 WHERE id = $1";
    NEWEST_SECRETS = "SELECT id, secret_sealed FROM sessions ORDER BY id DESC LIMIT $1";
    SKIP_CURSORS = "UPDATE revocation_cursor SET last = last + $1 WHERE one = 1";
}

/// Takes the time limit off the statements of this transaction.
///
/// # Errors
/// When the database fails.
pub async fn take_time(tx: &mut Tx) -> Result<(), StorageError> {
    if let Connection::Postgres(connection) = tx.connection() {
        sqlx::raw_sql(WITHOUT_HURRY).execute(connection).await?;
    }
    if let Inner::PostgresRead(lent) | Inner::PostgresWrite(lent) = &mut tx.inner {
        lent.longest_wait = Duration::MAX;
    }
    Ok(())
}

/// When the newest event happened that this database knows of; none in an empty one.
///
/// # Errors
/// When the database fails.
pub async fn last_written(tx: &mut Tx) -> Result<Option<Timestamp>, StorageError> {
    let at: Option<i64> = on_backend!(tx, |connection| sqlx::query_scalar(LAST_WRITTEN)
        .fetch_one(connection)
        .await)?;
    Ok(at.map(Timestamp::from_millis))
}

/// The sealed secrets of the sessions that began last, whether they live or not.
///
/// # Errors
/// When the database fails.
pub async fn newest_secrets(tx: &mut Tx, limit: u32) -> Result<Vec<(SessionId, Vec<u8>)>, StorageError> {
    let rows: Vec<(Uuid, Vec<u8>)> = on_backend!(tx, |connection| sqlx::query_as(NEWEST_SECRETS)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    Ok(rows.into_iter().map(|(id, sealed)| (SessionId(id), sealed)).collect())
}

/// A session that was ended: whose, and on which device.
pub type Ended = (SessionId, UserId, Option<DeviceId>);

/// Ends at most `limit` living sessions of anybody because the database went back in time. Other services do not hear
/// of each: the caller removes the keys that signed their tokens.
///
/// # Errors
/// When the database fails.
pub async fn end_some_sessions(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<Ended>, StorageError> {
    let rows: Vec<(Uuid, Uuid, Option<Uuid>)> = on_backend!(tx, |connection| sqlx::query_as(END_SOME)
        .bind(now.as_millis())
        .bind(EndReason::DatabaseRolledBack.as_str())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    Ok(rows
        .into_iter()
        .map(|(session, user, device)| (SessionId(session), UserId(user), device.map(DeviceId)))
        .collect())
}

/// Raises everybody's auth epoch: a sign-in that is under way cannot be finished. The caller removes the keys that
/// signed their tokens. How many people.
///
/// # Errors
/// When the database fails.
pub async fn raise_auth_epochs(tx: &mut Tx) -> Result<u64, StorageError> {
    count(tx, RAISE_AUTH_EPOCHS).await
}

/// Forgets every sign-in under way. How many.
///
/// # Errors
/// When the database fails.
pub async fn delete_flows(tx: &mut Tx) -> Result<u64, StorageError> {
    count(tx, DELETE_FLOWS).await
}

/// Voids every single-use link that was not used yet. How many.
///
/// # Errors
/// When the database fails.
pub async fn void_all_links(tx: &mut Tx) -> Result<u64, StorageError> {
    count(tx, VOID_ALL_LINKS).await
}

/// Trusts no device any longer. How many were trusted.
///
/// # Errors
/// When the database fails.
pub async fn drop_all_trust(tx: &mut Tx) -> Result<u64, StorageError> {
    count(tx, DROP_ALL_TRUST).await
}

async fn count(tx: &mut Tx, statement: &'static str) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(statement)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}

/// Lets no authenticator's code of this time step or an earlier one be accepted (again).
///
/// # Errors
/// When the database fails.
pub async fn use_up_steps(tx: &mut Tx, step: i64) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(USE_UP_STEPS)
        .bind(step)
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Ends whatever the person's sessions are. For when it is no longer known which ones were to end.
///
/// # Errors
/// When the database fails.
pub async fn raise_auth_epoch(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<(), StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(RAISE_AUTH_EPOCH)
        .bind(user.0)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 1 {
        revoke_all_before(tx, user, now);
    }
    Ok(())
}

/// Leaves so many numbers of revocations out: no number that anybody was given is given again. The row stays locked
/// until the commit, so let this be the last act.
///
/// # Errors
/// When the database fails.
pub async fn skip_cursors(tx: &mut Tx, numbers: u64) -> Result<(), StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(SKIP_CURSORS)
        .bind(super::columns::bigint(numbers))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Table("revocation_cursor").impossible("one"))
    }
}
