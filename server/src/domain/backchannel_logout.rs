//! Telling services that a session ended (OpenID Connect Back-Channel Logout 1.0): where they are told, what they are told,
//! and what comes of an answer.
//!
//! Pure: must not know how anything is delivered, nor where it is kept how far a service was told.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use url::{Host, Url};

use super::audit::Event;
use super::client::ClientId;
use super::clock::{APART, Timestamp};
use super::id::EventId;
use super::jwt::{LOGOUT_TOKEN_LIFE, LogoutClaims, LogoutEvent};
use super::outage::{Outage, is_ahead};
use super::security_event::is_end_of_session;

/// Longest address that is taken.
const MOST_URI_CHARS: usize = 512;
/// An ending that is not taken in so many tries, in each of which a later one was, is passed over: about five minutes.
const MOST_ALONE: u32 = 10;
/// So is one that was refused so often in a row: about ten minutes, longer than anybody keeps a copy of published keys,
/// which is what the service may lack.
const MOST_REFUSALS: u32 = 15;
/// So long a turn of telling takes at most: two answers that never come, one after the other, and what comes behind them.
pub const TURN: Duration = Duration::from_secs(12);
/// So long a node has for what it took upon itself to tell; then another may. A turn, and by how much the clocks of two
/// nodes may differ.
pub const CLAIM: Duration = TURN.saturating_add(APART);

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
            200 | 204 => Self::Taken,
            400 => Self::Refused,
            _ => Self::NotTaken(format!("status {status}")),
        }
    }

    /// Why it was not taken.
    fn failure(&self) -> Option<String> {
        match self {
            Self::Taken => None,
            Self::Refused => Some("status 400".to_owned()),
            Self::NotTaken(failure) | Self::Away(failure) => Some(failure.clone()),
        }
    }
}

/// What a node remembers of the endings that a service did not take; bounded by what is told in one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(HashMap<EventId, Attempt>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempt {
    /// Tries in which it was not taken though a later one was.
    alone: u32,
    /// Refusals in a row.
    refusals: u32,
}

impl Attempt {
    const fn is_in_vain(self) -> bool {
        self.alone >= MOST_ALONE || self.refusals >= MOST_REFUSALS
    }
}

impl Attempts {
    fn note(&mut self, asked: &[(EventId, Option<Answer>)]) {
        let before = std::mem::take(&mut self.0);
        let last_taken = asked.iter().rposition(|(_, answer)| *answer == Some(Answer::Taken));
        for (at, (id, answer)) in asked.iter().enumerate() {
            let mut attempt = before.get(id).copied().unwrap_or_default();
            match answer {
                Some(Answer::Taken) => continue,
                Some(Answer::Refused) => attempt.refusals += 1,
                Some(Answer::NotTaken(_)) => attempt.refusals = 0,
                Some(Answer::Away(_)) | None => {}
            }
            let is_answered = matches!(answer, Some(Answer::Refused | Answer::NotTaken(_)));
            attempt.alone += u32::from(is_answered && Some(at) < last_taken);
            self.0.insert(*id, attempt);
        }
    }

    fn is_in_vain(&self, id: EventId) -> bool {
        self.0.get(&id).is_some_and(|attempt| attempt.is_in_vain())
    }
}

/// What becomes of endings after a try, in their order.
///
/// Whatever is not taken is tried again, together with all that comes after it, so the later ones are told meanwhile. An
/// ending that keeps failing while later ones are taken ([`MOST_ALONE`]), or keeps being refused ([`MOST_REFUSALS`]), is
/// passed over in the end, so that it does not hold up the others for ever. For a service that is away, or in trouble of
/// its own, everything waits for as long as it takes.
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
    /// `asked`: the answers, none where there was not even the time to ask. `outage`: as it was before.
    #[must_use]
    pub fn of(
        asked: &[(EventId, Option<Answer>)],
        attempts: &mut Attempts,
        outage: Option<&Outage>,
        now: Timestamp,
    ) -> Self {
        attempts.note(asked);
        let is_taken = |answer: &Option<Answer>| *answer == Some(Answer::Taken);
        let takes_some = asked.iter().any(|(_, answer)| is_taken(answer));
        let is_done = |(id, answer): &(EventId, Option<Answer>)| is_taken(answer) || attempts.is_in_vain(*id);
        let done = asked.iter().position(|one| !is_done(one)).unwrap_or(asked.len());
        let failure = match asked.get(done) {
            Some((_, Some(answer))) => answer.failure(),
            // Refused to the last: that is how it is doing.
            None if !takes_some => asked.last().and_then(|(_, answer)| answer.as_ref()?.failure()),
            Some((_, None)) | None => None,
        };
        // If the service took something and got further, another ending fails now: that is counted anew.
        let before = outage.filter(|_| done == 0 || !takes_some);
        let passed_over = (0..done).filter(|at| !is_taken(&asked[*at].1)).collect();
        attempts
            .0
            .retain(|id, _| asked[done..].iter().any(|(waiting, _)| waiting == id));
        Self {
            done,
            passed_over,
            outage: match failure {
                Some(failure) => Some(Outage::after(before, failure, now)),
                // Nothing was learned.
                None if done == 0 => outage.cloned(),
                None => None,
            },
        }
    }
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
        let rests = |outage: &Outage| outage.rests(now);
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
        // One that is as far ahead does not take over from a node that has just begun.
        (receiver.outage, receiver.claimed_until) = (None, at(132));
        for (now, is_due) in [(0, false), (120 + 11, false), (132, true), (-120, false), (-121, true)] {
            assert_eq!(receiver.is_due(at(now)), is_due, "{now}");
        }
    }

    #[test]
    fn r16_a_service_takes_it_or_does_not() {
        for status in [200, 204] {
            assert_eq!(Answer::of(status), Answer::Taken, "{status}");
        }
        assert_eq!(Answer::of(400), Answer::Refused);
        for status in [
            100, 199, 201, 202, 206, 300, 301, 302, 307, 308, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504,
        ] {
            assert_eq!(Answer::of(status), Answer::NotTaken(format!("status {status}")));
        }
    }

    /// `+` is taken, `4` is refused, `-` is in trouble, `x` is that nobody is there, and `.` that there was no time to ask.
    fn asked(signs: &str) -> Vec<(EventId, Option<Answer>)> {
        let one = |(at, sign)| {
            let answer = match sign {
                '+' => Some(Answer::Taken),
                '4' => Some(Answer::Refused),
                '-' => Some(Answer::NotTaken("status 500".to_owned())),
                'x' => Some(Answer::Away("refused".to_owned())),
                _ => None,
            };
            (EventId(uuid::Uuid::from_u128(at)), answer)
        };
        (0..).zip(signs.chars()).map(one).collect()
    }

    /// What comes of the same answers again and again, up to the try in which something is passed over, or a hundred.
    fn again_and_again(signs: &str) -> (u32, Verdict, Attempts) {
        let (mut attempts, mut outage) = (Attempts::default(), None);
        for tries in 1.. {
            let verdict = Verdict::of(&asked(signs), &mut attempts, outage.as_ref(), at(0));
            if verdict.done > 0 || tries == 100 {
                return (tries, verdict, attempts);
            }
            outage = verdict.outage;
        }
        unreachable!("it ends after a hundred")
    }

    #[test]
    fn r16_an_ending_is_passed_over_only_if_it_keeps_failing_while_later_ones_are_taken_or_keeps_being_refused() {
        // The same answers each time, then: in which try anything is done, how many, which were passed over.
        let table: [(&str, u32, usize, &[usize]); 20] = [
            ("+", 1, 1, &[]),
            ("+++", 1, 3, &[]),
            ("++-", 1, 2, &[]),
            ("+-+", 1, 1, &[]),
            ("++x", 1, 2, &[]),
            ("+..", 1, 1, &[]),
            ("-", 100, 0, &[]),
            ("---", 100, 0, &[]),
            ("x", 100, 0, &[]),
            ("x++", 100, 0, &[]),
            (".", 100, 0, &[]),
            ("-++", 10, 3, &[0]),
            ("-.+", 10, 1, &[0]),
            ("--+", 10, 3, &[0, 1]),
            ("-+-", 10, 2, &[0]),
            ("4++", 10, 3, &[0]),
            ("4", 15, 1, &[0]),
            ("444", 15, 3, &[0, 1, 2]),
            ("44-4", 15, 2, &[0, 1]),
            ("-44", 100, 0, &[]),
        ];
        for (signs, tries, done, passed_over) in table {
            let (tried, verdict, attempts) = again_and_again(signs);
            assert_eq!(
                (tried, verdict.done, verdict.passed_over.as_slice()),
                (tries, done, passed_over),
                "{signs}"
            );
            assert!(
                attempts.0.len() <= signs.len() - done,
                "{signs}: nothing is kept for ever"
            );
        }
    }

    #[test]
    fn r16_each_ending_has_its_own_tries_whatever_went_wrong_before() {
        let (mut attempts, mut outage) = (Attempts::default(), None);
        // Nobody is there for long, then half of the answers are trouble, as behind a balancer with one server down.
        for signs in ["x..."; 50].into_iter().chain(["-+-+"]) {
            let verdict = Verdict::of(&asked(signs), &mut attempts, outage.as_ref(), at(0));
            assert_eq!((verdict.done, verdict.passed_over.len()), (0, 0), "{signs}");
            outage = verdict.outage;
        }
        assert_eq!(outage.as_ref().map(|outage| outage.tries), Some(51));
        let verdict = Verdict::of(&asked("++-+"), &mut attempts, outage.as_ref(), at(5));
        assert_eq!((verdict.done, verdict.passed_over.len()), (2, 0));
        let anew = verdict.outage.expect("the third");
        assert_eq!(
            (anew.tries, anew.since),
            (1, at(5)),
            "another ending fails: counted anew"
        );
        // Refusals count in a row only, and trouble in between is none.
        let mut attempts = Attempts::default();
        for round in 0..3 {
            for _ in 0..14 {
                let verdict = Verdict::of(&asked("44"), &mut attempts, None, at(0));
                assert_eq!(verdict.done, 0, "{round}");
            }
            assert_eq!(Verdict::of(&asked("--"), &mut attempts, None, at(0)).done, 0);
        }
        // Nothing was asked: nothing changes.
        let before = Outage::after(None, "status 500".to_owned(), at(0));
        let verdict = Verdict::of(&asked(".."), &mut attempts, Some(&before), at(9));
        assert_eq!((verdict.done, verdict.outage), (0, Some(before)));
    }

    #[test]
    fn r16_a_service_that_refuses_everything_stays_away_after_what_was_passed_over() {
        let (_, verdict, _) = again_and_again("444");
        let outage = verdict.outage.expect("it took nothing");
        assert_eq!((outage.tries, outage.failure.as_str()), (15, "status 400"));
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
