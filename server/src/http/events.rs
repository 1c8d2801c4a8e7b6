//! Security events for other software: the transmitter's configuration (SSF 1.0) and the door where a receiver fetches
//! and acknowledges them (RFC 8936). Only for services with the scope [`SECURITY_EVENTS`].
//!
//! Streams are not managed over HTTP: the client is the stream, the operator adds it with `mayfly clients add`, and it
//! hears of everybody. So no `configuration_endpoint` is offered.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use utoipa::ToSchema;

use super::AppState;
use super::refusal::{Refusal, StrictJson};
use crate::domain::audit::Circumstances;
use crate::domain::client::SECURITY_EVENTS;
use crate::domain::id::EventId;
use crate::http::oauth::admit_service;
use crate::services::security_events::MOST_EVENTS;

const PATH: &str = "/oauth/events";
/// Requests that wait at once.
pub const MOST_WAITING: usize = 256;
/// The pause between two looks of a request that waits. New events are sealed every few seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Then it is answered without any: in ten seconds, well within the time limit of requests.
const MOST_LOOKS: u32 = 10;
/// Characters of a receiver's complaint that are logged.
const MOST_COMPLAINT: usize = 200;

/// Routes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/.well-known/ssf-configuration", get(configuration))
        .route(PATH, post(poll))
}

/// SSF 1.0, section 7.1.
#[derive(Serialize, ToSchema)]
pub struct TransmitterConfiguration {
    spec_version: &'static str,
    /// Exactly the `iss` of every event.
    issuer: String,
    jwks_uri: String,
    delivery_methods_supported: [&'static str; 1],
    /// Events of every person are told.
    default_subjects: &'static str,
    authorization_schemes: [AuthorizationScheme; 1],
}

/// SSF 1.0, section 7.1.1.
#[derive(Serialize, ToSchema)]
pub struct AuthorizationScheme {
    spec_urn: &'static str,
}

/// Where and how security events are to be had.
#[utoipa::path(get, path = "/.well-known/ssf-configuration", responses((status = 200, body = TransmitterConfiguration)))]
pub async fn configuration(State(state): State<AppState>) -> impl IntoResponse {
    let issuer = state.backend.issuer();
    let document = TransmitterConfiguration {
        spec_version: "1_0",
        issuer: issuer.to_owned(),
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        delivery_methods_supported: ["urn:ietf:rfc:8936"],
        default_subjects: "ALL",
        authorization_schemes: [AuthorizationScheme {
            spec_urn: "urn:ietf:rfc:6749",
        }],
    };
    ([(CACHE_CONTROL, "public, max-age=300")], Json(document))
}

/// RFC 8936, section 2.2.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Poll {
    /// Most events to answer with; 0 only acknowledges.
    max_events: Option<usize>,
    /// Do not wait for events if there are none. Usual: wait.
    #[serde(default)]
    return_immediately: bool,
    /// `jti` of events that were taken over.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    ack: HashSet<EventId>,
    /// `jti` of events that the receiver could not use, and why. They are not told again.
    #[serde(default)]
    #[schema(value_type = Object)]
    set_errs: BTreeMap<EventId, Complaint>,
}

/// RFC 8936, section 2.6.
#[derive(Deserialize)]
pub struct Complaint {
    err: String,
    #[serde(default)]
    description: String,
}

/// RFC 8936, section 2.3.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Polled {
    /// Signed events under their `jti`.
    sets: BTreeMap<String, String>,
    /// Ask again at once: there are more.
    more_available: bool,
}

/// Acknowledges security events and fetches those that were not acknowledged yet, each at least once.
///
/// # Errors
/// 400, 401, 403, 503 when too many requests wait, and faults of ours.
#[utoipa::path(post, path = "/oauth/events", request_body = Poll, responses(
    (status = 200, body = Polled), (status = 400), (status = 401), (status = 403), (status = 503)))]
pub async fn poll(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    headers: HeaderMap,
    StrictJson(poll): StrictJson<Poll>,
) -> Result<Response, Refusal> {
    let client = admit_service(&state, &headers, SECURITY_EVENTS, &from).await?.client;
    if poll.ack.len() + poll.set_errs.len() > 4 * MOST_EVENTS {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "too_many_acknowledged",
            "Acknowledge at most 400 events at once.",
        ));
    }
    for (id, complaint) in &poll.set_errs {
        let cut = |text: &str| text.chars().take(MOST_COMPLAINT).collect::<String>();
        let (err, description) = (cut(&complaint.err), cut(&complaint.description));
        tracing::error!(client = %client.id, event = %id, ?err, ?description, "a receiver cannot use a security event");
    }
    let noted: HashSet<EventId> = poll.ack.iter().chain(poll.set_errs.keys()).copied().collect();
    let most = poll.max_events.unwrap_or(MOST_EVENTS);
    let waits = !poll.return_immediately && most > 0;
    let _place = waits.then(|| state.polls.take(&client.id)).transpose()?;
    let mut looks = if waits { MOST_LOOKS } else { 1 };
    let told = loop {
        let told = state.backend.tell_security_events(&client, &noted, most).await?;
        looks -= 1;
        if looks == 0 || !told.sets.is_empty() || told.more || state.draining.has_begun() {
            break told;
        }
        sleep(LOOK).await;
        // Whoever was shut out meanwhile hears nothing more.
        admit_service(&state, &headers, SECURITY_EVENTS, &from).await?;
    };
    let signed = |(id, set): (EventId, secrecy::SecretString)| (id.to_string(), set.expose_secret().to_owned());
    let answer = Polled {
        sets: told.sets.into_iter().map(signed).collect(),
        more_available: told.more,
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}
