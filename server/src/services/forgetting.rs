//! Removing what is over and that no rule asks for any more. The audit log is never among it.

use std::time::Duration;

use super::{Backend, ServiceError};
use crate::storage::{clients, dpop, flows, revocations, sessions};

/// Rows removed in one transaction.
const BATCH: u32 = 1000;
/// Transactions in one go: other work waits behind it.
const MOST_BATCHES: u32 = 20;
/// Ended sessions are kept for so long after they could have lived (TOKENS.md, section 1).
pub(super) const SESSIONS_KEPT: Duration = Duration::from_hours(30 * 24);

/// What is removed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// State before or beside a sign-in that has run out.
    Flows,
    /// Revocations that concern no living token.
    Revocations,
    /// Client assertions that nobody accepts any more.
    Assertions,
    /// Proofs of possession that nobody accepts any more.
    Proofs,
    /// Sessions that ended long ago.
    Sessions,
}

impl Past {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Flows,
        Self::Revocations,
        Self::Assertions,
        Self::Proofs,
        Self::Sessions,
    ];
}

impl Backend {
    /// Removes it from the database; the next call goes on if it is very much. How many rows.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn forget(&self, past: Past) -> Result<u64, ServiceError> {
        let mut all = 0;
        for _ in 0..MOST_BATCHES {
            // In this order: a jump between the two is seen.
            let now = self.now();
            if past != Past::Flows && !self.clock_has_settled() {
                break;
            }
            let mut tx = self.store.write().await?;
            let gone = match past {
                Past::Flows => flows::delete_expired_flows(&mut tx, now, BATCH).await?,
                Past::Revocations => revocations::delete_past_revocations(&mut tx, now, BATCH).await?,
                Past::Assertions => clients::delete_expired_assertions(&mut tx, now, BATCH).await?,
                Past::Proofs => dpop::delete_expired_proofs(&mut tx, now, BATCH).await?,
                Past::Sessions => {
                    sessions::delete_sessions_ended_before(&mut tx, now.minus(SESSIONS_KEPT), BATCH).await?
                }
            };
            tx.commit().await?;
            all += gone;
            if gone < u64::from(BATCH) {
                break;
            }
        }
        Ok(all)
    }
}
