//! Access tokens of people and of services: their claims, signing, and the strict verification around `jsonwebtoken`
//! (TOKENS.md, section 4); the assertions that services prove themselves with (RFC 7523); security events (RFC 8417) and
//! logout tokens, which tell services of ended sessions.
//!
//! Owns steps 1 to 5 of the verification; step 6, revocation, needs state and is the caller's. Must not read
//! a clock or choose a key by anything in the token but its exact `kid`. The library does the signatures and
//! nothing else: its own checks accept too much and read the system clock.

mod assertion;
mod claims;
mod compact;
mod logout;
mod service;
mod verify;

pub(in crate::domain) use assertion::numeric_date;
pub use assertion::{Assertion, AssertionRefusal, ExpectedAssertion, Proven};
pub use claims::{AccessClaims, Claim, Confirmation};
pub(in crate::domain) use compact::Compact;
pub use compact::MAX_TOKEN_BYTES;
pub use logout::{LogoutClaims, LogoutEvent};
pub use service::ServiceClaims;
pub(in crate::domain) use verify::FORBIDDEN;
pub use verify::{EitherClaims, LOGOUT_TOKEN_LIFE, MAX_TOLERANCE, Moment, Refusal, Verifier, key_id};

use jsonwebtoken::Header;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use super::keys::{Algorithm, KeyRing};

/// The kinds of signed token; each has a `typ` of its own and is refused in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An access token (RFC 9068), a person's or a service's: each has a closed set of claims, and neither set is
    /// the other's.
    Access,
    /// A security event (RFC 8417): says what happened, opens nothing.
    SecurityEvent,
    /// A logout token (OpenID Connect Back-Channel Logout 1.0): says which session ended, opens nothing.
    Logout,
}

impl TokenKind {
    /// The header's `typ`.
    #[must_use]
    pub const fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::SecurityEvent => "secevent+jwt",
            Self::Logout => "logout+jwt",
        }
    }
}

/// A token that could not be signed. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The cryptographic library refused.
    #[error("the token could not be signed")]
    Signing,
    /// The token would be longer than any verifier of ours accepts.
    #[error("the token would be too long")]
    TooLong,
}

/// Makes AWS-LC the one backend of token signatures and of TLS. Call it first thing in the process and in
/// tests; calling it again does nothing.
pub fn install_crypto() {
    // An error only says that it was done before.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Signs a person's access token with the active key: header `alg`, `kid` and `typ`, nothing else.
///
/// # Errors
/// [`JwtError`], both infrastructure failures: the caller rolls back.
pub fn sign_access(ring: &KeyRing, claims: &AccessClaims) -> Result<SecretString, JwtError> {
    sign(ring, TokenKind::Access, claims)
}

/// Signs a service's access token in the same way.
///
/// # Errors
/// [`JwtError`], both infrastructure failures: the caller rolls back.
pub fn sign_service(ring: &KeyRing, claims: &ServiceClaims) -> Result<SecretString, JwtError> {
    sign(ring, TokenKind::Access, claims)
}

/// Signs a security event with the active key (RFC 8417, section 2.3: a `typ` of its own).
///
/// # Errors
/// [`JwtError`], both infrastructure failures: the receiver asks again.
pub fn sign_security_event(ring: &KeyRing, claims: &Value) -> Result<SecretString, JwtError> {
    sign(ring, TokenKind::SecurityEvent, claims)
}

/// Signs a logout token with the active key (OpenID Connect Back-Channel Logout 1.0, section 2.4).
///
/// # Errors
/// [`JwtError`], both infrastructure failures: the receiver is told later.
pub fn sign_logout(ring: &KeyRing, claims: &LogoutClaims) -> Result<SecretString, JwtError> {
    sign(ring, TokenKind::Logout, claims)
}

fn sign(ring: &KeyRing, kind: TokenKind, claims: &impl Serialize) -> Result<SecretString, JwtError> {
    let key = ring.active_signing();
    let mut header = Header::new(library_algorithm(key.algorithm()));
    header.typ = Some(kind.typ().to_owned());
    header.kid = Some(key.kid().to_owned());
    let token = jsonwebtoken::encode(&header, claims, key.encoding()).map_err(|_| JwtError::Signing)?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwtError::TooLong);
    }
    Ok(SecretString::from(token))
}

const fn library_algorithm(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests;
