//! Telling services that a session ended (OpenID Connect Back-Channel Logout 1.0): each ending at least once, in the order
//! of the audit log's seals, however long a service was away. A person never waits for it.
//!
//! Endings are told once they are sealed, within seconds; who must refuse tokens within one second follows the feed of
//! revocations. An ending has the same `jti` at every delivery, so a service knows what it has heard before.

mod messenger;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use secrecy::SecretString;
use tokio::task::{self, JoinError, JoinSet};

use super::security_events::look;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::backchannel_logout::{Answer, Attempts, CLAIM, LogoutReceiver, TURN, Verdict, claims};
use crate::domain::client::ClientId;
use crate::domain::jwt::{JwtError, sign_logout};
use crate::domain::outage::Outage;
use crate::domain::security_event::ENDS_OF_SESSIONS;
use crate::storage::{audit, logout_receivers};

use messenger::Messenger;

/// The pause between two looks. New events are sealed every few seconds.
const LOOK: Duration = Duration::from_secs(1);
/// Most endings told in one turn.
const MOST_ENDINGS: usize = 100;
/// Of these so many at once, after the first.
const AT_ONCE: usize = 8;
/// So many seals that do not concern a service are looked through again after a restart, rather than written down.
const WORTH_NOTING: u64 = 1000;

/// What the turns of this node share.
#[derive(Debug, Default)]
pub(super) struct Telling {
    messenger: Messenger,
    /// Of endings that were not taken.
    attempts: Mutex<HashMap<ClientId, Attempts>>,
}

impl Telling {
    fn attempts(&self) -> MutexGuard<'_, HashMap<ClientId, Attempts>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        let mut end = pin!(end);
        let mut turns = Turns::default();
        loop {
            tokio::select! {
                () = &mut end => break,
                Some(done) = turns.under_way.join_next_with_id() => turns.note(done),
                _ = every.tick() => {
                    let found = tokio::select! {
                        () = &mut end => break,
                        found = self.begin_turns(&mut turns) => found,
                    };
                    turns.note_look(found.as_ref().err());
                }
            }
        }
        self.begin_to_end();
        while turns.under_way.join_next().await.is_some() {}
    }

    async fn begin_turns(self: &Arc<Self>, turns: &mut Turns) -> Result<(), ServiceError> {
        // By a clock that is known to be wrong nobody's claim holds, and no token would be good.
        if !self.may_clear_away() {
            return Ok(());
        }
        let mut tx = self.store.read().await?;
        let receivers = logout_receivers::list_logout_receivers(&mut tx).await?;
        let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
        drop(tx);
        // A database that went back in time has its places anew.
        turns.looked.retain(|_, looked| *looked <= last);
        for mut receiver in receivers {
            let looked = turns.looked.get(&receiver.client).copied().unwrap_or(0);
            receiver.looked_until = receiver.noted.max(looked);
            let is_busy = turns.of.values().any(|client| *client == receiver.client);
            if receiver.looked_until < last && !is_busy {
                let (client, backend) = (receiver.client.clone(), self.clone());
                let turn = turns.under_way.spawn(async move { backend.tell_all(receiver).await });
                turns.of.insert(turn.id(), client);
            }
        }
        Ok(())
    }

    /// Turn after turn, while there is more and the service takes it. The place up to which nothing waits, if one is
    /// known.
    async fn tell_all(&self, mut receiver: LogoutReceiver) -> Result<Option<u64>, ServiceError> {
        loop {
            if self.is_ending() {
                return Ok(None);
            }
            match self.tell_logouts_to(receiver).await? {
                TellOutcome::Told(told) => receiver = told.receiver,
                TellOutcome::Nothing(until) => return Ok(Some(until)),
                TellOutcome::NotNow | TellOutcome::Away => return Ok(None),
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
        self.settle(held, &endings, waiting.until, answers).await
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

    /// The answers, in the order of the endings; none where there was not even the time to ask, or nobody to be asked.
    async fn deliver(&self, to: &LogoutReceiver, endings: &[Ending]) -> Vec<Option<Answer>> {
        let mut answers = vec![None; endings.len()];
        let told = async {
            let client = match self.telling.messenger.client(&to.uri).await {
                Ok(client) => client,
                Err(failure) => return answers[0] = Some(Answer::Away(failure)),
            };
            let telling: Vec<_> = endings
                .iter()
                .enumerate()
                .map(|(at, ending)| {
                    let told = messenger::tell(&client, &to.uri, &ending.token);
                    async move { (at, told.await) }
                })
                .collect();
            let mut telling = telling.into_iter();
            // One alone first: whoever is away is asked once, not eight times.
            let Some(first) = telling.next() else { return };
            let first = stream::once(first);
            // In the order in which they come: one that takes its time holds up no other.
            let rest = stream::iter(telling).buffer_unordered(AT_ONCE);
            let mut coming = pin!(first.chain(rest));
            while let Some((at, answer)) = coming.next().await {
                let is_away = matches!(answer, Answer::Away(_));
                answers[at] = Some(answer);
                if is_away {
                    break;
                }
            }
        };
        let mut ending = self.ending.subscribe();
        tokio::select! {
            _ = tokio::time::timeout(TURN, told) => {}
            _ = ending.wait_for(|is_ending| *is_ending) => {}
        }
        answers
    }

    /// Writes down what is done, what was passed over, and what is to be tried again.
    async fn settle(
        &self,
        held: LogoutReceiver,
        endings: &[Ending],
        until: u64,
        answers: Vec<Option<Answer>>,
    ) -> Result<TellOutcome, ServiceError> {
        let now = self.now();
        let asked: Vec<_> = endings.iter().map(|ending| ending.event.id).zip(answers).collect();
        let mut attempts = self.telling.attempts().remove(&held.client).unwrap_or_default();
        let Verdict {
            done,
            passed_over,
            outage,
        } = Verdict::of(&asked, &mut attempts, held.outage.as_ref(), now);
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
        self.telling.attempts().insert(held.client.clone(), attempts);
        if outage.is_some() {
            return Ok(TellOutcome::Away);
        }
        if done == 0 {
            return Ok(TellOutcome::NotNow);
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

/// What [`Backend::tell_logouts`] has under way and remembers.
#[derive(Default)]
struct Turns {
    under_way: JoinSet<Result<Option<u64>, ServiceError>>,
    /// Whose they are: one at a time for each.
    of: HashMap<task::Id, ClientId>,
    /// Nothing waits for them up to these places.
    looked: HashMap<ClientId, u64>,
    /// Said once: whose turns fail, and whether looking does.
    failing: HashSet<ClientId>,
    is_blind: bool,
}

/// A turn that came to an end, or panicked.
type Done = Result<(task::Id, Result<Option<u64>, ServiceError>), JoinError>;

impl Turns {
    fn note(&mut self, done: Done) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(client) = self.of.remove(&id) else { return };
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
        if self.is_blind {
            // Perhaps another database answers next time.
            self.looked.clear();
        }
    }
}
