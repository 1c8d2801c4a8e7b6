//! Sessions: every change that a refresh, a use or an ending makes is one conditional UPDATE that repeats the whole
//! condition; whether one row changed tells whether it happened (TOKENS.md §3). Rows are never deleted before their
//! absolute end and thirty days more. Must not know tokens.

pub mod cohort;
pub(super) mod ending;
pub(super) mod known;
pub(super) mod rotation;
mod row;

use uuid::Uuid;

use super::columns::{Table, bigint};
use super::many::{self, in_ids_on_postgres, in_ids_on_sqlite};
use super::{StorageError, Tx, on_backend, statements};
use crate::domain::clock::{Timestamp, millis};
use crate::domain::id::{DeviceId, SessionId, UserId};
use crate::domain::revocation::{Target, all_expired_at};
use crate::domain::session::{Ending, LimitsNow, Session, Tightened};
pub use ending::{end_overdue_session, end_session, end_unused_session};
pub use known::{Known, find_known, find_known_with};
pub use rotation::{Rotation, rotate_and_record, rotate_session};
use row::{EndingColumns, SessionRow, session_columns};

statements! {
    INSERT_SESSION = "INSERT INTO sessions (id, user_id, device_id, client, secret_sealed, generation, rotated_at, \
        child_confirmed, reissues, access_expires_at, min_generation, auth_epoch, grant_epoch, started_at, \
        authenticated_at, last_active_at, access_ms, idle_ms, idle_rule_role, idle_rule_version, absolute_expires_at, \
        absolute_rule_role, absolute_rule_version, amr, address, user_agent, ended_at, end_reason, end_rule_role, \
        end_rule_version, end_limit_ms, superseded_at, handed_out_at, jkt, look_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
        $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, \
        $31, $32, $33, $34, $35)";
    FIND_SESSION = concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.id = $1");
    LIST_LIVING = concat!("SELECT ", session_columns!(), " FROM sessions s \
        WHERE s.user_id = $1 AND s.ended_at IS NULL ORDER BY s.last_active_at DESC, s.id DESC");
    LIST_OLDEST_LIVING = concat!("SELECT ", session_columns!(), " FROM sessions s \
        WHERE s.user_id = $1 AND s.ended_at IS NULL ORDER BY s.last_active_at DESC, s.id DESC \
        LIMIT 9223372036854775807 OFFSET $2");
    LIST_ENDED = concat!("SELECT ", session_columns!(), " FROM sessions s \
        WHERE s.user_id = $1 AND s.ended_at IS NOT NULL AND s.ended_at >= $2 \
        ORDER BY s.ended_at DESC, s.id DESC LIMIT $3");
    LIST_DUE = concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.ended_at IS NULL AND s.look_at <= $1 \
        ORDER BY s.look_at LIMIT $2");
    LIST_ENDED_AHEAD = "SELECT s.id, s.rotated_at FROM sessions s WHERE s.ended_at > $1 AND s.rotated_at > $2 AND s.rotated_at <= $1";
    LIST_LIVING_AHEAD = "SELECT s.id FROM sessions s WHERE s.id > $2 AND s.ended_at IS NULL \
        AND (s.started_at > $1 OR s.last_active_at > $1) \
        AND EXISTS (SELECT 1 FROM users u WHERE u.id = s.user_id AND u.created_at <= $1) ORDER BY s.id LIMIT $3";
    REFUSE_GENERATIONS_SO_FAR = "UPDATE sessions SET min_generation = generation + 1 \
        WHERE user_id = $1 AND ended_at IS NULL RETURNING id, min_generation, rotated_at";
    COUNT_REISSUE = "UPDATE sessions SET reissues = reissues + 1, handed_out_at = $4, superseded_at = $4 \
        WHERE id = $1 AND generation = $2 AND child_confirmed = 0 AND reissues < $3 AND ended_at IS NULL";
    CONFIRM = "UPDATE sessions SET child_confirmed = 1, superseded_at = $3 \
        WHERE id = $1 AND generation = $2 AND child_confirmed = 0 AND ended_at IS NULL";
    TOUCH = "UPDATE sessions SET last_active_at = $2 WHERE id = $1 AND last_active_at < $2 AND ended_at IS NULL \
        AND absolute_expires_at > $2 AND last_active_at + idle_ms > $3";
    TIGHTEN = "UPDATE sessions SET \
        access_ms = CASE WHEN $2 < access_ms THEN $2 ELSE access_ms END, \
        idle_rule_role = CASE WHEN $3 < idle_ms THEN $4 ELSE idle_rule_role END, \
        idle_rule_version = CASE WHEN $3 < idle_ms THEN $5 ELSE idle_rule_version END, \
        idle_ms = CASE WHEN $3 < idle_ms THEN $3 ELSE idle_ms END, \
        absolute_rule_role = CASE WHEN $6 < absolute_expires_at THEN $7 ELSE absolute_rule_role END, \
        absolute_rule_version = CASE WHEN $6 < absolute_expires_at THEN $8 ELSE absolute_rule_version END, \
        absolute_expires_at = CASE WHEN $6 < absolute_expires_at THEN $6 ELSE absolute_expires_at END, \
        look_at = CASE WHEN $6 < look_at AND $6 <= last_active_at + $3 THEN $6 \
        WHEN last_active_at + $3 < look_at THEN last_active_at + $3 ELSE look_at END \
        WHERE id = $1 AND ended_at IS NULL";
    END_OF_USER = "UPDATE sessions SET ended_at = $3, end_reason = $4, end_rule_role = $5, end_rule_version = $6, \
        end_limit_ms = $7 WHERE user_id = $1 AND id <> $2 AND ended_at IS NULL RETURNING id, device_id, rotated_at";
    BIND = "UPDATE sessions SET browser_key = $2 \
        WHERE id = $1 AND client = 'browser' AND browser_key IS NULL AND ended_at IS NULL";
    NOTE_BROWSER_PROOF = "UPDATE sessions SET browser_key_proved_at = $2 \
        WHERE id = $1 AND browser_key IS NOT NULL AND browser_key_proved_at IS NULL AND ended_at IS NULL";
    COUNT_LIVING = "SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL";
    COUNT_ALL_LIVING = "SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL";
    DELETE_LONG_ENDED = "DELETE FROM sessions WHERE id IN (SELECT s.id FROM sessions s \
        WHERE s.absolute_expires_at < $1 AND s.ended_at < $1 ORDER BY s.absolute_expires_at LIMIT $2)";
}

macro_rules! list_living_of {
    ($in_ids:expr) => {
        concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE s.ended_at IS NULL AND s.user_id ",
            $in_ids
        )
    };
}

macro_rules! put_off {
    ($in_ids:expr) => {
        // The plus: as with those that end many (see `cohort`).
        concat!(
            "UPDATE sessions SET look_at = CASE WHEN last_active_at + idle_ms < absolute_expires_at \
             THEN last_active_at + idle_ms ELSE absolute_expires_at END WHERE +ended_at IS NULL AND id ",
            $in_ids
        )
    };
}

macro_rules! bring_back {
    ($in_ids:expr) => {
        concat!(
            "UPDATE sessions SET absolute_expires_at = CASE WHEN $2 < started_at \
             THEN absolute_expires_at - (started_at - $2) \
             ELSE absolute_expires_at END, \
             started_at = CASE WHEN $2 < started_at THEN $2 ELSE started_at END, \
             last_active_at = CASE WHEN $2 < last_active_at THEN $2 ELSE last_active_at END, \
             look_at = $2 WHERE +ended_at IS NULL AND id ",
            $in_ids
        )
    };
}

statements! {
    @SQLITE_STATEMENTS
    BRING_BACK_ON_SQLITE = bring_back!(in_ids_on_sqlite!("$1"));
    LIST_LIVING_OF_ON_SQLITE = list_living_of!(in_ids_on_sqlite!("$1"));
    PUT_OFF_ON_SQLITE = put_off!(in_ids_on_sqlite!("$1"));
}

statements! {
    @POSTGRES_STATEMENTS
    BRING_BACK_ON_POSTGRES = bring_back!(in_ids_on_postgres!("$1"));
    LIST_LIVING_OF_ON_POSTGRES = list_living_of!(in_ids_on_postgres!("$1"));
    PUT_OFF_ON_POSTGRES = put_off!(in_ids_on_postgres!("$1"));
}

fn all(rows: Vec<SessionRow>) -> Result<Vec<Session>, StorageError> {
    rows.into_iter().map(Session::try_from).collect()
}

/// Begins a session.
///
/// # Errors
/// When the database fails.
pub async fn insert_session(tx: &mut Tx, session: &Session) -> Result<(), StorageError> {
    let ending = session.ending.as_ref().map(EndingColumns::from);
    let ending = ending.as_ref();
    on_backend!(tx, |connection| sqlx::query(INSERT_SESSION)
        .bind(session.id.0)
        .bind(session.user_id.0)
        .bind(session.device_id.map(|device| device.0))
        .bind(session.client.as_str())
        .bind(&session.secret_sealed)
        .bind(bigint(session.generation))
        .bind(session.rotated_at.as_millis())
        .bind(i64::from(session.child_confirmed))
        .bind(i64::from(session.reissues))
        .bind(session.access_expires_at.as_millis())
        .bind(bigint(session.min_generation))
        .bind(session.auth_epoch)
        .bind(session.grant_epoch)
        .bind(session.started_at.as_millis())
        .bind(session.authenticated_at.as_millis())
        .bind(session.last_active_at.as_millis())
        .bind(millis(session.access))
        .bind(millis(session.idle))
        .bind(&session.idle_rule.role)
        .bind(i64::from(session.idle_rule.version))
        .bind(session.absolute_expires_at.as_millis())
        .bind(&session.absolute_rule.role)
        .bind(i64::from(session.absolute_rule.version))
        .bind(&session.amr)
        .bind(&session.address)
        .bind(&session.user_agent)
        .bind(ending.map(|ending| ending.at))
        .bind(ending.map(|ending| ending.reason))
        .bind(ending.and_then(|ending| ending.role))
        .bind(ending.and_then(|ending| ending.version))
        .bind(ending.and_then(|ending| ending.limit))
        .bind(session.superseded_at.as_millis())
        .bind(session.handed_out_at.as_millis())
        .bind(session.jkt.map(|key| key.to_string()))
        .bind(session.idle_expires_at().min(session.absolute_expires_at).as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// The session, living or ended.
///
/// # Errors
/// When the database fails.
pub async fn find_session(tx: &mut Tx, id: SessionId) -> Result<Option<Session>, StorageError> {
    let row: Option<SessionRow> = on_backend!(tx, |connection| sqlx::query_as(FIND_SESSION)
        .bind(id.0)
        .fetch_optional(connection)
        .await)?;
    row.map(Session::try_from).transpose()
}

/// The person's sessions whose end nobody has written down, most recently active first. Whether each really lives is
/// [`Session::standing`]'s to say.
///
/// # Errors
/// When the database fails.
pub async fn list_living_sessions(tx: &mut Tx, user: UserId) -> Result<Vec<Session>, StorageError> {
    all(on_backend!(tx, |connection| sqlx::query_as(LIST_LIVING)
        .bind(user.0)
        .fetch_all(connection)
        .await)?)
}

/// The living sessions of all these people.
///
/// # Errors
/// When the database fails.
pub async fn list_living_sessions_of(tx: &mut Tx, people: &[UserId]) -> Result<Vec<Session>, StorageError> {
    let ids = many::ids(people.iter().map(|person| person.0));
    let sql = tx.in_words_of(LIST_LIVING_OF_ON_SQLITE, LIST_LIVING_OF_ON_POSTGRES);
    all(on_backend!(tx, |connection| sqlx::query_as(sql)
        .bind(ids)
        .fetch_all(connection)
        .await)?)
}

/// The person's living sessions beyond the `keep` most recently active ones: those that have to make room. Call
/// [`super::users::lock_user`] first, or two sign-ins at once may both count the same.
///
/// # Errors
/// When the database fails.
pub async fn list_oldest_living_sessions(tx: &mut Tx, user: UserId, keep: u32) -> Result<Vec<Session>, StorageError> {
    all(on_backend!(tx, |connection| sqlx::query_as(LIST_OLDEST_LIVING)
        .bind(user.0)
        .bind(i64::from(keep))
        .fetch_all(connection)
        .await)?)
}

/// How many sessions of the person have no end written down.
///
/// # Errors
/// When the database fails.
pub async fn count_living_sessions(tx: &mut Tx, user: UserId) -> Result<u32, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_LIVING)
        .bind(user.0)
        .fetch_one(connection)
        .await)?;
    super::columns::Table("sessions").small("count", count)
}

/// How many sessions have no end written down. Goes through all of them: for a look now and then.
///
/// # Errors
/// When the database fails.
pub async fn count_all_living_sessions(tx: &mut Tx) -> Result<u64, StorageError> {
    let count: i64 = on_backend!(tx, |connection| sqlx::query_scalar(COUNT_ALL_LIVING)
        .fetch_one(connection)
        .await)?;
    super::columns::Table("sessions").count("count", count)
}

/// The person's sessions that ended since then, newest end first.
///
/// # Errors
/// When the database fails.
pub async fn list_ended_sessions(
    tx: &mut Tx,
    user: UserId,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<Session>, StorageError> {
    all(on_backend!(tx, |connection| sqlx::query_as(LIST_ENDED)
        .bind(user.0)
        .bind(since.as_millis())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?)
}

/// Living sessions whose time to be looked at has come: a limit of theirs has passed, or would have if nobody had used
/// them meanwhile. Those that were due first.
///
/// # Errors
/// When the database fails.
pub async fn list_due_sessions(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<Session>, StorageError> {
    all(on_backend!(tx, |connection| sqlx::query_as(LIST_DUE)
        .bind(now.as_millis())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await)?)
}

/// Lets these living sessions be looked at when they may be over, and not before. An index of when each ends by its idle
/// limit would have to learn of every use.
///
/// Commit soon: whoever uses one of them waits.
///
/// # Errors
/// When the database fails.
pub async fn put_off_looking(tx: &mut Tx, sessions: &[SessionId]) -> Result<(), StorageError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let ids = many::ids(sessions.iter().map(|session| session.0));
    let sql = tx.in_words_of(PUT_OFF_ON_SQLITE, PUT_OFF_ON_POSTGRES);
    many::write_many(tx, sql, ids).await
}

/// Refuses the session's tokens of smaller generations, the last of which was issued at `issued_until`.
fn refuse_below(tx: &mut Tx, id: SessionId, below: u64, now: Timestamp, issued_until: Timestamp) {
    let below = Some(below);
    tx.revoke(Target::Session { id, below }, now, all_expired_at(issued_until));
}

/// Refuses all access tokens that the person's living sessions have had; each goes on by refreshing. Whoever refreshes
/// at this moment either is seen here, or sees it and decides again.
pub(super) async fn refuse_generations_so_far(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<(), StorageError> {
    let rows: Vec<(Uuid, i64, i64)> = on_backend!(tx, |connection| sqlx::query_as(REFUSE_GENERATIONS_SO_FAR)
        .bind(user.0)
        .fetch_all(connection)
        .await)?;
    for (id, least, rotated_at) in rows {
        let least = Table("sessions").count("min_generation", least)?;
        refuse_below(tx, SessionId(id), least, now, Timestamp::from_millis(rotated_at));
    }
    Ok(())
}

/// Binds a living browser session to a key, if it is bound to none. Whether this did it.
///
/// # Errors
/// When the database fails.
pub async fn bind_browser(tx: &mut Tx, id: SessionId, point: &[u8]) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(BIND)
        .bind(id.0)
        .bind(point)
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// The browser has signed with its key: from now on the session is used with it or not at all.
///
/// # Errors
/// When the database fails.
pub async fn note_browser_proof(tx: &mut Tx, id: SessionId, now: Timestamp) -> Result<(), StorageError> {
    on_backend!(tx, |connection| sqlx::query(NOTE_BROWSER_PROOF)
        .bind(id.0)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// Counts that the child of the current generation is handed out again, now. `false` if it is confirmed, was handed out
/// again `max` times already, or the session went on or ended.
///
/// # Errors
/// When the database fails.
pub async fn count_reissue(
    tx: &mut Tx,
    id: SessionId,
    generation: u64,
    max: u32,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(COUNT_REISSUE)
        .bind(id.0)
        .bind(bigint(generation))
        .bind(i64::from(max))
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// The client itself has shown something of this generation: from now on its parent is good for nothing. Whether that is news.
///
/// # Errors
/// When the database fails.
pub async fn confirm_generation(
    tx: &mut Tx,
    id: SessionId,
    generation: u64,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(CONFIRM)
        .bind(id.0)
        .bind(bigint(generation))
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// The person did something. `false` if that is no news, or the session had ended or passed a limit before: activity
/// never brings one back.
///
/// # Errors
/// When the database fails.
pub async fn touch_session(
    tx: &mut Tx,
    id: SessionId,
    LimitsNow { now, idle_now }: LimitsNow,
) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(TOUCH)
        .bind(id.0)
        .bind(now.as_millis())
        .bind(idle_now.as_millis())
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Writes down tighter limits with the rules that set them. Each only shrinks, whatever is asked. `false` if the
/// session has ended.
///
/// # Errors
/// When the database fails.
pub async fn tighten_session(tx: &mut Tx, id: SessionId, tight: &Tightened) -> Result<bool, StorageError> {
    let changed = on_backend!(tx, |connection| sqlx::query(TIGHTEN)
        .bind(id.0)
        .bind(millis(tight.access))
        .bind(millis(tight.idle))
        .bind(&tight.idle_rule.role)
        .bind(i64::from(tight.idle_rule.version))
        .bind(tight.absolute_expires_at.as_millis())
        .bind(&tight.absolute_rule.role)
        .bind(i64::from(tight.absolute_rule.version))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Sessions that ended later than now, and when each was last rotated: of those tokens may be good again.
///
/// # Errors
/// When the database fails.
pub async fn list_ended_ahead(tx: &mut Tx, now: Timestamp) -> Result<Vec<(SessionId, Timestamp)>, StorageError> {
    let oldest = now.minus(all_expired_at(now).since(now));
    let rows: Vec<(Uuid, i64)> = on_backend!(tx, |connection| sqlx::query_as(LIST_ENDED_AHEAD)
        .bind(now.as_millis())
        .bind(oldest.as_millis())
        .fetch_all(connection)
        .await)?;
    let read = |(id, rotated_at)| (SessionId(id), Timestamp::from_millis(rotated_at));
    Ok(rows.into_iter().map(read).collect())
}

/// Has these revoked once more, with the commit.
pub fn revoke_again(tx: &mut Tx, ended: &[(SessionId, Timestamp)], now: Timestamp) {
    for (id, rotated_at) in ended {
        tx.revoke(
            Target::Session { id: *id, below: None },
            now,
            all_expired_at(*rotated_at),
        );
    }
}

/// The next living sessions, by their ids, that began or were last used later than this moment, of accounts that were made
/// before it.
///
/// # Errors
/// When the database fails.
pub async fn list_living_ahead(
    tx: &mut Tx,
    moment: Timestamp,
    after: SessionId,
    limit: usize,
) -> Result<Vec<SessionId>, StorageError> {
    let rows: Vec<(Uuid,)> = on_backend!(tx, |connection| sqlx::query_as(LIST_LIVING_AHEAD)
        .bind(moment.as_millis())
        .bind(after.0)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await)?;
    Ok(rows.into_iter().map(|(id,)| SessionId(id)).collect())
}

/// Has these begin, and be last used, at this moment at the latest; the absolute end comes nearer by as much. They are looked
/// at next.
///
/// # Errors
/// When the database fails.
pub async fn bring_back(tx: &mut Tx, sessions: &[SessionId], now: Timestamp) -> Result<(), StorageError> {
    let ids = many::ids(sessions.iter().map(|id| id.0));
    let sql = tx.in_words_of(BRING_BACK_ON_SQLITE, BRING_BACK_ON_POSTGRES);
    on_backend!(tx, |connection| sqlx::query(sql)
        .bind(ids)
        .bind(now.as_millis())
        .execute(connection)
        .await
        .map(drop))?;
    Ok(())
}

/// No token of a session was issued after its last rotation.
fn revoke_session(tx: &mut Tx, id: SessionId, ending: &Ending, rotated_at: i64) {
    let until = all_expired_at(Timestamp::from_millis(rotated_at));
    tx.revoke(Target::Session { id, below: None }, ending.at, until);
}

/// Ends all living sessions of the person but one. Which, and on which devices.
///
/// # Errors
/// When the database fails.
pub async fn end_sessions_of_user(
    tx: &mut Tx,
    user: UserId,
    except: Option<SessionId>,
    ending: &Ending,
) -> Result<Vec<(SessionId, Option<DeviceId>)>, StorageError> {
    let columns = EndingColumns::from(ending);
    // No session has the nil id.
    let except = except.map_or(Uuid::nil(), |session| session.0);
    let rows: Vec<(Uuid, Option<Uuid>, i64)> = on_backend!(tx, |connection| sqlx::query_as(END_OF_USER)
        .bind(user.0)
        .bind(except)
        .bind(columns.at)
        .bind(columns.reason)
        .bind(columns.role)
        .bind(columns.version)
        .bind(columns.limit)
        .fetch_all(connection)
        .await)?;
    for (id, _, rotated_at) in &rows {
        revoke_session(tx, SessionId(*id), ending, *rotated_at);
    }
    Ok(rows
        .into_iter()
        .map(|(id, device, _)| (SessionId(id), device.map(DeviceId)))
        .collect())
}

/// Deletes at most `limit` sessions that ended before `before`, as did the latest they could have lived; the caller
/// chooses it at least thirty days ago. How many.
///
/// # Errors
/// When the database fails.
pub async fn delete_sessions_ended_before(tx: &mut Tx, before: Timestamp, limit: u32) -> Result<u64, StorageError> {
    Ok(on_backend!(tx, |connection| sqlx::query(DELETE_LONG_ENDED)
        .bind(before.as_millis())
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .map(|done| done.rows_affected()))?)
}
