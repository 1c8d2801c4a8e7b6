//! A session with everything that decides over it: asked by every request that carries a token.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::connect::Pools;
use super::super::many::{ids, in_ids_on_sqlite};
use super::super::policies::policy_columns;
use super::super::sqlite::Sqlite;
use super::super::together::{AskPostgres, AskSqlite, Question};
use super::super::users::user_columns;
use super::super::{StorageError, Store, Tx, on_backend, statements};
use super::row::{SessionWithPolicyRow, session_columns};
use crate::domain::id::SessionId;
use crate::domain::policy::Policy;
use crate::domain::session::Session;
use crate::domain::user::User;

/// The session, its owner with roles, and the policies in force of those roles.
pub type Known = (Session, User, Vec<Policy>);

macro_rules! find_where_id {
    ($is:expr) => {
        concat!(
            "SELECT ",
            session_columns!(),
            ", ",
            user_columns!(),
            ", ",
            policy_columns!(),
            " FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN user_roles r ON r.user_id = u.id \
             LEFT JOIN policies p ON p.role = r.role AND p.version = (SELECT MAX(v.version) FROM policies v \
             WHERE v.role = r.role) WHERE s.id ",
            $is,
            " ORDER BY p.role"
        )
    };
}

statements! {
    FIND_WITH_POLICIES = find_where_id!("= $1");
}

statements! {
    @POSTGRES_STATEMENTS
    // For an array of ids.
    FIND_MANY_ON_POSTGRES = find_where_id!("= ANY($1)");
}

statements! {
    @SQLITE_STATEMENTS
    FIND_MANY_ON_SQLITE = find_where_id!(in_ids_on_sqlite!("$1"));
}

/// Reads it, as it was committed before this began.
///
/// # Errors
/// When the database fails.
pub async fn find_known(store: &Store, id: SessionId) -> Result<Option<Known>, StorageError> {
    match &store.pools {
        Pools::Sqlite { together, .. } => together.known.ask(Sought(id)).await?,
        Pools::Postgres { together, .. } => together.known.ask(Sought(id)).await?,
    }
}

/// Reads it within a transaction.
///
/// # Errors
/// When the database fails.
pub async fn find_known_with(tx: &mut Tx, id: SessionId) -> Result<Option<Known>, StorageError> {
    let rows: Vec<SessionWithPolicyRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_WITH_POLICIES)
        .bind(id.0)
        .fetch_all(connection)
        .await)?;
    known(rows)
}

/// Of the rows of one session.
fn known(rows: Vec<SessionWithPolicyRow>) -> Result<Option<Known>, StorageError> {
    let (mut found, mut policies) = (None, Vec::with_capacity(rows.len()));
    for row in rows {
        policies.extend(row.policy.map(Policy::try_from).transpose()?);
        found = Some((row.session, row.user));
    }
    found
        .map(|(session, user)| Ok((session.try_into()?, user.try_into()?, policies)))
        .transpose()
}

/// A session that somebody wants to know of.
pub(in crate::storage) struct Sought(SessionId);

impl Question for Sought {
    /// An impossible row is the trouble of that session only.
    type Answer = Result<Option<Known>, StorageError>;
}

impl AskPostgres for Sought {
    async fn ask(connection: &mut PgConnection, sought: &[Self]) -> Result<Vec<Self::Answer>, sqlx::Error> {
        let ids: Vec<Uuid> = sought.iter().map(|sought| sought.0.0).collect();
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
                let query = sqlx::query_as(FIND_WITH_POLICIES).bind(one.0.0);
                query.fetch_all(&mut *reader).await?
            }
            many => {
                let ids = ids(many.iter().map(|sought| sought.0.0));
                let query = sqlx::query_as(FIND_MANY_ON_SQLITE).bind(ids);
                query.fetch_all(&mut *reader).await?
            }
        };
        Ok(for_each(sought, rows))
    }
}

/// What each gets to know of the rows of all.
fn for_each(sought: &[Sought], rows: Vec<SessionWithPolicyRow>) -> Vec<Result<Option<Known>, StorageError>> {
    let mut rows_of: HashMap<Uuid, Vec<SessionWithPolicyRow>> = HashMap::with_capacity(sought.len());
    for row in rows {
        rows_of.entry(row.session.id).or_default().push(row);
    }
    let rows_of = |sought: &Sought| rows_of.get(&sought.0.0).cloned().unwrap_or_default();
    sought.iter().map(|sought| known(rows_of(sought))).collect()
}
