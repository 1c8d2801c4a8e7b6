//! Ending many sessions at once, while people go on signing in (F59).
//!
//! Each batch is a transaction of its own with its audit rows and revocations, so that nobody waits long for it and an
//! interruption at any moment leaves no session half ended: doing the same again ends the rest. Revocations are one for
//! each session that had tokens within the last hour. A coarser one (everything issued to a person before a moment)
//! would also hit tokens that somebody who signs in meanwhile was just given.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::keys::Order;
use super::{Backend, ServiceError};
use crate::domain::audit::{Event, Kind};
use crate::domain::clock::Timestamp;
use crate::domain::cohort::Cohort;
use crate::domain::id::SessionId;
use crate::domain::session::{EndReason, Ending};
use crate::storage::audit;
use crate::storage::sessions::cohort::{end_sessions, list_cohort};

/// Sessions ended in one transaction.
const BATCH: usize = 1000;
/// Batches ended at once on PostgreSQL, where one is the work of one processor.
const AT_ONCE: usize = 2;
/// So often one transaction is begun anew because another was in its way.
const MOST_LOST_RACES: u32 = 5;
/// On SQLite a process that waits to write looks again after 100 ms at the latest: the server gets its turn once in so
/// much time.
const TURN: Duration = Duration::from_secs(1);
/// For so long.
const PAUSE: Duration = Duration::from_millis(150);

impl Backend {
    /// Ends the cohort's sessions that live now. `progress` hears after each batch how many have ended, and of how many
    /// that were found at first. How many ended.
    ///
    /// # Errors
    /// Infrastructure. What was ended until then is ended; doing it again goes on.
    pub async fn end_cohort(
        &self,
        cohort: &Cohort,
        order: &Order<'_>,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<usize, ServiceError> {
        let began = self.now();
        let mut members = self.living_members(cohort, Timestamp::from_millis(i64::MAX)).await?;
        let found = members.len();
        self.record(self.cohort_event(Kind::MassRevocationBegun, cohort, order, found))
            .await?;
        let mut ended = 0;
        let mut turn = self.clock.elapsed();
        let at_once = if self.store.is_postgres() { AT_ONCE } else { 1 };
        while !members.is_empty() {
            let ending = members
                .chunks(BATCH)
                .map(|batch| self.end_batch_despite_others(batch, order));
            let mut done = stream::iter(ending).buffer_unordered(at_once);
            while let Some(batch) = done.try_next().await? {
                ended += batch;
                progress(ended, found);
                if !self.store.is_postgres() && self.clock.elapsed() >= turn + TURN {
                    tokio::time::sleep(PAUSE).await;
                    turn = self.clock.elapsed();
                }
            }
            drop(done);
            // A session that step-up replaced meanwhile goes on under another id, with the beginning it had.
            members = self.living_members(cohort, began).await?;
        }
        self.record(self.cohort_event(Kind::MassRevocationDone, cohort, order, ended))
            .await?;
        tracing::warn!(?cohort, ended, by = order.by, "many sessions were ended at once");
        Ok(ended)
    }

    async fn living_members(&self, cohort: &Cohort, until: Timestamp) -> Result<Vec<SessionId>, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(list_cohort(&mut tx, cohort, until).await?)
    }

    /// Ends the batch although others work on the same sessions in another order: one of two then has to begin anew.
    async fn end_batch_despite_others(&self, batch: &[SessionId], order: &Order<'_>) -> Result<usize, ServiceError> {
        let mut lost = 0;
        loop {
            match self.end_batch(batch, order).await {
                Err(ServiceError::Storage(error)) if error.is_lost_race() && lost < MOST_LOST_RACES => lost += 1,
                result => return result,
            }
        }
    }

    async fn end_batch(&self, batch: &[SessionId], order: &Order<'_>) -> Result<usize, ServiceError> {
        let ending = Ending {
            at: self.now(),
            reason: EndReason::EndedByAdmin,
            rule: None,
            limit: None,
        };
        let mut tx = self.store.write().await?;
        let ended = end_sessions(&mut tx, batch, &ending).await?;
        let events: Vec<Event> = ended
            .iter()
            .map(|(id, user, device)| {
                self.ended_event(Kind::SessionRevoked, &order.from, *user, *id, *device, &ending)
                    .fact("by", order.by)
            })
            .collect();
        audit::append_events(&mut tx, &events).await?;
        tx.commit().await?;
        Ok(events.len())
    }

    fn cohort_event(&self, kind: Kind, cohort: &Cohort, order: &Order<'_>, sessions: usize) -> Event {
        let mut event = self
            .event(kind, &order.from)
            .reason(cohort.as_str())
            .fact("sessions", sessions)
            .fact("by", order.by);
        match cohort {
            Cohort::Person(user) => event = event.subject(*user),
            Cohort::Network(network) => event = event.fact("network", network.to_string()),
            Cohort::Everybody => {}
        }
        match order.note {
            Some(note) => event.fact("note", note),
            None => event,
        }
    }
}
