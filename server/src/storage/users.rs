//! Accounts, their roles, and the lists that administrators read. Must not know how passwords are hashed.

pub(super) mod roles;

use std::collections::HashMap;

use uuid::Uuid;

use super::columns::{Table, is_storable, millis};
use super::many::{self, in_ids_on_postgres, in_ids_on_sqlite};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::revocation::{Target, all_expired_at};
use crate::domain::user::{User, UserStatus, canonical};

pub use roles::{
    RoleRow, any_other_active_admin, count_active_admins, insert_role, list_holders, list_roles, lock_administrators,
    lock_bootstrap, set_roles,
};

const TABLE: Table = Table("users");

/// The columns of [`UserRow`], prefixed so that they can stand beside another table's.
macro_rules! user_columns {
    () => {
        "u.id AS u_id, u.username AS u_username, u.email AS u_email, u.display_name AS u_display_name, \
         u.status AS u_status, u.password_changed_at AS u_password_changed_at, u.auth_epoch AS u_auth_epoch, \
         u.grant_epoch AS u_grant_epoch, u.created_at AS u_created_at, \
         COALESCE((SELECT string_agg(ur.role, ' ') FROM user_roles ur WHERE ur.user_id = u.id), '') AS u_roles"
    };
}
pub(super) use user_columns;

statements! {
    INSERT_USER = "INSERT INTO users (id, username, username_canonical, email, email_canonical, display_name, status, \
        password_hash, password_changed_at, auth_epoch, grant_epoch, created_at, search_text) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    LOCK_USER = "UPDATE users SET auth_epoch = auth_epoch WHERE id = $1 AND auth_epoch = $2 AND grant_epoch = $3";
    FIND_USER = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1");
    FIND_USER_BY_IDENTIFIER = concat!("SELECT ", user_columns!(), " FROM users u \
        WHERE u.username_canonical = $1 OR u.email_canonical = $1");
    FIND_PASSWORD_HASH = "SELECT password_hash FROM users WHERE id = $1";
    UPDATE_PASSWORD = "UPDATE users SET password_hash = $2, password_changed_at = $3, auth_epoch = auth_epoch + $4 \
        WHERE id = $1";
    UPDATE_PASSWORD_HASH_ONLY = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    SET_STATUS = "UPDATE users SET status = $3, auth_epoch = auth_epoch + $4 WHERE id = $1 AND status = $2";
    SET_PROFILE = "UPDATE users SET username = $2, username_canonical = $3, email = $4, email_canonical = $5, \
        display_name = $6, search_text = $7 WHERE id = $1";
    COUNT_USERS = "SELECT COUNT(*) FROM users";
    LIST_PEOPLE = concat!("SELECT ", user_columns!(), ", \
        (SELECT COUNT(*) FROM authenticators a WHERE a.user_id = u.id) AS factors, \
        (SELECT COUNT(*) FROM sessions s WHERE s.user_id = u.id AND s.ended_at IS NULL) AS living_sessions, \
        (SELECT MAX(s.last_active_at) FROM sessions s WHERE (s.user_id = u.id AND s.ended_at IS NULL) \
        OR (s.user_id = u.id AND s.ended_at IS NOT NULL)) AS last_active_at \
        FROM users u WHERE u.username_canonical > $1 AND u.search_text LIKE $2 ESCAPE '!' \
        ORDER BY u.username_canonical LIMIT $3");
}

macro_rules! find_names {
    ($in_ids:expr) => {
        concat!("SELECT id, username FROM users WHERE id ", $in_ids)
    };
}

statements! {
    @SQLITE_STATEMENTS
    FIND_NAMES_ON_SQLITE = find_names!(in_ids_on_sqlite!("$1"));
}

statements! {
    @POSTGRES_STATEMENTS
    FIND_NAMES_ON_POSTGRES = find_names!(in_ids_on_postgres!("$1"));
}

/// A row of `users` with its roles in one text.
#[derive(Clone, sqlx::FromRow)]
#[expect(clippy::struct_field_names, reason = "the names of `user_columns!`")]
pub(super) struct UserRow {
    u_id: Uuid,
    u_username: String,
    u_email: Option<String>,
    u_display_name: String,
    u_status: String,
    u_password_changed_at: Option<i64>,
    u_auth_epoch: i64,
    u_grant_epoch: i64,
    u_created_at: i64,
    u_roles: String,
}

impl TryFrom<UserRow> for User {
    type Error = StorageError;

    fn try_from(row: UserRow) -> Result<Self, StorageError> {
        let statuses = [UserStatus::Invited, UserStatus::Active, UserStatus::Disabled];
        let mut roles: Vec<String> = row.u_roles.split_whitespace().map(str::to_owned).collect();
        roles.sort_unstable();
        Ok(Self {
            id: UserId(row.u_id),
            username: row.u_username,
            email: row.u_email,
            display_name: row.u_display_name,
            status: TABLE.word("status", &row.u_status, &statuses, UserStatus::as_str)?,
            password_changed_at: row.u_password_changed_at.map(Timestamp::from_millis),
            auth_epoch: row.u_auth_epoch,
            grant_epoch: row.u_grant_epoch,
            created_at: Timestamp::from_millis(row.u_created_at),
            roles,
        })
    }
}

/// A line of the list of people.
#[derive(Clone, Debug)]
pub struct PersonListRow {
    /// The account.
    pub user: User,
    /// Has an authenticator.
    pub has_factor: bool,
    /// Sessions whose end nobody has written down yet.
    pub living_sessions: u32,
    /// Last activity in any session.
    pub last_active_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct PersonRow {
    #[sqlx(flatten)]
    user: UserRow,
    factors: i64,
    living_sessions: i64,
    last_active_at: Option<i64>,
}

fn search_text(username: &str, email: Option<&str>, display_name: &str) -> String {
    [
        canonical(username),
        canonical(email.unwrap_or_default()),
        canonical(display_name),
    ]
    .join("\n")
}

/// Makes an account with its roles.
///
/// # Errors
/// A unique violation if the name or address is taken, an unknown reference if a role does not exist.
pub async fn insert_user(tx: &mut Tx, user: &User, password_hash: Option<&str>) -> Result<(), StorageError> {
    let email = user.email.as_deref();
    on_backend!(tx, |connection| sqlx::query(INSERT_USER)
        .bind(user.id.0)
        .bind(&user.username)
        .bind(canonical(&user.username))
        .bind(email)
        .bind(email.map(canonical))
        .bind(&user.display_name)
        .bind(user.status.as_str())
        .bind(password_hash)
        .bind(millis(user.password_changed_at))
        .bind(user.auth_epoch)
        .bind(user.grant_epoch)
        .bind(user.created_at.as_millis())
        .bind(search_text(&user.username, email, &user.display_name))
        .execute(connection)
        .await
        .map(drop))?;
    roles::insert_user_roles(tx, user.id, &user.roles).await
}

/// The account, roles sorted.
///
/// # Errors
/// When the database fails.
pub async fn find_user(tx: &mut Tx, id: UserId) -> Result<Option<User>, StorageError> {
    let row: Option<UserRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_USER)
        .bind(id.0)
        .fetch_optional(connection)
        .await)?;
    row.map(User::try_from).transpose()
}

/// The account with this canonical sign-in name or e-mail address (`domain::user::canonical`).
///
/// # Errors
/// When the database fails.
pub async fn find_user_by_identifier(tx: &mut Tx, identifier: &str) -> Result<Option<User>, StorageError> {
    if !is_storable(identifier) {
        return Ok(None);
    }
    let row: Option<UserRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_USER_BY_IDENTIFIER)
        .bind(identifier)
        .fetch_optional(connection)
        .await)?;
    row.map(User::try_from).transpose()
}

/// The password hash as a PHC string; none for unknown accounts and for those that never set one.
///
/// # Errors
/// When the database fails.
pub async fn find_password_hash(tx: &mut Tx, id: UserId) -> Result<Option<String>, StorageError> {
    let row: Option<Option<String>> = on_backend!(tx, |connection| sqlx::query_scalar(FIND_PASSWORD_HASH)
        .bind(id.0)
        .fetch_optional(connection)
        .await)?;
    Ok(row.flatten())
}

/// Sets a new password; with `revokes_before` it raises the auth epoch, which ends all sessions, and what was issued before
/// that moment is refused elsewhere, too. Whether the account exists.
///
/// # Errors
/// When the database fails.
pub async fn update_password(
    tx: &mut Tx,
    id: UserId,
    phc: &str,
    now: Timestamp,
    revokes_before: Option<Timestamp>,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(UPDATE_PASSWORD)
        .bind(id.0)
        .bind(phc)
        .bind(now.as_millis())
        .bind(i64::from(revokes_before.is_some()))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 1
        && let Some(before) = revokes_before
    {
        revoke_all_before(tx, id, before);
    }
    Ok(changed == 1)
}

/// Stores the same password hashed anew. Whether the old hash was still there.
///
/// # Errors
/// When the database fails.
pub async fn update_password_hash_only(
    tx: &mut Tx,
    id: UserId,
    old_phc: &str,
    new_phc: &str,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(UPDATE_PASSWORD_HASH_ONLY)
        .bind(id.0)
        .bind(old_phc)
        .bind(new_phc)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// The auth epoch went up: whatever was issued before is refused.
pub(super) fn revoke_all_before(tx: &mut Tx, id: UserId, before: Timestamp) {
    let target = Target::Subject {
        sub: id.to_string(),
        before,
    };
    tx.revoke(target, before, all_expired_at(before));
}

/// Changes the status if it still is `from`; with `revokes_before` it raises the auth epoch, which ends all sessions, and
/// what was issued before that moment is refused elsewhere, too. Whether it did.
///
/// # Errors
/// When the database fails.
pub async fn set_status(
    tx: &mut Tx,
    id: UserId,
    from: UserStatus,
    to: UserStatus,
    revokes_before: Option<Timestamp>,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(SET_STATUS)
        .bind(id.0)
        .bind(from.as_str())
        .bind(to.as_str())
        .bind(i64::from(revokes_before.is_some()))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 1
        && let Some(before) = revokes_before
    {
        revoke_all_before(tx, id, before);
    }
    Ok(changed == 1)
}

/// Changes the names. Whether the account exists.
///
/// # Errors
/// A unique violation if the name or address is taken.
pub async fn set_profile(
    tx: &mut Tx,
    id: UserId,
    username: &str,
    email: Option<&str>,
    display_name: &str,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(SET_PROFILE)
        .bind(id.0)
        .bind(username)
        .bind(canonical(username))
        .bind(email)
        .bind(email.map(canonical))
        .bind(display_name)
        .bind(search_text(username, email, display_name))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Lets whoever else is about to sign this person in wait until this transaction is over, so that "most sessions at
/// once" is counted by one at a time. `false` if the account has other epochs than these by now, or is gone: what the
/// caller knows of password, status or roles is out of date, and a session made of it would be dead on arrival, with
/// an access token that nobody has revoked.
///
/// # Errors
/// When the database fails.
pub async fn lock_user(tx: &mut Tx, user: &User) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(LOCK_USER)
        .bind(user.id.0)
        .bind(user.auth_epoch)
        .bind(user.grant_epoch)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// All accounts.
///
/// # Errors
/// When the database fails.
pub async fn count_users(tx: &mut Tx) -> Result<u32, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_USERS)
        .fetch_one(connection)
        .await)?;
    TABLE.small("count", count)
}

/// People by canonical name, beginning after `after` (a canonical name). `search` is any part of a name or address,
/// without regard to case; empty finds everybody.
///
/// # Errors
/// When the database fails.
pub async fn list_people(
    tx: &mut Tx,
    search: &str,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<PersonListRow>, StorageError> {
    let after = after.unwrap_or_default();
    if !is_storable(search) || !is_storable(&after) {
        return Ok(Vec::new());
    }
    let escaped = canonical(search)
        .replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_");
    let rows: Vec<PersonRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_PEOPLE)
        .bind(after)
        .bind(format!("%{escaped}%"))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter()
        .map(|row| {
            Ok(PersonListRow {
                user: row.user.try_into()?,
                has_factor: row.factors > 0,
                living_sessions: TABLE.small("living_sessions", row.living_sessions)?,
                last_active_at: row.last_active_at.map(Timestamp::from_millis),
            })
        })
        .collect()
}

/// Sign-in names of these people; those unknown are left out.
///
/// # Errors
/// When the database fails.
pub async fn find_names(tx: &mut Tx, ids: &[UserId]) -> Result<HashMap<UserId, String>, StorageError> {
    let ids = many::ids(ids.iter().map(|id| id.0));
    let sql = tx.in_words_of(FIND_NAMES_ON_SQLITE, FIND_NAMES_ON_POSTGRES);
    let rows: Vec<(Uuid, String)> = on_backend!(tx, |connection| sqlx::query_as(sql)
        .bind(ids)
        .fetch_all(connection)
        .await)?;
    Ok(rows.into_iter().map(|(id, name)| (UserId(id), name)).collect())
}
