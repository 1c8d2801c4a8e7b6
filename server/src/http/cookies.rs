//! Our cookies: names, attributes, setting, clearing and reading (TOKENS.md, section 5; SECURITY.md C1, C2).
//!
//! Must not know what the values mean.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::{Cookie, SameSite};

use crate::domain::clock::Timestamp;

/// Access token.
pub const ACCESS: &str = "__Host-Http-mayfly-at";
/// Refresh token.
pub const REFRESH: &str = "__Host-Http-mayfly-rt";
/// Short-lived, for browsers that sign for the next one (device bound session credentials). Chromium 156 binds no cookie
/// whose name begins with `__Host-Http-`; that no script writes this one is left to its seal.
pub const BOUND: &str = "__Host-mayfly-bound";
/// What browsers are told of its attributes, to know it again; its age is no part of that.
pub const BOUND_ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";
/// Device id and secret.
pub const DEVICE: &str = "__Host-Http-mayfly-device";
/// tower-sessions cookie of what comes before and beside a sign-in.
pub const FLOW: &str = "__Host-Http-mayfly-flow";
/// `light` or `dark`; set by the page's own switch, so no secret and not ours alone to write.
pub const THEME: &str = "theme";

/// The cookies of which a request may carry one each (C4).
pub const OURS: [&str; 5] = [ACCESS, REFRESH, BOUND, DEVICE, FLOW];

/// The longest that browsers keep any cookie (RFC 6265bis, section 5.5).
const DEVICE_LIFETIME: Duration = Duration::from_hours(400 * 24);

/// A value that cannot stand in a cookie: other characters than RFC 6265's `cookie-octet`, or more than 4096
/// bytes with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value does not fit into the cookie {0}")]
pub struct Unfit(pub &'static str);

/// `Set-Cookie` for the access token. The browser forgets it when the token ends, but gets it early enough for
/// the next request to be renewed by the refresh cookie.
///
/// # Errors
/// [`Unfit`].
pub fn access_cookie(value: &str, expires_at: Timestamp, now: Timestamp) -> Result<HeaderValue, Unfit> {
    set(ACCESS, value, expires_at.since(now))
}

/// `Set-Cookie` for the refresh token, until the session's absolute end.
///
/// # Errors
/// [`Unfit`].
pub fn refresh_cookie(value: &str, expires_at: Timestamp, now: Timestamp) -> Result<HeaderValue, Unfit> {
    set(REFRESH, value, expires_at.since(now))
}

/// `Set-Cookie` that binds. The browser deletes it in time: who shows it later has a copy.
///
/// # Errors
/// [`Unfit`].
pub fn bound_cookie(value: &str, lifetime: Duration) -> Result<HeaderValue, Unfit> {
    set(BOUND, value, lifetime)
}

/// `Set-Cookie` for the device, 400 days.
///
/// # Errors
/// [`Unfit`].
pub fn device_cookie(value: &str) -> Result<HeaderValue, Unfit> {
    set(DEVICE, value, DEVICE_LIFETIME)
}

/// `Set-Cookie` that deletes one of [`OURS`].
///
/// # Errors
/// None for [`OURS`].
pub fn clear(name: &'static str) -> Result<HeaderValue, Unfit> {
    set(name, "", Duration::ZERO)
}

fn set(name: &'static str, value: &str, lifetime: Duration) -> Result<HeaderValue, Unfit> {
    let octet = |byte: u8| matches!(byte, 0x21 | 0x23..=0x2B | 0x2D..=0x3A | 0x3C..=0x5B | 0x5D..=0x7E);
    if name.len() + value.len() > 4096 || !value.bytes().all(octet) {
        return Err(Unfit(name));
    }
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    let cookie = Cookie::build((name, value))
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Lax)
        .path("/")
        .max_age(cookie::time::Duration::seconds(seconds))
        .build();
    HeaderValue::from_str(&cookie.to_string()).map_err(|_| Unfit(name))
}

/// Value of a cookie of ours. Two of the same name never get here: see [`super::protect::refuse_doubled_cookie`].
#[must_use]
pub fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    pairs(headers)
        .find_map(|(found, value)| (found == name.as_bytes()).then_some(value))
        .and_then(as_text)
}

/// The theme, if it is one of the two there are.
#[must_use]
pub fn theme(headers: &HeaderMap) -> Option<&'static str> {
    match read(headers, THEME)? {
        "light" => Some("light"),
        "dark" => Some("dark"),
        _ => None,
    }
}

/// Carries an access or refresh token.
#[must_use]
pub fn has_tokens(headers: &HeaderMap) -> bool {
    pairs(headers).any(|(name, _)| name == ACCESS.as_bytes() || name == REFRESH.as_bytes())
}

/// The first of our cookies that stands there twice.
#[must_use]
pub fn duplicate(headers: &HeaderMap) -> Option<&'static str> {
    OURS.into_iter()
        .find(|ours| pairs(headers).filter(|(name, _)| *name == ours.as_bytes()).count() > 1)
}

/// Names and values of all `Cookie` lines, as bytes: one line with strange bytes must not hide the others.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
        })
}

fn as_text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn c1_every_cookie_has_every_attribute() {
        let now = Timestamp::from_seconds(1_000);
        for (cookie, name, age) in [
            (
                access_cookie("a.b-c_d", Timestamp::from_seconds(1_900), now),
                ACCESS,
                "Max-Age=900",
            ),
            (
                refresh_cookie("mfr_x", Timestamp::from_seconds(1_060), now),
                REFRESH,
                "Max-Age=60",
            ),
            (bound_cookie("b", Duration::from_mins(10)), BOUND, "Max-Age=600"),
            (device_cookie("d"), DEVICE, "Max-Age=34560000"),
            (clear(ACCESS), ACCESS, "Max-Age=0"),
            (
                access_cookie("late", Timestamp::from_seconds(1), now),
                ACCESS,
                "Max-Age=0",
            ),
        ] {
            let cookie = cookie.unwrap();
            let text = cookie.to_str().unwrap();
            let mut parts: Vec<&str> = text.split("; ").collect();
            assert!(parts.remove(0).starts_with(&format!("{name}=")), "{text}");
            parts.sort_unstable();
            let mut expected = ["HttpOnly", age, "Path=/", "SameSite=Lax", "Secure"];
            expected.sort_unstable();
            assert_eq!(parts, expected, "{text}");
        }
        let mut others = OURS.iter().filter(|name| **name != BOUND);
        assert!(others.all(|name| name.starts_with("__Host-Http-")));
        assert!(BOUND.starts_with("__Host-"));
    }

    #[test]
    fn c2_values_that_do_not_fit_are_refused() {
        let expires = Timestamp::from_seconds(1);
        for value in [
            "a b",
            "a;b",
            "a,b",
            "a\"b",
            "a\\b",
            "a\r\nb",
            "ä",
            "\0",
            &"x".repeat(4096),
        ] {
            assert_eq!(access_cookie(value, expires, expires), Err(Unfit(ACCESS)), "{value:?}");
        }
        assert!(access_cookie(&"x".repeat(4096 - ACCESS.len()), expires, expires).is_ok());
    }

    #[test]
    fn cookies_are_read_from_any_line() {
        let headers = request(&[
            "a=1; __Host-Http-mayfly-at=token=; b",
            "__Host-Http-mayfly-rt= mfr_1 ;theme=dark",
        ]);
        assert_eq!(read(&headers, ACCESS), Some("token="));
        assert_eq!(read(&headers, REFRESH), Some("mfr_1"));
        assert_eq!(read(&headers, DEVICE), None);
        assert_eq!(theme(&headers), Some("dark"));
        assert!(has_tokens(&headers));
        for value in ["DARK", "\"><script>", "dark2", ""] {
            assert_eq!(theme(&request(&[&format!("theme={value}")])), None);
        }
        assert!(!has_tokens(&request(&[
            "x__Host-Http-mayfly-at=1; __host-http-mayfly-at=1"
        ])));
    }

    #[test]
    fn c4_duplicates_are_seen_wherever_they_stand() {
        for lines in [
            &["__Host-Http-mayfly-at=1; __Host-Http-mayfly-at=1"][..],
            &["__Host-Http-mayfly-at=1; x=2;__Host-Http-mayfly-at="],
            &["__Host-Http-mayfly-at=1", "__Host-Http-mayfly-at=2"],
            &["__Host-Http-mayfly-at =1", "y=\u{ff}; \t__Host-Http-mayfly-at=2"],
        ] {
            assert_eq!(duplicate(&request(lines)), Some(ACCESS), "{lines:?}");
        }
        let each_once = OURS.map(|name| format!("{name}=1")).join("; ");
        assert_eq!(duplicate(&request(&[&each_once, "theme=dark; theme=light"])), None);
    }
}
