//! Device bound session credentials at the edge (W3C working draft): the offer after sign-in, the two doors that browsers
//! go to by themselves, and the answers to who is not the browser that a session is bound to.
//!
//! Browsers send bare requests here, on no page's behalf; what they signed is all that counts. Of the answers they know the
//! status: 403 with a challenge means sign again, any other 4xx that the session is not bound (any more), 5xx come back.

use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use uuid::Uuid;

use super::AppState;
use super::client::ClientAddress;
use super::cookies;
use super::limits::LimitKind;
use super::refusal::Refusal as Problem;
use super::viewer::BEARER;
use crate::domain::audit::Circumstances;
use crate::domain::dbsc::{BoundCookie, Refusal};
use crate::domain::id::SessionId;
use crate::domain::session::Session;
use crate::services::dbsc::{NotRenewed, OtherBrowser};

/// Where browsers register a new key.
pub const REGISTER_PATH: &str = "/auth/binding";
/// Where browsers sign for their next cookie.
pub const RENEW_PATH: &str = "/auth/binding/renew";

const REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
const CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
const SESSION_ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");

/// The two doors.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route(REGISTER_PATH, post(register))
        .route(RENEW_PATH, post(renew))
}

/// Asks a browser that gets its first tokens of a session to bind it to a key. Browsers that cannot do not know the header.
pub fn offer(state: &AppState, session: &Session, response: &mut Response) {
    if let Some(challenge) = state.backend.offer_binding(session) {
        let offer = format!("(ES256);path=\"{REGISTER_PATH}\";challenge=\"{challenge}\"");
        insert(response, REGISTRATION, &offer);
    }
}

/// The browser says that it could not sign in time: it may come again.
#[must_use]
pub fn was_skipped(headers: &HeaderMap) -> bool {
    headers.contains_key(SKIPPED)
}

/// The answer to a script, or a program: 503 if the browser could not sign in time, else 401.
#[must_use]
pub fn refuse(headers: &HeaderMap) -> Problem {
    if was_skipped(headers) {
        super::error::Problem::unavailable().into()
    } else {
        other_browser()
    }
}

/// Writes down that a session was used in another browser, unless this network has had its refusals written down often
/// enough for now.
pub async fn note(state: &AppState, other: &OtherBrowser, from: &Circumstances, address: Option<ClientAddress>) {
    if !address.is_none_or(|ClientAddress(address)| state.limits.may_note_refusal(address)) {
        return;
    }
    // A refusal stays one even if it cannot be written down.
    if let Err(error) = state.backend.record_other_browser(other, from).await {
        tracing::error!(%error, refusal = %other.refusal, "a refusal could not be written down");
    }
}

/// 401 where a program, or a script of a page, is told.
#[must_use]
pub fn other_browser() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "other_browser",
        "This session is bound to the browser that it began in, and the request did not come from there.",
    )
    .with_header("www-authenticate", BEARER)
}

/// A browser with a new key, right after sign-in.
///
/// # Errors
/// 400, 429, and faults of ours. The session goes on as it is.
#[utoipa::path(post, path = REGISTER_PATH, params(
    ("Secure-Session-Response" = String, Header, description = "JWT signed with the browser's new key")),
    responses((status = 200, description = "Session instructions, and the bound cookie"),
    (status = 400, description = "`invalid_browser_proof`: the session goes on as it is"),
    (status = 429, description = "Too many tries")))]
pub async fn register(
    State(state): State<AppState>,
    headers: HeaderMap,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
) -> Result<Response, Problem> {
    let token = cookies::read(&headers, cookies::REFRESH).unwrap_or_default();
    let session = state.backend.session_of(token).ok_or_else(not_good)?;
    count(&state, address, session)?;
    let bound = match proof(&headers) {
        Some(proof) => state.backend.bind_browser(token, proof, &from).await?,
        None => Err(Refusal::ProofMissing),
    };
    match bound {
        Ok(cookie) => instruct(&state, &cookie),
        Err(refusal) => {
            tracing::info!(%refusal, "a session was not bound to its browser");
            Err(not_good())
        }
    }
}

/// A browser that needs its next cookie. It names the session, signs a challenge, and is told one if it has none.
///
/// # Errors
/// 400, 401, 403, and faults of ours.
#[utoipa::path(post, path = RENEW_PATH, params(
    ("Sec-Secure-Session-Id" = String, Header, description = "`sid`"),
    ("Secure-Session-Response" = Option<String>, Header, description = "JWT signed with the browser's key")),
    responses((status = 200, description = "Session instructions, and the bound cookie"),
    (status = 400, description = "No session is named"),
    (status = 401, description = "`other_browser`, or the session is over"),
    (status = 403, description = "`browser_challenge`: sign the one in `Secure-Session-Challenge`"),
    (status = 503, description = "Not now; also for too many tries")))]
pub async fn renew(
    State(state): State<AppState>,
    headers: HeaderMap,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
) -> Result<Response, Problem> {
    let session = one(&headers, &SESSION_ID).map(unquoted);
    let session = session.and_then(|id| Uuid::try_parse(id).ok()).map(SessionId);
    let session = session.ok_or_else(super::error::Problem::bad_request)?;
    let signed_in_with = cookies::read(&headers, cookies::REFRESH).and_then(|token| state.backend.session_of(token));
    if signed_in_with.is_some_and(|other| other != session) {
        // It is signed in with another by now, whose cookie has the same name: this key is to be forgotten.
        return Err(other_browser());
    }
    let Some(proof) = proof(&headers) else {
        return Ok(challenged(&state, session));
    };
    // Not 429: Chromium 156 takes it for the end of the bond.
    count(&state, address, session).map_err(|_| super::error::Problem::unavailable())?;
    match state.backend.renew_bound_cookie(session, proof).await? {
        Ok(cookie) => instruct(&state, &cookie),
        Err(NotRenewed::Again) => Ok(challenged(&state, session)),
        Err(NotRenewed::Unbound) => Err(other_browser()),
        Err(NotRenewed::Other(other)) => {
            note(&state, &other, &from, Some(address)).await;
            Err(other_browser())
        }
    }
}

/// By session: who shares an address with a browser, or has other pages of it send requests, keeps nobody from signing.
fn count(state: &AppState, ClientAddress(address): ClientAddress, session: SessionId) -> Result<(), Problem> {
    let session = session.to_string();
    let checked = state
        .limits
        .check_account_at_address(LimitKind::Refresh, address, &session);
    checked.map_err(|wait| Problem::too_many(wait.seconds))
}

fn not_good() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "invalid_browser_proof",
        "The session was not bound to this browser.",
    )
}

/// What the browser signed; none without the header, or with two.
fn proof(headers: &HeaderMap) -> Option<&str> {
    one(headers, &RESPONSE).map(unquoted)
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Browsers send the text bare, the draft has it as a string of RFC 9651.
fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}

/// 403 is what has a browser sign again.
fn challenged(state: &AppState, session: SessionId) -> Response {
    let problem = Problem::new(
        StatusCode::FORBIDDEN,
        "browser_challenge",
        "Sign the challenge in Secure-Session-Challenge.",
    );
    let mut response = problem.into_response();
    challenge(&mut response, session, &state.backend.renewal_challenge(session));
    response
}

fn challenge(response: &mut Response, session: SessionId, challenge: &str) {
    insert(response, CHALLENGE, &format!("\"{challenge}\";id=\"{session}\""));
}

/// What a browser keeps about the session, with the cookie.
fn instruct(state: &AppState, cookie: &BoundCookie) -> Result<Response, Problem> {
    let set = cookies::bound_cookie(&cookie.value, cookie.lifetime).map_err(|error| {
        tracing::error!(%error, "a cookie could not be written");
        super::error::Problem::internal()
    })?;
    let instructions = json!({
        "session_identifier": cookie.session.to_string(),
        "refresh_url": RENEW_PATH,
        "scope": { "origin": state.backend.issuer(), "include_site": false, "scope_specification": [] },
        "credentials": [{ "type": "cookie", "name": cookies::BOUND, "attributes": cookies::BOUND_ATTRIBUTES }],
    });
    let mut response = ([(CACHE_CONTROL, "no-store")], Json(instructions)).into_response();
    response.headers_mut().append(SET_COOKIE, set);
    challenge(&mut response, cookie.session, &cookie.challenge);
    Ok(response)
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    // Letters of base64url and our own words only.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
