//! What was revoked, numbered in the order of the commits, for our own nodes and for the feed.
//!
//! Every storage function that ends a session, raises an epoch or a smallest generation, or removes a key says so with
//! [`Tx::revoke`]; [`Tx::commit`] writes it down in the same transaction, as its last act. So nobody can revoke without
//! the others hearing of it, the row that gives the numbers is locked for no longer than the commit takes, and since it
//! is always the last lock, nobody can wait for it in a circle.
//!
//! What it costs: one UPDATE, one INSERT, and on PostgreSQL a NOTIFY and waiting for the commit of whoever revokes at the
//! same moment. Refreshes and checks write nothing here.

use uuid::Uuid;

use super::columns::{Table, bigint, millis};
use super::many::{json, write_many};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::{SessionId, TokenId};
use crate::domain::revocation::{Entry, Target};

const TABLE: Table = Table("revocations");

/// The channel of PostgreSQL on which nodes hear that there is something new.
pub(super) const CHANNEL: &str = "mayfly_revocations";
/// Of PostgreSQL alone; delivered with the commit, and not at all without it.
const NOTIFY: &str = "NOTIFY mayfly_revocations";

statements! {
    // The lock on this row puts the commits of all that revoke into one order: a number that can be seen has no
    // smaller one after it.
    TAKE_NUMBERS = "UPDATE revocation_cursor SET last = last + $1 WHERE one = 1 RETURNING last";
    FIND_LAST = "SELECT last FROM revocation_cursor WHERE one = 1";
    LIST_AFTER = "SELECT cursor, kind, value, below_generation, issued_before, at, until FROM revocations \
        WHERE cursor > $1 AND cursor <= $2 AND until > $3 ORDER BY cursor LIMIT $4";
    // As the partial index has it.
    IS_TOKEN_REVOKED = "SELECT EXISTS (SELECT 1 FROM revocations r WHERE r.kind = 'token' AND r.value = $1)";
    IS_SUBJECT_REVOKED = "SELECT EXISTS (SELECT 1 FROM revocations r \
        WHERE r.kind = 'subject' AND r.value = $1 AND r.issued_before >= $2)";
    IS_ANOTHER = "SELECT EXISTS (SELECT 1 FROM revocations r WHERE r.cursor = $1 AND (r.value <> $2 OR r.at <> $3))";
    IS_OF_ANOTHER_MOMENT = "SELECT EXISTS (SELECT 1 FROM revocations r WHERE r.cursor = $1 AND r.at <> $2)";
    // The first condition is of the locked row alone: on PostgreSQL who waited for another node's turn sees that one's numbers
    // there, and still its old entries.
    SKIP_IF_BEHIND = "UPDATE revocation_cursor SET last = last + $5 WHERE one = 1 AND last < $4 + $5 / 2 AND (last < $4 OR EXISTS \
        (SELECT 1 FROM revocations r WHERE r.cursor = $1 AND (r.value <> $2 OR r.at <> $3)))";
    RENUMBER = "UPDATE revocations SET cursor = cursor + $1";
    DELETE_PAST = "DELETE FROM revocations WHERE cursor IN (SELECT r.cursor FROM revocations r \
        WHERE r.until <= $1 ORDER BY r.until LIMIT $2)";
}

macro_rules! write_down {
    ($from:literal) => {
        concat!(
            "INSERT INTO revocations (cursor, kind, value, below_generation, issued_before, at, until) SELECT ",
            $from
        )
    };
}

statements! {
    @SQLITE_STATEMENTS
    WRITE_DOWN_ON_SQLITE = write_down!("value ->> 'cursor', value ->> 'kind', value ->> 'value', \
        value ->> 'below_generation', value ->> 'issued_before', value ->> 'at', value ->> 'until' FROM jsonb_each($1)");
}

statements! {
    @POSTGRES_STATEMENTS
    WRITE_DOWN_ON_POSTGRES = write_down!("* FROM json_to_recordset($1::json) AS revoked (cursor bigint, kind text, \
        value text, below_generation bigint, issued_before bigint, at bigint, until bigint)");
}

/// A revocation that has no number yet.
#[derive(Clone, Debug)]
pub(super) struct Revocation {
    target: Target,
    at: Timestamp,
    until: Timestamp,
}

#[derive(sqlx::FromRow, serde::Serialize)]
struct Row {
    cursor: i64,
    kind: String,
    value: String,
    below_generation: Option<i64>,
    issued_before: Option<i64>,
    at: i64,
    until: i64,
}

impl TryFrom<Row> for Entry {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let id = || Uuid::try_parse(&row.value).map_err(|_| TABLE.impossible("value"));
        let target = match row.kind.as_str() {
            "session" => Target::Session {
                id: SessionId(id()?),
                below: row
                    .below_generation
                    .map(|below| TABLE.count("below_generation", below))
                    .transpose()?,
            },
            "subject" => Target::Subject {
                before: row
                    .issued_before
                    .map(Timestamp::from_millis)
                    .ok_or_else(|| TABLE.impossible("issued_before"))?,
                sub: row.value,
            },
            "key" => Target::Key { id: row.value },
            "token" => Target::Token { id: TokenId(id()?) },
            _ => return Err(TABLE.impossible("kind")),
        };
        Ok(Self {
            cursor: TABLE.count("cursor", row.cursor)?,
            target,
            at: Timestamp::from_millis(row.at),
            until: Timestamp::from_millis(row.until),
        })
    }
}

impl Tx {
    /// Has the revocation written down with the commit, unless no token can live any more that it would concern.
    pub(super) fn revoke(&mut self, target: Target, at: Timestamp, until: Timestamp) {
        if until > at {
            self.revoked.push(Revocation { target, at, until });
        }
    }
}

/// Refuses one access token that lives until `until` at the latest. Written with the commit.
pub fn revoke_token(tx: &mut Tx, id: TokenId, at: Timestamp, until: Timestamp) {
    tx.revoke(Target::Token { id }, at, until);
}

/// Whether one access token was revoked by itself.
///
/// # Errors
/// When the database fails.
pub async fn is_token_revoked(tx: &mut Tx, id: TokenId) -> Result<bool, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(IS_TOKEN_REVOKED)
        .bind(id.to_string())
        .fetch_one(connection)
        .await)?)
}

impl From<&Entry> for Revocation {
    fn from(entry: &Entry) -> Self {
        Self {
            target: entry.target.clone(),
            at: entry.at,
            until: entry.until,
        }
    }
}

impl Revocation {
    fn row(&self, cursor: i64) -> Row {
        let (kind, value, below, before) = match &self.target {
            Target::Session { id, below } => ("session", id.to_string(), *below, None),
            Target::Subject { sub, before } => ("subject", sub.clone(), None, Some(*before)),
            Target::Key { id } => ("key", id.clone(), None, None),
            Target::Token { id } => ("token", id.to_string(), None, None),
        };
        Row {
            cursor,
            kind: kind.to_owned(),
            value,
            below_generation: below.map(bigint),
            issued_before: millis(before),
            at: self.at.as_millis(),
            until: self.until.as_millis(),
        }
    }
}

/// Numbers and writes what the transaction has revoked; the last number. Called by the commit alone.
pub(super) async fn write_down(tx: &mut Tx) -> Result<u64, StorageError> {
    let revoked = std::mem::take(&mut tx.revoked);
    let count = i64::try_from(revoked.len()).unwrap_or(i64::MAX);
    let last: i64 = on_backend!(tx, |connection| sqlx::query_scalar(TAKE_NUMBERS)
        .bind(count)
        .fetch_one(connection)
        .await)?;
    let rows = (last - count + 1..).zip(&revoked);
    let rows = json(&rows.map(|(cursor, one)| one.row(cursor)).collect::<Vec<_>>());
    let sql = tx.in_words_of(WRITE_DOWN_ON_SQLITE, WRITE_DOWN_ON_POSTGRES);
    write_many(tx, sql, rows).await?;
    let longest = tx.longest_wait();
    if let super::Connection::Postgres(connection) = tx.connection() {
        super::postgres::in_time(longest, sqlx::raw_sql(NOTIFY).execute(connection)).await?;
    }
    TABLE.count("cursor", last)
}

/// The last number given: who has read the entries up to it has missed none.
///
/// # Errors
/// When the database fails.
pub async fn find_last_cursor(tx: &mut Tx) -> Result<u64, StorageError> {
    let last: i64 = on_backend!(tx, |connection| sqlx::query_scalar(FIND_LAST)
        .fetch_one(connection)
        .await)?;
    Table("revocation_cursor").count("last", last)
}

/// Whether the number of an entry that somebody remembers belongs to another one now.
///
/// # Errors
/// When the database fails.
pub async fn was_given_again(tx: &mut Tx, seen: Option<&Entry>) -> Result<bool, StorageError> {
    let Some(seen) = seen else {
        return Ok(false);
    };
    let row = Revocation::from(seen).row(bigint(seen.cursor));
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(IS_ANOTHER)
        .bind(row.cursor)
        .bind(row.value)
        .bind(row.at)
        .fetch_one(connection)
        .await)?)
}

/// Whether a number belongs to an entry of another moment than the one that somebody was told.
///
/// # Errors
/// When the database fails.
pub async fn is_of_another_moment(tx: &mut Tx, cursor: u64, at: Timestamp) -> Result<bool, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(IS_OF_ANOTHER_MOMENT)
        .bind(bigint(cursor))
        .bind(at.as_millis())
        .fetch_one(connection)
        .await)?)
}

/// Whether tokens of a person or service that were issued before this moment, or a later one, are revoked.
///
/// # Errors
/// When the database fails.
pub async fn is_subject_revoked(tx: &mut Tx, sub: &str, before: Timestamp) -> Result<bool, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query_scalar(IS_SUBJECT_REVOKED)
        .bind(sub)
        .bind(before.as_millis())
        .fetch_one(connection)
        .await)?)
}

/// Gives all entries new numbers, `skipped` higher, if the last number is below `cursor` or that of `seen` belongs to
/// another one now. Whether it was so. The row stays locked until the commit, so let this be the last act.
///
/// # Errors
/// When the database fails.
pub async fn renumber(tx: &mut Tx, cursor: u64, seen: Option<&Entry>, skipped: u64) -> Result<bool, StorageError> {
    let row = seen.map(|seen| Revocation::from(seen).row(bigint(seen.cursor)));
    let (number, value, at) = row.map_or((0, String::new(), 0), |row| (row.cursor, row.value, row.at));
    let changed = on_backend!(tx, |connection| sqlx::query(SKIP_IF_BEHIND)
        .bind(number)
        .bind(value)
        .bind(at)
        .bind(bigint(cursor))
        .bind(bigint(skipped))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    if changed == 0 {
        return Ok(false);
    }
    on_backend!(tx, |connection| sqlx::query(RENUMBER)
        .bind(bigint(skipped))
        .execute(connection)
        .await
        .map(drop))?;
    Ok(true)
}

/// Entries after one number up to another that still matter, in their order.
///
/// # Errors
/// When the database fails.
pub async fn list_revocations(
    tx: &mut Tx,
    after: u64,
    up_to: u64,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Entry>, StorageError> {
    let rows: Vec<Row> = on_backend!(tx, |connection| sqlx::query_as(LIST_AFTER)
        .bind(bigint(after))
        .bind(bigint(up_to))
        .bind(now.as_millis())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter().map(Entry::try_from).collect()
}

/// Deletes at most `limit` entries that matter no more at that moment. How many.
///
/// # Errors
/// When the database fails.
pub async fn delete_past_revocations(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(DELETE_PAST)
        .bind(now.as_millis())
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}
