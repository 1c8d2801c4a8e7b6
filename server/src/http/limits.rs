//! How often something may be tried: by network, by account, and by account from one network (M13).
//!
//! Owns: buckets, keys and their memory. Must not know what is being tried, nor anything about HTTP.
//!
//! Nobody may be able to lock a victim out, so the three buckets of a kind have different tempers:
//! * *address*: all tries from one network, whatever the account. Stops one machine that tries many accounts.
//!   Wide enough for an office behind one address.
//! * *account at address*: strict. Guessing at one account from one network stops after a few tries; the owner,
//!   elsewhere, has a bucket of their own and notices nothing.
//! * *account*: generous, against guessing from a thousand networks at once. It is the only bucket that a stranger
//!   can empty for the owner, so a known device (its cookie was checked) never looks into it, and it refills by
//!   itself within seconds; nothing here is ever "locked".
//!
//! The database's own count of consecutive failures per authenticator (P7) is another matter and lives elsewhere.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::config::{KindRates, LimitSettings, Rate};
use crate::domain::clock::{Clock, Timestamp};

/// What is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// A password.
    SignIn,
    /// A code of a second factor, or a recovery code.
    Code,
    /// A refresh token; the account is the session.
    Refresh,
    /// A page for a browser that was not here before: its form token is kept in the database.
    Form,
    /// A browser's report about the content security policy.
    Report,
    /// Other software. The network counts proofs that failed; the account at it is a client that asks for tokens. The
    /// account alone is not looked at: ids are no secrets, and a stranger could empty it for the owner.
    Client,
    /// Writing down that a request was refused: the first thousand from a network say it all.
    Refusal,
}

/// Too many tries; how long to wait for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tries, wait {seconds} s")]
pub struct RetryAfter {
    /// At least 1.
    pub seconds: u32,
}

/// Not a matter of configuration: keeps a flood of refused requests from becoming a flood of audit rows (F71).
const REFUSALS: KindRates = {
    let rate = Rate {
        burst: 1000,
        every_seconds: 1,
    };
    KindRates {
        address: rate,
        account_at_address: rate,
        account: rate,
    }
};

/// All limits of the server.
#[derive(Debug)]
pub struct Limits {
    sign_in: Kind,
    code: Kind,
    refresh: Kind,
    form: Kind,
    report: Kind,
    client: Kind,
    refusal: Kind,
    /// Keys are kept as hashes under a secret of this process: nobody's name in memory, and nobody can aim at a
    /// collision.
    hasher: RandomState,
}

#[derive(Debug)]
struct Kind {
    address: Bucket,
    account_at_address: Bucket,
    account: Bucket,
}

impl Limits {
    /// Limits at these rates, on this clock.
    #[must_use]
    pub fn new(settings: &LimitSettings, clock: Arc<dyn Clock>) -> Self {
        let clock = Elapsed::new(clock);
        let kind = |rates: KindRates| Kind {
            address: Bucket::new(rates.address, settings.max_keys, &clock),
            account_at_address: Bucket::new(rates.account_at_address, settings.max_keys, &clock),
            account: Bucket::new(rates.account, settings.max_keys, &clock),
        };
        Self {
            sign_in: kind(settings.sign_in),
            code: kind(settings.code),
            refresh: kind(settings.refresh),
            form: kind(settings.form),
            report: kind(settings.report),
            client: kind(settings.client),
            refusal: kind(REFUSALS),
            hasher: RandomState::new(),
        }
    }

    /// Counts one try. `account` is any text that names the account (canonical name, user id, session id);
    /// `known_device`: a device cookie of this very account was checked.
    ///
    /// # Errors
    /// [`RetryAfter`] when one of the buckets is empty.
    pub fn check(
        &self,
        kind: LimitKind,
        address: IpAddr,
        account: Option<&str>,
        known_device: bool,
    ) -> Result<(), RetryAfter> {
        let bucket = &self.kind(kind).address;
        bucket.take(self.hasher.hash_one(network(address)))?;
        let Some(account) = account else { return Ok(()) };
        self.check_account_at_address(kind, address, account)?;
        if known_device {
            Ok(())
        } else {
            self.kind(kind).account.take(self.hasher.hash_one(account))
        }
    }

    /// Whether one more refusal of this network is to be written down: what anybody can send must not fill the log.
    #[must_use]
    pub fn may_note_refusal(&self, address: IpAddr) -> bool {
        self.check(LimitKind::Refusal, address, None, false).is_ok()
    }

    /// Counts one try of this account from this network, and nothing else.
    ///
    /// # Errors
    /// [`RetryAfter`] when the bucket is empty.
    pub fn check_account_at_address(&self, kind: LimitKind, address: IpAddr, account: &str) -> Result<(), RetryAfter> {
        let key = self.hasher.hash_one((network(address), account));
        self.kind(kind).account_at_address.take(key)
    }

    /// Forgets every key whose bucket is full again. To be called from a periodic task, once a minute.
    pub fn forget_rested(&self) {
        for kind in [
            &self.sign_in,
            &self.code,
            &self.refresh,
            &self.form,
            &self.report,
            &self.client,
            &self.refusal,
        ] {
            for bucket in [&kind.address, &kind.account_at_address, &kind.account] {
                bucket.forget_rested();
            }
        }
    }

    const fn kind(&self, kind: LimitKind) -> &Kind {
        match kind {
            LimitKind::SignIn => &self.sign_in,
            LimitKind::Code => &self.code,
            LimitKind::Refresh => &self.refresh,
            LimitKind::Form => &self.form,
            LimitKind::Report => &self.report,
            LimitKind::Client => &self.client,
            LimitKind::Refusal => &self.refusal,
        }
    }
}

/// What counts as one network: an IPv4 address; the /64 of an IPv6 address, because whoever has one address of it
/// has them all.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, Elapsed, NoOpMiddleware<Duration>>;

/// How many tries pass between two looks at the number of keys.
const LOOK_EVERY: u32 = 1024;
/// How many buckets strangers share once there are too many of them.
const SHARED: u64 = 65_536;

struct Bucket {
    own: Limiter<u64>,
    /// Bounded memory: beyond `max_keys` all keys are folded into [`SHARED`] buckets until enough have rested.
    shared: Limiter<u64>,
    crowded: AtomicBool,
    since_look: AtomicU32,
    max_keys: usize,
    clock: Elapsed,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("keys", &self.own.len())
            .finish_non_exhaustive()
    }
}

impl Bucket {
    fn new(rate: Rate, max_keys: usize, clock: &Elapsed) -> Self {
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        let every = Duration::from_secs(u64::from(rate.every_seconds.max(1)));
        let quota = Quota::with_period(every)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let limiter = || RateLimiter::new(quota, DashMapStateStore::default(), clock.clone());
        Self {
            own: limiter(),
            shared: limiter(),
            crowded: AtomicBool::new(false),
            since_look: AtomicU32::new(0),
            max_keys,
            clock: clock.clone(),
        }
    }

    fn take(&self, key: u64) -> Result<(), RetryAfter> {
        if self.since_look.fetch_add(1, Ordering::Relaxed) >= LOOK_EVERY {
            self.since_look.store(0, Ordering::Relaxed);
            self.look();
        }
        let taken = if self.crowded.load(Ordering::Relaxed) {
            self.shared.check_key(&(key % SHARED))
        } else {
            self.own.check_key(&key)
        };
        taken.map_err(|refusal| {
            let wait = refusal.wait_time_from(self.clock.now());
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            RetryAfter {
                seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            }
        })
    }

    fn look(&self) {
        if self.own.len() >= self.max_keys {
            self.own.retain_recent();
        }
        let crowded = self.own.len() >= self.max_keys;
        if self.crowded.swap(crowded, Ordering::Relaxed) != crowded {
            tracing::warn!(
                crowded,
                "more networks or accounts are trying than are remembered one by one"
            );
        }
    }

    fn forget_rested(&self) {
        for limiter in [&self.own, &self.shared] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        self.look();
    }
}

/// Our clock as governor wants it: time since the start that never goes back. When the wall clock is set back by
/// a day, nobody has to wait a day for the next try; when it jumps ahead, buckets are full a little early.
/// Capped, because governor panics beyond 584 years.
#[derive(Clone, Debug)]
struct Elapsed {
    clock: Arc<dyn Clock>,
    /// Last reading, and what had elapsed then.
    state: Arc<Mutex<(Timestamp, Duration)>>,
}

impl Elapsed {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let state = Arc::new(Mutex::new((clock.now(), Duration::ZERO)));
        Self { clock, state }
    }
}

/// Most that one reading may add.
const LONGEST_STEP: Duration = Duration::from_hours(24);
/// Most that may elapse.
const LONGEST: Duration = Duration::from_hours(500 * 365 * 24);

impl GovernorClock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        state.1 = (state.1 + now.since(state.0).min(LONGEST_STEP)).min(LONGEST);
        state.0 = now;
        state.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;

    fn limits(settings: &LimitSettings) -> (Limits, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        (Limits::new(settings, clock.clone()), clock)
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn a_bucket_empties_says_how_long_to_wait_and_fills_again() {
        let (limits, clock) = limits(&LimitSettings::default());
        let try_it = || limits.check(LimitKind::SignIn, v4(1), Some("ann"), false);
        for _ in 0..8 {
            try_it().unwrap();
        }
        assert_eq!(try_it(), Err(RetryAfter { seconds: 30 }));
        clock.advance(Duration::from_secs(29));
        assert_eq!(try_it(), Err(RetryAfter { seconds: 1 }));
        clock.advance(Duration::from_secs(1));
        try_it().unwrap();
        assert!(try_it().is_err());
        limits.check(LimitKind::Code, v4(1), Some("ann"), false).unwrap();
        limits.check(LimitKind::SignIn, v4(1), Some("bob"), false).unwrap();
    }

    #[test]
    fn m13_a_victim_is_never_locked_out() {
        let (limits, clock) = limits(&LimitSettings::default());
        // One attacker, one network: the victim's own network notices nothing.
        for _ in 0..1000 {
            let _ = limits.check(LimitKind::SignIn, v4(66), Some("ann"), false);
        }
        limits.check(LimitKind::SignIn, v4(1), Some("ann"), false).unwrap();
        // A thousand networks: the known device passes, an unknown one waits seconds.
        for network in 0..1000_u32 {
            let attacker = IpAddr::from((0x0A00_0000 + network).to_be_bytes());
            for _ in 0..10 {
                let _ = limits.check(LimitKind::SignIn, attacker, Some("ann"), false);
            }
        }
        limits.check(LimitKind::SignIn, v4(1), Some("ann"), true).unwrap();
        let wait = limits.check(LimitKind::SignIn, v4(2), Some("ann"), false).unwrap_err();
        assert!(wait.seconds <= 30, "{wait}");
        clock.advance(Duration::from_secs(u64::from(wait.seconds)));
        limits.check(LimitKind::SignIn, v4(3), Some("ann"), false).unwrap();
    }

    #[test]
    fn f43_an_ipv6_network_is_one_key() {
        let (limits, _clock) = limits(&LimitSettings::default());
        let passed = (0..10_000_u128)
            .filter(|host| {
                let address = IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + host * 0x1_0001));
                limits.check(LimitKind::SignIn, address, None, false).is_ok()
            })
            .count();
        assert_eq!(passed, 30);
        let mapped: IpAddr = "::ffff:203.0.113.7".parse().unwrap();
        assert_eq!(network(mapped), v4(7));
    }

    #[test]
    fn f43_memory_is_bounded_and_a_crowd_is_still_limited() {
        let settings = LimitSettings {
            max_keys: 1000,
            ..LimitSettings::default()
        };
        let (limits, clock) = limits(&settings);
        for network in 0..100_000_u32 {
            let _ = limits.check(LimitKind::SignIn, IpAddr::from(network.to_be_bytes()), None, false);
        }
        let keys = limits.sign_in.address.own.len();
        assert!(keys <= 1000 + LOOK_EVERY as usize + 1, "{keys}");
        assert!(limits.sign_in.address.shared.len() <= 65_536);
        let passed = (0..1000)
            .filter(|_| limits.check(LimitKind::SignIn, v4(9), None, false).is_ok())
            .count();
        assert!(passed <= 30, "{passed}");
        clock.advance(Duration::from_hours(1));
        limits.forget_rested();
        assert_eq!(limits.sign_in.address.own.len(), 0);
        assert_eq!(limits.sign_in.address.shared.len(), 0);
        limits.check(LimitKind::SignIn, v4(9), None, false).unwrap();
    }

    #[test]
    fn f17_a_clock_that_jumps_back_makes_nobody_wait_for_it() {
        let (limits, clock) = limits(&LimitSettings::default());
        for _ in 0..20 {
            let _ = limits.check(LimitKind::SignIn, v4(1), Some("ann"), false);
        }
        clock.set(Timestamp::from_seconds(1_800_000_000 - 86_400));
        let wait = limits.check(LimitKind::SignIn, v4(1), Some("ann"), false).unwrap_err();
        assert!(wait.seconds <= 30, "{wait}");
        clock.advance(Duration::from_secs(30));
        limits.check(LimitKind::SignIn, v4(1), Some("ann"), false).unwrap();
        clock.set(Timestamp::from_millis(i64::MAX));
        limits.check(LimitKind::SignIn, v4(1), Some("ann"), false).unwrap();
        clock.set(Timestamp::from_millis(i64::MIN));
        clock.set(Timestamp::from_millis(i64::MAX));
        let _ = limits.check(LimitKind::SignIn, v4(1), Some("ann"), false);
    }
}
