//! The revocation feed for other services (TOKENS.md §8): what their verifiers have to refuse although it is well signed.
//!
//! `GET /oauth/revocations` is the whole of what matters now as JSON, with its cursor. `/oauth/revocations/stream` (or
//! the same address with `Accept: text/event-stream`) goes on from a cursor as server-sent events: `revoked` for every
//! entry and `heartbeat` several times a second, for as long as this node itself knows what is new. Whoever hears no
//! heartbeat knows that its knowledge grows old. Only for services with the scope [`REVOCATIONS`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::channel::{Channel, Sender};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa::ToSchema;

use super::AppState;
use super::refusal::Refusal;
use crate::domain::audit::Circumstances;
use crate::domain::client::{REVOCATIONS, ServiceClient};
use crate::domain::clock::Timestamp;
use crate::domain::revocation::{Entry, Target};
use crate::http::oauth::admit_service;
use crate::services::revocations::News;

/// How often a reader hears that it is up to date.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// So many heartbeats without a look into the database, and the stream ends: another node may know more.
const MOST_MISSED: u32 = 4;
/// A reader that takes nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(5);
/// Streams at once.
const MOST_STREAMS: usize = 256;

/// The streams of this node.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_STREAMS)))
    }
}

impl Streams {
    /// A place among those who wait for news, until it is dropped.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub fn take_place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                "Too many streams. Try again later.",
            )
            .with_header("retry-after", "5")
        })
    }
}

/// Routes under `/oauth`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/oauth/revocations", get(revocations))
        .route("/oauth/revocations/stream", get(stream))
}

/// All revocations that matter now.
#[derive(Serialize, ToSchema)]
pub struct Snapshot<'a> {
    /// Go on from here.
    cursor: u64,
    /// Nothing that was revoked before is missing; Unix milliseconds of this node.
    as_of: i64,
    /// This node's time; Unix milliseconds.
    at: i64,
    /// The entries.
    #[schema(value_type = [Object])]
    revocations: &'a [Entry],
}

/// Where to go on from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    cursor: Option<u64>,
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
    admit_service(&state, &headers, REVOCATIONS, &from).await?;
    let news = state.backend.read_revocations(0).await?.ok_or_else(begin_anew)?;
    let snapshot = Snapshot {
        cursor: news.cursor,
        as_of: news.as_of.as_millis(),
        at: state.backend.now().as_millis(),
        revocations: &news.entries,
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(snapshot)).into_response())
}

/// The stream from `?cursor=` or `Last-Event-ID` on (HTML Living Standard, server-sent events).
///
/// # Errors
/// 400, 401, 403, 410 for a cursor that was never given, 503 when there are too many streams, and faults of ours.
#[utoipa::path(get, path = "/oauth/revocations/stream", params(("cursor" = Option<u64>, Query)), responses(
    (status = 200, description = "Server-sent events"), (status = 401), (status = 403),
    (status = 410, description = "Unknown cursor: take a snapshot"), (status = 503)))]
pub async fn stream(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    headers: HeaderMap,
    Query(query): Query<From>,
) -> Result<Response, Refusal> {
    let client = admit_service(&state, &headers, REVOCATIONS, &from).await?;
    let last_event =
        match headers.get("last-event-id") {
            Some(id) => Some(id.to_str().ok().and_then(|id| id.parse().ok()).ok_or_else(|| {
                Refusal::new(StatusCode::BAD_REQUEST, "bad_cursor", "Last-Event-ID is not a cursor.")
            })?),
            None => None,
        };
    let after = last_event.or(query.cursor).unwrap_or(0);
    let place = state.streams.take_place()?;
    // In this order: what comes between the two is heard twice, and told once.
    let news = state.backend.hear_revocations();
    let first = state.backend.read_revocations(after).await?.ok_or_else(begin_anew)?;
    let (sender, body) = Channel::<Bytes>::new(8);
    tokio::spawn(tell(state, sender, first, news, client, place));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

fn begin_anew() -> Refusal {
    Refusal::new(
        StatusCode::GONE,
        "unknown_cursor",
        "This cursor was never given. Take a snapshot.",
    )
}

/// The reader itself was shut out.
fn is_about(entry: &Entry, client: &ServiceClient) -> bool {
    matches!(&entry.target, Target::Subject { sub, .. } if sub == client.id.as_str())
}

/// What a stream has told its reader.
struct Reader {
    sender: Sender<Bytes>,
    cursor: u64,
    /// As of when the reader knows everything.
    as_of: Timestamp,
}

impl Reader {
    /// Whether the reader took it.
    async fn send(&mut self, text: String) -> bool {
        let sent = timeout(PATIENCE, self.sender.send_data(text.into())).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Tells what the reader has not heard yet. `false`: end.
    async fn tell(&mut self, news: &News) -> bool {
        if news.cursor < self.cursor {
            // A look from before the stream began; or the database went back in time, and the reader has to hear that
            // its cursor means nothing any more, before numbers come that it believes to have heard.
            return news.as_of < self.as_of;
        }
        self.as_of = self.as_of.max(news.as_of);
        let mut text = String::new();
        for entry in news.entries.iter().filter(|entry| entry.cursor > self.cursor) {
            // An entry is plain data with text keys; serialising it cannot fail.
            let data = serde_json::to_string(entry).unwrap_or_default();
            text.push_str(&event("revoked", entry.cursor, &data));
        }
        self.cursor = self.cursor.max(news.cursor);
        text.is_empty() || self.send(text).await
    }

    async fn beat(&mut self, as_of: Timestamp, now: Timestamp) -> bool {
        let data = serde_json::json!({ "cursor": self.cursor, "as_of": as_of.as_millis(), "at": now.as_millis() });
        self.send(event("heartbeat", self.cursor, &data.to_string())).await
    }
}

fn event(kind: &str, cursor: u64, data: &str) -> String {
    format!("event: {kind}\nid: {cursor}\ndata: {data}\n\n")
}

/// Tells a reader what is new until it goes, its token ends, the server stops, or this node loses touch.
async fn tell(
    state: AppState,
    sender: Sender<Bytes>,
    first: News,
    mut news: Receiver<News>,
    client: ServiceClient,
    _place: OwnedSemaphorePermit,
) {
    let mut reader = Reader {
        sender,
        cursor: 0,
        as_of: first.as_of,
    };
    let backend = &state.backend;
    // No token of the client lives longer; with a new one the reader comes again.
    let ends_at = backend.now().plus(client.access);
    if !(reader.tell(&first).await && reader.beat(first.as_of, backend.now()).await) {
        return;
    }
    let mut as_of = None;
    let mut missed = 0;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while backend.now() < ends_at && !state.draining.has_begun() && missed <= MOST_MISSED {
        let goes_on = tokio::select! {
            heard = news.recv() => match heard {
                Ok(heard) => {
                    as_of = Some(heard.as_of);
                    reader.tell(&heard).await && !heard.entries.iter().any(|entry| is_about(entry, &client))
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
