//! Proof of possession (DPoP, RFC 9449): a program signs each request with a key of its own, and what was issued to that
//! key is worth nothing to whoever copied it.
//!
//! Owns the checks of a proof (section 4.3) but for its single use, which needs state and is the caller's; the thumbprint
//! of a key; the nonces that a proof has to carry (section 8). Must not know how requests arrive, nor what is bound.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac;
use data_encoding::{BASE64URL_NOPAD, HEXUPPER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::client::PublicKey;
use super::clock::{Timestamp, millis};
use super::jwt::{Compact, FORBIDDEN, MAX_TOLERANCE, numeric_date};
use super::keys::Jwk;

/// `typ` of a proof.
const TYP: &str = "dpop+jwt";
/// The algorithms of proofs; Ed25519 has two names (RFC 8037 and RFC 9864).
pub const ALGORITHMS: [&str; 3] = ["ES256", "EdDSA", "Ed25519"];
/// How old a proof may be.
pub const LIFETIME: Duration = Duration::from_mins(1);
/// How long one nonce is given out. It is taken for as long again.
const NONCE_PERIOD: Duration = Duration::from_secs(150);
const MOST_JTI_CHARS: usize = 128;

/// SHA-256 thumbprint of a public key (RFC 7638): `jkt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// From exactly the form in which it stands in tokens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    pub(in crate::domain) fn of(key: &PublicKey) -> Option<Self> {
        Self::parse(&Jwk::new(key.algorithm(), key.bytes().to_vec())?.kid)
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl From<Thumbprint> for String {
    fn from(thumbprint: Thumbprint) -> Self {
        thumbprint.to_string()
    }
}

impl TryFrom<String> for Thumbprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("this is no thumbprint of a key")
    }
}

/// Why the sender of a request did not prove to hold the key. A closed list, for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Refusal {
    /// What is bound to a key came without a proof.
    Missing,
    /// Two headers.
    Doubled,
    /// Not three parts of canonical base64url with a JSON object each.
    Form,
    /// Another `typ`, or a header member that brings an encoding or an extension.
    Header,
    /// `jwk` is no public key of a kind that is taken, or a private one.
    Key,
    /// `alg` is not the key's own.
    Algorithm,
    /// The signature is not the key's.
    Signature,
    /// A claim is missing or has the wrong type.
    Claims,
    /// `nonce` is missing, too old, or not ours.
    Nonce,
    /// Made for another method.
    Method,
    /// Made for another address.
    Address,
    /// More than [`LIFETIME`] old.
    TooOld,
    /// From the future.
    Future,
    /// `ath` is not of the access token that it came with.
    Token,
    /// A good proof of another key.
    OtherKey,
    /// A good proof beside something that is bound to no key.
    NotBound,
    /// Used before.
    Replayed,
}

impl Refusal {
    /// One word for the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "proof_missing",
            Self::Doubled => "proof_doubled",
            Self::Form => "proof_form",
            Self::Header => "proof_header",
            Self::Key => "proof_key",
            Self::Algorithm => "proof_algorithm",
            Self::Signature => "proof_signature",
            Self::Claims => "proof_claims",
            Self::Nonce => "proof_nonce",
            Self::Method => "proof_method",
            Self::Address => "proof_address",
            Self::TooOld => "proof_too_old",
            Self::Future => "proof_future",
            Self::Token => "proof_token",
            Self::OtherKey => "proof_of_other_key",
            Self::NotBound => "proof_beside_unbound",
            Self::Replayed => "proof_replayed",
        }
    }
}

/// What a proof has to say about the request that it came with.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The method, letter by letter.
    pub method: &'a str,
    /// The address as clients know it.
    pub address: &'a str,
    /// The access token beside it, if there is one.
    pub token: Option<&'a str>,
    /// The nonces it has to carry one of; none where none is given out.
    pub nonces: Option<&'a Nonces>,
    /// The one clock tolerance; never more than two minutes are used.
    pub tolerance: Duration,
}

/// A proof that holds, if it is used for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whose signature it is.
    pub key: Thumbprint,
    /// To be remembered until …
    pub id: [u8; 32],
    /// … nobody accepts it any more, whose clock is right within the tolerance.
    pub until: Timestamp,
}

/// Makes all checks of RFC 9449, section 4.3, but the first (one header) and the last (used once), which are the caller's.
///
/// # Errors
/// The first [`Refusal`] met: the cheap ones come first, the signature last.
pub fn verify(proof: &str, expected: &Expected<'_>, now: Timestamp) -> Result<Proof, Refusal> {
    let Compact {
        header,
        claims,
        signed,
        signature,
    } = Compact::parse(proof).map_err(|_| Refusal::Form)?;
    let brings_more = |name: &String| name != "jwk" && FORBIDDEN.contains(&name.as_str());
    if header.get("typ").and_then(Value::as_str) != Some(TYP) || header.keys().any(brings_more) {
        return Err(Refusal::Header);
    }
    let (jti, until) = check_claims(&claims, expected, now)?;
    let jwk = header.get("jwk").and_then(Value::as_object).ok_or(Refusal::Key)?;
    let key = PublicKey::from_jwk(jwk).map_err(|_| Refusal::Key)?;
    let alg = header.get("alg").and_then(Value::as_str);
    if !alg.is_some_and(|alg| key.signs_as(alg)) {
        return Err(Refusal::Algorithm);
    }
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes());
    if !signature.is_ok_and(|signature| key.verifies(signed.as_bytes(), &signature)) {
        return Err(Refusal::Signature);
    }
    let key = Thumbprint::of(&key).ok_or(Refusal::Key)?;
    let mut id = [0; 32];
    id.copy_from_slice(digest::digest(&SHA256, &[&key.0, jti.as_bytes()].concat()).as_ref());
    Ok(Proof { key, id, until })
}

/// The claims' `jti`, and until when the proof could be used again.
fn check_claims<'c>(
    claims: &'c Map<String, Value>,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<(&'c str, Timestamp), Refusal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).ok_or(Refusal::Claims);
    if let Some(nonces) = expected.nonces
        && !claims
            .get("nonce")
            .and_then(Value::as_str)
            .is_some_and(|nonce| nonces.has(nonce, now))
    {
        return Err(Refusal::Nonce);
    }
    if text("htm")? != expected.method {
        return Err(Refusal::Method);
    }
    let named = normal(text("htu")?);
    if named.is_none() || named != normal(expected.address) {
        return Err(Refusal::Address);
    }
    let iat = claims.get("iat").and_then(numeric_date).ok_or(Refusal::Claims)?;
    let tolerance = expected.tolerance.min(MAX_TOLERANCE);
    if now > iat.plus(LIFETIME) {
        return Err(Refusal::TooOld);
    }
    if now < iat.minus(tolerance) {
        return Err(Refusal::Future);
    }
    if let Some(token) = expected.token {
        let hash = BASE64URL_NOPAD.encode(digest::digest(&SHA256, token.as_bytes()).as_ref());
        if text("ath")? != hash {
            return Err(Refusal::Token);
        }
    }
    let jti = text("jti")?;
    if !(1..=MOST_JTI_CHARS).contains(&jti.chars().count()) {
        return Err(Refusal::Claims);
    }
    Ok((jti, iat.plus(LIFETIME + tolerance)))
}

/// An address without query and fragment in its normal form (RFC 3986, sections 6.2.2 and 6.2.3); none if it is not one of
/// HTTP. Dot segments stay as they are: clients take them out before they send anything, and our routes know none.
fn normal(address: &str) -> Option<String> {
    use fmt::Write as _;
    let address = address.split(['?', '#']).next()?;
    let (scheme, rest) = address.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let own_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(own_port).unwrap_or(&authority);
    let mut normal = format!("{scheme}://{authority}");
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            normal.push(char::from(byte).is_ascii_graphic().then_some(char::from(byte))?);
            continue;
        }
        let byte = HEXUPPER_PERMISSIVE.decode(&[bytes.next()?, bytes.next()?]).ok()?[0];
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            normal.push(char::from(byte));
        } else {
            write!(normal, "%{byte:02X}").ok()?;
        }
    }
    Some(normal)
}

/// Whether what is bound to one key, or to none, may be used by whoever proved to hold another, or none.
///
/// # Errors
/// [`Refusal::Missing`], [`Refusal::OtherKey`], [`Refusal::NotBound`].
pub fn check_binding(bound_to: Option<Thumbprint>, shown: Option<Thumbprint>) -> Result<(), Refusal> {
    match (bound_to, shown) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(Refusal::Missing),
        (None, Some(_)) => Err(Refusal::NotBound),
        (Some(key), Some(shown)) if key == shown => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::OtherKey),
    }
}

/// What a proof has to carry to show that it was made a moment ago (RFC 9449, sections 8 and 9). Nothing is stored: each is
/// an HMAC over the time, so that all nodes with the same key give out and take the same ones.
#[derive(Clone)]
pub struct Nonces(hmac::Key);

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces([redacted])")
    }
}

impl Nonces {
    /// Under a key of their own.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The nonce of now: good for two and a half to five minutes.
    #[must_use]
    pub fn current(&self, now: Timestamp) -> String {
        self.of(period(now))
    }

    /// This period's, the last one's, or the next one's from a node whose clock is ahead.
    fn has(&self, nonce: &str, now: Timestamp) -> bool {
        let now = period(now);
        [now, now.saturating_sub(1), now.saturating_add(1)]
            .iter()
            .any(|period| self.of(*period).as_bytes().ct_eq(nonce.as_bytes()).into())
    }

    fn of(&self, period: i64) -> String {
        let message = [b"dpop nonce".as_slice(), &period.to_be_bytes()].concat();
        BASE64URL_NOPAD.encode(&hmac::sign(&self.0, &message).as_ref()[..16])
    }
}

fn period(now: Timestamp) -> i64 {
    now.as_millis().div_euclid(millis(NONCE_PERIOD))
}

#[cfg(test)]
mod tests;
