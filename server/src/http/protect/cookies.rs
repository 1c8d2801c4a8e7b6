//! Two cookies of the same name: somebody tossed one in (C4, F61).

use axum::http::{HeaderMap, StatusCode};

use super::Refused;
use crate::domain::audit::Kind;
use crate::http::cookies;
use crate::http::error::Problem;

/// Gate: 400 when one of our cookies stands in the request twice. Which one is ours cannot be known, so neither is
/// looked at.
#[must_use]
pub fn refuse_doubled_cookie(headers: &HeaderMap) -> Option<Refused> {
    cookies::duplicate(headers)?;
    let problem = Problem::new(
        StatusCode::BAD_REQUEST,
        "duplicate-cookie",
        "A cookie of this site was sent twice.",
    )
    .detail("Delete the cookies of this site in your browser and sign in again.");
    Some(Refused {
        kind: Kind::DuplicateCookie,
        reason: "duplicate_cookie",
        problem,
    })
}
