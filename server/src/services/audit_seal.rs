//! Sealing the audit log: a background task chains every committed event, and a checkpoint outside the database
//! proves that no tail was cut off.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::audit_seal::{Checkpoint, SealKey, Tampering, Walk};
use crate::domain::clock::Timestamp;
use crate::storage::audit;

/// Events sealed in one transaction.
const BATCH: u32 = 1000;
/// Nearly every event is committed within this time of its moment, by the clock of this node.
const USUAL: Duration = Duration::from_secs(5);
/// A transaction may commit an event this much after its time; later than any transaction can last.
const LATE: Duration = Duration::from_mins(2);
/// How often those are looked for that came later than usual: each such look goes through all events of [`LATE`].
const LOOK_FOR_LATE_EVERY: Duration = Duration::from_secs(15);
/// An event older than this without a seal was slipped in, or sealing has stopped.
const SEALED_WITHIN: Duration = Duration::from_mins(1);

/// When unsealed events were last looked for, to the end of the log. None before the first time: then everything is
/// looked through. By this node's clock and for its own looks alone: another node may be behind, or see other events.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<Option<Look>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// For those that are committed as usual.
    usual: Timestamp,
    /// For those that are committed late.
    late: Timestamp,
}

impl Look {
    /// A look that begins now, and the moment from which on it has to look.
    fn next(before: Option<Self>, now: Timestamp) -> (Self, Timestamp) {
        let everything = Self { usual: now, late: now };
        match before {
            None => (everything, Timestamp::from_millis(i64::MIN)),
            Some(Self { late, .. }) if now.since(late) >= LOOK_FOR_LATE_EVERY => (everything, late.minus(LATE)),
            Some(Self { usual, late }) => (Self { usual: now, late }, usual.minus(USUAL)),
        }
    }
}

impl Looks {
    fn last(&self) -> Option<Look> {
        *self.lock()
    }

    /// A look has come to the end of the log; unless everything was forgotten meanwhile.
    fn done(&self, before: Option<Look>, look: Look) {
        let mut last = self.lock();
        if *last == before {
            *last = Some(look);
        }
    }

    /// The next look goes through everything.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Infrastructure; the next call goes on where this one stopped.
    pub async fn seal_audit(&self, checkpoint: &Path) -> Result<usize, ServiceError> {
        let key = self.seal_key();
        let before = self.looks.last();
        let (look, since) = Look::next(before, self.now());
        let mut after = (since, audit::BEGINNING.1);
        let mut sealed = 0;
        loop {
            // Without holding the writer: mostly there is nothing to do.
            let mut tx = self.store.read().await?;
            let last = audit::last_seal(&mut tx).await?;
            let rows = audit::list_unsealed(&mut tx, after, BATCH).await?;
            drop(tx);
            let complete = rows.len() < BATCH as usize;
            after = rows.last().map_or(after, |row| (row.at, row.id));
            let seals = key.seal(last.as_ref(), &rows, self.now());
            if let Some(end) = seals.last() {
                let mut tx = self.store.write().await?;
                match audit::append_seals(&mut tx, &seals).await {
                    // Another node seals at this moment; it will have taken the same events.
                    Err(error) if error.is_unique_violation() => return Ok(sealed),
                    other => other?,
                }
                tx.commit().await?;
                sealed += seals.len();
                write_checkpoint(checkpoint, &key.checkpoint(end, self.now()))?;
            }
            if complete {
                self.looks.done(before, look);
                return Ok(sealed);
            }
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
        let oldest = audit::list_unsealed(&mut tx, audit::BEGINNING, 1).await?;
        let overdue = self.now().minus(SEALED_WITHIN);
        let unsealed = oldest.first().filter(|row| row.at < overdue).map(|row| row.id);
        let verified = walk.position();
        Ok(report(verified, walk.finish(unsealed)))
    }
}

/// Replaces the file whole, so that a crash leaves the older one.
fn write_checkpoint(path: &Path, checkpoint: &Checkpoint) -> Result<(), ServiceError> {
    let write = || -> std::io::Result<()> {
        let new = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{checkpoint}")?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(ServiceError::Checkpoint)
}
