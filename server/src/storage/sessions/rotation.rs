//! Going to the next generation: the conditional UPDATE, and the usual rotation with its audit row in one round trip.
//!
//! This is the one place with two SQL texts for two databases. A rotation is what the server does most, and its cost
//! is above all the number of round trips: to the server on PostgreSQL, to the driver's thread on SQLite. Each database
//! has its own way to write two rows in one: PostgreSQL a statement within a statement, SQLite several statements in one
//! text. Both are made of the same UPDATE, and the same tests run on both.

use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Database, Encode, Type};
use uuid::Uuid;

use super::super::audit::{json, storable, written_event_columns};
use super::super::columns::{Table, bigint};
use super::super::connect::Pools;
use super::super::sqlite::whole::{Whole, whole};
use super::super::{StorageError, Store, Tx, on_backend, statements};
use super::refuse_below;
use crate::domain::audit::Event;
use crate::domain::clock::Timestamp;
use crate::domain::id::SessionId;

// Access tokens of the old grants must not become good again because the session now carries the new ones: they fall
// below the smallest generation accepted. A smallest generation ahead of the session says that its roles have changed:
// PostgreSQL looks at the row of the session again after waiting for it, but not at that of the account, and would
// otherwise go on with the old roles.
macro_rules! rotate {
    () => {
        "UPDATE sessions SET generation = generation + 1, rotated_at = $3, handed_out_at = $3, \
         superseded_at = $3, child_confirmed = 0, reissues = 0, access_expires_at = $4, \
         min_generation = CASE WHEN grant_epoch = $6 THEN min_generation ELSE generation + 1 END, grant_epoch = $6, \
         last_active_at = CASE WHEN $7 = 1 AND last_active_at < $3 THEN $3 ELSE last_active_at END \
         WHERE id = $1 AND generation = $2 AND handed_out_at = $8 AND ended_at IS NULL AND absolute_expires_at > $3 \
         AND last_active_at + idle_ms > $3 AND auth_epoch = $5 \
         AND (min_generation <= generation OR grant_epoch <> $6) \
         AND EXISTS (SELECT 1 FROM users u WHERE u.id = sessions.user_id AND u.status = 'active' \
         AND u.auth_epoch = $5 AND u.grant_epoch = $6)"
    };
}

// With other grants than the session's it would also have to revoke what came before.
macro_rules! rotate_with_same_grants {
    () => {
        concat!(rotate!(), " AND grant_epoch = $6")
    };
}

macro_rules! event_of_rotation {
    () => {
        concat!(
            "INSERT INTO audit_events (",
            written_event_columns!(),
            ") SELECT $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22"
        )
    };
}

statements! {
    ROTATE = concat!(rotate!(), " RETURNING min_generation");
    // As a part of the two below.
    ROTATE_WITH_SAME_GRANTS = rotate_with_same_grants!();
}

/// One row if it happened.
const ON_SQLITE: Whole = whole!(
    rotate_with_same_grants!(),
    "; ",
    event_of_rotation!(),
    " WHERE changes() = 1 RETURNING 1"
);
/// One row written if it happened.
const ON_POSTGRES: &str = concat!(
    "WITH moved AS (",
    rotate_with_same_grants!(),
    " RETURNING 1) ",
    event_of_rotation!(),
    " FROM moved"
);

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
    let least: Option<i64> = on_backend!(tx, |connection| sqlx::query_scalar(ROTATE)
        .bind(rotation.id.0)
        .bind(bigint(rotation.from_generation))
        .bind(rotation.now.as_millis())
        .bind(rotation.access_expires_at.as_millis())
        .bind(rotation.auth_epoch)
        .bind(rotation.grant_epoch)
        .bind(i64::from(rotation.counts_as_activity))
        .bind(rotation.last_issued_at.as_millis())
        .fetch_optional(connection)
        .await)?;
    let Some(least) = least else { return Ok(false) };
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
pub async fn rotate_and_record(store: &Store, rotation: &Rotation, event: &Event) -> Result<bool, StorageError> {
    match &store.pools {
        Pools::Sqlite(sqlite) => {
            let arguments = arguments::<SqliteArguments>(rotation, event)?;
            sqlite.write_whole(&ON_SQLITE, arguments).await
        }
        Pools::Postgres { postgres, .. } => {
            let arguments = arguments::<PgArguments>(rotation, event)?;
            let mut lent = postgres.lend().await?;
            let done = sqlx::query_with(ON_POSTGRES, arguments)
                .execute(lent.connection())
                .await?;
            lent.answered();
            Ok(done.rows_affected() == 1)
        }
    }
}

/// $1 to $22: the rotation's, then the event's in the order of [`written_event_columns`].
fn arguments<A: Arguments>(rotation: &Rotation, event: &Event) -> Result<A, sqlx::Error>
where
    i64: for<'t> Encode<'t, A::Database> + Type<A::Database>,
    Uuid: for<'t> Encode<'t, A::Database> + Type<A::Database>,
    String: for<'t> Encode<'t, A::Database> + Type<A::Database>,
    for<'t> &'t str: Encode<'t, A::Database> + Type<A::Database>,
    Option<Uuid>: for<'t> Encode<'t, A::Database>,
    Option<String>: for<'t> Encode<'t, A::Database>,
    A::Database: Database<Arguments = A>,
{
    let mut arguments = A::default();
    let mut add = || -> Result<(), sqlx::error::BoxDynError> {
        arguments.add(rotation.id.0)?;
        arguments.add(bigint(rotation.from_generation))?;
        arguments.add(rotation.now.as_millis())?;
        arguments.add(rotation.access_expires_at.as_millis())?;
        arguments.add(rotation.auth_epoch)?;
        arguments.add(rotation.grant_epoch)?;
        arguments.add(i64::from(rotation.counts_as_activity))?;
        arguments.add(rotation.last_issued_at.as_millis())?;
        arguments.add(event.id.0)?;
        arguments.add(event.at.as_millis())?;
        arguments.add(event.kind.as_str())?;
        arguments.add(event.outcome.as_str())?;
        arguments.add(event.actor_id.map(|id| id.0))?;
        arguments.add(event.subject_id.map(|id| id.0))?;
        arguments.add(event.session_id.map(|id| id.0))?;
        arguments.add(event.device_id.map(|id| id.0))?;
        for text in [&event.address, &event.user_agent, &event.request_id, &event.reason] {
            arguments.add(storable(text.as_deref()))?;
        }
        arguments.add(json(&event.facts))?;
        arguments.add(json(&event.changes))
    };
    add().map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}
