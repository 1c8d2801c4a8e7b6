//! The axum layer: who may pass, and what the others hear (RFC 6750, section 3).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Checker, Denied};

/// Lets a request pass that carries a good access token in `Authorization: Bearer`; handlers find its claims as
/// `Extension<Arc<AccessClaims>>`. Everybody else gets 401 with a challenge, or 503 if it cannot be told for now. Use it
/// with `axum::middleware::from_fn_with_state`.
pub async fn require_token(State(checker): State<Arc<Checker>>, mut request: Request, next: Next) -> Response {
    let token = match bearer(request.headers()) {
        Ok(Some(token)) => token,
        // Without a token no error is named.
        Ok(None) => return refuse(StatusCode::UNAUTHORIZED, "Bearer"),
        Err(()) => return refuse(StatusCode::BAD_REQUEST, "Bearer error=\"invalid_request\""),
    };
    let verdict = checker.check(token).await;
    match verdict {
        Ok(claims) => {
            request.extensions_mut().insert(Arc::new(claims));
            next.run(request).await
        }
        Err(denied @ (Denied::Refused(_) | Denied::Revoked)) => {
            tracing::debug!(%denied, "an access token was refused");
            refuse(StatusCode::UNAUTHORIZED, "Bearer error=\"invalid_token\"")
        }
        Err(denied @ Denied::Unknown(_)) => {
            tracing::warn!(%denied, "an access token was not accepted");
            let again = [(RETRY_AFTER, "1"), (CACHE_CONTROL, "no-store")];
            (StatusCode::SERVICE_UNAVAILABLE, again).into_response()
        }
    }
}

/// The one token of the request. Several, or one in a strange form, are an error (RFC 6750, section 3.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| ())?,
        (Some(_), Some(_)) => return Err(()),
    };
    let (scheme, token) = value.split_once(' ').ok_or(())?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    if token.is_empty() || token.contains([' ', ',']) {
        return Err(());
    }
    Ok(Some(token))
}

fn refuse(status: StatusCode, challenge: &'static str) -> Response {
    let headers = [
        (WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers).into_response()
}
