//! What transactions of this process have committed, for those in it who go by memory, and for the metrics. Knows no
//! statement.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::Notify;

use super::Store;
use crate::domain::audit::{Event, Kind, Outcome};

/// Counters that a commit raises before it is acknowledged, and a bell.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rings when there are new revocations.
    bell: Notify,
    /// The greatest number of a revocation.
    last_revocation: AtomicU64,
    /// How many policies were saved.
    policies: AtomicU64,
    events: EventCounts,
}

/// Events of the audit log that this process has committed. A clone counts on with the original.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    /// All.
    pub by_kind: Family<OfKind, Counter>,
    /// Of these, what was refused or failed.
    pub refusals: Family<Refusal, Counter>,
}

/// A kind of event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    kind: &'static str,
}

impl From<Kind> for OfKind {
    fn from(kind: Kind) -> Self {
        Self { kind: kind.as_str() }
    }
}

/// What was refused or failed, and the closed code of the reason; empty if there is only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refusal {
    kind: &'static str,
    reason: String,
}

/// What is counted of an event once it is committed.
#[derive(Debug)]
pub(super) struct Counted {
    kind: Kind,
    refused: Option<Refusal>,
}

impl From<&Event> for Counted {
    fn from(event: &Event) -> Self {
        let refused = (event.outcome != Outcome::Success).then(|| Refusal {
            kind: event.kind.as_str(),
            reason: event.reason.clone().unwrap_or_default(),
        });
        Self {
            kind: event.kind,
            refused,
        }
    }
}

impl Changes {
    pub(super) fn revoked_up_to(&self, cursor: u64) {
        self.last_revocation.fetch_max(cursor, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn saved_policy(&self) {
        self.policies.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn recorded(&self, events: &[Counted]) {
        for event in events {
            self.events.by_kind.get_or_create(&event.kind.into()).inc();
            if let Some(refused) = &event.refused {
                self.events.refusals.get_or_create(refused).inc();
            }
        }
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

    /// Events that this process has committed.
    #[must_use]
    pub fn event_counts(&self) -> &EventCounts {
        &self.changes.events
    }
}
