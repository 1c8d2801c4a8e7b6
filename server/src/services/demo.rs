//! A demo realm for `serve --demo`: five roles, sixty people, about 1,900 sessions and a month of audit events.
//!
//! Made by driving the real services under a clock that runs through the last thirty days; no row is inserted
//! behind their back. Only the password step is passed over for the many sign-ins, because hashing is slow on
//! purpose.

mod cast;
mod month;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::CliError;
use crate::config::Settings;
use crate::domain::clock::{Clock, ManualClock, SystemClock};
use crate::domain::random::Random;
use crate::startup::{Purpose, open_backend};
use crate::storage::users;

/// Days that the realm looks back on.
pub const DAYS: u64 = 30;

/// Fills an empty database, then says (at every start) who can sign in.
///
/// # Errors
/// When the database or the note about who can sign in cannot be written.
pub async fn fill_if_empty(settings: &Settings, random: Arc<dyn Random>) -> Result<(), CliError> {
    let note = settings.data_dir.join("demo-sign-ins.txt");
    let start = SystemClock.now().minus(Duration::from_secs(DAYS * 24 * 3600));
    let clock = Arc::new(ManualClock::new(start));
    let backend = Arc::new(open_backend(settings, clock.clone(), random, Purpose::Serve).await?);
    let mut tx = backend.store().read().await?;
    let empty = users::count_users(&mut tx).await? == 0;
    drop(tx);
    if empty {
        eprintln!("Making the demo realm …");
        let cast = cast::make(&backend, &clock).await?;
        let figures = month::live_through(&backend, &clock, &cast, SystemClock.now()).await?;
        write_private(&note, &cast.who_can_sign_in())?;
        eprintln!("{figures}");
    }
    backend.store().close().await;
    match std::fs::read_to_string(&note) {
        Ok(text) => println!("{text}"),
        Err(_) => println!("This data folder holds no demo realm; its people are whoever was added to it."),
    }
    Ok(())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
