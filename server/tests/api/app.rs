//! The application as tests run it: real in every part but time and chance.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use server::config::Settings;
use server::domain::clock::{Clock as _, ManualClock, SystemClock, Timestamp};
use server::domain::keys::KeyEncryptionKey;
use server::domain::random::Random;
use server::http::listen;
use server::services::{Backend, sha256};
use server::startup::{Application, checkpoint_path};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::database::{Rows, TestDatabase};
use crate::process::{Line, Process};
use crate::reply::Reply;

/// 2026-11-21T09:00:00Z, where every test begins.
pub const BEGIN: Timestamp = Timestamp::from_seconds(1_795_251_600);

/// Where people reach the application, as its default settings say.
pub const ORIGIN: &str = "http://localhost:3000";

/// Random bytes that are the same in every run of a test.
#[derive(Debug)]
pub struct SeededRandom(Mutex<ChaCha20Rng>);

impl SeededRandom {
    /// The stream of this name.
    pub fn new(name: &str) -> Self {
        Self(Mutex::new(ChaCha20Rng::from_seed(sha256(name.as_bytes()))))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

/// The key-encryption key of all tests: one key, so that a password has to be hashed only once per run.
pub fn key_encryption_key() -> KeyEncryptionKey {
    KeyEncryptionKey::from_base64(&key_text()).expect("32 bytes are a key")
}

fn key_text() -> String {
    data_encoding::BASE64.encode(&sha256(b"key-encryption key of the tests"))
}

/// One running application. Cheap to clone; the database goes when the last clone does.
#[derive(Clone)]
pub struct TestApp(Arc<Inner>);

struct Inner {
    running: Running,
    place: Arc<Place>,
}

/// Where it runs.
enum Running {
    /// In this process, asked without a socket, or through its door once there is one.
    Here {
        application: Box<Application>,
        clock: Arc<ManualClock>,
        door: OnceLock<Door>,
    },
    /// As the real program, by the system's clock.
    Program(Process),
    /// Nowhere.
    Not,
}

/// A port on loopback behind the listener of the program.
struct Door {
    line: Line,
    serving: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What outlives a restart.
struct Place {
    name: String,
    folder: TempDir,
    database: TestDatabase,
    changes: Vec<(String, String)>,
    starts: AtomicU32,
    /// Last time step of which a code was taken, by sign-in name.
    steps: Mutex<HashMap<String, i64>>,
}

impl Place {
    async fn make(name: &str, changes: &[(&str, &str)]) -> Self {
        Self {
            name: name.to_owned(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            database: TestDatabase::create().await,
            changes: changes
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            starts: AtomicU32::new(0),
            steps: Mutex::default(),
        }
    }
}

impl TestApp {
    /// A fresh application. `name` seeds its randomness: the test's own name.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// The same with settings of the test's own, as variables of the environment without `MAYFLY__`.
    pub async fn start_with(name: &str, changes: &[(&str, &str)]) -> Self {
        let place = Arc::new(Place::make(name, changes).await);
        Self::open_with(place, Arc::new(ManualClock::new(BEGIN)), &[]).await
    }

    /// The same by a clock that begins at another moment.
    pub async fn start_at(name: &str, begin: Timestamp) -> Self {
        let place = Arc::new(Place::make(name, &[]).await);
        Self::open_with(place, Arc::new(ManualClock::new(begin)), &[]).await
    }

    /// Only the place for one: nothing runs, and no key-encryption key is given. For what commands say.
    pub async fn start_without_key(name: &str) -> Self {
        let place = Arc::new(Place::make(name, &[("SECRETS__KEY_ENCRYPTION_KEY", "")]).await);
        let running = Running::Not;
        Self(Arc::new(Inner { running, place }))
    }

    /// The real program beside this one, on the same database and with the same secrets, by the system's clock.
    pub async fn spawn_beside(&self) -> Self {
        let place = self.0.place.clone();
        let process = Process::start(variables(&place, &[("SERVER__ADDRESS", "127.0.0.1:0")])).await;
        let running = Running::Program(process);
        Self(Arc::new(Inner { running, place }))
    }

    /// Runs a command of the real program with the application's settings, and these changed, to its end.
    pub async fn command(&self, arguments: &[&str], changes: &[(&str, &str)]) -> std::process::Output {
        let address = [("SERVER__ADDRESS", "127.0.0.1:0")];
        let variables = variables(&self.0.place, &[&address, changes].concat());
        let mut command = std::process::Command::new(crate::program_file());
        command.args(arguments).env_clear().envs(variables);
        tokio::task::spawn_blocking(move || command.output().expect("the program starts"))
            .await
            .expect("it ends")
    }

    /// The application's folder.
    pub fn folder(&self) -> &std::path::Path {
        self.0.place.folder.path()
    }

    /// The real program on a port of its own, with its own secrets and the system's clock.
    pub async fn spawn(name: &str, changes: &[(&str, &str)]) -> Self {
        let place = Arc::new(Place::make(name, changes).await);
        let mut variables = variables(&place, &[("SERVER__ADDRESS", "127.0.0.1:0")]);
        variables.retain(|(key, _)| key != "MAYFLY__SECRETS__KEY_ENCRYPTION_KEY");
        let running = Running::Program(Process::start(variables).await);
        Self(Arc::new(Inner { running, place }))
    }

    /// The real program's process.
    #[track_caller]
    pub fn process(&self) -> &Process {
        match &self.0.running {
            Running::Program(process) => process,
            Running::Here { .. } | Running::Not => panic!("this application has no process"),
        }
    }

    #[track_caller]
    fn here(&self) -> (&Application, &Arc<ManualClock>) {
        match &self.0.running {
            Running::Here { application, clock, .. } => (application, clock),
            Running::Program(_) | Running::Not => panic!("this application does not run in the test"),
        }
    }

    /// The application once more on the same database, as after a restart.
    pub async fn restart(&self) -> Self {
        self.restart_with(&[]).await
    }

    /// Stops it, keeps a copy of its database and starts it again.
    pub async fn back_up_and_restart(&self) -> Self {
        self.backend().store().close().await;
        self.0.place.database.back_up(&self.database_url()).await;
        self.restart().await
    }

    /// Stops it, puts the copy in place of its database and starts it again.
    pub async fn restore_and_restart(&self) -> Self {
        self.backend().store().close().await;
        self.0.place.database.restore(&self.database_url()).await;
        self.restart().await
    }

    /// The same with other settings.
    pub async fn restart_with(&self, changes: &[(&str, &str)]) -> Self {
        Self::open_with(self.0.place.clone(), self.here().1.clone(), changes).await
    }

    async fn open_with(place: Arc<Place>, clock: Arc<ManualClock>, changes: &[(&str, &str)]) -> Self {
        let start = place.starts.fetch_add(1, Ordering::SeqCst);
        // Another stream after a restart: the first one's ids are taken.
        let random = Arc::new(SeededRandom::new(&format!("{}, start {start}", place.name)));
        let settings = Settings::from_sources(None, variables(&place, changes)).expect("the tests' settings are valid");
        let application = Application::build(settings, clock.clone(), random)
            .await
            .expect("the application starts");
        let running = Running::Here {
            application: Box::new(application),
            clock,
            door: OnceLock::new(),
        };
        Self(Arc::new(Inner { running, place }))
    }

    /// From now on every request comes over a connection from loopback, through the listener of the program.
    pub fn serve(&self) {
        let Running::Here { application, door, .. } = &self.0.running else {
            panic!("this application does not run in the test");
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let line = Line::to(listener.local_addr().expect("bound"));
        let (state, router) = (application.state().clone(), application.router());
        let serving = tokio::spawn(async move {
            let (server, stop) = (&state.settings.server, std::future::pending());
            listen::serve_on(listener, None, router, server, &state.draining, stop)
                .await
                .expect("it listens");
        });
        assert!(door.set(Door { line, serving }).is_ok(), "it has a door already");
    }

    /// Another node on the same database whose clock shows something else.
    pub async fn beside_at(&self, now: Timestamp) -> Self {
        Self::open_with(self.0.place.clone(), Arc::new(ManualClock::new(now)), &[]).await
    }

    /// Settings of another node on the same database.
    pub fn settings(&self, changes: &[(&str, &str)]) -> Settings {
        Settings::from_sources(None, variables(&self.0.place, changes)).expect("the tests' settings are valid")
    }

    /// The services, for what no request can do.
    pub fn backend(&self) -> &Backend {
        &self.state_of_handlers().backend
    }

    /// Seals what has happened, as the program does every few seconds.
    pub async fn seal(&self) {
        let checkpoint = checkpoint_path(&self.settings(&[]));
        self.backend().seal_audit(&checkpoint).await.expect("sealed");
    }

    /// What the handlers share.
    pub fn state_of_handlers(&self) -> &server::http::AppState {
        self.here().0.state()
    }

    /// The clock of the application.
    pub fn now(&self) -> Timestamp {
        match &self.0.running {
            Running::Here { clock, .. } => clock.now(),
            Running::Program(_) | Running::Not => SystemClock.now(),
        }
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: u64) {
        self.here().1.advance(Duration::from_secs(seconds));
    }

    /// Sets the clock, forward or back.
    pub fn set_clock(&self, to: Timestamp) {
        self.here().1.set(to);
    }

    /// Lets time pass, if it must, until a code can be shown that was not shown before.
    pub fn next_code_time(&self, username: &str) -> Timestamp {
        let mut steps = self.0.place.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let last = steps.get(username).copied().unwrap_or(-1);
        let wait = last.saturating_add(1).saturating_mul(30) - self.now().as_seconds();
        if let Ok(wait @ 1..) = u64::try_from(wait) {
            self.pass(wait);
        }
        steps.insert(username.to_owned(), self.now().as_seconds() / 30);
        self.now()
    }

    /// Sends one request as if it came over a connection from `peer`; over a real one it comes from loopback.
    pub async fn send(&self, peer: SocketAddr, mut request: Request<Body>) -> Reply {
        request.extensions_mut().insert(ConnectInfo(peer));
        match &self.0.running {
            Running::Here { application, door, .. } => {
                if let Some(door) = door.get() {
                    return door.line.send(request).await.expect("an answer");
                }
                let response = application.router().oneshot(request).await;
                Reply::read(response.expect("the router answers always")).await
            }
            Running::Program(process) => process.send(request).await,
            Running::Not => panic!("nothing runs"),
        }
    }

    /// The rows of a query, each column as text. SQL of a test may look into any table.
    pub async fn rows(&self, sql: &str) -> Rows {
        self.0.place.database.rows(&self.database_url(), sql).await
    }

    /// The one number a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql).await;
        rows[0][0].as_deref().expect("not null").parse().expect("a number")
    }

    /// Carries out a statement: a test may change what no request can.
    pub async fn execute(&self, sql: &str) {
        self.0.place.database.execute(&self.database_url(), sql).await;
    }

    /// How many audit events of a kind there are.
    pub async fn events(&self, kind: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM audit_events WHERE kind = '{kind}'"))
            .await
    }

    /// Everything a request could change but the audit log and the state beside a sign-in, as one text.
    pub async fn state(&self) -> String {
        const QUERIES: [&str; 7] = [
            "SELECT username, email, display_name, status, password_hash, auth_epoch, grant_epoch FROM users ORDER BY 1",
            "SELECT u.username, r.role FROM user_roles r JOIN users u ON u.id = r.user_id ORDER BY 1, 2",
            "SELECT role, version FROM policies ORDER BY 1, 2",
            "SELECT u.username, a.created_at FROM authenticators a JOIN users u ON u.id = a.user_id ORDER BY 1",
            "SELECT u.username, count(*) AS made, count(c.used_at) AS used, max(c.created_at) AS at \
             FROM recovery_codes c JOIN users u ON u.id = c.user_id GROUP BY 1 ORDER BY 1",
            "SELECT purpose, created_at, used_at FROM one_time_links ORDER BY 1, 2, 3",
            "SELECT u.username, s.started_at, s.generation, s.reissues, s.min_generation, s.authenticated_at, \
             s.ended_at, s.end_reason FROM sessions s JOIN users u ON u.id = s.user_id ORDER BY 1, 2, 3, 4, 5, 6, 7, 8",
        ];
        let mut all = String::new();
        for query in QUERIES {
            for row in self.rows(query).await {
                // Writing to a String cannot fail.
                let _ = writeln!(all, "{row:?}");
            }
        }
        all
    }

    /// The text of everything that the database and the files of the application hold, for finding what must not
    /// be there: every value of every table as text, and every file as it is.
    pub async fn everything_kept(&self) -> Vec<u8> {
        let mut all = self.0.place.database.dump(&self.database_url()).await;
        for file in std::fs::read_dir(self.0.place.folder.path()).expect("the folder is there") {
            let path = file.expect("a file").path();
            if path.is_file() {
                all.extend(std::fs::read(path).expect("our own file"));
            }
        }
        all
    }

    /// Address of the database.
    pub fn database_url(&self) -> String {
        database_url(&self.0.place)
    }
}

fn database_url(place: &Place) -> String {
    place
        .database
        .url()
        .unwrap_or_else(|| format!("sqlite:{}", place.folder.path().join("mayfly.db").display()))
}

fn variables(place: &Place, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut variables = vec![
        ("DATA_DIR".to_owned(), place.folder.path().display().to_string()),
        ("DATABASE__URL".to_owned(), database_url(place)),
        ("DATABASE__MAX_CONNECTIONS".to_owned(), "8".to_owned()),
        ("SECRETS__KEY_ENCRYPTION_KEY".to_owned(), key_text()),
        ("PASSWORD__HASHING_THREADS".to_owned(), "2".to_owned()),
    ];
    // Wide limits: each test of a limit sets its own.
    for kind in ["SIGN_IN", "CODE", "REFRESH", "FORM", "REPORT", "CLIENT"] {
        for bucket in ["ADDRESS", "ACCOUNT_AT_ADDRESS", "ACCOUNT"] {
            variables.push((format!("LIMITS__{kind}__{bucket}__BURST"), "100000".to_owned()));
            variables.push((format!("LIMITS__{kind}__{bucket}__EVERY_SECONDS"), "1".to_owned()));
        }
    }
    let own = place.changes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in own.chain(changes.iter().copied()) {
        variables.retain(|(name, _)| name != key);
        variables.push((key.to_owned(), value.to_owned()));
    }
    // An empty one stands for none.
    variables.retain(|(_, value)| !value.is_empty());
    variables
        .into_iter()
        .map(|(key, value)| (format!("MAYFLY__{key}"), value))
        .collect()
}
