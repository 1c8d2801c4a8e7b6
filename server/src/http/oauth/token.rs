//! The token endpoint: a service's token for a client that proves itself, the next pair for a native program.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{OAuthError, never_kept};
use super::form::Form;
use super::proof::{authenticate, client_proof, refuse};
use crate::domain::audit::Circumstances;
use crate::domain::client::{ClientId, Scopes};
use crate::domain::refresh::FRESH;
use crate::domain::session::EndReason;
use crate::http::AppState;
use crate::http::auth::token_response;
use crate::http::client::ClientAddress;
use crate::http::dpop;
use crate::http::limits::LimitKind;
use crate::services::oauth::{ClientProof, IssueOutcome, TOKEN_PATH};
use crate::services::tokens::RefreshOutcome;

/// `client_id` of people's native programs, as it stands in their tokens. It is public and proves nothing.
const NATIVE: &str = "mayfly-native";
const MAYFLY_REFRESH: HeaderName = HeaderName::from_static("mayfly-refresh");

/// Parameters of the token endpoint, for the document of the API; read by `Form`.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what is read by name")]
pub struct TokenRequest {
    /// `client_credentials` or `refresh_token`.
    grant_type: String,
    /// For services: words with a space between them; none for all that the client may have.
    scope: Option<String>,
    /// For native programs.
    refresh_token: Option<String>,
    /// With a secret in the form, or `mayfly-native`.
    client_id: Option<String>,
    /// A client's secret, if it does not come as `Authorization: Basic`.
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`.
    client_assertion_type: Option<String>,
    /// A JWT signed by the client (RFC 7523).
    client_assertion: Option<String>,
}

/// A service's token (RFC 6749, section 4.4.3). There is no refresh token.
#[derive(Serialize, ToSchema)]
pub struct ServiceTokenResponse {
    /// Access token.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// What it is for.
    scope: String,
}

/// Tokens for programs. `client_credentials` gives a client of ours a token in its own name. `refresh_token` gives a
/// native program the next pair (TOKENS.md §3), as `/auth/refresh` does; the header `mayfly-refresh` names the outcome.
///
/// Two outcomes are no error of RFC 6749, and no reason to sign anybody out: `fresh` (this client holds a fresh pair
/// already; the same token is good again after `Retry-After`) and `superseded` (another thread or process of the client
/// refreshed first: use its newer token, and never try this one again). Both are 409, so that no library takes them
/// for `invalid_grant`.
///
/// A session that is bound to a key is renewed for its holder alone: the header `DPoP` has to prove it (RFC 9449).
///
/// # Errors
/// 400, 401, 409, 429, and faults of ours.
#[utoipa::path(post, path = "/oauth/token",
    params(("DPoP" = Option<String>, Header, description = "Proof of possession, for `refresh_token`")),
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, body = ServiceTokenResponse, description = "`refresh_token` gets the body of `/auth/refresh`"),
    (status = 400, body = OAuthError, description = "`invalid_dpop_proof`; `use_dpop_nonce` with `DPoP-Nonce`; …"),
    (status = 401, body = OAuthError, description = "`invalid_client`"),
    (status = 409, body = OAuthError, description = "`fresh` or `superseded`: look at the newer pair"),
    (status = 429, body = OAuthError), (status = 503, body = OAuthError)))]
pub async fn token(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, OAuthError> {
    let proof = client_proof(&headers, &form)?;
    let mut response = match form.get("grant_type") {
        Some("client_credentials") => client_credentials(&state, &headers, proof, &form, &from, address).await?,
        Some("refresh_token") => refresh_token(&state, &headers, proof, &form, &from, address).await?,
        Some(_) => {
            return Err(OAuthError::new(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "Only client_credentials and refresh_token are offered.",
            ));
        }
        None => return Err(OAuthError::invalid_request("The parameter grant_type is missing.")),
    };
    never_kept(&mut response);
    Ok(response)
}

async fn client_credentials(
    state: &AppState,
    headers: &HeaderMap,
    proof: Option<ClientProof>,
    form: &Form,
    from: &Circumstances,
    address: ClientAddress,
) -> Result<Response, OAuthError> {
    let Some(proof) = proof else {
        return Err(OAuthError::invalid_client("This needs a client that proves itself."));
    };
    if dpop::is_shown(headers) {
        // Better no token than one that is not what was asked for.
        return Err(OAuthError::invalid_request(
            "Tokens of services are bound to no key: leave DPoP out.",
        ));
    }
    let requested = form
        .get("scope")
        .map(|text| Scopes::parse(text).map_err(|_| OAuthError::invalid_scope("The scope cannot be read.")))
        .transpose()?;
    let may_ask = |client: &ClientId| {
        let limits = &state.limits;
        limits.check_account_at_address(LimitKind::Client, address.0, client.as_str())
    };
    let issued = state
        .backend
        .issue_service_token(&proof, requested.as_ref(), from, may_ask)
        .await?;
    match issued.map_err(OAuthError::too_many)? {
        IssueOutcome::Issued(issued) => Ok(Json(ServiceTokenResponse {
            access_token: issued.access.expose_secret().to_owned(),
            token_type: "Bearer",
            expires_in: issued.expires_at.since(state.backend.now()).as_secs(),
            scope: issued.scopes.to_string(),
        })
        .into_response()),
        IssueOutcome::NotAuthenticated(refused) => Err(refuse(state, &refused, from, address).await?),
        IssueOutcome::ScopeRefused => Err(OAuthError::invalid_scope("This client may not have that scope.")),
    }
}

async fn refresh_token(
    state: &AppState,
    headers: &HeaderMap,
    proof: Option<ClientProof>,
    form: &Form,
    from: &Circumstances,
    address: ClientAddress,
) -> Result<Response, OAuthError> {
    if proof.is_some() {
        authenticate(state, proof, from, address).await?;
        return Err(OAuthError::new(
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            "Services have no refresh tokens.",
        ));
    }
    if form.get("client_id").is_some_and(|client| client != NATIVE) {
        return Err(OAuthError::invalid_client("Refresh tokens belong to mayfly-native."));
    }
    if form.get("scope").is_some() {
        return Err(OAuthError::invalid_scope("Tokens of people have roles and no scope."));
    }
    let token = form
        .get("refresh_token")
        .ok_or_else(|| OAuthError::invalid_request("The parameter refresh_token is missing."))?;
    state
        .limits
        .check(LimitKind::Refresh, address.0, None, false)
        .map_err(OAuthError::too_many)?;
    let outcome = dpop::refresh(state, headers, TOKEN_PATH, token, from).await?;
    let name = HeaderValue::from_static(outcome.name());
    let refused = match outcome {
        RefreshOutcome::Rotated(issued) | RefreshOutcome::Reissued(issued) => {
            let mut response = ([(MAYFLY_REFRESH, name)], Json(token_response(&issued, state))).into_response();
            if issued.live.session.jkt.is_some() {
                dpop::renew_nonce(state, &mut response);
            }
            return Ok(response);
        }
        RefreshOutcome::Unproven(unproven) => dpop::refuse(state, unproven, from, Some(address)).await.into(),
        RefreshOutcome::Fresh(live) => {
            let age = state.backend.now().since(live.session.handed_out_at);
            let left = FRESH.saturating_sub(age).as_millis().div_ceil(1000).max(1);
            OAuthError::new(
                StatusCode::CONFLICT,
                "fresh",
                "This client already holds a fresh pair of tokens.",
            )
            .retry_after(u32::try_from(left).unwrap_or(u32::MAX))
        }
        RefreshOutcome::Superseded(_) => OAuthError::new(
            StatusCode::CONFLICT,
            "superseded",
            "Another request refreshed first. Use the newer token.",
        ),
        // A browser's is none of this door's.
        RefreshOutcome::Malformed | RefreshOutcome::Forged | RefreshOutcome::OtherBrowser(_) => {
            OAuthError::invalid_grant("Not a refresh token of this server for this client.")
        }
        RefreshOutcome::Over(ending) | RefreshOutcome::Reused(ending) | RefreshOutcome::Ahead(ending) => {
            OAuthError::invalid_grant(over(ending.reason))
        }
    };
    Err(refused.with_header(MAYFLY_REFRESH, name))
}

/// Why a session is over, in the letters that the standard allows.
const fn over(reason: EndReason) -> &'static str {
    match reason {
        EndReason::SignedOut => "The session is over: signed out.",
        EndReason::EndedByUser => "The session is over: ended from another device.",
        EndReason::EndedByAdmin => "The session is over: ended by an administrator.",
        EndReason::Idle => "The session is over: not used for too long.",
        EndReason::Expired => "The session is over: its time was up.",
        EndReason::PasswordChanged => "The session is over: the password was changed.",
        EndReason::FactorChanged => "The session is over: a second factor was changed.",
        EndReason::UserDisabled => "The session is over: the account was disabled.",
        EndReason::TokenReused => "The session is over: a used refresh token came back.",
        EndReason::DatabaseRolledBack => "The session is over: the database is older than the token.",
        EndReason::Replaced => "The session is over: a newer one took its place.",
        EndReason::TooManySessions => "The session is over: there were too many at once.",
        EndReason::FactorRequired => "The session is over: a second factor is required now.",
    }
}
