//! Mails that wait to be sent, and how the mail server is doing.

use uuid::Uuid;

use super::columns::{Table, bigint, millis};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::Timestamp;
use crate::domain::id::{EventId, MailId};
use crate::domain::mail::{Audience, Mail, latest_retry};
use crate::domain::outage::Outage;

const TABLE: Table = Table("mails");

macro_rules! mail_columns {
    () => {
        "id, event_id, audience, recipient, count, created_at, retry_at, tries"
    };
}

statements! {
    INSERT_MAIL = concat!("INSERT INTO mails (", mail_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
    COUNT_MAILS = "SELECT COUNT(*) FROM mails";
    // Alerts first: of the two words theirs is the later one.
    LIST_DUE = concat!("SELECT ", mail_columns!(), " FROM mails WHERE retry_at <= $1 OR retry_at > $2 \
        ORDER BY audience DESC, retry_at, id LIMIT $3");
    LIST_OLD = concat!("SELECT ", mail_columns!(), " FROM mails WHERE created_at <= $1 ORDER BY created_at LIMIT $2");
    COUNT_MAILS_TO_PEOPLE = "SELECT COUNT(*) FROM mails WHERE audience = 'person'";
    COUNT_MAILS_TO_PERSON = "SELECT COUNT(*) FROM mails WHERE audience = 'person' AND recipient = $1";
    FIND_OLDEST = "SELECT MIN(created_at) FROM mails";
    // Each try has a number: whoever begins one that has begun already does not.
    BEGIN_TRY = "UPDATE mails SET retry_at = $3, tries = tries + 1 WHERE id = $1 AND tries = $2";
    POSTPONE = "UPDATE mails SET retry_at = $3, tries = $4 WHERE id = $1 AND tries = $2";
    RELEASE_ALL = "UPDATE mails SET retry_at = $1 WHERE retry_at > $1";
    DELETE_MAIL = "DELETE FROM mails WHERE id = $1 AND tries = $2";
    FIND_OUTAGE = "SELECT tries, failing_since, retry_at, failure FROM mail_server WHERE one = 1";
    // Only once for each try that failed: of several nodes the first counts it.
    PUT_OUTAGE = "UPDATE mail_server SET tries = $2, failing_since = $3, retry_at = $4, failure = $5 \
        WHERE one = 1 AND tries = $1";
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    event_id: Uuid,
    audience: String,
    recipient: String,
    count: i64,
    created_at: i64,
    retry_at: i64,
    tries: i64,
}

impl TryFrom<Row> for Mail {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        Ok(Self {
            id: MailId(row.id),
            event: EventId(row.event_id),
            audience: TABLE.word("audience", &row.audience, &Audience::ALL, Audience::as_str)?,
            recipient: row.recipient,
            count: TABLE.count("count", row.count)?,
            created_at: Timestamp::from_millis(row.created_at),
            retry_at: Timestamp::from_millis(row.retry_at),
            tries: TABLE.small("tries", row.tries)?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct OutageRow {
    tries: i64,
    failing_since: Option<i64>,
    retry_at: Option<i64>,
    failure: Option<String>,
}

/// Adds one.
///
/// # Errors
/// When the database fails.
pub async fn insert_mail(tx: &mut Tx, mail: &Mail) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(INSERT_MAIL)
        .bind(mail.id.0)
        .bind(mail.event.0)
        .bind(mail.audience.as_str())
        .bind(&mail.recipient)
        .bind(bigint(mail.count))
        .bind(mail.created_at.as_millis())
        .bind(mail.retry_at.as_millis())
        .bind(i64::from(mail.tries))
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// How many wait.
///
/// # Errors
/// When the database fails.
pub async fn count_mails(tx: &mut Tx) -> Result<u64, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_MAILS)
        .fetch_one(connection)
        .await)?;
    TABLE.count("count", count)
}

/// Since when the oldest waits.
///
/// # Errors
/// When the database fails.
pub async fn find_oldest_mail(tx: &mut Tx) -> Result<Option<Timestamp>, StorageError> {
    let at: Option<i64> = on_backend!(tx, |connection| sqlx::query_scalar(FIND_OLDEST)
        .fetch_one(connection)
        .await)?;
    Ok(at.map(Timestamp::from_millis))
}

/// How many wait for people, and of these for the one with this address.
///
/// # Errors
/// When the database fails.
pub async fn count_mails_to_people(tx: &mut Tx, recipient: &str) -> Result<(u64, u64), StorageError> {
    let (all, one): (i64, i64) = on_backend!(tx, |connection| {
        let all = sqlx::query_scalar(COUNT_MAILS_TO_PEOPLE)
            .fetch_one(&mut *connection)
            .await;
        let one = sqlx::query_scalar(COUNT_MAILS_TO_PERSON)
            .bind(recipient)
            .fetch_one(connection)
            .await;
        all.and_then(|all| Ok((all, one?)))
    })?;
    Ok((TABLE.count("count", all)?, TABLE.count("count", one)?))
}

/// Those that have waited since this moment or longer.
///
/// # Errors
/// When the database fails.
pub async fn list_old_mails(tx: &mut Tx, since: Timestamp, limit: u32) -> Result<Vec<Mail>, StorageError> {
    let rows: Vec<Row> = on_backend!(tx, |connection| sqlx::query_as(LIST_OLD)
        .bind(since.as_millis())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter().map(Mail::try_from).collect()
}

/// Those that may be tried now: alerts first, then whoever has waited longest.
///
/// # Errors
/// When the database fails.
pub async fn list_due_mails(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<Mail>, StorageError> {
    let rows: Vec<Row> = on_backend!(tx, |connection| sqlx::query_as(LIST_DUE)
        .bind(now.as_millis())
        .bind(latest_retry(now).as_millis())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?;
    rows.into_iter().map(Mail::try_from).collect()
}

/// Takes a try upon this node, until then. Whether no other node has begun one meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn begin_try(tx: &mut Tx, mail: &Mail, until: Timestamp) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(BEGIN_TRY)
        .bind(mail.id.0)
        .bind(i64::from(mail.tries))
        .bind(until.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Nobody is at any of them: for the start of a node that has no others.
///
/// # Errors
/// When the database fails.
pub async fn release_mails(tx: &mut Tx, now: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(RELEASE_ALL)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// The try that was begun failed: not before then again, and that many count. Whether it was still the last one.
///
/// # Errors
/// When the database fails.
pub async fn postpone_mail(tx: &mut Tx, mail: &Mail, until: Timestamp, tries: u32) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(POSTPONE)
        .bind(mail.id.0)
        .bind(i64::from(mail.tries))
        .bind(until.as_millis())
        .bind(i64::from(tries))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// It was sent, or is given up. Whether the try that was begun was still the last one.
///
/// # Errors
/// When the database fails.
pub async fn delete_mail(tx: &mut Tx, mail: &Mail) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(DELETE_MAIL)
        .bind(mail.id.0)
        .bind(i64::from(mail.tries))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// How the mail server is doing; none: well, as far as anybody knows.
///
/// # Errors
/// When the database fails.
pub async fn find_mail_outage(tx: &mut Tx) -> Result<Option<Outage>, StorageError> {
    let row: OutageRow = on_backend!(tx, |connection| sqlx::query_as(FIND_OUTAGE).fetch_one(connection).await)?;
    Table("mail_server").outage(row.tries, row.failing_since, row.retry_at, row.failure)
}

/// Writes down how it is doing. Whether nobody else has meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn put_mail_outage(
    tx: &mut Tx,
    before: Option<&Outage>,
    after: Option<&Outage>,
) -> Result<bool, StorageError> {
    let tries = |outage: Option<&Outage>| outage.map_or(0, |outage| i64::from(outage.tries));
    let changed = on_backend!(tx, |connection| sqlx::query(PUT_OUTAGE)
        .bind(tries(before))
        .bind(tries(after))
        .bind(millis(after.map(|outage| outage.since)))
        .bind(millis(after.map(|outage| outage.retry_at)))
        .bind(after.map(|outage| outage.failure.as_str()))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}
