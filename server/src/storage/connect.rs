//! Opening the database: pools, their limits and the durability they promise. Must not know any table.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use super::changes::Changes;
use super::postgres::Postgres;
use super::sqlite::{self, Sqlite};
use super::together::{Desk, Server, Together, under_way_at_most};
use super::{Inner, StorageError, Tx, audit, clients, nodes, sessions};

/// The longest wait for a connection or a lock before the answer is "unavailable".
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// `sqlite:PATH` or `postgres://user:password@host/database`.
    pub url: String,
    /// Most connections at once; with SQLite so many readers beside the one writer.
    pub max_connections: u32,
}

impl fmt::Debug for DatabaseSettings {
    /// Without the address: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSettings")
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// The opened database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pools: Pools,
    /// What transactions of this process have committed.
    pub(super) changes: Arc<Changes>,
}

#[derive(Clone)]
pub(super) enum Pools {
    /// The embedded database.
    Sqlite {
        sqlite: Sqlite,
        together: AskedTogether<Sqlite>,
    },
    /// A server; `migration` connects without the statement time limit, `many` are for what is asked together.
    Postgres {
        postgres: Postgres,
        many: [Postgres; 2],
        together: AskedTogether<Server>,
        /// SQLite's own way shares commits (`sqlite::whole`).
        rotations: Together<Server, sessions::rotation::Recorded>,
        migration: Box<PgConnectOptions>,
    },
}

/// What is asked of the database for many callers at once, because it is asked most.
#[derive(Clone)]
pub(super) struct AskedTogether<D> {
    pub(super) known: Together<D, sessions::known::Sought>,
    pub(super) clients: Together<D, clients::known::Sought>,
    pub(super) events: Together<D, audit::alone::Alone>,
}

impl<D> AskedTogether<D>
where
    D: Desk<sessions::known::Sought> + Desk<clients::known::Sought> + Desk<audit::alone::Alone>,
{
    fn at(reading: &D, writing: &D) -> Self {
        Self {
            known: Together::new(reading),
            clients: Together::new(reading),
            events: Together::new(writing),
        }
    }
}

/// Connections for two kinds of question that are asked together, and some that have fallen silent. PostgreSQL has two pools
/// of so many beside the one of the settings.
#[must_use]
pub fn connections_for_two() -> u32 {
    2 * under_way_at_most() + 2
}

impl fmt::Debug for Pools {
    /// Only the kind: connection options hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite { .. } => "Sqlite",
            Self::Postgres { .. } => "Postgres",
        })
    }
}

impl Store {
    /// Opens the database; a missing SQLite file is made, readable by its owner only. Tables are [`Store::migrate`]'s.
    ///
    /// # Errors
    /// An address that makes no sense, or a database that cannot be reached.
    pub async fn connect(settings: &DatabaseSettings) -> Result<Self, StorageError> {
        let readers = settings.max_connections.max(1);
        let pools = if let Some(path) = sqlite_path(&settings.url) {
            if path.is_empty() || path.contains([':', '?']) {
                return Err(StorageError::Address(
                    "after sqlite: comes the path of a file, without ':' or '?'",
                ));
            }
            let sqlite = Sqlite::open(path, readers).await?;
            Pools::Sqlite {
                together: AskedTogether::at(&sqlite, &sqlite),
                sqlite,
            }
        } else if settings.url.starts_with("postgres://") || settings.url.starts_with("postgresql://") {
            connect_postgres(&settings.url, settings.max_connections.max(2)).await?
        } else {
            return Err(StorageError::Address("it must begin with sqlite: or postgres://"));
        };
        Ok(Self {
            pools,
            changes: Arc::default(),
        })
    }

    /// Whether any other process has this database open; one on PostgreSQL as far as it calls itself `mayfly`. Nothing keeps
    /// one from coming a moment later.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn is_open_elsewhere(settings: &DatabaseSettings) -> Result<bool, StorageError> {
        if let Some(path) = sqlite_path(&settings.url) {
            return sqlite::is_open(path).await;
        }
        let mut connection = PgConnection::connect_with(&postgres_options(&settings.url)?).await?;
        // A connection that was just closed is listed for a moment.
        for _ in 0..20 {
            if nodes::count_other_connections(&mut connection).await? == 0 {
                connection.close().await?;
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        connection.close().await?;
        Ok(true)
    }

    /// Runs on PostgreSQL.
    #[must_use]
    pub const fn is_postgres(&self) -> bool {
        matches!(self.pools, Pools::Postgres { .. })
    }

    /// Comes back when the disk did not take what was written to the embedded database: nothing is written from then on, and
    /// the process is to end. How a server keeps its own disk is its own affair: then never.
    pub async fn sync_failed(&self) {
        if let Pools::Sqlite { sqlite, .. } = &self.pools {
            let mut failed = sqlite.sync_failed().clone();
            if failed.wait_for(|failed| *failed).await.is_ok() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Whether it did not.
    #[must_use]
    pub fn has_sync_failed(&self) -> bool {
        matches!(&self.pools, Pools::Sqlite { sqlite, .. } if *sqlite.sync_failed().borrow())
    }

    /// A connection to read with; each statement sees what was committed before it.
    ///
    /// # Errors
    /// When none is free within 5 seconds or the database cannot be reached.
    pub async fn read(&self) -> Result<Tx, StorageError> {
        let inner = match &self.pools {
            Pools::Sqlite { sqlite, .. } => Inner::SqliteRead(sqlite.read().await?),
            Pools::Postgres { postgres, .. } => Inner::PostgresRead(postgres.lend().await?),
        };
        Ok(Tx::new(inner, self.changes.clone()))
    }

    /// A transaction to write with. SQLite: one at a time, in order of arrival; it sees what those before it wrote,
    /// and shares their commit. PostgreSQL: READ COMMITTED; conditional updates wait for each other's rows.
    ///
    /// # Errors
    /// When its turn does not come within 5 seconds or the database cannot be reached.
    pub async fn write(&self) -> Result<Tx, StorageError> {
        let inner = match &self.pools {
            Pools::Sqlite { sqlite, .. } => Inner::SqliteWrite(sqlite.write().await?),
            Pools::Postgres { postgres, .. } => {
                let mut lent = postgres.lend().await?;
                lent.begin().await?;
                Inner::PostgresWrite(lent)
            }
        };
        Ok(Tx::new(inner, self.changes.clone()))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StorageError> {
        self.read().await?.ping().await
    }

    /// Gives the memory of what is not needed any more back; for housekeeping.
    pub fn rest(&self) {
        match &self.pools {
            Pools::Sqlite { sqlite, .. } => sqlite.forget_idle_readers(),
            Pools::Postgres { postgres, many, .. } => {
                for pool in [postgres].into_iter().chain(many) {
                    pool.forget_idle();
                }
            }
        }
    }

    /// Closes all connections once they are given back; the readers first, so that the writer leaves a complete file.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { sqlite, .. } => sqlite.close().await,
            Pools::Postgres { postgres, many, .. } => {
                let [reading, writing] = many;
                tokio::join!(postgres.close(), reading.close(), writing.close());
            }
        }
    }
}

fn postgres_options(url: &str) -> Result<PgConnectOptions, StorageError> {
    // The driver's own message could repeat the address, and with it a password.
    let options = PgConnectOptions::from_str(url);
    let options = options.map_err(|_| StorageError::Address("it is not a valid postgres:// address"))?;
    Ok(options.application_name("mayfly"))
}

/// Of an embedded database.
fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}

async fn connect_postgres(url: &str, max_connections: u32) -> Result<Pools, StorageError> {
    let migration = postgres_options(url)?;
    let patience = PATIENCE.as_millis().to_string();
    // Shorter than the statement's, so that the answer says what was waited for.
    let for_locks = (PATIENCE * 9 / 10).as_millis().to_string();
    // Nothing hangs for longer than anybody waits, and a stuck transaction gives its locks back.
    let options = migration.clone().options([
        ("statement_timeout", patience.as_str()),
        ("lock_timeout", for_locks.as_str()),
        ("idle_in_transaction_session_timeout", "10000"),
        // Also for a statement that is a transaction by itself.
        ("default_transaction_isolation", "read committed"),
        // Compiling takes twenty times as long as what any statement of ours does, and the server would begin it as soon as
        // it overestimates one: each refresh then took 25 ms instead of one.
        ("jit", "off"),
    ]);
    let for_many = options.clone().options([
        // Before the server itself looks for a deadlock (1 s), and before anybody notices.
        ("lock_timeout", "50"),
        // Each would otherwise be planned anew for the number it is asked for, which takes longer than doing it.
        ("plan_cache_mode", "force_generic_plan"),
        // All of it is rows by their keys. For a guessed number of them the server would rather read a whole table of a
        // thousand people, each time.
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ]);
    let postgres = Postgres::open(options, max_connections).await?;
    // Apart: what is read needs no commit, and must not stand behind those that wait for one.
    let reading = Postgres::open(for_many.clone(), connections_for_two()).await?;
    let writing = Postgres::open(for_many, connections_for_two()).await?;
    let desk = |many: &Postgres| Server {
        many: many.clone(),
        one: postgres.clone(),
    };
    Ok(Pools::Postgres {
        together: AskedTogether::at(&desk(&reading), &desk(&writing)),
        rotations: Together::new(&desk(&writing)),
        many: [reading, writing],
        postgres,
        migration: Box::new(migration),
    })
}
