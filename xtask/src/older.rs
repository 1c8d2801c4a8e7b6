//! The program as it was before the tables last changed, built from the history: what an upgrade comes from and goes back to.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::run;
use crate::{Failure, root, target_dir};

/// Builds [`program`] in a folder of its own.
///
/// # Errors
/// When the history is not there, or it does not build.
pub fn build() -> Result<(), Failure> {
    let commit = before_todays_tables()?;
    let source = folder().join("source");
    for old in [&source, &program()] {
        if old.is_dir() {
            std::fs::remove_dir_all(old)?;
        } else if old.exists() {
            std::fs::remove_file(old)?;
        }
    }
    std::fs::create_dir_all(folder())?;
    run(git(&folder())
        .args(["clone", "--quiet", "--no-checkout"])
        .args([root(), &source]))?;
    run(git(&source).args(["checkout", "--quiet", "--detach", &commit]))?;
    eprintln!("• the older program");
    run(Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--package",
            "server",
            "--bin",
            "mayfly",
            "--target-dir",
        ])
        .arg(folder().join("build"))
        .current_dir(&source))
}

/// Where [`build`] puts it.
pub fn program() -> PathBuf {
    folder().join("build/debug/mayfly")
}

fn folder() -> PathBuf {
    target_dir().join("older")
}

/// In this folder and in no repository around it.
fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder));
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(variable);
    }
    git
}

/// The commit before the one that brought the newest tables; this one, if they are yet to be committed.
fn before_todays_tables() -> Result<String, Failure> {
    let folder = root().join("migrations/sqlite");
    let names = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let names = names.collect::<Result<Vec<_>, std::io::Error>>()?;
    let newest = names.iter().filter(|name| name.ends_with(".up.sql")).max();
    let newest = newest.ok_or("migrations/sqlite has no tables with a way back")?;
    let log = git(root())
        .args(["log", "--diff-filter=A", "--format=%H %P", "--"])
        .arg(folder.join(newest))
        .output()?;
    if !log.status.success() {
        return Err(format!(
            "the history of this project is not here: {}",
            String::from_utf8_lossy(&log.stderr)
        )
        .into());
    }
    let log = String::from_utf8(log.stdout)?;
    match log.lines().last().map(|brought| brought.split(' ').nth(1)) {
        None => Ok("HEAD".to_owned()),
        Some(Some(before)) => Ok(before.to_owned()),
        Some(None) => Err("the history of this project begins after its newest tables: it is not all here".into()),
    }
}
