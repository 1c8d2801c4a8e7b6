//! After a restored backup: one act that makes everything harmless that was handed out since (TOKENS.md §3 "Ahead",
//! SECURITY.md, faults F8 and F10).
//!
//! A database that went back in time believes what is no longer true. Sessions that were ended live again; refresh
//! tokens that were used are the current ones again, so that the next honest use looks like a thief's; sign-ins, links
//! and codes that were used can be used once more; and numbers of revocations would be given a second time, which a
//! service that follows them could not tell from those it knows. What was handed out since is unknown and cannot be
//! taken back one by one. So nothing is: every session ends, for a reason that accuses nobody, and every signing key
//! goes, and with it every access token of any moment.
//!
//! What it cannot know it does not pretend to: see [`Recovery`].

use std::path::{Path, PathBuf};

use super::audit_checkpoint::LogEnd;
use super::keys::Order;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind};
use crate::domain::clock::Timestamp;
use crate::domain::mfa::STEP_SECONDS;
use crate::domain::session::{EndReason, Ending};
use crate::storage::{Tx, audit, recovery, users};

/// Numbers of revocations that are left out: more than were ever given between a backup and its use (31 years of a
/// thousand a second), and few enough for thousands of recoveries within the whole numbers of JavaScript (2^53).
pub const SKIPPED_CURSORS: u64 = 1_000_000_000_000;
/// Sessions ended by one statement.
const BATCH: u32 = 1000;

/// What was done. What nobody can know from the backup is left as it stands there: passwords, roles, accounts and
/// clients that were changed or disabled since, recovery codes that were used since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The newest event that the database knew of; what happened later is lost.
    pub last_written: Option<Timestamp>,
    /// The audit log beside its checkpoint, as it was found.
    pub log: LogEnd,
    /// Where the checkpoint is now if it spoke against the log.
    pub put_aside: Option<PathBuf>,
    /// Sessions that ended.
    pub sessions: u64,
    /// People whose sign-ins under way cannot be finished.
    pub people: u64,
    /// Sign-ins under way and other state of browsers that was forgotten.
    pub flows: u64,
    /// Single-use links that were void from then on: invitations have to be made again.
    pub links: u64,
    /// Devices that are asked for the second factor again.
    pub devices: u64,
    /// Signing keys that were removed; another one took their place.
    pub keys: u64,
}

impl Backend {
    /// Makes everything harmless that was handed out after the backup which this database was restored from. Doing it
    /// again, or without need, costs everybody one sign-in and nothing else. `checkpoint`: of the audit log.
    ///
    /// `tx`: of [`Self::start_to_recover`], or a new one. No node may be serving: one that knew the database as it was before would go by its memory of it.
    ///
    /// # Errors
    /// Infrastructure; nothing was changed then.
    pub async fn recover(&self, mut tx: Tx, checkpoint: &Path) -> Result<Recovery, ServiceError> {
        let order = Order {
            from: Circumstances::default(),
            by: "command_line",
            note: Some("recovery after a restored backup"),
        };
        let now = self.now();
        let shown = self.read_checkpoint(checkpoint).await?;
        recovery::take_time(&mut tx).await?;
        // No other recovery, and no change of keys, at the same time.
        users::lock_bootstrap(&mut tx).await?;
        let mut done = Recovery {
            // What this transaction has written so far does not count.
            last_written: recovery::last_written(&mut self.store.read().await?).await?,
            log: self.compare_with(&mut tx, &shown).await?,
            put_aside: None,
            sessions: 0,
            people: recovery::raise_auth_epochs(&mut tx).await?,
            flows: recovery::delete_flows(&mut tx).await?,
            links: recovery::void_all_links(&mut tx).await?,
            devices: recovery::drop_all_trust(&mut tx).await?,
            keys: self.replace_signing_keys(&mut tx, &order).await?,
        };
        let step = now.as_seconds() / i64::try_from(STEP_SECONDS).unwrap_or(i64::MAX);
        recovery::use_up_steps(&mut tx, step).await?;
        let ending = Ending {
            at: now,
            reason: EndReason::DatabaseRolledBack,
            rule: None,
            limit: None,
        };
        loop {
            let ended = recovery::end_some_sessions(&mut tx, now, BATCH).await?;
            if ended.is_empty() {
                break;
            }
            let events: Vec<Event> = ended
                .iter()
                .map(|(id, user, device)| {
                    self.ended_event(Kind::SessionRevoked, &order.from, *user, *id, *device, &ending)
                })
                .collect();
            audit::append_events(&mut tx, &events).await?;
            done.sessions += events.len() as u64;
        }
        let event = self
            .event(Kind::DatabaseRecovered, &order.from)
            .fact("by", order.by)
            .fact("last_written", done.last_written.map(Timestamp::as_millis))
            .fact("log", done.log.as_str())
            .fact("lost_events_at_least", done.log.lost())
            .fact("sessions", done.sessions)
            .fact("people", done.people)
            .fact("links", done.links)
            .fact("devices", done.devices)
            .fact("keys", done.keys);
        audit::append_events(&mut tx, &[event]).await?;
        recovery::skip_cursors(&mut tx, SKIPPED_CURSORS).await?;
        tx.commit().await?;
        self.look_at_changed_keys().await;
        tracing::warn!(?done, "recovered after a restored backup");
        // The log says from now on what it has lost; the checkpoint of what it was would only say so again. The recovery
        // itself is done, whatever comes of this.
        if done.log.is_contradicted() {
            match self.put_checkpoint_aside(checkpoint).await {
                Ok(aside) => done.put_aside = Some(aside),
                Err(error) => tracing::error!(%error, "move the checkpoint away by hand"),
            }
        }
        if let Err(error) = self.seal_last(checkpoint).await {
            tracing::error!(%error, "the audit log could not be sealed; the server will");
        }
        Ok(done)
    }
}
