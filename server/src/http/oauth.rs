//! The doors for other software (OAuth 2.0): metadata, tokens, revocation, introspection; and who passes a door that
//! only services may.
//!
//! No cookie is ever looked at here, and no answer may be kept. Errors are those of RFC 6749, section 5.2.

mod error;
mod form;
mod introspect;
mod metadata;
mod proof;
mod revoke;
mod service;
mod token;

use axum::Router;
use axum::routing::{get, post};

use super::AppState;
use crate::services::oauth::TOKEN_PATH;

pub use error::OAuthError;
pub use introspect::introspect;
pub use metadata::metadata;
pub use revoke::revoke;
pub use service::admit_service;
pub use token::token;
// The document of the API names them by their place beside the handlers.
#[doc(hidden)]
pub use {introspect::__path_introspect, metadata::__path_metadata, revoke::__path_revoke, token::__path_token};

const REVOKE_PATH: &str = "/oauth/revoke";
const INTROSPECT_PATH: &str = "/oauth/introspect";

/// Routes under `/oauth`, and the metadata.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route(TOKEN_PATH, post(token))
        .route(REVOKE_PATH, post(revoke))
        .route(INTROSPECT_PATH, post(introspect))
}
