//! Telling services that a session ended (OpenID Connect Back-Channel Logout 1.0): each ending at least once, in the order
//! of the audit log's seals, however long a service was away. A person never waits for it.
//!
//! Endings are told once they are sealed, within seconds; who must refuse tokens within one second follows the feed of
//! revocations. An ending has the same `jti` at every delivery, so a service knows what it has heard before.

mod messenger;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use secrecy::SecretString;
use tokio::task::{AbortHandle, JoinSet};

use super::security_events::look;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::backchannel_logout::{Answer, CLAIM, LogoutReceiver, Outage, Verdict, claims};
use crate::domain::client::ClientId;
use crate::domain::jwt::{JwtError, sign_logout};
use crate::domain::security_event::ENDS_OF_SESSIONS;
use crate::storage::{audit, logout_receivers};

pub(super) use messenger::Messenger;

/// The pause between two looks. New events are sealed every few seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Most endings told in one turn.
const MOST_ENDINGS: usize = 100;
/// Of these so many at once, after the first.
const AT_ONCE: usize = 8;
/// So many are tried if none of them is taken: a service in trouble is left in peace.
const MOST_IN_VAIN: usize = 1 + AT_ONCE;
/// So long a turn takes at most: well within the claim. Whoever has not answered by then is asked again.
const TURN: Duration = Duration::from_secs(10);
/// So many seals that do not concern a service are looked through again after a restart, rather than written down.
const WORTH_NOTING: u64 = 1000;

/// What came of a turn.
#[derive(Debug)]
pub enum TellOutcome {
    /// Nothing was waiting up to this place.
    Nothing(u64),
    /// It is not time, or another node is at it.
    NotNow,
    /// It took what it was told, or what it did not take was passed over.
    Told(Told),
    /// Something has to be tried again; what came before is done.
    Away,
}

/// A turn that went well.
#[derive(Debug)]
pub struct Told {
    /// So many endings are done.
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
    /// Tells services of ended sessions until it is to end, and then lets turns under way come to an end; one service that
    /// is slow or away holds up no other.
    pub async fn tell_logouts(self: Arc<Self>, end: impl Future<Output = ()>) {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut end = std::pin::pin!(end);
        let mut turns = Turns::default();
        loop {
            tokio::select! {
                () = &mut end => break,
                Some(done) = turns.under_way.join_next_with_id() => turns.note(done),
                _ = every.tick() => {
                    let found = self.begin_turns(&mut turns).await;
                    turns.note_look(found.as_ref().err());
                }
            }
        }
        while turns.under_way.join_next().await.is_some() {}
    }

    async fn begin_turns(self: &Arc<Self>, turns: &mut Turns) -> Result<(), ServiceError> {
        let mut tx = self.store.read().await?;
        let receivers = logout_receivers::list_logout_receivers(&mut tx).await?;
        let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
        drop(tx);
        for mut receiver in receivers {
            let looked = turns.looked.get(&receiver.client).copied().unwrap_or(0);
            // A database that went back in time has its places anew.
            if looked <= last {
                receiver.looked_until = receiver.noted.max(looked);
            }
            if receiver.looked_until < last && !turns.of.contains_key(&receiver.client) {
                let client = receiver.client.clone();
                let backend = self.clone();
                let turn = turns.under_way.spawn(async move { backend.tell_all(receiver).await });
                turns.of.insert(client, turn);
            }
        }
        Ok(())
    }

    /// Turn after turn, while there is more and the service takes it. The place up to which nothing waits, if one is
    /// known.
    async fn tell_all(&self, mut receiver: LogoutReceiver) -> Result<Option<u64>, ServiceError> {
        loop {
            match self.tell_logouts_to(receiver).await? {
                TellOutcome::Told(told) => receiver = told.receiver,
                TellOutcome::Nothing(until) => return Ok(Some(until)),
                TellOutcome::NotNow | TellOutcome::Away => return Ok(None),
            }
        }
    }

    /// Takes over from a process that ended in the middle, where there is no other node that could be at it.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn take_over_telling(&self) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        logout_receivers::release_logout_receivers(&mut tx, self.now()).await?;
        Ok(tx.commit().await?)
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
            return Ok(TellOutcome::NotNow);
        }
        let mut tx = self.store.read().await?;
        let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
        let waiting = look(&mut tx, receiver.looked_until, last, &ENDS_OF_SESSIONS, MOST_ENDINGS).await?;
        drop(tx);
        let (keys, now) = (self.keys(), self.now());
        let endings = waiting.events.into_iter().filter_map(|(seq, event)| {
            let claims = claims(&event, self.issuer(), &receiver.client, now)?;
            Some(sign_logout(&keys, &claims).map(|token| Ending { seq, event, token }))
        });
        let endings = endings.collect::<Result<Vec<_>, JwtError>>()?;
        if endings.is_empty() {
            if waiting.until > receiver.noted + WORTH_NOTING {
                self.pass_by(&receiver, waiting.until).await?;
            }
            return Ok(TellOutcome::Nothing(waiting.until));
        }
        let Some(held) = self.claim(receiver).await? else {
            return Ok(TellOutcome::NotNow);
        };
        let answers = self.deliver(&held, &endings).await;
        self.settle(held, &endings, waiting.until, &answers).await
    }

    /// Nothing up to there concerns the service.
    async fn pass_by(&self, receiver: &LogoutReceiver, until: u64) -> Result<(), ServiceError> {
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

    /// The answers to the first of them, in their order: up to the first that nobody is there for, until too many were
    /// in vain, or to the end of the turn.
    async fn deliver(&self, to: &LogoutReceiver, endings: &[Ending]) -> Vec<Answer> {
        let mut answers = Vec::new();
        let told = async {
            let client = match self.messenger.client(&to.uri).await {
                Ok(client) => client,
                Err(failure) => return answers.push(Answer::Away(failure)),
            };
            let telling: Vec<_> = endings
                .iter()
                .map(|ending| messenger::tell(&client, &to.uri, &ending.token))
                .collect();
            let mut telling = telling.into_iter();
            // One alone first: whoever is away is asked once, not eight times.
            if let Some(first) = telling.next() {
                answers.push(first.await);
            }
            let mut coming = stream::iter(telling).buffered(AT_ONCE);
            while !is_enough(&answers) {
                let Some(answer) = coming.next().await else { break };
                answers.push(answer);
            }
        };
        if tokio::time::timeout(TURN, told).await.is_err() && answers.is_empty() {
            answers.push(Answer::Away("no answer in time".to_owned()));
        }
        answers
    }

    /// Writes down what is done, what was passed over, and what is to be tried again.
    async fn settle(
        &self,
        held: LogoutReceiver,
        endings: &[Ending],
        until: u64,
        answers: &[Answer],
    ) -> Result<TellOutcome, ServiceError> {
        let now = self.now();
        let Verdict {
            done,
            passed_over,
            outage,
        } = Verdict::of(answers, held.outage.as_ref(), now);
        let noted = match done {
            0 => held.noted,
            _ if done == endings.len() => until,
            _ => endings[done - 1].seq,
        };
        let mut written: Vec<Event> = passed_over
            .into_iter()
            .map(|at| self.refused_event(&held.client, &endings[at].event))
            .collect();
        written.extend(self.turned_event(&held, outage.as_ref()));
        let mut tx = self.store.write().await?;
        if !logout_receivers::settle_logout_receiver(&mut tx, &held, noted, outage.as_ref(), now).await? {
            // The claim ran out and another node went on: what it writes down holds.
            return Ok(TellOutcome::NotNow);
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
                looked_until: noted,
                claimed_until: now,
                outage,
                ..held
            },
        }))
    }

    /// That a service is away for longer than a moment, or came back after that.
    fn turned_event(&self, held: &LogoutReceiver, outage: Option<&Outage>) -> Option<Event> {
        let about = |kind| {
            self.event(kind, &Circumstances::default())
                .fact("client_id", held.client.as_str())
        };
        let noted = |outage: Option<&Outage>| outage.is_some_and(Outage::is_noted);
        match (noted(held.outage.as_ref()), outage) {
            (false, Some(outage)) if outage.is_noted() => {
                let failure = outage.failure.as_str();
                tracing::error!(client = %held.client, failure, "a service cannot be told of ended sessions; will try again");
                let event = about(Kind::LogoutsDelayed).outcome(Outcome::Failure);
                Some(event.fact("failure", failure))
            }
            (true, after) if !noted(after) => {
                tracing::info!(client = %held.client, "a service takes the ends of sessions again");
                let tries = held.outage.as_ref().map(|outage| outage.tries);
                Some(about(Kind::LogoutsResumed).fact("tries", tries))
            }
            _ => None,
        }
    }

    fn refused_event(&self, client: &ClientId, ending: &Event) -> Event {
        tracing::warn!(%client, event = %ending.id, "a service did not take the end of a session");
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

/// Further ones would only be in vain.
fn is_enough(answers: &[Answer]) -> bool {
    let is_trouble = |answer: &Answer| matches!(answer, Answer::NotTaken(_));
    matches!(answers.last(), Some(Answer::Away(_))) || answers.len() >= MOST_IN_VAIN && answers.iter().all(is_trouble)
}

/// What [`Backend::tell_logouts`] has under way and remembers.
#[derive(Default)]
struct Turns {
    under_way: JoinSet<Result<Option<u64>, ServiceError>>,
    of: HashMap<ClientId, AbortHandle>,
    /// Nothing waits for them up to these places.
    looked: HashMap<ClientId, u64>,
    /// Said once: whose turns fail, and whether looking does.
    failing: HashSet<ClientId>,
    is_blind: bool,
}

type Done = Result<(tokio::task::Id, Result<Option<u64>, ServiceError>), tokio::task::JoinError>;

impl Turns {
    fn note(&mut self, done: Done) {
        let id = done.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let client = self.of.iter().find(|(_, turn)| turn.id() == id);
        let Some(client) = client.map(|(client, _)| client.clone()) else {
            return;
        };
        self.of.remove(&client);
        let error = match done {
            Ok((_, Ok(looked))) => {
                self.failing.remove(&client);
                self.looked.extend(looked.map(|until| (client, until)));
                return;
            }
            Ok((_, Err(error))) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if self.failing.insert(client.clone()) {
            tracing::error!(%client, error, "a service could not be told of ended sessions; will try again");
        }
    }

    fn note_look(&mut self, failure: Option<&ServiceError>) {
        if let Some(error) = failure.filter(|_| !self.is_blind) {
            tracing::error!(%error, "services cannot be told of ended sessions; will try again");
        }
        self.is_blind = failure.is_some();
    }
}
