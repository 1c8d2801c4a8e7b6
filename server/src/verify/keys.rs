//! When published keys are read: by their age, and for a key that is not known, but not as often as anybody likes (J13).

use std::time::Duration;

use crate::domain::clock::Timestamp;

/// Between two readings because of unknown keys; tokens with invented ones cost nothing but this.
pub const PAUSE: Duration = Duration::from_secs(30);

/// Nobody goes by keys that were read longer ago: half an hour before the feed forgets that a key was removed.
pub const MOST_STALE: Duration = Duration::from_mins(30);

/// What is remembered of readings.
#[derive(Debug, Default)]
pub struct KeyCache {
    asked_at: Option<Timestamp>,
    /// By time that no setting of the clock changes, and by the clock, which goes on while the machine is suspended.
    read_at: Option<(Duration, Timestamp)>,
}

impl KeyCache {
    /// Whether the keys may be read now; then this counts as such a reading, whatever comes of it. `is_due`: by
    /// their age, which nobody from outside can bring about.
    pub fn begin(&mut self, is_due: bool, now: Timestamp) -> bool {
        // A clock that was set back must not forbid it for long.
        let rested = self
            .asked_at
            .is_none_or(|at| now.since(at) >= PAUSE || at.since(now) > Duration::ZERO);
        if is_due {
            return true;
        }
        if rested {
            self.asked_at = Some(now);
        }
        rested
    }

    /// They were read; that is when they had been asked for.
    pub fn done(&mut self, elapsed: Duration, now: Timestamp) {
        self.read_at = Some((elapsed, now));
    }

    /// They were read at least once.
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        self.read_at.is_some()
    }

    /// They were read so long ago that one of them may have been removed, and the feed may speak of it no more.
    #[must_use]
    pub fn is_stale(&self, elapsed: Duration, now: Timestamp) -> bool {
        self.read_at
            .is_some_and(|(at, read_at)| elapsed.saturating_sub(at) > MOST_STALE || now.since(read_at) > MOST_STALE)
    }
}
