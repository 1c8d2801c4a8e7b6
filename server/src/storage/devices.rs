//! Devices: browsers and programs that a person signed in from, and how long each is trusted.

use uuid::Uuid;

use super::columns::{Table, millis};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::{DeviceId, UserId};

statements! {
    INSERT_DEVICE = "INSERT INTO devices (id, user_id, secret_hash, created_at, last_seen_at, trusted_until) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    FIND_DEVICE = "SELECT id, user_id, secret_hash, created_at, last_seen_at, trusted_until FROM devices WHERE id = $1";
    TOUCH_DEVICE = "UPDATE devices SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2";
    RENEW_DEVICE = "UPDATE devices SET secret_hash = $2, last_seen_at = $3 WHERE id = $1";
    TRUST_DEVICE = "UPDATE devices SET trusted_until = $2 WHERE id = $1";
    DROP_TRUST = "UPDATE devices SET trusted_until = NULL WHERE id = $1 AND trusted_until IS NOT NULL";
    DROP_TRUST_OF_USER = "UPDATE devices SET trusted_until = NULL WHERE user_id = $1 AND trusted_until IS NOT NULL";
}

/// A device that was seen before.
#[derive(Clone)]
pub struct Device {
    /// Stands in its cookie.
    pub id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// SHA-256 of the secret in its cookie.
    pub secret_hash: [u8; 32],
    /// First seen.
    pub created_at: Timestamp,
    /// Last sign-in or step-up from here.
    pub last_seen_at: Timestamp,
    /// A new sign-in from here may leave out the second factor until then.
    pub trusted_until: Option<Timestamp>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct DeviceRow {
    id: Uuid,
    user_id: Uuid,
    secret_hash: Vec<u8>,
    created_at: i64,
    last_seen_at: i64,
    trusted_until: Option<i64>,
}

impl TryFrom<DeviceRow> for Device {
    type Error = StorageError;

    fn try_from(row: DeviceRow) -> Result<Self, StorageError> {
        Ok(Self {
            id: DeviceId(row.id),
            user_id: UserId(row.user_id),
            secret_hash: Table("devices").hash("secret_hash", &row.secret_hash)?,
            created_at: Timestamp::from_millis(row.created_at),
            last_seen_at: Timestamp::from_millis(row.last_seen_at),
            trusted_until: row.trusted_until.map(Timestamp::from_millis),
        })
    }
}

/// Remembers a device.
///
/// # Errors
/// When the database fails.
pub async fn insert_device(tx: &mut Tx, device: &Device) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(INSERT_DEVICE)
        .bind(device.id.0)
        .bind(device.user_id.0)
        .bind(device.secret_hash.as_slice())
        .bind(device.created_at.as_millis())
        .bind(device.last_seen_at.as_millis())
        .bind(millis(device.trusted_until))
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// The device with this id. The caller compares the secret.
///
/// # Errors
/// When the database fails.
pub async fn find_device(tx: &mut Tx, id: DeviceId) -> Result<Option<Device>, StorageError> {
    let row: Option<DeviceRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_DEVICE)
        .bind(id.0)
        .fetch_optional(connection)
        .await)?;
    row.map(Device::try_from).transpose()
}

/// It was seen again. Whether that is news: the time only moves forward.
///
/// # Errors
/// When the database fails.
pub async fn touch_device(tx: &mut Tx, id: DeviceId, now: Timestamp) -> Result<bool, StorageError> {
    change(tx, TOUCH_DEVICE, id, now).await
}

/// Gives the device a new secret at a sign-in from it; the old one is worth nothing any more. Whether it exists.
///
/// # Errors
/// When the database fails.
pub async fn renew_device(
    tx: &mut Tx,
    id: DeviceId,
    secret_hash: &[u8; 32],
    now: Timestamp,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(RENEW_DEVICE)
        .bind(id.0)
        .bind(secret_hash.as_slice())
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Trusts the device until then. Whether it exists.
///
/// # Errors
/// When the database fails.
pub async fn trust_device(tx: &mut Tx, id: DeviceId, until: Timestamp) -> Result<bool, StorageError> {
    change(tx, TRUST_DEVICE, id, until).await
}

async fn change(tx: &mut Tx, statement: &'static str, id: DeviceId, at: Timestamp) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(statement)
        .bind(id.0)
        .bind(at.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Trusts the device no longer. Whether it was trusted.
///
/// # Errors
/// When the database fails.
pub async fn drop_trust(tx: &mut Tx, id: DeviceId) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(DROP_TRUST)
        .bind(id.0)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Trusts none of the person's devices any longer. How many were trusted.
///
/// # Errors
/// When the database fails.
pub async fn drop_trust_of_user(tx: &mut Tx, user: UserId) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(DROP_TRUST_OF_USER)
        .bind(user.0)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}
