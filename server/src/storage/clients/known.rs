//! A client by its id: asked whenever one proves itself, and whenever its token is looked at.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::super::connect::Pools;
use super::super::many::json;
use super::super::sqlite::Sqlite;
use super::super::together::{AskPostgres, AskSqlite, Question};
use super::super::{StorageError, Store, statements};
use super::{ClientRow, client_columns};
use crate::domain::client::{ClientId, ServiceClient};

macro_rules! find_where_id {
    ($is:literal) => {
        concat!("SELECT ", client_columns!(), " FROM clients WHERE client_id ", $is)
    };
}

statements! {
    FIND_CLIENT = find_where_id!("= $1");
}

statements! {
    @POSTGRES_STATEMENTS
    // For an array of ids.
    FIND_MANY_ON_POSTGRES = find_where_id!("= ANY($1)");
}

statements! {
    @SQLITE_STATEMENTS
    // For a JSON array of ids.
    FIND_MANY_ON_SQLITE = find_where_id!("IN (SELECT value FROM json_each($1))");
}

/// A client, active or not, as it was committed before this began.
///
/// # Errors
/// When the database fails.
pub async fn find_client(store: &Store, id: ClientId) -> Result<Option<ServiceClient>, StorageError> {
    match &store.pools {
        Pools::Sqlite { together, .. } => together.clients.ask(Sought(id)).await?,
        Pools::Postgres { together, .. } => together.clients.ask(Sought(id)).await?,
    }
}

/// A client that somebody wants to know of.
pub(in crate::storage) struct Sought(ClientId);

impl Question for Sought {
    /// An impossible row is the trouble of that client only.
    type Answer = Result<Option<ServiceClient>, StorageError>;
}

impl AskPostgres for Sought {
    async fn ask(connection: &mut PgConnection, sought: &[Self]) -> Result<Vec<Self::Answer>, sqlx::Error> {
        let ids: Vec<&str> = sought.iter().map(|sought| sought.0.as_str()).collect();
        let rows = sqlx::query_as(FIND_MANY_ON_POSTGRES)
            .bind(&ids)
            .fetch_all(connection)
            .await?;
        Ok(for_each(sought, rows))
    }
}

impl AskSqlite for Sought {
    async fn ask(sqlite: &Sqlite, sought: &[Self]) -> Result<Vec<Self::Answer>, StorageError> {
        let mut reader = sqlite.read().await?;
        let rows = match sought {
            [one] => {
                let query = sqlx::query_as(FIND_CLIENT).bind(one.0.as_str());
                query.fetch_all(&mut *reader).await?
            }
            many => {
                let ids = json(&many.iter().map(|sought| sought.0.as_str()).collect::<Vec<_>>());
                let query = sqlx::query_as(FIND_MANY_ON_SQLITE).bind(ids);
                query.fetch_all(&mut *reader).await?
            }
        };
        Ok(for_each(sought, rows))
    }
}

/// What each gets to know of the rows of all.
fn for_each(sought: &[Sought], rows: Vec<ClientRow>) -> Vec<Result<Option<ServiceClient>, StorageError>> {
    let rows: HashMap<String, ClientRow> = rows.into_iter().map(|row| (row.client_id.clone(), row)).collect();
    let row = |sought: &Sought| rows.get(sought.0.as_str()).cloned();
    sought
        .iter()
        .map(|sought| row(sought).map(ServiceClient::try_from).transpose())
        .collect()
}
