//! A throw-away PostgreSQL cluster for the tests: on a free port of loopback, stopped and removed when dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::run::run;
use crate::{Failure, install};

/// Longest wait until it accepts connections, in steps of [`STEP`].
const START_STEPS: u32 = 300;
/// Pause between two looks.
const STEP: Duration = Duration::from_millis(100);

/// What a commit promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the tests of one process ask for speed.
    None,
    /// As in production, for measuring.
    Full,
}

/// A running cluster.
pub struct Cluster {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    /// None until it has been started.
    server: Option<Child>,
}

impl Cluster {
    /// Makes and starts one.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub fn start(durability: Durability) -> Result<Self, Failure> {
        let bin = install::postgres()?;
        let folder = std::env::temp_dir().join(format!("mayfly-postgres-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        if install::is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut cluster = Self {
            bin,
            folder,
            port,
            server: None,
        };
        let data = cluster.data();
        run(cluster
            .program("initdb")
            .args([
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--no-sync",
                "--pgdata",
            ])
            .arg(&data)
            .stdout(Stdio::null()))?;
        let log = cluster.folder.join("log");
        let output = File::create(&log)?;
        let mut settings = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", cluster.folder.display()),
            "max_connections=200".to_owned(),
        ];
        if durability == Durability::None {
            settings.extend(["fsync", "synchronous_commit", "full_page_writes"].map(|name| format!("{name}=off")));
        }
        // Our own child rather than a daemon of `pg_ctl`: it gets Ctrl-C as we do, and ends when we are killed.
        let mut server = cluster.program("postgres");
        server
            .arg("-D")
            .arg(&data)
            .args(settings.iter().flat_map(|setting| ["-c", setting]));
        let mut server = server
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut accepts = cluster.program("pg_isready");
        accepts.args(["--quiet", "--host=127.0.0.1", "--port", &port.to_string()]);
        for _ in 0..START_STEPS {
            if server.try_wait()?.is_some() {
                break;
            }
            if accepts.status()?.success() {
                cluster.server = Some(server);
                return Ok(cluster);
            }
            sleep(STEP);
        }
        // Dropping the cluster stops a server that is still there.
        cluster.server = Some(server);
        Err(format!("PostgreSQL did not start. It said:\n{}", fs::read_to_string(log)?).into())
    }

    /// Where tests connect to make databases of their own.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of PostgreSQL's programs, which refuse to run as root.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if install::is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        command.arg("--").arg(self.bin.join(name)).current_dir(Path::new("/"));
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take()
            && let Ok(None) = server.try_wait()
        {
            let stopped = run(self
                .program("pg_ctl")
                .args(["stop", "--mode=immediate", "--silent", "--pgdata"])
                .arg(self.data()))
            .and_then(|()| Ok(server.wait()?));
            if let Err(error) = stopped {
                eprintln!("xtask: the PostgreSQL of the tests did not stop: {error}");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("xtask: {} was not removed: {error}", self.folder.display());
        }
    }
}
