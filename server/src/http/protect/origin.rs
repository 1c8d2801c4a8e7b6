//! Where an unsafe request comes from (C8; Fetch Metadata, RFC 6454 `Origin`).

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::methods::is_safe;
use super::{REPORT_PATH, Refused};
use crate::config::PublicUrl;
use crate::domain::audit::Kind;
use crate::http::cookies;
use crate::http::dbsc::{REGISTER_PATH, RENEW_PATH};
use crate::http::error::Problem;

/// Prefix of the server functions: forms that browsers send.
pub const ACTIONS: &str = "/actions/";
/// Prefix of the doors for other software: forms that programs send. They never look at a cookie.
const MACHINES: &str = "/oauth/";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the headers of the request say about where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provenance {
    /// The browser says: one of our own pages.
    Ours,
    /// The browser says: not one of our pages, or it says different things at once.
    Foreign(&'static str),
    /// Neither header: no browser of the last years, or something in between removed them.
    Unsaid,
}

/// Gate before everything: every method that is not safe must come from our own origin.
///
/// * `/actions/*` (forms): the browser must say so, by `Sec-Fetch-Site: same-origin` or our exact `Origin`.
/// * everything else (JSON): the same if the request says anything about its origin. If it says nothing it is a
///   program's, and then it may not carry the cookies of a browser. A body must be `application/json`, which no
///   form can send without a preflight.
/// * `/oauth/*` (forms by standard, RFC 6749): a request that says where it comes from must come from us; no other
///   conditions, because a browser's cookies count for nothing there.
pub fn refuse_foreign_origin(request: &Request, ours: &PublicUrl) -> Option<Refused> {
    // Reports come without credentials, change nothing and have a gate of their own. Browsers sign for their next bound
    // cookie on whatever request's behalf; the signature is of that moment, and no page can make one.
    if is_safe(request.method()) || [REPORT_PATH, RENEW_PATH].contains(&request.uri().path()) {
        return None;
    }
    let is_action = request.uri().path().starts_with(ACTIONS);
    // A browser that registers a key may not say for whom; no page can give it the challenge to sign.
    let is_machine = request.uri().path().starts_with(MACHINES) || request.uri().path() == REGISTER_PATH;
    let refused = match provenance(request.headers(), ours.as_str()) {
        Provenance::Ours => None,
        Provenance::Foreign(reason) => Some(reason),
        Provenance::Unsaid if is_machine => None,
        Provenance::Unsaid if is_action => Some("origin_missing"),
        Provenance::Unsaid => cookies::has_tokens(request.headers()).then_some("cookies_without_origin"),
    };
    let wants_json = !is_action && !is_machine && !request.body().is_end_stream();
    let (reason, problem) = match refused {
        Some(reason) => (reason, Problem::foreign_origin()),
        None if wants_json && !is_json(request.headers()) => {
            ("content_type", Problem::unsupported_media_type("application/json"))
        }
        None => return None,
    };
    Some(Refused {
        kind: Kind::CsrfRefused,
        reason,
        problem,
    })
}

fn provenance(headers: &HeaderMap, ours: &str) -> Provenance {
    let only = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first: Option<&HeaderValue> = values.next();
        match (first, values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => Ok(Some(value.as_bytes())),
            (Some(_), Some(_)) => Err(()),
        }
    };
    let (Ok(site), Ok(origin)) = (only(&SEC_FETCH_SITE), only(&header::ORIGIN)) else {
        return Provenance::Foreign("origin_twice");
    };
    // `null`, another scheme, host or port, other case: all of that is another origin.
    if origin.is_some_and(|origin| origin != ours.as_bytes()) {
        return Provenance::Foreign("origin");
    }
    match site {
        Some(b"same-origin") => Provenance::Ours,
        // `none` would be an address typed by hand, and those are never unsafe.
        Some(_) => Provenance::Foreign("fetch_site"),
        None if origin.is_some() => Provenance::Ours,
        None => Provenance::Unsaid,
    }
}

/// Exactly `application/json`, with or without `charset=utf-8`.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = value.to_str() else { return false };
    let (kind, parameter) = text.split_once(';').unwrap_or((text, ""));
    let parameter = parameter.trim().replace('"', "");
    kind.trim().eq_ignore_ascii_case("application/json")
        && (parameter.is_empty() || parameter.eq_ignore_ascii_case("charset=utf-8"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::protect::recorder::{self, Recorder};
    use axum::Router;
    use axum::body::Body;
    use axum::routing::any;
    use tower::ServiceExt as _;

    async fn status(sink: &Arc<Recorder>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let app = recorder::edge(sink, Router::new().fallback(any(|| async {})));
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        app.oneshot(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    const OURS: &str = "https://id.example";
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn c8_forms_come_from_our_own_pages_only() {
        let sink = Arc::<Recorder>::default();
        for headers in [
            &[("sec-fetch-site", "same-origin")][..],
            &[("sec-fetch-site", "same-origin"), ("origin", OURS)],
            &[("origin", OURS)],
        ] {
            assert_eq!(
                status(&sink, "POST", "/actions/sign_in", headers, "a=b").await,
                200,
                "{headers:?}"
            );
        }
        assert!(sink.reasons().is_empty());
        let mut refused = 0;
        for headers in [
            &[][..],
            &[("referer", "https://id.example/sign-in")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://id.example.evil.example")],
            &[("origin", "https://evil-id.example")],
            &[("origin", "https://sub.id.example")],
            &[("origin", "http://id.example")],
            &[("origin", "https://id.example:8443")],
            &[("origin", "https://id.example:443")],
            &[("origin", "https://id.example/")],
            &[("origin", "https://ID.example")],
            &[("origin", "https://id.example https://evil.example")],
            &[("origin", OURS), ("origin", OURS)],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "Same-Origin")],
            &[("sec-fetch-site", "")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
            &[("sec-fetch-site", "cross-site"), ("origin", OURS)],
        ] {
            for method in ["POST", "PUT", "DELETE", "PATCH"] {
                assert_eq!(
                    status(&sink, method, "/actions/sign_in", headers, "a=b").await,
                    403,
                    "{headers:?}"
                );
                refused += 1;
            }
        }
        assert_eq!(sink.kinds().len(), refused, "every refusal is told");
        assert!(sink.kinds().iter().all(|kind| *kind == Kind::CsrfRefused));
    }

    #[tokio::test]
    async fn c8_programs_may_call_the_api_but_not_with_a_browsers_cookies() {
        let sink = Arc::<Recorder>::default();
        assert_eq!(status(&sink, "POST", "/auth/login", &[JSON], "{}").await, 200);
        assert_eq!(status(&sink, "DELETE", "/api/v1/me/sessions/x", &[], "").await, 200);
        for name in ["__Host-Http-mayfly-at", "__Host-Http-mayfly-rt"] {
            let cookie = format!("theme=dark; {name}=x");
            assert_eq!(
                status(&sink, "POST", "/auth/refresh", &[JSON, ("cookie", &cookie)], "{}").await,
                403
            );
            let ours = [JSON, ("cookie", &cookie), ("origin", OURS)];
            assert_eq!(status(&sink, "POST", "/auth/refresh", &ours, "{}").await, 200);
        }
        for foreign in [
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "same-site"),
            ("origin", "null"),
        ] {
            assert_eq!(status(&sink, "POST", "/auth/login", &[JSON, foreign], "{}").await, 403);
        }
        assert_eq!(sink.reasons().len(), 5);
    }

    #[tokio::test]
    async fn c8_json_bodies_say_that_they_are_json() {
        let sink = Arc::<Recorder>::default();
        for kind in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert_eq!(
                status(&sink, "POST", "/auth/login", &[("content-type", kind)], "{}").await,
                200,
                "{kind}"
            );
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json, text/plain",
            "text/plain; application/json",
            "application/jsonp",
            "application/json; charset=utf-16",
            "",
        ] {
            assert_eq!(
                status(&sink, "POST", "/auth/login", &[("content-type", kind)], "{}").await,
                415,
                "{kind}"
            );
        }
        assert_eq!(status(&sink, "POST", "/auth/login", &[], "{}").await, 415);
        assert_eq!(
            status(&sink, "POST", "/auth/logout", &[], "").await,
            200,
            "no body, no type"
        );
    }

    #[tokio::test]
    async fn c8_programs_send_forms_to_their_doors_and_browsers_of_other_sites_do_not() {
        let sink = Arc::<Recorder>::default();
        let form = ("content-type", "application/x-www-form-urlencoded");
        let cookie = ("cookie", "__Host-Http-mayfly-rt=x");
        for headers in [&[form][..], &[form, cookie], &[form, ("origin", OURS)], &[]] {
            assert_eq!(
                status(&sink, "POST", "/oauth/token", headers, "a=b").await,
                200,
                "{headers:?}"
            );
        }
        for foreign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(
                status(&sink, "POST", "/oauth/token", &[form, foreign], "a=b").await,
                403,
                "{foreign:?}"
            );
        }
        assert_eq!(sink.reasons().len(), 5);
        assert_eq!(
            status(&sink, "POST", "/oauthx/token", &[form], "a=b").await,
            415,
            "only below that prefix"
        );
    }

    #[tokio::test]
    async fn safe_methods_pass_from_anywhere() {
        let sink = Arc::<Recorder>::default();
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(
                status(&sink, method, "/devices", &[("sec-fetch-site", "cross-site")], "").await,
                200
            );
        }
    }
}
