//! The database server: a pool of connections, and in what state one is given back. Must not know any table.
//!
//! sqlx's own pool asks each connection for an answer whenever it is given back: a round trip more for every request.
//! Here one whose last statement has been answered goes back as it is. Any other (a request was dropped in the middle
//! of a statement, a transaction was not committed, a statement failed) is first put right by a task of its own, and
//! thrown away if that fails.

use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::StorageError;
use super::connect::PATIENCE;

/// A connection that was used so recently is not asked whether it still lives.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Older ones are replaced: whatever their process on the server has gathered is given back.
const OLDEST: Duration = Duration::from_mins(30);
/// Unused for so long, it is closed.
const IDLE: Duration = Duration::from_mins(10);
/// The server gives a statement up after [`PATIENCE`] and says so. One that has said nothing by then has fallen silent:
/// without this, whoever asked would wait until the system gives the connection up, which takes a quarter of an hour.
const SILENT: Duration = PATIENCE.saturating_add(Duration::from_secs(1));

/// The connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Postgres(Pool<Connections>);

impl Postgres {
    /// Makes one connection, to see that the server can be reached.
    pub(super) async fn open(options: PgConnectOptions, most: u32) -> Result<Self, StorageError> {
        let pool = Pool::builder(Connections(options))
            .max_size(usize::try_from(most).unwrap_or(usize::MAX))
            // The one used last knows the statements best; those not needed any more grow old.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|_| StorageError::Address("no pool of connections could be made"))?;
        let postgres = Self(pool);
        postgres.lend().await?;
        Ok(postgres)
    }

    /// A connection outside any transaction.
    pub(super) async fn lend(&self) -> Result<Lent, sqlx::Error> {
        let lent = timeout(PATIENCE, self.0.get()).await;
        let lent = lent.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let connection = lent.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            _ => sqlx::Error::PoolTimedOut,
        })?;
        Ok(Lent {
            connection: Some(connection),
            unanswered: false,
            in_transaction: false,
            longest_wait: SILENT,
        })
    }

    /// Closes what was not needed for long.
    pub(super) fn forget_idle(&self) {
        self.0.retain(|_, metrics| metrics.last_used() < IDLE);
    }

    /// Closes all connections; waits a while for those that are lent.
    pub(super) async fn close(&self) {
        // Closes what lies there; what comes back from now on is closed as well.
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a connection did not close cleanly");
            }
        }
        let all_back = async {
            while self.0.status().size > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, all_back).await.is_err() {
            tracing::warn!("connections were still in use when the database was closed");
        }
    }
}

/// The answer of the server, unless it has fallen silent.
pub(super) async fn in_time<T>(
    longest: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(longest, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Makes connections, and looks at those that have lain about.
pub(super) struct Connections(PgConnectOptions);

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        // Boxed: every request that needs a connection would otherwise be as large as this, which is seldom needed.
        Box::pin(PgConnection::connect_with(&self.0)).await
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > OLDEST {
            return Err(RecycleError::message("old"));
        }
        if metrics.last_used() > TRUSTED_FOR {
            Box::pin(connection.ping()).await?;
        }
        Ok(())
    }
}

/// A connection in use. Dropping it gives it back; in the middle of a transaction that rolls back.
pub(super) struct Lent {
    /// None only while it is dropped.
    connection: Option<Object<Connections>>,
    /// A statement was begun, and nobody has said that its answer came.
    unanswered: bool,
    /// BEGIN was said, and no COMMIT has succeeded.
    in_transaction: bool,
    /// For each answer.
    pub(super) longest_wait: Duration,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl Lent {
    /// For one statement; say [`Lent::answered`] when it has succeeded.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.unanswered = true;
        self.connection.as_mut().expect("it is only taken when dropped")
    }

    /// The last statement has succeeded: nothing more of it will come.
    pub(super) const fn answered(&mut self) {
        self.unanswered = false;
    }

    /// Begins a transaction, READ COMMITTED.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.in_transaction = true;
        self.run("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Commits it.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.run("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        in_time(self.longest_wait, sqlx::raw_sql(statement).execute(self.connection())).await?;
        self.answered();
        Ok(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.unanswered && !self.in_transaction {
            return;
        }
        let Some(connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(put_right(connection, self.in_transaction))),
            Err(_) => drop(Object::take(connection)),
        }
    }
}

/// Waits for the end of what was begun, rolls back, and gives the connection back; or throws it away.
async fn put_right(mut connection: Object<Connections>, in_transaction: bool) {
    let put_right = timeout(PATIENCE, async {
        if in_transaction {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.map(drop)
        } else {
            connection.ping().await
        }
    });
    if !matches!(put_right.await, Ok(Ok(()))) {
        drop(Object::take(connection));
    }
}
