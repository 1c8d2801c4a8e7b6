//! What many callers ask at once, asked of the database together. Must not know any table.
//!
//! The cost of a small statement is above all the way to whoever carries it out (a server, or the thread that SQLite
//! works in) and its commit. So while some are under way, whoever comes next waits for the first of them to end, and
//! goes together with all who came meanwhile; whoever comes alone goes alone. Before each statement every task that is
//! ready has its turn, so that requests which arrived in the same moment come along; when there is none, that costs
//! two looks at the sockets. There is no clock in it: the busier the database, the more go together.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::StorageError;
use super::connect::PATIENCE;
use super::postgres::{Postgres, in_time};
use super::sqlite::Sqlite;

/// Most callers of one statement.
const MOST: usize = 128;

/// After so long a statement that has no answer yet counts no more: perhaps its connection has fallen silent, and the
/// others go on without it.
const SLOW: Duration = Duration::from_millis(250);

/// Statements of one kind that are under way at once. One after the other gathers most; more only pay where there are
/// cores to work on them.
pub(super) fn under_way_at_most() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores / 2).unwrap_or(u32::MAX).clamp(1, 4)
}

/// What can be asked for many at once.
pub(super) trait Question: Send + Sync + Sized + 'static {
    /// What one caller gets to know.
    type Answer: Send + 'static;
}

/// Where questions of a kind are answered.
pub(super) trait Desk<Q: Question>: Clone + Send + Sync + 'static {
    /// Asks in one statement, or one transaction. As many answers as questions, in their order.
    ///
    /// After an error that may concern one of them, each is asked once more by [`Desk::ask_alone`]. Where nobody can know
    /// whether the first time came to anything, as with a server, they must bear that.
    fn ask(&self, questions: &[Q]) -> impl Future<Output = Result<Vec<Q::Answer>, StorageError>> + Send;

    /// For one whose company was refused.
    fn ask_alone(&self, question: &[Q; 1]) -> impl Future<Output = Result<Vec<Q::Answer>, StorageError>> + Send {
        self.ask(question)
    }
}

/// How PostgreSQL is asked: in one statement that is a transaction of its own.
pub(super) trait AskPostgres: Question {
    /// See [`Desk::ask`].
    fn ask(
        connection: &mut PgConnection,
        questions: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;
}

/// How SQLite is asked: by a reader in one statement, or by the writer in one transaction.
pub(super) trait AskSqlite: Question {
    /// See [`Desk::ask`].
    fn ask(sqlite: &Sqlite, questions: &[Self])
    -> impl Future<Output = Result<Vec<Self::Answer>, StorageError>> + Send;
}

impl<Q: AskSqlite> Desk<Q> for Sqlite {
    async fn ask(&self, questions: &[Q]) -> Result<Vec<Q::Answer>, StorageError> {
        Q::ask(self, questions).await
    }
}

/// A server, asked for many and for one.
#[derive(Clone)]
pub(super) struct Server {
    /// Connections for many at once, which give up soon at a row that somebody else holds.
    pub(super) many: Postgres,
    /// Connections with the patience of one.
    pub(super) one: Postgres,
}

impl<Q: AskPostgres> Desk<Q> for Server {
    async fn ask(&self, questions: &[Q]) -> Result<Vec<Q::Answer>, StorageError> {
        ask_over(&self.many, questions).await
    }

    async fn ask_alone(&self, question: &[Q; 1]) -> Result<Vec<Q::Answer>, StorageError> {
        ask_over(&self.one, question).await
    }
}

async fn ask_over<Q: AskPostgres>(postgres: &Postgres, questions: &[Q]) -> Result<Vec<Q::Answer>, StorageError> {
    let mut lent = postgres.lend().await?;
    let answers = in_time(PATIENCE, Q::ask(lent.connection(), questions)).await?;
    lent.answered();
    Ok(answers)
}

/// Where questions of one kind meet. Cheap to clone.
pub(super) struct Together<D, Q: Question>(Arc<Meeting<D, Q>>);

struct Meeting<D, Q: Question> {
    desk: D,
    waiting: Mutex<Waiting<Q>>,
    under_way_at_most: u32,
}

struct Waiting<Q: Question> {
    callers: VecDeque<(Q, Answering<Q>)>,
    /// Tasks that will look at `callers` again.
    under_way: u32,
}

type Answering<Q> = oneshot::Sender<Result<<Q as Question>::Answer, StorageError>>;

impl<D, Q: Question> Clone for Together<D, Q> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Desk<Q>, Q: Question> Together<D, Q> {
    pub(super) fn new(desk: &D) -> Self {
        let waiting = Waiting {
            callers: VecDeque::new(),
            under_way: 0,
        };
        Self(Arc::new(Meeting {
            desk: desk.clone(),
            waiting: Mutex::new(waiting),
            under_way_at_most: under_way_at_most(),
        }))
    }

    /// The answer, within [`PATIENCE`]. After that, and for a caller who goes away before, it may be asked all the same.
    pub(super) async fn ask(&self, question: Q) -> Result<Q::Answer, StorageError> {
        let (answer, told) = oneshot::channel();
        let begins = {
            let mut waiting = self.0.waiting();
            waiting.callers.push_back((question, answer));
            let begins = waiting.under_way < self.0.under_way_at_most;
            waiting.under_way += u32::from(begins);
            begins
        };
        if begins {
            Turn::begin(self.0.clone());
        }
        let told = timeout(PATIENCE, told).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        told.map_err(|_| sqlx::Error::WorkerCrashed)?
    }
}

impl<D, Q: Question> Meeting<D, Q> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<Q>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those under way.
struct Turn<D, Q: Question> {
    meeting: Arc<Meeting<D, Q>>,
    /// It will look again.
    counts: bool,
}

impl<D, Q: Question> Drop for Turn<D, Q> {
    /// Nobody waits for an answer that a panic or the end of the program has taken away.
    fn drop(&mut self) {
        if self.counts {
            let mut waiting = self.meeting.waiting();
            waiting.under_way -= 1;
            if waiting.under_way == 0 {
                waiting.callers.clear();
            }
        }
    }
}

impl<D: Desk<Q>, Q: Question> Turn<D, Q> {
    /// It must have been counted already.
    fn begin(meeting: Arc<Meeting<D, Q>>) {
        tokio::spawn(Self { meeting, counts: true }.work());
    }

    async fn work(mut self) {
        while let Some((questions, callers)) = self.next().await {
            let failed = match self.ask(&questions).await {
                Ok(answers) => {
                    for (caller, answer) in callers.into_iter().zip(answers) {
                        // Whoever has gone away does not hear it.
                        let _ = caller.send(Ok(answer));
                    }
                    continue;
                }
                Err(error) => error,
            };
            // A row that is held may be held for long: nobody waits for another's trouble.
            let may_concern_one = failed.may_concern_one();
            let failed = failed.for_several();
            for (question, caller) in questions.into_iter().zip(callers) {
                if may_concern_one {
                    tokio::spawn(alone(self.meeting.desk.clone(), question, caller));
                } else {
                    let _ = caller.send(Err(StorageError::Together(failed.clone())));
                }
            }
        }
    }

    /// Those who wait. None: nobody does, or another looks after them, and this turn is over.
    async fn next(&mut self) -> Option<(Vec<Q>, Vec<Answering<Q>>)> {
        if !self.counts {
            return None;
        }
        // In the first the runtime hears which requests have come, in the second they come here.
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        let mut waiting = self.meeting.waiting();
        waiting.callers.retain(|(_, caller)| !caller.is_closed());
        if waiting.callers.is_empty() {
            // Before anybody can come and rely on it.
            waiting.under_way -= 1;
            self.counts = false;
            return None;
        }
        let next = waiting.callers.len().min(MOST);
        Some(waiting.callers.drain(..next).unzip())
    }

    async fn ask(&mut self, questions: &[Q]) -> Result<Vec<Q::Answer>, StorageError> {
        let meeting = self.meeting.clone();
        let mut asking = pin!(meeting.desk.ask(questions));
        let answers = if let Ok(answers) = timeout(SLOW, &mut asking).await {
            answers?
        } else {
            self.step_aside();
            asking.await?
        };
        if answers.len() != questions.len() {
            return Err(sqlx::Error::Protocol("not as many answers as questions".to_owned()).into());
        }
        Ok(answers)
    }

    /// Counts no more; another takes its place if anybody waits.
    fn step_aside(&mut self) {
        self.counts = false;
        let is_alone = {
            let mut waiting = self.meeting.waiting();
            let is_alone = waiting.callers.is_empty();
            waiting.under_way -= u32::from(is_alone);
            is_alone
        };
        if !is_alone {
            Self::begin(self.meeting.clone());
        }
    }
}

async fn alone<D: Desk<Q>, Q: Question>(desk: D, question: Q, caller: Answering<Q>) {
    if caller.is_closed() {
        return;
    }
    let answers = desk.ask_alone(&[question]).await;
    let answer = answers.and_then(|answers| Ok(answers.into_iter().next().ok_or(sqlx::Error::RowNotFound)?));
    let _ = caller.send(answer);
}
