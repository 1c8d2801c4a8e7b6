//! What the two commands need beyond Rust: installed where that is allowed (root, or CI), else named.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::run;
use crate::{Failure, root};

/// The WebAssembly target.
///
/// # Errors
/// When rustup cannot add it.
pub fn wasm_target() -> Result<(), Failure> {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .current_dir(root())
        .output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wasm32-unknown-unknown")) {
        return Ok(());
    }
    run(Command::new("rustup")
        .args(["target", "add", "wasm32-unknown-unknown"])
        .current_dir(root()))
}

/// The browser's binary.
///
/// # Errors
/// When it is missing and may not be installed.
pub fn browser() -> Result<PathBuf, Failure> {
    let found = || {
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    packages(&["chromium"])?;
    found().ok_or_else(|| "chromium was installed, but is not at /usr/bin/chromium".into())
}

/// The folder with PostgreSQL's server programs.
///
/// # Errors
/// When it is missing and may not be installed.
pub fn postgres() -> Result<PathBuf, Failure> {
    if let Some(path) = postgres_folder() {
        return Ok(path);
    }
    // The package must not start a server of its own.
    let settings = Path::new("/etc/postgresql-common");
    if may_install() {
        std::fs::create_dir_all(settings)?;
        let file = settings.join("createcluster.conf");
        // One that is there already is this machine's own decision.
        if !file.exists() {
            std::fs::write(file, "create_main_cluster = false\n")?;
        }
    }
    packages(&["postgresql"])?;
    postgres_folder().ok_or_else(|| "postgresql was installed, but its programs were not found".into())
}

fn postgres_folder() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort();
    versions.into_iter().rev().find(|bin| bin.join("initdb").exists())
}

/// The tool that stops the program at a system call.
///
/// # Errors
/// When it is missing and may not be installed.
pub fn strace() -> Result<(), Failure> {
    if Path::new("/usr/bin/strace").exists() {
        return Ok(());
    }
    packages(&["strace"])
}

/// What libFuzzer is compiled with.
///
/// # Errors
/// When it is missing and may not be installed.
pub fn cpp_compiler() -> Result<(), Failure> {
    if Path::new("/usr/bin/c++").exists() {
        return Ok(());
    }
    packages(&["g++"])
}

/// The tool that runs fuzz targets: a program of Rust, so it takes no root.
///
/// # Errors
/// When it cannot be compiled.
pub fn cargo_fuzz() -> Result<(), Failure> {
    let is_there = Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if is_there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    run(Command::new("cargo").args(["install", "cargo-fuzz", "--locked", "--version", "0.13.2"]))
}

/// The packages of the browser tests.
///
/// # Errors
/// When npm is missing or fails.
pub fn node_modules() -> Result<(), Failure> {
    let folder = root().join("end2end");
    let stamp = folder.join("node_modules/.package-lock.json");
    let modified = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    if modified(&stamp) > modified(&folder.join("package-lock.json")) {
        return Ok(());
    }
    if Command::new("npm")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        packages(&["nodejs", "npm"])?;
    }
    run(Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
        .current_dir(folder))
}

fn may_install() -> bool {
    std::env::var_os("CI").is_some() || is_root()
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

fn packages(names: &[&str]) -> Result<(), Failure> {
    if !may_install() {
        return Err(format!("missing; install with: sudo apt-get install {}", names.join(" ")).into());
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}
