//! Refresh tokens: how they are derived and read, and the one decision about a presented one (TOKENS.md §2, §3).
//!
//! Nothing about a token is stored: each can be derived again from its session's row.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::clock::Timestamp;
use super::id::SessionId;
use super::keys::KeyRing;
use super::policy::Limits;
use super::session::{Client, Ending, LimitsNow, Session, Standing, Tightened};
use super::user::User;

const PREFIX: &str = "mfr_";
const VERSION: u8 = 1;
const TAG: usize = 16;
/// version, mac key id, sid, generation.
const HEAD: usize = 1 + 1 + 16 + 8;
const LENGTH: usize = HEAD + TAG + TAG;

/// A client that was given tokens less than this ago already holds a fresh pair. Rotations therefore lie at least
/// this far apart, and no answer that is quicker can put an older token over a newer one into a cookie jar.
pub const FRESH: Duration = Duration::from_secs(10);
/// A token superseded less than this ago lost a race between tabs.
pub const SUPERSEDED: Duration = Duration::from_mins(1);
/// Most re-issues of one unconfirmed child.
pub const MAX_REISSUES: u32 = 5;

/// The 32 bytes that a session's refresh tokens are derived from; wiped on drop.
pub struct SessionSecret(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSecret(redacted)")
    }
}

impl SessionSecret {
    /// From the bytes.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// From opened bytes; `None` if there are not 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// The bytes, to be sealed.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    fn inner_tag(&self, session: SessionId, generation: u64) -> hmac::Tag {
        hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, self.expose()),
            &inner_message(session, generation),
        )
    }
}

fn inner_message(session: SessionId, generation: u64) -> Vec<u8> {
    [b"rt1".as_slice(), session.0.as_bytes(), &generation.to_be_bytes()].concat()
}

/// A token whose outer tag is right: made by this server, but not yet held against its session.
pub struct Presented {
    /// Session it names.
    pub session_id: SessionId,
    /// Generation it names.
    pub generation: u64,
    inner: Zeroizing<[u8; TAG]>,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Presented({}, generation {}, redacted)",
            self.session_id, self.generation
        )
    }
}

impl Presented {
    /// The inner tag is the session's own; compared in constant time.
    #[must_use]
    pub fn is_authentic(&self, secret: &SessionSecret) -> bool {
        use subtle::ConstantTimeEq;
        let expected = secret.inner_tag(self.session_id, self.generation);
        expected.as_ref()[..TAG].ct_eq(self.inner.as_slice()).into()
    }
}

/// Derives the refresh token of a generation that began at `rotated_at`. The same input gives the same token, byte
/// for byte, whatever edge key is active by now.
#[must_use]
pub fn derive(
    ring: &KeyRing,
    secret: &SessionSecret,
    session: SessionId,
    generation: u64,
    rotated_at: Timestamp,
) -> SecretString {
    let (key_id, edge) = ring.edge_at(rotated_at);
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
    bytes.extend_from_slice(&[VERSION, key_id]);
    bytes.extend_from_slice(session.0.as_bytes());
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(&secret.inner_tag(session, generation).as_ref()[..TAG]);
    let outer = edge.tag(&bytes);
    bytes.extend_from_slice(&outer);
    SecretString::from(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
}

/// Reads a token and checks its outer tag, without any look at the database.
///
/// `None`: malformed, of an unknown version or key id, or with a wrong tag.
#[must_use]
pub fn parse(ring: &KeyRing, text: &str) -> Option<Presented> {
    let encoded = text.strip_prefix(PREFIX)?;
    if encoded.len() != BASE64URL_NOPAD.encode_len(LENGTH) {
        return None;
    }
    let bytes: [u8; LENGTH] = BASE64URL_NOPAD.decode(encoded.as_bytes()).ok()?.try_into().ok()?;
    let (signed, outer) = bytes.split_at(HEAD + TAG);
    if signed[0] != VERSION || !ring.edge(signed[1])?.verify(signed, outer) {
        return None;
    }
    Some(Presented {
        session_id: SessionId(uuid::Uuid::from_slice(&signed[2..18]).ok()?),
        generation: u64::from_be_bytes(signed[18..26].try_into().ok()?),
        inner: Zeroizing::new(signed[HEAD..].try_into().ok()?),
    })
}

/// Whether it is of an edge key that this ring does not have: perhaps one that was made since the ring was read.
#[must_use]
pub fn is_of_unknown_key(ring: &KeyRing, text: &str) -> bool {
    let decode = |encoded: &str| BASE64URL_NOPAD.decode(encoded.as_bytes()).ok();
    let bytes = text
        .strip_prefix(PREFIX)
        .filter(|encoded| encoded.len() == BASE64URL_NOPAD.encode_len(LENGTH));
    bytes
        .and_then(decode)
        .is_some_and(|bytes| bytes[0] == VERSION && ring.edge(bytes[1]).is_none())
}

/// What is to be done about an authentic token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The session is over.
    Over(Ending),
    /// Next generation, under these limits.
    Rotate(Tightened),
    /// No tokens: the client already holds a fresh pair. The child has been shown, so it is confirmed.
    Fresh(Tightened),
    /// The very same child again; nothing slides.
    Reissue(Tightened),
    /// No tokens: another tab won.
    Superseded(Tightened),
    /// Somebody holds a copy: the session ends.
    Reuse,
    /// The database went back in time: the session ends.
    Ahead,
}

/// When a refresh token is presented.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// By the clock of who decides.
    pub now: Timestamp,
    /// As the idle limit goes by it.
    pub idle_now: Timestamp,
    /// By the slowest of the clocks that have written what is decided upon: nothing is longer ago than by this one.
    pub slowest: Timestamp,
    /// By the slowest of all that may have, also of those that are wrong: no theft is longer ago than by this one.
    pub slowest_of_all: Timestamp,
    /// By the fastest of them: what lies ahead of it was written by a clock that has been set back since.
    pub fastest: Timestamp,
}

impl From<Timestamp> for When {
    fn from(now: Timestamp) -> Self {
        Self {
            now,
            idle_now: now,
            slowest: now,
            slowest_of_all: now,
            fastest: now,
        }
    }
}

/// The table of TOKENS.md §3, from "any" downwards, as a pure function.
#[must_use]
pub fn decide(
    session: &Session,
    user: &User,
    limits: Option<&Limits>,
    presented: u64,
    when: impl Into<When>,
) -> Decision {
    let When {
        now,
        idle_now,
        slowest,
        slowest_of_all,
        fastest,
    } = when.into();
    let tight = match session.standing(user, limits, LimitsNow { now, idle_now }) {
        Standing::Over(ending) => return Decision::Over(ending),
        Standing::Alive(tight) => tight,
    };
    // A clock that went back must neither withhold tokens nor cry theft.
    let went_back = fastest < session.handed_out_at;
    let age = slowest.since(session.handed_out_at);
    if presented > session.generation {
        Decision::Ahead
    } else if presented == session.generation {
        // A program whose access token is good for nothing would be stuck with it. A browser is served on the strength of
        // the refresh token alone, with the roles of now; were it given another pair so soon, an answer that is still
        // under way could put this one's token over it.
        let is_stuck = session.client == Client::Native
            && (now >= session.access_expires_at || user.grant_epoch != session.grant_epoch);
        if age >= FRESH || went_back || is_stuck {
            Decision::Rotate(tight)
        } else {
            Decision::Fresh(tight)
        }
    } else if presented + 1 == session.generation && !session.child_confirmed && session.reissues < MAX_REISSUES {
        Decision::Reissue(tight)
    } else if superseded_for(session, presented, slowest_of_all) < SUPERSEDED {
        Decision::Superseded(tight)
    } else {
        Decision::Reuse
    }
}

/// How long a token of a past generation has been good for nothing, at the least.
///
/// Of the current one's parent that is known. An older token's child was shown at the latest when it was exchanged
/// itself, and rotations lie at least [`FRESH`] apart: without that, a thief who rotates once a minute would keep the
/// victim's token forever young, and the theft would never come to light.
fn superseded_for(session: &Session, presented: u64, now: Timestamp) -> Duration {
    let behind = session.generation.saturating_sub(presented);
    let rotations_since = u32::try_from(behind.saturating_sub(2)).unwrap_or(u32::MAX);
    let known = now.since(session.superseded_at);
    known.saturating_add(FRESH.saturating_mul(rotations_since))
}
