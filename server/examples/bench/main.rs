//! Figures of the release binary, as ratios to bare axum in the same run: `cargo xtask bench` runs it.
//!
//! The machine is noisy, so only ratios are worth comparing; each rate is the median of three runs. A goal stands beside
//! its figure, met or missed, and nothing fails by it. Everything stays on loopback, every loop is bounded in time, and
//! each process is stopped by its id. With `MAYFLY_BENCH_POSTGRES_URL` (an administrator's connection) PostgreSQL is
//! measured too; `MAYFLY_BENCH_SESSIONS` says how many sessions the larger databases hold. `MAYFLY_BENCH_PARTS` measures
//! only some of `pages,sqlite,postgres`.

mod load;
mod people;
mod reference;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection as _};

use load::{Same, exchange, get, median, now, post_form, wait_for};
use people::{SESSIONS, Tokens};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections of the page figures.
const CONNECTIONS: usize = 16;
/// Connections of the figures of tokens.
const LOADS: [usize; 3] = [1, CONNECTIONS, 64];
/// Cores that sign as fast as they can, to compare with.
const SIGNERS: usize = 2;
/// Sessions of the smaller database.
const SMALL: usize = 10_000;
/// Sessions of the larger one, unless set otherwise.
const LARGE: usize = 1_000_000;
/// This program as the reference: a process of its own, as the server is one.
const REFERENCE: &str = "--reference";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let word = words.next().ok_or("which binary? (cargo xtask bench passes it)")?;
    if word == REFERENCE {
        let port = words.next().ok_or("which port?")?.parse()?;
        return reference::serve(port, words.next()).await;
    }
    let binary = PathBuf::from(word);
    let folder = std::env::temp_dir().join(format!("mayfly-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let figures = Box::pin(measure(&binary, &folder)).await;
    std::fs::remove_dir_all(&folder)?;
    figures
}

async fn measure(binary: &Path, folder: &Path) -> Result<(), Failure> {
    let parts = std::env::var("MAYFLY_BENCH_PARTS").unwrap_or_else(|_| "pages,sqlite,postgres".to_owned());
    let is_wanted = |part| parts.split(',').any(|wanted| wanted == part);
    if is_wanted("pages") {
        Box::pin(pages(binary, &folder.join("pages"))).await?;
    }
    let large = std::env::var("MAYFLY_BENCH_SESSIONS").map_or(Ok(LARGE), |text| text.parse())?;
    let mut sizes = vec![SMALL, large];
    sizes.dedup();
    let mut databases = vec![("SQLite", None)];
    match std::env::var("MAYFLY_BENCH_POSTGRES_URL") {
        Ok(url) => databases.push(("PostgreSQL", Some(url))),
        Err(_) => println!("PostgreSQL is not measured: MAYFLY_BENCH_POSTGRES_URL is not set"),
    }
    databases.retain(|(name, _)| is_wanted(if *name == "SQLite" { "sqlite" } else { "postgres" }));
    for (name, url) in databases {
        let mut smaller = None;
        for sessions in &sizes {
            let folder = folder.join(format!("{name}-{sessions}"));
            let place = match &url {
                Some(url) => Place::postgres(&folder, url).await?,
                None => Place::sqlite(&folder)?,
            };
            println!("{name}, {sessions} sessions");
            smaller = Some(Box::pin(tokens(binary, &place, *sessions, smaller)).await?);
        }
    }
    Ok(())
}

/// The goal of a figure that should be small.
fn below(goal: f64, figure: f64) -> String {
    said(&format!("< {goal}"), figure < goal)
}

/// The goal of a figure that should be large.
fn at_least(goal: f64, figure: f64) -> String {
    said(&format!("≥ {goal}"), figure >= goal)
}

fn said(goal: &str, is_met: bool) -> String {
    format!("   (goal {goal}: {})", if is_met { "met" } else { "missed" })
}

/// Start, memory and pages.
async fn pages(binary: &Path, folder: &Path) -> Result<(), Failure> {
    let place = Place::sqlite(folder)?;
    let access = Box::pin(people::with_sessions(&place)).await?;
    let mut starts = Vec::new();
    for _ in 0..3 {
        let begun = now();
        let server = Server::start(binary, &place).await?;
        starts.push(now() - begun);
        server.stop()?;
    }
    starts.sort();
    let start_ms = starts[1].as_secs_f64() * 1000.0;
    println!(
        "cold start with an existing database   {start_ms:>8.0} ms{}",
        below(300.0, start_ms)
    );
    let server = Server::start(binary, &place).await?;
    let idle = server.idle_mb().await?;
    println!(
        "resident memory, idle                  {idle:>8.1} MB{}",
        below(30.0, idle)
    );
    let bare = Server::reference(None).await?;
    let source = Arc::new(Same(get("/", bare.port, "")));
    let hello = median(bare.port, CONNECTIONS, &source, Duration::ZERO).await?.rate;
    println!("bare axum handler                      {hello:>8.0} /s");
    // A browser brings the cookie of its first visit along.
    let flow = first_visit(place.port).await?;
    let visitor = format!("Cookie: {flow}\r\n");
    let cookie = format!("Cookie: {flow}; __Host-Http-mayfly-at={}\r\n", access.expose_secret());
    let bearer = format!("Authorization: Bearer {}\r\n", access.expose_secret());
    let navigation =
        format!("{cookie}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n");
    for (name, path, headers) in [
        ("devices page, 20 sessions", "/", navigation.as_str()),
        ("sessions as JSON", "/api/v1/me/sessions", &cookie),
        ("access-token check, revocation included", "/api/v1/me", &bearer),
        ("the same with a browser's cookies", "/api/v1/me", &cookie),
        ("sign-in page, nobody there", "/sign-in", &visitor),
        ("key set", "/.well-known/jwks.json", ""),
    ] {
        let source = Arc::new(Same(get(path, place.port, headers)));
        let figures = median(place.port, CONNECTIONS, &source, Duration::ZERO).await?;
        println!(
            "{name:<40} {:>8.0} /s   {:.3} × bare handler   p99 {:.1} ms",
            figures.rate,
            figures.rate / hello,
            figures.p99_ms
        );
    }
    println!(
        "resident memory after that, {SESSIONS} sessions {:>8.1} MB",
        server.resident_mb()?
    );
    server.stop()
}

/// What programs and services ask, with few and many connections. The rates of refreshes.
///
/// `smaller`: the same rates with fewer sessions, to compare.
async fn tokens(
    binary: &Path,
    place: &Place,
    sessions: usize,
    smaller: Option<[f64; LOADS.len()]>,
) -> Result<[f64; LOADS.len()], Failure> {
    let begun = now();
    let crowd = Box::pin(people::with_refresh_tokens(place, sessions)).await?;
    println!("made in {:.0} s", (now() - begun).as_secs_f64());
    let server = Server::start(binary, place).await?;
    let for_so_many = |mb| {
        if sessions == LARGE {
            below(150.0, mb)
        } else {
            String::new()
        }
    };
    let idle = server.idle_mb().await?;
    println!(
        "resident memory before any load        {idle:>8.1} MB{}",
        for_so_many(idle)
    );
    let reference = Server::reference(Some(&place.reference)).await?;
    let ask = |path, body: &str| Arc::new(Same(post_form(path, place.port, &crowd.service, body)));
    let grant = ask("/oauth/token", "grant_type=client_credentials");
    let token = service_token(place.port, &grant.0).await?;
    let introspect = ask("/oauth/introspect", &format!("token={token}"));
    let bearer = format!("Authorization: Bearer {}\r\n", crowd.access.expose_secret());
    let check = Arc::new(Same(get("/api/v1/me", place.port, &bearer)));
    let hello = Arc::new(Same(get("/", reference.port, "")));
    let signatures = reference::signatures(SIGNERS)?;
    println!("signatures on {SIGNERS} cores                {signatures:>8.0} /s");
    for connections in LOADS {
        let bare = median(reference.port, connections, &hello, Duration::ZERO).await?.rate;
        for (name, source, beside, what, least) in [
            ("access-token check", &check, bare, "bare handler", Some(0.4)),
            ("introspection", &introspect, bare, "bare handler", None),
            ("client credentials", &grant, signatures, "signatures", Some(0.8)),
        ] {
            let own = median(place.port, connections, source, Duration::ZERO).await?;
            let ratio = own.rate / beside;
            // One connection waits more than it works, and keeps no two cores busy.
            let goal = least
                .filter(|_| connections >= CONNECTIONS)
                .map(|least| at_least(least, ratio));
            println!(
                "{name:<18}, {connections:>2} connections       {:>8.0} /s   {ratio:.3} × {what} ({beside:.0} /s){}   p99 {:.1} ms",
                own.rate,
                goal.unwrap_or_default(),
                own.p99_ms,
            );
        }
    }
    let rows = Arc::new(reference::Rows::new(reference.port));
    let tokens = Arc::new(Tokens::new(crowd.refresh, place.port));
    let mut rates = [0.0; LOADS.len()];
    for (at, connections) in LOADS.into_iter().enumerate() {
        let bare = median(reference.port, connections, &rows, Duration::ZERO).await?;
        // A client that rotated less than ten seconds ago holds a fresh pair and is told so: every run needs rested
        // tokens, and those of the last run rest while the next one's are taken.
        let own = median(place.port, connections, &tokens, Duration::from_secs(8)).await?;
        let ratio = own.rate / bare.rate;
        let soon = (connections == CONNECTIONS).then(|| below(25.0, own.p99_ms));
        let compared = smaller.map(|rates| {
            let ratio = own.rate / rates[at];
            format!("   {ratio:.2} × with fewer sessions{}", at_least(0.7, ratio))
        });
        println!(
            "refresh           , {connections:>2} connections       {:>8.0} /s   {ratio:.2} × one UPDATE and one signature ({:.0} /s){}   p99 {:.1} ms ({:.1} ms){}{}",
            own.rate,
            bare.rate,
            at_least(0.9, ratio),
            own.p99_ms,
            bare.p99_ms,
            soon.unwrap_or_default(),
            compared.unwrap_or_default(),
        );
        rates[at] = own.rate;
    }
    let after = server.resident_mb()?;
    println!(
        "resident memory after that             {after:>8.1} MB{}",
        for_so_many(after)
    );
    server.stop()?;
    Ok(rates)
}

async fn service_token(port: u16, request: &[u8]) -> Result<String, Failure> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut answer = Vec::new();
    let body = exchange(&mut stream, request, &mut answer).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer[body..])?;
    Ok(answer["access_token"].as_str().ok_or("no access token")?.to_owned())
}

/// Where a server keeps its things.
struct Place {
    folder: PathBuf,
    port: u16,
    /// None: SQLite in the folder.
    database: Option<String>,
    /// The reference's own database.
    reference: String,
}

impl Place {
    fn sqlite(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            port: free_port()?,
            database: None,
            reference: format!("sqlite:{}", folder.join("reference.db").display()),
        })
    }

    async fn postgres(folder: &Path, administrator: &str) -> Result<Self, Failure> {
        let mut connection = sqlx::PgConnection::connect(administrator).await?;
        let (server, _) = administrator.rsplit_once('/').ok_or("no database in the address")?;
        for name in ["mayfly_bench", "mayfly_bench_reference"] {
            for statement in [
                format!("DROP DATABASE IF EXISTS {name}"),
                format!("CREATE DATABASE {name}"),
            ] {
                sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
            }
        }
        connection.close().await?;
        Ok(Self {
            database: Some(format!("{server}/mayfly_bench")),
            reference: format!("{server}/mayfly_bench_reference"),
            ..Self::sqlite(folder)?
        })
    }

    /// As the environment says it to the server.
    fn environment(&self) -> Vec<(String, String)> {
        let unlimited = ["REFRESH", "CLIENT"].into_iter().flat_map(|kind| {
            ["ADDRESS", "ACCOUNT_AT_ADDRESS", "ACCOUNT"]
                .map(|bucket| (format!("LIMITS__{kind}__{bucket}__BURST"), "1000000".to_owned()))
        });
        let database = self
            .database
            .iter()
            .map(|url| ("DATABASE__URL".to_owned(), url.clone()));
        [
            ("DATA_DIR".to_owned(), self.folder.join("data").display().to_string()),
            ("SERVER__ADDRESS".to_owned(), format!("127.0.0.1:{}", self.port)),
            ("PUBLIC_URL".to_owned(), format!("http://localhost:{}", self.port)),
            ("LOG__FILTER".to_owned(), "warn".to_owned()),
        ]
        .into_iter()
        .chain(unlimited)
        .chain(database)
        .map(|(name, value)| (format!("MAYFLY__{name}"), value))
        .collect()
    }
}

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts it and waits for its first answer.
    async fn start(binary: &Path, place: &Place) -> Result<Self, Failure> {
        let process = Command::new(binary)
            .arg("serve")
            .envs(place.environment())
            .stdout(Stdio::null())
            .spawn()?;
        let server = Self {
            process,
            port: place.port,
        };
        wait_for(place.port, "/healthz").await?;
        Ok(server)
    }

    async fn reference(database: Option<&str>) -> Result<Self, Failure> {
        let port = free_port()?;
        let process = Command::new(std::env::current_exe()?)
            .args([REFERENCE, &port.to_string()])
            .args(database)
            .spawn()?;
        let server = Self { process, port };
        wait_for(port, "/").await?;
        Ok(server)
    }

    /// As an operator stops it.
    fn stop(mut self) -> Result<(), Failure> {
        let asked = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status()?;
        if !asked.success() || !self.process.wait()?.success() {
            return Err("the server did not end well".into());
        }
        Ok(())
    }

    /// Once the start is over.
    async fn idle_mb(&self) -> Result<f64, Failure> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.resident_mb()
    }

    fn resident_mb(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The cookie that a browser gets with its first page, as it sends it back.
async fn first_visit(port: u16) -> Result<String, Failure> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let mut answer = Vec::new();
    exchange(&mut stream, &get("/sign-in", port, ""), &mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let pair = cookie.and_then(|line| line.split(';').next());
    Ok(pair.ok_or("no cookie with the first page")?.to_owned())
}
