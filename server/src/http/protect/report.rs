//! Where browsers report violations of the content security policy (C6).

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::{Protection, Refused};
use crate::domain::audit::Kind;
use crate::http::body;
use crate::http::client::ClientAddress;
use crate::http::error::Problem;
use crate::http::limits::LimitKind;

/// Path of the endpoint.
pub const REPORT_PATH: &str = "/csp-report";

/// Largest report that is read.
const MOST_BYTES: usize = 16 * 1024;
/// Longest text of a report that is logged.
const MOST_CHARS: usize = 200;

/// Handler for `any(REPORT_PATH)`: bounded, limited by network, one log line for each report, and nothing of it in
/// the answer. A report is a stranger's text: it is never more than a hint.
pub async fn csp_report(State(protection): State<Protection>, request: Request) -> Response {
    if request.method() != Method::POST {
        return Problem::method_not_allowed().into_response();
    }
    let Some(ClientAddress(address)) = request.extensions().get::<ClientAddress>().copied() else {
        tracing::error!("the report endpoint stands outside the identification layer");
        return Problem::internal().into_response();
    };
    if let Err(wait) = protection.limits.check(LimitKind::Report, address, None, false) {
        let refused = Refused {
            kind: Kind::RateLimited,
            reason: "report",
            problem: Problem::too_many_requests(wait),
        };
        return protection.refuse(&request, refused).await;
    }
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !matches!(
        kind,
        "application/csp-report" | "application/reports+json" | "application/json"
    ) {
        return Problem::unsupported_media_type("application/csp-report or application/reports+json").into_response();
    }
    let bytes = match body::read(request.into_body(), MOST_BYTES).await {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    let Ok(report) = serde_json::from_slice::<Value>(&bytes) else {
        return Problem::bad_request().into_response();
    };
    // One object (`csp-report`) or a list of reports (`body`); only the first is logged.
    let first = report.get(0).unwrap_or(&report);
    let reported = first.get("csp-report").or_else(|| first.get("body"));
    let Some(reported) = reported.filter(|reported| reported.is_object()) else {
        return Problem::bad_request().into_response();
    };
    let text = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| reported.get(name)?.as_str());
        let found = found.unwrap_or("");
        // Without query and fragment: a URL may carry somebody's data there.
        let bare = found.split(['?', '#']).next().unwrap_or("");
        bare.chars()
            .filter(|c| !c.is_control())
            .take(MOST_CHARS)
            .collect::<String>()
    };
    tracing::warn!(
        directive = text(["effectiveDirective", "effective-directive"]),
        blocked = text(["blockedURL", "blocked-uri"]),
        document = text(["documentURL", "document-uri"]),
        source = text(["sourceFile", "source-file"]),
        "a browser reports a violation of the content security policy"
    );
    StatusCode::NO_CONTENT.into_response()
}
