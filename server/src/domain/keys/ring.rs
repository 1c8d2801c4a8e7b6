//! The opened keys in memory: parsed once, looked up by exact id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::lifecycle::SPREAD;
use super::record::SEAL_PURPOSE;
use super::{Algorithm, KeyAlgorithm, KeyEncryptionKey, KeyError, KeyPurpose, KeyRecord, KeyState, edge_byte};
use crate::domain::clock::{APART, Timestamp};

/// The key that signs access tokens now.
#[derive(Clone, Debug)]
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
}

impl SigningKey {
    /// Its id, the `kid` of what it signs.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its one algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The private key in the form the signing library takes.
    pub(in crate::domain) const fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
}

/// A key that access tokens are verified with.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    state: KeyState,
    decoding: DecodingKey,
    jwk: Value,
}

impl VerifyingKey {
    /// Its one algorithm: the key says which, not the token.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Next, active or retired.
    #[must_use]
    pub const fn state(&self) -> KeyState {
        self.state
    }

    /// The public key in the form the verifying library takes.
    pub(in crate::domain) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

/// A secret key for the outer tag of refresh tokens.
#[derive(Clone)]
pub struct EdgeKey(hmac::Key);

impl fmt::Debug for EdgeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EdgeKey([redacted])")
    }
}

impl EdgeKey {
    /// HMAC-SHA256 of the message, first 16 bytes.
    #[must_use]
    pub fn tag(&self, message: &[u8]) -> [u8; 16] {
        let mut tag = [0; 16];
        tag.copy_from_slice(&hmac::sign(&self.0, message).as_ref()[..16]);
        tag
    }

    /// Whether the tag is the message's; takes equally long for every tag of 16 bytes.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        self.tag(message).ct_eq(tag).into()
    }
}

/// The ids of the stored keys and the word for where each stands in its life. Not a count: after a database has lost its
/// last commits another past may have as many.
pub type Version = BTreeSet<(String, String)>;

/// Every key in use, opened. Built again when the stored keys change.
#[derive(Clone, Debug)]
pub struct KeyRing {
    active: SigningKey,
    verifying: BTreeMap<String, VerifyingKey>,
    edge: BTreeMap<u8, EdgeKey>,
    /// Edge keys that refresh tokens are or were made with, by the time of their activation.
    edge_uses: Vec<(Timestamp, u8)>,
    /// When a signing key that is removed now was last in use.
    removed_last_used: Vec<Timestamp>,
    /// See [`Self::version`].
    version: Version,
}

impl KeyRing {
    /// Opens stored keys; removed ones are left out. Public keys are derived from the sealed private
    /// parts, so that nobody who can only write to the database adds a key of their own.
    ///
    /// # Errors
    /// [`KeyError::DoesNotOpen`] with another key-encryption key, [`KeyError::Inconsistent`] for a row
    /// that contradicts itself, [`KeyError::NotOneActive`] without exactly one active key per purpose.
    pub fn open(records: Vec<KeyRecord>, kek: &KeyEncryptionKey) -> Result<Self, KeyError> {
        let mut signing = Vec::new();
        let mut verifying = BTreeMap::new();
        let mut edges_active = 0;
        let mut edge = BTreeMap::new();
        let mut edge_uses = Vec::new();
        let removed_last_used = last_uses_of_removed(&records);
        let state = |record: &KeyRecord| (record.id.clone(), record.state.as_str().to_owned());
        let version = records.iter().map(state).collect();
        for record in records.into_iter().filter(|record| record.state != KeyState::Removed) {
            let active = record.state == KeyState::Active;
            match record.purpose {
                KeyPurpose::Signing => {
                    let (private, public) = open_signing(&record, kek)?;
                    if active {
                        signing.push(private);
                    }
                    verifying.insert(record.id, public);
                }
                KeyPurpose::Edge => {
                    let (byte, key) = open_edge(&record, kek)?;
                    edges_active += usize::from(active);
                    edge_uses.extend(record.activated_at.map(|at| (at, byte)));
                    if edge.insert(byte, key).is_some() {
                        return Err(KeyError::Inconsistent(record.id));
                    }
                }
            }
        }
        edge_uses.sort_unstable();
        if edges_active != 1 || edge_uses.is_empty() {
            return Err(KeyError::NotOneActive("edge", edges_active));
        }
        let (found, active) = (signing.len(), signing.pop());
        match active {
            Some(active) if found == 1 => Ok(Self {
                active,
                verifying,
                edge,
                edge_uses,
                removed_last_used,
                version,
            }),
            _ => Err(KeyError::NotOneActive("signing", found)),
        }
    }

    /// The key to sign with.
    #[must_use]
    pub const fn active_signing(&self) -> &SigningKey {
        &self.active
    }

    /// The key of this id, compared exactly, if its tokens are accepted.
    #[must_use]
    pub fn verifying(&self, kid: &str) -> Option<&VerifyingKey> {
        self.verifying.get(kid)
    }

    /// The edge key of the refresh token of a generation that began at `at`, with its byte.
    ///
    /// A refresh token is made again, byte for byte, when its answer was lost (TOKENS.md §3): so its key depends on
    /// the time in the session's row alone, not on the key that is active when it is made again. A new edge key is
    /// used [`SPREAD`] after its activation, when every node knows of it, and so every node takes the same one.
    ///
    /// # Panics
    /// Never: [`Self::open`] saw to it that there is one.
    #[must_use]
    pub fn edge_at(&self, at: Timestamp) -> (u8, &EdgeKey) {
        let known = self.edge_uses.partition_point(|(since, _)| since.plus(SPREAD) <= at);
        let (_, byte) = self.edge_uses[known.saturating_sub(1)];
        (byte, &self.edge[&byte])
    }

    /// Whether an access token that was signed at `at` may be of a key that is removed now, so that its holder needs
    /// another one at once. A removal that is still to come was written while the clock was ahead, and says nothing.
    #[must_use]
    pub fn may_have_lost_the_key_of(&self, at: Timestamp, now: Timestamp) -> bool {
        self.removed_last_used
            .iter()
            .any(|last| at <= last.plus(SPREAD) && last.since(now) <= APART)
    }

    /// Of the stored keys that it was opened from.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// This ring without the keys that these records say are removed: for going on with what is in memory when the
    /// stored keys can no longer be opened as a whole.
    ///
    /// # Errors
    /// [`KeyError::NotOneActive`] if the key that signs is among them.
    pub fn without_removed(&self, records: &[KeyRecord]) -> Result<Self, KeyError> {
        let mut ring = self.clone();
        for record in records.iter().filter(|record| record.state == KeyState::Removed) {
            ring.verifying.remove(&record.id);
        }
        if !ring.verifying.contains_key(ring.active.kid()) {
            return Err(KeyError::NotOneActive("signing", 0));
        }
        ring.removed_last_used = last_uses_of_removed(records);
        Ok(ring)
    }

    /// The edge key of this byte.
    #[must_use]
    pub fn edge(&self, mac_key_id: u8) -> Option<&EdgeKey> {
        self.edge.get(&mac_key_id)
    }

    /// The JWK set (RFC 7517) of next, active and retired keys: public members only.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.verifying.values().map(|key| &key.jwk).collect::<Vec<_>>() })
    }
}

/// Whether this stored key says what was written there, and the key-encryption key is the one it was sealed with.
#[must_use]
pub fn opens(record: &KeyRecord, kek: &KeyEncryptionKey) -> bool {
    match record.purpose {
        KeyPurpose::Signing => open_signing(record, kek).is_ok(),
        KeyPurpose::Edge => {
            let is_used = record.state == KeyState::Active;
            open_edge(record, kek).is_ok() && (!is_used || record.activated_at.is_some())
        }
    }
}

fn open_signing(record: &KeyRecord, kek: &KeyEncryptionKey) -> Result<(SigningKey, VerifyingKey), KeyError> {
    let inconsistent = || KeyError::Inconsistent(record.id.clone());
    let algorithm = match record.algorithm {
        KeyAlgorithm::Es256 => Algorithm::Es256,
        KeyAlgorithm::EdDsa => Algorithm::EdDsa,
        KeyAlgorithm::Hs256 => return Err(inconsistent()),
    };
    let pkcs8 = kek.open(SEAL_PURPOSE, record.id.as_bytes(), &record.private_sealed)?;
    let Jwk { kid, json, public } = public_jwk(algorithm, &pkcs8).ok_or_else(inconsistent)?;
    let stored = record
        .public_jwk
        .as_deref()
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    if kid != record.id || stored.as_ref() != Some(&json) {
        return Err(inconsistent());
    }
    // "From DER" takes the raw public key too, which is what the backend then verifies with.
    let (encoding, decoding) = match algorithm {
        Algorithm::Es256 => (EncodingKey::from_ec_der(&pkcs8), DecodingKey::from_ec_der(&public)),
        Algorithm::EdDsa => (EncodingKey::from_ed_der(&pkcs8), DecodingKey::from_ed_der(&public)),
    };
    Ok((
        SigningKey {
            kid,
            algorithm,
            encoding,
        },
        VerifyingKey {
            algorithm,
            state: record.state,
            decoding,
            jwk: json,
        },
    ))
}

fn open_edge(record: &KeyRecord, kek: &KeyEncryptionKey) -> Result<(u8, EdgeKey), KeyError> {
    let inconsistent = || KeyError::Inconsistent(record.id.clone());
    let number = record.edge_number().ok_or_else(inconsistent)?;
    if record.algorithm != KeyAlgorithm::Hs256 {
        return Err(inconsistent());
    }
    let bytes = kek.open(SEAL_PURPOSE, record.id.as_bytes(), &record.private_sealed)?;
    if bytes.len() != 32 {
        return Err(inconsistent());
    }
    Ok((edge_byte(number), EdgeKey(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
}

fn last_uses_of_removed(records: &[KeyRecord]) -> Vec<Timestamp> {
    let used = records.iter().filter(|key| {
        key.purpose == KeyPurpose::Signing && key.state == KeyState::Removed && key.activated_at.is_some()
    });
    used.filter_map(|key| key.retired_at.or(key.removed_at)).collect()
}

/// The public side of a signing key.
pub(in crate::domain) struct Jwk {
    /// RFC 7638 thumbprint.
    pub(in crate::domain) kid: String,
    /// Public members.
    pub(super) json: Value,
    /// 0x04 | x | y on P-256, 32 bytes on Ed25519.
    pub(super) public: Vec<u8>,
}

impl Jwk {
    /// Of a raw public key; none if it has not the form of that algorithm.
    pub(in crate::domain) fn new(algorithm: Algorithm, public: Vec<u8>) -> Option<Self> {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        // The thumbprint is over the required members in the order of the alphabet, without spaces.
        let (thumbprint, mut json) = match algorithm {
            Algorithm::Es256 => {
                let [0x04, point @ ..] = public.as_slice() else {
                    return None;
                };
                let (x, y) = point.split_at_checked(32)?;
                let (x, y) = (encode(x), encode(y));
                let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
                (thumbprint, json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }))
            }
            Algorithm::EdDsa => {
                let x = encode(&public);
                let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                (thumbprint, json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
            }
        };
        let kid = encode(digest(&SHA256, thumbprint.as_bytes()).as_ref());
        json["kid"] = json!(kid);
        json["use"] = json!("sig");
        json["alg"] = json!(algorithm.as_str());
        Some(Self { kid, json, public })
    }
}

/// Derives it from the private key; none if this is no PKCS#8 key of that algorithm.
pub(super) fn public_jwk(algorithm: Algorithm, pkcs8: &[u8]) -> Option<Jwk> {
    let public = match algorithm {
        Algorithm::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .ok()?
            .public_key()
            .as_ref()
            .to_vec(),
        Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).ok()?.public_key().as_ref().to_vec(),
    };
    Jwk::new(algorithm, public)
}
