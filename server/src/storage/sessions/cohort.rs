//! Many sessions at once: found page by page, ended by the thousand.

use uuid::Uuid;

use super::revoke_session;
use crate::domain::clock::Timestamp;
use crate::domain::cohort::Cohort;
use crate::domain::id::{DeviceId, SessionId, UserId};
use crate::domain::session::Ending;
use crate::storage::many::{self, in_ids_on_postgres, in_ids_on_sqlite};
use crate::storage::{StorageError, Tx, on_backend, statements};

statements! {
    LIST_LIVING_AFTER = "SELECT s.id, s.address FROM sessions s WHERE s.id > $1 AND s.ended_at IS NULL \
        AND s.started_at <= $2 ORDER BY s.id LIMIT $3";
    LIST_LIVING_OF_USER_AFTER = "SELECT s.id, s.address FROM sessions s WHERE s.id > $1 AND s.ended_at IS NULL \
        AND s.started_at <= $2 AND s.user_id = $4 ORDER BY s.id LIMIT $3";
}

macro_rules! end_many {
    ($in_ids:expr) => {
        // The plus has PostgreSQL go by the ids: it may take an index of all living sessions for the better one.
        concat!(
            "UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE +ended_at IS NULL AND id ",
            $in_ids,
            " RETURNING id, user_id, device_id, rotated_at"
        )
    };
}

statements! {
    @SQLITE_STATEMENTS
    END_MANY_ON_SQLITE = end_many!(in_ids_on_sqlite!("$3"));
}

statements! {
    @POSTGRES_STATEMENTS
    END_MANY_ON_POSTGRES = end_many!(in_ids_on_postgres!("$3"));
}

/// Rows read at once: many, because PostgreSQL may go through all living sessions for each page.
const PAGE: usize = 50_000;

/// The living sessions of the cohort that began until then. Those that begin meanwhile may be among them or not.
///
/// # Errors
/// When the database fails.
pub async fn list_cohort(tx: &mut Tx, cohort: &Cohort, until: Timestamp) -> Result<Vec<SessionId>, StorageError> {
    let (mut found, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let page: Vec<(Uuid, String)> = on_backend!(tx, |connection| match cohort {
            Cohort::Person(user) =>
                sqlx::query_as(LIST_LIVING_OF_USER_AFTER)
                    .bind(after)
                    .bind(until.as_millis())
                    .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
                    .bind(user.0)
                    .fetch_all(connection)
                    .await,
            Cohort::Network(_) | Cohort::Everybody =>
                sqlx::query_as(LIST_LIVING_AFTER)
                    .bind(after)
                    .bind(until.as_millis())
                    .bind(i64::try_from(PAGE).unwrap_or(i64::MAX))
                    .fetch_all(connection)
                    .await,
        })?;
        let is_last = page.len() < PAGE;
        after = page.last().map_or(after, |(id, _)| *id);
        let members = page.into_iter().filter(|(_, address)| cohort.has_address(address));
        found.extend(members.map(|(id, _)| SessionId(id)));
        if is_last {
            return Ok(found);
        }
    }
}

/// Ends those of the sessions that still live. Which ones, whose, and on which devices.
///
/// # Errors
/// When the database fails.
pub async fn end_sessions(
    tx: &mut Tx,
    ids: &[SessionId],
    ending: &Ending,
) -> Result<Vec<(SessionId, UserId, Option<DeviceId>)>, StorageError> {
    let ids = many::ids(ids.iter().map(|id| id.0));
    let sql = tx.in_words_of(END_MANY_ON_SQLITE, END_MANY_ON_POSTGRES);
    let rows: Vec<(Uuid, Uuid, Option<Uuid>, i64)> = on_backend!(tx, |connection| sqlx::query_as(sql)
        .bind(ending.at.as_millis())
        .bind(ending.reason.as_str())
        .bind(ids)
        .fetch_all(connection)
        .await)?;
    for (id, _, _, rotated_at) in &rows {
        revoke_session(tx, SessionId(*id), ending, *rotated_at);
    }
    Ok(rows
        .into_iter()
        .map(|(id, user, device, _)| (SessionId(id), UserId(user), device.map(DeviceId)))
        .collect())
}
