//! The program's process: started, asked, killed.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::now;
use crate::place::Place;

/// How a running server is asked.
pub struct Asking {
    base: String,
    client: reqwest::Client,
}

/// One life of the program.
pub struct Serving {
    child: Child,
    asking: Asking,
    log: PathBuf,
    /// From the start until it listened.
    pub ready_after: Duration,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// `mayfly-refresh`.
    pub outcome: String,
    /// Seconds in `Retry-After`.
    pub retry_after: Option<u32>,
    /// JSON, or null.
    pub body: Value,
}

impl Serving {
    /// Starts it on this place and waits until it listens.
    pub async fn start(place: &Place) -> Self {
        let begun = now();
        let (said, log) = (place.file("stdout"), place.file("stderr"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_mayfly"))
            .arg("serve")
            .env_clear()
            .envs(place.environment())
            .stdin(Stdio::null())
            .stdout(File::create(&said).expect("a file"))
            .stderr(File::options().create(true).append(true).open(&log).expect("a file"))
            .spawn()
            .expect("the program starts");
        let read = || std::fs::read_to_string(&said).expect("what it says");
        let address = loop {
            let text = read();
            let line = text.lines().find_map(|line| line.rsplit_once(" on http://"));
            if let Some((_, address)) = line.filter(|_| text.ends_with('\n')) {
                break address.trim().to_owned();
            }
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(
                child.try_wait().expect("our child").is_none(),
                "it ended: {text}{}",
                log()
            );
            assert!(
                now() - begun < Duration::from_secs(30),
                "it never listened: {text}{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Self {
            child,
            asking: Asking::new(&address),
            log,
            ready_after: now() - begun,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// It still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// SIGKILL, if it still runs. It never panicked before.
    pub fn kill(mut self) {
        self.end();
        let log = std::fs::read_to_string(&self.log).expect("its log");
        // Its own words for it, and those of a panic before it can speak.
        assert!(!log.contains("a panic") && !log.contains("panicked"), "{log}");
    }

    fn end(&mut self) {
        // It may have been killed otherwise.
        drop(self.child.kill());
        self.child.wait().expect("our own child");
    }

    /// What it has written to its log, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log")
    }
}

impl Asking {
    /// At this address.
    pub fn new(address: &str) -> Self {
        Self {
            base: format!("http://{address}"),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(15))
                .build()
                .expect("a client"),
        }
    }

    async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let reply = request.header("host", "localhost:3000").send().await?;
        let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok());
        let (status, outcome) = (
            reply.status().as_u16(),
            header("mayfly-refresh").unwrap_or("").to_owned(),
        );
        let retry_after = header("retry-after").and_then(|text| text.parse().ok());
        let body = reply.bytes().await?;
        Ok(Answer {
            status,
            outcome,
            retry_after,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }

    /// Presents a refresh token.
    pub async fn refresh(&self, token: &str) -> Result<Answer, reqwest::Error> {
        let request = self.client.post(format!("{}/auth/refresh", self.base));
        Self::answer(request.json(&json!({ "refresh_token": token }))).await
    }

    /// Has the session of a refresh token ended (RFC 7009).
    pub async fn revoke(&self, token: &str) -> Result<Answer, reqwest::Error> {
        let request = self.client.post(format!("{}/oauth/revoke", self.base));
        Self::answer(request.form(&[("token", token)])).await
    }

    /// Signs in with a password.
    pub async fn sign_in(&self, username: &str, password: &str) -> Result<Answer, reqwest::Error> {
        let request = self.client.post(format!("{}/auth/login", self.base));
        Self::answer(request.json(&json!({ "identifier": username, "password": password }))).await
    }

    /// Asks for something, with an access token if there is one.
    pub async fn get(&self, path: &str, access: &str) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if !access.is_empty() {
            request = request.bearer_auth(access);
        }
        Self::answer(request).await
    }
}

impl std::ops::Deref for Serving {
    type Target = Asking;

    fn deref(&self) -> &Asking {
        &self.asking
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}
