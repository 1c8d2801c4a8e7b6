//! Sealing the audit log: a background task chains every committed event, and a checkpoint outside the database
//! proves that no tail was cut off.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::node_clocks::MOST_APART;
use super::{Backend, ServiceError};
use crate::domain::audit_seal::{Checkpoint, SealKey, Tampering, Walk};
use crate::domain::clock::Timestamp;
use crate::storage::audit;

/// Events sealed in one transaction.
const BATCH: u32 = 1000;
/// Nearly every event is committed within this time of its moment, by the clock of this node.
const USUAL: Duration = Duration::from_secs(5);
/// A transaction may commit an event this much after its moment: by the clock of another node, and later than any
/// transaction can last.
const LATE: Duration = MOST_APART.saturating_add(Duration::from_mins(1));
/// How often those are looked for that came later than usual: each such look goes through all events of [`LATE`].
const LOOK_FOR_LATE_EVERY: Duration = Duration::from_secs(30);
/// An event older than this without a seal was slipped in, or sealing has stopped: by a clock that may be ahead of that
/// of the event's node, after a late look that was due.
const SEALED_WITHIN: Duration = MOST_APART.saturating_add(Duration::from_mins(1));

/// When unsealed events were last looked for, to the end of the log. By this node's clock and for its own looks alone:
/// another node's clock may differ, and it may see other events.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// None before the first time: then everything is looked through.
    last: Mutex<Option<Look>>,
    /// The clock has jumped since a look began: what happened meanwhile may be anywhere.
    is_void: AtomicBool,
    /// Place of the seal that the checkpoint shows.
    checkpoint: AtomicU64,
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
    /// whatever it was too early for is seen by a second one, even if time made a leap between them.
    fn next(last: Option<Self>, now: Timestamp) -> (Self, Timestamp) {
        let Some(last) = last else {
            let look = Self {
                usual: now,
                late: now,
                late_before: now,
            };
            return (look, audit::BEGINNING.0);
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
    fn begin(&self, now: Timestamp) -> (Look, Timestamp) {
        let mut last = self.last();
        if self.is_void.swap(false, Ordering::Relaxed) {
            *last = None;
        }
        Look::next(*last, now)
    }

    /// The look has come to the end of the log.
    fn done(&self, look: Look) {
        *self.last() = Some(look);
    }

    /// The next look goes through everything.
    pub(super) fn forget(&self) {
        self.is_void.store(true, Ordering::Relaxed);
    }

    fn last(&self) -> MutexGuard<'_, Option<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Seals what has been committed since, and writes the checkpoint. How many events.
    ///
    /// # Errors
    /// Infrastructure; what was sealed until then is sealed, and the next call looks from the same place.
    pub async fn seal_audit(&self, checkpoint: &Path) -> Result<usize, ServiceError> {
        let key = self.seal_key();
        let (look, since) = self.looks.begin(self.now());
        let mut from = (since, audit::BEGINNING.1);
        let mut sealed = 0;
        loop {
            // Without holding the writer: mostly there is nothing to do.
            let mut tx = self.store.read().await?;
            let last = audit::last_seal(&mut tx).await?;
            let unsealed = audit::list_unsealed(&mut tx, from, BATCH).await?;
            drop(tx);
            let seals = key.seal(last.as_ref(), &unsealed.rows, self.now());
            if !seals.is_empty() {
                let mut tx = self.store.write().await?;
                match audit::append_seals(&mut tx, &seals).await {
                    // Another node seals at this moment: what it took is no longer found.
                    Err(error) if error.is_unique_violation() => continue,
                    other => other?,
                }
                tx.commit().await?;
                sealed += seals.len();
            }
            if let Some(next) = unsealed.next {
                from = next;
                continue;
            }
            // The end of the chain, whoever sealed it. Never one before what this process has shown: then the log's tail is
            // gone, and the checkpoint is what proves it.
            if let Some(end) = seals.last().or(last.as_ref())
                && end.seq > self.looks.checkpoint.load(Ordering::Relaxed)
            {
                write_checkpoint(checkpoint, &key.checkpoint(end, self.now())).await?;
                self.looks.checkpoint.store(end.seq, Ordering::Relaxed);
            }
            self.looks.done(look);
            return Ok(sealed);
        }
    }

    /// Walks the whole chain and meets the checkpoint, if its file is there.
    ///
    /// # Errors
    /// Infrastructure, or a checkpoint file that cannot be read.
    pub async fn verify_audit(&self, checkpoint: &Path) -> Result<SealReport, ServiceError> {
        let key = self.seal_key();
        let kept: Option<Checkpoint> = match std::fs::read_to_string(checkpoint) {
            Ok(text) => {
                if let Ok(kept) = text.trim().parse() {
                    Some(kept)
                } else {
                    let tampering = Some(Tampering::CheckpointForged);
                    return Ok(SealReport {
                        verified: 0,
                        tampering,
                        checkpoint: true,
                    });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(ServiceError::Checkpoint(error)),
        };
        let found = kept.is_some();
        let report = |verified, result: Result<(), Tampering>| SealReport {
            verified,
            tampering: result.err(),
            checkpoint: found,
        };
        let mut walk = match Walk::begin(&key, kept) {
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

/// Replaces the file whole, so that a crash leaves the older one.
async fn write_checkpoint(path: &Path, checkpoint: &Checkpoint) -> Result<(), ServiceError> {
    let (path, text) = (path.to_owned(), checkpoint.to_string());
    let write = move || -> std::io::Result<()> {
        let new = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    // The disk may take its time.
    let written = tokio::task::spawn_blocking(write).await;
    written
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(ServiceError::Checkpoint)
}
