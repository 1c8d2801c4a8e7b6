//! Single-use links: the first administrator, invitations. Only hashes of their secrets are stored.

use uuid::Uuid;

use super::columns::Table;
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::{APART, Timestamp};
use crate::domain::id::UserId;

const TABLE: Table = Table("one_time_links");

statements! {
    INSERT_LINK = "INSERT INTO one_time_links (secret_hash, purpose, user_id, created_at, expires_at) \
        VALUES ($1, $2, $3, $4, $5)";
    VOID_LINKS = "DELETE FROM one_time_links \
        WHERE purpose = $1 AND user_id IS NOT DISTINCT FROM $2 AND used_at IS NULL";
    FIND_LINK = "SELECT secret_hash, purpose, user_id, created_at, expires_at FROM one_time_links \
        WHERE secret_hash = $1 AND used_at IS NULL AND expires_at > $2 AND created_at <= $3";
    CONSUME_LINK = "UPDATE one_time_links SET used_at = $2 \
        WHERE secret_hash = $1 AND used_at IS NULL AND expires_at > $2 AND created_at <= $3";
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// Makes the first administrator of a fresh server.
    FirstAdmin,
    /// Sets the first password of an account.
    Invitation,
}

impl LinkPurpose {
    /// The text in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstAdmin => "first_admin",
            Self::Invitation => "invitation",
        }
    }
}

/// A link that can still be used.
#[derive(Clone)]
pub struct Link {
    /// SHA-256 of the secret in the address.
    pub secret_hash: [u8; 32],
    /// What it is for.
    pub purpose: LinkPurpose,
    /// For whom; nobody yet for the first administrator.
    pub user_id: Option<UserId>,
    /// Made at.
    pub created_at: Timestamp,
    /// Dead from then on.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("purpose", &self.purpose)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

#[derive(sqlx::FromRow)]
struct LinkRow {
    secret_hash: Vec<u8>,
    purpose: String,
    user_id: Option<Uuid>,
    created_at: i64,
    expires_at: i64,
}

impl TryFrom<LinkRow> for Link {
    type Error = StorageError;

    fn try_from(row: LinkRow) -> Result<Self, StorageError> {
        let purposes = [LinkPurpose::FirstAdmin, LinkPurpose::Invitation];
        Ok(Self {
            secret_hash: TABLE.hash("secret_hash", &row.secret_hash)?,
            purpose: TABLE.word("purpose", &row.purpose, &purposes, LinkPurpose::as_str)?,
            user_id: row.user_id.map(UserId),
            created_at: Timestamp::from_millis(row.created_at),
            expires_at: Timestamp::from_millis(row.expires_at),
        })
    }
}

/// Keeps a new link. Void the older ones first: they are dead as soon as a newer one exists (M25).
///
/// # Errors
/// When the database fails.
pub async fn insert_link(tx: &mut Tx, link: &Link) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(INSERT_LINK)
        .bind(link.secret_hash.as_slice())
        .bind(link.purpose.as_str())
        .bind(link.user_id.map(|user| user.0))
        .bind(link.created_at.as_millis())
        .bind(link.expires_at.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Forgets all unused links of this purpose for this person. How many.
///
/// # Errors
/// When the database fails.
pub async fn void_links(tx: &mut Tx, purpose: LinkPurpose, user: Option<UserId>) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(VOID_LINKS)
        .bind(purpose.as_str())
        .bind(user.map(|user| user.0))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}

/// The link with this hash, if it is unused and has not expired, and was not made while the clock was ahead.
///
/// # Errors
/// When the database fails.
pub async fn find_link(tx: &mut Tx, hash: &[u8; 32], now: Timestamp) -> Result<Option<Link>, StorageError> {
    let row: Option<LinkRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_LINK)
        .bind(hash.as_slice())
        .bind(now.as_millis())
        .bind(now.plus(APART).as_millis())
        .fetch_optional(connection)
        .await)?;
    row.map(Link::try_from).transpose()
}

/// Uses up a link. Whether it was unused and had not expired: of many at once, one succeeds.
///
/// # Errors
/// When the database fails.
pub async fn consume_link(tx: &mut Tx, hash: &[u8; 32], now: Timestamp) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(CONSUME_LINK)
        .bind(hash.as_slice())
        .bind(now.as_millis())
        .bind(now.plus(APART).as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
