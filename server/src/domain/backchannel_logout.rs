//! Telling services that a session ended (OpenID Connect Back-Channel Logout 1.0): where they are told, what they are told,
//! and what comes of an answer.
//!
//! Pure: must not know how anything is delivered, nor where it is kept how far a service was told.

use std::fmt;
use std::time::Duration;

use url::{Host, Url};

use super::audit::Event;
use super::client::ClientId;
use super::clock::Timestamp;
use super::jwt::{LOGOUT_TOKEN_LIFE, LogoutClaims, LogoutEvent};
use super::security_event::is_end_of_session;

/// Longest address that is taken.
const MOST_URI_CHARS: usize = 512;
/// Pauses before trying again, doubled each time, from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(5)];
/// So long a node has for what it took upon itself to tell; then another may.
pub const CLAIM: Duration = Duration::from_secs(20);

/// Where a service is told (`backchannel_logout_uri`, section 2.2): over TLS, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutUri(Url);

/// What is wrong with such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "logouts are told to https://host/path, at most 512 characters, without a fragment or a user (http only to localhost \
     and loopback addresses)"
)]
pub struct LogoutUriError;

impl LogoutUri {
    /// An absolute address in the form in which it is asked.
    ///
    /// # Errors
    /// [`LogoutUriError`].
    pub fn parse(text: &str) -> Result<Self, LogoutUriError> {
        let url = Url::parse(text).map_err(|_| LogoutUriError)?;
        let is_here = match url.host().ok_or(LogoutUriError)? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_here;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let fits = text.len() <= MOST_URI_CHARS && url.as_str().len() <= MOST_URI_CHARS;
        if is_safe && is_plain && fits {
            Ok(Self(url))
        } else {
            Err(LogoutUriError)
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for LogoutUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a service is told of an event (section 2.4). None if no session ended by it.
#[must_use]
pub fn claims(event: &Event, issuer: &str, audience: &ClientId, now: Timestamp) -> Option<LogoutClaims> {
    if !is_end_of_session(event.kind) {
        return None;
    }
    Some(LogoutClaims {
        iss: issuer.to_owned(),
        aud: audience.as_str().to_owned(),
        iat: now.as_seconds(),
        exp: now.plus(LOGOUT_TOKEN_LIFE).as_seconds(),
        jti: event.id,
        sub: event.subject_id?,
        sid: event.session_id?,
        events: LogoutEvent,
    })
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service has ended what it had of that session: done.
    Taken,
    /// It has seen the token and says it cannot act on it (section 2.8): done, and worth a look by a person.
    Refused,
    /// Nobody is there, or nobody who could say: the same again later. In a few words, why.
    Away(String),
}

impl Answer {
    /// By the status of a response. Redirects are not followed: where a service is told is for the operator to say.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            400 => Self::Refused,
            _ => Self::Away(format!("status {status}")),
        }
    }
}

/// How a service that could not be told is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Tries that failed, one after another; never 0.
    pub tries: u32,
    /// When it was last known to be well, or nothing was asked of it.
    pub since: Timestamp,
    /// Not before.
    pub retry_at: Timestamp,
    /// Why the last try failed.
    pub failure: String,
}

impl Outage {
    /// After another try that failed.
    #[must_use]
    pub fn after(before: Option<&Self>, failure: String, now: Timestamp) -> Self {
        let tries = before.map_or(1, |outage| outage.tries.saturating_add(1));
        let doubled = PAUSES[0].saturating_mul(1 << (tries - 1).min(16));
        Self {
            tries,
            since: before.map_or(now, |outage| outage.since),
            retry_at: now.plus(doubled.min(PAUSES[1])),
            failure,
        }
    }
}

/// A moment up to which something waits, never for longer than `most`: if the clock was set back, it waits no more.
fn is_ahead(moment: Timestamp, now: Timestamp, most: Duration) -> bool {
    moment > now && moment.since(now) <= most
}

/// A service that wants to be told, and how far it was.
#[derive(Clone, Debug)]
pub struct LogoutReceiver {
    /// Who.
    pub client: ClientId,
    /// Where.
    pub uri: LogoutUri,
    /// Place in the order of the audit log's seals: everything up to it is done.
    pub noted: u64,
    /// Until then some node is telling it.
    pub claimed_until: Timestamp,
    /// None: it is well.
    pub outage: Option<Outage>,
}

impl LogoutReceiver {
    /// It is time, and nobody else is at it.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let rests = |outage: &Outage| is_ahead(outage.retry_at, now, PAUSES[1]);
        !is_ahead(self.claimed_until, now, CLAIM) && !self.outage.as_ref().is_some_and(rests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + seconds)
    }

    #[test]
    fn r16_logouts_are_told_over_tls_or_on_this_machine_and_nowhere_else() {
        for good in [
            "https://shop.example.com/logout",
            "https://shop.example.com:8443/logout?from=mayfly",
            "https://10.0.0.7/",
            "http://localhost:3100/logout",
            "http://127.0.0.1/logout",
            "http://[::1]:3100/logout",
        ] {
            assert_eq!(LogoutUri::parse(good).map(|uri| uri.to_string()).as_deref(), Ok(good));
        }
        let long = format!("https://shop.example.com/{}", "a".repeat(MOST_URI_CHARS));
        for bad in [
            "",
            "shop.example.com/logout",
            "/logout",
            "//shop.example.com/logout",
            "http://shop.example.com/logout",
            "http://localhost.example.com/logout",
            "http://127.0.0.1.example.com/logout",
            "http://10.0.0.7/logout",
            "https://",
            "https://ann@shop.example.com/logout",
            "https://ann:secret@shop.example.com/logout",
            "http://localhost@shop.example.com/logout",
            "https://shop.example.com/logout#part",
            "https://shop.example.com/#",
            "https://shop example.com/logout",
            "ftp://shop.example.com/logout",
            "file:///etc/passwd",
            "unix:/run/shop",
            "javascript:alert(1)",
            "data:text/html,logout",
            &long,
        ] {
            assert_eq!(LogoutUri::parse(bad), Err(LogoutUriError), "{bad}");
        }
    }

    #[test]
    fn f11_pauses_grow_to_five_minutes_and_a_clock_that_was_set_back_does_not_prolong_them() {
        let (mut outage, mut pauses) = (None, Vec::new());
        for _ in 0..40 {
            let next = Outage::after(outage.as_ref(), "status 503".to_owned(), at(0));
            pauses.push(next.retry_at.since(at(0)).as_secs());
            outage = Some(next);
        }
        assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses[10..].iter().all(|pause| *pause == 300));
        let outage = outage.expect("one");
        assert_eq!((outage.tries, outage.since), (40, at(0)));
        let mut receiver = LogoutReceiver {
            client: ClientId::parse("svc-AAAAAAAAAAAAAAAAAAAAAA").expect("an id"),
            uri: LogoutUri::parse("https://shop.example.com/logout").expect("an address"),
            noted: 0,
            claimed_until: at(-200_000),
            outage: Some(outage),
        };
        for (now, is_due) in [(0, false), (299, false), (300, true), (-1, true), (-86_400, true)] {
            assert_eq!(receiver.is_due(at(now)), is_due, "{now}");
        }
        (receiver.outage, receiver.claimed_until) = (None, at(20));
        for (now, is_due) in [(0, false), (19, false), (20, true), (-1, true)] {
            assert_eq!(receiver.is_due(at(now)), is_due, "{now}");
        }
    }

    #[test]
    fn r16_a_service_has_acted_or_cannot_or_is_away() {
        for (status, answer) in [(200, Answer::Taken), (204, Answer::Taken), (400, Answer::Refused)] {
            assert_eq!(Answer::of(status), answer, "{status}");
        }
        for status in [
            100, 199, 301, 302, 307, 308, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504,
        ] {
            assert_eq!(Answer::of(status), Answer::Away(format!("status {status}")));
        }
    }
}
