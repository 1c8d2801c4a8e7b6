//! Two cookies of the same name: somebody tossed one in (C4, F61).

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::Protection;
use crate::domain::audit::Kind;
use crate::http::cookies;
use crate::http::error::Problem;

/// Layer: 400 when one of our cookies stands in the request twice. Which one is ours cannot be known, so neither
/// is looked at.
pub async fn refuse_duplicate_cookies(State(protection): State<Protection>, request: Request, next: Next) -> Response {
    if cookies::duplicate(request.headers()).is_none() {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::BAD_REQUEST,
        "duplicate-cookie",
        "A cookie of this site was sent twice.",
    )
    .detail("Delete the cookies of this site in your browser and sign in again.");
    protection
        .refuse(Kind::DuplicateCookie, &request, "duplicate_cookie", problem)
        .await
}
