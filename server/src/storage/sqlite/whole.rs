//! A writer's part that is known from the start: several statements in one text, which is one step for the driver. Must
//! not know any table.

use std::sync::atomic::Ordering;

use sqlx::sqlite::SqliteArguments;
use tokio::sync::oneshot;

use super::super::StorageError;
use super::super::connect::PATIENCE;
use super::{Queueing, Scope, Sqlite, Turn, Writer, told};

/// Statements that are the whole of one writer's part, in one text for each place that the part may have in a
/// transaction. One text is one step for the driver, however many statements it holds.
pub(in crate::storage) struct Whole {
    /// A transaction of its own.
    pub(in crate::storage) alone: &'static str,
    /// The beginning of a shared one.
    pub(in crate::storage) first: &'static str,
    /// A further part of it. The savepoint has a name of its own: going back to it never reaches that of another writer.
    pub(in crate::storage) further: &'static str,
}

/// Makes a [`Whole`] of statements.
macro_rules! whole {
    ($($part:tt)+) => {
        $crate::storage::sqlite::whole::Whole {
            alone: concat!("BEGIN IMMEDIATE; ", $($part)+, "; COMMIT"),
            first: concat!("BEGIN IMMEDIATE; ", $($part)+),
            further: concat!("SAVEPOINT whole; ", $($part)+, "; RELEASE whole"),
        }
    };
}
pub(in crate::storage) use whole;

/// Takes back a further part that failed.
const NOT_WHOLE: &str = "ROLLBACK TO whole; RELEASE whole";

impl Sqlite {
    /// Carries out what is a writer's whole part; durable when this returns. Whether its statements gave a row: without
    /// one they must have written nothing.
    ///
    /// After [`PATIENCE`] nobody waits any more, but it may still happen.
    pub(in crate::storage) async fn write_whole(
        &self,
        whole: &'static Whole,
        arguments: SqliteArguments,
    ) -> Result<bool, StorageError> {
        let writer = self.writer.clone();
        // A task of its own: sqlx's worker stops between two statements of a text that nobody waits for any more.
        let written = tokio::spawn(async move { writer.write_whole(whole, arguments).await });
        let written = tokio::time::timeout(PATIENCE, written).await;
        let written = written.map_err(|_| sqlx::Error::PoolTimedOut)?;
        written.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

impl Writer {
    /// Must not be dropped while it works.
    async fn write_whole(&self, whole: &'static Whole, arguments: SqliteArguments) -> Result<bool, StorageError> {
        let queueing = Queueing::new(&self.queue);
        let turn = tokio::time::timeout(PATIENCE, self.turn.clone().lock_owned()).await;
        let mut turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        drop(queueing);
        turn.put_right().await?;
        let alone = turn.scope == Scope::Nothing && self.is_alone();
        let written = if alone {
            turn.run_from_nothing(whole.alone, arguments).await
        } else if turn.scope == Scope::Nothing {
            turn.run_from_nothing(whole.first, arguments).await
        } else {
            turn.run_further(whole.further, arguments).await
        };
        if let Err(error) = &written {
            turn.note(error);
        }
        if alone && written.is_ok() {
            turn.scope = Scope::Nothing;
            turn.commits.fetch_add(1, Ordering::Relaxed);
            return Ok(written?);
        }
        let (done, outcome) = oneshot::channel();
        if matches!(written, Ok(true)) {
            turn.waiting.push(done);
        }
        if self.is_alone() {
            turn.commit_all().await;
        } else {
            self.wake.notify_one();
        }
        drop(turn);
        if written? {
            told(outcome).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Nobody queues.
    fn is_alone(&self) -> bool {
        self.queue.load(Ordering::SeqCst) == 0
    }
}

impl Turn {
    /// Whether the text gave a row.
    async fn run_with(&mut self, text: &'static str, arguments: SqliteArguments) -> Result<bool, sqlx::Error> {
        let query = sqlx::query_with(text, arguments);
        let rows = query.fetch_all(self.connection()?).await?;
        Ok(!rows.is_empty())
    }

    /// Runs a text that begins a transaction. What is left of one that fails is put right by the next.
    async fn run_from_nothing(&mut self, text: &'static str, arguments: SqliteArguments) -> Result<bool, sqlx::Error> {
        self.abandoned = true;
        self.scope = Scope::Beginning;
        let gave_row = self.run_with(text, arguments).await?;
        self.scope = Scope::Transaction;
        self.abandoned = false;
        Ok(gave_row)
    }

    /// Runs a text within its own savepoint. If it fails, it alone is taken back, or else everything.
    async fn run_further(&mut self, text: &'static str, arguments: SqliteArguments) -> Result<bool, sqlx::Error> {
        let result = self.run_with(text, arguments).await;
        if result.is_err()
            && let Err(error) = self.run(NOT_WHOLE).await
        {
            // Nobody knows what is left of the transaction; perhaps it is gone, and a new one would seem to be it.
            self.settle(Err(error)).await;
        }
        result
    }
}
