//! The schema's version: bringing it up to date, and refusing to run on any other (F9).
//!
//! Every migration runs in a transaction of its own together with the note that it was applied, so an interrupted one
//! has changed nothing.

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::connect::Pools;
use super::{StorageError, Store, Tx, on_backend};

static SQLITE: Migrator = sqlx::migrate!("../migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../migrations/postgres");

/// Whether the table of applied migrations exists. The one thing that the two databases name differently.
const HISTORY_EXISTS_SQLITE: &str =
    "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
const HISTORY_EXISTS_POSTGRES: &str = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations'";
const HISTORY: &str = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";

impl Store {
    /// Brings the schema up to this program's version.
    ///
    /// # Errors
    /// A schema that is newer, altered or half migrated is left as it is and refused.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        match self.check_schema().await {
            Ok(()) => return Ok(()),
            Err(StorageError::SchemaMissing | StorageError::SchemaOlder { .. }) => {}
            Err(refused) => return Err(refused),
        }
        match &self.pools {
            Pools::Sqlite { sqlite, .. } => run(&SQLITE, sqlite.exclusive().await?.connection()?).await,
            Pools::Postgres { migration, .. } => {
                // A connection of its own: migrations may take longer than any statement of a request.
                let mut connection = PgConnection::connect_with(migration).await?;
                let done = run(&POSTGRES, &mut connection).await;
                connection.close().await?;
                done
            }
        }
    }

    /// Whether the schema is exactly this program's.
    ///
    /// # Errors
    /// Says what to do if it is missing, older, newer, altered or half migrated.
    pub async fn check_schema(&self) -> Result<(), StorageError> {
        let known = if self.is_postgres() { &POSTGRES } else { &SQLITE };
        let mut tx = self.read().await?;
        let exists = if self.is_postgres() {
            HISTORY_EXISTS_POSTGRES
        } else {
            HISTORY_EXISTS_SQLITE
        };
        let exists: i64 = on_backend!(tx, |connection| sqlx::query_scalar(exists).fetch_one(connection).await)?;
        if exists == 0 {
            return Err(StorageError::SchemaMissing);
        }
        compare(&known.migrations, &applied(&mut tx).await?)
    }
}

type Applied = (i64, Vec<u8>, bool);

async fn applied(tx: &mut Tx) -> Result<Vec<Applied>, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_as(HISTORY)
        .fetch_all(connection)
        .await)?)
}

async fn run<C: Migrate>(migrator: &Migrator, connection: &mut C) -> Result<(), StorageError> {
    migrator
        .run_direct(None, connection, false)
        .await
        .map_err(|error| match error {
            MigrateError::VersionMismatch(version) => StorageError::SchemaDiffers { version },
            MigrateError::Dirty(version) => StorageError::SchemaInterrupted { version },
            other => StorageError::Migration(other),
        })
}

fn compare(known: &[Migration], applied: &[Applied]) -> Result<(), StorageError> {
    let newest_known = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let newest_applied = applied.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    for (version, checksum, success) in applied {
        if !success {
            return Err(StorageError::SchemaInterrupted { version: *version });
        }
        match known.iter().find(|migration| migration.version == *version) {
            None if *version > newest_known => {
                return Err(StorageError::SchemaNewer {
                    found: newest_applied,
                    known: newest_known,
                });
            }
            Some(migration) if *migration.checksum == **checksum => {}
            _ => return Err(StorageError::SchemaDiffers { version: *version }),
        }
    }
    if applied.is_empty() {
        return Err(StorageError::SchemaMissing);
    }
    if applied.len() < known.len() {
        return Err(StorageError::SchemaOlder {
            found: newest_applied,
            needed: newest_known,
        });
    }
    Ok(())
}
