//! Telling services that a session ended (OpenID Connect Back-Channel Logout 1.0): each ending at least once, in the order
//! of the audit log's seals, however long a service was away. A person never waits for it.
//!
//! Endings are told once they are sealed, within seconds; who must refuse tokens within one second follows the feed of
//! revocations. An ending has the same `jti` at every delivery, so a service knows what it has heard before.

mod messenger;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use secrecy::SecretString;
use tokio::task::{AbortHandle, JoinSet};

use super::security_events::look;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::backchannel_logout::{Answer, CLAIM, LogoutReceiver, Outage, claims};
use crate::domain::client::ClientId;
use crate::domain::jwt::{JwtError, sign_logout};
use crate::domain::security_event::ENDS_OF_SESSIONS;
use crate::storage::{audit, logout_receivers};

pub(super) use messenger::Messenger;

/// The pause between two looks. New events are sealed every few seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Most endings told in one turn.
const MOST_ENDINGS: usize = 100;
/// Of these so many at once.
const AT_ONCE: usize = 8;
/// So long a turn takes at most: well within the claim. Whoever has not answered by then is asked again.
const TURN: Duration = Duration::from_secs(10);

/// What came of a turn.
#[derive(Debug)]
pub enum TellOutcome {
    /// Nothing was waiting, it is not time, or another node is at it.
    Nothing,
    /// It took what it was told.
    Told(Told),
    /// The service is away; what came before was told.
    Away,
}

/// A turn that went well.
#[derive(Debug)]
pub struct Told {
    /// So many endings were told, or were refused for good.
    pub endings: usize,
    /// The service as it is now.
    pub receiver: LogoutReceiver,
}

/// One that waits.
struct Ending {
    /// Its place in the order of the seals.
    seq: u64,
    event: Event,
    token: SecretString,
}

impl Backend {
    /// Tells services of ended sessions for as long as the server runs; one that is slow or away holds up no other.
    pub async fn tell_logouts(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turns = JoinSet::new();
        let mut under_way: HashMap<ClientId, AbortHandle> = HashMap::new();
        let mut failing = false;
        loop {
            every.tick().await;
            while turns.try_join_next().is_some() {}
            under_way.retain(|_, turn| !turn.is_finished());
            let receivers = self.list_logout_receivers().await;
            if let Err(error) = &receivers
                && !failing
            {
                tracing::error!(%error, "services could not be told of ended sessions; will try again");
            }
            failing = receivers.is_err();
            for receiver in receivers.unwrap_or_default() {
                let client = receiver.client.clone();
                under_way.entry(client).or_insert_with(|| {
                    let backend = self.clone();
                    turns.spawn(async move { backend.tell_all(receiver).await })
                });
            }
        }
    }

    /// Turn after turn, while there is more and the service takes it.
    async fn tell_all(&self, mut receiver: LogoutReceiver) {
        let client = receiver.client.clone();
        loop {
            match self.tell_logouts_to(receiver).await {
                Ok(TellOutcome::Told(told)) => {
                    tracing::debug!(%client, told = told.endings, "a service was told of ended sessions");
                    receiver = told.receiver;
                }
                Ok(TellOutcome::Nothing | TellOutcome::Away) => return,
                Err(error) => {
                    tracing::error!(%client, %error, "a service could not be told of ended sessions; will try again");
                    return;
                }
            }
        }
    }

    /// All services that are told, and how each is doing.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_logout_receivers(&self) -> Result<Vec<LogoutReceiver>, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(logout_receivers::list_logout_receivers(&mut tx).await?)
    }

    /// One turn: tells a service of what comes next, if it is time, and writes down how far it was told.
    ///
    /// # Errors
    /// Infrastructure; nothing is lost, whatever was not written down is told again.
    pub async fn tell_logouts_to(&self, receiver: LogoutReceiver) -> Result<TellOutcome, ServiceError> {
        if !receiver.is_due(self.now()) {
            return Ok(TellOutcome::Nothing);
        }
        let mut tx = self.store.read().await?;
        let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
        let waiting = look(&mut tx, receiver.noted, last, &ENDS_OF_SESSIONS, MOST_ENDINGS).await?;
        drop(tx);
        let (keys, now) = (self.keys(), self.now());
        let endings = waiting.events.into_iter().filter_map(|(seq, event)| {
            let claims = claims(&event, self.issuer(), &receiver.client, now)?;
            Some(sign_logout(&keys, &claims).map(|token| Ending { seq, event, token }))
        });
        let endings = endings.collect::<Result<Vec<_>, JwtError>>()?;
        if endings.is_empty() {
            if waiting.until > receiver.noted {
                self.pass_over(&receiver, waiting.until).await?;
            }
            return Ok(TellOutcome::Nothing);
        }
        let Some(held) = self.claim(receiver).await? else {
            return Ok(TellOutcome::Nothing);
        };
        let answers = self.deliver(&held, &endings).await;
        self.settle(held, &endings, waiting.until, answers).await
    }

    /// Nothing up to there concerns the service.
    async fn pass_over(&self, receiver: &LogoutReceiver, until: u64) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        let outage = receiver.outage.as_ref();
        // Another node may have been faster; then its place holds.
        logout_receivers::settle_logout_receiver(&mut tx, receiver, until, outage, self.now()).await?;
        Ok(tx.commit().await?)
    }

    async fn claim(&self, receiver: LogoutReceiver) -> Result<Option<LogoutReceiver>, ServiceError> {
        let until = self.now().plus(CLAIM);
        let mut tx = self.store.write().await?;
        let is_ours = logout_receivers::claim_logout_receiver(&mut tx, &receiver, until).await?;
        tx.commit().await?;
        Ok(is_ours.then_some(LogoutReceiver {
            claimed_until: until,
            ..receiver
        }))
    }

    /// The answers to the first of them, in their order, up to the first that is not final or the end of the turn.
    async fn deliver(&self, to: &LogoutReceiver, endings: &[Ending]) -> Vec<Answer> {
        // A service that was away is asked once, not eight times.
        let at_once = if to.outage.is_some() { 1 } else { AT_ONCE };
        let mut answers = Vec::new();
        let told = async {
            let telling: Vec<_> = endings
                .iter()
                .map(|ending| self.messenger.tell(&to.uri, &ending.token))
                .collect();
            let mut coming = stream::iter(telling).buffered(at_once);
            while let Some(answer) = coming.next().await {
                let is_final = !matches!(answer, Answer::Away(_));
                answers.push(answer);
                if !is_final {
                    break;
                }
            }
        };
        if tokio::time::timeout(TURN, told).await.is_err() && answers.is_empty() {
            answers.push(Answer::Away("no answer in time".to_owned()));
        }
        answers
    }

    /// Writes down what was told, refused, or is to be tried again.
    async fn settle(
        &self,
        held: LogoutReceiver,
        endings: &[Ending],
        until: u64,
        answers: Vec<Answer>,
    ) -> Result<TellOutcome, ServiceError> {
        let (now, mut written, mut done, mut failure) = (self.now(), Vec::new(), 0, None);
        for (answer, ending) in answers.into_iter().zip(endings) {
            match answer {
                Answer::Taken => done += 1,
                Answer::Refused => {
                    done += 1;
                    written.push(self.refused_event(&held.client, &ending.event));
                }
                Answer::Away(why) => failure = Some(why),
            }
        }
        let noted = match done {
            0 => held.noted,
            _ if done == endings.len() => until,
            _ => endings[done - 1].seq,
        };
        // Told something in this turn: another outage, not the same.
        let before = held.outage.as_ref().filter(|_| done == 0);
        let outage = failure.map(|failure| Outage::after(before, failure, now));
        written.extend(self.turned_event(&held, outage.as_ref()));
        let mut tx = self.store.write().await?;
        if !logout_receivers::settle_logout_receiver(&mut tx, &held, noted, outage.as_ref(), now).await? {
            // The claim ran out and another node went on: what it writes down holds.
            return Ok(TellOutcome::Nothing);
        }
        audit::append_events(&mut tx, &written).await?;
        tx.commit().await?;
        if outage.is_some() {
            return Ok(TellOutcome::Away);
        }
        Ok(TellOutcome::Told(Told {
            endings: done,
            receiver: LogoutReceiver {
                noted,
                claimed_until: now,
                outage,
                ..held
            },
        }))
    }

    /// That a service went away, or came back.
    fn turned_event(&self, held: &LogoutReceiver, outage: Option<&Outage>) -> Option<Event> {
        let about = |kind| {
            self.event(kind, &Circumstances::default())
                .fact("client_id", held.client.as_str())
        };
        match (&held.outage, outage) {
            (None, Some(Outage { failure, .. })) => {
                tracing::error!(client = %held.client, failure, "a service cannot be told of ended sessions; will try again");
                let event = about(Kind::LogoutsDelayed).outcome(Outcome::Failure);
                Some(event.fact("failure", failure.as_str()))
            }
            (Some(Outage { tries, .. }), None) => {
                tracing::info!(client = %held.client, tries, "a service is told of ended sessions again");
                Some(about(Kind::LogoutsResumed).fact("tries", *tries))
            }
            _ => None,
        }
    }

    fn refused_event(&self, client: &ClientId, ending: &Event) -> Event {
        tracing::warn!(%client, event = %ending.id, "a service cannot act on the end of a session");
        let event = self
            .event(Kind::LogoutRefused, &Circumstances::default())
            .outcome(Outcome::Failure)
            .subject(ending.subject_id)
            .device(ending.device_id)
            .fact("client_id", client.as_str())
            .fact("jti", ending.id.to_string());
        match ending.session_id {
            Some(session) => event.session(session),
            None => event,
        }
    }
}
