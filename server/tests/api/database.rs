//! Databases of the tests, and a look into them past the product's own code.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Column as _, Connection as _, Row as _};

/// Rows of columns as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A database of one test's own.
pub enum TestDatabase {
    /// A file in the application's folder.
    Sqlite,
    /// A database on the throw-away server, dropped at the end.
    Postgres {
        /// Connection of the server's administrator.
        admin: String,
        /// Name.
        name: String,
    },
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    /// The kind that the environment asks for.
    pub async fn create() -> Self {
        match std::env::var("MAYFLY_TEST_DATABASE").as_deref() {
            Err(_) | Ok("" | "sqlite") => Self::Sqlite,
            Ok("postgres") => {
                let admin = std::env::var("MAYFLY_TEST_POSTGRES_URL").expect("MAYFLY_TEST_POSTGRES_URL is set");
                let name = format!(
                    "mayfly_api_{}_{}",
                    std::process::id(),
                    MADE.fetch_add(1, Ordering::SeqCst)
                );
                let mut connection = PgConnection::connect(&admin).await.expect("the server answers");
                sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
                    .execute(&mut connection)
                    .await
                    .expect("a new database");
                connection.close().await.expect("closed");
                Self::Postgres { admin, name }
            }
            Ok(other) => panic!("MAYFLY_TEST_DATABASE={other}: allowed are sqlite and postgres"),
        }
    }

    /// Its address; none for a file in the application's folder.
    pub fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres { admin, name } => {
                let (server, query) = admin
                    .split_once('?')
                    .map_or((admin.as_str(), None), |(a, b)| (a, Some(b)));
                let after_scheme = server.find("://").map_or(0, |at| at + 3);
                let end = server[after_scheme..]
                    .find('/')
                    .map_or(server.len(), |at| after_scheme + at);
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                Some(format!("{}/{name}{query}", &server[..end]))
            }
        }
    }

    /// The rows of a query, each column as text.
    pub async fn rows(&self, url: &str, sql: &str) -> Rows {
        // The database itself makes texts of all columns: no type has to be known here.
        match self {
            Self::Sqlite => {
                let mut connection = SqliteConnection::connect(url).await.expect("the database opens");
                let columns = {
                    use sqlx::{Executor as _, SqlSafeStr as _, Statement as _};
                    let text = AssertSqlSafe(sql.to_owned()).into_sql_str();
                    let statement = connection.prepare(text).await.expect("the query is right");
                    statement
                        .columns()
                        .iter()
                        .map(|column| column.name().to_owned())
                        .collect::<Vec<_>>()
                };
                let casts: Vec<String> = columns.iter().map(|name| format!("CAST(\"{name}\" AS TEXT)")).collect();
                let text = format!("SELECT {} FROM ({sql})", casts.join(", "));
                let rows = sqlx::query(AssertSqlSafe(text))
                    .fetch_all(&mut connection)
                    .await
                    .expect("the query runs");
                let rows = rows
                    .iter()
                    .map(|row| (0..row.len()).map(|i| row.get(i)).collect())
                    .collect();
                connection.close().await.expect("closed");
                rows
            }
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(url).await.expect("the database opens");
                let columns = {
                    use sqlx::{Executor as _, SqlSafeStr as _, Statement as _};
                    let text = AssertSqlSafe(sql.to_owned()).into_sql_str();
                    let statement = connection.prepare(text).await.expect("the query is right");
                    statement
                        .columns()
                        .iter()
                        .map(|column| column.name().to_owned())
                        .collect::<Vec<_>>()
                };
                let casts: Vec<String> = columns.iter().map(|name| format!("\"{name}\"::text")).collect();
                let text = format!("SELECT {} FROM ({sql}) AS q", casts.join(", "));
                let rows = sqlx::query(AssertSqlSafe(text))
                    .fetch_all(&mut connection)
                    .await
                    .expect("the query runs");
                let rows = rows
                    .iter()
                    .map(|row| (0..row.len()).map(|i| row.get(i)).collect())
                    .collect();
                connection.close().await.expect("closed");
                rows
            }
        }
    }

    /// Carries out a statement.
    pub async fn execute(&self, url: &str, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite => {
                let mut connection = SqliteConnection::connect(url).await.expect("the database opens");
                sqlx::query(sql)
                    .execute(&mut connection)
                    .await
                    .expect("the statement runs");
                connection.close().await.expect("closed");
            }
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(url).await.expect("the database opens");
                sqlx::query(sql)
                    .execute(&mut connection)
                    .await
                    .expect("the statement runs");
                connection.close().await.expect("closed");
            }
        }
    }

    /// Keeps a copy of it as it is. Nobody may be connected.
    pub async fn back_up(&self, url: &str) {
        match self {
            Self::Sqlite => {
                let file = PathBuf::from(url.strip_prefix("sqlite:").expect("a file"));
                std::fs::copy(&file, file.with_extension("backup")).expect("copied");
            }
            Self::Postgres { admin, name } => {
                administer(admin, &[format!("CREATE DATABASE {name}_backup TEMPLATE {name}")]).await;
            }
        }
    }

    /// Puts the copy in its place. Nobody may be connected.
    pub async fn restore(&self, url: &str) {
        match self {
            Self::Sqlite => {
                let file = PathBuf::from(url.strip_prefix("sqlite:").expect("a file"));
                for rest in ["db-wal", "db-shm"] {
                    let rest = file.with_extension(rest);
                    assert!(!rest.exists(), "{} is still in use", rest.display());
                }
                std::fs::rename(file.with_extension("backup"), &file).expect("put back");
            }
            Self::Postgres { admin, name } => {
                let put_back = [
                    format!("DROP DATABASE {name} WITH (FORCE)"),
                    format!("ALTER DATABASE {name}_backup RENAME TO {name}"),
                ];
                administer(admin, &put_back).await;
            }
        }
    }

    /// Every value of every table as text; bytes as hexadecimal digits. SQLite: nothing, its file says it all.
    pub async fn dump(&self, url: &str) -> Vec<u8> {
        let Self::Postgres { .. } = self else { return Vec::new() };
        let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
        let mut all = Vec::new();
        for table in self.rows(url, tables).await {
            let table = table[0].clone().expect("a table has a name");
            for row in self
                .rows(url, &format!("SELECT row_to_json(t) AS line FROM \"{table}\" t"))
                .await
            {
                all.extend(row[0].clone().unwrap_or_default().into_bytes());
                all.push(b'\n');
            }
        }
        all
    }
}

async fn administer(admin: &str, statements: &[String]) {
    let mut connection = PgConnection::connect(admin).await.expect("the server answers");
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement.clone()))
            .execute(&mut connection)
            .await
            .expect("the statement runs");
    }
    connection.close().await.expect("closed");
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Self::Postgres { admin, name } = self else { return };
        let (admin, sql) = (admin.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        // On a thread of its own: the test's runtime may be going down just now.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let mut connection = PgConnection::connect(&admin).await?;
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
                connection.close().await
            })
        })
        .join();
        match dropped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the test's database was not dropped: {error}"),
            Err(_) => eprintln!("the test's database was not dropped"),
        }
    }
}
