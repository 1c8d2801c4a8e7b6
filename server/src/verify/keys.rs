//! When published keys are read: by their age, and for a key that is not known, but not as often as anybody likes (J13).

use std::time::Duration;

use crate::domain::clock::Timestamp;

/// Between two readings because of unknown keys; tokens with invented ones cost nothing but this.
pub const PAUSE: Duration = Duration::from_secs(30);

/// What is remembered of readings.
#[derive(Debug, Default)]
pub struct KeyCache {
    asked_at: Option<Timestamp>,
    has_keys: bool,
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

    /// They were read.
    pub fn done(&mut self) {
        self.has_keys = true;
    }

    /// They were read at least once.
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        self.has_keys
    }
}
