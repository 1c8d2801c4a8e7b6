//! The checkpoint of the audit log: kept outside the database, it proves that no tail of the log was cut off.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Backend, ServiceError};
use crate::domain::audit_seal::{Checkpoint, Tampering};
use crate::storage::audit;

impl Backend {
    /// The checkpoint in the file; none if there is no file.
    ///
    /// # Errors
    /// A file that cannot be read; within, one that holds no checkpoint of ours.
    pub(super) fn read_checkpoint(&self, path: &Path) -> Result<Result<Option<Checkpoint>, Tampering>, ServiceError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(self.seal_key().parse_checkpoint(&text).map(Some)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ok(None)),
            Err(error) => Err(ServiceError::Checkpoint(error)),
        }
    }

    /// Shows where the chain ends now. Not if the chain no longer has what was last shown: then its tail is gone, and the
    /// older checkpoint is what proves it.
    pub(super) async fn show_end(&self, path: &Path) -> Result<(), ServiceError> {
        // Before the chain is looked at: what another process has shown by then must be there.
        let shown = self.read_checkpoint(path)?;
        let mut tx = self.store.read().await?;
        let end = audit::last_seal(&mut tx).await?;
        let is_there = match &shown {
            Ok(None) => true,
            Ok(Some(shown)) => {
                let there = audit::list_seals(&mut tx, shown.seq, 1).await?;
                there.first().is_some_and(|there| there.seal.hash == shown.hash)
            }
            Err(_) => false,
        };
        drop(tx);
        if !is_there {
            if !self.looks.tail_is_gone.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    checkpoint = %path.display(),
                    "the audit log does not contain what its checkpoint shows: `mayfly audit verify` says what is missing; \
                     if an older copy of the database was put back, `mayfly recover` is due"
                );
            }
            return Ok(());
        }
        match (end, shown) {
            (Some(end), Ok(shown)) if shown.as_ref().is_none_or(|shown| shown.seq < end.seq) => {
                write_checkpoint(path, &self.seal_key().checkpoint(&end, self.now())).await
            }
            _ => Ok(()),
        }
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
