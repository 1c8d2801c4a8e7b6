//! The embedded database: one connection writes, in order of arrival; the others read. Must not know any table.
//!
//! **Sharing a commit.** Making a commit durable costs a hundred times more than the writes in it, so writers that
//! queue behind each other share one. Each works alone on the connection; from the second one on inside a savepoint
//! of its own. When it is done it leaves the transaction open, lets the next one go on, and waits. The [`Writer`]'s
//! own task queues up like everybody else and commits for all who came before it. Nobody is told "done" before the
//! commit is on the disk; whoever gives up is rolled back alone, and if the commit fails everyone in it is told so.
//!
//! What a writer has to say may also be known from the start (see [`whole::Whole`]): then it takes one step from the first
//! word to the last, and one that nobody queues behind commits in the same step.
//!
//! **Cancellation.** A request may be dropped at any await. Every step here is a single statement, which sqlx's worker
//! carries out even when nobody waits for it any more, and [`Turn`] notes what was begun *before* it waits. Whoever
//! comes next puts it right.
//!
//! **Checkpoints** run on a connection of their own, so that no writer pays for them (see [`checkpoints`]).
//!
//! **A sync that failed** ends all writing (F5). What the disk did not take may be in the kernel's memory, taken for
//! clean: to write on beside it would need an argument for every file system. The process is told to end instead
//! ([`Sqlite::sync_failed`]), and the next one begins with what can be read and synced.

mod checkpoints;
pub(super) mod whole;

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleResult, Timeouts};
use deadpool::{Runtime, managed};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot, watch};

use super::StorageError;
use super::connect::PATIENCE;
use checkpoints::Checkpoints;

/// Result code: another connection holds a lock that is in the way.
const SQLITE_BUSY: &str = "5";
/// Extended result code: a file could not be synced.
const SQLITE_IOERR_FSYNC: &str = "1034";

/// Connections that only read.
pub(super) type Reader = Object<Readers>;

/// The opened file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sqlite {
    readers: Pool<Readers>,
    writer: Arc<Writer>,
    sync_failed: watch::Receiver<bool>,
}

/// Whether any connection has this file open. Only the last one can leave write-ahead logging, which is what is tried
/// (<https://www.sqlite.org/wal.html>, section 4); [`Sqlite::open`] takes it up again.
pub(super) async fn is_open(path: &str) -> Result<bool, StorageError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::ZERO);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let left = sqlx::query("PRAGMA journal_mode = DELETE")
        .execute(&mut connection)
        .await;
    connection.close().await?;
    match left {
        Ok(_) => Ok(false),
        Err(error) if code(&error).as_deref() == Some(SQLITE_BUSY) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

impl Sqlite {
    /// Opens the file; a missing one is made, readable by its owner only.
    pub(super) async fn open(path: &str, readers: u32) -> Result<Self, StorageError> {
        create_private(Path::new(path))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            // An answer is given only when it is on the disk: power loss takes nothing back.
            .synchronous(SqliteSynchronous::Full)
            // KiB, taken when needed: what ends a thousand sessions at once is written once, not as it is pushed out.
            .pragma("cache_size", "-8192")
            // More than the log ever grows to: a file that was cut off has to grow again, which makes commits slower.
            .pragma("journal_size_limit", "67108864")
            .pragma("wal_autocheckpoint", "0");
        let mut connection = SqliteConnection::connect_with(&writing).await?;
        // A process before this one may have died after a sync that failed: what it wrote is then read from memory, but
        // is not on the disk, and every commit appended to it would be lost with it. Copied and synced anew, the log
        // begins afresh (F5).
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut connection)
            .await?;
        let checkpointing = SqliteConnection::connect_with(&writing.pragma("cache_size", "-64")).await?;
        let (failing, sync_failed) = watch::channel(false);
        let writer = Writer::start(connection, checkpointing, failing);
        let readers = Pool::builder(Readers(options.read_only(true).pragma("cache_size", "-1024")))
            .max_size(usize::try_from(readers).unwrap_or(usize::MAX))
            .timeouts(Timeouts {
                wait: Some(PATIENCE),
                ..Timeouts::default()
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StorageError::Address("no pool of readers could be made"))?;
        Ok(Self {
            readers,
            writer,
            sync_failed,
        })
    }

    /// Becomes true when the disk did not take what was written. Nothing is written from then on.
    pub(super) const fn sync_failed(&self) -> &watch::Receiver<bool> {
        &self.sync_failed
    }

    /// A connection to read with.
    pub(super) async fn read(&self) -> Result<Reader, StorageError> {
        Ok(self.readers.get().await.map_err(|error| match error {
            managed::PoolError::Backend(error) => error,
            managed::PoolError::Closed => sqlx::Error::PoolClosed,
            _ => sqlx::Error::PoolTimedOut,
        })?)
    }

    /// A transaction to write with.
    pub(super) async fn write(&self) -> Result<WriteTx, StorageError> {
        self.writer.begin().await
    }

    /// The writing connection outside any transaction, for migrations.
    pub(super) async fn exclusive(&self) -> Result<OwnedMutexGuard<Turn>, StorageError> {
        let mut turn = self.writer.turn.clone().lock_owned().await;
        turn.commit_all().await;
        Ok(turn)
    }

    /// Idle readers give their memory back.
    pub(super) fn forget_idle_readers(&self) {
        self.readers
            .retain(|_, metrics| metrics.last_used() < Duration::from_mins(1));
    }

    /// Closes all connections; the readers first, so that the writer leaves a complete file.
    pub(super) async fn close(&self) {
        // Before the pool is closed: that would drop them, and a dropped one closes at some later time.
        for reader in self.readers.retain(|_, _| false).removed {
            close(reader).await;
        }
        self.readers.close();
        let mut turn = self.writer.turn.lock().await;
        turn.commit_all().await;
        if let Some(connection) = turn.connection.take() {
            close(connection).await;
        }
        drop(turn);
        self.writer.wake.notify_one();
        if let Some(task) = self.writer.checkpoints.lock().await.take() {
            task.stop().await;
        }
    }
}

fn code(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "a connection did not close cleanly");
    }
}

/// Makes readers. They are never tested: the file is there as long as the process is.
#[derive(Debug)]
pub(super) struct Readers(SqliteConnectOptions);

impl Manager for Readers {
    type Type = SqliteConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<SqliteConnection, sqlx::Error> {
        Box::pin(SqliteConnection::connect_with(&self.0)).await
    }

    async fn recycle(&self, _: &mut SqliteConnection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        Ok(())
    }
}

/// The one connection that writes.
struct Writer {
    /// Handed on in order of arrival.
    turn: Arc<Mutex<Turn>>,
    /// Somebody waits for a commit, or left something to put right.
    wake: Arc<Notify>,
    /// How many want the turn.
    queue: Arc<AtomicUsize>,
    checkpoints: Mutex<Option<Checkpoints>>,
}

/// What the transaction that is open belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// None is open.
    Nothing,
    /// It was asked for; nobody has heard yet whether it came.
    Beginning,
    /// The whole transaction: the first of those who share it.
    Transaction,
    /// A savepoint: one of the later ones.
    Savepoint,
}

/// Whoever holds this works on the connection.
pub(super) struct Turn {
    /// None once closed, or given up.
    connection: Option<SqliteConnection>,
    scope: Scope,
    /// The last one who worked here did not finish.
    abandoned: bool,
    /// Those who are done and wait for the commit.
    waiting: Vec<oneshot::Sender<Result<(), Arc<sqlx::Error>>>>,
    /// Commits so far.
    commits: Arc<AtomicU64>,
    /// The disk did not take something.
    is_unsynced: bool,
    sync_failed: watch::Sender<bool>,
}

impl Writer {
    fn start(
        connection: SqliteConnection,
        checkpointing: SqliteConnection,
        sync_failed: watch::Sender<bool>,
    ) -> Arc<Self> {
        let commits = Arc::new(AtomicU64::new(0));
        let turn = Arc::new(Mutex::new(Turn {
            connection: Some(connection),
            scope: Scope::Nothing,
            abandoned: false,
            waiting: Vec::new(),
            commits: commits.clone(),
            is_unsynced: false,
            sync_failed,
        }));
        let checkpoints = Checkpoints::start(checkpointing, &turn, commits);
        let writer = Arc::new(Self {
            turn,
            wake: Arc::new(Notify::new()),
            queue: Arc::default(),
            checkpoints: Mutex::new(Some(checkpoints)),
        });
        tokio::spawn(commit_for_all(Arc::downgrade(&writer), writer.wake.clone()));
        writer
    }

    /// One patience for both waits, that for the turn and SQLite's own for another process that writes.
    async fn begin(&self) -> Result<WriteTx, StorageError> {
        let begun = async {
            let queueing = Queueing::new(&self.queue);
            let turn = self.turn.clone().lock_owned().await;
            drop(queueing);
            // Dropping it from here on has whatever was begun put right.
            let mut tx = WriteTx {
                turn,
                wake: self.wake.clone(),
                queue: self.queue.clone(),
            };
            tx.turn.begin().await?;
            Ok(tx)
        };
        let begun = tokio::time::timeout(PATIENCE, begun).await;
        begun.map_err(|_| sqlx::Error::PoolTimedOut)?
    }
}

/// Waits for the commit that was promised.
async fn told(outcome: oneshot::Receiver<Result<(), Arc<sqlx::Error>>>) -> Result<(), StorageError> {
    match outcome.await {
        Ok(outcome) => outcome.map_err(StorageError::Together),
        Err(_) => Err(sqlx::Error::PoolClosed.into()),
    }
}

/// One in the queue, until dropped.
struct Queueing<'a>(&'a AtomicUsize);

impl<'a> Queueing<'a> {
    fn new(queue: &'a AtomicUsize) -> Self {
        queue.fetch_add(1, Ordering::SeqCst);
        Self(queue)
    }
}

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // So that the task sees that it is over.
        self.wake.notify_one();
    }
}

/// Commits whenever somebody waits for it. A task of its own, so that no dropped request can interrupt a commit.
async fn commit_for_all(writer: Weak<Writer>, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        let Some(turn) = writer.upgrade().map(|writer| writer.turn.clone()) else {
            return;
        };
        let mut turn = turn.lock_owned().await;
        // Also without a connection: whoever waits is told.
        turn.commit_all().await;
        if turn.connection.is_none() {
            return;
        }
    }
}

impl Turn {
    pub(super) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(self.connection()?).await.map(drop)
    }

    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.put_right().await?;
        self.abandoned = true;
        if self.scope == Scope::Nothing {
            self.scope = Scope::Beginning;
            self.run("BEGIN IMMEDIATE").await?;
            self.scope = Scope::Transaction;
        } else {
            let before = std::mem::replace(&mut self.scope, Scope::Savepoint);
            if let Err(error) = self.run("SAVEPOINT one_of_many").await {
                // There is none of ours to go back to: going back all the same would undo the one before, whose owner
                // has finished and will be told that it is on the disk.
                self.scope = before;
                self.abandoned = false;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes back what the last one left unfinished.
    async fn put_right(&mut self) -> Result<(), sqlx::Error> {
        self.give_up_if_unsynced();
        if !self.abandoned {
            return Ok(());
        }
        match self.scope {
            Scope::Nothing => {}
            Scope::Beginning => {
                self.scope = Scope::Nothing;
                // It fails if there is nothing to roll back; that is just as well.
                let _ = self.run("ROLLBACK").await;
            }
            Scope::Transaction => {
                self.scope = Scope::Nothing;
                self.run("ROLLBACK").await?;
            }
            // The savepoint itself stays; the next one lies within it.
            Scope::Savepoint => self.run("ROLLBACK TO one_of_many").await?,
        }
        self.abandoned = false;
        Ok(())
    }

    /// Commits what only one has written. Dropped while it waits, it is carried out all the same; should it fail then,
    /// the next one cannot begin, and that is put right after it.
    async fn commit_alone(&mut self) -> Result<(), StorageError> {
        self.abandoned = false;
        self.scope = Scope::Nothing;
        if let Err(error) = self.run("COMMIT").await {
            tracing::error!(%error, "a commit failed");
            // Where the failure itself rolled back, this says that there is nothing left.
            let _ = self.run("ROLLBACK").await;
            self.note(&error);
            self.give_up_if_unsynced();
            return Err(StorageError::Together(Arc::new(error)));
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything durable that was finished, and tells those who wait.
    async fn commit_all(&mut self) {
        let outcome = match self.put_right().await {
            Ok(()) if self.scope == Scope::Nothing => return,
            Ok(()) => self.run("COMMIT").await,
            Err(error) => Err(error),
        };
        self.settle(outcome).await;
    }

    /// Hears of what failed. If it was a sync, nothing is written any more from the end of this part on.
    pub(super) fn note(&mut self, error: &sqlx::Error) {
        self.is_unsynced |= code(error).as_deref() == Some(SQLITE_IOERR_FSYNC);
    }

    fn give_up_if_unsynced(&mut self) {
        if self.is_unsynced && self.connection.take().is_some() {
            tracing::error!(
                "the disk did not take what was written: nothing is written any more, and the process ends"
            );
            self.sync_failed.send_replace(true);
        }
    }

    /// Ends the transaction with this outcome of its commit, and tells those who wait.
    async fn settle(&mut self, outcome: Result<(), sqlx::Error>) {
        self.scope = Scope::Nothing;
        self.abandoned = false;
        if let Err(error) = &outcome {
            tracing::error!(%error, writers = self.waiting.len(), "a commit failed");
            // Where the failure itself rolled back, this says that there is nothing left.
            let _ = self.run("ROLLBACK").await;
            self.note(error);
            self.give_up_if_unsynced();
        } else {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        let outcome = outcome.map_err(Arc::new);
        for waiting in self.waiting.drain(..) {
            // Who does not wait any more need not be told.
            let _ = waiting.send(outcome.clone());
        }
    }
}

/// One writer's part of a transaction. Dropping it without [`WriteTx::commit`] takes back what it wrote.
pub(super) struct WriteTx {
    turn: OwnedMutexGuard<Turn>,
    wake: Arc<Notify>,
    queue: Arc<AtomicUsize>,
}

impl std::fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTx").finish_non_exhaustive()
    }
}

impl WriteTx {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        let connection = self.turn.connection.as_mut();
        connection.expect("`begin` has used it, and only who has the turn can close it")
    }

    /// Hears of a statement that failed.
    pub(super) fn note(&mut self, error: &sqlx::Error) {
        self.turn.note(error);
    }

    /// Waits until it is on the disk.
    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        if self.turn.waiting.is_empty() && self.queue.load(Ordering::SeqCst) == 0 {
            // Nobody to share with: no need to wake the committing task. A task of its own, because what the disk says has
            // to be heard even if nobody waits for it any more.
            let committed = tokio::spawn(async move { self.turn.commit_alone().await }).await;
            return committed.map_err(|_| sqlx::Error::WorkerCrashed)?;
        }
        let (done, outcome) = oneshot::channel();
        self.turn.abandoned = false;
        self.turn.waiting.push(done);
        drop(self);
        told(outcome).await
    }
}

impl Drop for WriteTx {
    fn drop(&mut self) {
        if self.turn.abandoned || !self.turn.waiting.is_empty() {
            // The task queues behind those who are waiting already, and commits for all.
            self.wake.notify_one();
        }
    }
}

/// Makes the file with mode 0600 before SQLite would make it with the process's usual mode. Its journal files take
/// over its mode.
fn create_private(path: &Path) -> Result<(), StorageError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map(drop)
        .map_err(|error| StorageError::Database(sqlx::Error::Io(error)))
}
