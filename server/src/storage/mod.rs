//! The only place with SQL: one text for two databases, SQLite and PostgreSQL (but for the few things done most, which
//! many callers ask at once: see `together` and `sessions::rotation`).
//!
//! Owns connections, transactions, the schema and every statement. Knows domain types, but no rules beyond the
//! conditions that a write must repeat; must not know services, HTTP or pages.
//!
//! Habits: all SQL is `const` inside [`statements!`] with `$1…` placeholders, so that one test can prepare every
//! statement; times come in as values; a lock is a conditional UPDATE that changes one row.

mod bell;
mod changes;
mod columns;
mod connect;
mod error;
mod many;
mod postgres;
mod schema;
mod sqlite;
mod together;

pub mod audit;
pub mod authenticators;
pub mod clients;
pub mod devices;
pub mod dpop;
pub mod event_streams;
pub mod flows;
pub mod keys;
pub mod logout_receivers;
pub mod mail;
pub mod nodes;
pub mod one_time_links;
pub mod policies;
pub mod recovery;
pub mod revocations;
pub mod sessions;
pub mod users;

use std::sync::Arc;
use std::time::Duration;

use changes::{Changes, Counted};
use sqlx::error::ErrorKind;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

pub use bell::Bell;
pub use changes::EventCounts;
pub use connect::{DatabaseSettings, Store, connections_for_two};
pub use error::StorageError;

/// Runs the same expression on whichever database it is; its types are checked once for each. Not `sqlx::Any` (nine
/// scalar types) and not a generic database (bounds without end).
macro_rules! on_backend {
    ($tx:expr, |$connection:ident| $body:expr) => {{
        let longest = $tx.longest_wait();
        let result = match $tx.connection() {
            $crate::storage::Connection::Sqlite($connection) => $body,
            $crate::storage::Connection::Postgres($connection) => {
                $crate::storage::postgres::in_time(longest, async { $body }).await
            }
        };
        $tx.noting(result)
    }};
}
use on_backend;

/// A connection to read with, or a transaction to write with. Dropping it without [`Tx::commit`] rolls back.
#[derive(Debug)]
pub struct Tx {
    inner: Inner,
    /// What it revokes; [`Tx::commit`] writes it down.
    revoked: Vec<revocations::Revocation>,
    /// It saves a policy.
    saves_policy: bool,
    /// The events that it adds to the audit log.
    recorded: Vec<Counted>,
    /// A statement failed in a way after which nothing may be called done.
    failed: bool,
    /// Hears of those commits.
    changes: Arc<Changes>,
}

#[derive(Debug)]
enum Inner {
    SqliteRead(sqlite::Reader),
    SqliteWrite(sqlite::WriteTx),
    PostgresRead(postgres::Lent),
    PostgresWrite(postgres::Lent),
}

/// The concrete connection, for `on_backend!`.
enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Tx {
    const fn new(inner: Inner, changes: Arc<Changes>) -> Self {
        Self {
            inner,
            revoked: Vec::new(),
            saves_policy: false,
            recorded: Vec::new(),
            failed: false,
            changes,
        }
    }

    fn connection(&mut self) -> Connection<'_> {
        match &mut self.inner {
            Inner::SqliteRead(connection) => Connection::Sqlite(connection),
            Inner::SqliteWrite(transaction) => Connection::Sqlite(transaction.connection()),
            Inner::PostgresRead(lent) | Inner::PostgresWrite(lent) => Connection::Postgres(lent.connection()),
        }
    }

    /// Makes everything written since [`Store::write`] durable, and what it revoked known. After [`Store::read`] it only
    /// gives the connection back.
    ///
    /// # Errors
    /// When the database fails: then whether it was written is unknown, and the caller may not claim that it was.
    pub async fn commit(mut self) -> Result<(), StorageError> {
        let revoked = if self.revoked.is_empty() {
            None
        } else {
            Some(revocations::write_down(&mut self).await?)
        };
        if self.failed {
            return Err(StorageError::Abandoned);
        }
        fail::fail_point!("commit::before", |_| Err(StorageError::Abandoned));
        match self.inner {
            Inner::SqliteWrite(transaction) => transaction.commit().await?,
            Inner::PostgresWrite(transaction) => transaction.commit().await?,
            Inner::SqliteRead(_) | Inner::PostgresRead(_) => {}
        }
        self.changes.recorded(&self.recorded);
        fail::fail_point!("commit::after", |_| Err(StorageError::Together(Arc::new(
            sqlx::Error::WorkerCrashed
        ))));
        // Before anybody can acknowledge it.
        if let Some(last) = revoked {
            self.changes.revoked_up_to(last);
        }
        if self.saves_policy {
            self.changes.saved_policy();
        }
        Ok(())
    }

    /// Of two statements that do the same, the one in the words of this database.
    const fn in_words_of(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match &self.inner {
            Inner::SqliteRead(_) | Inner::SqliteWrite(_) => sqlite,
            Inner::PostgresRead(_) | Inner::PostgresWrite(_) => postgres,
        }
    }

    /// Hands a statement's result on, having noted whether the transaction can still be committed.
    ///
    /// PostgreSQL gives a transaction up at the first error, and a COMMIT then rolls back without saying so. SQLite
    /// survives a refused statement; but a full disk or a broken file may have rolled everything back by itself, and
    /// what follows would stand alone.
    fn noting<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if let (Ok(_), Inner::PostgresRead(lent) | Inner::PostgresWrite(lent)) = (&result, &mut self.inner) {
            lent.answered();
        }
        if let (Err(error), Inner::SqliteWrite(tx)) = (&result, &mut self.inner) {
            tx.note(error);
        }
        if let Err(error) = &result {
            let survived = match (error, &self.inner) {
                (sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => true,
                (sqlx::Error::Database(error), Inner::SqliteWrite(_)) => !matches!(error.kind(), ErrorKind::Other),
                _ => false,
            };
            self.failed |= !survived;
        }
        result
    }

    /// After so long a database server that says nothing has fallen silent.
    const fn longest_wait(&self) -> Duration {
        match &self.inner {
            Inner::PostgresRead(lent) | Inner::PostgresWrite(lent) => lent.longest_wait,
            Inner::SqliteRead(_) | Inner::SqliteWrite(_) => Duration::MAX,
        }
    }

    /// Asks the database for an answer.
    async fn ping(&mut self) -> Result<(), StorageError> {
        Ok(on_backend!(self, |connection| connection.ping().await)?)
    }
}

/// Declares the SQL texts of a module and the list of them: `STATEMENTS`, or for one database only the list that is named
/// first.
macro_rules! statements {
    (@$list:ident $($(#[$doc:meta])* $name:ident = $sql:expr;)+) => {
        $($(#[$doc])* const $name: &str = $sql;)+
        /// Every such statement of this module.
        pub(in crate::storage) const $list: &[(&str, &str)] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),+];
    };
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)+) => {
        $crate::storage::statements! { @STATEMENTS $($(#[$doc])* $name = $sql;)+ }
    };
}
use statements;

/// Every SQL text of the product for one kind of database with its name, for the test that prepares each.
pub fn all_statements(on_postgres: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_one: &[&[_]] = if on_postgres {
        &[
            audit::POSTGRES_STATEMENTS,
            audit::append::POSTGRES_STATEMENTS,
            audit::alone::POSTGRES_STATEMENTS,
            audit::notices::POSTGRES_STATEMENTS,
            clients::known::POSTGRES_STATEMENTS,
            nodes::POSTGRES_STATEMENTS,
            revocations::POSTGRES_STATEMENTS,
            sessions::POSTGRES_STATEMENTS,
            sessions::cohort::POSTGRES_STATEMENTS,
            sessions::known::POSTGRES_STATEMENTS,
            sessions::rotation::POSTGRES_STATEMENTS,
            users::POSTGRES_STATEMENTS,
        ]
    } else {
        &[
            audit::SQLITE_STATEMENTS,
            audit::append::SQLITE_STATEMENTS,
            audit::notices::SQLITE_STATEMENTS,
            clients::known::SQLITE_STATEMENTS,
            nodes::SQLITE_STATEMENTS,
            revocations::SQLITE_STATEMENTS,
            sessions::SQLITE_STATEMENTS,
            sessions::cohort::SQLITE_STATEMENTS,
            sessions::known::SQLITE_STATEMENTS,
            users::SQLITE_STATEMENTS,
        ]
    };
    [
        audit::STATEMENTS,
        audit::append::STATEMENTS,
        audit::notices::STATEMENTS,
        authenticators::STATEMENTS,
        clients::STATEMENTS,
        clients::known::STATEMENTS,
        devices::STATEMENTS,
        dpop::STATEMENTS,
        event_streams::STATEMENTS,
        logout_receivers::STATEMENTS,
        mail::STATEMENTS,
        flows::STATEMENTS,
        keys::STATEMENTS,
        nodes::STATEMENTS,
        one_time_links::STATEMENTS,
        policies::STATEMENTS,
        recovery::STATEMENTS,
        revocations::STATEMENTS,
        sessions::STATEMENTS,
        sessions::known::STATEMENTS,
        sessions::ending::STATEMENTS,
        sessions::rotation::STATEMENTS,
        sessions::cohort::STATEMENTS,
        users::STATEMENTS,
        users::roles::STATEMENTS,
    ]
    .into_iter()
    .chain(of_one.iter().copied())
    .flatten()
    .copied()
}
