//! `cargo xtask serve` and `cargo xtask bench`: site, release server, run.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::postgres::{Cluster, Durability};
use crate::run::run;
use crate::{Failure, root, site, target_dir};

/// Builds what is needed and becomes the server.
///
/// # Errors
/// When something does not build or start.
pub fn serve(demo: bool, port: u16) -> Result<bool, Failure> {
    let mut server = Command::new(release_server()?);
    server.arg("serve").current_dir(root());
    if demo {
        server.arg("--demo");
    }
    // What the environment already says wins.
    let defaults = [
        ("MAYFLY__DATA_DIR", if demo { "data-demo" } else { "data" }.to_owned()),
        ("MAYFLY__SERVER__ADDRESS", format!("127.0.0.1:{port}")),
        ("MAYFLY__PUBLIC_URL", format!("http://localhost:{port}")),
        ("MAYFLY__LOG__FORMAT", "text".to_owned()),
    ];
    for (name, value) in defaults {
        if std::env::var_os(name).is_none() {
            server.env(name, value);
        }
    }
    Err(format!("the server could not be started: {}", server.exec()).into())
}

/// Measures the release binary.
///
/// # Errors
/// When something does not build or the measuring fails.
pub fn bench() -> Result<bool, Failure> {
    let server = release_server()?;
    let cluster = Cluster::start(Durability::Full)?;
    run(Command::new("cargo")
        .args(["run", "--quiet", "--release", "--package", "server"])
        .args(["--example", "bench", "--"])
        .arg(server)
        .env("MAYFLY_BENCH_POSTGRES_URL", cluster.url())
        .current_dir(root()))?;
    Ok(true)
}

/// Builds the site and the program as they are released. The program.
pub fn release_server() -> Result<PathBuf, Failure> {
    site::build()?;
    eprintln!("• server (release profile)");
    let (package, _) = site::server()?;
    run(Command::new("cargo")
        .args(["build", "--release", "--package", &package])
        .current_dir(root()))?;
    released_server()
}

/// Where [`release_server`] puts it.
pub fn released_server() -> Result<PathBuf, Failure> {
    let (_, binary) = site::server()?;
    Ok(target_dir().join("release").join(binary))
}
