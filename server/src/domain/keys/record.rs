//! A key as it is stored: sealed, with the dates of its life.

use aws_lc_rs::rand::SystemRandom as AwsRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use zeroize::Zeroizing;

use super::ring::{Jwk, public_jwk};
use super::{KeyEncryptionKey, KeyError};
use crate::domain::clock::Timestamp;
use crate::domain::random::{Random, secret};

/// What sealed private parts are bound to, beside the key's id.
pub(super) const SEAL_PURPOSE: &str = "key";

/// Signature algorithms for access tokens; the configuration chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4).
    #[default]
    Es256,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl Algorithm {
    /// The word in a token's header (`alg`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl From<Algorithm> for KeyAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::Es256,
            Algorithm::EdDsa => Self::EdDsa,
        }
    }
}

/// Defines an enum that is stored as a word.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// The word in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = KeyError;

            fn from_str(word: &str) -> Result<Self, KeyError> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(KeyError::UnknownWord($what)),
                }
            }
        }
    };
}

word!(
    /// What a key is for.
    KeyPurpose, "purpose", {
        /// Signs access tokens.
        Signing = "signing",
        /// Makes the outer tag of refresh tokens.
        Edge = "edge",
    }
);
word!(
    /// The algorithm of a stored key.
    KeyAlgorithm, "algorithm", {
        /// ECDSA on P-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
        /// HMAC-SHA256, for edge keys only.
        Hs256 = "HS256",
    }
);
word!(
    /// Where a key stands in its life. It only goes forward.
    KeyState, "state", {
        /// Published, not yet used.
        Next = "next",
        /// In use.
        Active = "active",
        /// No longer used, still verifies.
        Retired = "retired",
        /// Gone: nothing of it is accepted.
        Removed = "removed",
    }
);

/// The byte that names an edge key in refresh tokens: 1 to 255, then again from 1, when the first one of that byte
/// is long gone. 0 stays free, so that zeroed bytes name no key.
#[must_use]
pub const fn edge_byte(number: u32) -> u8 {
    (number.saturating_sub(1) % 255) as u8 + 1
}

/// A key as stored (table `keys`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// `kid`: RFC 7638 thumbprint of a signing key, `edge-<n>` of an edge key.
    pub id: String,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Its one algorithm.
    pub algorithm: KeyAlgorithm,
    /// Where it stands.
    pub state: KeyState,
    /// PKCS#8 (signing) or 32 bytes (edge), sealed; empty once removed.
    pub private_sealed: Vec<u8>,
    /// Public members as a JWK, for signing keys.
    pub public_jwk: Option<String>,
    /// Made at; published from then on.
    pub created_at: Timestamp,
    /// In use since.
    pub activated_at: Option<Timestamp>,
    /// Out of use since.
    pub retired_at: Option<Timestamp>,
    /// Gone since.
    pub removed_at: Option<Timestamp>,
}

impl KeyRecord {
    /// A new signing key, state `next`. The key itself comes from the cryptographic library's own
    /// generator (it takes no other); `random` gives the nonce of the seal.
    ///
    /// # Errors
    /// [`KeyError::Generation`] if the library makes none.
    #[expect(
        clippy::disallowed_methods,
        reason = "the library makes key pairs from its own generator only"
    )]
    pub fn generate_signing(
        algorithm: Algorithm,
        kek: &KeyEncryptionKey,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<Self, KeyError> {
        let generator = AwsRandom::new();
        let pkcs8 = match algorithm {
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &generator),
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&generator),
        }
        .map_err(|_| KeyError::Generation)?;
        let Jwk { kid, json, .. } = public_jwk(algorithm, pkcs8.as_ref()).ok_or(KeyError::Generation)?;
        let private_sealed = kek.seal(SEAL_PURPOSE, kid.as_bytes(), pkcs8.as_ref(), random);
        Ok(Self {
            id: kid,
            purpose: KeyPurpose::Signing,
            algorithm: algorithm.into(),
            state: KeyState::Next,
            private_sealed,
            public_jwk: Some(json.to_string()),
            created_at: now,
            activated_at: None,
            retired_at: None,
            removed_at: None,
        })
    }

    /// A new edge key, state `next`. Numbers count up from 1 and are never given twice; see [`edge_byte`].
    ///
    /// # Errors
    /// [`KeyError::Generation`] for the number 0.
    pub fn generate_edge(
        number: u32,
        kek: &KeyEncryptionKey,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<Self, KeyError> {
        if number == 0 {
            return Err(KeyError::Generation);
        }
        let id = format!("edge-{number}");
        let bytes: Zeroizing<[u8; 32]> = secret(random);
        Ok(Self {
            private_sealed: kek.seal(SEAL_PURPOSE, id.as_bytes(), bytes.as_slice(), random),
            id,
            purpose: KeyPurpose::Edge,
            algorithm: KeyAlgorithm::Hs256,
            state: KeyState::Next,
            public_jwk: None,
            created_at: now,
            activated_at: None,
            retired_at: None,
            removed_at: None,
        })
    }

    /// The number of an edge key.
    #[must_use]
    pub fn edge_number(&self) -> Option<u32> {
        let number = self.id.strip_prefix("edge-")?.parse().ok()?;
        let is_edge = self.purpose == KeyPurpose::Edge && number > 0 && self.id == format!("edge-{number}");
        is_edge.then_some(number)
    }

    /// `next` becomes `active`. The caller retires the one before in the same transaction.
    ///
    /// # Errors
    /// [`KeyError::Backwards`] from any other state.
    pub fn activate(&mut self, now: Timestamp) -> Result<(), KeyError> {
        self.advance(&[KeyState::Next], KeyState::Active)?;
        self.activated_at = Some(now);
        Ok(())
    }

    /// `active` becomes `retired`.
    ///
    /// # Errors
    /// [`KeyError::Backwards`] from any other state.
    pub fn retire(&mut self, now: Timestamp) -> Result<(), KeyError> {
        self.advance(&[KeyState::Active], KeyState::Retired)?;
        self.retired_at = Some(now);
        Ok(())
    }

    /// Any state becomes `removed`, and the private part is forgotten.
    ///
    /// # Errors
    /// [`KeyError::Backwards`] if it is removed already.
    pub fn remove(&mut self, now: Timestamp) -> Result<(), KeyError> {
        self.advance(
            &[KeyState::Next, KeyState::Active, KeyState::Retired],
            KeyState::Removed,
        )?;
        self.removed_at = Some(now);
        self.private_sealed.clear();
        Ok(())
    }

    fn advance(&mut self, from: &[KeyState], to: KeyState) -> Result<(), KeyError> {
        if !from.contains(&self.state) {
            return Err(KeyError::Backwards {
                from: self.state.as_str(),
                to: to.as_str(),
            });
        }
        self.state = to;
        Ok(())
    }
}
