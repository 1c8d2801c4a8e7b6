//! Time as a value. The only place in the product that reads the system's clocks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A moment: Unix milliseconds, UTC. Arithmetic saturates; it never wraps or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From Unix seconds.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Unix seconds, rounded down (the form of JWT times, RFC 7519 `NumericDate`).
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// For libraries; the epoch, if it lies before that.
    #[must_use]
    pub fn to_system_time(self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// Later by a duration.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Earlier by a duration.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Time since `earlier`; zero if that lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A duration as whole milliseconds for a BIGINT column.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where "now" comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// Time since a moment that stays the same for as long as the program runs, whatever the wall clock is set to. It
    /// may stand still while the machine is suspended.
    fn elapsed(&self) -> Duration;
}

/// A wall clock that went otherwise than the other one by more than this was set, or the machine was suspended.
/// Corrections that are made little by little, and leap seconds, stay far below.
pub const JUMP: Duration = Duration::from_secs(30);

/// What was told of a wall clock is true until it was set by more than this. Corrections that are made little by little stay
/// below it for half an hour.
pub const STEP: Duration = Duration::from_secs(1);

/// Nodes whose clocks differ by more than this do not serve together: far more than any tolerance, far less than harm.
/// Moments further ahead than they could be, and this, were written before the clock was set back.
pub const APART: Duration = Duration::from_mins(2);

/// Notices jumps of the wall clock between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    wall: Timestamp,
    elapsed: Duration,
}

impl Watch {
    /// From now on.
    #[must_use]
    pub fn begin(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now(),
            elapsed: clock.elapsed(),
        }
    }

    /// How far the wall clock jumped since the last look, in milliseconds, forward or (negative) back; `None` within
    /// [`JUMP`].
    pub fn look(&mut self, clock: &dyn Clock) -> Option<i64> {
        let now = Self::begin(clock);
        let jump = self.until(&now);
        *self = now;
        (jump.unsigned_abs() > millis(JUMP).unsigned_abs()).then_some(jump)
    }

    /// Whether the wall clock was set by more than [`STEP`] since the last look, forward or back.
    #[must_use]
    pub fn has_stepped(&self, clock: &dyn Clock) -> bool {
        self.until(&Self::begin(clock)).unsigned_abs() > millis(STEP).unsigned_abs()
    }

    fn until(&self, later: &Self) -> i64 {
        let expected = self.wall.plus(later.elapsed.saturating_sub(self.elapsed));
        later.wall.as_millis().saturating_sub(expected.as_millis())
    }
}

/// For so long after a jump of the clock, or the start, nothing is removed that would be missed if somebody were just about to
/// set it right: by then a token may be good again that was revoked, or used up.
pub const SETTLED_AFTER: Duration = Duration::from_hours(1);

/// Whether the wall clock has gone on as usual for [`SETTLED_AFTER`].
#[derive(Clone, Copy, Debug)]
pub struct Settling {
    watch: Watch,
    jumped_at: Duration,
}

impl Settling {
    /// From now on.
    #[must_use]
    pub fn begin(clock: &dyn Clock) -> Self {
        Self {
            watch: Watch::begin(clock),
            jumped_at: clock.elapsed(),
        }
    }

    /// One look: how it was set since the last one, if it was.
    pub fn look(&mut self, clock: &dyn Clock) -> Option<i64> {
        let jump = self.watch.look(clock);
        if jump.is_some() {
            self.jumped_at = clock.elapsed();
        }
        jump
    }

    /// As of the last look.
    #[must_use]
    pub fn has_settled(&self, clock: &dyn Clock) -> bool {
        clock.elapsed() >= self.jumped_at + SETTLED_AFTER
    }
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(millis(since_epoch))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn elapsed(&self) -> Duration {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        BEGUN.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that moves only when told to: for tests, and for the simulated month of the demo realm.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    /// Milliseconds that passed.
    elapsed: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self {
            wall: AtomicI64::new(start.0),
            elapsed: AtomicI64::new(0),
        }
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.elapsed.fetch_add(millis(by), Ordering::SeqCst);
        self.wall.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// The wall clock is set, forward or back. No time passes.
    pub fn set(&self, to: Timestamp) {
        self.wall.store(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.elapsed.load(Ordering::SeqCst)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any bits (xorshift64, G. Marsaglia, 2003): the same in every run.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn f19_no_arithmetic_with_times_wraps_or_panics() {
        let mut state = 0x6d61_7966_6c79;
        let mut extreme = 0_u32;
        for round in 0..1_000_000_u32 {
            // All magnitudes alike, and the ends of what there is.
            let shift = next(&mut state) % 64;
            let bits = next(&mut state).cast_signed();
            let value = match round % 50 {
                0 => i64::MAX,
                1 => i64::MIN,
                _ => bits >> shift,
            };
            let at = Timestamp::from_millis(value);
            let by = Duration::from_millis(next(&mut state) >> (1 + next(&mut state) % 63));
            let (later, earlier) = (at.plus(by), at.minus(by));
            assert!(earlier <= at && at <= later, "{at:?} {by:?}");
            let exact = i128::from(value) + i128::try_from(by.as_millis()).unwrap();
            if exact <= i128::from(i64::MAX) {
                assert_eq!(i128::from(later.as_millis()), exact);
                assert_eq!(later.since(at), by);
            } else {
                extreme += 1;
                assert_eq!(later.as_millis(), i64::MAX);
            }
            assert_eq!(at.since(later), Duration::ZERO);
            assert!(Timestamp::from_seconds(at.as_seconds()).since(at) < Duration::from_secs(1));
            let _ = Timestamp::from_seconds(value);
        }
        assert!(extreme > 10_000, "the ends are reached");
    }
}
