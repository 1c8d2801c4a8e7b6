//! What many callers ask at once, asked of the database server together. Must not know any table.
//!
//! The cost of a small statement is above all its round trip and its commit. So while some are under way, whoever comes
//! next waits for the first of them to end, and goes together with all who came meanwhile; whoever comes alone goes at
//! once and alone. There is no clock in it: the busier the server, the more go together.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::StorageError;
use super::super::connect::PATIENCE;
use super::{Postgres, in_time};

/// Most callers of one statement.
const MOST: usize = 128;

/// After so long a statement that has no answer yet counts no more: perhaps its connection has fallen silent, and the
/// others go on without it.
const SLOW: Duration = Duration::from_millis(250);

/// Statements of one kind that are under way at once. One after the other gathers most; more only pay where there are
/// cores to work on them.
pub(in crate::storage) fn under_way_at_most() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores / 2).unwrap_or(u32::MAX).clamp(1, 4)
}

/// What can be asked for many at once.
pub(in crate::storage) trait Question: Send + Sync + Sized + 'static {
    /// What one caller gets to know.
    type Answer: Send;

    /// Asks in one statement that is a transaction of its own. As many answers as questions, in their order.
    ///
    /// After an error it may be asked once more for each alone, whatever became of it: it must bear that.
    fn ask(
        connection: &mut PgConnection,
        questions: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, sqlx::Error>> + Send;
}

/// Where questions of one kind meet. Cheap to clone.
pub(in crate::storage) struct Together<Q: Question>(Arc<Meeting<Q>>);

struct Meeting<Q: Question> {
    /// Connections for many at once, which give up soon at a row that somebody else holds.
    many: Postgres,
    /// Connections with the patience of one.
    one: Postgres,
    waiting: Mutex<Waiting<Q>>,
    under_way_at_most: u32,
}

struct Waiting<Q: Question> {
    callers: VecDeque<(Q, Answering<Q>)>,
    /// Tasks that will look at `callers` again.
    under_way: u32,
}

type Answering<Q> = oneshot::Sender<Result<<Q as Question>::Answer, StorageError>>;

impl<Q: Question> Clone for Together<Q> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Question> Together<Q> {
    pub(in crate::storage) fn new(many: Postgres, one: Postgres) -> Self {
        let waiting = Waiting {
            callers: VecDeque::new(),
            under_way: 0,
        };
        Self(Arc::new(Meeting {
            many,
            one,
            waiting: Mutex::new(waiting),
            under_way_at_most: under_way_at_most(),
        }))
    }

    /// The answer, within [`PATIENCE`]. After that, and for a caller who goes away before, it may be asked all the same.
    pub(in crate::storage) async fn ask(&self, question: Q) -> Result<Q::Answer, StorageError> {
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

impl<Q: Question> Meeting<Q> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<Q>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those under way.
struct Turn<Q: Question> {
    meeting: Arc<Meeting<Q>>,
    /// It will look again.
    counts: bool,
}

impl<Q: Question> Drop for Turn<Q> {
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

impl<Q: Question> Turn<Q> {
    /// It must have been counted already.
    fn begin(meeting: Arc<Meeting<Q>>) {
        tokio::spawn(Self { meeting, counts: true }.work());
    }

    async fn work(mut self) {
        while let Some((questions, callers)) = self.next() {
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
            // A refusal may be for the sake of one of them, and a row that is held may be held for long: nobody waits
            // for another's trouble.
            let is_refused = matches!(failed, sqlx::Error::Database(_));
            let failed = Arc::new(failed);
            for (question, caller) in questions.into_iter().zip(callers) {
                if is_refused {
                    tokio::spawn(alone(self.meeting.one.clone(), question, caller));
                } else {
                    let _ = caller.send(Err(StorageError::Together(failed.clone())));
                }
            }
        }
    }

    /// Those who wait. None: nobody does, or another looks after them, and this turn is over.
    fn next(&mut self) -> Option<(Vec<Q>, Vec<Answering<Q>>)> {
        if !self.counts {
            return None;
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

    async fn ask(&mut self, questions: &[Q]) -> Result<Vec<Q::Answer>, sqlx::Error> {
        let meeting = self.meeting.clone();
        let mut asking = pin!(ask(&meeting.many, questions));
        if let Ok(answers) = timeout(SLOW, &mut asking).await {
            return answers;
        }
        self.step_aside();
        asking.await
    }

    /// Counts no more; another takes its place if anybody waits.
    fn step_aside(&mut self) {
        self.counts = false;
        let mut waiting = self.meeting.waiting();
        if waiting.callers.is_empty() {
            waiting.under_way -= 1;
        } else {
            Self::begin(self.meeting.clone());
        }
    }
}

async fn ask<Q: Question>(postgres: &Postgres, questions: &[Q]) -> Result<Vec<Q::Answer>, sqlx::Error> {
    let mut lent = postgres.lend().await?;
    let answers = in_time(PATIENCE, Q::ask(lent.connection(), questions)).await?;
    lent.answered();
    if answers.len() != questions.len() {
        return Err(sqlx::Error::Protocol("not as many answers as questions".to_owned()));
    }
    Ok(answers)
}

async fn alone<Q: Question>(one: Postgres, question: Q, caller: Answering<Q>) {
    if caller.is_closed() {
        return;
    }
    let answer = ask(&one, &[question]).await;
    let answer = answer.and_then(|answers| answers.into_iter().next().ok_or(sqlx::Error::RowNotFound));
    let _ = caller.send(answer.map_err(StorageError::from));
}
