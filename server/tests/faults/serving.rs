//! The program's process: started, asked, killed.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::place::Place;
use crate::{in_time, now};

/// One life of the program.
pub struct Serving {
    child: Child,
    base: String,
    log: PathBuf,
    client: reqwest::Client,
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
        Self::start_with(place, &[]).await
    }

    /// The same with more in its environment.
    pub async fn start_with(place: &Place, more: &[(&str, &str)]) -> Self {
        Self::start_program(&crate::program_file(), place, more).await
    }

    /// The same with another program.
    pub async fn start_program(program: &OsStr, place: &Place, more: &[(&str, &str)]) -> Self {
        let begun = now();
        let (said, log) = (place.file("stdout"), place.file("stderr"));
        let mut child = Command::new(program)
            .arg("serve")
            .env_clear()
            .envs(place.environment())
            .envs(more.iter().copied())
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
            base: format!("http://{address}"),
            log,
            client: reqwest::Client::builder()
                // Plain HTTP on loopback: the list of authorities need not be read.
                .tls_certs_only([])
                .no_proxy()
                .timeout(Duration::from_secs(15))
                .build()
                .expect("a client"),
            ready_after: now() - begun,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.base.trim_start_matches("http://").parse().expect("an address")
    }

    /// Another way to it: every request over a connection of its own to this address.
    pub fn through(address: SocketAddr) -> Way {
        let client = reqwest::Client::builder()
            // Plain HTTP on loopback: the list of authorities need not be read.
            .tls_certs_only([])
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(15))
            .build()
            .expect("a client");
        Way {
            base: format!("http://{address}"),
            client,
        }
    }

    /// The direct way.
    pub fn way(&self) -> Way {
        Way {
            base: self.base.clone(),
            client: self.client.clone(),
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

    /// How it ended, by itself and within ten seconds.
    pub async fn ended(&mut self) -> ExitStatus {
        let begun = now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(
                now() - begun < in_time(Duration::from_secs(10)),
                "it runs on: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL, if it still runs. It never panicked before.
    pub fn kill(mut self) {
        self.end();
        let log = std::fs::read_to_string(&self.log).expect("its log");
        assert!(!log.contains("panicked"), "{log}");
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

    /// Presents a refresh token.
    pub async fn refresh(&self, token: &str) -> Result<Answer, reqwest::Error> {
        self.way().refresh(token).await
    }

    /// Has the session of a refresh token ended (RFC 7009).
    pub async fn revoke(&self, token: &str) -> Result<Answer, reqwest::Error> {
        self.way().post_form("/oauth/revoke", &[("token", token)]).await
    }

    /// Signs in with a password.
    pub async fn sign_in(&self, username: &str, password: &str) -> Result<Answer, reqwest::Error> {
        let way = self.way();
        let request = way.client.post(format!("{}/auth/login", way.base));
        answer(request.json(&json!({ "identifier": username, "password": password }))).await
    }

    /// Asks for something, with an access token if there is one.
    pub async fn get(&self, path: &str, access: &str) -> Result<Answer, reqwest::Error> {
        self.way().get(path, access).await
    }

    /// Has something done that needs no more words.
    pub async fn post(&self, path: &str, access: &str) -> Result<Answer, reqwest::Error> {
        let way = self.way();
        answer(way.client.post(format!("{}{path}", way.base)).bearer_auth(access)).await
    }
}

/// How a program reaches it.
pub struct Way {
    base: String,
    client: reqwest::Client,
}

impl Way {
    /// Presents a refresh token.
    pub async fn refresh(&self, token: &str) -> Result<Answer, reqwest::Error> {
        let request = self.client.post(format!("{}/auth/refresh", self.base));
        answer(request.json(&json!({ "refresh_token": token }))).await
    }

    /// Sends a form.
    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
        answer(self.client.post(format!("{}{path}", self.base)).form(fields)).await
    }

    /// Asks for something, with an access token if there is one.
    pub async fn get(&self, path: &str, access: &str) -> Result<Answer, reqwest::Error> {
        answer(self.begin(path, access)).await
    }

    /// The start of a request, for answers that do not end.
    pub fn begin(&self, path: &str, access: &str) -> reqwest::RequestBuilder {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .header("host", "localhost:3000");
        if access.is_empty() {
            request
        } else {
            request.bearer_auth(access)
        }
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

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}
