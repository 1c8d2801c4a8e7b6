//! The server through its front door: the whole application on a real database, asked as browsers and programs ask.
//!
//! Tests are named after the requirement they would catch the loss of (`s1_…` is S1 of the security requirements);
//! `requirements.csv` says which test stands for which, and [`traceability`] checks that table.
//!
//! `MAYFLY_TEST_DATABASE` chooses `sqlite` (the default) or `postgres`; the latter needs an administrator's
//! connection in `MAYFLY_TEST_POSTGRES_URL`, on which each test makes a database of its own and drops it.

mod app;
mod binding;
mod browser;
mod database;
mod holder;
mod node;
mod node_clock_races;
mod node_clocks;
mod people;
mod process;
mod program;
mod reply;
mod service;
mod wire;

mod abuse;
mod access_tokens;
mod architecture;
mod authorization;
mod backchannel_logout;
mod backchannel_logout_away;
mod checked_tokens;
mod client_assertions;
mod client_credentials;
mod clock_jumps;
mod cohorts;
mod cookies;
mod csrf;
mod device_bound;
mod device_bound_wrong;
mod dpop;
mod dpop_wrong;
mod escalation;
mod factors;
mod headers;
mod introspection;
mod key_nodes;
mod keys;
mod lost_answers;
mod lost_keys;
mod mail_server;
mod mails;
mod mails_away;
mod metrics;
mod oauth_endpoints;
mod passwords;
mod recovery;
mod redirects;
mod refresh;
mod refresh_machine;
mod refresh_races;
mod replaced;
mod revocation;
mod revocation_feed;
mod revocation_nodes;
mod revoked_tokens;
mod rolled_back;
mod sealing;
mod secrets;
mod security_events;
mod serving;
mod session_ends;
mod sessions;
mod sign_in;
mod silent_database;
mod told;
mod traceability;
mod upgrade;

/// The program as it is released, where the run was given one: only then its speed is worth judging.
fn released() -> Option<std::ffi::OsString> {
    std::env::var_os("MAYFLY_TEST_PROGRAM")
}

/// The program under test.
fn program_file() -> std::ffi::OsString {
    released().unwrap_or_else(|| env!("CARGO_BIN_EXE_mayfly").into())
}

/// How many, in the everyday run and with `MAYFLY_TEST_FULL=1`.
fn scale(everyday: u32, full: u32) -> u32 {
    if std::env::var("MAYFLY_TEST_FULL").is_ok_and(|value| value == "1") {
        full
    } else {
        everyday
    }
}
