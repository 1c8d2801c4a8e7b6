//! Device bound session credentials (DBSC, W3C working draft): a browser keeps a key that nobody can copy out of it, and
//! signs with it every few minutes. What was copied out of its cookie jar is worth nothing once the bound cookie is over.
//!
//! Owns the challenges and the bound cookie, the checks of what a browser signs, and whether a session may be used by whom
//! shows what. Must not know how requests arrive, nor what a browser is told.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::client::PublicKey;
use super::clock::Timestamp;
use super::dpop::Thumbprint;
use super::id::SessionId;
use super::jwt::{Compact, FORBIDDEN};
use super::keys::Algorithm;
use super::session::Session;

/// `typ` of what a browser signs.
const TYP: &str = "dbsc+jwt";
/// How long a bound cookie is good. Browsers sign for the next one before they send the next request.
const COOKIE_LIFETIME: Duration = Duration::from_mins(10);
/// The first one ends soon: it is by signing for the next that a browser proves to have kept the key.
const FIRST_COOKIE_LIFETIME: Duration = Duration::from_mins(1);
/// A request may be under way with a cookie that ends meanwhile, or with none since before the browser signed first.
const GRACE: Duration = Duration::from_mins(1);
/// For a challenge that is to be signed at once. A session that has begun cannot be bound later either: whose key comes later
/// need not be who signed in.
const CHALLENGE_LIFETIME: Duration = Duration::from_mins(2);
/// For one that goes out with a cookie, to be signed when that is over: no round trip is lost to asking.
const NEXT_CHALLENGE_LIFETIME: Duration = COOKIE_LIFETIME.saturating_add(Duration::from_mins(5));
const TAG: usize = 16;

/// The key that a session is bound to in its browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserKey {
    /// On P-256, uncompressed (SEC 1, section 2.3.3): 65 bytes.
    pub point: Vec<u8>,
    /// When it was first signed with. Until then the browser may have kept the cookie and not the key, or neither, and the
    /// session goes on as if it were bound to nothing.
    pub proved_at: Option<Timestamp>,
}

/// Why the sender of a request is not the browser that a session is bound to. A closed list, for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Refusal {
    /// No bound cookie.
    CookieMissing,
    /// A bound cookie that is none of ours, or another session's.
    CookieForged,
    /// A bound cookie after its end. Browsers send none: this one was copied.
    CookieExpired,
    /// No proof, or two.
    ProofMissing,
    /// Not three parts of canonical base64url with a JSON object each.
    Form,
    /// Another `typ`, or a header member that brings a key, an encoding or an extension.
    Header,
    /// `jwk` is no public key on P-256, or a private one.
    Key,
    /// `alg` is not ES256.
    Algorithm,
    /// The signature is not the key's.
    Signature,
    /// `jti` is no challenge of this session for this purpose, or one that is over.
    Challenge,
    /// A good proof of another key than the session is bound to.
    OtherKey,
    /// The session lives no longer, is no browser's, is bound already or, where it has to be, not at all.
    Session,
}

impl Refusal {
    /// One word for the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CookieMissing => "bound_cookie_missing",
            Self::CookieForged => "bound_cookie_forged",
            Self::CookieExpired => "bound_cookie_expired",
            Self::ProofMissing => "browser_proof_missing",
            Self::Form => "browser_proof_form",
            Self::Header => "browser_proof_header",
            Self::Key => "browser_proof_key",
            Self::Algorithm => "browser_proof_algorithm",
            Self::Signature => "browser_proof_signature",
            Self::Challenge => "browser_proof_challenge",
            Self::OtherKey => "browser_proof_of_other_key",
            Self::Session => "browser_proof_of_other_session",
        }
    }
}

/// Whom a text is sealed for. Each kind is refused in the place of another.
#[derive(Clone, Copy)]
enum Purpose {
    Registration,
    Renewal,
    Cookie,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Registration => b"dbsc registration",
            Self::Renewal => b"dbsc renewal",
            Self::Cookie => b"dbsc cookie",
        }
    }
}

/// Makes and opens challenges and bound cookies. Nothing is stored: each is an HMAC over its purpose, its session and its
/// end, so that all nodes with the same key give out and take the same ones.
#[derive(Clone)]
pub struct Seals(hmac::Key);

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seals([redacted])")
    }
}

/// What a browser gets that has signed.
#[derive(Debug)]
pub struct BoundCookie {
    /// The session.
    pub session: SessionId,
    /// The cookie's value.
    pub value: String,
    /// When the browser is to delete it.
    pub lifetime: Duration,
    /// What to sign for the next one.
    pub challenge: String,
}

/// A challenge that was signed, to be used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The challenge.
    pub challenge: String,
    /// Nobody accepts it any more.
    pub until: Timestamp,
}

impl Seals {
    /// Under a key of their own.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// What a browser signs to bind a session that begins now.
    #[must_use]
    pub fn registration_challenge(&self, session: SessionId, now: Timestamp) -> String {
        self.seal(Purpose::Registration, session, now.plus(CHALLENGE_LIFETIME))
    }

    /// What it signs that has no challenge for its next cookie.
    #[must_use]
    pub fn renewal_challenge(&self, session: SessionId, now: Timestamp) -> String {
        self.seal(Purpose::Renewal, session, now.plus(CHALLENGE_LIFETIME))
    }

    /// The bound cookie of a browser that has just registered its key.
    #[must_use]
    pub fn first_cookie(&self, session: SessionId, now: Timestamp) -> BoundCookie {
        self.cookie_for(FIRST_COOKIE_LIFETIME, session, now)
    }

    /// The bound cookie of a browser that has just signed.
    #[must_use]
    pub fn next_cookie(&self, session: SessionId, now: Timestamp) -> BoundCookie {
        self.cookie_for(COOKIE_LIFETIME, session, now)
    }

    fn cookie_for(&self, lifetime: Duration, session: SessionId, now: Timestamp) -> BoundCookie {
        BoundCookie {
            session,
            value: self.seal(Purpose::Cookie, session, now.plus(lifetime)),
            lifetime,
            // Another one than was just used, though it may be of the same moment.
            challenge: self.seal(Purpose::Renewal, session, now.plus(NEXT_CHALLENGE_LIFETIME)),
        }
    }

    /// Whether somebody who shows this bound cookie, or none, may use a session.
    ///
    /// # Errors
    /// [`Refusal::CookieMissing`], [`Refusal::CookieForged`], [`Refusal::CookieExpired`].
    pub fn check(&self, session: &Session, cookie: Option<&str>, now: Timestamp) -> Result<(), Refusal> {
        let proved_at = session.browser_key.as_ref().and_then(|key| key.proved_at);
        if proved_at.is_none_or(|proved_at| now < proved_at.plus(GRACE)) {
            return Ok(());
        }
        let cookie = cookie.ok_or(Refusal::CookieMissing)?;
        let until = self.open(Purpose::Cookie, session.id, cookie);
        let until = until.ok_or(Refusal::CookieForged)?;
        if now < until.plus(GRACE) {
            Ok(())
        } else {
            Err(Refusal::CookieExpired)
        }
    }

    /// The key of a browser that registers it for a session.
    ///
    /// # Errors
    /// The first [`Refusal`] met; the signature comes last.
    pub fn verify_registration(&self, proof: &str, session: SessionId, now: Timestamp) -> Result<Registered, Refusal> {
        let compact = read(proof, "jwk")?;
        self.challenge_of(&compact, Purpose::Registration, session, now)?;
        let jwk = compact.header.get("jwk").and_then(Value::as_object);
        let key = PublicKey::from_jwk(jwk.ok_or(Refusal::Key)?).map_err(|_| Refusal::Key)?;
        if key.algorithm() != Algorithm::Es256 {
            return Err(Refusal::Key);
        }
        check_signature(&compact, &key)?;
        Ok(Registered {
            thumbprint: Thumbprint::of(&key).ok_or(Refusal::Key)?,
            point: key.bytes().to_vec(),
        })
    }

    /// Whether a renewal has the form of one and a challenge of ours that is not over: what nobody told to sign can send is
    /// not worth a look at the session.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn check_challenge(&self, proof: &str, session: SessionId, now: Timestamp) -> Result<(), Refusal> {
        let compact = read(proof, "")?;
        self.challenge_of(&compact, Purpose::Renewal, session, now).map(drop)
    }

    /// The challenge that the holder of a key has signed for a session.
    ///
    /// # Errors
    /// The first [`Refusal`] met; the signature comes last.
    pub fn verify_renewal(
        &self,
        proof: &str,
        session: SessionId,
        key: &BrowserKey,
        now: Timestamp,
    ) -> Result<Signed, Refusal> {
        let compact = read(proof, "")?;
        let signed = self.challenge_of(&compact, Purpose::Renewal, session, now)?;
        let key = PublicKey::from_p256_point(&key.point).map_err(|_| Refusal::Key)?;
        check_signature(&compact, &key)?;
        Ok(signed)
    }

    fn challenge_of(
        &self,
        compact: &Compact<'_>,
        purpose: Purpose,
        session: SessionId,
        now: Timestamp,
    ) -> Result<Signed, Refusal> {
        let challenge = compact.claims.get("jti").and_then(Value::as_str);
        let challenge = challenge.ok_or(Refusal::Challenge)?;
        let until = self.open(purpose, session, challenge);
        let until = until.filter(|until| now < *until).ok_or(Refusal::Challenge)?;
        Ok(Signed {
            challenge: challenge.to_owned(),
            until,
        })
    }

    fn seal(&self, purpose: Purpose, session: SessionId, until: Timestamp) -> String {
        let until = until.as_millis().to_be_bytes();
        BASE64URL_NOPAD.encode(&[until.as_slice(), &self.tag(purpose, session, until)].concat())
    }

    /// Until when it holds, if it is ours, of this session and for this purpose; whether that is over is the caller's.
    fn open(&self, purpose: Purpose, session: SessionId, text: &str) -> Option<Timestamp> {
        let bytes: [u8; 8 + TAG] = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()?;
        let (until, tag) = bytes.split_first_chunk::<8>()?;
        let is_ours: bool = self.tag(purpose, session, *until).ct_eq(tag).into();
        is_ours.then(|| Timestamp::from_millis(i64::from_be_bytes(*until)))
    }

    fn tag(&self, purpose: Purpose, session: SessionId, until: [u8; 8]) -> [u8; TAG] {
        // Session and end have one length each, so no two labels can make the same text.
        let message = [purpose.label(), session.0.as_bytes(), &until].concat();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hmac::sign(&self.0, &message).as_ref()[..TAG]);
        tag
    }
}

/// A key whose holder wants a session to be bound to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// See [`BrowserKey::point`].
    pub point: Vec<u8>,
    /// For the audit log.
    pub thumbprint: Thumbprint,
}

/// A proof of the right kind; `allowed`: the one member that may bring something.
fn read<'a>(proof: &'a str, allowed: &str) -> Result<Compact<'a>, Refusal> {
    let compact = Compact::parse(proof).map_err(|_| Refusal::Form)?;
    let brings_more = |name: &String| name != allowed && FORBIDDEN.contains(&name.as_str());
    if compact.header.get("typ").and_then(Value::as_str) != Some(TYP) || compact.header.keys().any(brings_more) {
        return Err(Refusal::Header);
    }
    if compact.header.get("alg").and_then(Value::as_str) != Some("ES256") {
        return Err(Refusal::Algorithm);
    }
    Ok(compact)
}

fn check_signature(compact: &Compact<'_>, key: &PublicKey) -> Result<(), Refusal> {
    let signature = BASE64URL_NOPAD.decode(compact.signature.as_bytes());
    let holds = signature.is_ok_and(|signature| key.verifies(compact.signed.as_bytes(), &signature));
    if holds { Ok(()) } else { Err(Refusal::Signature) }
}

#[cfg(test)]
mod tests;
