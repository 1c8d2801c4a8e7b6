//! Clients: other software that gets tokens in its own name, and the assertions it has used. Secrets come as hashes
//! only; must not know how anybody proves anything.

pub(super) mod known;

use super::columns::Table;
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::client::{
    Authentication, ClientId, ClientName, ClientStatus, PublicKey, Scopes, ServiceClient, parse_public_keys,
};
use crate::domain::clock::{Timestamp, millis};
use crate::domain::jwt::Proven;
use crate::domain::revocation::{Target, all_expired_at};

pub use known::find_client;

const TABLE: Table = Table("clients");

macro_rules! client_columns {
    () => {
        "client_id, name, authentication, secret_hash, public_jwks, scopes, access_ms, may_introspect, status, created_at"
    };
}
use client_columns;

statements! {
    INSERT_CLIENT = concat!("INSERT INTO clients (", client_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    LIST_CLIENTS = concat!("SELECT ", client_columns!(), " FROM clients ORDER BY created_at, client_id");
    IS_ACTIVE = "SELECT COUNT(*) FROM clients WHERE client_id = $1 AND status = 'active'";
    DISABLE_CLIENT = "UPDATE clients SET status = 'disabled' WHERE client_id = $1 AND status = 'active'";
    CONSUME_ASSERTION = "INSERT INTO client_assertions (client_id, jti, expires_at) VALUES ($1, $2, $3) \
        ON CONFLICT (client_id, jti) DO NOTHING";
    DELETE_EXPIRED_ASSERTIONS = "DELETE FROM client_assertions WHERE (client_id, jti) IN \
        (SELECT a.client_id, a.jti FROM client_assertions a WHERE a.expires_at <= $1 ORDER BY a.expires_at LIMIT $2)";
}

#[derive(Clone, sqlx::FromRow)]
struct ClientRow {
    client_id: String,
    name: String,
    authentication: String,
    secret_hash: Option<Vec<u8>>,
    public_jwks: Option<String>,
    scopes: String,
    access_ms: i64,
    may_introspect: i64,
    status: String,
    created_at: i64,
}

impl TryFrom<ClientRow> for ServiceClient {
    type Error = StorageError;

    fn try_from(row: ClientRow) -> Result<Self, StorageError> {
        let impossible = |column| TABLE.impossible(column);
        let authentication = match (row.secret_hash, row.public_jwks) {
            (Some(hash), None) => Authentication::Secret(TABLE.hash("secret_hash", &hash)?),
            (None, Some(jwks)) => {
                Authentication::Keys(parse_public_keys(&jwks).map_err(|_| impossible("public_jwks"))?)
            }
            _ => return Err(impossible("authentication")),
        };
        if authentication.as_str() != row.authentication {
            return Err(impossible("authentication"));
        }
        Ok(Self {
            id: ClientId::parse(&row.client_id).ok_or_else(|| impossible("client_id"))?,
            name: ClientName::parse(&row.name).map_err(|_| impossible("name"))?,
            authentication,
            scopes: Scopes::parse(&row.scopes).map_err(|_| impossible("scopes"))?,
            access: TABLE.duration("access_ms", row.access_ms)?,
            may_introspect: row.may_introspect == 1,
            status: TABLE.word("status", &row.status, &ClientStatus::ALL, ClientStatus::as_str)?,
            created_at: Timestamp::from_millis(row.created_at),
        })
    }
}

/// Keeps a new client.
///
/// # Errors
/// A unique violation if another client has that name.
pub async fn insert_client(tx: &mut Tx, client: &ServiceClient) -> Result<(), StorageError> {
    let (secret_hash, public_jwks) = match &client.authentication {
        Authentication::Secret(hash) => (Some(hash.as_slice()), None),
        Authentication::Keys(keys) => (None, Some(PublicKey::to_jwks(keys))),
    };
    on_backend!(tx, |connection| sqlx::query(INSERT_CLIENT)
        .bind(client.id.as_str())
        .bind(client.name.as_str())
        .bind(client.authentication.as_str())
        .bind(secret_hash)
        .bind(public_jwks.as_deref())
        .bind(client.scopes.to_string())
        .bind(millis(client.access))
        .bind(i64::from(client.may_introspect))
        .bind(client.status.as_str())
        .bind(client.created_at.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// All clients, oldest first: operators add a handful.
///
/// # Errors
/// When the database fails.
pub async fn list_clients(tx: &mut Tx) -> Result<Vec<ServiceClient>, StorageError> {
    let rows: Vec<ClientRow> = on_backend!(tx, |connection| sqlx::query_as(LIST_CLIENTS)
        .fetch_all(connection)
        .await)?;
    rows.into_iter().map(ServiceClient::try_from).collect()
}

/// Whether there is such a client that gets tokens.
///
/// # Errors
/// When the database fails.
pub async fn is_active(tx: &mut Tx, id: &ClientId) -> Result<bool, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(IS_ACTIVE)
        .bind(id.as_str())
        .fetch_one(connection)
        .await)?;
    Ok(count == 1)
}

/// Disables a client for good; its tokens are refused. Whether it was active.
///
/// # Errors
/// When the database fails.
pub async fn disable_client(tx: &mut Tx, id: &ClientId, now: Timestamp) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(DISABLE_CLIENT)
        .bind(id.as_str())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 1 {
        let until = all_expired_at(now);
        let target = Target::Subject {
            sub: id.to_string(),
            // For good, so also what is issued by somebody who read the client just before, or by a clock that is ahead.
            before: until,
        };
        tx.revoke(target, now, until);
    }
    Ok(changed == 1)
}

/// Uses up an assertion. Whether it was new: of many at once, one succeeds.
///
/// # Errors
/// When the database fails.
pub async fn consume_assertion(tx: &mut Tx, client: &ClientId, proven: &Proven) -> Result<bool, StorageError> {
    let inserted = on_backend!(tx, |connection| sqlx::query(CONSUME_ASSERTION)
        .bind(client.as_str())
        .bind(&proven.jti)
        .bind(proven.until.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(inserted == 1)
}

/// Forgets at most `limit` assertions that nobody accepts any more. How many.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired_assertions(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(DELETE_EXPIRED_ASSERTIONS)
        .bind(now.as_millis())
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}
