//! The wall clock under observation: a jump is written down, because limits, tokens and the log go by that clock (F17).
//!
//! Every rule holds whatever the clock says. But whoever reads the log has to know why sessions ended all at once, or why
//! times run backwards; what is removed for good waits until the clock has settled; and after it was set back the log is
//! looked through anew, revocations are read anew, and what a clock that was ahead has left behind is put right.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::clock::{APART, Clock, SETTLED_AFTER, Watch};
use crate::domain::id::SessionId;
use crate::domain::refresh::SUPERSEDED;
use crate::storage::{audit, sessions};

/// Sessions of one transaction.
const BATCH: usize = 1000;
/// The clock is believed to be right after so long, when sessions are shortened by it.
const BELIEVED_AFTER: Duration = Duration::from_hours(24);

/// What was seen of the clock.
#[derive(Debug)]
pub(super) struct ClockWatch {
    seen: Mutex<Seen>,
    /// One writes it down at a time.
    turn: tokio::sync::Mutex<()>,
    /// What ended while the clock was ahead has still to be revoked; before a start it may have been, too.
    has_ended_ahead: AtomicBool,
    /// Revocations are to be read anew.
    pub(super) hears_anew: AtomicBool,
    /// Sessions of a clock that was ahead were looked for since the last jump.
    has_brought_back: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    watch: Watch,
    /// When it last jumped, by time that no setting of it changes; the start if it never did.
    jumped_at: Duration,
    /// By so many milliseconds within a minute before, forward or (negative) back.
    leap: i64,
}

impl Seen {
    fn leap(&self, elapsed: Duration) -> i64 {
        if elapsed < self.jumped_at + SUPERSEDED {
            self.leap
        } else {
            0
        }
    }
}

impl ClockWatch {
    /// From now on.
    pub(super) fn begin(clock: &dyn Clock) -> Self {
        Self {
            seen: Mutex::new(Seen {
                watch: Watch::begin(clock),
                jumped_at: clock.elapsed(),
                leap: 0,
            }),
            turn: tokio::sync::Mutex::default(),
            has_ended_ahead: AtomicBool::new(true),
            hears_anew: AtomicBool::new(false),
            has_brought_back: AtomicBool::new(false),
        }
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// How far the clock leapt forward within the last minute, seen or not yet: by so much what happened before seems to be
    /// longer ago.
    pub(super) fn has_leapt(&self) -> Duration {
        let mut seen = self.clock_watch.seen();
        let unseen = seen.watch.look(self.clock.as_ref()).unwrap_or(0);
        let leap = seen.leap(self.clock.elapsed()).saturating_add(unseen);
        Duration::from_millis(u64::try_from(leap).unwrap_or(0))
    }

    /// No jump of the clock, and no start, for [`SETTLED_AFTER`].
    pub(super) fn clock_has_settled(&self) -> bool {
        self.clock_is_steady_for(SETTLED_AFTER)
    }

    fn clock_is_steady_for(&self, time: Duration) -> bool {
        let mut seen = self.clock_watch.seen();
        seen.watch.look(self.clock.as_ref()).is_none() && self.clock.elapsed() >= seen.jumped_at + time
    }

    /// One look at the clock: writes down once how far it jumped since the last look, in seconds. That, if it did.
    ///
    /// # Errors
    /// When it could not be written down; then the next look finds it again.
    pub async fn watch_clock(&self) -> Result<Option<i64>, ServiceError> {
        let _turn = self.clock_watch.turn.lock().await;
        let mut next = self.clock_watch.seen();
        let jump = next.watch.look(self.clock.as_ref());
        if let Some(jump) = jump {
            let elapsed = self.clock.elapsed();
            (next.leap, next.jumped_at) = (next.leap(elapsed).saturating_add(jump), elapsed);
            self.write_down_jump(jump).await?;
        }
        *self.clock_watch.seen.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.revoke_what_ended_ahead().await?;
        Ok(jump.map(|jump| jump / 1000))
    }

    async fn write_down_jump(&self, jump: i64) -> Result<(), ServiceError> {
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
        self.clock_watch.has_brought_back.store(false, Ordering::SeqCst);
        if jump < 0 {
            self.clock_watch.has_ended_ahead.store(true, Ordering::SeqCst);
            self.clock_watch.hears_anew.store(true, Ordering::SeqCst);
            // What happens now is older than the last look for unsealed events; only a pass over everything finds it.
            self.looks.forget();
        }
        tracing::error!(seconds, reason, "the wall clock jumped");
        Ok(())
    }

    /// What ended while the clock was ahead had no living tokens by that clock, so nobody was told; by the one that was put
    /// right some of them live.
    async fn revoke_what_ended_ahead(&self) -> Result<(), ServiceError> {
        if !self.clock_watch.has_ended_ahead.load(Ordering::SeqCst) {
            return Ok(());
        }
        let now = self.now();
        let mut tx = self.store.read().await?;
        let found = sessions::list_ended_ahead(&mut tx, now).await?;
        drop(tx);
        for batch in found.chunks(BATCH) {
            let mut tx = self.store.write().await?;
            sessions::revoke_again(&mut tx, batch, now);
            tx.commit().await?;
        }
        if !found.is_empty() {
            tracing::info!(
                sessions = found.len(),
                "revoked again: their end lies ahead of this clock"
            );
        }
        self.clock_watch.has_ended_ahead.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// The clock has been steady for a day: of this process, or of the log since the last event that lies ahead, however often
    /// the server was started meanwhile.
    async fn clock_is_believed(&self) -> Result<bool, ServiceError> {
        if self.clock_is_steady_for(BELIEVED_AFTER) {
            return Ok(true);
        }
        let now = self.now();
        let mut tx = self.store.read().await?;
        let since = audit::find_first_seal_after_what_lies_ahead(&mut tx, now.plus(APART)).await?;
        Ok(since.is_some_and(|since| now.since(since) >= BELIEVED_AFTER))
    }

    /// Sessions that began, or were last used, while the clock was ahead would live until a moment that may be years away.
    /// Once the clock has been steady for a day their limits run from then on. A clock that shows a time from before the
    /// account was made is the one that is wrong. How many sessions.
    ///
    /// # Errors
    /// Infrastructure; the next call begins anew.
    pub async fn bring_back_sessions(&self) -> Result<usize, ServiceError> {
        if self.clock_watch.has_brought_back.load(Ordering::SeqCst)
            || !self.clock_has_settled()
            || !self.clock_is_believed().await?
        {
            return Ok(0);
        }
        let now = self.now();
        let (mut all, mut after) = (0, SessionId(uuid::Uuid::nil()));
        loop {
            let mut tx = self.store.read().await?;
            let found = sessions::list_living_ahead(&mut tx, now.plus(APART), after, BATCH).await?;
            drop(tx);
            if !self.clock_has_settled() {
                return Ok(all);
            }
            let Some(last) = found.last() else {
                break;
            };
            after = *last;
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
        // A jump meanwhile has them looked for once more.
        let is_done = self.clock_has_settled();
        self.clock_watch.has_brought_back.store(is_done, Ordering::SeqCst);
        Ok(all)
    }
}
