//! Searching the audit log: the one place where the conditions are put together at run time.

use sea_query::{Expr, ExprTrait as _, Order, PostgresQueryBuilder, Query, SelectStatement, SqliteQueryBuilder, Value};
use sqlx::AssertSqlSafe;

use super::super::columns::bigint;
use super::super::{Connection, StorageError, Tx, on_backend};
use super::{EventRow, StoredEvent};
use crate::domain::audit::{Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::id::{EventId, SessionId, UserId};

/// Which events; every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Who did it, or whom it concerns.
    pub person: Option<UserId>,
    /// What.
    pub kind: Option<Kind>,
    /// How it went.
    pub outcome: Option<Outcome>,
    /// Session it concerns.
    pub session: Option<SessionId>,
    /// At this moment or later.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
}

/// Events, newest first, from before the one at the cursor: what is added meanwhile moves nothing. Each of the two
/// questions about a person (concerns them, they did it to another) has its own index, so they are asked one by one and
/// merged.
///
/// # Errors
/// When the database fails.
pub async fn list_events(
    tx: &mut Tx,
    filter: &EventFilter,
    before: Option<(Timestamp, EventId)>,
    limit: u32,
) -> Result<Vec<StoredEvent>, StorageError> {
    let Some(person) = filter.person else {
        return fetch(tx, select(filter, before, limit)).await;
    };
    let mut events = Vec::new();
    let mut concerning = select(filter, before, limit);
    concerning.and_where(Expr::col(("e", "subject_id")).eq(person.0));
    events.extend(fetch(tx, concerning).await?);
    let mut done_to_others = select(filter, before, limit);
    done_to_others
        .and_where(Expr::col(("e", "actor_id")).eq(person.0))
        .and_where(Expr::cust("e.actor_id IS DISTINCT FROM e.subject_id"));
    events.extend(fetch(tx, done_to_others).await?);
    events.sort_unstable_by_key(|event| std::cmp::Reverse((event.at, event.id)));
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(events)
}

fn select(filter: &EventFilter, before: Option<(Timestamp, EventId)>, limit: u32) -> SelectStatement {
    let column = |name: &'static str| Expr::col(("e", name));
    let mut select = Query::select();
    select
        .columns(
            [
                "id",
                "at",
                "kind",
                "outcome",
                "actor_id",
                "subject_id",
                "session_id",
                "device_id",
                "address",
                "user_agent",
                "request_id",
                "reason",
                "facts",
                "changes",
            ]
            .map(|name| ("e", name)),
        )
        .from_as("audit_events", "e")
        .order_by(("e", "at"), Order::Desc)
        .order_by(("e", "id"), Order::Desc)
        .limit(u64::from(limit));
    // The words that most rows have stand in no index; the databases use one for the others only if told that.
    if let Some(kind) = filter.kind {
        select.and_where(column("kind").eq(kind.as_str()));
        if kind != Kind::TokenRotated {
            select.and_where(Expr::cust("e.kind <> 'token_rotated'"));
        }
    }
    if let Some(outcome) = filter.outcome {
        select.and_where(column("outcome").eq(outcome.as_str()));
        if outcome != Outcome::Success {
            select.and_where(Expr::cust("e.outcome <> 'success'"));
        }
    }
    if let Some(session) = filter.session {
        select.and_where(column("session_id").eq(session.0));
    }
    if let Some(from) = filter.from {
        select.and_where(column("at").gte(from.as_millis()));
    }
    if let Some(to) = filter.to {
        select.and_where(column("at").lt(to.as_millis()));
    }
    if let Some((at, id)) = before {
        let cursor = Expr::tuple([Expr::val(at.as_millis()), Expr::val(id.0)]);
        select.and_where(Expr::tuple([column("at"), column("id")]).lt(cursor));
    }
    select
}

async fn fetch(tx: &mut Tx, select: SelectStatement) -> Result<Vec<StoredEvent>, StorageError> {
    let postgres = matches!(tx.connection(), Connection::Postgres(_));
    let (sql, values) = if postgres {
        select.build(PostgresQueryBuilder)
    } else {
        select.build(SqliteQueryBuilder)
    };
    let rows: Vec<EventRow> = on_backend!(tx, |connection| {
        let mut query = sqlx::query_as(AssertSqlSafe(sql));
        for value in values {
            query = match value {
                Value::Uuid(id) => query.bind(id),
                Value::BigInt(number) => query.bind(number),
                Value::BigUnsigned(number) => query.bind(number.map(bigint)),
                Value::String(text) => query.bind(text),
                other => unreachable!("the conditions above hold no {other:?}"),
            };
        }
        query.fetch_all(connection).await
    })?;
    rows.into_iter().map(StoredEvent::try_from).collect()
}
