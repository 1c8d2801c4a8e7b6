//! The wall clock under observation: a jump is written down, because limits, tokens and the log go by that clock (F17).
//!
//! Every rule holds whatever the clock says. But whoever reads the log has to know why sessions ended all at once, or why
//! times run backwards; what is removed for good waits until the clock has settled; and after it was set back the log is
//! looked through anew.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::clock::APART;
use crate::domain::refresh::SUPERSEDED;
use crate::storage::{audit, sessions};

/// Sessions brought back in one transaction.
const BATCH: u32 = 1000;

/// When the clock last jumped, in milliseconds of the time that no setting of it changes; 0 if it never did.
#[derive(Debug, Default)]
pub(super) struct Jumped {
    at: AtomicU64,
    /// By so many milliseconds, forward or (negative) back.
    leap: AtomicI64,
    /// It went back, and what ended while it was ahead has still to be revoked.
    has_ended_ahead: AtomicBool,
    /// Sessions of a clock that was ahead have been looked for since.
    pub(super) sought: AtomicBool,
}

impl Jumped {
    /// The beginning of that time, if it never did.
    pub(super) fn at(&self) -> Duration {
        Duration::from_millis(self.at.load(Ordering::Relaxed))
    }

    fn leap(&self) -> i64 {
        self.leap.load(Ordering::Relaxed)
    }
}

impl Backend {
    /// How far the clock leapt forward within the last minute: by so much what happened before seems to be longer ago.
    pub(super) fn has_leapt(&self) -> Duration {
        let jumped_at = self.clock_jumped.at();
        let is_known = !jumped_at.is_zero() && self.clock.elapsed() < jumped_at + SUPERSEDED;
        let known = if is_known { self.clock_jumped.leap() } else { 0 };
        // Or since the last look; while that one writes down what it saw, it is known already.
        let unseen = self.clock_watch.try_lock().ok().and_then(|watch| {
            let mut watch = *watch;
            watch.look(self.clock.as_ref())
        });
        let leap = if is_known { known } else { unseen.unwrap_or(0) };
        Duration::from_millis(u64::try_from(leap).unwrap_or(0))
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
            drop(watch);
            self.revoke_what_ended_ahead().await?;
            return Ok(None);
        };
        let elapsed = u64::try_from(self.clock.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.clock_jumped.leap.store(jump, Ordering::Relaxed);
        self.clock_jumped.at.store(elapsed, Ordering::Relaxed);
        self.clock_jumped.sought.store(false, Ordering::Relaxed);
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
        tx.commit().await?;
        *watch = next;
        if jump < 0 {
            self.clock_jumped.has_ended_ahead.store(true, Ordering::Relaxed);
            // What happens now is older than the last look for unsealed events; only a pass over everything finds it.
            self.looks.forget();
        }
        drop(watch);
        tracing::error!(seconds, reason, "the wall clock jumped");
        self.revoke_what_ended_ahead().await?;
        Ok(Some(seconds))
    }

    /// What ended while the clock was ahead had no living tokens by that clock, so nobody was told; by the one that was put
    /// right some of them live.
    async fn revoke_what_ended_ahead(&self) -> Result<(), ServiceError> {
        if !self.clock_jumped.has_ended_ahead.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = self.now();
        let mut tx = self.store.read().await?;
        let found = sessions::list_ended_ahead(&mut tx, now).await?;
        drop(tx);
        if !found.is_empty() {
            let mut tx = self.store.write().await?;
            sessions::revoke_again(&mut tx, &found, now);
            tx.commit().await?;
            tracing::warn!(sessions = found.len(), "revoked again: ended while the clock was ahead");
        }
        self.clock_jumped.has_ended_ahead.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Sessions that began, or were last used, while the clock was ahead would live until a moment that may be years away.
    /// Once the clock has settled their limits run from now on. How many sessions.
    ///
    /// # Errors
    /// Infrastructure; the next call goes on.
    pub async fn bring_back_sessions(&self) -> Result<usize, ServiceError> {
        if !self.clock_has_settled() || self.clock_jumped.sought.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let mut all = 0;
        loop {
            let now = self.now();
            let mut tx = self.store.read().await?;
            let found = sessions::list_living_ahead(&mut tx, now.plus(APART), BATCH).await?;
            drop(tx);
            if found.is_empty() {
                break;
            }
            let mut tx = self.store.write().await?;
            sessions::bring_back(&mut tx, &found, now).await?;
            tx.commit().await?;
            all += found.len();
        }
        if all > 0 {
            tracing::warn!(
                sessions = all,
                "they began or were used while the clock was ahead; their limits run from now on"
            );
        }
        self.clock_jumped.sought.store(true, Ordering::Relaxed);
        Ok(all)
    }
}
