//! The revocation feed for other services (TOKENS.md §8): what their verifiers have to refuse although it is well signed.
//!
//! `GET /oauth/revocations` is the whole of what matters now as JSON, with its cursor. `/oauth/revocations/stream` (or
//! the same address with `Accept: text/event-stream`) goes on from a cursor, 0 for everything, and notices by the entry
//! last seen whether the numbers still mean the same. It tells as server-sent events: `opened` with this node's time,
//! `revoked` for every entry, and `heartbeat` several times a second for as long as the reader has heard everything and
//! this node itself knows what is new. Whoever hears no heartbeat knows that its knowledge grows old. Only for services with the scope [`REVOCATIONS`].
//!
//! However many revocations there are, an answer holds a page of them in memory, and its reader sets the pace for as long
//! as its token may live.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa::ToSchema;

use super::AppState;
use super::refusal::Refusal;
use crate::domain::audit::Circumstances;
use crate::domain::client::REVOCATIONS;
use crate::domain::clock::{Timestamp, Watch};
use crate::domain::revocation::{Entry, Target};
use crate::http::oauth::admit_service;
use crate::http::places::Place;
use crate::services::oauth::Admitted;
use crate::services::revocations::News;

/// How often a reader hears that it is up to date.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// So many heartbeats without a look into the database, and the stream ends: another node may know more.
const MOST_MISSED: u32 = 4;
/// A reader that takes nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer goes out in pieces of about so many bytes.
const PIECE: usize = 32 * 1024;
/// Pieces that wait for a slow reader.
const MOST_WAITING: usize = 4;
/// Streams at once.
pub const MOST_STREAMS: usize = 512;

/// Routes under `/oauth`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/oauth/revocations", get(revocations))
        .route("/oauth/revocations/stream", get(stream))
}

/// All revocations that matter now.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the form of what is written piece by piece, for the documentation"
)]
pub struct Snapshot {
    /// The entries.
    #[schema(value_type = [Object])]
    revocations: Vec<Entry>,
    /// Go on from here.
    cursor: u64,
    /// Nothing that was revoked before is missing; Unix milliseconds of this node.
    as_of: i64,
    /// This node's time; Unix milliseconds.
    at: i64,
}

/// Where to go on from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    cursor: Option<u64>,
    seen: Option<Seen>,
}

/// The last entry that the reader was told: its `cursor` and its `at` with a hyphen between them.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Seen {
    cursor: u64,
    at: Timestamp,
}

impl TryFrom<String> for Seen {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let numbers = text.split_once('-').and_then(|(cursor, at)| {
            let at = at.parse().ok().map(Timestamp::from_millis)?;
            Some(Self {
                cursor: cursor.parse().ok()?,
                at,
            })
        });
        numbers.ok_or("not the `cursor` and the `at` of an entry")
    }
}

/// The snapshot, or with `Accept: text/event-stream` the stream.
///
/// # Errors
/// 401, 403, and faults of ours.
#[utoipa::path(get, path = "/oauth/revocations", responses(
    (status = 200, body = Snapshot, description = "What matters now, or the stream for `text/event-stream`"),
    (status = 401), (status = 403), (status = 503)))]
pub async fn revocations(
    state: State<AppState>,
    from: Extension<Circumstances>,
    headers: HeaderMap,
    query: Query<From>,
) -> Result<Response, Refusal> {
    let wants_stream = headers
        .get(ACCEPT)
        .is_some_and(|kinds| kinds.as_bytes().starts_with(b"text/event-stream"));
    if wants_stream {
        return stream(state, from, headers, query).await;
    }
    let State(state) = state;
    let client = admit_service(&state, &headers, REVOCATIONS, &from).await?.client;
    let place = state.streams.take(&client.id)?;
    let watch = state.backend.watch();
    let first = state.backend.read_revocations(0).await?.ok_or_else(begin_anew)?;
    let (outlet, body) = Outlet::new(state.backend.now().plus(client.access), watch);
    tokio::spawn(async move {
        if !write_snapshot(&state, &outlet, first).await {
            outlet.break_off().await;
        }
        drop(place);
    });
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// The answer breaks off: what was sent is not all there is.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("revocations could not be read to their end")]
struct ReadFailed;

/// Where an answer goes, piece by piece.
struct Outlet {
    pieces: mpsc::Sender<Result<Bytes, ReadFailed>>,
    /// No token that was good at the beginning lives longer.
    ends_at: Timestamp,
    /// Readers reckon with one clock from the beginning to the end.
    watch: Watch,
}

impl Outlet {
    fn new(ends_at: Timestamp, watch: Watch) -> (Self, Body) {
        let (pieces, mut waiting) = mpsc::channel(MOST_WAITING);
        let body = futures_util::stream::poll_fn(move |context| waiting.poll_recv(context));
        let outlet = Self { pieces, ends_at, watch };
        (outlet, Body::from_stream(body))
    }

    /// Whether the reader took it.
    async fn send(&self, text: String) -> bool {
        let sent = timeout(PATIENCE, self.pieces.send(Ok(text.into()))).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Sends what has been written so far if it makes a piece. Whether the reader took it.
    async fn send_piece(&self, text: &mut String) -> bool {
        text.len() < PIECE || self.send(std::mem::take(text)).await
    }

    /// The reader is told that this is not all there is, unless it has gone.
    async fn break_off(&self) {
        drop(timeout(PATIENCE, self.pieces.send(Err(ReadFailed))).await);
    }

    /// Whether it is too late to tell more.
    fn has_ended(&self, state: &AppState) -> bool {
        let backend = &state.backend;
        backend.now() >= self.ends_at || state.draining.has_begun() || backend.clock_has_stepped(&self.watch)
    }
}

/// Whether it was written to its end.
async fn write_snapshot(state: &AppState, outlet: &Outlet, first: News) -> bool {
    let mut page = first;
    let mut text = String::from(r#"{"revocations":["#);
    let mut is_first = true;
    let as_of = loop {
        for entry in page.entries.iter() {
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            text.push_str(&json(entry));
            if !outlet.send_piece(&mut text).await {
                return false;
            }
        }
        if let Some(as_of) = page.as_of {
            break as_of;
        }
        page = match state.backend.read_revocations(page.cursor).await {
            Ok(Some(next)) if next.past == page.past && !outlet.has_ended(state) => next,
            Ok(_) | Err(_) => return false,
        };
    };
    if outlet.has_ended(state) {
        return false;
    }
    let (cursor, as_of, at) = (page.cursor, as_of.as_millis(), state.backend.now().as_millis());
    let end = format!(r#"],"cursor":{cursor},"as_of":{as_of},"at":{at}}}"#);
    outlet.send(text + &end).await
}

/// An entry is plain data with text keys; serialising it cannot fail.
fn json(entry: &Entry) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}

/// The stream from `?cursor=` or `Last-Event-ID` on (HTML Living Standard, server-sent events).
///
/// # Errors
/// 400, 401, 403, 410 for a cursor that was never given, or one of a past that the database has lost, 503 when there are
/// too many streams, and faults of ours.
#[utoipa::path(get, path = "/oauth/revocations/stream", params(
    ("cursor" = Option<u64>, Query), ("seen" = Option<String>, Query, description = "`cursor-at` of the last entry heard")),
    responses(
    (status = 200, description = "Server-sent events"), (status = 401), (status = 403),
    (status = 410, description = "Unknown cursor: take a snapshot"), (status = 503)))]
pub async fn stream(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    headers: HeaderMap,
    Query(query): Query<From>,
) -> Result<Response, Refusal> {
    // Told to the reader, who counts from before its request: the less lies between, the better.
    let (opened_at, watch) = (state.backend.now(), state.backend.watch());
    let admitted = admit_service(&state, &headers, REVOCATIONS, &from).await?;
    let last_event =
        match headers.get("last-event-id") {
            Some(id) => Some(id.to_str().ok().and_then(|id| id.parse().ok()).ok_or_else(|| {
                Refusal::new(StatusCode::BAD_REQUEST, "bad_cursor", "Last-Event-ID is not a cursor.")
            })?),
            None => None,
        };
    let after = last_event.or(query.cursor).unwrap_or(0);
    let place = state.streams.take(&admitted.client.id)?;
    // In this order: what comes between the two is heard twice, and told once.
    let news = state.backend.hear_revocations();
    if let Some(Seen { cursor, at }) = query.seen
        && state.backend.was_given_again(cursor, at).await?
    {
        return Err(begin_anew());
    }
    let first = state.backend.read_revocations(after).await?.ok_or_else(begin_anew)?;
    // No token of the client lives longer; with a new one the reader comes again.
    let (outlet, body) = Outlet::new(state.backend.now().plus(admitted.client.access), watch);
    let reader = Reader {
        outlet,
        cursor: after,
        past: first.past,
        read_by: state.backend.now(),
    };
    tokio::spawn(tell(state, reader, opened_at, first, news, admitted, place));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

fn begin_anew() -> Refusal {
    Refusal::new(
        StatusCode::GONE,
        "unknown_cursor",
        "This cursor is not one of ours. Take a snapshot.",
    )
}

/// The reader itself was shut out.
fn is_about(entry: &Entry, reader: &Admitted) -> bool {
    match &entry.target {
        Target::Subject { sub, .. } => sub == reader.client.id.as_str(),
        Target::Token { id } => *id == reader.token,
        Target::Key { id } => *id == reader.key,
        Target::Session { .. } => false,
    }
}

/// What a stream has told its reader.
struct Reader {
    outlet: Outlet,
    cursor: u64,
    /// See [`News`].
    past: u64,
    /// When the last page was read from the database, at the latest.
    read_by: Timestamp,
}

impl Reader {
    /// Says that the stream is open, and what this node's clock showed when it was asked for.
    async fn open(&self, at: Timestamp) -> bool {
        let data = serde_json::json!({ "at": at.as_millis() });
        self.outlet.send(event("opened", self.cursor, &data.to_string())).await
    }

    /// Tells what the reader has not heard yet. `false`: end.
    async fn tell(&mut self, news: &News) -> bool {
        if news.past != self.past {
            // The reader has to hear that its cursor means nothing any more.
            return false;
        }
        if news.cursor < self.cursor {
            // A look from before the reader's own; or, if it began later, the database went back in time before this node
            // had ever looked.
            return news.as_of <= Some(self.read_by);
        }
        let mut text = String::new();
        for entry in news.entries.iter().filter(|entry| entry.cursor > self.cursor) {
            text.push_str(&event("revoked", entry.cursor, &json(entry)));
            if !self.outlet.send_piece(&mut text).await {
                return false;
            }
        }
        self.cursor = news.cursor;
        text.is_empty() || self.outlet.send(text).await
    }

    /// Reads and tells page after page. As of when the reader knows everything; none: end.
    async fn catch_up(&mut self, state: &AppState, mut page: News) -> Option<Timestamp> {
        while self.tell(&page).await && !self.outlet.has_ended(state) {
            if page.as_of.is_some() {
                return page.as_of;
            }
            // If there is none, the reader comes again and hears what is wrong.
            page = state.backend.read_revocations(page.cursor).await.ok()??;
            self.read_by = state.backend.now();
        }
        None
    }

    async fn beat(&self, as_of: Timestamp, now: Timestamp) -> bool {
        let data = serde_json::json!({ "cursor": self.cursor, "as_of": as_of.as_millis(), "at": now.as_millis() });
        self.outlet
            .send(event("heartbeat", self.cursor, &data.to_string()))
            .await
    }
}

fn event(kind: &str, cursor: u64, data: &str) -> String {
    format!("event: {kind}\nid: {cursor}\ndata: {data}\n\n")
}

/// Tells a reader what is new until it goes, its token ends, the server stops, or this node loses touch.
async fn tell(
    state: AppState,
    mut reader: Reader,
    opened_at: Timestamp,
    first: News,
    mut news: Receiver<News>,
    admitted: Admitted,
    _place: Place,
) {
    let backend = &state.backend;
    if !reader.open(opened_at).await {
        return;
    }
    let Some(as_of) = reader.catch_up(&state, first).await else {
        return;
    };
    let mut as_of = Some(as_of);
    let mut missed = 0;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !reader.outlet.has_ended(&state) && missed <= MOST_MISSED {
        let goes_on = tokio::select! {
            heard = news.recv() => match heard {
                Ok(heard) => {
                    as_of = as_of.max(heard.as_of);
                    reader.tell(&heard).await && !heard.entries.iter().any(|entry| is_about(entry, &admitted))
                }
                // It missed some: the reader comes again and reads them from the table.
                Err(_) => false,
            },
            _ = beat.tick() => if let Some(as_of) = as_of.take() {
                missed = 0;
                reader.beat(as_of, backend.now()).await
            } else {
                missed += 1;
                true
            },
        };
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::domain::clock::SystemClock;

    fn watch() -> Watch {
        Watch::begin(&SystemClock)
    }

    /// A look takes its date, then its cursor; between the two another one may do both, and see more.
    #[tokio::test]
    async fn a_look_that_the_readers_own_has_overtaken_does_not_end_the_stream_and_a_later_one_that_knows_less_does() {
        let at = Timestamp::from_seconds;
        let news = |cursor, as_of, past| News {
            entries: Arc::new([]),
            cursor,
            as_of,
            past,
        };
        let (outlet, body) = Outlet::new(at(1000), watch());
        let mut reader = Reader {
            outlet,
            cursor: 0,
            past: 1,
            read_by: at(15),
        };
        assert!(reader.tell(&news(7, Some(at(10)), 1)).await);
        for overtaken in [None, Some(at(9)), Some(at(10)), Some(at(12)), Some(at(15))] {
            assert!(reader.tell(&news(6, overtaken, 1)).await, "{overtaken:?}");
            assert_eq!(reader.cursor, 7);
        }
        for (cursor, as_of, past) in [(6, Some(at(16)), 1), (6, None, 2), (8, Some(at(16)), 2), (8, None, 0)] {
            let ends = !reader.tell(&news(cursor, as_of, past)).await;
            assert!(ends, "the database went back in time: {cursor} {as_of:?} {past}");
        }
        drop(reader);
        assert!(body.collect().await.expect("whole").to_bytes().is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
        for breaks_off in [false, true] {
            let (outlet, body) = Outlet::new(Timestamp::from_seconds(1000), watch());
            assert!(outlet.send("{".to_owned()).await);
            if breaks_off {
                outlet.break_off().await;
            }
            drop(outlet);
            assert_eq!(body.collect().await.is_err(), breaks_off);
        }
    }
}
