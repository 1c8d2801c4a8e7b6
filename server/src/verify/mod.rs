//! For other services in Rust: checks people's access tokens completely and by itself, revocations included; and takes
//! the logout tokens that tell it of ended sessions ([`logout`]).
//!
//! [`Checker::check`] is the strict verification of TOKENS.md §4: the token itself as our own server judges it
//! (`domain::jwt`), against the published keys; then revocation, from what the feed has told. A service runs
//! [`Checker::follow`] beside its listener and puts [`layer::require_token`] in front of its routes; how requests to the
//! issuer travel is its own choice ([`Transport`]).
//!
//! **Fails closed.** What is known of revocations has a date. Older than the bound (one second, unless set otherwise),
//! nobody is let in any more: 503, not 401, since the token may well be good. The date is counted from before the
//! request that opened the stream, so slow or held-up connections make knowledge old, never young.
//!
//! Must not know storage, services, or anything else of the issuer but its published interface.

mod events;
mod follower;
mod keys;
pub mod layer;
pub mod logout;
mod proofs;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::clock::{Clock, Settling, Timestamp, Watch};
use crate::domain::dpop::{self, check_binding};
use crate::domain::jwt::{AccessClaims, LogoutClaims, Refusal, TokenKind, Verifier, key_id};
use crate::domain::keys::PublicKeys;
use crate::domain::policy::MAX_ACCESS;
use crate::domain::revocation::{Presented, Verdict};

pub use follower::{Broken, Follower};
pub use keys::KeyCache;
use proofs::UsedProofs;

/// Path of the published keys.
pub const KEYS_PATH: &str = "/.well-known/jwks.json";
/// Path of the stream of revocations.
pub const STREAM_PATH: &str = "/oauth/revocations/stream";
/// The longest wait for an answer of the issuer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses before asking again after something went wrong: doubled each time, from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
/// Published keys are read again after so long (their `Cache-Control` says the same).
const KEYS_MAX_AGE: Duration = Duration::from_mins(5);

/// What a service expects.
#[derive(Clone, Debug)]
pub struct Expected {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, exactly.
    pub audience: String,
    /// Tolerance for clock differences in `exp`, `nbf`, `iat`.
    pub clock_tolerance: Duration,
    /// How old knowledge of revocations may be; [`BOUND`] suits most.
    pub bound: Duration,
    /// Where clients reach this service, such as `https://orders.example.com`: together with a request's path that is what
    /// a proof of possession names. Without it tokens that are bound to a key are refused.
    pub address: Option<String>,
}

/// Usual age that knowledge of revocations may have.
pub const BOUND: Duration = Duration::from_secs(1);

/// Why a request of ours to the issuer brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The issuer answered with this status.
    #[error("the issuer answered {0}")]
    Status(u16),
    /// No answer, or a broken one.
    #[error("the issuer cannot be reached: {0}")]
    Failed(String),
}

/// How requests reach the issuer. The service adds its own access token with the scope `revocations`, renewed in time.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The body of a GET: some kilobytes.
    ///
    /// # Errors
    /// Any other status than 200, or no answer.
    async fn get(&self, path: &str) -> Result<Vec<u8>, TransportError>;

    /// A GET whose body is read bit by bit.
    ///
    /// # Errors
    /// Any other status than 200, or no answer.
    async fn open(&self, path: &str) -> Result<Box<dyn Chunks>, TransportError>;
}

/// The body of a stream.
#[async_trait]
pub trait Chunks: Send {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection broke.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, TransportError>;
}

/// Why a token does not let its bearer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is no token of the issuer, or not for here and now: 401.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It was revoked: 401.
    #[error("revoked")]
    Revoked,
    /// It is bound to a key and came without a good proof of it, or is not and came with one: 401.
    #[error("not proved: {0}")]
    Unproven(dpop::Refusal),
    /// Whether it is good cannot be said at the moment: 503.
    #[error("cannot be told for now: {0}")]
    Unknown(&'static str),
}

/// Checks tokens.
pub struct Checker {
    verifier: Verifier,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    keys: RwLock<Arc<PublicKeys>>,
    cache: Mutex<KeyCache>,
    follower: Mutex<Follower>,
    address: Option<String>,
    used: Mutex<UsedProofs>,
    settling: Mutex<Settling>,
    /// One reads the keys anew, others wait for what comes of it.
    reading: tokio::sync::Mutex<()>,
    /// A key was removed: another one may sign already.
    key_removed: tokio::sync::Notify,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker")
            .field("issuer", &self.verifier.issuer)
            .finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checker {
    /// One that knows nothing yet: until [`Checker::follow`] has begun nobody is let in.
    #[must_use]
    pub fn new(expected: Expected, transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            verifier: Verifier {
                issuer: expected.issuer,
                audience: expected.audience,
                tolerance: expected.clock_tolerance,
                max_lifetime: MAX_ACCESS,
            },
            transport,
            settling: Mutex::new(Settling::begin(clock.as_ref())),
            clock,
            keys: RwLock::default(),
            cache: Mutex::default(),
            follower: Mutex::new(Follower::new(expected.bound)),
            address: expected.address,
            used: Mutex::default(),
            reading: tokio::sync::Mutex::new(()),
            key_removed: tokio::sync::Notify::new(),
        }
    }

    /// Checks a person's access token completely. One that is bound to a key is refused: see [`Checker::check_proven`].
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn check(&self, token: &str) -> Result<AccessClaims, Denied> {
        let claims = self.check_token(token).await?;
        check_binding(claims.cnf.map(|cnf| cnf.jkt), None).map_err(Denied::Unproven)?;
        Ok(claims)
    }

    /// Checks a token that came as `Authorization: DPoP` (RFC 9449, section 7), and that its sender holds the key it is
    /// bound to. `method` and `path` are the request's own.
    ///
    /// Each proof is good once in this process, for a minute; no nonce is asked for. A service of several processes, or one
    /// that was just started again, takes a proof that was caught on its way once in each.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn check_proven(
        &self,
        token: &str,
        proof: &str,
        method: &str,
        path: &str,
    ) -> Result<AccessClaims, Denied> {
        let address = self.address.as_ref().ok_or(Denied::Unproven(dpop::Refusal::Address))?;
        let now = self.clock.now();
        let expected = dpop::Expected {
            method,
            address: &format!("{address}{path}"),
            token: Some(token),
            nonces: None,
            tolerance: self.verifier.tolerance,
        };
        let proof = dpop::verify(proof, &expected, now).map_err(Denied::Unproven)?;
        let claims = self.check_token(token).await?;
        check_binding(claims.cnf.map(|cnf| cnf.jkt), Some(proof.key)).map_err(Denied::Unproven)?;
        locked(&self.used).consume(&proof, now)?;
        Ok(claims)
    }

    /// Checks a logout token in the order of OpenID Connect Back-Channel Logout 1.0, section 2.6. `audience`: the id
    /// of this service as a client. Of revocations nothing needs to be known, so a service that only hears logouts runs
    /// [`Checker::follow_keys`] alone.
    ///
    /// # Errors
    /// [`Denied::Refused`], or [`Denied::Unknown`] if its key is not known: it may be a new one that could not be read yet,
    /// and a logout that is refused does not come again.
    pub async fn check_logout(&self, token: &str, audience: &str) -> Result<LogoutClaims, Denied> {
        let verifier = Verifier {
            audience: audience.to_owned(),
            ..self.verifier.clone()
        };
        let verify = |keys: &PublicKeys| verifier.verify_logout(keys, token, self.clock.now());
        let kid = key_id(token, TokenKind::Logout).map_err(Denied::Refused)?;
        match self.with_keys(&kid, verify).await {
            Err(Denied::Refused(Refusal::KeyUnknown)) => Err(Denied::Unknown("its key is not known")),
            checked => checked,
        }
    }

    async fn check_token(&self, token: &str) -> Result<AccessClaims, Denied> {
        let verify = |keys: &PublicKeys| self.verifier.verify_access(keys, token, self.clock.now());
        let kid = key_id(token, TokenKind::Access).map_err(Denied::Refused)?;
        let claims = self.with_keys(&kid, verify).await?;
        let sub = claims.sub.to_string();
        let presented = Presented::of(&claims, &kid, &sub);
        match locked(&self.follower).verdict(&presented, self.clock.now()) {
            Verdict::NotRevoked => Ok(claims),
            Verdict::Revoked => Err(Denied::Revoked),
            Verdict::Unknown => Err(Denied::Unknown("revocations are not known")),
        }
    }

    /// What is known of revocations is no older than the bound.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        locked(&self.follower).is_fresh(self.clock.now())
    }

    /// Verifies with the keys that are known, and once more with those that are published now if this one is not among
    /// them.
    async fn with_keys<C>(&self, kid: &str, verify: impl Fn(&PublicKeys) -> Result<C, Refusal>) -> Result<C, Denied> {
        let known = || self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let are_stale = || locked(&self.cache).is_stale(self.clock.elapsed(), self.clock.now());
        // After a sleep, for one, nobody waits for their time.
        if are_stale() && (self.read_keys(Some("")).await.is_err() || are_stale()) {
            return Err(Denied::Unknown("keys are too old"));
        }
        match verify(&known()) {
            // Perhaps a new key, read at most twice a minute whatever is sent here (J13).
            Err(Refusal::KeyUnknown) if self.read_keys(Some(kid)).await? => verify(&known()),
            verified => verified,
        }
        .map_err(Denied::Refused)
    }

    /// Reads the published keys, for a key that is not known or because their time has come. Whether they were read
    /// since the caller last looked.
    async fn read_keys(&self, unknown: Option<&str>) -> Result<bool, Denied> {
        use crate::domain::keys::VerifyingKeys as _;
        let _turn = self.reading.lock().await;
        let known = |kid: &str| {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.find(kid).is_some()
        };
        if unknown.is_some_and(known) {
            return Ok(true);
        }
        if !locked(&self.cache).begin(unknown.is_none(), self.clock.now()) {
            let never = !locked(&self.cache).has_keys();
            return if never {
                Err(Denied::Unknown("keys are not known"))
            } else {
                Ok(false)
            };
        }
        let asked_at = (self.clock.elapsed(), self.clock.now());
        let read = within(self.transport.get(KEYS_PATH))
            .await
            .and_then(|body| PublicKeys::read(&body).map_err(|error| TransportError::Failed(error.to_string())));
        match read {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                locked(&self.cache).done(asked_at.0, asked_at.1);
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, "the issuer's keys could not be read");
                // With the keys it has it goes on; what they do not verify is not known to be wrong.
                if unknown.is_some() {
                    Err(Denied::Unknown("keys cannot be read"))
                } else {
                    Ok(false)
                }
            }
        }
    }

    /// Follows the feed and the keys, for as long as the service runs.
    pub async fn follow(&self) {
        tokio::join!(self.follow_feed(), self.follow_keys());
    }

    /// Follows the keys alone, for as long as the service runs.
    pub async fn follow_keys(&self) {
        let mut was_removed = false;
        loop {
            let pause = match self.read_keys(None).await {
                // Once more in a moment: the node that was asked may not have heard of it yet.
                Ok(true) if !was_removed => KEYS_MAX_AGE,
                _ => PAUSES[1],
            };
            was_removed = tokio::time::timeout(pause, self.key_removed.notified()).await.is_ok();
        }
    }

    async fn follow_feed(&self) {
        let mut pause = PAUSES[0];
        loop {
            let began_at = self.clock.now();
            match self.follow_once().await {
                Ok(()) => tracing::debug!("the stream of revocations ended; opening it again"),
                Err(error) => tracing::warn!(%error, "the stream of revocations broke; opening it again"),
            }
            // A stream that went on for a while was well.
            let was_well = self.clock.now().since(began_at) > PAUSES[1];
            pause = if was_well {
                PAUSES[0]
            } else {
                (pause * 2).min(PAUSES[1])
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The stream from where we are until it ends.
    async fn follow_once(&self) -> Result<(), TransportError> {
        let from = {
            let follower = locked(&self.follower);
            let seen = follower.seen().map_or_else(String::new, |seen| format!("&seen={seen}"));
            format!("{STREAM_PATH}?cursor={}{seen}", follower.cursor())
        };
        let (sent_at, watch) = (self.clock.now(), Watch::begin(self.clock.as_ref()));
        let opened = within(self.transport.open(&from)).await;
        if let Err(TransportError::Status(400 | 410)) = opened {
            // The issuer went back in time, or is so old that it cannot say: begin anew, and go on refusing what was
            // refused.
            locked(&self.follower).begin_anew();
        }
        let mut chunks = opened?;
        locked(&self.follower).opened(sent_at);
        while let Some(chunk) = within(chunks.next()).await? {
            let received = self.received(&chunk, &watch);
            received.map_err(|error: Broken| TransportError::Failed(error.to_string()))?;
        }
        Ok(())
    }

    /// `watch`: since the stream was asked for.
    fn received(&self, chunk: &[u8], watch: &Watch) -> Result<(), Broken> {
        let mut settling = locked(&self.settling);
        if settling.look(self.clock.as_ref()).is_some_and(|jump| jump < 0) {
            // What was heard while the clock was ahead may have been forgotten as over.
            locked(&self.follower).begin_anew();
            return Err(Broken::ClockSetBack);
        }
        if watch.has_stepped(self.clock.as_ref()) {
            return Err(Broken::ClockStepped);
        }
        let settled = settling.has_settled(self.clock.as_ref());
        let mut follower = locked(&self.follower);
        let keys = follower.keys_removed();
        let received = follower.received(chunk, self.clock.now(), settled);
        if follower.keys_removed() > keys {
            // Whose tokens are of it comes with one of the key that took its place, and has not to wait for its pause.
            self.key_removed.notify_one();
        }
        received
    }

    /// When knowledge was last complete; for a service's own health page.
    #[must_use]
    pub fn as_of(&self) -> Option<Timestamp> {
        locked(&self.follower).as_of()
    }
}

/// A stream says something several times a second, and an answer does not take for ever.
async fn within<T>(act: impl Future<Output = Result<T, TransportError>>) -> Result<T, TransportError> {
    tokio::time::timeout(PATIENCE, act)
        .await
        .unwrap_or_else(|_| Err(TransportError::Failed("no answer in time".to_owned())))
}
