//! Roles, who holds them, and the locks under which the last administrator cannot be lost.

use uuid::Uuid;

use super::super::columns::{Table, is_storable};
use super::super::sessions;
use super::super::{StorageError, Tx, on_backend, statements};
use super::{UserRow, user_columns};
use crate::domain::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::user::User;

const TABLE: Table = Table("roles");

statements! {
    INSERT_USER_ROLE = "INSERT INTO user_roles (user_id, role) VALUES ($1, $2)";
    DELETE_USER_ROLES = "DELETE FROM user_roles WHERE user_id = $1";
    RAISE_GRANT_EPOCH = "UPDATE users SET grant_epoch = grant_epoch + 1 WHERE id = $1";
    LIST_ROLES = "SELECT r.name, r.description, COUNT(ur.user_id) AS people FROM roles r \
        LEFT JOIN user_roles ur ON ur.role = r.name GROUP BY r.name, r.description ORDER BY r.name";
    INSERT_ROLE = "INSERT INTO roles (name, description, created_at) VALUES ($1, $2, $3)";
    COUNT_ACTIVE_ADMINS = "SELECT COUNT(*) FROM users u JOIN user_roles ur ON ur.user_id = u.id \
        WHERE ur.role = 'admin' AND u.status = 'active'";
    OTHER_ACTIVE_ADMINS = "SELECT COUNT(*) FROM users u JOIN user_roles ur ON ur.user_id = u.id \
        WHERE ur.role = 'admin' AND u.status = 'active' AND u.id <> $1";
    LOCK = "UPDATE locks SET name = name WHERE name = $1";
    LIST_HOLDERS = concat!("SELECT ", user_columns!(), ", \
        (SELECT COUNT(*) FROM authenticators a WHERE a.user_id = u.id) AS factors \
        FROM user_roles r JOIN users u ON u.id = r.user_id WHERE r.role = $1 AND r.user_id > $2 \
        ORDER BY r.user_id LIMIT $3");
}

/// A role and how many people hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRow {
    /// Stable name.
    pub name: String,
    /// For people.
    pub description: String,
    /// People who hold it, whatever their status.
    pub people: u32,
}

/// Gives roles to an account that has none.
pub(super) async fn insert_user_roles(tx: &mut Tx, user: UserId, roles: &[String]) -> Result<(), StorageError> {
    for role in roles {
        on_backend!(tx, |connection| sqlx::query(INSERT_USER_ROLE)
            .bind(user.0)
            .bind(role)
            .execute(connection)
            .await
            .map(drop))?;
    }
    Ok(())
}

/// Replaces the roles and raises the grant epoch and the smallest generation of every living session, so that access
/// tokens with the old roles are refused everywhere. Whether the account exists.
///
/// # Errors
/// An unknown reference if a role does not exist.
pub async fn set_roles(tx: &mut Tx, id: UserId, roles: &[String], now: Timestamp) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(RAISE_GRANT_EPOCH)
        .bind(id.0)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 0 {
        return Ok(false);
    }
    on_backend!(tx, |connection| sqlx::query(DELETE_USER_ROLES)
        .bind(id.0)
        .execute(connection)
        .await
        .map(drop))?;
    insert_user_roles(tx, id, roles).await?;
    sessions::refuse_generations_so_far(tx, id, now).await?;
    Ok(true)
}

/// All roles by name, with the people who hold them.
///
/// # Errors
/// When the database fails.
pub async fn list_roles(tx: &mut Tx) -> Result<Vec<RoleRow>, StorageError> {
    let rows: Vec<(String, String, i64)> =
        on_backend!(tx, |connection| sqlx::query_as(LIST_ROLES).fetch_all(connection).await)?;
    rows.into_iter()
        .map(|(name, description, people)| {
            Ok(RoleRow {
                name,
                description,
                people: TABLE.small("people", people)?,
            })
        })
        .collect()
}

/// Makes a role. Names are not empty and have no spaces.
///
/// # Errors
/// A unique violation if it exists.
pub async fn insert_role(tx: &mut Tx, name: &str, description: &str, now: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(INSERT_ROLE)
        .bind(name)
        .bind(description)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Administrators who can sign in.
///
/// # Errors
/// When the database fails.
pub async fn count_active_admins(tx: &mut Tx) -> Result<u32, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_ACTIVE_ADMINS)
        .fetch_one(connection)
        .await)?;
    TABLE.small("count", count)
}

/// Lets every other transaction that decides about administrators wait until this one is over, so that two who demote
/// each other do so one after the other (F56).
///
/// # Errors
/// When the database fails.
pub async fn lock_administrators(tx: &mut Tx) -> Result<(), StorageError> {
    lock(tx, "administrators").await
}

/// Lets every other process that makes the first keys and roles wait until this one is done.
///
/// # Errors
/// When the database fails.
pub async fn lock_bootstrap(tx: &mut Tx) -> Result<(), StorageError> {
    lock(tx, "bootstrap").await
}

async fn lock(tx: &mut Tx, name: &'static str) -> Result<(), StorageError> {
    let locked = on_backend!(tx, |connection| sqlx::query(LOCK)
        .bind(name)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if locked == 1 {
        Ok(())
    } else {
        Err(Table("locks").impossible("name"))
    }
}

/// Whether somebody else could still administer without this person. Takes [`lock_administrators`] itself: the second
/// of two who ask at once sees what the first one did. Needs a transaction of [`super::Store::write`].
///
/// # Errors
/// When the database fails.
pub async fn any_other_active_admin(tx: &mut Tx, excluding: UserId) -> Result<bool, StorageError> {
    lock_administrators(tx).await?;
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(OTHER_ACTIVE_ADMINS)
        .bind(excluding.0)
        .fetch_one(connection)
        .await)?;
    Ok(count > 0)
}

#[derive(sqlx::FromRow)]
struct HolderRow {
    #[sqlx(flatten)]
    user: UserRow,
    factors: i64,
}

/// Who holds the role, whatever their status, and whether they have a second factor; by id, beginning after `after`.
///
/// # Errors
/// When the database fails.
pub async fn list_holders(
    tx: &mut Tx,
    role: &str,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<(User, bool)>, StorageError> {
    if !is_storable(role) {
        return Ok(Vec::new());
    }
    let rows: Vec<HolderRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_HOLDERS)
        .bind(role)
        .bind(after.map_or(Uuid::nil(), |id| id.0))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter()
        .map(|row| Ok((row.user.try_into()?, row.factors > 0)))
        .collect()
}
