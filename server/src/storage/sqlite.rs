//! The embedded database: one connection writes, in order of arrival; the others read. Must not know any table.
//!
//! **Sharing a commit.** Making a commit durable costs a hundred times more than the writes in it, so writers that
//! queue behind each other share one. Each works alone on the connection; from the second one on inside a savepoint
//! of its own. When it is done it leaves the transaction open, lets the next one go on, and waits. The [`Writer`]'s
//! own task queues up like everybody else and commits for all who came before it. Nobody is told "done" before the
//! commit is on the disk; whoever gives up is rolled back alone, and if the commit fails everyone in it is told so.
//!
//! What a writer has to say may also be known from the start (see [`Whole`]): then it takes one step from the first
//! word to the last, and one that nobody queues behind commits in the same step.
//!
//! **Cancellation.** A request may be dropped at any await. Every step here is a single statement, which sqlx's worker
//! carries out even when nobody waits for it any more, and [`Turn`] notes what was begun *before* it waits. Whoever
//! comes next puts it right.
//!
//! **Checkpoints** run on a connection of their own, so that no writer pays for them (see [`keep_log_short`]).

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleResult, Timeouts};
use deadpool::{Runtime, managed};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};

use super::StorageError;
use super::connect::PATIENCE;

/// Connections that only read.
pub(super) type Reader = Object<Readers>;

/// The opened file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sqlite {
    readers: Pool<Readers>,
    writer: Arc<Writer>,
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
            .pragma("cache_size", "-2048")
            .pragma("journal_size_limit", "16777216")
            .pragma("wal_autocheckpoint", "0");
        let connection = SqliteConnection::connect_with(&writing).await?;
        let checkpointing = SqliteConnection::connect_with(&writing.pragma("cache_size", "-64")).await?;
        let writer = Writer::start(connection, checkpointing);
        let readers = Pool::builder(Readers(options.read_only(true).pragma("cache_size", "-1024")))
            .max_size(usize::try_from(readers).unwrap_or(usize::MAX))
            .timeouts(Timeouts {
                wait: Some(PATIENCE),
                ..Timeouts::default()
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| StorageError::Address("no pool of readers could be made"))?;
        Ok(Self { readers, writer })
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

    /// Carries out what is a writer's whole part; durable when this returns. Whether its statements gave a row: without
    /// one they must have written nothing.
    ///
    /// After [`PATIENCE`] nobody waits any more, but it may still happen.
    pub(super) async fn write_whole(
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
        self.readers.close();
        for reader in self.readers.retain(|_, _| false).removed {
            close(reader).await;
        }
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

/// Statements that are the whole of one writer's part, in one text for each place that the part may have in a
/// transaction. One text is one step for the driver, however many statements it holds.
pub(super) struct Whole {
    /// A transaction of its own.
    pub(super) alone: &'static str,
    /// The beginning of a shared one.
    pub(super) first: &'static str,
    /// A further part of it. The savepoint has a name of its own: going back to it never reaches that of another writer.
    pub(super) further: &'static str,
}

/// Makes a [`Whole`] of statements.
macro_rules! whole {
    ($($part:tt)+) => {
        $crate::storage::sqlite::Whole {
            alone: concat!("BEGIN IMMEDIATE; ", $($part)+, "; COMMIT"),
            first: concat!("BEGIN IMMEDIATE; ", $($part)+),
            further: concat!("SAVEPOINT whole; ", $($part)+, "; RELEASE whole"),
        }
    };
}
pub(super) use whole;

/// Takes back a further part that failed.
const NOT_WHOLE: &str = "ROLLBACK TO whole; RELEASE whole";

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
    /// None once closed.
    connection: Option<SqliteConnection>,
    scope: Scope,
    /// The last one who worked here did not finish.
    abandoned: bool,
    /// Those who are done and wait for the commit.
    waiting: Vec<oneshot::Sender<Result<(), Arc<sqlx::Error>>>>,
    /// Commits so far.
    commits: Arc<AtomicU64>,
}

impl Writer {
    fn start(connection: SqliteConnection, checkpointing: SqliteConnection) -> Arc<Self> {
        let commits = Arc::new(AtomicU64::new(0));
        let turn = Arc::new(Mutex::new(Turn {
            connection: Some(connection),
            scope: Scope::Nothing,
            abandoned: false,
            waiting: Vec::new(),
            commits: commits.clone(),
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

/// Waits for the commit that was promised.
async fn told(outcome: oneshot::Receiver<Result<(), Arc<sqlx::Error>>>) -> Result<(), StorageError> {
    match outcome.await {
        Ok(outcome) => outcome.map_err(StorageError::Commit),
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
        if turn.connection.is_none() {
            return;
        }
        turn.commit_all().await;
    }
}

impl Turn {
    pub(super) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(self.connection()?).await.map(drop)
    }

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
            return Err(StorageError::Commit(Arc::new(error)));
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

    /// Ends the transaction with this outcome of its commit, and tells those who wait.
    async fn settle(&mut self, outcome: Result<(), sqlx::Error>) {
        self.scope = Scope::Nothing;
        self.abandoned = false;
        if let Err(error) = &outcome {
            tracing::error!(%error, writers = self.waiting.len(), "a commit failed");
            // Where the failure itself rolled back, this says that there is nothing left.
            let _ = self.run("ROLLBACK").await;
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

    /// Waits until it is on the disk.
    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        if self.turn.waiting.is_empty() && self.queue.load(Ordering::SeqCst) == 0 {
            // Nobody to share with: no need to wake the task.
            return self.turn.commit_alone().await;
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

/// How often the log is looked at.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// After so many commits it is worth copying the log into the file.
const CHECKPOINT_AFTER: u64 = 200;
/// Pages (4 KiB) in the log at which writers wait until it begins anew.
const LONGEST_LOG: i64 = 8192;

struct Checkpoints {
    task: tokio::task::JoinHandle<SqliteConnection>,
    stop: Arc<Notify>,
}

impl Checkpoints {
    fn start(connection: SqliteConnection, turn: &Arc<Mutex<Turn>>, commits: Arc<AtomicU64>) -> Self {
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(keep_log_short(connection, Arc::downgrade(turn), commits, stop.clone()));
        Self { task, stop }
    }

    async fn stop(self) {
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
        let length = checkpoint(&mut connection).await;
        if length >= LONGEST_LOG
            && let Some(turn) = turn.upgrade()
        {
            let mut turn = turn.lock().await;
            turn.commit_all().await;
            checkpoint(&mut connection).await;
        }
    }
}

/// Pages in the log before it. A failure is no loss: what is in the log stays there.
async fn checkpoint(connection: &mut SqliteConnection) -> i64 {
    let row: Result<(i64, i64, i64), sqlx::Error> = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(connection)
        .await;
    match row {
        Ok((_, length, _)) => length,
        Err(error) => {
            tracing::warn!(%error, "the write-ahead log could not be copied into the database");
            0
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
