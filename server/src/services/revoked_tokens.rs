//! After an emergency: how many access tokens a revoked key had signed that were still good (F14). Counted afterwards, from
//! the log, so that nobody waits for a count while the key is still trusted.

use super::keys::Order;
use super::{Backend, ServiceError};
use crate::domain::audit::{Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::id::EventId;
use crate::domain::keys::KeyRecord;
use crate::domain::policy::MAX_ACCESS;
use crate::storage::{audit, keys};

/// Rows of the log that are read together.
const AT_ONCE: u32 = 5000;

/// Access tokens of a revoked key that had been issued and had not expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevokedTokens {
    /// Of people's sessions, those included that ended since.
    pub sessions: u64,
    /// Of services.
    pub services: u64,
}

impl Backend {
    /// Counts what a revoked key had signed, and writes it down; if that fails, writes down that it did.
    ///
    /// The log does not name the key of each token, so that goes by when the key was in use. With several nodes it may be
    /// wrong by what they signed within the difference of their clocks at each end.
    ///
    /// # Errors
    /// Infrastructure. The key is revoked all the same.
    pub async fn count_revoked_tokens(&self, kid: &str, order: &Order<'_>) -> Result<RevokedTokens, ServiceError> {
        let counted = self.count_tokens(kid).await;
        let event = self
            .event(Kind::RevokedTokensCounted, &order.from)
            .subject(None)
            .fact("key", kid)
            .fact("by", order.by);
        self.record(match &counted {
            Ok(tokens) => event
                .fact("sessions", tokens.sessions)
                .fact("services", tokens.services),
            Err(_) => event.outcome(Outcome::Failure).reason("not_counted"),
        })
        .await?;
        counted
    }

    async fn count_tokens(&self, kid: &str) -> Result<RevokedTokens, ServiceError> {
        let mut tx = self.store.read().await?;
        let key = keys::list_keys(&mut tx).await?.into_iter().find(|key| key.id == kid);
        let key = key.ok_or(ServiceError::Contradiction("a revoked key without its row"))?;
        let mut tokens = RevokedTokens::default();
        let Some((from, until)) = in_use(&key) else {
            return Ok(tokens);
        };
        let now = self.now();
        // Before the first event of the first moment that matters.
        let mut after = (from.max(now.minus(MAX_ACCESS)), EventId(uuid::Uuid::nil()));
        loop {
            let issued = audit::list_issued_tokens(&mut tx, after, until, AT_ONCE).await?;
            for token in &issued {
                let is_good = token.expires_at.is_some_and(|end| end > now);
                let count = if token.to_service {
                    &mut tokens.services
                } else {
                    &mut tokens.sessions
                };
                *count += u64::from(is_good);
            }
            match issued.last() {
                Some(last) if issued.len() == AT_ONCE as usize => after = (last.at, last.id),
                _ => return Ok(tokens),
            }
        }
    }
}

/// From when until before when the key signed; `None` if it never did. One that was revoked while it was in use signed
/// until then.
fn in_use(key: &KeyRecord) -> Option<(Timestamp, Timestamp)> {
    let until = key.retired_at.or(key.removed_at);
    Some((key.activated_at?, until.unwrap_or(Timestamp::from_millis(i64::MAX))))
}
