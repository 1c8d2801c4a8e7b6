//! Reading the audit log: for administrators and auditors, newest first, with stable cursors.

use std::collections::HashMap;

use super::admin::may_read_audit;
use super::sessions::Live;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::id::{EventId, SessionId, UserId};
use crate::domain::user::canonical;
use crate::storage::audit::{self, EventFilter, StoredEvent};
use crate::storage::users;

/// Rows on one page.
pub const PAGE: u32 = 50;

/// What to look for; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Sign-in name or e-mail of actor or subject.
    pub person: Option<String>,
    /// Kind.
    pub kind: Option<Kind>,
    /// Outcome.
    pub outcome: Option<Outcome>,
    /// Session.
    pub session: Option<SessionId>,
    /// From (inclusive).
    pub from: Option<Timestamp>,
    /// To (exclusive).
    pub to: Option<Timestamp>,
}

/// A page of events, and the names of everybody in it.
#[derive(Debug)]
pub struct EventPage {
    /// Events, newest first.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins.
    pub next: Option<(Timestamp, EventId)>,
    /// Names by id.
    pub names: HashMap<UserId, String>,
    /// Time of the last sealed event's seal.
    pub sealed_until: Option<Timestamp>,
    /// The checkpoint speaks against the log: its end was cut off or replaced.
    pub is_contradicted: bool,
}

impl Backend {
    /// A page of the log. `None`: the role does not allow it (audited).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_events(
        &self,
        live: &Live,
        search: &Search,
        before: Option<(Timestamp, EventId)>,
        from: &Circumstances,
    ) -> Result<Option<EventPage>, ServiceError> {
        if !may_read_audit(live) {
            self.deny("audit", from).await?;
            return Ok(None);
        }
        let mut tx = self.store.read().await?;
        let sealed_until = audit::last_seal(&mut tx).await?.map(|seal| seal.sealed_at);
        let mut filter = EventFilter {
            person: None,
            kind: search.kind,
            outcome: search.outcome,
            session: search.session,
            from: search.from,
            to: search.to,
        };
        if let Some(name) = &search.person {
            let Some(user) = users::find_user_by_identifier(&mut tx, &canonical(name)).await? else {
                // Nobody of that name: nothing to show, rather than everything.
                let names = HashMap::new();
                return Ok(Some(EventPage {
                    events: Vec::new(),
                    next: None,
                    names,
                    sealed_until,
                    is_contradicted: self.log_is_contradicted(),
                }));
            };
            filter.person = Some(user.id);
        }
        let mut events = audit::list_events(&mut tx, &filter, before, PAGE + 1).await?;
        let more = events.len() > PAGE as usize;
        events.truncate(PAGE as usize);
        let next = events.last().filter(|_| more).map(|stored| (stored.at, stored.id));
        let ids: Vec<UserId> = events
            .iter()
            .flat_map(|stored| [stored.actor_id, stored.subject_id])
            .flatten()
            .collect();
        let names = users::find_names(&mut tx, &ids).await?;
        Ok(Some(EventPage {
            events,
            next,
            names,
            sealed_until,
            is_contradicted: self.log_is_contradicted(),
        }))
    }

    /// One event with its seal, hexadecimal. Outer `None`: not allowed; inner `None`: no such event.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn find_event(
        &self,
        live: &Live,
        id: EventId,
        from: &Circumstances,
    ) -> Result<Option<Option<(StoredEvent, HashMap<UserId, String>, Option<String>)>>, ServiceError> {
        if !may_read_audit(live) {
            self.deny("audit", from).await?;
            return Ok(None);
        }
        let mut tx = self.store.read().await?;
        let Some(event) = audit::find_event(&mut tx, id).await? else {
            return Ok(Some(None));
        };
        let ids: Vec<UserId> = [event.actor_id, event.subject_id].into_iter().flatten().collect();
        let names = users::find_names(&mut tx, &ids).await?;
        let seal = audit::seal_of(&mut tx, id)
            .await?
            .map(|seal| data_encoding::HEXLOWER.encode(&seal.hash));
        Ok(Some(Some((event, names, seal))))
    }
}
