//! Keys that tokens are verified with, whoever holds them: the issuer its ring, another service the published set.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::DecodingKey;
use serde_json::Value;

use super::{Algorithm, KeyRing};
use crate::domain::client::PublicKey;

/// Finds the key of an exact id.
pub trait VerifyingKeys {
    /// Its one algorithm, and the key in the form the verifying library takes.
    fn find(&self, kid: &str) -> Option<(Algorithm, &DecodingKey)>;
}

impl VerifyingKeys for KeyRing {
    fn find(&self, kid: &str) -> Option<(Algorithm, &DecodingKey)> {
        self.verifying(kid).map(|key| (key.algorithm(), key.decoding()))
    }
}

impl<K: VerifyingKeys + ?Sized> VerifyingKeys for Arc<K> {
    fn find(&self, kid: &str) -> Option<(Algorithm, &DecodingKey)> {
        (**self).find(kid)
    }
}

/// A published set that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Not a JWK set.
    #[error("this is no JWK set")]
    Form,
    /// Two keys of one id: which of them counts could be played with.
    #[error("two keys of the set have the same kid")]
    Twice,
    /// A private key was published.
    #[error("a private key stands in the set")]
    Private,
    /// More keys than anybody needs.
    #[error("more than {MOST_KEYS} keys stand in the set")]
    TooMany,
}

/// Far more than next, active and retired ever are at once.
const MOST_KEYS: usize = 64;

/// The keys of a published JWK set (RFC 7517).
#[derive(Debug, Default)]
pub struct PublicKeys(BTreeMap<String, (Algorithm, DecodingKey)>);

impl PublicKeys {
    /// Reads a set. Keys of kinds that we do not use are left out (RFC 7517, section 5), as are those without a `kid`.
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn read(json: &[u8]) -> Result<Self, JwksError> {
        let document: Value = serde_json::from_slice(json).map_err(|_| JwksError::Form)?;
        let set = document.get("keys").and_then(Value::as_array).ok_or(JwksError::Form)?;
        if set.len() > MOST_KEYS {
            return Err(JwksError::TooMany);
        }
        let mut keys = BTreeMap::new();
        for jwk in set {
            let jwk = jwk.as_object().ok_or(JwksError::Form)?;
            if jwk.contains_key("d") {
                return Err(JwksError::Private);
            }
            let Some((kid, key)) = jwk
                .get("kid")
                .and_then(Value::as_str)
                .and_then(|kid| Some((kid.to_owned(), PublicKey::from_jwk(jwk).ok()?)))
            else {
                continue;
            };
            let decoding = match key.algorithm() {
                Algorithm::Es256 => DecodingKey::from_ec_der(key.bytes()),
                Algorithm::EdDsa => DecodingKey::from_ed_der(key.bytes()),
            };
            if keys.insert(kid, (key.algorithm(), decoding)).is_some() {
                return Err(JwksError::Twice);
            }
        }
        Ok(Self(keys))
    }
}

impl VerifyingKeys for PublicKeys {
    fn find(&self, kid: &str) -> Option<(Algorithm, &DecodingKey)> {
        self.0.get(kid).map(|(algorithm, key)| (*algorithm, key))
    }
}
