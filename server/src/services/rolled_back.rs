//! A database that lost its last commits while this node was serving, as after a failover to a replica that lagged behind
//! (F8): what the node still knows to be revoked is revoked again.
//!
//! Numbers of revocations would be given a second time, which whoever follows them could not tell from those it knows. So
//! all that are left get new ones, beyond every number that was ever given, and everybody hears of them anew. What else was
//! lost nobody knows: an alert says that `mayfly recover` may be due.

use uuid::Uuid;

use super::keys::Order;
use super::recovery::SKIPPED_CURSORS;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::client::ClientId;
use crate::domain::id::UserId;
use crate::domain::revocation::{Entry, Remembered};
use crate::domain::session::{EndReason, Ending};
use crate::storage::sessions::cohort::end_sessions;
use crate::storage::{audit, clients, recovery, revocations};

/// Sessions ended by one statement.
const BATCH: usize = 1000;

impl Backend {
    /// Revokes again what this node remembers. `cursor`: it knew of everything up to there; `seen`: the last of that. Each node
    /// that finds it does so with what it knows; the first one says that it happened, and gives new numbers.
    ///
    /// # Errors
    /// Infrastructure; doing it again goes on.
    pub(super) async fn revoke_again(
        &self,
        cursor: u64,
        seen: Option<&Entry>,
        mut remembered: Remembered,
    ) -> Result<(), ServiceError> {
        let order = Order {
            from: Circumstances::default(),
            by: "server",
            note: Some("the database lost what was revoked"),
        };
        let ending = Ending {
            at: self.now(),
            reason: EndReason::DatabaseRolledBack,
            rule: None,
            limit: None,
        };
        // In one order, as others may be at it.
        remembered.sessions.sort_unstable();
        remembered.subjects.sort_unstable();
        // First, as a key that was removed is no work when all of this is done again.
        for key in &remembered.keys {
            self.revoke_key(key, &order).await?;
        }
        let mut tx = self.store.write().await?;
        recovery::take_time(&mut tx).await?;
        let mut sessions = 0;
        for batch in remembered.sessions.chunks(BATCH) {
            let ended = end_sessions(&mut tx, batch, &ending).await?;
            let event = |(id, user, device): &(_, _, _)| {
                self.ended_event(Kind::SessionRevoked, &order.from, *user, *id, *device, &ending)
            };
            let events: Vec<Event> = ended.iter().map(event).collect();
            audit::append_events(&mut tx, &events).await?;
            sessions += events.len();
        }
        for (subject, before) in &remembered.subjects {
            if revocations::is_subject_revoked(&mut tx, subject, *before).await? {
                // That was not lost: sessions that began since are nobody else's.
                continue;
            }
            if let Ok(user) = Uuid::try_parse(subject) {
                recovery::raise_auth_epoch(&mut tx, UserId(user), ending.at).await?;
            } else if let Some(client) = ClientId::parse(subject) {
                clients::disable_client(&mut tx, &client, ending.at).await?;
            }
        }
        for (token, until) in remembered.tokens {
            revocations::revoke_token(&mut tx, token, ending.at, until);
        }
        // Their own numbers are given with the commit, after this.
        let is_first = revocations::renumber(&mut tx, cursor, seen, SKIPPED_CURSORS).await?;
        if is_first {
            let event = self
                .event(Kind::RevocationsLost, &order.from)
                .outcome(Outcome::Failure)
                .fact("known", cursor)
                .fact("sessions", sessions);
            audit::append_events(&mut tx, &[event]).await?;
        }
        tx.commit().await?;
        tracing::error!(
            known = cursor,
            sessions,
            is_first,
            "the database lost what was revoked: it was revoked again"
        );
        Ok(())
    }
}
