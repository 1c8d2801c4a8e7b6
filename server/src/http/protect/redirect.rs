//! Redirects of server functions: they go back to the `Referer`, which is the client's word (C10, F62).

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::{Protection, same_origin_path};

/// Header that tells a script of ours to redirect.
const SCRIPT_REDIRECT: HeaderName = HeaderName::from_static("serverfnredirect");

/// Layer around `/actions/*`: `Location` becomes a path on this origin (the start page if it pointed elsewhere), and
/// the status 303, so that no browser ever repeats the POST there.
pub async fn keep_redirects_here(State(protection): State<Protection>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    keep(&protection, response.headers_mut(), &header::LOCATION);
    keep(&protection, response.headers_mut(), &SCRIPT_REDIRECT);
    let moved = matches!(
        response.status(),
        StatusCode::FOUND
            | StatusCode::MOVED_PERMANENTLY
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if moved {
        *response.status_mut() = StatusCode::SEE_OTHER;
    }
    response
}

fn keep(protection: &Protection, headers: &mut HeaderMap, name: &HeaderName) {
    // The script's header may stand there without a value: then `Location` says where.
    let Some(location) = headers.get(name).filter(|value| !value.is_empty()) else {
        return;
    };
    let path = location
        .to_str()
        .ok()
        .and_then(|text| same_origin_path(protection.public_url.as_str(), text));
    let path = path.and_then(|path| HeaderValue::from_str(&path).ok());
    headers.insert(name.clone(), path.unwrap_or(HeaderValue::from_static("/")));
}
