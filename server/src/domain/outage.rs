//! Something outside that does not answer: since when, and when it is tried again. Must not know what it is.

use std::time::Duration;

use super::clock::{APART, Timestamp};

/// Pause after the first try that failed; doubled after each further one …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// After so many tries one after another it is said to be away.
const NOTED_AFTER: u32 = 4;

/// How something that could not be reached, or did not do its work, is doing.
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

    /// It is not time to try again.
    #[must_use]
    pub fn rests(&self, now: Timestamp) -> bool {
        is_ahead(self.retry_at, now, LONGEST_PAUSE)
    }

    /// It has lasted: no longer a moment that nobody needs to know of.
    #[must_use]
    pub const fn is_noted(&self) -> bool {
        self.tries >= NOTED_AFTER
    }
}

/// A moment up to which something waits, never for longer than `most`: if the clock was set back, it waits no more.
#[must_use]
pub fn is_ahead(moment: Timestamp, now: Timestamp, most: Duration) -> bool {
    moment > now && moment.since(now) <= most + APART
}
