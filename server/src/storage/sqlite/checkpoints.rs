//! Copying the write-ahead log into the file, beside the writers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::SqliteConnection;
use tokio::sync::{Mutex, Notify};

use super::{Turn, close};

/// How often the log is looked at.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// After so many commits it is worth copying the log into the file.
const CHECKPOINT_AFTER: u64 = 200;
/// Pages (4 KiB) in the log at which writers wait until it begins anew.
const LONGEST_LOG: i64 = 8192;

/// The task that does it.
pub(super) struct Checkpoints {
    task: tokio::task::JoinHandle<SqliteConnection>,
    stop: Arc<Notify>,
}

impl Checkpoints {
    pub(super) fn start(connection: SqliteConnection, turn: &Arc<Mutex<Turn>>, commits: Arc<AtomicU64>) -> Self {
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(keep_log_short(connection, Arc::downgrade(turn), commits, stop.clone()));
        Self { task, stop }
    }

    pub(super) async fn stop(self) {
        self.stop.notify_one();
        match self.task.await {
            Ok(connection) => close(connection).await,
            Err(error) => tracing::warn!(%error, "checkpoints ended early"),
        }
    }
}

/// Copies the write-ahead log into the file, beside the writers. Under steady load the log never runs empty, so it
/// would grow for ever: at [`LONGEST_LOG`] the writers wait for the little that is left, and it begins anew.
async fn keep_log_short(
    mut connection: SqliteConnection,
    turn: Weak<Mutex<Turn>>,
    commits: Arc<AtomicU64>,
    stop: Arc<Notify>,
) -> SqliteConnection {
    let (mut copied, mut rounds) = (0, 0_u32);
    loop {
        if tokio::time::timeout(CHECKPOINT_EVERY, stop.notified()).await.is_ok() || turn.strong_count() == 0 {
            return connection;
        }
        let now = commits.load(Ordering::Relaxed);
        rounds += 1;
        // Much was written, or something and then nothing more for a while.
        if now == copied || (now - copied < CHECKPOINT_AFTER && rounds < 25) {
            continue;
        }
        (copied, rounds) = (now, 0);
        let mut done = checkpoint(&mut connection).await;
        let Some(turn) = turn.upgrade() else {
            return connection;
        };
        if done.as_ref().is_ok_and(|length| *length >= LONGEST_LOG) {
            let mut turn = turn.lock().await;
            turn.commit_all().await;
            done = checkpoint(&mut connection).await;
        }
        if let Err(error) = done {
            // No loss: what is in the log stays there.
            tracing::warn!(%error, "the write-ahead log could not be copied into the database");
            let mut turn = turn.lock().await;
            turn.note(&error);
            turn.commit_all().await;
        }
        if turn.lock().await.connection.is_none() {
            return connection;
        }
    }
}

/// Pages in the log before it.
async fn checkpoint(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let (_, length, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(connection)
        .await?;
    Ok(length)
}
