//! The JSON doors for signing in, refreshing and signing out.
//!
//! A browser (it sends `Sec-Fetch-Site` or `Origin`) gets its tokens as cookies only; a program gets them in the
//! body (M2).

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tower_sessions::Session as WebSession;
use utoipa::ToSchema;

use super::refusal::{Refusal, StrictJson};
use super::viewer::{BEARER, Channel, Viewer, bad_token, session_over};
use super::{AppState, caller, cookies, dbsc, dpop, is_browser};
use crate::domain::audit::Circumstances;
use crate::domain::session::Client;
use crate::domain::sign_in::{Flow, Step};
use crate::domain::user::canonical;
use crate::http::client::ClientAddress;
use crate::http::limits::LimitKind;
use crate::services::ports::{Deliveries, Delivery, Guess, Throttle, slot};
use crate::services::sessions::Issued;
use crate::services::sign_in::{Caller, CodeOutcome, PasswordOutcome, SignedIn};
use crate::services::tokens::RefreshOutcome;

const LOGIN_PATH: &str = "/auth/login";
const MFA_PATH: &str = "/auth/mfa";
const REFRESH_PATH: &str = "/auth/refresh";

/// Routes under `/auth`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route(LOGIN_PATH, post(login))
        .route(MFA_PATH, post(mfa))
        .route(REFRESH_PATH, post(refresh))
        .route("/auth/logout", post(logout))
}

/// Name and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Sign-in name or e-mail address.
    identifier: String,
    /// Password.
    password: String,
}

/// A second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MfaRequest {
    /// A code of the authenticator app, or a recovery code.
    code: String,
}

/// A program's refresh token; browsers send an empty object and their cookie.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// Refresh token.
    #[serde(default)]
    refresh_token: Option<String>,
}

/// Where a sign-in stands.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum SignInResponse {
    /// Signed in. The tokens are there for programs only; browsers have them in cookies.
    SignedIn {
        /// Session.
        session_id: String,
        /// Tokens, for programs.
        #[serde(skip_serializing_if = "Option::is_none")]
        tokens: Option<TokenResponse>,
    },
    /// Send a code to `/auth/mfa`.
    MfaRequired,
    /// The role requires a second factor and none is set up: sign in on the web page first.
    EnrolmentRequired,
}

/// A pair of tokens (RFC 6749, section 5.1).
#[derive(Serialize, ToSchema)]
pub struct TokenResponse {
    /// Access token.
    access_token: String,
    /// `DPoP` if the session is bound to a key, else `Bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    /// Refresh token.
    refresh_token: String,
}

/// The pair as a program gets it.
pub(super) fn token_response(issued: &Issued, state: &AppState) -> TokenResponse {
    let left = issued.access_expires_at.since(state.backend.now());
    TokenResponse {
        access_token: issued.access.expose_secret().to_owned(),
        token_type: if issued.live.session.jkt.is_some() {
            "DPoP"
        } else {
            "Bearer"
        },
        expires_in: i64::try_from(left.as_secs()).unwrap_or(0),
        refresh_token: issued.refresh.expose_secret().to_owned(),
    }
}

/// Counts a try at this account before it is looked at.
async fn count_try(state: &AppState, guess: Guess, caller: &Caller, account: &str) -> Result<(), Refusal> {
    let known = state.backend.knows_device(caller.device.as_ref(), account).await?;
    Throttle::check(&*state.limits, guess, caller, account, known).map_err(Refusal::too_many)
}

async fn hand_out(
    state: &AppState,
    web: &WebSession,
    caller: &Caller,
    deliveries: &Deliveries,
    signed_in: SignedIn,
) -> Result<Response, Refusal> {
    web.flush().await.map_err(|error| Refusal::fault(&error.into()))?;
    let session_id = signed_in.issued.live.session.id.to_string();
    let tokens = (caller.client == Client::Native).then(|| token_response(&signed_in.issued, state));
    deliveries.push(Delivery::Tokens(signed_in.issued));
    if caller.client == Client::Browser {
        deliveries.push(Delivery::Device(signed_in.device));
    }
    Ok(with_nonce(
        state,
        caller,
        Json(SignInResponse::SignedIn { session_id, tokens }),
    ))
}

/// With what the next proof has to carry, for a program that proves to hold a key.
fn with_nonce(state: &AppState, caller: &Caller, answer: Json<SignInResponse>) -> Response {
    let mut response = answer.into_response();
    if caller.key.is_some() {
        dpop::renew_nonce(state, &mut response);
    }
    response
}

/// Signs in with a password; tells whether a second factor is due. The session of a program that proves to hold a key by
/// the header `DPoP` (RFC 9449) is bound to it: its tokens are worth nothing without further proofs.
///
/// # Errors
/// 401, 429, 503, and faults of ours.
#[utoipa::path(post, path = LOGIN_PATH, request_body = LoginRequest,
    params(("DPoP" = Option<String>, Header, description = "Proof of possession; programs only")), responses(
    (status = 400, description = "`invalid_dpop_proof`, or `use_dpop_nonce` with `DPoP-Nonce`"),
    (status = 200, body = SignInResponse), (status = 401, description = "Wrong name or password"),
    (status = 429, description = "Too many tries"), (status = 503, description = "Busy; see Retry-After")))]
pub async fn login(
    State(state): State<AppState>,
    headers: HeaderMap,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
    Extension(deliveries): Extension<Deliveries>,
    web: WebSession,
    StrictJson(body): StrictJson<LoginRequest>,
) -> Result<Response, Refusal> {
    let mut caller = caller(&headers, from, address);
    let proof = dpop::read_at_sign_in(&state, &headers, LOGIN_PATH, None, &caller).await?;
    let fault = |error| Refusal::fault(&error);
    let account = canonical(&body.identifier);
    count_try(&state, Guess::Password, &caller, &account).await?;
    dpop::bind(&state, proof, &mut caller).await?;
    let outcome = state
        .backend
        .check_password(&body.identifier, &body.password, "/".to_owned(), &caller)
        .await
        .map_err(fault)?;
    match outcome {
        PasswordOutcome::Wrong => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "wrong_credentials",
            "The name or the password is not right.",
        )),
        PasswordOutcome::SignedIn(signed_in) => hand_out(&state, &web, &caller, &deliveries, signed_in).await,
        PasswordOutcome::Continue(flow) => {
            let answer = match flow.step {
                Step::Code { .. } => SignInResponse::MfaRequired,
                Step::Enrol { .. } => SignInResponse::EnrolmentRequired,
            };
            web.cycle_id().await.map_err(|error| fault(error.into()))?;
            web.insert(slot::FLOW, flow)
                .await
                .map_err(|error| fault(error.into()))?;
            Ok(with_nonce(&state, &caller, Json(answer)))
        }
    }
}

/// The second factor of a sign-in in progress (the cookie of `/auth/login` names it). A program that has proved to hold a
/// key there proves the same one here.
///
/// # Errors
/// 401, 429, and faults of ours.
#[utoipa::path(post, path = MFA_PATH, request_body = MfaRequest,
    params(("DPoP" = Option<String>, Header, description = "Proof of possession; programs only")), responses(
    (status = 400, description = "`invalid_dpop_proof`, or `use_dpop_nonce` with `DPoP-Nonce`"),
    (status = 200, body = SignInResponse), (status = 401, description = "Wrong code, or the sign-in is over"),
    (status = 429, description = "Too many tries")))]
pub async fn mfa(
    State(state): State<AppState>,
    headers: HeaderMap,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
    Extension(deliveries): Extension<Deliveries>,
    web: WebSession,
    StrictJson(body): StrictJson<MfaRequest>,
) -> Result<Response, Refusal> {
    let mut caller = caller(&headers, from, address);
    let fault = |error| Refusal::fault(&error);
    let over = || {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "flow_expired",
            "This sign-in is over. Begin again with the password.",
        )
    };
    let flow: Option<Flow> = web.get(slot::FLOW).await.map_err(|error| fault(error.into()))?;
    let flow = flow.filter(|flow| flow.is_open(state.backend.now())).ok_or_else(over)?;
    let proof = dpop::read_at_sign_in(&state, &headers, MFA_PATH, Some(&flow), &caller).await?;
    count_try(&state, Guess::Code, &caller, &flow.user_id.to_string()).await?;
    dpop::bind(&state, proof, &mut caller).await?;
    match state
        .backend
        .check_code(flow, &body.code, &caller)
        .await
        .map_err(fault)?
    {
        CodeOutcome::Wrong(flow) => {
            web.insert(slot::FLOW, flow)
                .await
                .map_err(|error| fault(error.into()))?;
            Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "wrong_code",
                "The code is not right, too old or already used.",
            ))
        }
        CodeOutcome::FlowOver => {
            web.flush().await.map_err(|error| fault(error.into()))?;
            Err(over())
        }
        CodeOutcome::SignedIn(signed_in) => hand_out(&state, &web, &caller, &deliveries, signed_in).await,
    }
}

/// Exchanges the refresh token for the next pair (TOKENS.md §3). The header `mayfly-refresh` names the outcome. A session
/// that is bound to a key is renewed for its holder alone.
///
/// # Errors
/// 400, 401, 409, 429, and faults of ours.
#[utoipa::path(post, path = REFRESH_PATH, request_body = RefreshRequest,
    params(("DPoP" = Option<String>, Header, description = "Proof of possession; programs only")), responses(
    (status = 200, body = TokenResponse, description = "Programs get the body; browsers an empty object and cookies"),
    (status = 400, description = "Not a refresh token of this server: `invalid_grant`; or `invalid_dpop_proof`, or \
        `use_dpop_nonce` with `DPoP-Nonce`"),
    (status = 401, description = "The session is over; says why. Or `other_browser`"),
    (status = 409, description = "A fresh pair is already there, or another tab won: look again")))]
pub async fn refresh(
    State(state): State<AppState>,
    headers: HeaderMap,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
    Extension(deliveries): Extension<Deliveries>,
    StrictJson(body): StrictJson<RefreshRequest>,
) -> Result<Response, Refusal> {
    state
        .limits
        .check(LimitKind::Refresh, address.0, None, false)
        .map_err(|wait| Refusal::too_many(wait.seconds))?;
    let browser = is_browser(&headers);
    let cookie = cookies::read(&headers, cookies::REFRESH).map(str::to_owned);
    let token = if browser { cookie } else { body.refresh_token };
    let invalid_grant = || {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid_grant",
            "Not a refresh token of this server.",
        )
    };
    let token = token.ok_or_else(invalid_grant)?;
    // A program's refresh shows that it is in use; a browser's may be background traffic (M20).
    let outcome = if browser {
        let bound_cookie = cookies::read(&headers, cookies::BOUND);
        let refresh = state.backend.refresh_in_browser(&token, bound_cookie, false, &from);
        refresh.await?
    } else {
        dpop::refresh(&state, &headers, REFRESH_PATH, &token, &from).await?
    };
    // Committed, and nobody has been told.
    fail::fail_point!("refresh::before_reply", |_| Err(Refusal::fault(
        &crate::services::ServiceError::Busy
    )));
    let name = outcome.name();
    let named = |problem: Refusal| problem.with_header("mayfly-refresh", name);
    match outcome {
        RefreshOutcome::Rotated(issued) | RefreshOutcome::Reissued(issued) => {
            let bound = issued.live.session.jkt.is_some();
            let body = if browser {
                Json(serde_json::json!({})).into_response()
            } else {
                Json(token_response(&issued, &state)).into_response()
            };
            deliveries.push(Delivery::Tokens(issued));
            let mut response = ([("mayfly-refresh", name)], body).into_response();
            if bound {
                dpop::renew_nonce(&state, &mut response);
            }
            Ok(response)
        }
        RefreshOutcome::Fresh(_) => Err(named(Refusal::new(
            StatusCode::CONFLICT,
            "fresh",
            "This client already holds a fresh pair of tokens.",
        ))),
        RefreshOutcome::Superseded(_) => Err(named(Refusal::new(
            StatusCode::CONFLICT,
            "superseded",
            "Another request refreshed first. Use the newer token.",
        ))),
        RefreshOutcome::Malformed | RefreshOutcome::Forged => Err(named(invalid_grant())),
        RefreshOutcome::Unproven(unproven) => {
            let refused = dpop::refuse(&state, unproven, &from, Some(address)).await;
            Err(named(refused.into()))
        }
        RefreshOutcome::OtherBrowser(other) => {
            dbsc::note(&state, &other, &from, Some(address)).await;
            Err(named(dbsc::refuse(&headers)))
        }
        RefreshOutcome::Over(ending) | RefreshOutcome::Reused(ending) | RefreshOutcome::Ahead(ending) => {
            Err(named(session_over(&ending, BEARER)))
        }
    }
}

/// Ends this session. Signing out twice is no error in a browser. A program is told if its access token is no longer good:
/// nothing has ended then, and it refreshes first, or revokes its refresh token.
///
/// # Errors
/// 401, and faults of ours.
#[utoipa::path(post, path = "/auth/logout", responses((status = 204), (status = 401)))]
pub async fn logout(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    Extension(channel): Extension<Channel>,
    Extension(Viewer(live)): Extension<Viewer>,
    deliveries: Option<Extension<Deliveries>>,
    web: WebSession,
) -> Result<StatusCode, Refusal> {
    let fault = |error| Refusal::fault(&error);
    if let Some(live) = live {
        state.backend.sign_out(&live.session, &from).await.map_err(fault)?;
    } else if channel == Channel::Bearer {
        return Err(bad_token().with_header("www-authenticate", BEARER));
    }
    web.flush().await.map_err(|error| fault(error.into()))?;
    if let Some(Extension(deliveries)) = deliveries {
        deliveries.push(Delivery::SignedOut);
    }
    Ok(StatusCode::NO_CONTENT)
}
