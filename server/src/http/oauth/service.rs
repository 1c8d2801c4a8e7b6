//! Doors of ours that only services with a scope may pass (RFC 6750).

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use crate::domain::audit::Circumstances;
use crate::http::AppState;
use crate::http::refusal::Refusal;
use crate::http::viewer::BEARER;
use crate::services::oauth::{Admitted, ServiceOutcome};

/// The client whose token the request carries in `Authorization: Bearer`, if the token is for this scope.
///
/// # Errors
/// 401 without a token or with one that is not a service's, 403 with one for something else, and faults of ours.
pub async fn admit_service(
    state: &AppState,
    headers: &HeaderMap,
    scope: &'static str,
    from: &Circumstances,
) -> Result<Admitted, Refusal> {
    let refused = |challenge: &str| {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "invalid_token",
            "A service's access token is needed.",
        )
        .with_header("www-authenticate", challenge)
    };
    // RFC 6750, section 3: without a token no error is named.
    let token = bearer(headers).ok_or_else(|| refused("Bearer"))?;
    match state.backend.authenticate_service(token, scope, from).await? {
        ServiceOutcome::Valid(admitted) => Ok(*admitted),
        ServiceOutcome::Refused(_) | ServiceOutcome::Revoked => Err(refused(BEARER)),
        ServiceOutcome::ScopeMissing => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "insufficient_scope",
            "This token is not for that.",
        )
        .with("scope", scope)
        .with_header(
            "www-authenticate",
            &format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
        )),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token)
}
