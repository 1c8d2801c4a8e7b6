//! A PostgreSQL of one test's own, to be stopped and started.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::now;

/// A cluster on loopback, durable as a real one.
pub struct Cluster {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes and starts one; none if PostgreSQL's programs are not where Debian puts them.
    pub async fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let programs = versions.flatten().map(|entry| entry.path().join("bin")).max()?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let mut cluster = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            programs,
            port: port.expect("a free port").port(),
            server: None,
        };
        if is_root() {
            let given = Command::new("chown")
                .arg("postgres")
                .arg(cluster.folder.path())
                .status();
            assert!(given.expect("chown is there").success());
        }
        let made = cluster
            .program("initdb")
            .args([
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--no-sync",
                "--pgdata",
            ])
            .arg(cluster.folder.path().join("data"))
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb is there").success());
        cluster.go_on().await;
        Some(cluster)
    }

    /// Administrator's connection.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server on what is there, and waits until it answers.
    pub async fn go_on(&mut self) {
        let server = self
            .program("postgres")
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-c", &format!("port={}", self.port), "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                &format!("unix_socket_directories={}", self.folder.path().display()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.expect("it starts"));
        let begun = now();
        let port = self.port.to_string();
        let mut ready = self.program("pg_isready");
        ready.args(["--quiet", "--host=127.0.0.1", "--port", &port]);
        while !ready.status().expect("pg_isready is there").success() {
            assert!(now() - begun < Duration::from_secs(30), "PostgreSQL never answered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it as a machine that loses power does: the next start recovers from its log.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let stopped = self
            .program("pg_ctl")
            .args(["stop", "--mode=immediate", "--silent", "--pgdata"])
            .arg(self.folder.path().join("data"))
            .status();
        assert!(stopped.expect("pg_ctl is there").success());
        server.wait().expect("our own child");
    }

    /// One of PostgreSQL's programs, which refuse to run as root; it ends when we are killed.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]);
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        command.arg("--").arg(self.programs.join(name)).current_dir("/");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is there");
    id.stdout.starts_with(b"0\n")
}
