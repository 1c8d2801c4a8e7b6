//! The real program among real faults: killed at any moment and at chosen system calls, without disk, locked out of its
//! database, or with its database gone (TOKENS.md §9); and failing or panicking at chosen points of its own.
//!
//! Clients keep a record of what they were told; afterwards it is held against the database ([`clients::check`]):
//! nobody was signed out or accused, no generation has two refresh tokens or two `token_rotated`, none is missing, and
//! whatever was acknowledged is there. The program runs by the system's clock; time passes by moving all times in the
//! database while it is down.
//!
//! `MAYFLY_TEST_DATABASE` and `MAYFLY_TEST_POSTGRES_URL` as in `tests/api`. The everyday run is short;
//! `MAYFLY_TEST_FULL=1` kills 200 times and at every system call. Figures are printed (`-- --show-output`).

use std::time::Duration;

mod clients;
mod cluster;
#[path = "../api/mail_server.rs"]
#[expect(dead_code, reason = "what only the tests of the API ask of it")]
mod mail_server;
mod place;
mod serving;

mod away;
mod cohort;
mod disk;
mod kills;
mod locked;
mod logouts;
mod mails;
mod network;
mod older;
mod points;
mod soak;
mod syscalls;

/// The program as it is released, where the run was given one: only then its speed is worth judging.
fn released() -> Option<std::ffi::OsString> {
    std::env::var_os("MAYFLY_TEST_PROGRAM")
}

/// The program under test.
fn program_file() -> std::ffi::OsString {
    released().unwrap_or_else(|| env!("CARGO_BIN_EXE_mayfly").into())
}

/// The longest that something may take: of a program that was not optimised, on a machine that has other things to do, only
/// that it does not take for ever is worth judging.
fn in_time(released_program: Duration) -> Duration {
    released_program * if released().is_some() { 1 } else { 5 }
}

/// How many, in the everyday run and in the full one.
fn scale(everyday: usize, full: usize) -> usize {
    if is_set("MAYFLY_TEST_FULL", "1") {
        full
    } else {
        everyday
    }
}

/// So many seconds, in the everyday run and in the full one.
fn seconds(everyday: usize, full: usize) -> Duration {
    Duration::from_secs(scale(everyday, full) as u64)
}

/// This machine lacks what a test needs. Where everything has to be tested that is a failure, else the test says so
/// and goes without.
fn cannot_run(reason: &str) {
    let must_run = is_set("MAYFLY_TEST_FULL", "1") || is_set("CI", "true");
    assert!(!must_run, "this has to be tested here, and cannot: {reason}");
    println!("skipped: {reason}");
}

fn is_set(name: &str, to: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value == to)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the program took; the tests' own time, not the product's"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// The real program takes the machine: one such test at a time.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
