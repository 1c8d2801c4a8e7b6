//! What people and programs can do, each act as one transaction: load through `storage`, decide in `domain`,
//! write, append the audit row, commit. Must not know axum, and names leptos only to implement `app`'s ports.
//!
//! `Ok` carries outcomes, refusals and detected thefts among them (those commit); `Err` is infrastructure and
//! rolls back.

pub mod account;
pub mod admin;
pub mod audit;
pub mod audit_checkpoint;
pub mod audit_seal;
pub mod backchannel_logout;
pub mod bootstrap;
mod checked;
mod clock_watch;
pub mod cohorts;
pub mod dbsc;
pub mod demo;
pub mod dpop;
pub mod forgetting;
pub mod hashing;
pub mod invitations;
pub mod keys;
pub mod lifetimes;
pub mod mail;
pub mod metrics;
pub mod node_clocks;
mod notices;
pub mod oauth;
pub mod ports;
pub mod recovery;
pub mod revocations;
pub mod revoked_tokens;
mod rolled_back;
pub mod security_events;
pub mod sessions;
pub mod sign_in;
pub mod tokens;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;

use crate::config::Outlet;
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::clock::{Clock, Timestamp, Watch};
use crate::domain::dbsc::Seals;
use crate::domain::dpop::Nonces;
use crate::domain::id::{EventId, NodeId, UserId};
use crate::domain::jwt::Verifier;
use crate::domain::keys::lifecycle::Rules;
use crate::domain::keys::{KeyEncryptionKey, KeyError, KeyRing};
use crate::domain::policy::{Limits, MAX_ACCESS, strictest};
use crate::domain::random::Random;
use crate::domain::user::{User, canonical};
use crate::storage::mail as mails;
use crate::storage::{StorageError, Store, Tx, logout_receivers, policies, users};

use hashing::Hasher;

/// Infrastructure that failed; the transaction was rolled back and nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The database: 503 if it cannot be reached, else 500.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// More password hashing is waiting than the server takes on: 503 with `Retry-After`.
    #[error("too many sign-ins are waiting")]
    Busy,
    /// A sealed value or a key could not be opened: 500.
    #[error("a sealed value could not be opened: {0}")]
    Key(#[from] KeyError),
    /// Signing failed: 500.
    #[error("a token could not be signed: {0}")]
    Signing(#[from] crate::domain::jwt::JwtError),
    /// A password could not be hashed: 500.
    #[error(transparent)]
    Hash(#[from] crate::domain::password::HashError),
    /// The state of a flow could not be kept: 503.
    #[error("the state of the flow could not be kept: {0}")]
    Flow(#[from] tower_sessions::session::Error),
    /// The checkpoint of the audit log could not be read or written: 503.
    #[error("the checkpoint of the audit log: {0}")]
    Checkpoint(std::io::Error),
    /// Password, status or roles changed while the person was signing in: 503, and the next try sees what is new.
    #[error("the account changed while its owner was signing in")]
    AccountChanged,
    /// A row that contradicts another one: 500.
    #[error("contradiction in the database: {0}")]
    Contradiction(&'static str),
}

/// What the services are made with.
pub struct Parts {
    /// Database.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Seals what the database keeps of secrets.
    pub kek: KeyEncryptionKey,
    /// Password hashing.
    pub hasher: Hasher,
    /// Public address of this server, without a trailing slash: `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The one tolerance for clock differences.
    pub clock_tolerance: Duration,
    /// Age at which keys are replaced.
    pub rotate_keys_every: Duration,
    /// Whether sessions of browsers are bound to a key of theirs, where the browser can.
    pub binds_browsers: bool,
    /// The way mails go out; none: no mail is sent.
    pub mail: Option<Outlet>,
}

/// The services and what they share.
pub struct Backend {
    store: Store,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    kek: KeyEncryptionKey,
    hasher: Hasher,
    issuer: String,
    audience: String,
    verifier: Verifier,
    ring: keys::LiveRing,
    key_rules: Rules,
    refreshes: sessions::SessionLocks,
    revocations: revocations::Revocations,
    checked: checked::Checked,
    noted: tokens::Noted,
    /// Of proofs of possession.
    nonces: Nonces,
    /// Of browsers that sessions are bound to.
    seals: Seals,
    binds_browsers: bool,
    looks: audit_seal::Looks,
    /// The checkpoint of the audit log speaks against the log.
    log_is_contradicted: AtomicBool,
    clock_watch: clock_watch::ClockWatch,
    node_clock: node_clocks::NodeClock,
    /// For telling services of ended sessions.
    telling: backchannel_logout::Telling,
    mail: Option<Outlet>,
    metrics: Arc<metrics::Metrics>,
    /// The server ends: what is under way outside comes to an end with what it has.
    ending: watch::Sender<bool>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Puts the services together around an opened key ring.
    #[must_use]
    pub fn new(parts: Parts, keys: KeyRing) -> Self {
        let verifier = Verifier {
            issuer: parts.issuer.clone(),
            audience: parts.audience.clone(),
            tolerance: parts.clock_tolerance,
            max_lifetime: MAX_ACCESS,
        };
        let key_rules = Rules {
            rotate_every: parts.rotate_keys_every,
            tolerance: parts.clock_tolerance,
        };
        let ring = keys::LiveRing::new(keys, parts.clock.now());
        let clock_watch = clock_watch::ClockWatch::begin(parts.clock.as_ref());
        let node = NodeId::new(parts.clock.now(), parts.random.as_ref());
        let nonces = Nonces::new(&parts.kek.derive("dpop nonces"));
        let seals = Seals::new(&parts.kek.derive("dbsc"));
        let metrics = Arc::new(metrics::Metrics::new(parts.store.event_counts().clone()));
        Self {
            store: parts.store,
            clock: parts.clock,
            random: parts.random,
            kek: parts.kek,
            hasher: parts.hasher,
            issuer: parts.issuer,
            audience: parts.audience,
            verifier,
            ring,
            key_rules,
            refreshes: sessions::SessionLocks::default(),
            revocations: revocations::Revocations::default(),
            checked: checked::Checked::default(),
            noted: tokens::Noted::default(),
            nonces,
            seals,
            binds_browsers: parts.binds_browsers,
            looks: audit_seal::Looks::default(),
            log_is_contradicted: AtomicBool::new(false),
            clock_watch,
            node_clock: node_clocks::NodeClock::new(node),
            telling: backchannel_logout::Telling::default(),
            mail: parts.mail,
            metrics,
            ending: watch::channel(false).0,
        }
    }

    /// The database, for health checks and the flow store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Begins to watch the clock: see [`Self::clock_has_stepped`].
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::begin(self.clock.as_ref())
    }

    /// Whether the clock was set since then.
    #[must_use]
    pub fn clock_has_stepped(&self, since: &Watch) -> bool {
        since.has_stepped(self.clock.as_ref())
    }

    /// Takes over what a process before this one was telling or sending when it ended, where there is no other node that
    /// could be at it.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn take_over(&self) -> Result<(), ServiceError> {
        let (mut tx, now) = (self.store.write().await?, self.now());
        logout_receivers::release_logout_receivers(&mut tx, now).await?;
        mails::release_mails(&mut tx, now).await?;
        Ok(tx.commit().await?)
    }

    /// Nothing outside is begun any more: the server ends.
    pub fn begin_to_end(&self) {
        self.ending.send_replace(true);
    }

    /// Hears of that.
    #[must_use]
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Whether bound sessions of browsers are used with their key or not at all.
    #[must_use]
    pub const fn binds_browsers(&self) -> bool {
        self.binds_browsers
    }

    /// Randomness.
    #[must_use]
    pub fn random(&self) -> &dyn Random {
        self.random.as_ref()
    }

    /// Randomness, shared.
    #[must_use]
    pub fn shared_random(&self) -> Arc<dyn Random> {
        self.random.clone()
    }

    /// The clock, shared.
    #[must_use]
    pub fn shared_clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Seals what the database keeps of secrets.
    #[must_use]
    pub const fn key_encryption_key(&self) -> &KeyEncryptionKey {
        &self.kek
    }

    /// Writes down that the edge refused a request.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn record_refusal(&self, kind: Kind, from: &Circumstances, reason: &str) -> Result<(), ServiceError> {
        self.record(self.event(kind, from).outcome(Outcome::Denied).reason(reason))
            .await
    }

    /// Public address of this server.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The key ring as it is in memory, to sign with; see [`Self::current_keys`] for one to verify with.
    #[must_use]
    pub fn keys(&self) -> Arc<KeyRing> {
        self.ring.get()
    }

    /// A new audit event of this moment.
    fn event(&self, kind: Kind, from: &Circumstances) -> Event {
        let now = self.now();
        Event::new(EventId::new(now, self.random()), now, kind, from)
    }

    /// The strictest limits over a person's roles; `None` without any.
    async fn limits_of(&self, tx: &mut Tx, user: &User) -> Result<Option<Limits>, StorageError> {
        Ok(strictest(&policies::find_policies_in_force_of_user(tx, user.id).await?))
    }

    /// An account.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn find_user(&self, id: UserId) -> Result<Option<User>, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(users::find_user(&mut tx, id).await?)
    }

    /// An account by sign-in name or e-mail address.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn find_user_by_name(&self, name: &str) -> Result<Option<User>, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(users::find_user_by_identifier(&mut tx, &canonical(name)).await?)
    }

    /// A fresh 256-bit secret as text for links, and the hash that is stored.
    fn link_secret(&self) -> (SecretString, [u8; 32]) {
        let secret = crate::domain::random::secret::<32>(self.random());
        let text = data_encoding::BASE64URL_NOPAD.encode(secret.as_slice());
        let hash = sha256(text.as_bytes());
        (SecretString::from(text), hash)
    }
}

/// SHA-256: enough for random secrets of 256 bits, which cannot be guessed and need no slow hash.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    hash
}
