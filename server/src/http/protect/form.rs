//! The synchroniser token of every form (M11, C8): kept in the tower-sessions session, sent in the field
//! `form_token`.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;
use tower_sessions::Session;

use super::{Protection, Refused, same_origin_path};
use crate::domain::audit::Kind;
use crate::http::body;
use crate::http::error::{Problem, accepts_html};
use crate::http::web_session;

/// Hidden field of every form.
pub const FORM_TOKEN_FIELD: &str = "form_token";
/// Header of unsafe JSON calls that our own pages make with the browser's cookies.
pub const FORM_TOKEN_HEADER: HeaderName = HeaderName::from_static("x-form-token");

/// Layer around `/actions/*`, inside the tower-sessions layer: only POST, only urlencoded, only with this
/// browser's token. The body is read here, once, up to the limit, and handed on unchanged.
///
/// A token that does not fit is most often a page left open for too long: a browser is sent back to the page it
/// came from, which then says so and holds a fresh token.
pub async fn check_form_token(State(protection): State<Protection>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        let mut response = Problem::method_not_allowed().into_response();
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Some(session) = request.extensions().get::<Session>().cloned() else {
        tracing::error!("the form gate stands outside the session layer");
        return Problem::internal().into_response();
    };
    if !is_form(request.headers()) {
        let refused = Refused {
            kind: Kind::CsrfRefused,
            reason: "content_type",
            problem: Problem::unsupported_media_type("application/x-www-form-urlencoded"),
        };
        return protection.refuse(&request, refused).await;
    }
    let (parts, body) = request.into_parts();
    let bytes = match body::read(body, protection.max_body_bytes).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let kept = match web_session::kept_form_token(&session).await {
        Ok(kept) => kept,
        Err(error) => {
            tracing::error!(%error, "the session of a form cannot be read");
            return Problem::unavailable().into_response();
        }
    };
    let sent = only_token(&bytes);
    let request = Request::from_parts(parts, Body::from(bytes.clone()));
    let reason = match (&sent, &kept) {
        (Some(sent), Some(kept)) if same(sent, kept) => return next.run(request).await,
        (None, _) => "form_token_missing",
        (_, None) => "form_token_unknown",
        _ => "form_token_wrong",
    };
    protection.tell(Kind::CsrfRefused, &request, reason).await;
    expired(&protection, request.headers(), &session).await
}

async fn expired(protection: &Protection, headers: &HeaderMap, session: &Session) -> Response {
    if !accepts_html(headers) {
        return Problem::form_expired().into_response();
    }
    let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok());
    let back = referer.and_then(|referer| same_origin_path(protection.public_url.as_str(), referer));
    let Some(location) = back.and_then(|path| HeaderValue::from_str(&path).ok()) else {
        return Problem::form_expired().into_response();
    };
    if let Err(error) = web_session::flash(session, app::types::Notice::FormExpired).await {
        tracing::error!(%error, "a notice could not be kept");
        return Problem::unavailable().into_response();
    }
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Whether the header `x-form-token` holds this browser's token; for unsafe JSON calls that come with the
/// browser's cookies.
///
/// # Errors
/// When the session cannot be read.
pub async fn header_form_token_matches(
    headers: &HeaderMap,
    session: &Session,
) -> Result<bool, tower_sessions::session::Error> {
    let mut sent = headers.get_all(FORM_TOKEN_HEADER).iter();
    let (Some(sent), None) = (sent.next(), sent.next()) else {
        return Ok(false);
    };
    let kept = web_session::kept_form_token(session).await?;
    Ok(kept.is_some_and(|kept| bool::from(sent.as_bytes().ct_eq(kept.as_bytes()))))
}

fn same(sent: &str, kept: &str) -> bool {
    sent.as_bytes().ct_eq(kept.as_bytes()).into()
}

/// The field, if it stands there exactly once.
fn only_token(body: &Bytes) -> Option<String> {
    let mut fields = form_urlencoded::parse(body).filter(|(name, _)| name == FORM_TOKEN_FIELD);
    match (fields.next(), fields.next()) {
        (Some((_, token)), None) => Some(token.into_owned()),
        _ => None,
    }
}

/// Whether the body says that it is a form: one content type, in UTF-8 if it names a charset at all.
pub fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = value.to_str() else { return false };
    let (kind, parameter) = text.split_once(';').unwrap_or((text, ""));
    let parameter = parameter.trim().replace('"', "");
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && (parameter.is_empty() || parameter.eq_ignore_ascii_case("charset=utf-8"))
}
