//! The keys at work: the ring in memory kept in step with the database, and the steps of the keys' life carried out.
//!
//! What is due is decided in [`lifecycle`]. Several nodes share one database: each step is made under one lock, as
//! conditional updates, with its audit row in the same transaction; the other nodes see it when they look next.
//! Nobody verifies with a ring that is older than [`MOST_STALE`].

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::sessions::open_session_secret;
use super::{Backend, Parts, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::clock::{Timestamp, millis};
use crate::domain::id::EventId;
use crate::domain::jwt::Refusal;
use crate::domain::keys::lifecycle::{self, Act, Change, NewKey, NotRevoked, Step};
use crate::domain::keys::{Algorithm, KeyEncryptionKey, KeyPurpose, KeyRecord, KeyRing, KeyState, opens};
use crate::domain::random::Random;
use crate::storage::{StorageError, Tx, audit, keys, recovery, users};

/// Nobody verifies with a ring that was compared with the database longer ago: a removed key is refused within this,
/// on every node.
pub const MOST_STALE: Duration = Duration::from_secs(1);
/// How often a serving node compares by itself, so that requests seldom have to.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Tokens of unknown keys make a node look again at most this often; they wait for it.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(100);

/// The key ring in memory.
#[derive(Debug)]
pub struct LiveRing {
    ring: RwLock<Arc<KeyRing>>,
    /// When the ring was last compared with the database, Unix milliseconds.
    looked_at: AtomicI64,
    /// How many looks have begun.
    looks: AtomicU64,
    /// How many looks have failed.
    failures: AtomicU64,
    /// The stored keys do not open as a whole; the ring is what was in memory before.
    broken: AtomicBool,
    /// That is written down.
    is_noted: AtomicBool,
    /// One look at a time; the interval between looks for unknown keys.
    turn: Mutex<Option<Interval>>,
}

impl LiveRing {
    /// A ring that was read at `now`.
    #[must_use]
    pub fn new(ring: KeyRing, now: Timestamp) -> Self {
        Self {
            ring: RwLock::new(Arc::new(ring)),
            looked_at: AtomicI64::new(now.as_millis()),
            looks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            is_noted: AtomicBool::new(false),
            turn: Mutex::new(None),
        }
    }

    /// As it is in memory.
    pub(super) fn get(&self) -> Arc<KeyRing> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, ring: KeyRing) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Who stood in line behind a look that failed would only wait as long for the same.
    fn no_failure_since(&self, before: u64) -> Result<(), StorageError> {
        if self.failures() == before {
            Ok(())
        } else {
            Err(StorageError::JustFailed)
        }
    }

    fn is_older_than(&self, age: Duration, now: Timestamp) -> bool {
        let looked_at = self.looked_at.load(Ordering::SeqCst);
        // A clock that went back says nothing about the age.
        now.as_millis() < looked_at || now.as_millis() - looked_at >= millis(age)
    }
}

/// Who orders a change of the keys, for the audit log.
#[derive(Clone, Debug, Default)]
pub struct Order<'a> {
    /// Who and from where; the server itself has neither.
    pub from: Circumstances,
    /// `server` or `command_line`.
    pub by: &'static str,
    /// Why, in the words of whoever orders it.
    pub note: Option<&'a str>,
}

const OWN: Order<'static> = Order {
    from: Circumstances {
        address: None,
        user_agent: None,
        request_id: None,
        actor_id: None,
        session_id: None,
        device_id: None,
    },
    by: "server",
    note: None,
};

/// A stored key and the dates ahead of it.
#[derive(Clone, Debug)]
pub struct KeyStanding {
    /// The key.
    pub key: KeyRecord,
    /// When a `next` key comes into use.
    pub used_from: Option<Timestamp>,
    /// When a retired key goes.
    pub goes_at: Option<Timestamp>,
}

/// What came of asking for a rotation.
#[derive(Clone, Debug)]
pub enum RotateOutcome {
    /// This key is published now and comes into use later.
    Begun(KeyStanding),
    /// It had begun before.
    UnderWay(KeyStanding),
}

/// What came of revoking a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// Its tokens are refused from now on.
    Revoked {
        /// It was in use, and another one is used in its place.
        replaced: bool,
    },
    /// It was not.
    Not(NotRevoked),
}

impl Backend {
    /// The key ring, compared with the database less than [`MOST_STALE`] ago.
    ///
    /// # Errors
    /// When the database cannot be asked: then nobody may verify with what is in memory.
    pub async fn current_keys(&self) -> Result<Arc<KeyRing>, ServiceError> {
        self.keys_looked_at_within(MOST_STALE).await
    }

    /// The file with the key-encryption key is gone (F12).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn note_missing_key_file(&self) -> Result<(), ServiceError> {
        let event = self.event(Kind::KeyFileMissing, &Circumstances::default());
        self.record(event.outcome(Outcome::Failure)).await
    }

    /// The ring for those who keep a copy of the public keys for [`JWKS_CACHE`] themselves: as it is in memory while the
    /// database is away, for no longer than that either.
    ///
    /// # Errors
    /// When the database has been away for longer: a key that was removed meanwhile must not be handed out as good.
    pub async fn published_keys(&self) -> Result<Arc<KeyRing>, ServiceError> {
        match self.current_keys().await {
            Err(error) if self.ring.is_older_than(lifecycle::JWKS_CACHE, self.now()) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the key set is served as it is in memory");
                Ok(self.keys())
            }
            current => current,
        }
    }

    /// Compares the ring with the database unless that was done just now. For a task that does it all the time.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn follow_keys(&self) -> Result<(), ServiceError> {
        self.keys_looked_at_within(LOOK_EVERY / 2).await.map(drop)
    }

    async fn keys_looked_at_within(&self, age: Duration) -> Result<Arc<KeyRing>, ServiceError> {
        if self.ring.is_older_than(age, self.now()) {
            let failures = self.ring.failures();
            let _turn = self.ring.turn.lock().await;
            if self.ring.is_older_than(age, self.now()) {
                self.ring.no_failure_since(failures)?;
                self.look().await?;
            }
        }
        Ok(self.keys())
    }

    /// Verifies with the keys in force. A key that this node does not know yet makes it look anew once.
    pub(super) async fn verify<T>(
        &self,
        verify: impl Fn(&KeyRing) -> Result<T, Refusal>,
    ) -> Result<Result<T, Refusal>, ServiceError> {
        let verified = verify(&*self.current_keys().await?);
        if matches!(verified, Err(Refusal::KeyUnknown)) {
            return Ok(verify(&*self.keys_looked_at_anew().await?));
        }
        Ok(verified)
    }

    /// The ring after a look that began now or later: another node may have made a key a moment ago (after an
    /// emergency; all others are published long before). Strangers' tokens can only make this happen so often, and
    /// wait for it.
    async fn keys_looked_at_anew(&self) -> Result<Arc<KeyRing>, ServiceError> {
        let (before, failures) = (self.ring.looks.load(Ordering::SeqCst), self.ring.failures());
        let mut turn = self.ring.turn.lock().await;
        if self.ring.looks.load(Ordering::SeqCst) == before {
            let pace = turn.get_or_insert_with(|| {
                let mut pace = interval(LOOK_AGAIN_EVERY);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                pace
            });
            pace.tick().await;
            self.look().await?;
        } else {
            self.ring.no_failure_since(failures)?;
        }
        Ok(self.keys())
    }

    /// Compares, and opens the stored keys again if they changed. The caller has the turn.
    async fn look(&self) -> Result<(), ServiceError> {
        self.ring.looks.fetch_add(1, Ordering::SeqCst);
        let compared = self.compare_with_stored().await;
        if compared.is_err() {
            self.ring.failures.fetch_add(1, Ordering::SeqCst);
        }
        compared
    }

    async fn compare_with_stored(&self) -> Result<(), ServiceError> {
        let now = self.now();
        let mut tx = self.store.read().await?;
        if keys::keys_version(&mut tx).await? != *self.keys().version() {
            let records = keys::list_keys(&mut tx).await?;
            drop(tx);
            self.open_anew(records)?;
        }
        self.ring.looked_at.store(now.as_millis(), Ordering::SeqCst);
        Ok(())
    }

    fn open_anew(&self, records: Vec<KeyRecord>) -> Result<(), ServiceError> {
        // F12: keys that somebody damages while the server runs do not stop it; only what is removed goes.
        let left = self.keys().without_removed(&records);
        match KeyRing::open(records, &self.kek) {
            Ok(ring) => {
                self.ring.set(ring);
                if self.ring.broken.swap(false, Ordering::SeqCst) {
                    tracing::info!("the stored keys can be opened again");
                }
                Ok(())
            }
            Err(error) => {
                if !self.ring.broken.swap(true, Ordering::SeqCst) {
                    tracing::error!(%error, "the stored keys cannot be opened; going on with those in memory");
                }
                self.ring.set(left?);
                Ok(())
            }
        }
    }

    /// Whether there is a ring to serve with. A database that is away is another matter, and so are stored keys that somebody
    /// damaged: then every node goes on with what is in memory, and none would be ready.
    pub async fn keys_are_in_order(&self) -> bool {
        matches!(self.current_keys().await, Ok(_) | Err(ServiceError::Storage(_)))
    }

    /// Writes down, once, that the stored keys are damaged: they have to be put back while a node still has them (F12).
    ///
    /// # Errors
    /// Infrastructure; the next call writes it down.
    pub async fn note_damaged_keys(&self) -> Result<(), ServiceError> {
        let is_broken = self.ring.broken.load(Ordering::SeqCst);
        if is_broken && !self.ring.is_noted.load(Ordering::SeqCst) {
            let event = self.event(Kind::KeysDamaged, &Circumstances::default());
            self.record(event.outcome(Outcome::Failure)).await?;
        }
        self.ring.is_noted.store(is_broken, Ordering::SeqCst);
        Ok(())
    }

    /// Carries out what is due in the keys' life. How many steps.
    ///
    /// # Errors
    /// Infrastructure; the next call makes up for it.
    pub async fn keep_keys(&self) -> Result<usize, ServiceError> {
        // Without the lock: mostly there is nothing to do.
        let mut tx = self.store.read().await?;
        let records = keys::list_keys(&mut tx).await?;
        drop(tx);
        let due = |records: &[KeyRecord], now| {
            let mut steps = lifecycle::due(records, &self.key_rules, now);
            if !self.clock_has_settled() {
                steps.retain(|step| !step.needs_settled_clock());
            }
            steps
        };
        if due(&records, self.now()).is_empty() {
            return Ok(0);
        }
        let (steps, ()) = self.change_keys(&OWN, |records, now| (due(records, now), ())).await?;
        for step in &steps {
            tracing::info!(?step, "keys");
        }
        Ok(steps.len())
    }

    /// Begins a rotation to the configured algorithm if the key in use has another one. Called by the server at its
    /// start, and by nobody else: a program with another configuration has no say.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn adopt_algorithm(&self, algorithm: Algorithm) -> Result<(), ServiceError> {
        let mut tx = self.store.read().await?;
        let records = keys::list_keys(&mut tx).await?;
        drop(tx);
        if lifecycle::algorithm_changed(&records, algorithm).is_empty() {
            return Ok(());
        }
        self.change_keys(&OWN, |records, _| {
            (lifecycle::algorithm_changed(records, algorithm), ())
        })
        .await?;
        Ok(())
    }

    /// All keys ever made, oldest first.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_keys(&self) -> Result<Vec<KeyStanding>, ServiceError> {
        let mut tx = self.store.read().await?;
        let records = keys::list_keys(&mut tx).await?;
        Ok(records.into_iter().map(|key| self.standing(key)).collect())
    }

    /// Begins a rotation now instead of when the key is old enough: the new key is published, and used once every
    /// verifier can have it.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn rotate_keys(&self, purpose: KeyPurpose, order: &Order<'_>) -> Result<RotateOutcome, ServiceError> {
        let (steps, ()) = self
            .change_keys(order, |records, _| {
                (lifecycle::asked(records, purpose).into_iter().collect(), ())
            })
            .await?;
        let standing = self.list_keys().await?;
        let next = standing
            .into_iter()
            .find(|standing| standing.key.purpose == purpose && standing.key.state == KeyState::Next)
            .ok_or(ServiceError::Contradiction("a rotation under way without its key"))?;
        Ok(if steps.is_empty() {
            RotateOutcome::UnderWay(next)
        } else {
            RotateOutcome::Begun(next)
        })
    }

    /// Removes a key in an emergency: everything signed with it is refused at once here, and within [`MOST_STALE`] on
    /// every other node. If it was in use, another one is made and used at once. Sessions go on by refreshing.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn revoke_key(&self, id: &str, order: &Order<'_>) -> Result<RevokeOutcome, ServiceError> {
        let (steps, refused) = self
            .change_keys(order, |records, _| match lifecycle::revocation(records, id) {
                Ok(steps) => (steps, None),
                Err(refused) => (Vec::new(), Some(refused)),
            })
            .await?;
        if let Some(refused) = refused {
            return Ok(RevokeOutcome::Not(refused));
        }
        tracing::warn!(key = id, by = order.by, "a signing key was revoked");
        let replaced = steps.iter().any(|step| matches!(step.act, Act::Install(_)));
        Ok(RevokeOutcome::Revoked { replaced })
    }

    fn standing(&self, key: KeyRecord) -> KeyStanding {
        KeyStanding {
            used_from: (key.state == KeyState::Next).then(|| lifecycle::used_from(&key)),
            goes_at: lifecycle::goes_at(&key, &self.key_rules),
            key,
        }
    }

    /// Carries out a plan under the lock, then looks at the keys anew. The steps, and what else the plan says.
    async fn change_keys<T>(
        &self,
        order: &Order<'_>,
        plan: impl FnOnce(&[KeyRecord], Timestamp) -> (Vec<Step>, T),
    ) -> Result<(Vec<Step>, T), ServiceError> {
        let mut tx = self.store.write().await?;
        users::lock_bootstrap(&mut tx).await?;
        let records = keys::list_keys(&mut tx).await?;
        let now = self.now();
        let (steps, said) = plan(&records, now);
        if steps.is_empty() {
            return Ok((steps, said));
        }
        let workshop = Workshop {
            kek: &self.kek,
            random: self.random(),
            now,
        };
        workshop.carry_out(&mut tx, &steps, &records, order).await?;
        tx.commit().await?;
        self.look_at_changed_keys().await;
        Ok((steps, said))
    }

    /// After the commit of a change.
    pub(super) async fn look_at_changed_keys(&self) {
        let _turn = self.ring.turn.lock().await;
        if let Err(error) = self.look().await {
            // It is done; whoever verifies next looks again.
            self.ring.looked_at.store(i64::MAX, Ordering::SeqCst);
            tracing::error!(%error, "the keys were changed but could not be read again");
        }
    }

    /// Removes every signing key there is and makes another one, in use at once. How many were removed. The caller
    /// holds the lock and calls [`Self::look_at_changed_keys`] after the commit.
    pub(super) async fn replace_signing_keys(&self, tx: &mut Tx, order: &Order<'_>) -> Result<u64, ServiceError> {
        let records = keys::list_keys(tx).await?;
        let steps = lifecycle::recovery(&records);
        let workshop = Workshop {
            kek: &self.kek,
            random: self.random(),
            now: self.now(),
        };
        workshop.carry_out(tx, &steps, &records, order).await?;
        Ok(steps.iter().filter(|step| matches!(step.act, Act::Remove(_))).count() as u64)
    }
}

/// What to do about a purpose that has no active key, though there were keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostKeys {
    /// Nothing: the start is refused (F12). Another edge key would sign everybody out, and hide every theft from before.
    Refuse,
    /// Make others, also for those that do not open: everybody signs in again anyhow.
    Replace,
}

/// Makes the keys that are missing: on the first run, or as [`LostKeys`] says. The caller holds the lock.
pub(super) async fn make_missing_keys(
    tx: &mut Tx,
    parts: &Parts,
    algorithm: Algorithm,
    lost: LostKeys,
) -> Result<(), ServiceError> {
    let mut records = keys::list_keys(tx).await?;
    let is_allowed = match lost {
        LostKeys::Refuse => records.is_empty(),
        LostKeys::Replace => is_proven_right(tx, &records, &parts.kek).await?,
    };
    if !is_allowed {
        return Ok(());
    }
    let workshop = Workshop {
        kek: &parts.kek,
        random: parts.random.as_ref(),
        now: parts.clock.now(),
    };
    let damaged = lifecycle::damaged(&records, |key| opens(key, &parts.kek));
    if !damaged.is_empty() {
        workshop.carry_out(tx, &damaged, &records, &OWN).await?;
        records = keys::list_keys(tx).await?;
    }
    let steps = lifecycle::missing(&records, algorithm);
    workshop.carry_out(tx, &steps, &records, &OWN).await
}

/// Whether it is proved that this is the key that the database was sealed with: with another one nothing opens, and all is
/// there. A stored key proves it, or the secret of one of the newest sessions; in an empty database there is nothing to lose.
async fn is_proven_right(tx: &mut Tx, records: &[KeyRecord], kek: &KeyEncryptionKey) -> Result<bool, ServiceError> {
    if lifecycle::living(records).any(|key| opens(key, kek)) {
        return Ok(true);
    }
    let sealed = recovery::newest_secrets(tx, 100).await?;
    let opens = |(id, sealed): &(_, Vec<u8>)| open_session_secret(kek, *id, sealed).is_ok();
    Ok(sealed.iter().any(opens) || (sealed.is_empty() && records.is_empty()))
}

/// What keys are made with.
struct Workshop<'a> {
    kek: &'a KeyEncryptionKey,
    random: &'a dyn Random,
    now: Timestamp,
}

impl Workshop<'_> {
    async fn carry_out(
        &self,
        tx: &mut Tx,
        steps: &[Step],
        records: &[KeyRecord],
        order: &Order<'_>,
    ) -> Result<(), ServiceError> {
        for step in steps {
            let changes = step.act.changes(records, self.now, &mut |new| match new {
                NewKey::Signing(algorithm) => KeyRecord::generate_signing(algorithm, self.kek, self.now, self.random),
                NewKey::Edge(number) => KeyRecord::generate_edge(number, self.kek, self.now, self.random),
            })?;
            for change in &changes {
                match change.from {
                    None => keys::insert_key(tx, &change.key).await?,
                    Some(from) => {
                        if !keys::set_key_state(tx, &change.key, from).await? {
                            return Err(ServiceError::Contradiction("a key changed under its lock"));
                        }
                    }
                }
                audit::append_events(tx, &self.events(change, step, order)).await?;
            }
        }
        Ok(())
    }

    fn events(&self, change: &Change, step: &Step, order: &Order<'_>) -> Vec<Event> {
        let kinds: &[Kind] = match (change.from, change.key.state) {
            (None, KeyState::Active) => &[Kind::KeyCreated, Kind::KeyActivated],
            (None, _) => &[Kind::KeyCreated],
            (_, KeyState::Active) => &[Kind::KeyActivated],
            (_, KeyState::Retired) => &[Kind::KeyRetired],
            (_, KeyState::Removed) => &[Kind::KeyRemoved],
            (_, KeyState::Next) => &[],
        };
        let event = |kind: &Kind| {
            let id = EventId::new(self.now, self.random);
            let mut event = Event::new(id, self.now, *kind, &order.from)
                .subject(None)
                .reason(step.cause.as_str())
                .fact("key", change.key.id.clone())
                .fact("purpose", change.key.purpose.as_str())
                .fact("algorithm", change.key.algorithm.as_str())
                .fact("by", order.by);
            if let Some(note) = order.note {
                event = event.fact("note", note);
            }
            event
        };
        kinds.iter().map(event).collect()
    }
}
