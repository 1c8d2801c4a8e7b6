//! Sealing the audit log: a background task chains every committed event; and walking the whole chain.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::audit_seal::{SealKey, Tampering, Walk};
use crate::domain::clock::{APART, Clock, Timestamp};
use crate::storage::audit::{self, Place};

/// The pause between two looks for what is new.
pub const SEAL_EVERY: Duration = Duration::from_secs(5);
/// Events sealed in one transaction.
const BATCH: u32 = 1000;
/// Nearly every event is committed within this time of its moment, by the clock of this node.
const USUAL: Duration = Duration::from_secs(5);
/// A transaction may commit an event this much after its moment: by the clock of another node, and later than any
/// transaction can last.
const LATE: Duration = APART.saturating_add(Duration::from_mins(1));
/// How often those are looked for that came later than usual: each such look goes through all events of [`LATE`].
const LOOK_FOR_LATE_EVERY: Duration = Duration::from_secs(30);
/// An event older than this without a seal was slipped in, or sealing has stopped: by a clock that may be ahead of that
/// of the event's node, after a late look that was due.
const SEALED_WITHIN: Duration = APART.saturating_add(Duration::from_mins(1));

/// What of the log was looked through for unsealed events. By this node's clock and for its own looks alone: another
/// node's clock may differ, and it may see other events.
#[derive(Debug, Default)]
pub(super) struct Looks {
    state: Mutex<State>,
    /// Nothing has happened since that makes it necessary to look through everything: not so at the start, and not after
    /// the clock was set back, for what happens then is older than the last look.
    is_sound: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The last look for what is new that came to the end of the log.
    newest: Option<Look>,
    /// Where the look through everything goes on; none: it has come to the end.
    rest: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    /// For those that are committed as usual.
    usual: Timestamp,
    /// For those that are committed late.
    late: Timestamp,
    /// The late look before it.
    late_before: Timestamp,
}

impl Look {
    /// A look that begins now, and the moment from which on it has to look. A late look goes back to the last but one:
    /// whatever it was too early for is seen by a second one, even if time made a leap between them. The first goes back
    /// to where this log was last sealed, by whatever node.
    fn next(last: Option<Self>, now: Timestamp, last_sealed: Option<Timestamp>) -> (Self, Timestamp) {
        let Some(last) = last else {
            let look = Self {
                usual: now,
                late: now,
                late_before: now,
            };
            return (
                look,
                last_sealed.map_or(audit::BEGINNING.0, |at| at.min(now).minus(LATE)),
            );
        };
        if now.since(last.late) < LOOK_FOR_LATE_EVERY {
            return (Self { usual: now, ..last }, last.usual.minus(USUAL));
        }
        let look = Self {
            usual: now,
            late: now,
            late_before: last.late,
        };
        (look, last.late_before.minus(LATE))
    }
}

impl Looks {
    /// A look for what is new.
    fn begin(&self, clock: &dyn Clock, last_sealed: Option<Timestamp>) -> (Look, Timestamp) {
        let mut state = self.state();
        if !self.is_sound.swap(true, Ordering::Relaxed) {
            *state = State {
                newest: None,
                rest: Some(audit::BEGINNING),
            };
        }
        Look::next(state.newest, clock.now(), last_sealed)
    }

    /// It has come to the end of the log.
    fn done(&self, look: Look) {
        self.state().newest = Some(look);
    }

    fn rest(&self) -> Option<Place> {
        self.state().rest
    }

    fn set_rest(&self, rest: Option<Place>) {
        self.state().rest = rest;
    }

    /// Everything is looked through anew.
    pub(super) fn forget(&self) {
        self.is_sound.store(false, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What verifying found.
#[derive(Debug)]
pub struct SealReport {
    /// Links that fit.
    pub verified: u64,
    /// The first thing that does not.
    pub tampering: Option<Tampering>,
    /// Whether a checkpoint outside the database was there to meet.
    pub checkpoint: bool,
}

impl SealReport {
    /// Nothing is wrong.
    #[must_use]
    pub const fn is_intact(&self) -> bool {
        self.tampering.is_none()
    }
}

impl std::fmt::Display for SealReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tampering {
            Some(tampering) => write!(f, "NOT intact: {tampering} ({} events before it fit)", self.verified)?,
            None => write!(f, "Intact: {} events are sealed and fit", self.verified)?,
        }
        if self.checkpoint {
            f.write_str("; the checkpoint was met")
        } else {
            f.write_str("; no checkpoint was found")
        }
    }
}

impl Backend {
    pub(super) fn seal_key(&self) -> SealKey {
        SealKey::new(&self.kek.derive("audit seal"))
    }

    /// Seals what has been committed since, and shows the end in the checkpoint. How many events.
    ///
    /// Looking through everything, at first and after the clock was set back, may take minutes: what happens meanwhile is
    /// sealed in between.
    ///
    /// # Errors
    /// Infrastructure; what was sealed until then is sealed, and the next call looks from the same place.
    pub async fn seal_audit(&self, checkpoint: &Path) -> Result<usize, ServiceError> {
        let mut sealed = 0;
        loop {
            let turn_ends = self.clock.elapsed() + SEAL_EVERY;
            self.seal_newest(&mut sealed).await?;
            let rest = self.seal_rest(turn_ends, &mut sealed).await;
            self.show_end(checkpoint).await?;
            if rest?.is_none() {
                return Ok(sealed);
            }
        }
    }

    /// The same for what is new alone, when there is no time for more.
    ///
    /// # Errors
    /// As above.
    pub async fn seal_last(&self, checkpoint: &Path) -> Result<(), ServiceError> {
        self.seal_newest(&mut 0).await?;
        self.show_end(checkpoint).await
    }

    async fn seal_newest(&self, sealed: &mut usize) -> Result<(), ServiceError> {
        let last = audit::last_seal(&mut self.store.read().await?).await?;
        let (look, since) = self.looks.begin(self.clock.as_ref(), last.map(|seal| seal.sealed_at));
        let mut from = Some((since, audit::BEGINNING.1));
        while let Some(place) = from {
            from = self.seal_some(place, sealed).await?;
        }
        self.looks.done(look);
        Ok(())
    }

    /// Some of what was not looked through yet: at least a step, and further ones as long as it is not time for the newest
    /// again. Where to go on.
    async fn seal_rest(&self, until: Duration, sealed: &mut usize) -> Result<Option<Place>, ServiceError> {
        let mut rest = self.looks.rest();
        while let Some(place) = rest {
            rest = self.seal_some(place, sealed).await?;
            self.looks.set_rest(rest);
            if self.clock.elapsed() >= until {
                break;
            }
        }
        Ok(rest)
    }

    /// Seals some events from a place in the order of time on. Where to go on; none: this was the end of the log.
    async fn seal_some(&self, from: Place, sealed: &mut usize) -> Result<Option<Place>, ServiceError> {
        // Without holding the writer: mostly there is nothing to do.
        let mut tx = self.store.read().await?;
        let last = audit::last_seal(&mut tx).await?;
        let unsealed = audit::list_unsealed(&mut tx, from, BATCH).await?;
        drop(tx);
        let seals = self.seal_key().seal(last.as_ref(), &unsealed.rows, self.now());
        if !seals.is_empty() {
            let mut tx = self.store.write().await?;
            match audit::append_seals(&mut tx, &seals).await {
                // Another node seals at this moment: what it took is no longer found.
                Err(error) if error.is_unique_violation() => {
                    drop(tx);
                    let now_last = audit::last_seal(&mut self.store.read().await?).await?;
                    return if now_last == last {
                        Err(error.into())
                    } else {
                        Ok(Some(from))
                    };
                }
                other => other?,
            }
            tx.commit().await?;
            *sealed += seals.len();
        }
        Ok(unsealed.next)
    }

    /// Walks the whole chain and meets the checkpoint, if its file is there.
    ///
    /// # Errors
    /// Infrastructure, or a checkpoint file that cannot be read.
    pub async fn verify_audit(&self, checkpoint: &Path) -> Result<SealReport, ServiceError> {
        let key = self.seal_key();
        let kept = self.read_checkpoint(checkpoint).await?;
        let found = !matches!(kept, Ok(None));
        let report = |verified, result: Result<(), Tampering>| SealReport {
            verified,
            tampering: result.err(),
            checkpoint: found,
        };
        let mut walk = match kept.and_then(|kept| Walk::begin(&key, kept)) {
            Ok(walk) => walk,
            Err(tampering) => return Ok(report(0, Err(tampering))),
        };
        let mut tx = self.store.read().await?;
        loop {
            let links = audit::list_seals(&mut tx, walk.position() + 1, BATCH).await?;
            if links.is_empty() {
                break;
            }
            if let Err(tampering) = walk.check(&links) {
                return Ok(report(walk.position(), Err(tampering)));
            }
        }
        let mut from = audit::BEGINNING;
        let oldest = loop {
            let unsealed = audit::list_unsealed(&mut tx, from, BATCH).await?;
            match (unsealed.rows.into_iter().next(), unsealed.next) {
                (None, Some(next)) => from = next,
                (oldest, _) => break oldest,
            }
        };
        let overdue = self.now().minus(SEALED_WITHIN);
        let unsealed = oldest.filter(|row| row.at < overdue).map(|row| row.id);
        let verified = walk.position();
        Ok(report(verified, walk.finish(unsealed)))
    }
}
