//! Headers that every answer carries (C5, C6, S16), errors and files included.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::PublicUrl;

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const REPORTING_ENDPOINTS: HeaderName = HeaderName::from_static("reporting-endpoints");

/// Policy of everything that is no page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Which headers.
#[derive(Clone, Copy, Debug)]
pub struct HeaderPolicy {
    /// People reach us over TLS: send HSTS.
    pub https: bool,
}

impl HeaderPolicy {
    /// For this address.
    #[must_use]
    pub fn new(public_url: &PublicUrl) -> Self {
        Self {
            https: public_url.is_https(),
        }
    }

    /// Sets them. A handler's own `Content-Security-Policy`, `Cache-Control` and `Referrer-Policy` stay.
    pub fn set(self, headers: &mut HeaderMap) {
        // Room for these, the handler's own and the request's id, at once.
        headers.reserve(16);
        if self.https {
            set(
                headers,
                header::STRICT_TRANSPORT_SECURITY,
                "max-age=63072000; includeSubDomains",
            );
        }
        set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(headers, header::X_FRAME_OPTIONS, "DENY");
        set(headers, CROSS_ORIGIN_OPENER_POLICY, "same-origin");
        set(headers, CROSS_ORIGIN_RESOURCE_POLICY, "same-origin");
        set(
            headers,
            PERMISSIONS_POLICY,
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=(), \
             publickey-credentials-create=(self), publickey-credentials-get=(self)",
        );
        default(headers, header::REFERRER_POLICY, "same-origin");
        default(headers, header::CONTENT_SECURITY_POLICY, NOTHING);
        default(headers, header::CACHE_CONTROL, "no-store");
        let is_page = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if is_page {
            set(headers, REPORTING_ENDPOINTS, "csp=\"/csp-report\"");
        }
        headers.remove(header::SERVER);
        headers.remove("x-powered-by");
    }
}

/// Policy of a page whose scripts carry this nonce.
///
/// `wasm-unsafe-eval` lets the islands' WebAssembly compile and nothing else; there is no `unsafe-inline` and no
/// `unsafe-eval`.
///
/// # Panics
/// If the nonce is no header text; nonces are base64.
#[must_use]
pub fn page_csp(nonce: &str) -> HeaderValue {
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; style-src 'self'; \
         img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; \
         frame-ancestors 'none'; report-uri /csp-report; report-to csp"
    );
    HeaderValue::from_str(&policy).expect("a nonce is base64")
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

fn default(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of an answer whose handler set these.
    fn headers(https: bool, own: &[(&'static str, HeaderValue)]) -> HeaderMap {
        let mut headers: HeaderMap = own
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.clone()))
            .collect();
        HeaderPolicy { https }.set(&mut headers);
        headers
    }

    fn page() -> [(&'static str, HeaderValue); 2] {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        [
            ("content-security-policy", page_csp("bm9uY2U=")),
            ("content-type", html),
        ]
    }

    fn file() -> [(&'static str, HeaderValue); 2] {
        let value = HeaderValue::from_static;
        [("cache-control", value("max-age=1")), ("server", value("x"))]
    }

    #[test]
    fn c5_every_answer_carries_every_header() {
        for own in [&page()[..], &file(), &[]] {
            let found = headers(true, own);
            for (name, value) in [
                ("strict-transport-security", "max-age=63072000; includeSubDomains"),
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "same-origin"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(found[name], value, "{own:?}");
            }
            assert!(found.contains_key("permissions-policy"));
            let csp = found["content-security-policy"].to_str().unwrap();
            assert!(
                csp.starts_with("default-src 'none'") && csp.contains("frame-ancestors 'none'"),
                "{csp}"
            );
            assert!(!found.contains_key("server"));
        }
        assert!(!headers(false, &page()).contains_key("strict-transport-security"));
        assert_eq!(headers(true, &file())["cache-control"], "max-age=1");
        assert_eq!(headers(true, &[])["cache-control"], "no-store");
    }

    #[test]
    fn c6_a_page_runs_only_scripts_with_its_nonce() {
        let found = headers(true, &page());
        let csp = found["content-security-policy"].to_str().unwrap();
        assert!(
            csp.contains("script-src 'nonce-bm9uY2U=' 'strict-dynamic' 'wasm-unsafe-eval';"),
            "{csp}"
        );
        assert!(
            csp.contains("object-src 'none'") && csp.contains("base-uri 'none'"),
            "{csp}"
        );
        assert!(!csp.contains("'unsafe-"), "{csp}");
        assert_eq!(found["reporting-endpoints"], "csp=\"/csp-report\"");
    }
}
