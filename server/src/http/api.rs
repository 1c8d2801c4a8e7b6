//! The JSON API for a person's own sessions, the key set, and the OpenAPI document made from the code.

use axum::extract::{Extension, Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Serialize;
use tower_sessions::Session as WebSession;
use utoipa::{OpenApi, ToSchema};

use super::refusal::Refusal;
use super::viewer::{Channel, Viewer};
use super::{AppState, auth, oauth, protect};
use crate::domain::audit::Circumstances;
use crate::domain::device::{coarse_network, describe};
use crate::domain::id::{SessionId, UserId};
use crate::domain::keys::lifecycle::JWKS_CACHE;
use crate::domain::policy::Mfa;
use crate::domain::session::{Session, acr};
use crate::services::account::EndOutcome;
use crate::services::ports::{Deliveries, Delivery};
use crate::services::sessions::Live;

/// Routes that only read: they need the viewer and nothing of the flow.
pub fn reads() -> Router<AppState> {
    Router::new()
        .route("/api/v1/me", get(me))
        .route("/api/v1/me/sessions", get(list_sessions))
}

/// Routes that change something: a browser has to bring the form token, which stands in the flow.
pub fn changes() -> Router<AppState> {
    Router::new()
        .route("/api/v1/me/sessions", delete(end_other_sessions))
        .route("/api/v1/me/sessions/{id}", delete(end_session))
}

/// Routes that need no viewer.
pub fn public_routes() -> Router<AppState> {
    Router::new()
        .route("/.well-known/jwks.json", get(jwks))
        .route("/api/openapi.json", get(openapi))
}

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Mayfly", description = "Sign-in and session server"),
    paths(
        auth::login,
        auth::mfa,
        auth::refresh,
        auth::logout,
        super::dbsc::register,
        super::dbsc::renew,
        me,
        list_sessions,
        end_session,
        end_other_sessions,
        jwks,
        super::feed::revocations,
        super::feed::stream,
        super::events::configuration,
        super::events::poll,
        oauth::metadata,
        oauth::token,
        oauth::revoke,
        oauth::introspect,
        super::health::healthz,
        super::health::readyz
    )
)]
struct Document;

/// The caller.
#[derive(Serialize, ToSchema)]
pub struct MeResponse<'a> {
    /// `sub` of the tokens.
    #[schema(value_type = String)]
    id: UserId,
    username: &'a str,
    display_name: &'a str,
    roles: &'a [String],
    /// The session that asks.
    #[schema(value_type = String)]
    session_id: SessionId,
    /// Authentication context class of that session.
    acr: &'static str,
    /// When the last factor was shown, Unix milliseconds.
    authenticated_at: i64,
}

/// A living session of the caller.
#[derive(Serialize, ToSchema)]
pub struct SessionResponse {
    id: String,
    /// It is the one that asks.
    current: bool,
    /// Browser and system in words.
    device: String,
    /// Coarse network in words.
    network: String,
    /// Unix milliseconds.
    started_at: i64,
    /// Unix milliseconds.
    last_active_at: i64,
    /// Unix milliseconds.
    idle_expires_at: i64,
    /// Unix milliseconds.
    absolute_expires_at: i64,
    /// Authentication context class.
    acr: &'static str,
    /// Methods of RFC 8176.
    amr: Vec<String>,
    /// Its tokens are worth nothing without the key of its program (RFC 9449) or of its browser.
    bound_to_key: bool,
}

/// How many sessions ended.
#[derive(Serialize, ToSchema)]
pub struct EndedResponse {
    ended: u32,
}

fn response(session: &Session, current: SessionId, asks_browsers: bool) -> SessionResponse {
    SessionResponse {
        id: session.id.to_string(),
        current: session.id == current,
        device: describe(&session.user_agent).to_string(),
        network: session
            .address
            .parse()
            .map_or_else(|_| "unknown network".to_owned(), coarse_network),
        started_at: session.started_at.as_millis(),
        last_active_at: session.last_active_at.as_millis(),
        idle_expires_at: session.idle_expires_at().as_millis(),
        absolute_expires_at: session.absolute_expires_at.as_millis(),
        acr: acr(&session.amr),
        amr: session.amr.split(' ').map(str::to_owned).collect(),
        bound_to_key: session.is_bound(asks_browsers),
    }
}

fn signed_in(viewer: &Viewer) -> Result<&Live, Refusal> {
    viewer.0.as_deref().ok_or_else(|| {
        Refusal::new(StatusCode::UNAUTHORIZED, "not_signed_in", "Sign in first.")
            .with_header("www-authenticate", "Bearer")
    })
}

/// RFC 9470, section 3: how strongly, in descending preference, and how recently a factor must have been shown.
fn step_up(live: &Live) -> Refusal {
    let lifetimes = &live.limits.lifetimes;
    let age = lifetimes.step_up.as_secs();
    let classes = if lifetimes.mfa == Mfa::Required {
        "aal2"
    } else {
        "aal2 aal1"
    };
    let scheme = if live.session.jkt.is_some() { "DPoP" } else { "Bearer" };
    let challenge = format!(
        "{scheme} error=\"insufficient_user_authentication\", \
         error_description=\"The last factor was shown too long ago.\", acr_values=\"{classes}\", max_age={age}"
    );
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "insufficient_user_authentication",
        "Show a factor again first.",
    )
    .with_header("www-authenticate", &challenge)
}

/// Cookies alone do not carry an unsafe request: the page's form token has to come along (C8).
async fn require_form_token(channel: Channel, web: &WebSession, headers: &HeaderMap) -> Result<(), Refusal> {
    if channel == Channel::Bearer || protect::header_form_token_matches(headers, web).await? {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "form_token",
        "The header x-form-token is missing or wrong.",
    ))
}

/// Who is asking, by this session: the cheapest way to learn whether a token is still good.
///
/// # Errors
/// 401, and faults of ours.
#[utoipa::path(get, path = "/api/v1/me", params(
    ("DPoP" = Option<String>, Header, description = "Proof of possession, with `Authorization: DPoP …`")), responses((status = 200, body = MeResponse), (status = 401)))]
pub async fn me(Extension(viewer): Extension<Viewer>) -> Result<Response, Refusal> {
    let Live { session, user, .. } = signed_in(&viewer)?;
    Ok(Json(MeResponse {
        id: user.id,
        username: &user.username,
        display_name: &user.display_name,
        roles: &user.roles,
        session_id: session.id,
        acr: acr(&session.amr),
        authenticated_at: session.authenticated_at.as_millis(),
    })
    .into_response())
}

/// The caller's living sessions, the current one first.
///
/// # Errors
/// 401, and faults of ours.
#[utoipa::path(get, path = "/api/v1/me/sessions", responses((status = 200, body = [SessionResponse]), (status = 401)))]
pub async fn list_sessions(
    State(state): State<AppState>,
    Extension(viewer): Extension<Viewer>,
) -> Result<Json<Vec<SessionResponse>>, Refusal> {
    let live = signed_in(&viewer)?;
    let (living, _) = state
        .backend
        .list_sessions(live)
        .await
        .map_err(|error| Refusal::fault(&error))?;
    Ok(Json(
        living
            .iter()
            .map(|session| response(session, live.session.id, state.backend.binds_browsers()))
            .collect(),
    ))
}

/// Ends one of the caller's sessions. A foreign id is as unknown as one that never was.
///
/// # Errors
/// 401, 403, 404, and faults of ours.
#[utoipa::path(delete, path = "/api/v1/me/sessions/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = EndedResponse), (status = 401), (status = 404)))]
#[expect(
    clippy::too_many_arguments,
    reason = "axum hands each part of the request over by itself"
)]
pub async fn end_session(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    Extension(viewer): Extension<Viewer>,
    Extension(channel): Extension<Channel>,
    Extension(deliveries): Extension<Deliveries>,
    web: WebSession,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<EndedResponse>, Refusal> {
    let live = signed_in(&viewer)?;
    require_form_token(channel, &web, &headers).await?;
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, "not_found", "No such session.");
    let target: SessionId = id.parse().map_err(|_| not_found())?;
    let outcome = state.backend.end_own_session(live, target, &from).await;
    match outcome.map_err(|error| Refusal::fault(&error))? {
        EndOutcome::Ended(ended) => {
            if target == live.session.id {
                deliveries.push(Delivery::SignedOut);
            }
            Ok(Json(EndedResponse { ended }))
        }
        EndOutcome::NotFound => Err(not_found()),
        EndOutcome::StepUpRequired => Err(step_up(live)),
    }
}

/// Ends all of the caller's sessions but this one.
///
/// # Errors
/// 401, 403, and faults of ours.
#[utoipa::path(delete, path = "/api/v1/me/sessions", responses((status = 200, body = EndedResponse), (status = 401)))]
pub async fn end_other_sessions(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    Extension(viewer): Extension<Viewer>,
    Extension(channel): Extension<Channel>,
    web: WebSession,
    headers: HeaderMap,
) -> Result<Json<EndedResponse>, Refusal> {
    let live = signed_in(&viewer)?;
    require_form_token(channel, &web, &headers).await?;
    let outcome = state.backend.end_other_sessions(live, &from).await;
    match outcome.map_err(|error| Refusal::fault(&error))? {
        EndOutcome::Ended(ended) => Ok(Json(EndedResponse { ended })),
        EndOutcome::NotFound | EndOutcome::StepUpRequired => Err(step_up(live)),
    }
}

/// The public signing keys (RFC 7517).
///
/// # Errors
/// 503 when the database has been away for longer than others keep their copy.
#[utoipa::path(get, path = "/.well-known/jwks.json", responses((status = 200, description = "JWK set"), (status = 503)))]
pub async fn jwks(State(state): State<AppState>) -> Result<impl IntoResponse, Refusal> {
    let keys = state
        .backend
        .published_keys()
        .await
        .map_err(|error| Refusal::fault(&error))?;
    let cache = format!("public, max-age={}", JWKS_CACHE.as_secs());
    Ok(([(CACHE_CONTROL, cache)], Json(keys.jwks())))
}

async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
