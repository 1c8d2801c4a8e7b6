//! The axum layer: who may pass, and what the others hear (RFC 6750, section 3).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Checker, Denied};
use crate::domain::dpop;

/// Lets a request pass that carries a good access token in `Authorization: Bearer`, or in `Authorization: DPoP` with a
/// proof of the key that it is bound to (RFC 9449); handlers find its claims as `Extension<Arc<AccessClaims>>`. Everybody
/// else gets 401 with a challenge, or 503 if it cannot be told for now. Use it with
/// `axum::middleware::from_fn_with_state`, outside of `Router::nest`, which would cut the path that a proof names.
pub async fn require_token(State(checker): State<Arc<Checker>>, mut request: Request, next: Next) -> Response {
    let (scheme, token) = match authorization(request.headers()) {
        Ok(Some(shown)) => shown,
        // Without a token no error is named.
        Ok(None) => return refuse(StatusCode::UNAUTHORIZED, "Bearer"),
        Err(()) => return refuse(StatusCode::BAD_REQUEST, "Bearer error=\"invalid_request\""),
    };
    let verdict = match scheme {
        Scheme::Bearer => checker.check(token).await,
        Scheme::Dpop => match proof(request.headers()) {
            Ok(proof) => {
                let (method, path) = (request.method().as_str(), request.uri().path());
                checker.check_proven(token, proof, method, path).await
            }
            Err(refusal) => Err(Denied::Unproven(refusal)),
        },
    };
    match verdict {
        Ok(claims) => {
            request.extensions_mut().insert(Arc::new(claims));
            next.run(request).await
        }
        Err(denied @ (Denied::Refused(_) | Denied::Revoked)) => {
            tracing::debug!(%denied, "an access token was refused");
            let challenge = match scheme {
                Scheme::Bearer => "Bearer error=\"invalid_token\"",
                Scheme::Dpop => INVALID_TOKEN,
            };
            refuse(StatusCode::UNAUTHORIZED, challenge)
        }
        Err(denied @ Denied::Unproven(refusal)) => {
            tracing::debug!(%denied, "an access token was refused");
            let challenge = match refusal {
                dpop::Refusal::Missing | dpop::Refusal::OtherKey | dpop::Refusal::NotBound => INVALID_TOKEN,
                _ => "DPoP error=\"invalid_dpop_proof\", algs=\"ES256 EdDSA Ed25519\"",
            };
            refuse(StatusCode::UNAUTHORIZED, challenge)
        }
        Err(denied @ Denied::Unknown(_)) => {
            tracing::warn!(%denied, "an access token was not accepted");
            let again = [(RETRY_AFTER, "1"), (CACHE_CONTROL, "no-store")];
            (StatusCode::SERVICE_UNAVAILABLE, again).into_response()
        }
    }
}

const INVALID_TOKEN: &str = "DPoP error=\"invalid_token\", algs=\"ES256 EdDSA Ed25519\"";

#[derive(Clone, Copy)]
enum Scheme {
    Bearer,
    Dpop,
}

/// The one proof of the request.
fn proof(headers: &HeaderMap) -> Result<&str, dpop::Refusal> {
    let mut values = headers.get_all("dpop").iter();
    match (values.next(), values.next()) {
        (None, _) => Err(dpop::Refusal::Missing),
        (Some(proof), None) => proof.to_str().map_err(|_| dpop::Refusal::Form),
        (Some(_), Some(_)) => Err(dpop::Refusal::Doubled),
    }
}

/// The one token of the request. Several, or one in a strange form, are an error (RFC 6750, section 3.1).
fn authorization(headers: &HeaderMap) -> Result<Option<(Scheme, &str)>, ()> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| ())?,
        (Some(_), Some(_)) => return Err(()),
    };
    let (scheme, token) = value.split_once(' ').ok_or(())?;
    let scheme = if scheme.eq_ignore_ascii_case("bearer") {
        Scheme::Bearer
    } else if scheme.eq_ignore_ascii_case("dpop") {
        Scheme::Dpop
    } else {
        return Ok(None);
    };
    if token.is_empty() || token.contains([' ', ',']) {
        return Err(());
    }
    Ok(Some((scheme, token)))
}

fn refuse(status: StatusCode, challenge: &'static str) -> Response {
    let headers = [
        (WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers).into_response()
}
