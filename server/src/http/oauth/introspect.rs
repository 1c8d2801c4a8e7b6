//! Whether a token is good right now (RFC 7662).

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{OAuthError, never_kept};
use super::form::Form;
use super::proof::{authenticate, client_proof};
use crate::domain::audit::Circumstances;
use crate::domain::jwt::{AccessClaims, ServiceClaims};
use crate::http::AppState;
use crate::http::client::ClientAddress;
use crate::services::oauth::Introspection;

/// Parameters of the introspection endpoint, for the document of the API; read by `Form`.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes what is read by name")]
pub struct IntrospectRequest {
    /// An access token.
    token: String,
    /// Not needed: tokens are told apart by their claims.
    token_type_hint: Option<String>,
}

/// What a service hears: `{"active": false}` and not a word more, or the claims of the token.
#[derive(Serialize)]
#[serde(untagged)]
pub enum IntrospectionResponse {
    /// A person's token; `acr` and `auth_time` are those of RFC 9470, section 6.
    Person {
        /// True.
        active: bool,
        /// `DPoP` with `cnf`: then ask for a proof of that key (RFC 9449, section 6.2). Else `Bearer`.
        token_type: &'static str,
        /// The claims as they stand in the token.
        #[serde(flatten)]
        claims: Box<AccessClaims>,
    },
    /// A service's token, with `scope`.
    Service {
        /// True.
        active: bool,
        /// Always `Bearer`.
        token_type: &'static str,
        /// The claims as they stand in the token.
        #[serde(flatten)]
        claims: Box<ServiceClaims>,
    },
    /// Everything else.
    Inactive {
        /// False.
        active: bool,
    },
}

/// Whether an access token is good right now, its session's or client's state included. For clients that may ask.
/// Nobody may keep the answer: whoever does accepts revoked tokens for as long.
///
/// # Errors
/// 400, 401, 403, 429, and faults of ours.
#[utoipa::path(post, path = "/oauth/introspect",
    request_body(content = IntrospectRequest, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "`active`, and for an active token its claims and `token_type`"),
    (status = 400, body = OAuthError), (status = 401, body = OAuthError),
    (status = 403, body = OAuthError, description = "This client may not ask"),
    (status = 429, body = OAuthError), (status = 503, body = OAuthError)))]
pub async fn introspect(
    State(state): State<AppState>,
    Extension(from): Extension<Circumstances>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, OAuthError> {
    let caller = authenticate(&state, client_proof(&headers, &form)?, &from, address).await?;
    let token = form
        .get("token")
        .ok_or_else(|| OAuthError::invalid_request("The parameter token is missing."))?;
    let (active, token_type) = (true, "Bearer");
    let answer = match state.backend.introspect(&caller, token, &from).await? {
        Introspection::Person(claims) => IntrospectionResponse::Person {
            active,
            token_type: if claims.cnf.is_some() { "DPoP" } else { token_type },
            claims,
        },
        Introspection::Service(claims) => IntrospectionResponse::Service {
            active,
            token_type,
            claims,
        },
        Introspection::Inactive => IntrospectionResponse::Inactive { active: false },
        Introspection::NotAllowed => {
            return Err(OAuthError::new(
                StatusCode::FORBIDDEN,
                "unauthorized_client",
                "This client may not ask about tokens.",
            ));
        }
    };
    let mut response = Json(answer).into_response();
    never_kept(&mut response);
    Ok(response)
}
