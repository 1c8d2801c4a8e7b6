//! Going to the next generation: the conditional UPDATE, and the usual rotation with its audit row in one round trip.
//!
//! A rotation is what the server does most, and its cost is above all the number of round trips: to the server on
//! PostgreSQL, to the driver's thread on SQLite. Each database has its own way to do more at once: PostgreSQL a statement
//! within a statement, for many sessions together; SQLite several statements in one text. Both are made of the same
//! UPDATE, and the same tests run on both.

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, PgConnection};
use uuid::Uuid;

use super::super::audit::append::{add_event, add_events, written_event_columns};
use super::super::changes::Counted;
use super::super::columns::{Table, bigint};
use super::super::connect::Pools;
use super::super::sqlite::whole::{Whole, whole};
use super::super::together::{AskPostgres, Question};
use super::super::{StorageError, Store, Tx, on_backend, statements};
use super::refuse_below;
use crate::domain::audit::Event;
use crate::domain::clock::Timestamp;
use crate::domain::id::SessionId;

// Access tokens of the old grants must not become good again because the session now carries the new ones: they fall
// below the smallest generation accepted. A smallest generation ahead of the session says that its roles have changed:
// PostgreSQL looks at the row of the session again after waiting for it, but not at that of the account, and would
// otherwise go on with the old roles.
//
// The values of a `Rotation` in its order, then where they come from.
macro_rules! rotate {
    ($id:literal, $generation:literal, $handed_out:literal, $now:literal, $idle_now:literal, $expires:literal,
     $auth:literal, $grant:literal, $active:literal $(, $from:expr)?) => {
        concat!(
            "UPDATE sessions SET generation = generation + 1, child_confirmed = 0, reissues = 0",
            concat!(", rotated_at = ", $now, ", handed_out_at = ", $now, ", superseded_at = ", $now),
            concat!(", access_expires_at = ", $expires, ", grant_epoch = ", $grant),
            concat!(", min_generation = CASE WHEN grant_epoch = ", $grant, " THEN min_generation"),
            " ELSE generation + 1 END",
            concat!(", last_active_at = CASE WHEN ", $active, " = 1 AND last_active_at < ", $now, " THEN ", $now),
            " ELSE last_active_at END",
            $($from,)?
            concat!(" WHERE id = ", $id, " AND generation = ", $generation, " AND handed_out_at = ", $handed_out),
            concat!(" AND ended_at IS NULL AND absolute_expires_at > ", $now),
            concat!(" AND last_active_at + idle_ms > ", $idle_now, " AND auth_epoch = ", $auth),
            concat!(" AND (min_generation <= generation OR grant_epoch <> ", $grant, ")"),
            " AND EXISTS (SELECT 1 FROM users u WHERE u.id = sessions.user_id AND u.status = 'active'",
            concat!(" AND u.auth_epoch = ", $auth, " AND u.grant_epoch = ", $grant, ")"),
        )
    };
}

// With other grants than the session's it would also have to revoke what came before.
macro_rules! rotate_one_with_same_grants {
    () => {
        concat!(
            rotate!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9"),
            " AND grant_epoch = $8"
        )
    };
}

statements! {
    ROTATE = concat!(rotate!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9"), " RETURNING min_generation");
    // As a part of the next.
    ROTATE_WITH_SAME_GRANTS = rotate_one_with_same_grants!();
}

/// One row if it happened.
const ON_SQLITE: Whole = whole!(
    rotate_one_with_same_grants!(),
    "; INSERT INTO audit_events (",
    written_event_columns!(),
    ") SELECT $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23 WHERE changes() = 1 RETURNING 1"
);

statements! {
    @POSTGRES_STATEMENTS
    // The ids of the events of those that happened. Each value is an array with one for each rotation.
    ON_POSTGRES = concat!(
        "WITH moved AS (",
        rotate!(
            "r.r1",
            "r.r2",
            "r.r3",
            "r.r4",
            "r.r5",
            "r.r6",
            "r.r7",
            "r.r8",
            "r.r9",
            " FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
             $7::bigint[], $8::bigint[], $9::bigint[], $10::uuid[], $11::bigint[], $12::text[], $13::text[], $14::uuid[], \
             $15::uuid[], $16::uuid[], $17::uuid[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], \
             $23::text[]) \
             AS r (r1, r2, r3, r4, r5, r6, r7, r8, r9, e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14)"
        ),
        " AND grant_epoch = r.r8 RETURNING e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14) \
         INSERT INTO audit_events (",
        written_event_columns!(),
        ") SELECT e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14 FROM moved RETURNING id"
    );
}

/// A rotation that `domain::refresh` has decided on.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The session.
    pub id: SessionId,
    /// The generation presented; the row goes to the next one.
    pub from_generation: u64,
    /// When tokens were last handed out, as it was read: a re-issue in between makes the pair fresh again.
    pub last_issued_at: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// As the idle limit goes by it.
    pub idle_now: Timestamp,
    /// `exp` of the access token that goes out with the new generation.
    pub access_expires_at: Timestamp,
    /// The person's auth epoch as it was read; session and account must still have it.
    pub auth_epoch: i64,
    /// The person's grant epoch as it was read: the roles in the new access token. The account must still have it.
    pub grant_epoch: i64,
    /// The refresh itself is the person's own activity: the idle limit begins anew.
    pub counts_as_activity: bool,
}

/// Goes to the next generation if everything still is as it was decided upon: generation, last issue, not ended, absolute and idle
/// limit, account active, its epochs unchanged. `false`: read again and decide again.
///
/// # Errors
/// When the database fails.
pub async fn rotate_session(tx: &mut Tx, rotation: &Rotation) -> Result<bool, StorageError> {
    fail::fail_point!("rotate::before", |_| Err(StorageError::Abandoned));
    let least: Option<i64> = on_backend!(tx, |connection| sqlx::query_scalar(ROTATE)
        .bind(rotation.id.0)
        .bind(bigint(rotation.from_generation))
        .bind(rotation.last_issued_at.as_millis())
        .bind(rotation.now.as_millis())
        .bind(rotation.idle_now.as_millis())
        .bind(rotation.access_expires_at.as_millis())
        .bind(rotation.auth_epoch)
        .bind(rotation.grant_epoch)
        .bind(i64::from(rotation.counts_as_activity))
        .fetch_optional(connection)
        .await)?;
    let Some(least) = least else { return Ok(false) };
    fail::fail_point!("rotate::after", |_| Err(StorageError::Abandoned));
    let least = Table("sessions").count("min_generation", least)?;
    if least == rotation.from_generation + 1 {
        // Whatever came before had other roles.
        refuse_below(tx, rotation.id, least, rotation.now, rotation.now);
    }
    Ok(true)
}

/// The same together with its audit row, as a transaction of its own that is durable when this returns; for a session
/// that also has the grant epoch of the rotation already, so that nothing is revoked by it. `false`: nothing was
/// written.
///
/// # Errors
/// When the database fails or does not answer in time: then whether it was written is unknown.
pub async fn rotate_and_record(store: &Store, rotation: Rotation, event: Event) -> Result<bool, StorageError> {
    fail::fail_point!("rotation::before", |_| Err(StorageError::Abandoned));
    let counted = Counted::from(&event);
    let rotated = match &store.pools {
        Pools::Sqlite { sqlite, .. } => {
            let arguments = arguments(&rotation, &event).map_err(sqlx::Error::Encode)?;
            sqlite.write_whole(&ON_SQLITE, arguments).await?
        }
        Pools::Postgres { rotations, .. } => rotations.ask(Recorded { rotation, event }).await?,
    };
    if rotated {
        store.changes.recorded(&[counted]);
    }
    fail::fail_point!("rotation::after", |_| Err(StorageError::Together(std::sync::Arc::new(
        sqlx::Error::WorkerCrashed
    ))));
    Ok(rotated)
}

/// $1 to $23: the rotation's, then the event's in the order of [`written_event_columns`].
fn arguments(rotation: &Rotation, event: &Event) -> Result<SqliteArguments, BoxDynError> {
    let mut arguments = SqliteArguments::default();
    arguments.add(rotation.id.0)?;
    arguments.add(bigint(rotation.from_generation))?;
    arguments.add(rotation.last_issued_at.as_millis())?;
    arguments.add(rotation.now.as_millis())?;
    arguments.add(rotation.idle_now.as_millis())?;
    arguments.add(rotation.access_expires_at.as_millis())?;
    arguments.add(rotation.auth_epoch)?;
    arguments.add(rotation.grant_epoch)?;
    arguments.add(i64::from(rotation.counts_as_activity))?;
    add_event(&mut arguments, event)?;
    Ok(arguments)
}

/// A rotation with its audit row.
pub(in crate::storage) struct Recorded {
    rotation: Rotation,
    event: Event,
}

impl Question for Recorded {
    /// Whether it happened. Asked once more after it did, it does not happen again.
    type Answer = bool;
}

impl AskPostgres for Recorded {
    async fn ask(connection: &mut PgConnection, asked: &[Self]) -> Result<Vec<bool>, sqlx::Error> {
        let written: Vec<Uuid> = sqlx::query_scalar_with(ON_POSTGRES, arrays(asked).map_err(sqlx::Error::Encode)?)
            .fetch_all(connection)
            .await?;
        Ok(asked
            .iter()
            .map(|recorded| written.contains(&recorded.event.id.0))
            .collect())
    }
}

/// The same values, each an array with one for each rotation.
fn arrays(asked: &[Recorded]) -> Result<PgArguments, BoxDynError> {
    fn each<T>(asked: &[Recorded], value: impl Fn(&Rotation) -> T) -> Vec<T> {
        asked.iter().map(|recorded| value(&recorded.rotation)).collect()
    }
    let mut arguments = PgArguments::default();
    arguments.add(each(asked, |r| r.id.0))?;
    arguments.add(each(asked, |r| bigint(r.from_generation)))?;
    arguments.add(each(asked, |r| r.last_issued_at.as_millis()))?;
    arguments.add(each(asked, |r| r.now.as_millis()))?;
    arguments.add(each(asked, |r| r.idle_now.as_millis()))?;
    arguments.add(each(asked, |r| r.access_expires_at.as_millis()))?;
    arguments.add(each(asked, |r| r.auth_epoch))?;
    arguments.add(each(asked, |r| r.grant_epoch))?;
    arguments.add(each(asked, |r| i64::from(r.counts_as_activity)))?;
    let events: Vec<&Event> = asked.iter().map(|recorded| &recorded.event).collect();
    add_events(&mut arguments, &events)?;
    Ok(arguments)
}
