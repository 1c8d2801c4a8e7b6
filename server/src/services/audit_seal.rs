//! Sealing the audit log: a background task chains every committed event, and a checkpoint outside the database
//! proves that no tail was cut off.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::audit_seal::{Checkpoint, SealKey, Tampering, Walk};
use crate::domain::clock::Timestamp;
use crate::storage::audit;

/// Events sealed in one transaction.
const BATCH: u32 = 1000;
/// A transaction may commit an event this much after its time; later than any transaction can last.
const LATE: Duration = Duration::from_mins(2);
/// An event older than this without a seal was slipped in, or sealing has stopped.
const SEALED_WITHIN: Duration = Duration::from_mins(1);

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
        use std::sync::atomic::Ordering;
        let key = self.seal_key();
        let mut sealed = 0;
        loop {
            // Without holding the writer: mostly there is nothing to do.
            let mut tx = self.store.read().await?;
            let last = audit::last_seal(&mut tx).await?;
            // Everything until a whole pass is done after a start; then only what can still have come in late.
            let since = match &last {
                Some(seal) if self.sealed_before.load(Ordering::Relaxed) => seal.sealed_at.minus(LATE),
                _ => Timestamp::from_millis(i64::MIN),
            };
            let rows = audit::list_unsealed(&mut tx, since, BATCH).await?;
            drop(tx);
            let complete = rows.len() < BATCH as usize;
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
                self.sealed_before.store(true, Ordering::Relaxed);
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
        let oldest = audit::list_unsealed(&mut tx, Timestamp::from_millis(i64::MIN), 1).await?;
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
