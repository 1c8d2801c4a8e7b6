//! The wall clock under observation: a jump is written down, because limits, tokens and the log go by that clock (F17).
//!
//! Every rule holds whatever the clock says. But whoever reads the log has to know why sessions ended all at once, or why
//! times run backwards; what is removed for good waits until the clock has settled; and after it was set back the log is
//! looked through anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::refresh::SUPERSEDED;
use crate::storage::{audit, sessions};

/// When the clock last jumped, in milliseconds of the time that no setting of it changes; 0 if it never did.
#[derive(Debug, Default)]
pub(super) struct Jumped(AtomicU64);

impl Jumped {
    /// The beginning of that time, if it never did.
    pub(super) fn at(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Backend {
    /// The clock jumped within the last minute, so that what happened a moment ago may seem to be long ago.
    pub(super) fn clock_has_just_jumped(&self) -> bool {
        let jumped_at = self.clock_jumped.at();
        let is_known = !jumped_at.is_zero() && self.clock.elapsed() < jumped_at + SUPERSEDED;
        // Or since the last look; while that one is writing down what it saw, it did.
        is_known
            || self.clock_watch.try_lock().map_or(true, |watch| {
                let mut unseen = *watch;
                unseen.look(self.clock.as_ref()).is_some()
            })
    }

    /// One look at the clock: writes down once how far it jumped since the last look, in seconds. That, if it did.
    ///
    /// # Errors
    /// When it could not be written down; then the next look finds it again.
    pub async fn watch_clock(&self) -> Result<Option<i64>, ServiceError> {
        let mut watch = self.clock_watch.lock().await;
        let mut next = *watch;
        let Some(jump) = next.look(self.clock.as_ref()) else {
            *watch = next;
            return Ok(None);
        };
        let elapsed = u64::try_from(self.clock.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.clock_jumped.0.store(elapsed, Ordering::Relaxed);
        let seconds = jump / 1000;
        // From within, a machine that slept looks like one whose clock was set forward.
        let reason = if jump < 0 {
            "clock_was_set_back"
        } else {
            "clock_was_set_forward_or_machine_was_suspended"
        };
        let event = self
            .event(Kind::ClockJumped, &Circumstances::default())
            .reason(reason)
            .fact("seconds", seconds);
        // In a transaction, which comes to nothing if it is late: the next look would write it down again.
        let mut tx = self.store.write().await?;
        audit::append_events(&mut tx, &[event]).await?;
        if jump < 0 {
            let sessions = sessions::revoke_ended_ahead(&mut tx, self.now()).await?;
            tracing::warn!(sessions, "revoked again: ended while the clock was ahead");
        }
        tx.commit().await?;
        *watch = next;
        if jump < 0 {
            // What happens now is older than the last look for unsealed events; only a pass over everything finds it.
            self.looks.forget();
        }
        tracing::error!(seconds, reason, "the wall clock jumped");
        Ok(Some(seconds))
    }
}
