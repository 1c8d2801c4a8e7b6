//! Where the program runs: its folder, its database and the people in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use server::config::Settings;
use server::domain::audit::Circumstances;
use server::domain::clock::SystemClock;
use server::domain::id::SessionId;
use server::domain::policy::{Lifetimes, Mfa};
use server::domain::random::{Random, SystemRandom, secret};
use server::domain::refresh::{SessionSecret, derive};
use server::domain::session::Client as Kind;
use server::services::Backend;
use server::services::admin::NewPerson;
use server::services::invitations::{AcceptOutcome, Acceptance};
use server::services::sign_in::{Caller, PasswordOutcome};
use server::startup::{Purpose, open_backend};
use server::storage::sessions::{find_session, insert_session};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use tempfile::TempDir;

use crate::clients::Client;

/// The one person's sign-in name and password.
pub const USERNAME: &str = "walter";
pub const PASSWORD: &str = "nine patient mayflies at dawn";

/// A folder and a database of one test's own.
pub struct Place {
    /// What is removed at the end; the data may lie elsewhere.
    own: TempDir,
    data: PathBuf,
    postgres: Option<Postgres>,
}

struct Postgres {
    admin: String,
    name: String,
}

static MADE: AtomicU32 = AtomicU32::new(0);

/// The administrator's connection, if the tests are to run on PostgreSQL.
pub fn postgres_url() -> Option<String> {
    match std::env::var("MAYFLY_TEST_DATABASE").as_deref() {
        Err(_) | Ok("" | "sqlite") => None,
        Ok("postgres") => Some(std::env::var("MAYFLY_TEST_POSTGRES_URL").expect("MAYFLY_TEST_POSTGRES_URL is set")),
        Ok(other) => panic!("MAYFLY_TEST_DATABASE={other}: allowed are sqlite and postgres"),
    }
}

impl Place {
    /// On the database that the environment asks for.
    pub async fn make() -> Self {
        match postgres_url() {
            None => Self::sqlite(None),
            Some(admin) => Self::postgres(admin).await,
        }
    }

    /// On a file, in this folder or one of its own.
    pub fn sqlite(data: Option<&Path>) -> Self {
        let own = tempfile::tempdir().expect("a temporary folder");
        let data = data.map_or_else(|| own.path().to_path_buf(), Path::to_path_buf);
        Self {
            own,
            data,
            postgres: None,
        }
    }

    /// On a new database of this server.
    pub async fn postgres(admin: String) -> Self {
        let name = format!(
            "mayfly_faults_{}_{}",
            std::process::id(),
            MADE.fetch_add(1, Ordering::SeqCst)
        );
        let mut connection = PgConnection::connect(&admin).await.expect("the server answers");
        let make = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(make).execute(&mut connection).await.expect("a database");
        connection.close().await.expect("closed");
        let mut place = Self::sqlite(None);
        place.postgres = Some(Postgres { admin, name });
        place
    }

    /// For output of the program and of what watches it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.own.path().join(name)
    }

    /// The file of an embedded database, or one beside it.
    pub fn database_file(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.data.join("mayfly.db").display())
    }

    /// Address of the database.
    pub fn url(&self) -> String {
        let Some(Postgres { admin, name }) = &self.postgres else {
            return format!("sqlite:{}", self.database_file(""));
        };
        let (server, _) = admin.rsplit_once('/').expect("an address with a database");
        format!("{server}/{name}")
    }

    /// Settings of the program. Wide limits: its clients are many at one address.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("DATA_DIR".to_owned(), self.data.display().to_string()),
            ("DATABASE__URL".to_owned(), self.url()),
            ("DATABASE__MAX_CONNECTIONS".to_owned(), "8".to_owned()),
            ("SERVER__ADDRESS".to_owned(), "127.0.0.1:0".to_owned()),
            ("PASSWORD__HASHING_THREADS".to_owned(), "2".to_owned()),
        ];
        for kind in ["SIGN_IN", "REFRESH", "CLIENT"] {
            for bucket in ["ADDRESS", "ACCOUNT_AT_ADDRESS", "ACCOUNT"] {
                variables.push((format!("LIMITS__{kind}__{bucket}__BURST"), "1000000".to_owned()));
                variables.push((format!("LIMITS__{kind}__{bucket}__EVERY_SECONDS"), "1".to_owned()));
            }
        }
        let prefixed = variables
            .into_iter()
            .map(|(key, value)| (format!("MAYFLY__{key}"), value));
        prefixed.collect()
    }

    /// The same, read.
    pub fn settings(&self) -> Settings {
        Settings::from_sources(None, self.environment()).expect("the tests' settings are valid")
    }

    async fn backend(&self) -> Backend {
        open_backend(
            &self.settings(),
            Arc::new(SystemClock),
            Arc::new(SystemRandom::default()),
            Purpose::Command,
        )
        .await
        .expect("it opens")
    }

    /// One person who signs in, and so many sessions of programs like it, each with an id and a secret of its own.
    pub async fn people(&self, sessions: usize) -> Vec<Client> {
        let backend = self.backend().await;
        let day = Duration::from_hours(24);
        let lifetimes = Lifetimes {
            access: Duration::from_mins(10),
            idle: 30 * day,
            absolute: 60 * day,
            idle_warning: Duration::ZERO,
            remember_device: Duration::ZERO,
            mfa: Mfa::Off,
            step_up: Duration::from_mins(10),
            max_sessions: 1000,
        };
        backend
            .add_role("program", "A role of the tests", lifetimes)
            .await
            .expect("a role");
        let first = invite(&backend, USERNAME).await;
        let mut tx = backend.store().write().await.expect("a transaction");
        let template = find_session(&mut tx, first).await;
        let mut session = template.expect("answers").expect("it is there");
        let random = SystemRandom::default();
        let ring = backend.keys();
        let mut clients = Vec::with_capacity(sessions);
        for _ in 0..sessions {
            let secret = SessionSecret::new(secret::<32>(&random as &dyn Random));
            session.id = SessionId::new(backend.now(), &random);
            let kek = backend.key_encryption_key();
            session.secret_sealed = kek.seal("session", session.id.0.as_bytes(), secret.expose(), &random);
            insert_session(&mut tx, &session).await.expect("a session");
            let token = derive(&ring, &secret, session.id, session.generation, session.rotated_at);
            clients.push(Client::new(token.expose_secret()));
        }
        tx.commit().await.expect("committed");
        backend.store().close().await;
        clients
    }

    /// Another person with the same role and password, after [`Self::people`].
    pub async fn another(&self, username: &str) {
        let backend = self.backend().await;
        invite(&backend, username).await;
        backend.store().close().await;
    }

    /// Starts a command of the program, its output in a file of that name.
    pub fn command(&self, arguments: &[&str], output: &str) -> Child {
        Command::new(crate::program_file())
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(File::create(self.file(output)).expect("a file"))
            .stderr(File::create(self.file("command.log")).expect("a file"))
            .spawn()
            .expect("the command starts")
    }

    /// What was written to a file of [`Self::file`].
    pub fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("our own file")
    }

    /// Time passes while the program is down: every time of sessions and keys lies so much further back.
    pub async fn let_pass(&self, seconds: i64) {
        for sql in back(seconds) {
            self.execute(&sql).await;
        }
    }

    /// The same while the program is stopped, if it does not hold SQLite's lock. PostgreSQL cuts off who is silent for
    /// 10 seconds in a transaction, and so it does here.
    pub async fn let_pass_meanwhile(&self, seconds: i64) -> bool {
        if self.postgres.is_some() {
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND state = 'idle in transaction'",
            )
            .await;
            self.let_pass(seconds).await;
            return true;
        }
        let file = SqliteConnectOptions::from_str(&self.url()).expect("our own address");
        let options = file.busy_timeout(Duration::ZERO);
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .expect("the database opens");
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.is_ok();
        if begun {
            for sql in back(seconds).into_iter().chain(["COMMIT".to_owned()]) {
                let sql = AssertSqlSafe(sql);
                sqlx::query(sql).execute(&mut connection).await.expect("it runs");
            }
        }
        connection.close().await.expect("closed");
        begun
    }

    /// Carries out a statement.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.postgres.is_some() {
            let mut connection = PgConnection::connect(&self.url()).await.expect("the database opens");
            sqlx::query(sql).execute(&mut connection).await.expect("it runs");
            connection.close().await.expect("closed");
        } else {
            let mut connection = SqliteConnection::connect(&self.url())
                .await
                .expect("the database opens");
            sqlx::query(sql).execute(&mut connection).await.expect("it runs");
            connection.close().await.expect("closed");
        }
    }

    /// Rows of two columns of text and one number.
    pub async fn rows(&self, sql: &str) -> Vec<(String, String, i64)> {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.postgres.is_some() {
            let mut connection = PgConnection::connect(&self.url()).await.expect("the database opens");
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.expect("it runs");
            connection.close().await.expect("closed");
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
        } else {
            let mut connection = SqliteConnection::connect(&self.url())
                .await
                .expect("the database opens");
            let rows = sqlx::query(sql).fetch_all(&mut connection).await.expect("it runs");
            connection.close().await.expect("closed");
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
        }
    }

    /// A column of ids as 32 hexadecimal digits.
    pub fn hex(&self, column: &str) -> String {
        if self.postgres.is_some() {
            format!("replace({column}::text, '-', '')")
        } else {
            format!("lower(hex({column}))")
        }
    }
}

/// What moves all times of sessions and keys so much further back.
fn back(seconds: i64) -> [String; 2] {
    let ms = seconds * 1000;
    let back = |columns: &[&str]| {
        let each: Vec<String> = columns
            .iter()
            .map(|column| format!("{column} = {column} - {ms}"))
            .collect();
        each.join(", ")
    };
    let sessions = back(&[
        "rotated_at",
        "handed_out_at",
        "superseded_at",
        "access_expires_at",
        "started_at",
        "authenticated_at",
        "last_active_at",
        "absolute_expires_at",
    ]);
    let keys = back(&["created_at", "activated_at", "retired_at", "removed_at"]);
    [
        format!("UPDATE sessions SET {sessions}"),
        format!("UPDATE keys SET {keys}"),
    ]
}

/// Adds a person and signs in once; the session.
async fn invite(backend: &Backend, username: &str) -> SessionId {
    let new = NewPerson {
        username: username.to_owned(),
        email: String::new(),
        display_name: username.to_owned(),
        roles: vec!["program".to_owned()],
    };
    let link = backend.add_person(new).await.expect("answers").expect("added");
    let with = Acceptance {
        username: String::new(),
        email: String::new(),
        display_name: String::new(),
        password: SecretString::from(PASSWORD),
    };
    let caller = Caller {
        from: Circumstances::default(),
        address: [198, 51, 100, 7].into(),
        client: Kind::Native,
        device: None,
        key: None,
    };
    let secret_part = link.expose_secret().rsplit('/').next().unwrap_or_default().to_owned();
    let accepted = backend
        .accept_invitation(&SecretString::from(secret_part), with, &caller)
        .await
        .expect("answers");
    let AcceptOutcome::Accepted(PasswordOutcome::SignedIn(signed_in)) = accepted else {
        panic!("the invitation was refused");
    };
    signed_in.issued.live.session.id
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(Postgres { admin, name }) = self.postgres.take() else {
            return;
        };
        // On a thread of its own: the test's runtime may be going down just now.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let mut connection = PgConnection::connect(&admin).await.map_err(std::io::Error::other)?;
                let sql = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
                let done = sqlx::query(sql).execute(&mut connection).await;
                done.map(drop).map_err(std::io::Error::other)
            })
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("the test's database was not dropped");
        }
    }
}
