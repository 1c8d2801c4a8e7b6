//! What a service knows of revocations, and as of when. Takes what arrived and the time; asks nobody.
//!
//! **The date.** The issuer's node says by its own clock as of when it knows everything (`as_of`) and what its clock
//! shows (`at`). The two clocks are never compared. The first `at` of a stream was read after our request was sent, so
//! a later moment of the node's clock lies, by ours, at the sending plus the difference, or later still. Counting from
//! there errs on the old side only: by the time the request took to arrive, and by all that holds events up on the way.
//! The event `opened` brings it before everything else, however much there is to be told first.

use std::time::Duration;

use serde::Deserialize;

use super::events::Reader;
use crate::domain::clock::Timestamp;
use crate::domain::revocation::{Entry, Presented, Registry, Target, Verdict};

/// Most entries that are kept: about 60 MB, once as many sessions have ended within an hour. Beyond that every token whose
/// session is not among them is answered with "unavailable", so this is more than anybody is expected to end at once.
const CAPACITY: usize = 1_000_000;

/// The stream says something that makes no sense: give it up and open it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// No server-sent events.
    #[error("this is no stream of events")]
    Stream,
    /// Everything has to be heard anew.
    #[error("this machine's clock was set back")]
    ClockSetBack,
    /// What is heard is dated by a clock that is not the one of the beginning.
    #[error("this machine's clock was set")]
    ClockStepped,
    /// An event of ours in another form.
    #[error("what the feed says is not understood")]
    Content,
}

#[derive(Deserialize)]
struct Opened {
    at: i64,
}

#[derive(Deserialize)]
struct Heartbeat {
    cursor: u64,
    as_of: i64,
    at: i64,
}

/// When a request was sent by our clock, and what the node's clock showed after that.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    sent_at: Timestamp,
    node_at: Timestamp,
}

impl Anchor {
    /// By our clock, not later than the node's `moment`.
    fn earliest(self, moment: Timestamp) -> Timestamp {
        if moment >= self.node_at {
            self.sent_at.plus(moment.since(self.node_at))
        } else {
            self.sent_at.minus(self.node_at.since(moment))
        }
    }
}

/// The knowledge.
#[derive(Debug)]
pub struct Follower {
    bound: Duration,
    registry: Registry,
    cursor: u64,
    /// Number and moment of the last entry.
    seen: Option<(u64, Timestamp)>,
    as_of: Option<Timestamp>,
    /// Of the stream that is open.
    sent_at: Option<Timestamp>,
    anchor: Option<Anchor>,
    reader: Reader,
    keys_removed: u64,
}

impl Follower {
    /// Knows nothing. `bound`: the age that knowledge may have.
    #[must_use]
    pub fn new(bound: Duration) -> Self {
        Self {
            bound,
            registry: Registry::new(CAPACITY),
            cursor: 0,
            seen: None,
            as_of: None,
            sent_at: None,
            anchor: None,
            reader: Reader::default(),
            keys_removed: 0,
        }
    }

    /// How many entries about keys were heard.
    #[must_use]
    pub const fn keys_removed(&self) -> u64 {
        self.keys_removed
    }

    /// Where to go on from; 0 is the beginning.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The last entry heard, as the feed wants to be told of it: after a failover its number may belong to another one.
    #[must_use]
    pub fn seen(&self) -> Option<String> {
        self.seen.map(|(cursor, at)| format!("{cursor}-{}", at.as_millis()))
    }

    /// As of when it knows everything.
    #[must_use]
    pub const fn as_of(&self) -> Option<Timestamp> {
        self.as_of
    }

    /// The stream that was asked for at `sent_at` is open.
    pub fn opened(&mut self, sent_at: Timestamp) {
        self.sent_at = Some(sent_at);
        self.anchor = None;
        self.reader = Reader::default();
    }

    /// The issuer does not know our cursor, or ours means nothing any more. What was revoked stays revoked.
    pub fn begin_anew(&mut self) {
        (self.cursor, self.seen) = (0, None);
        self.as_of = None;
    }

    /// Takes a piece of the stream. `settled`: the clock has gone on as usual for so long that what is over by it may be
    /// forgotten.
    ///
    /// # Errors
    /// [`Broken`]: what came before it in this piece was taken.
    pub fn received(&mut self, bytes: &[u8], now: Timestamp, settled: bool) -> Result<(), Broken> {
        for event in self.reader.read(bytes).ok_or(Broken::Stream)? {
            match event.kind.as_str() {
                "revoked" => {
                    let entry: Entry = serde_json::from_str(&event.data).map_err(|_| Broken::Content)?;
                    self.cursor = self.cursor.max(entry.cursor);
                    self.seen = self.seen.max(Some((entry.cursor, entry.at)));
                    self.keys_removed += u64::from(matches!(entry.target, Target::Key { .. }));
                    self.registry.apply(&[entry], now);
                }
                "heartbeat" => {
                    let beat: Heartbeat = serde_json::from_str(&event.data).map_err(|_| Broken::Content)?;
                    self.beat(&beat, now)?;
                    if settled {
                        self.registry.forget(now);
                    }
                }
                "opened" => {
                    let opened: Opened = serde_json::from_str(&event.data).map_err(|_| Broken::Content)?;
                    self.anchor(opened.at)?;
                }
                // Kinds of events that a later issuer may add say nothing of tokens; revocations are `revoked`.
                _ => {}
            }
        }
        Ok(())
    }

    /// The stream's anchor, which is its first one.
    fn anchor(&mut self, at: i64) -> Result<Anchor, Broken> {
        let sent_at = self.sent_at.ok_or(Broken::Content)?;
        Ok(*self.anchor.get_or_insert(Anchor {
            sent_at,
            node_at: Timestamp::from_millis(at),
        }))
    }

    fn beat(&mut self, beat: &Heartbeat, now: Timestamp) -> Result<(), Broken> {
        let anchor = self.anchor(beat.at)?;
        self.cursor = self.cursor.max(beat.cursor);
        self.know_as_of(anchor.earliest(Timestamp::from_millis(beat.as_of)), now);
        Ok(())
    }

    /// Never in the future: a node's clock that was set forward must not make knowledge younger than its arrival.
    fn know_as_of(&mut self, as_of: Timestamp, now: Timestamp) {
        let before = self.as_of.filter(|before| *before <= now);
        self.as_of = Some(as_of.min(now)).max(before);
    }

    /// Knowledge is no older than the bound. A date in the future says that our clock was set back.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.as_of
            .is_some_and(|as_of| now.since(as_of) <= self.bound && as_of.since(now) <= self.bound)
    }

    /// What is known of a token now.
    #[must_use]
    pub fn verdict(&self, token: &Presented<'_>, now: Timestamp) -> Verdict {
        match self.registry.verdict(token, now) {
            Verdict::NotRevoked if !self.is_fresh(now) => Verdict::Unknown,
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_is_told_until_it_begins_anew() {
        let mut follower = Follower::new(Duration::from_secs(1));
        let now = Timestamp::from_seconds(1_790_000_000);
        follower.opened(now);
        assert_eq!((follower.cursor(), follower.seen()), (0, None));
        let revoked = |cursor: u64, at: i64| {
            let data = serde_json::json!({ "cursor": cursor, "kid": "k", "at": at, "until": at + 1000 });
            format!("event: revoked\nid: {cursor}\ndata: {data}\n\n")
        };
        let at = now.as_millis();
        let beat = serde_json::json!({ "cursor": 9, "as_of": at, "at": at });
        // Another node's clock may be behind; the number alone says which is the last.
        let text = revoked(6, at) + &revoked(7, at - 5) + &format!("event: heartbeat\nid: 9\ndata: {beat}\n\n");
        follower.received(text.as_bytes(), now, true).expect("understood");
        assert_eq!((follower.cursor(), follower.seen()), (9, Some(format!("7-{}", at - 5))));
        follower.begin_anew();
        assert_eq!((follower.cursor(), follower.seen()), (0, None));
    }
}
