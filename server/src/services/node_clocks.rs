//! The clocks of several nodes side by side (F18). Small differences are what `tokens.clock_tolerance_seconds` is for;
//! a node that is minutes off ends sessions that live and hands out tokens that the others refuse, so it should get no
//! requests.
//!
//! Who is wrong? Of two nodes that disagree, the one farther from the database's clock. A database whose clock alone is
//! wrong therefore takes nobody out of service, and neither does a node without others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Backend, ServiceError};
use crate::domain::clock::millis;
use crate::domain::id::NodeId;
use crate::storage::nodes;

/// Nodes whose clocks differ by more than this do not serve together.
pub const MOST_APART: Duration = Duration::from_mins(5);
/// How often a node says that it is there.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// One that has not for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(20);

/// What this node knows of its own clock.
#[derive(Debug)]
pub(super) struct NodeClock {
    id: NodeId,
    is_off: AtomicBool,
}

impl NodeClock {
    pub(super) const fn new(id: NodeId) -> Self {
        Self {
            id,
            is_off: AtomicBool::new(false),
        }
    }
}

impl Backend {
    /// Tells the other nodes what this one's clock shows, and compares. Whether it is fit to serve.
    ///
    /// # Errors
    /// When the database cannot be asked; then what was known stays.
    pub async fn compare_clocks(&self) -> Result<bool, ServiceError> {
        let clock = &self.node_clock;
        let mut tx = self.store.write().await?;
        let there = nodes::database_time(&mut tx).await?;
        let ahead = self.now().as_millis().saturating_sub(there.as_millis());
        nodes::report_node(&mut tx, clock.id, ahead, there, there.minus(GONE_AFTER)).await?;
        let others = nodes::list_other_clocks(&mut tx, clock.id).await?;
        tx.commit().await?;
        let differing = others.into_iter().find(|other| is_off(ahead, *other));
        let was_off = clock.is_off.swap(differing.is_some(), Ordering::SeqCst);
        match differing {
            Some(other) if !was_off => tracing::error!(
                seconds = ahead.saturating_sub(other) / 1000,
                "this node's clock is wrong: another node's is nearer to the database's; not ready until it is set right"
            ),
            None if was_off => tracing::info!("this node's clock agrees with the others again"),
            _ => {}
        }
        Ok(differing.is_none())
    }

    /// Whether this node's clock was fit to serve when it was last compared.
    #[must_use]
    pub fn clock_is_in_order(&self) -> bool {
        !self.node_clock.is_off.load(Ordering::SeqCst)
    }
}

/// Both as milliseconds ahead of the database's clock.
fn is_off(this: i64, other: i64) -> bool {
    this.abs_diff(other) > millis(MOST_APART).unsigned_abs() && this.unsigned_abs() > other.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f18_of_two_clocks_that_disagree_exactly_one_is_off() {
        const MINUTE: i64 = 60_000;
        for (this, other, off) in [
            (0, 5 * MINUTE, false),
            (5 * MINUTE, 0, false),
            (5 * MINUTE + 1, 0, true),
            (-5 * MINUTE - 1, 0, true),
            (0, 5 * MINUTE + 1, false),
            (0, -5 * MINUTE - 1, false),
            // The database's clock is the wrong one.
            (60 * MINUTE, 60 * MINUTE + 1000, false),
            (-66 * MINUTE, -60 * MINUTE, true),
            (-60 * MINUTE, -66 * MINUTE, false),
            (i64::MAX, i64::MIN + 1, false),
            (i64::MIN, i64::MAX, true),
        ] {
            assert_eq!(is_off(this, other), off, "{this} {other}");
            assert!(!(is_off(this, other) && is_off(other, this)), "{this} {other}");
        }
    }
}
