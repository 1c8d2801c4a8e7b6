//! A database of its own for every test.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};

use server::storage::{DatabaseSettings, Store, Tx};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// An empty, migrated database that goes away with the value (on PostgreSQL: with the throw-away cluster).
pub struct Database {
    pub store: Store,
    pub url: String,
    _folder: tempfile::TempDir,
}

pub fn on_postgres() -> bool {
    match std::env::var("MAYFLY_TEST_DATABASE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("MAYFLY_TEST_DATABASE is sqlite or postgres, not {other}"),
    }
}

impl Database {
    /// Migrated.
    pub async fn new() -> Self {
        let database = Self::unmigrated().await;
        database.store.migrate().await.expect("migrates");
        database
    }

    /// Without tables.
    pub async fn unmigrated() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = if on_postgres() {
            create_postgres().await
        } else {
            format!("sqlite:{}", folder.path().join("mayfly.db").display())
        };
        let settings = DatabaseSettings {
            url: url.clone(),
            max_connections: 4,
        };
        let store = Store::connect(&settings).await.expect("connects");
        Self {
            store,
            url,
            _folder: folder,
        }
    }

    pub async fn read(&self) -> Tx {
        self.store.read().await.expect("a connection")
    }

    pub async fn write(&self) -> Tx {
        self.store.write().await.expect("a transaction")
    }

    /// Statements of somebody who has the database in their hands.
    pub async fn tamper(&self, sql: &str) -> Result<u64, sqlx::Error> {
        let mut connection = self.raw().await;
        let changed = match &mut connection {
            Raw::Sqlite(connection) => connection.execute(AssertSqlSafe(sql)).await?.rows_affected(),
            Raw::Postgres(connection) => connection.execute(AssertSqlSafe(sql)).await?.rows_affected(),
        };
        connection.close().await;
        Ok(changed)
    }

    pub async fn raw(&self) -> Raw {
        if on_postgres() {
            Raw::Postgres(PgConnection::connect(&self.url).await.expect("connects"))
        } else {
            Raw::Sqlite(SqliteConnection::connect(&self.url).await.expect("connects"))
        }
    }
}

/// A connection past the store.
pub enum Raw {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Raw {
    pub async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.expect("closes"),
            Self::Postgres(connection) => connection.close().await.expect("closes"),
        }
    }
}

async fn create_postgres() -> String {
    let admin = std::env::var("MAYFLY_TEST_POSTGRES_URL").expect("MAYFLY_TEST_POSTGRES_URL names an admin connection");
    let name = format!(
        "mayfly_storage_{}_{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    );
    let mut connection = PgConnection::connect(&admin).await.expect("the admin connection");
    // Left over from a process of the same number.
    connection
        .execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}")))
        .await
        .expect("drops");
    connection
        .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .expect("creates");
    connection.close().await.expect("closes");
    let options = PgConnectOptions::from_str(&admin).expect("an address").database(&name);
    sqlx::ConnectOptions::to_url_lossy(&options).to_string()
}
