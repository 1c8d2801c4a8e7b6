//! Programs under measurement: started on a free port of loopback, asked until they answer, weighed, stopped.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Failure, hello};

/// Longest wait for the first answer.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the end after SIGTERM; the server drains for up to 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Rest before memory is read, so that what the start needed has been given back.
const REST: Duration = Duration::from_secs(2);

/// The medians of one program.
#[derive(Debug)]
pub struct Figures {
    /// From the start of the process to its first answer, milliseconds.
    pub cold_start_ms: f64,
    /// `VmRSS` at rest, MB of 10⁶ bytes.
    pub resident_mb: f64,
    /// Answers per second.
    pub requests_per_s: f64,
}

/// A folder that goes away with the value.
#[derive(Debug)]
pub struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// Makes one that only this user can read.
    ///
    /// # Errors
    /// When the temporary folder cannot be written.
    pub fn create() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("mayfly-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {} was not removed: {error}", self.0.display());
        }
    }
}

/// How to start a program.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    /// None for the reference, which keeps nothing.
    folder: Option<PathBuf>,
}

impl Launch {
    /// The reference: this very binary.
    pub const fn hello(binary: PathBuf) -> Self {
        Self { binary, folder: None }
    }

    /// The server, with data in `scratch`.
    pub fn mayfly(binary: PathBuf, scratch: &ScratchFolder) -> Self {
        Self {
            binary,
            folder: Some(scratch.0.clone()),
        }
    }

    /// Starts it and waits for its first answer.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer; with what it printed.
    pub fn start(&self) -> Result<Running, Failure> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(&self.binary);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Nothing of this shell's settings may reach the server.
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("MAYFLY")) {
            command.env_remove(name);
        }
        let log = self.folder.as_ref().map(|folder| folder.join("log"));
        if let (Some(folder), Some(log)) = (&self.folder, &log) {
            let output = File::create(log)?;
            command
                .arg("serve")
                .current_dir(folder)
                .env("MAYFLY__DATA_DIR", folder.join("data"))
                .env("MAYFLY__SERVER__ADDRESS", address.to_string())
                .env("MAYFLY__PUBLIC_URL", format!("http://localhost:{}", address.port()))
                .stdout(output.try_clone()?)
                .stderr(output);
        } else {
            command.arg("hello").env(hello::ADDRESS, address.to_string());
        }
        let begin = Instant::now();
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let mut running = Running {
            child,
            address,
            cold_start: Duration::ZERO,
        };
        while !answers(address) {
            if running.child.try_wait()?.is_some() || begin.elapsed() > START_LIMIT {
                let said = log.map(fs::read_to_string).transpose()?.unwrap_or_default();
                return Err(format!("{} does not answer. It said:\n{said}", self.binary.display()).into());
            }
            sleep(Duration::from_millis(1));
        }
        running.cold_start = begin.elapsed();
        Ok(running)
    }
}

/// Whether `/healthz` answers 200.
fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(
            stream,
            "GET /healthz HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n",
            address.port()
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok::<_, std::io::Error>(status == *b"HTTP/1.1 200")
    };
    // Refused connections are what a program that is still starting looks like.
    ask().unwrap_or(false)
}

/// A program that answers; killed when dropped without having been stopped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start to its first answer.
    pub cold_start: Duration,
}

impl Running {
    /// `VmRSS` after a rest, in MB of 10⁶ bytes.
    ///
    /// # Errors
    /// Without Linux's `/proc`.
    pub fn idle_resident_mb(&self) -> Result<f64, Failure> {
        sleep(REST);
        let status = fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"))?;
        let kib = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse::<f64>()
                    .ok()
            })
            .ok_or("/proc does not tell VmRSS")?;
        Ok(kib * 1024.0 / 1_000_000.0)
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn stop(mut self) -> Result<(), Failure> {
        // The standard library only knows SIGKILL, which would leave a database in need of recovery.
        Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()])
            .status()?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > STOP_LIMIT {
                return Err(format!("still running {} s after SIGTERM", STOP_LIMIT.as_secs()).into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None))
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait())
        {
            eprintln!("bench: process {} was not stopped: {error}", self.child.id());
        }
    }
}
