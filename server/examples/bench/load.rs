//! The load generator: a few connections kept alive, one request after the other on each, every wait bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// How long one of the three runs takes.
pub const RUN: Duration = Duration::from_secs(3);

/// A GET request with further header lines.
pub fn get(path: &str, port: u16, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{headers}\r\n").into_bytes()
}

/// A POST request with a JSON body.
pub fn post(path: &str, port: u16, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A POST request with a form, from a client that proves itself by its secret.
pub fn post_form(path: &str, port: u16, basic: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Basic {basic}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a source of requests gives next, and what it does with the answer.
pub trait Source: Send + Sync + 'static {
    /// None: nothing is left for this run.
    fn next(&self) -> Option<Vec<u8>>;
    /// The body of the answer to it.
    fn answered(&self, body: &[u8]) -> Result<(), Failure>;
}

/// The same request again and again.
pub struct Same(pub Vec<u8>);

impl Source for Same {
    fn next(&self) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }

    fn answered(&self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}

/// What one run showed.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Answers a second.
    pub rate: f64,
    /// Milliseconds within which 99 of 100 were answered.
    pub p99_ms: f64,
}

/// The run with the median rate of three, with a rest between the ends of their times.
pub async fn median(
    port: u16,
    connections: usize,
    source: &Arc<impl Source>,
    rest: Duration,
) -> Result<Figures, Failure> {
    let mut runs = Vec::new();
    for _ in 0..3 {
        let end = now() + RUN + rest;
        runs.push(run(port, connections, source).await?);
        // Also if nothing was left to ask for before its time was over.
        if !rest.is_zero() {
            tokio::time::sleep(end - now()).await;
        }
    }
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(runs[1])
}

async fn run(port: u16, connections: usize, source: &Arc<impl Source>) -> Result<Figures, Failure> {
    let answered = Arc::new(AtomicU64::new(0));
    let begun = now();
    let end = begun + RUN;
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let (answered, source) = (answered.clone(), source.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                let mut buffer = Vec::with_capacity(64 * 1024);
                let mut took = Vec::new();
                while now() < end
                    && let Some(request) = source.next()
                {
                    let asked = now();
                    let body = exchange(&mut stream, &request, &mut buffer).await?;
                    took.push(now() - asked);
                    source.answered(&buffer[body..])?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Failure>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for worker in workers {
        took.extend(worker.await??);
    }
    let elapsed = (now() - begun).min(RUN);
    took.sort();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = answered.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64();
    Ok(Figures {
        rate,
        p99_ms: p99.as_secs_f64() * 1000.0,
    })
}

/// Waits for a server's first answer.
pub async fn wait_for(port: u16, path: &str) -> Result<(), Failure> {
    let deadline = now() + Duration::from_secs(20);
    let request = get(path, port, "");
    while now() < deadline {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            exchange(&mut stream, &request, &mut Vec::new()).await?;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err("not answered within 20 s".into())
}

/// One request and its whole answer, which begins with the head; anything but 200 is a failure. Where the body begins.
pub async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> Result<usize, Failure> {
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
            let body = String::from_utf8_lossy(&buffer[head..]).into_owned();
            return Err(format!("not answered: {}: {body}", text.lines().next().unwrap_or_default()).into());
        }
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let done = match length {
            Some(length) => buffer.len() >= head + 4 + length,
            None => buffer.ends_with(b"0\r\n\r\n"),
        };
        if done {
            return Ok(head + 4);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this measures; no rule of the product depends on it"
)]
pub fn now() -> Instant {
    Instant::now()
}
