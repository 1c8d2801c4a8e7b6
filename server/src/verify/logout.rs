//! The door where a service is told that a session ended (OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8).

use std::fmt::Display;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use serde_json::json;

use super::{Checker, Denied};
use crate::domain::client::ClientId;
use crate::domain::jwt::{LogoutClaims, MAX_TOKEN_BYTES};

/// A token, and the name of its parameter.
const MOST_BYTES: usize = MAX_TOKEN_BYTES + 64;

/// A route that takes logout tokens for this service and calls `end` with each good one: 200 once `end` is done, 400 for
/// every other token. 503 if it cannot be told whether it is good, or `end` fails: then the issuer comes again.
///
/// Beside it [`Checker::follow`] has to run, or [`Checker::follow_keys`].
///
/// `end` ends whatever the service itself keeps of that session, and may be called twice with the same `jti`. The session
/// need not be known here: people who never came are told of, too. When a person shows a factor again (step-up), the session
/// goes on under a new id, and the old one is told as ended.
pub fn route<S, F, Ended, E>(checker: Arc<Checker>, client: ClientId, end: F) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(LogoutClaims) -> Ended + Clone + Send + Sync + 'static,
    Ended: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let handler = async move |headers: HeaderMap, body: Result<Bytes, axum::extract::rejection::BytesRejection>| {
        let Some(token) = body.ok().and_then(|body| logout_token(&headers, &body)) else {
            return refuse("one logout_token in a form is expected");
        };
        let claims = match checker.check_logout(&token, client.as_str()).await {
            Ok(claims) => claims,
            Err(denied @ Denied::Unknown(_)) => {
                tracing::debug!(%denied, "a logout token could not be checked");
                return later();
            }
            Err(denied) => {
                tracing::debug!(%denied, "a logout token was refused");
                return refuse("the logout token is not good here and now");
            }
        };
        let session = claims.sid;
        // It goes on even if the issuer does not wait for it.
        let ended = tokio::spawn(end(claims)).await;
        match ended
            .map_err(|error| error.to_string())
            .and_then(|ended| ended.map_err(|error| error.to_string()))
        {
            Ok(()) => StatusCode::OK.into_response(),
            Err(error) => {
                tracing::error!(%error, %session, "a session could not be ended");
                later()
            }
        }
    };
    post(handler)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(map_response(never_kept))
}

/// Section 2.8: in every answer.
async fn never_kept(mut answer: Response) -> Response {
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The one parameter of that name.
fn logout_token(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return None;
    }
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == "logout_token");
    let (_, token) = tokens.next()?;
    tokens.next().is_none().then(|| token.into_owned())
}

/// Section 2.8, with an error of RFC 6749.
fn refuse(description: &'static str) -> Response {
    let body = json!({ "error": "invalid_request", "error_description": description });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

fn later() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
}
