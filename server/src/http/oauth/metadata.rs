//! What this server can do for other software (RFC 8414): nothing is listed that is not so.

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::proof::METHODS;
use super::{INTROSPECT_PATH, REVOKE_PATH};
use crate::domain::client::OWN_SCOPES;
use crate::domain::dpop;
use crate::http::AppState;
use crate::services::oauth::TOKEN_PATH;

/// Programs of people, and whoever gives a token back, prove nothing but that they hold it.
const WITH_NONE: [&str; 4] = [METHODS[0], METHODS[1], METHODS[2], "none"];
/// Ed25519 has two names (RFC 8037 and RFC 9864).
const ALGORITHMS: [&str; 3] = ["ES256", "EdDSA", "Ed25519"];

/// RFC 8414, section 2. There is no authorization endpoint: nobody signs in to other software through us.
#[derive(Serialize, ToSchema)]
pub struct Metadata {
    /// Exactly the `iss` of every token.
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    /// Scopes that doors of this server ask for; other words are for other services to understand.
    scopes_supported: [&'static str; 2],
    /// None.
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: [&'static str; 4],
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 3],
    revocation_endpoint_auth_methods_supported: [&'static str; 4],
    revocation_endpoint_auth_signing_alg_values_supported: [&'static str; 3],
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    introspection_endpoint_auth_signing_alg_values_supported: [&'static str; 3],
    /// RFC 9449, section 5.1.
    dpop_signing_alg_values_supported: [&'static str; 3],
    /// OpenID Connect Back-Channel Logout 1.0, section 2.1.
    backchannel_logout_supported: bool,
    /// Each logout token names its session.
    backchannel_logout_session_supported: bool,
}

/// What this server can do for other software (RFC 8414).
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", responses((status = 200, body = Metadata)))]
pub async fn metadata(State(state): State<AppState>) -> impl IntoResponse {
    let issuer = state.backend.issuer();
    let at = |path: &str| format!("{issuer}{path}");
    let document = Metadata {
        issuer: issuer.to_owned(),
        token_endpoint: at(TOKEN_PATH),
        jwks_uri: at("/.well-known/jwks.json"),
        revocation_endpoint: at(REVOKE_PATH),
        introspection_endpoint: at(INTROSPECT_PATH),
        scopes_supported: OWN_SCOPES,
        response_types_supported: [],
        grant_types_supported: ["client_credentials", "refresh_token"],
        token_endpoint_auth_methods_supported: WITH_NONE,
        token_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
        revocation_endpoint_auth_methods_supported: WITH_NONE,
        revocation_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
        introspection_endpoint_auth_methods_supported: METHODS,
        introspection_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
        dpop_signing_alg_values_supported: dpop::ALGORITHMS,
        backchannel_logout_supported: true,
        backchannel_logout_session_supported: true,
    };
    ([(CACHE_CONTROL, "public, max-age=300")], Json(document))
}
