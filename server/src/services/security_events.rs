//! Security events for a receiver that asks for them (RFC 8936): at least once each, in the order of the audit log's
//! seals, until it has acknowledged them.
//!
//! A stream begins when its client first asks. Events are there once they are sealed, within seconds; whoever has to
//! refuse tokens within one second follows the feed of revocations instead.

use std::collections::HashSet;

use secrecy::SecretString;
use serde_json::Value;

use super::{Backend, ServiceError};
use crate::domain::audit::{Event, Kind};
use crate::domain::client::ServiceClient;
use crate::domain::id::EventId;
use crate::domain::jwt::{JwtError, sign_security_event};
use crate::domain::security_event::{KINDS, claims};
use crate::storage::{Tx, audit, event_streams};

/// Most events in one answer; a receiver acknowledges them and asks again.
pub const MOST_EVENTS: usize = 100;
/// Seals looked through at once: most events of the log concern no receiver.
const WINDOW: u64 = 5000;
/// Windows looked through for one request.
const MOST_WINDOWS: usize = 20;

/// One answer.
#[derive(Debug, Default)]
pub struct SecurityEvents {
    /// Signed, under the `jti`.
    pub sets: Vec<(EventId, SecretString)>,
    /// There are more than these.
    pub more: bool,
}

/// What is waiting for a receiver.
pub(super) struct Waiting {
    /// With their places, in order.
    pub(super) events: Vec<(u64, Event)>,
    /// Everything up to here was looked through.
    pub(super) until: u64,
    /// There is nothing sealed behind it.
    is_end: bool,
}

impl Backend {
    /// Takes note of what the receiver has acknowledged, and tells it at most `most` of what it has not.
    ///
    /// Acknowledged is what came first without a gap: after a gap an event is told again, which the receiver knows by
    /// its `jti`.
    ///
    /// # Errors
    /// Infrastructure; nothing is lost, whatever was not noted is told again.
    pub async fn tell_security_events(
        &self,
        client: &ServiceClient,
        acknowledged: &HashSet<EventId>,
        most: usize,
    ) -> Result<SecurityEvents, ServiceError> {
        let mut tx = self.store.read().await?;
        let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
        let Some(noted) = event_streams::find_stream(&mut tx, &client.id).await? else {
            drop(tx);
            let mut tx = self.store.write().await?;
            event_streams::begin_stream(&mut tx, &client.id, last, self.now()).await?;
            tx.commit().await?;
            return Ok(SecurityEvents::default());
        };
        // As many as one answer holds twice over, so that a receiver that acknowledges everything gets a full answer again.
        let waiting = look(&mut tx, noted, last, &KINDS, 2 * MOST_EVENTS).await?;
        drop(tx);
        let now = self.now();
        let events: Vec<(u64, EventId, Value)> = waiting
            .events
            .iter()
            .filter_map(|(seq, event)| Some((*seq, event.id, claims(event, self.issuer(), &client.id, now)?)))
            .collect();
        let gap = events.iter().position(|(_, id, _)| !acknowledged.contains(id));
        let rest = &events[gap.unwrap_or(events.len())..];
        let now_noted = rest.first().map_or(waiting.until, |(seq, ..)| seq - 1);
        if now_noted > noted {
            let mut tx = self.store.write().await?;
            // Another request of the same client may have been faster; then its place holds.
            event_streams::advance_stream(&mut tx, &client.id, noted, now_noted).await?;
            tx.commit().await?;
        }
        let most = most.min(MOST_EVENTS);
        let keys = self.keys();
        let sign = |(_, id, claims): &(u64, EventId, Value)| Ok((*id, sign_security_event(&keys, claims)?));
        Ok(SecurityEvents {
            sets: rest.iter().take(most).map(sign).collect::<Result<_, JwtError>>()?,
            more: rest.len() > most || !waiting.is_end,
        })
    }
}

/// The first events of these kinds behind a place, up to another, in the order of the seals; at most `limit`.
pub(super) async fn look(
    tx: &mut Tx,
    after: u64,
    last: u64,
    kinds: &[Kind],
    limit: usize,
) -> Result<Waiting, ServiceError> {
    let (mut events, mut until) = (Vec::new(), after);
    for _ in 0..MOST_WINDOWS {
        let end = last.min(until.saturating_add(WINDOW));
        let room = u32::try_from(limit - events.len()).unwrap_or(u32::MAX);
        let found = audit::list_sealed_of_kinds(tx, until, end, kinds, room).await?;
        let is_full = found.len() == room as usize;
        events.extend(found);
        until = match events.last() {
            Some((seq, _)) if is_full => *seq,
            _ => end,
        };
        if is_full || until == last {
            break;
        }
    }
    Ok(Waiting {
        is_end: until == last,
        events,
        until,
    })
}
