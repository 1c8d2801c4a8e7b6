//! The stored key ring. Private parts come and go sealed; must not know how they are opened.

use super::columns::{Table, millis};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::keys::{KeyPurpose, KeyRecord, KeyState, Version};
use crate::domain::revocation::{Target, all_expired_at};

const TABLE: Table = Table("keys");

statements! {
    INSERT_KEY = "INSERT INTO keys (id, purpose, algorithm, state, private_sealed, public_jwk, created_at, \
        activated_at, retired_at, removed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    LIST_KEYS = "SELECT id, purpose, algorithm, state, private_sealed, public_jwk, created_at, activated_at, \
        retired_at, removed_at FROM keys ORDER BY created_at, id";
    KEYS_VERSION = "SELECT id, state FROM keys";
    SET_KEY_STATE = "UPDATE keys SET state = $3, private_sealed = $4, activated_at = $5, retired_at = $6, \
        removed_at = $7 WHERE id = $1 AND state = $2";
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: String,
    purpose: String,
    algorithm: String,
    state: String,
    private_sealed: Vec<u8>,
    public_jwk: Option<String>,
    created_at: i64,
    activated_at: Option<i64>,
    retired_at: Option<i64>,
    removed_at: Option<i64>,
}

impl TryFrom<KeyRow> for KeyRecord {
    type Error = StorageError;

    fn try_from(row: KeyRow) -> Result<Self, StorageError> {
        Ok(Self {
            purpose: row.purpose.parse().map_err(|_| TABLE.impossible("purpose"))?,
            algorithm: row.algorithm.parse().map_err(|_| TABLE.impossible("algorithm"))?,
            state: row.state.parse().map_err(|_| TABLE.impossible("state"))?,
            id: row.id,
            private_sealed: row.private_sealed,
            public_jwk: row.public_jwk,
            created_at: Timestamp::from_millis(row.created_at),
            activated_at: row.activated_at.map(Timestamp::from_millis),
            retired_at: row.retired_at.map(Timestamp::from_millis),
            removed_at: row.removed_at.map(Timestamp::from_millis),
        })
    }
}

/// Keeps a new key.
///
/// # Errors
/// A unique violation if there is a key of that id, or another active one of that purpose.
pub async fn insert_key(tx: &mut Tx, key: &KeyRecord) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(INSERT_KEY)
        .bind(&key.id)
        .bind(key.purpose.as_str())
        .bind(key.algorithm.as_str())
        .bind(key.state.as_str())
        .bind(&key.private_sealed)
        .bind(key.public_jwk.as_deref())
        .bind(key.created_at.as_millis())
        .bind(millis(key.activated_at))
        .bind(millis(key.retired_at))
        .bind(millis(key.removed_at))
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// All keys, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn list_keys(tx: &mut Tx) -> Result<Vec<KeyRecord>, StorageError> {
    let rows: Vec<KeyRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_KEYS).fetch_all(connection).await)?;
    rows.into_iter().map(KeyRecord::try_from).collect()
}

/// What [`crate::domain::keys::KeyRing::version`] is compared with. Empty: there are none yet.
///
/// # Errors
/// When the database fails.
pub async fn keys_version(tx: &mut Tx) -> Result<Version, StorageError> {
    let rows: Vec<(String, String)> = on_backend!(tx, |connection| sqlx::query_as(KEYS_VERSION)
        .fetch_all(connection)
        .await)?;
    Ok(rows.into_iter().collect())
}

/// Writes down that a key went from one state to the one it has now, with its dates and what is left of its private
/// part. Whether it still was in that state. Of a signing key that is removed everybody hears. Retire the active key before activating the next one.
///
/// # Errors
/// A unique violation if another key of that purpose is active.
pub async fn set_key_state(tx: &mut Tx, key: &KeyRecord, from: KeyState) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(SET_KEY_STATE)
        .bind(&key.id)
        .bind(from.as_str())
        .bind(key.state.as_str())
        .bind(&key.private_sealed)
        .bind(millis(key.activated_at))
        .bind(millis(key.retired_at))
        .bind(millis(key.removed_at))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 1
        && key.purpose == KeyPurpose::Signing
        && let Some(at) = key.removed_at
    {
        tx.revoke(Target::Key { id: key.id.clone() }, at, all_expired_at(at));
    }
    Ok(changed == 1)
}
