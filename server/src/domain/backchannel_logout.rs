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
/// Pause after the first try that failed; doubled after each further one …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// After so many tries one after another a service is said to be away, and an ending that is not taken is passed over if
/// later ones are.
pub const PATIENCE: u32 = 4;
/// A service that says of an ending that it could not act on it is asked again for so long: longer than anybody keeps a
/// copy of published keys, which is what it may lack.
const REFUSED_FOR: Duration = Duration::from_mins(10);
/// So long a node has for what it took upon itself to tell; then another may. Ten seconds of work, and a minute by which
/// the clocks of two nodes may differ (F18).
pub const CLAIM: Duration = Duration::from_secs(75);
/// Moments further ahead than they could be, and this, were written before the clock was set back. Clocks of nodes may
/// differ by so much.
const APART: Duration = Duration::from_mins(2);

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

    /// On this machine, without TLS.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }
}

impl fmt::Display for LogoutUri {
    /// Without its query, where some keep a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.as_str();
        f.write_str(text.split_once('?').map_or(text, |(address, _)| address))
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
    /// The service has ended what it had of that session.
    Taken,
    /// The service says that the request was not good, or that the logout failed (section 2.8). Some say so of sessions
    /// that they do not know.
    Refused,
    /// Anything else than success: about this ending, or about the service; what becomes of later ones tells. In a few
    /// words, what.
    NotTaken(String),
    /// Nobody is there. In a few words, why.
    Away(String),
}

impl Answer {
    /// By the status of a response (section 2.8: 200, or 204 from some frameworks). Redirects are not followed: where a
    /// service is told is for the operator to say.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            400 => Self::Refused,
            _ => Self::NotTaken(format!("status {status}")),
        }
    }
}

/// What becomes of endings after the answers to the first of them, in their order.
///
/// Whatever is not taken is tried again, together with all that comes after it. If that goes on for [`PATIENCE`] tries
/// while later endings are taken, it is the ending and not the service: then it is passed over, so that it does not hold
/// up the others for ever. So is what a service has refused (400) for [`REFUSED_FOR`] while it took nothing. For a
/// service that is away, or in trouble of its own, everything waits for as long as it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// So many of them are done.
    pub done: usize,
    /// Of these, the ones that were never taken, by their index.
    pub passed_over: Vec<usize>,
    /// How the service is then.
    pub outage: Option<Outage>,
}

impl Verdict {
    /// `outage`: as it was before.
    #[must_use]
    pub fn of(answers: &[Answer], outage: Option<&Outage>, now: Timestamp) -> Self {
        let last_taken = answers.iter().rposition(|answer| *answer == Answer::Taken);
        let has_lasted = outage.is_some_and(|outage| outage.tries + 1 >= PATIENCE);
        let is_refused_for_good = outage.is_some_and(|outage| now.since(outage.since) >= REFUSED_FOR);
        let (mut done, mut failure) = (last_taken.filter(|_| has_lasted).map_or(0, |last| last + 1), None);
        for answer in &answers[done..] {
            failure = match answer {
                Answer::Taken => None,
                Answer::Refused => Some("status 400".to_owned()),
                Answer::NotTaken(failure) | Answer::Away(failure) => Some(failure.clone()),
            };
            if failure.is_some() && !(*answer == Answer::Refused && is_refused_for_good) {
                break;
            }
            done += 1;
        }
        let is_not_taken = |at: &usize| answers[*at] != Answer::Taken;
        // If the service took something and got further, another ending fails now: that is counted anew.
        let before = outage.filter(|_| done == 0 || last_taken.is_none());
        Self {
            done,
            passed_over: (0..done).filter(is_not_taken).collect(),
            outage: failure.map(|failure| Outage::after(before, failure, now)),
        }
    }
}

/// How a service that could not be told is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Tries that failed, one after another; never 0.
    pub tries: u32,
    /// When the first of them failed.
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
        let doubled = FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(16));
        Self {
            tries,
            since: before.map_or(now, |outage| outage.since),
            retry_at: now.plus(doubled.min(LONGEST_PAUSE)),
            failure,
        }
    }

    /// It has lasted: no longer a moment that nobody needs to know of.
    #[must_use]
    pub const fn is_noted(&self) -> bool {
        self.tries >= PATIENCE
    }
}

/// A moment up to which something waits, never for longer than `most`: if the clock was set back, it waits no more.
fn is_ahead(moment: Timestamp, now: Timestamp, most: Duration) -> bool {
    moment > now && moment.since(now) <= most + APART
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
    /// Nor does anything up to here wait for it, as far as this node knows.
    pub looked_until: u64,
    /// Until then some node is telling it.
    pub claimed_until: Timestamp,
    /// None: it is well.
    pub outage: Option<Outage>,
}

impl LogoutReceiver {
    /// It is time, and nobody else is at it.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let rests = |outage: &Outage| is_ahead(outage.retry_at, now, LONGEST_PAUSE);
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
            assert_eq!(LogoutUri::parse(good).as_ref().map(LogoutUri::as_str), Ok(good));
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
    fn f11_pauses_grow_to_a_minute_and_a_clock_that_was_set_back_does_not_prolong_them() {
        let (mut outage, mut pauses) = (None, Vec::new());
        for _ in 0..40 {
            let next = Outage::after(outage.as_ref(), "status 503".to_owned(), at(0));
            pauses.push(next.retry_at.since(at(0)).as_secs());
            outage = Some(next);
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(pauses[8..].iter().all(|pause| *pause == 60));
        let outage = outage.expect("one");
        assert_eq!((outage.tries, outage.since), (40, at(0)));
        let mut receiver = LogoutReceiver {
            client: ClientId::parse("svc-AAAAAAAAAAAAAAAAAAAAAA").expect("an id"),
            uri: LogoutUri::parse("https://shop.example.com/logout").expect("an address"),
            noted: 0,
            looked_until: 0,
            claimed_until: at(-200_000),
            outage: Some(outage),
        };
        // A node whose clock is up to two minutes behind waits as the others do.
        for (now, is_due) in [
            (0, false),
            (59, false),
            (60, true),
            (-120, false),
            (-121, true),
            (-86_400, true),
        ] {
            assert_eq!(receiver.is_due(at(now)), is_due, "{now}");
        }
        (receiver.outage, receiver.claimed_until) = (None, at(75));
        for (now, is_due) in [(0, false), (74, false), (75, true), (-120, false), (-121, true)] {
            assert_eq!(receiver.is_due(at(now)), is_due, "{now}");
        }
    }

    #[test]
    fn r16_a_service_takes_it_or_does_not() {
        for status in [200, 202, 204] {
            assert_eq!(Answer::of(status), Answer::Taken, "{status}");
        }
        assert_eq!(Answer::of(400), Answer::Refused);
        for status in [
            100, 199, 300, 301, 302, 307, 308, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504,
        ] {
            assert_eq!(Answer::of(status), Answer::NotTaken(format!("status {status}")));
        }
    }

    /// `+` is taken, `4` is refused, `-` is in trouble, `x` is that nobody is there.
    fn answers(signs: &str) -> Vec<Answer> {
        let one = |sign| match sign {
            '+' => Answer::Taken,
            '4' => Answer::Refused,
            '-' => Answer::NotTaken("status 500".to_owned()),
            _ => Answer::Away("refused".to_owned()),
        };
        signs.chars().map(one).collect()
    }

    #[test]
    fn r16_an_ending_that_is_not_taken_is_passed_over_only_if_it_keeps_failing_while_later_ones_are_taken() {
        // Answers, tries before and for how many seconds, then: done, passed over, tries after.
        type Row = (&'static str, u32, i64, usize, &'static [usize], u32);
        let table: [Row; 25] = [
            ("", 0, 0, 0, &[], 0),
            ("+", 0, 0, 1, &[], 0),
            ("+++", 7, 100, 3, &[], 0),
            ("-", 0, 0, 0, &[], 1),
            ("-", 3, 7, 0, &[], 4),
            ("---", 5000, 86_400, 0, &[], 5001),
            ("x", 5000, 86_400, 0, &[], 5001),
            ("++-", 0, 0, 2, &[], 1),
            ("++x", 9, 100, 2, &[], 1),
            ("-++", 0, 0, 0, &[], 1),
            ("-++", 2, 3, 0, &[], 3),
            ("-++", 3, 7, 3, &[0], 0),
            ("--+", 50, 100, 3, &[0, 1], 0),
            ("-+-", 3, 7, 2, &[0], 1),
            ("-+-+x", 3, 7, 4, &[0, 2], 1),
            ("+-+", 0, 0, 1, &[], 1),
            // Refused: as everything else, but for ten minutes at most.
            ("4", 0, 0, 0, &[], 1),
            ("4++", 2, 3, 0, &[], 3),
            ("4++", 3, 7, 3, &[0], 0),
            ("444", 20, 599, 0, &[], 21),
            ("444", 20, 600, 3, &[0, 1, 2], 21),
            ("44-4", 20, 600, 2, &[0, 1], 21),
            ("44x", 20, 600, 2, &[0, 1], 21),
            ("44+4", 20, 600, 4, &[0, 1, 3], 1),
            ("-44", 20, 600, 0, &[], 21),
        ];
        for (signs, tries, lasted, done, passed_over, then) in table {
            let before = (tries > 0).then(|| Outage {
                tries,
                since: at(-lasted),
                retry_at: at(0),
                failure: "status 503".to_owned(),
            });
            let verdict = Verdict::of(&answers(signs), before.as_ref(), at(0));
            let outage = verdict.outage.as_ref();
            assert_eq!(
                (
                    verdict.done,
                    verdict.passed_over.as_slice(),
                    outage.map_or(0, |outage| outage.tries)
                ),
                (done, passed_over, then),
                "{signs} after {tries} tries in {lasted} s"
            );
            let since = if then > 1 { at(-lasted) } else { at(0) };
            assert!(
                outage.is_none_or(|outage| outage.since == since),
                "{signs} after {tries}"
            );
        }
    }

    #[test]
    fn l5_an_address_is_shown_without_its_query() {
        for (given, shown) in [
            (
                "https://shop.example.com/logout?key=abracadabra",
                "https://shop.example.com/logout",
            ),
            ("https://shop.example.com/logout", "https://shop.example.com/logout"),
        ] {
            let uri = LogoutUri::parse(given).expect("an address");
            assert_eq!((uri.as_str(), uri.to_string().as_str()), (given, shown));
        }
    }
}
