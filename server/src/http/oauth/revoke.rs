//! Giving a token back (RFC 7009).

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::{OAuthError, never_kept};
use super::form::Form;
use super::proof::{authenticate, client_proof};
use crate::domain::audit::Circumstances;
use crate::http::AppState;
use crate::http::client::ClientAddress;
use crate::http::limits::LimitKind;
use crate::services::oauth::RevokeOutcome;

/// Parameters of the revocation endpoint, for the document of the API; read by `Form`.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what is read by name")]
pub struct RevokeRequest {
    /// A refresh token of any generation, or an access token.
    token: String,
    /// Not needed: tokens are told apart by their form.
    token_type_hint: Option<String>,
}

/// Ends the session that a refresh token of any generation or a person's access token belongs to. Holding it is
/// enough; a client may prove itself, and is refused if it cannot. Tokens that are unknown, malformed or over are no
/// error. Of a service's tokens the one that is given back is refused from then on.
///
/// # Errors
/// 400, 401, 429, and faults of ours.
#[utoipa::path(post, path = "/oauth/revoke",
    request_body(content = RevokeRequest, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "Nothing of it is good any more"),
    (status = 400, body = OAuthError),
    (status = 401, body = OAuthError), (status = 429, body = OAuthError), (status = 503, body = OAuthError)))]
pub async fn revoke(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, OAuthError> {
    let by = match client_proof(&headers, &form)? {
        None => {
            state
                .limits
                .check(LimitKind::Refresh, address.0, None, false)
                .map_err(OAuthError::too_many)?;
            None
        }
        proof => Some(authenticate(&state, proof, &from, address).await?),
    };
    let token = form
        .get("token")
        .ok_or_else(|| OAuthError::invalid_request("The parameter token is missing."))?;
    match state.backend.revoke_token(token, by.as_ref(), &from).await? {
        RevokeOutcome::Ended | RevokeOutcome::NothingToEnd => {
            let mut response = StatusCode::OK.into_response();
            never_kept(&mut response);
            Ok(response)
        }
    }
}
