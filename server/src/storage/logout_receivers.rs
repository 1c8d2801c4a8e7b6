//! Services that are told when a session ends: where, and how far each was told. The endings themselves are the audit
//! log's, in the order of its seals, so nothing piles up while a service is away.

use super::columns::{Table, bigint, millis};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::backchannel_logout::{LogoutReceiver, LogoutUri};
use crate::domain::client::ClientId;
use crate::domain::clock::Timestamp;
use crate::domain::outage::Outage;

const TABLE: Table = Table("logout_receivers");

statements! {
    // At another address it may be well: it is tried at once, and told all that has waited. Whoever is telling it at the old
    // one holds nothing any more.
    PUT_RECEIVER = "INSERT INTO logout_receivers (client_id, uri, noted_seq, claimed_until, tries, created_at) \
        VALUES ($1, $2, $3, $4, 0, $4) ON CONFLICT (client_id) DO UPDATE SET uri = excluded.uri, \
        claimed_until = excluded.claimed_until, tries = 0, failing_since = NULL, retry_at = NULL, \
        failure = NULL";
    DELETE_RECEIVER = "DELETE FROM logout_receivers WHERE client_id = $1";
    FIND_URI = "SELECT uri FROM logout_receivers WHERE client_id = $1";
    LIST_RECEIVERS = "SELECT r.client_id, r.uri, r.noted_seq, r.claimed_until, r.tries, r.failing_since, r.retry_at, \
        r.failure FROM logout_receivers r JOIN clients c ON c.client_id = r.client_id \
        WHERE c.status = 'active' ORDER BY r.client_id";
    CLAIM = "UPDATE logout_receivers SET claimed_until = $4 \
        WHERE client_id = $1 AND noted_seq = $2 AND claimed_until = $3 \
        AND EXISTS (SELECT 1 FROM clients c WHERE c.client_id = $1 AND c.status = 'active')";
    RELEASE_ALL = "UPDATE logout_receivers SET claimed_until = $1 WHERE claimed_until > $1";
    // Whoever holds the claim; without one (nothing had to be told), whoever read the row last.
    SETTLE = "UPDATE logout_receivers SET noted_seq = $4, claimed_until = $5, tries = $6, failing_since = $7, \
        retry_at = $8, failure = $9 WHERE client_id = $1 AND noted_seq = $2 AND claimed_until = $3";
}

#[derive(sqlx::FromRow)]
struct Row {
    client_id: String,
    uri: String,
    noted_seq: i64,
    claimed_until: i64,
    tries: i64,
    failing_since: Option<i64>,
    retry_at: Option<i64>,
    failure: Option<String>,
}

impl TryFrom<Row> for LogoutReceiver {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let outage = TABLE.outage(row.tries, row.failing_since, row.retry_at, row.failure)?;
        let noted = TABLE.count("noted_seq", row.noted_seq)?;
        Ok(Self {
            client: ClientId::parse(&row.client_id).ok_or_else(|| TABLE.impossible("client_id"))?,
            uri: LogoutUri::parse(&row.uri).map_err(|_| TABLE.impossible("uri"))?,
            noted,
            looked_until: noted,
            claimed_until: Timestamp::from_millis(row.claimed_until),
            outage,
        })
    }
}

/// Has a client be told at this address: of what is sealed after this place, if it is new, and else of all that it was not
/// told yet.
///
/// # Errors
/// When the database fails.
pub async fn put_logout_receiver(
    tx: &mut Tx,
    client: &ClientId,
    uri: &LogoutUri,
    after: u64,
    now: Timestamp,
) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(PUT_RECEIVER)
        .bind(client.as_str())
        .bind(uri.as_str())
        .bind(bigint(after))
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Has a client be told nothing any more.
///
/// # Errors
/// When the database fails.
pub async fn delete_logout_receiver(tx: &mut Tx, client: &ClientId) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(DELETE_RECEIVER)
        .bind(client.as_str())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Where a client is told, if it is.
///
/// # Errors
/// When the database fails.
pub async fn find_logout_uri(tx: &mut Tx, client: &ClientId) -> Result<Option<LogoutUri>, StorageError> {
    let uri: Option<String> = on_backend!(tx, |connection| sqlx::query_scalar(FIND_URI)
        .bind(client.as_str())
        .fetch_optional(connection)
        .await)?;
    uri.map(|uri| LogoutUri::parse(&uri).map_err(|_| TABLE.impossible("uri")))
        .transpose()
}

/// All that are told: operators add a handful. Those of disabled clients are not among them.
///
/// # Errors
/// When the database fails.
pub async fn list_logout_receivers(tx: &mut Tx) -> Result<Vec<LogoutReceiver>, StorageError> {
    let rows: Vec<Row> = on_backend!(tx, |connection| sqlx::query_as(LIST_RECEIVERS)
        .fetch_all(connection)
        .await)?;
    rows.into_iter().map(LogoutReceiver::try_from).collect()
}

/// Takes it upon this node to tell it what comes next, until then. Whether it is still as it was read, and not disabled:
/// of several nodes, one succeeds.
///
/// # Errors
/// When the database fails.
pub async fn claim_logout_receiver(tx: &mut Tx, read: &LogoutReceiver, until: Timestamp) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(CLAIM)
        .bind(read.client.as_str())
        .bind(bigint(read.noted))
        .bind(read.claimed_until.as_millis())
        .bind(until.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Nobody is telling any of them: for the start of a node that has no others.
///
/// # Errors
/// When the database fails.
pub async fn release_logout_receivers(tx: &mut Tx, now: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(RELEASE_ALL)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Writes down how far it was told and how it is, and lets go of it. Whether it is still as it was read or claimed.
///
/// # Errors
/// When the database fails.
pub async fn settle_logout_receiver(
    tx: &mut Tx,
    held: &LogoutReceiver,
    noted: u64,
    outage: Option<&Outage>,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(SETTLE)
        .bind(held.client.as_str())
        .bind(bigint(held.noted))
        .bind(held.claimed_until.as_millis())
        .bind(bigint(noted))
        .bind(now.as_millis())
        .bind(outage.map_or(0, |outage| i64::from(outage.tries)))
        .bind(millis(outage.map(|outage| outage.since)))
        .bind(millis(outage.map(|outage| outage.retry_at)))
        .bind(outage.map(|outage| outage.failure.as_str()))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
