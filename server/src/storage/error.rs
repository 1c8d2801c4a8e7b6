//! What can go wrong in storage, and which of it is only a matter of time.

use std::sync::Arc;

use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateError;

/// Why storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The configured address cannot be used: refuse the start.
    #[error("the database address cannot be used: {0}")]
    Address(&'static str),
    /// The database failed, refused or could not be reached: 503 if [`StorageError::is_unavailable`], else 500.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// What was asked or committed together with others failed: 503 or 500 as above.
    #[error("the database failed several at once: {0}")]
    Together(Arc<sqlx::Error>),
    /// An earlier statement failed in a way that left nothing to commit: 503.
    #[error("nothing was written: a statement before had failed")]
    Abandoned,
    /// Somebody else has just waited for the same answer in vain: 503.
    #[error("the database did not answer somebody else a moment ago")]
    JustFailed,
    /// A row that no code of ours writes: 500.
    #[error("a row of table {table} has an impossible value in column {column}")]
    Impossible {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The database has no tables of ours yet: refuse the start.
    #[error("the database has not been set up: run `mayfly migrate` first")]
    SchemaMissing,
    /// The program is newer than the database: refuse the start.
    #[error("the database schema is at version {found}, this program needs {needed}: run `mayfly migrate` first")]
    SchemaOlder {
        /// Version of the database.
        found: i64,
        /// Version of the program.
        needed: i64,
    },
    /// Nodes of the older version still use it.
    #[error(
        "the database schema is at version {found} and nodes of that version serve it: stop every one of them first (one \
         that crashed is forgotten after 35 s)"
    )]
    SchemaServed {
        /// Version of the database.
        found: i64,
    },
    /// The database is newer than the program: refuse the start.
    #[error("the database schema is at version {found}, this program only knows {known}: start the newer program")]
    SchemaNewer {
        /// Version of the database.
        found: i64,
        /// Version of the program.
        known: i64,
    },
    /// A migration differs from the one that was applied: refuse the start.
    #[error("migration {version} of the database is not the one this program has: restore a matching pair of both")]
    SchemaDiffers {
        /// The migration.
        version: i64,
    },
    /// A migration was interrupted: refuse the start.
    #[error("migration {version} was interrupted: restore the backup made before it")]
    SchemaInterrupted {
        /// The migration.
        version: i64,
    },
    /// The tables cannot be taken back so far.
    #[error(
        "there is no way back to version {version} of the tables, only to versions before this one's and from {oldest} on; \
         further back is the backup made before the upgrade"
    )]
    NoWayBack {
        /// What was asked for.
        version: i64,
        /// The oldest that can be had.
        oldest: i64,
    },
    /// A migration failed; its transaction was rolled back.
    #[error("the database could not be migrated: {0}")]
    Migration(#[source] MigrateError),
}

impl StorageError {
    /// The same request may succeed later: the database is away, busy or full. Everything else is a mistake of ours.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database(error) | Self::Migration(MigrateError::Execute(error)) => is_unavailable(error),
            Self::Together(error) => is_unavailable(error),
            Self::Abandoned | Self::JustFailed => true,
            _ => false,
        }
    }

    /// What becomes of each of several who asked together.
    pub(super) fn for_several(self) -> Arc<sqlx::Error> {
        match self {
            Self::Database(error) => Arc::new(error),
            Self::Together(error) => error,
            // Only a matter of time, or of no one statement.
            _ => Arc::new(sqlx::Error::WorkerCrashed),
        }
    }

    /// It may be for the sake of one of several who asked together: the others may fare better alone.
    pub(super) fn may_concern_one(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => true,
            Self::Database(error @ sqlx::Error::Database(said)) => {
                // A lost race, a connection that was cut.
                !is_unavailable(error) || self.is_lost_race() || said.code().as_deref() == Some("57P01")
            }
            _ => false,
        }
    }

    /// Somebody else's transaction was in the way: the same transaction succeeds once that one is over.
    #[must_use]
    pub fn is_lost_race(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(said)) => {
                matches!(said.code().as_deref(), Some("55P03" | "40001" | "40P01"))
            }
            _ => false,
        }
    }

    /// Something of that name, address or version exists already.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        self.database_kind()
            .is_some_and(|kind| matches!(kind, ErrorKind::UniqueViolation))
    }

    /// It refers to something that does not exist, such as an unknown role.
    #[must_use]
    pub fn is_unknown_reference(&self) -> bool {
        self.database_kind()
            .is_some_and(|kind| matches!(kind, ErrorKind::ForeignKeyViolation))
    }

    fn database_kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Database(error) => error.as_database_error().map(sqlx::error::DatabaseError::kind),
            _ => None,
        }
    }
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                // https://www.sqlite.org/rescode.html: the low byte is the kind, the rest tells more of it.
                let kind = code.parse::<i32>().map_or(0, |code| code & 0xff);
                // BUSY, LOCKED, IOERR, FULL, CANTOPEN
                matches!(kind, 5 | 6 | 10 | 13 | 14)
            } else {
                // PostgreSQL, appendix A: connection lost, out of resources, shutting down or not yet up, system error.
                ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
                    // Time limits, lost races, and a server that became read-only after a failover.
                    || matches!(&*code, "57014" | "55P03" | "25P03" | "25006" | "40001" | "40P01")
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f7_a_lost_connection_is_unavailable_and_a_mistake_is_not() {
        assert!(StorageError::from(sqlx::Error::PoolTimedOut).is_unavailable());
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(StorageError::from(sqlx::Error::Io(lost)).is_unavailable());
        assert!(!StorageError::from(sqlx::Error::RowNotFound).is_unavailable());
        assert!(!StorageError::SchemaMissing.is_unavailable());
    }

    /// What PostgreSQL says, by its code alone.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str);

    impl sqlx::error::DatabaseError for Said {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn f7_what_postgresql_may_do_at_another_time_is_unavailable_and_what_it_never_does_is_not() {
        let is_unavailable = |code| StorageError::from(sqlx::Error::Database(Box::new(Said(code)))).is_unavailable();
        for code in [
            "40001", // serialization failure
            "40P01", // deadlock
            "08006", // connection failure
            "53300", // too many connections
            "53100", // disk full
            "57P01", // shut down, or the connection was terminated
            "57P03", // starting up
            "57014", // time limit of a statement
            "55P03", // time limit of a lock
            "25P03", // time limit of an idle transaction
            "25006", // read-only after a failover
            "58030", // input or output failed
        ] {
            assert!(is_unavailable(code), "{code}");
        }
        // Syntax, unknown table, unique, foreign key and check violations, no permission, a transaction given up.
        for code in ["42601", "42P01", "23505", "23503", "23514", "42501", "25P02", "XX000"] {
            assert!(!is_unavailable(code), "{code}");
        }
    }

    #[test]
    fn f7_only_what_may_concern_one_of_several_is_asked_again_for_each() {
        let said = |code| StorageError::from(sqlx::Error::Database(Box::new(Said(code))));
        for code in ["23505", "55P03", "40001", "40P01", "57P01"] {
            assert!(said(code).may_concern_one(), "{code}");
        }
        for code in ["53300", "57014", "57P03", "25006", "08006"] {
            assert!(!said(code).may_concern_one(), "{code}");
        }
        assert!(StorageError::from(sqlx::Error::Decode("impossible".into())).may_concern_one());
        assert!(!StorageError::from(sqlx::Error::PoolTimedOut).may_concern_one());
    }
}
