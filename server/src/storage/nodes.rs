//! Which processes serve this database, and how far each one's clock is ahead of the database's.

use std::time::Duration;

use sqlx::PgConnection;
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::columns::Table;
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::NodeId;

/// A report as old as this is of a node that is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(35);

statements! {
    REPORT = "INSERT INTO nodes (id, ahead_ms, seen_at) VALUES ($1, $2, $3) \
        ON CONFLICT (id) DO UPDATE SET ahead_ms = excluded.ahead_ms, seen_at = excluded.seen_at";
    LIST_OTHERS = "SELECT ahead_ms FROM nodes WHERE id <> $1 AND seen_at >= $2 AND seen_at <= $3";
    COUNT_BETWEEN = "SELECT COUNT(*) FROM nodes WHERE seen_at >= $1 AND seen_at <= $2";
    FORGET = "DELETE FROM nodes WHERE id = $1";
    FORGET_OLD = "DELETE FROM nodes WHERE seen_at < $1";
}

statements! {
    @SQLITE_STATEMENTS
    NOW_ON_SQLITE = "SELECT CAST(CURRENT_TIMESTAMP AS TEXT)";
}

statements! {
    @POSTGRES_STATEMENTS
    // In UTC as the other one, with a fraction and the difference to UTC; not of when the transaction began, since when others
    // may have reported.
    NOW_ON_POSTGRES = "SELECT CAST(clock_timestamp() AS TEXT)";
    COUNT_OTHER_CONNECTIONS = "SELECT COUNT(*) FROM pg_stat_activity \
        WHERE application_name = 'mayfly' AND datname = current_database() AND pid <> pg_backend_pid()";
}

/// Other connections of this program to the same database, in whatever process.
///
/// # Errors
/// When the database fails.
pub(super) async fn count_other_connections(connection: &mut PgConnection) -> Result<i64, StorageError> {
    Ok(sqlx::query_scalar(COUNT_OTHER_CONNECTIONS)
        .fetch_one(connection)
        .await?)
}

/// What the database's clock shows, to the second.
///
/// # Errors
/// When the database fails.
pub async fn database_time(tx: &mut Tx) -> Result<Timestamp, StorageError> {
    let sql = tx.in_words_of(NOW_ON_SQLITE, NOW_ON_POSTGRES);
    let text: String = on_backend!(tx, |connection| sqlx::query_scalar(sql).fetch_one(connection).await)?;
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let (seconds, rest) = text.split_at_checked(19).unwrap_or((&text, "?"));
    // "+02" would be another time; the driver asks for UTC.
    let is_utc = rest.is_empty() || rest.ends_with("+00");
    let time = PrimitiveDateTime::parse(seconds, format).ok().filter(|_| is_utc);
    let time = time.ok_or_else(|| Table("nodes").impossible("CURRENT_TIMESTAMP"))?;
    Ok(Timestamp::from_seconds(time.assume_utc().unix_timestamp()))
}

/// This node is there, by the database's clock.
///
/// # Errors
/// When the database fails.
pub async fn report_node(tx: &mut Tx, id: NodeId, ahead_ms: i64, seen_at: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(REPORT)
        .bind(id.0)
        .bind(ahead_ms)
        .bind(seen_at.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// How far the clocks of the other nodes are ahead of the database's, in milliseconds: of those that reported between two
/// moments of its clock.
///
/// # Errors
/// When the database fails.
pub async fn list_other_clocks(
    tx: &mut Tx,
    id: NodeId,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<i64>, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(LIST_OTHERS)
        .bind(id.0)
        .bind(from.as_millis())
        .bind(until.as_millis())
        .fetch_all(connection)
        .await)?)
}

/// Whether any node has reported of late by the database's clock.
///
/// # Errors
/// When the database fails.
pub async fn is_anybody_there(tx: &mut Tx) -> Result<bool, StorageError> {
    let now = database_time(tx).await?;
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_BETWEEN)
        .bind(now.minus(GONE_AFTER).as_millis())
        .bind(now.plus(GONE_AFTER).as_millis())
        .fetch_one(connection)
        .await)?;
    Ok(count > 0)
}

/// A node stopped.
///
/// # Errors
/// When the database fails.
pub async fn forget_node(tx: &mut Tx, id: NodeId) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(FORGET)
        .bind(id.0)
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Nodes that did not stop in order, and were last seen before a moment of the database's clock.
///
/// # Errors
/// When the database fails.
pub async fn forget_old_nodes(tx: &mut Tx, before: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(FORGET_OLD)
        .bind(before.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}
