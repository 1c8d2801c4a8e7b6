//! What transactions of this process have committed, for those in it who go by memory. Knows no statement.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::Store;

/// Counters that a commit raises before it is acknowledged, and a bell.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rings when there are new revocations.
    bell: Notify,
    /// The greatest number of a revocation.
    last_revocation: AtomicU64,
    /// How many policies were saved.
    policies: AtomicU64,
}

impl Changes {
    pub(super) fn revoked_up_to(&self, cursor: u64) {
        self.last_revocation.fetch_max(cursor, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn saved_policy(&self) {
        self.policies.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(super) async fn rings(&self) {
        self.bell.notified().await;
    }
}

impl Store {
    /// Number of the last revocation that this process has committed.
    #[must_use]
    pub fn last_own_revocation(&self) -> u64 {
        self.changes.last_revocation.load(Ordering::SeqCst)
    }

    /// How many policies this process has saved.
    #[must_use]
    pub fn saved_policies(&self) -> u64 {
        self.changes.policies.load(Ordering::SeqCst)
    }
}
