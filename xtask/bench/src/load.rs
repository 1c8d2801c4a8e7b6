//! The load generator: keep-alive HTTP/1.1 on raw sockets, as little work per request as can be, so that on a
//! machine with few cores the program under measurement gets most of them. It ends by itself, by time and by count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::Failure;

/// No run sends more than this for each connection, whatever its time.
const MOST_REQUESTS: u32 = 5_000_000;
/// An answer larger than this is not one of ours.
const MOST_BYTES: usize = 8 << 20;
/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// One request, sent again and again.
#[derive(Debug)]
pub struct Load {
    address: SocketAddr,
    request: Arc<[u8]>,
    connections: usize,
    lasts: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// Complete answers with status 200.
    answers: u32,
    /// From the first request to the last answer.
    took: Duration,
}

impl Tally {
    /// Answers per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.answers) / self.took.as_secs_f64()
    }
}

impl Load {
    /// GETs of one path.
    pub fn get(address: SocketAddr, path: &str, connections: usize, lasts: Duration) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost:{}\r\n\r\n", address.port());
        Self {
            address,
            request: request.into_bytes().into(),
            connections,
            lasts,
        }
    }

    /// Sends until the time is over.
    ///
    /// # Errors
    /// When a connection fails, an answer is not a complete one with status 200, or takes too long: then the rate
    /// would be that of something else.
    pub async fn run(&self) -> Result<Tally, Failure> {
        let begin = Instant::now();
        let end = begin + self.lasts;
        let tasks: Vec<_> = (0..self.connections)
            .map(|_| tokio::spawn(repeat(self.address, self.request.clone(), end)))
            .collect();
        let mut answers = 0;
        for task in tasks {
            answers += task.await??;
        }
        Ok(Tally {
            answers,
            took: begin.elapsed(),
        })
    }
}

async fn repeat(address: SocketAddr, request: Arc<[u8]>, end: Instant) -> Result<u32, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut answers = 0;
    while answers < MOST_REQUESTS && Instant::now() < end {
        let limit = Instant::now() + ANSWER_LIMIT;
        stream.write_all(&request).await?;
        loop {
            if let Some(length) = complete(&buffer)? {
                buffer.drain(..length);
                break;
            }
            if buffer.len() > MOST_BYTES {
                return Err("an answer has no end".into());
            }
            if timeout_at(limit.into(), stream.read_buf(&mut buffer)).await?? == 0 {
                return Err("the connection was closed before the answer was complete".into());
            }
        }
        answers += 1;
    }
    Ok(answers)
}

/// Length of the answer that `bytes` begin with, once it is there as a whole (RFC 9112, section 6).
fn complete(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(head_ends) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_ends])?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("not the answer that was expected:\n{head}").into());
    }
    let body = head_ends + 4;
    let header = |wanted: &str| {
        let mut pairs = head.lines().filter_map(|line| line.split_once(':'));
        pairs
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    if let Some(length) = header("content-length") {
        let whole = body + length.parse::<usize>()?;
        return Ok((bytes.len() >= whole).then_some(whole));
    }
    if header("transfer-encoding") != Some("chunked") {
        return Err(format!("an answer of unknown length:\n{head}").into());
    }
    let mut at = body;
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line])?, 16)?;
        // The size's line, the chunk, and the line end behind it; no trailers are asked for.
        at += line + 2 + size + 2;
        if at > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_length_is_complete_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(complete(whole).unwrap(), Some(whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(complete(&whole[..cut]).unwrap(), None, "after {cut} bytes");
        }
    }

    #[test]
    fn a_chunked_answer_is_complete_with_its_last_chunk() {
        let whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(complete(whole).unwrap(), Some(whole.len()));
        for cut in 0..whole.len() {
            assert_eq!(complete(&whole[..cut]).unwrap(), None, "after {cut} bytes");
        }
    }

    #[test]
    fn any_other_status_ends_the_run() {
        assert!(complete(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
