//! The checkpoint of the audit log: kept outside the database, it proves that no tail of the log was cut off.
//!
//! It is shown anew only as long as the log still has what it showed before, so whoever cuts the log off has to reach
//! the file too. What speaks against the log stays until somebody moves it away who knows why.

use std::io::{Error, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::audit_seal::{Checkpoint, Tampering};
use crate::storage::{StorageError, Tx, audit};

/// The log beside its checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// There is no checkpoint: nobody can say what the log has lost.
    Unknown,
    /// What the checkpoint shows is there.
    Whole,
    /// It ends so many events earlier. At least so many were lost: others may have been written since.
    Missing(u64),
    /// At its place stands another event: the end was lost, and others were written since.
    Replaced,
    /// The checkpoint itself was altered, or belongs to another key.
    CheckpointForged,
}

impl LogEnd {
    /// Stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "no_checkpoint",
            Self::Whole => "whole",
            Self::Missing(_) => "missing",
            Self::Replaced => "replaced",
            Self::CheckpointForged => "checkpoint_forged",
        }
    }

    /// How many sealed events were lost at least, if anything can be known of it.
    #[must_use]
    pub const fn lost(self) -> Option<u64> {
        match self {
            Self::Whole => Some(0),
            Self::Missing(events) => Some(events),
            Self::Unknown | Self::Replaced | Self::CheckpointForged => None,
        }
    }

    /// The checkpoint speaks against the log.
    pub(super) const fn is_contradicted(self) -> bool {
        matches!(self, Self::Missing(_) | Self::Replaced | Self::CheckpointForged)
    }
}

impl Backend {
    /// The checkpoint in the file; none if there is no file.
    ///
    /// # Errors
    /// A file that cannot be read; within, one that holds no checkpoint of ours.
    pub(super) async fn read_checkpoint(
        &self,
        path: &Path,
    ) -> Result<Result<Option<Checkpoint>, Tampering>, ServiceError> {
        let path = path.to_owned();
        match on_disk(move || std::fs::read(path)).await {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| Tampering::CheckpointForged);
                Ok(text.and_then(|text| self.seal_key().parse_checkpoint(&text)).map(Some))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ok(None)),
            Err(error) => Err(ServiceError::Checkpoint(error)),
        }
    }

    /// Whether the log still has what this checkpoint shows.
    pub(super) async fn compare_with(
        &self,
        tx: &mut Tx,
        shown: &Result<Option<Checkpoint>, Tampering>,
    ) -> Result<LogEnd, StorageError> {
        let shown = match shown {
            Ok(Some(shown)) => shown,
            Ok(None) => return Ok(LogEnd::Unknown),
            Err(_) => return Ok(LogEnd::CheckpointForged),
        };
        let end = audit::last_seal(tx).await?.map_or(0, |end| end.seq);
        if end < shown.seq {
            return Ok(LogEnd::Missing(shown.seq - end));
        }
        let there = audit::list_seals(tx, shown.seq, 1).await?;
        let is_there = there.first().is_some_and(|there| there.seal.hash == shown.hash);
        Ok(if is_there { LogEnd::Whole } else { LogEnd::Replaced })
    }

    /// Shows where the chain ends now, unless the log no longer has what was last shown.
    pub(super) async fn show_end(&self, path: &Path) -> Result<(), ServiceError> {
        // Before the chain is looked at: what another process has shown by then must be there.
        let shown = self.read_checkpoint(path).await?;
        let mut tx = self.store.read().await?;
        let log = self.compare_with(&mut tx, &shown).await?;
        let end = audit::last_seal(&mut tx).await?;
        drop(tx);
        let is_contradicted = log.is_contradicted();
        if is_contradicted && !self.log_is_contradicted() {
            let event = self.event(Kind::AuditLogContradicted, &Circumstances::default());
            self.record(event.outcome(Outcome::Failure).reason(log.as_str()))
                .await?;
            tracing::error!(
                checkpoint = %path.display(),
                log = log.as_str(),
                "the checkpoint speaks against the audit log and stays as it is: `mayfly audit verify` says why; if an older \
                 copy of the database was put back, `mayfly recover` is due, and on further nodes move the checkpoint away"
            );
        }
        self.log_is_contradicted.store(is_contradicted, Ordering::Relaxed);
        match (end, shown) {
            (Some(end), Ok(shown)) if !is_contradicted && shown.as_ref().is_none_or(|shown| shown.seq < end.seq) => {
                write_checkpoint(path, &self.seal_key().checkpoint(&end, self.now())).await
            }
            _ => Ok(()),
        }
    }

    /// Puts a checkpoint aside that speaks against the log, beside where it was. Where it is now.
    pub(super) async fn put_checkpoint_aside(&self, path: &Path) -> Result<PathBuf, ServiceError> {
        let aside = path.with_extension(self.now().as_seconds().to_string());
        let (from, to) = (path.to_owned(), aside.clone());
        on_disk(move || std::fs::rename(from, to))
            .await
            .map_err(ServiceError::Checkpoint)?;
        Ok(aside)
    }

    /// The last look found that the checkpoint speaks against the log.
    pub(super) fn log_is_contradicted(&self) -> bool {
        self.log_is_contradicted.load(Ordering::Relaxed)
    }
}

/// Replaces the file whole, so that a crash leaves the older one.
async fn write_checkpoint(path: &Path, checkpoint: &Checkpoint) -> Result<(), ServiceError> {
    let (path, text) = (path.to_owned(), checkpoint.to_string());
    let write = move || -> std::io::Result<()> {
        let folder = path.parent().ok_or(ErrorKind::NotADirectory)?;
        // Readable by its owner only, and under a name of its own: another process may be doing the same.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(file, "{text}")?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    on_disk(write).await.map_err(ServiceError::Checkpoint)
}

/// The disk may take its time.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::other).flatten()
}
