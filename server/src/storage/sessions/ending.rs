//! Ending one session: the first reason stays, and tokens of it that may still live are revoked with it.

use super::super::{StorageError, Tx, on_backend, statements};
use super::revoke_session;
use super::row::EndingColumns;
use crate::domain::clock::Timestamp;
use crate::domain::id::SessionId;
use crate::domain::session::Ending;

macro_rules! end {
    ($($if:literal)?) => {
        concat!(
            "UPDATE sessions SET ended_at = $2, end_reason = $3, end_rule_role = $4, end_rule_version = $5, \
             end_limit_ms = $6 WHERE id = $1 AND ended_at IS NULL",
            $($if,)?
            " RETURNING rotated_at"
        )
    };
}

statements! {
    END = end!();
    END_UNUSED = end!(" AND last_active_at = $7");
    END_OVERDUE = end!(" AND (absolute_expires_at <= $7 OR last_active_at + idle_ms <= $7)");
}

/// Ends the session. Whether it was this call that ended it; the first reason stays.
///
/// # Errors
/// When the database fails.
pub async fn end_session(tx: &mut Tx, id: SessionId, ending: &Ending) -> Result<bool, StorageError> {
    end_by(tx, END, id, ending, None).await
}

/// The same if nobody has used it since that moment was read: activity that came in time may have been written down
/// meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn end_unused_session(
    tx: &mut Tx,
    id: SessionId,
    ending: &Ending,
    last_active_at: Timestamp,
) -> Result<bool, StorageError> {
    end_by(tx, END_UNUSED, id, ending, Some(last_active_at)).await
}

/// The same if one of its limits had passed at that moment.
///
/// # Errors
/// When the database fails.
pub async fn end_overdue_session(
    tx: &mut Tx,
    id: SessionId,
    ending: &Ending,
    moment: Timestamp,
) -> Result<bool, StorageError> {
    end_by(tx, END_OVERDUE, id, ending, Some(moment)).await
}

async fn end_by(
    tx: &mut Tx,
    sql: &'static str,
    id: SessionId,
    ending: &Ending,
    moment: Option<Timestamp>,
) -> Result<bool, StorageError> {
    let columns = EndingColumns::from(ending);
    let rotated_at: Option<i64> = on_backend!(tx, |connection| {
        let query = sqlx::query_scalar(sql)
            .bind(id.0)
            .bind(columns.at)
            .bind(columns.reason)
            .bind(columns.role)
            .bind(columns.version)
            .bind(columns.limit);
        match moment {
            Some(at) => query.bind(at.as_millis()).fetch_optional(connection).await,
            None => query.fetch_optional(connection).await,
        }
    })?;
    if let Some(rotated_at) = rotated_at {
        revoke_session(tx, id, ending, rotated_at);
    }
    Ok(rotated_at.is_some())
}
