//! Figures of the release binary, as ratios to a bare axum handler in the same run: `cargo xtask bench` runs it.
//!
//! The machine is noisy, so only ratios are worth comparing; each rate is the median of three runs. Everything stays
//! on loopback, every loop is bounded in time, and the server is stopped by its process id.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use secrecy::{ExposeSecret, SecretString};
use server::config::Settings;
use server::domain::audit::Circumstances;
use server::domain::clock::SystemClock;
use server::domain::random::SystemRandom;
use server::domain::session::Client;
use server::services::admin::NewPerson;
use server::services::invitations::{AcceptOutcome, Acceptance};
use server::services::sign_in::{Caller, PasswordOutcome};
use server::startup::open_backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CONNECTIONS: usize = 16;
const RUN: Duration = Duration::from_secs(3);
const SESSIONS: usize = 20;
/// This program as the bare handler: a process of its own, as the server is one.
const HELLO: &str = "--hello";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let word = std::env::args()
        .nth(1)
        .ok_or("which binary? (cargo xtask bench passes it)")?;
    if word == HELLO {
        return serve_hello().await;
    }
    let binary = PathBuf::from(word);
    let folder = std::env::temp_dir().join(format!("mayfly-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let figures = Box::pin(measure(&binary, &folder)).await;
    std::fs::remove_dir_all(&folder)?;
    figures
}

async fn measure(binary: &Path, folder: &Path) -> Result<(), Failure> {
    let port = free_port()?;
    let access = Box::pin(make_person(folder, port)).await?;

    let mut starts = Vec::new();
    for _ in 0..3 {
        let begun = now();
        let server = Server::start(binary, folder, port).await?;
        starts.push(now() - begun);
        drop(server);
    }
    starts.sort();
    println!(
        "cold start with an existing database   {:>8.0} ms   (goal < 300)",
        starts[1].as_secs_f64() * 1000.0
    );

    let server = Server::start(binary, folder, port).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!(
        "resident memory, idle                  {:>8.1} MB   (goal < 40)",
        server.resident_mb()?
    );

    let hello_port = free_port()?;
    let _bare = Server(
        Command::new(std::env::current_exe()?)
            .args([HELLO, &hello_port.to_string()])
            .spawn()?,
    );
    wait_for(hello_port, "/").await?;
    let hello = rate(hello_port, &request("/", hello_port, "")).await?;
    println!("bare axum handler                      {hello:>8.0} /s");
    // A browser brings the cookie of its first visit along.
    let flow = first_visit(port).await?;
    let visitor = format!("Cookie: {flow}\r\n");
    let cookie = format!("Cookie: {flow}; __Host-Http-mayfly-at={}\r\n", access.expose_secret());
    let navigation =
        format!("{cookie}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n");
    for (name, path, headers) in [
        ("devices page, 20 sessions", "/", navigation.as_str()),
        ("sessions as JSON", "/api/v1/me/sessions", cookie.as_str()),
        ("sign-in page, nobody there", "/sign-in", &visitor),
        ("key set", "/.well-known/jwks.json", ""),
    ] {
        let rate = rate(port, &request(path, port, headers)).await?;
        println!("{name:<38} {rate:>8.0} /s   {:.3} × bare handler", rate / hello);
    }
    println!(
        "resident memory after that             {:>8.1} MB",
        server.resident_mb()?
    );
    Ok(())
}

/// One person with twenty sessions, made by the real services on the folder that the server will open.
async fn make_person(folder: &Path, port: u16) -> Result<SecretString, Failure> {
    let environment = environment(folder, port).map(|(name, value)| (name.to_owned(), value));
    let settings = Settings::from_sources(None, environment)?;
    let backend = open_backend(&settings, Arc::new(SystemClock), Arc::new(SystemRandom::default())).await?;
    let new = NewPerson {
        username: "bench".to_owned(),
        email: String::new(),
        display_name: "Bench".to_owned(),
        roles: vec!["member".to_owned()],
    };
    let link = backend.add_person(new).await?.map_err(|why| format!("{why:?}"))?;
    let secret = link.expose_secret().rsplit('/').next().unwrap_or_default().to_owned();
    let password = SecretString::from("a long enough phrase");
    let caller = Caller {
        from: Circumstances {
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0".to_owned()),
            address: Some("198.51.100.7".to_owned()),
            ..Circumstances::default()
        },
        address: [198, 51, 100, 7].into(),
        client: Client::Browser,
        device: None,
    };
    let with = Acceptance {
        username: String::new(),
        email: String::new(),
        display_name: String::new(),
        password: password.clone(),
    };
    let accepted = backend
        .accept_invitation(&SecretString::from(secret), with, &caller)
        .await?;
    let AcceptOutcome::Accepted(mut outcome) = accepted else {
        return Err("the invitation was refused".into());
    };
    for _ in 1..SESSIONS {
        outcome = backend
            .check_password("bench", password.expose_secret(), "/".to_owned(), &caller)
            .await?;
    }
    let PasswordOutcome::SignedIn(done) = outcome else {
        return Err("not signed in".into());
    };
    backend.store().close().await;
    Ok(done.issued.access)
}

fn environment(folder: &Path, port: u16) -> [(&'static str, String); 4] {
    [
        ("MAYFLY__DATA_DIR", folder.join("data").display().to_string()),
        ("MAYFLY__SERVER__ADDRESS", format!("127.0.0.1:{port}")),
        ("MAYFLY__PUBLIC_URL", format!("http://localhost:{port}")),
        ("MAYFLY__LOG__FILTER", "warn".to_owned()),
    ]
}

struct Server(Child);

impl Server {
    /// Starts it and waits for its first answer.
    async fn start(binary: &Path, folder: &Path, port: u16) -> Result<Self, Failure> {
        let child = Command::new(binary)
            .arg("serve")
            .envs(environment(folder, port))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self(child);
        wait_for(port, "/healthz").await?;
        Ok(server)
    }

    fn resident_mb(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
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
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn serve_hello() -> Result<(), Failure> {
    let port: u16 = std::env::args().nth(2).ok_or("which port?")?.parse()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let router = Router::new().route("/", get(|| async { "hello" }));
    Ok(axum::serve(listener, router).await?)
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn wait_for(port: u16, path: &str) -> Result<(), Failure> {
    let deadline = now() + Duration::from_secs(20);
    let request = request(path, port, "");
    while now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            return exchange(&mut stream, &request, &mut Vec::new()).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err("not answered within 20 s".into())
}

/// The cookie that a browser gets with its first page, as it sends it back.
async fn first_visit(port: u16) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut answer = Vec::new();
    exchange(&mut stream, &request("/sign-in", port, ""), &mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let pair = cookie.and_then(|line| line.split(';').next());
    Ok(pair.ok_or("no cookie with the first page")?.to_owned())
}

fn request(path: &str, port: u16, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{headers}\r\n").into_bytes()
}

/// Answers per second over all connections: the median of three runs.
async fn rate(port: u16, request: &[u8]) -> Result<f64, Failure> {
    let mut rates = Vec::new();
    for _ in 0..3 {
        let answered = Arc::new(AtomicU64::new(0));
        let end = now() + RUN;
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (answered, request) = (answered.clone(), request.to_vec());
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    stream.set_nodelay(true)?;
                    let mut buffer = Vec::with_capacity(64 * 1024);
                    while now() < end {
                        exchange(&mut stream, &request, &mut buffer).await?;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, Failure>(())
                })
            })
            .collect();
        for worker in workers {
            worker.await??;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        rates.push(answered.load(Ordering::Relaxed) as f64 / RUN.as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[1])
}

/// One request and its whole answer; anything but 200 is a failure.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<(), Failure> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed".into());
        }
        let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(format!("not answered: {}", text.lines().next().unwrap_or_default()).into());
        }
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let done = match length {
            Some(length) => buffer.len() >= head + 4 + length,
            None => buffer.ends_with(b"0\r\n\r\n"),
        };
        if done {
            return Ok(());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this measures; no rule of the product depends on it"
)]
fn now() -> Instant {
    Instant::now()
}
