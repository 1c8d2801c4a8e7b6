//! The real program in a process of its own, asked over a real connection; and such connections.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;

use crate::reply::Reply;

/// Connections to one address, each used again and again.
pub struct Line {
    address: SocketAddr,
    client: reqwest::Client,
}

impl Line {
    /// To whoever listens there.
    pub fn to(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder()
            // Plain HTTP on loopback: the list of authorities need not be read.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(20))
            // The listener closes what is idle for ten seconds; nothing is sent into a connection that is just closing.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .expect("a client");
        Self { address, client }
    }

    /// Sends a request; an error where no answer comes.
    pub async fn send(&self, request: Request<Body>) -> Result<Reply, reqwest::Error> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body of ours").to_bytes();
        let url = format!("http://{}{}", self.address, parts.uri);
        let sent = self
            .client
            .request(parts.method, url)
            .headers(parts.headers)
            .body(bytes)
            .send()
            .await?;
        let (status, headers) = (sent.status(), sent.headers().clone());
        Ok(Reply {
            status,
            headers,
            body: sent.text().await?,
        })
    }
}

/// The program while it runs; ended with the last use, if it has not ended by itself.
pub struct Process {
    child: Mutex<Child>,
    line: Line,
    /// Everything it wrote to standard output and standard error.
    output: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts `mayfly serve` with these variables of the environment and waits until it listens.
    pub async fn start(variables: Vec<(String, String)>) -> Self {
        let mut command = Command::new(crate::program_file());
        command
            .arg("serve")
            .env_clear()
            .envs(variables)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let lines = follow(child.stdout.take().expect("piped"), output.clone());
        // Nobody waits for lines of standard error, but all of them are kept.
        drop(follow(child.stderr.take().expect("piped"), output.clone()));
        let said = output.clone();
        let address = tokio::task::spawn_blocking(move || {
            loop {
                let line = lines.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| {
                    panic!(
                        "it never listened: {}",
                        String::from_utf8_lossy(&said.lock().unwrap_or_else(PoisonError::into_inner))
                    )
                });
                if let Some((_, address)) = line.trim().rsplit_once(" on http://") {
                    return address.parse().expect("an address");
                }
            }
        })
        .await
        .expect("it listens");
        Self {
            child: Mutex::new(child),
            line: Line::to(address),
            output,
        }
    }

    /// Sends a request over a connection.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        match self.try_send(request).await {
            Ok(reply) => reply,
            Err(error) => panic!("no answer: {error}\n{}", self.said()),
        }
    }

    /// The same where no answer may come.
    pub async fn try_send(&self, request: Request<Body>) -> Result<Reply, reqwest::Error> {
        self.line.send(request).await
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// What it has written so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Asks it to stop, as a service manager does.
    pub fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status()
            .expect("kill is there");
        assert!(sent.success());
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait()
            .expect("our own child")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // A test that failed left it running.
            if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
                eprintln!("the program was not ended: {error}");
            }
        }
    }
}

/// Keeps everything that comes, and hands on the lines.
fn follow(from: impl Read + Send + 'static, output: Arc<Mutex<Vec<u8>>>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(&line);
            // Nobody may be waiting any more.
            drop(sender.send(String::from_utf8_lossy(&line).into_owned()));
            line.clear();
        }
    });
    receiver
}
