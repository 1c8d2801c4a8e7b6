//! The schema's version: bringing it up to date, taking it back for an older program, and refusing to run on any other
//! (F9, F77).
//!
//! Every migration runs in a transaction of its own together with the note that it was applied or taken back, so an
//! interrupted one has changed nothing.

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{Acquire, Connection as _, PgConnection};

use super::connect::Pools;
use super::{StorageError, Store, Tx, nodes, on_backend};

static SQLITE: Migrator = sqlx::migrate!("../migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../migrations/postgres");

/// Whether the table of applied migrations exists. The one thing that the two databases name differently.
const HISTORY_EXISTS_SQLITE: &str =
    "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
const HISTORY_EXISTS_POSTGRES: &str = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations'";
/// Nodes report since this version.
const NODES_SINCE: i64 = 8;
const HISTORY: &str = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";

impl Store {
    /// Brings the schema up to this program's version.
    ///
    /// # Errors
    /// A schema that is newer, altered or half migrated is left as it is and refused.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        match self.check_schema().await {
            Ok(()) => return Ok(()),
            Err(StorageError::SchemaMissing) => {}
            Err(StorageError::SchemaOlder { found, .. }) => self.refuse_while_served(found).await?,
            Err(refused) => return Err(refused),
        }
        self.run(Direction::Up).await
    }

    /// Makes the tables in a new database.
    ///
    /// # Errors
    /// Every other schema than this program's is left as it is and refused.
    pub async fn migrate_if_new(&self) -> Result<(), StorageError> {
        match self.check_schema().await {
            Err(StorageError::SchemaMissing) => self.run(Direction::Up).await,
            checked => checked,
        }
    }

    /// Nodes of the older version do not keep what this one goes by. An embedded database has one node, which is this one.
    async fn refuse_while_served(&self, found: i64) -> Result<(), StorageError> {
        if self.is_postgres() && found >= NODES_SINCE {
            let mut tx = self.read().await?;
            if nodes::is_anybody_there(&mut tx).await? {
                return Err(StorageError::SchemaServed { found });
            }
        }
        Ok(())
    }

    /// Takes the schema back to that of an older program, step by step: each undoes one migration by what stands beside it
    /// in the file `….down.sql`.
    ///
    /// # Errors
    /// Refused, and everything left as it is, if the schema is not exactly this program's, or a step has no way back.
    pub async fn migrate_back(&self, version: i64) -> Result<(), StorageError> {
        self.check_schema().await?;
        let known = &self.migrator().migrations;
        let has_way_back = |step: &Migration| {
            let ways_back = known.iter().filter(|other| other.migration_type.is_down_migration());
            ways_back
                .map(|other| other.version)
                .any(|version| version == step.version)
        };
        let oldest = newest(known.iter().filter(|step| !has_way_back(step)));
        if version < oldest || version >= newest(known.iter()) {
            return Err(StorageError::NoWayBack { version, oldest });
        }
        self.run(Direction::BackTo(version)).await
    }

    async fn run(&self, direction: Direction) -> Result<(), StorageError> {
        match &self.pools {
            Pools::Sqlite { sqlite, .. } => run(&SQLITE, sqlite.exclusive().await?.connection()?, direction).await,
            Pools::Postgres { migration, .. } => {
                // A connection of its own: migrations may take longer than any statement of a request.
                let mut connection = PgConnection::connect_with(migration).await?;
                let done = run(&POSTGRES, &mut connection, direction).await;
                connection.close().await?;
                done
            }
        }
    }

    fn migrator(&self) -> &'static Migrator {
        if self.is_postgres() { &POSTGRES } else { &SQLITE }
    }

    /// Whether the schema is exactly this program's.
    ///
    /// # Errors
    /// Says what to do if it is missing, older, newer, altered or half migrated.
    pub async fn check_schema(&self) -> Result<(), StorageError> {
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
        compare(&self.migrator().migrations, &applied(&mut tx).await?)
    }
}

type Applied = (i64, Vec<u8>, bool);

async fn applied(tx: &mut Tx) -> Result<Vec<Applied>, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_as(HISTORY)
        .fetch_all(connection)
        .await)?)
}

/// Where migrations lead.
#[derive(Clone, Copy)]
enum Direction {
    Up,
    BackTo(i64),
}

async fn run<C: Migrate>(migrator: &Migrator, connection: &mut C, direction: Direction) -> Result<(), StorageError>
where
    for<'c> &'c mut C: Acquire<'c, Connection = &'c mut C>,
{
    let done = match direction {
        Direction::Up => migrator.run_direct(None, connection, false).await,
        Direction::BackTo(version) => migrator.undo(connection, version).await,
    };
    done.map_err(|error| match error {
        MigrateError::VersionMismatch(version) => StorageError::SchemaDiffers { version },
        MigrateError::Dirty(version) => StorageError::SchemaInterrupted { version },
        other => StorageError::Migration(other),
    })
}

fn newest<'m>(migrations: impl Iterator<Item = &'m Migration>) -> i64 {
    migrations.map(|migration| migration.version).max().unwrap_or(0)
}

fn compare(known: &[Migration], applied: &[Applied]) -> Result<(), StorageError> {
    let known: Vec<&Migration> = known
        .iter()
        .filter(|migration| !migration.migration_type.is_down_migration())
        .collect();
    let newest_known = newest(known.iter().copied());
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
