//! Keys: the key-encryption key, the stored keys with their lives, and the ring of opened keys.
//!
//! Owns how keys are made, sealed, parsed and published (TOKENS.md, section 7). Must not know where keys
//! are stored, and never shows key bytes in an error, a log or `Debug`.

mod encryption;
mod file;
mod jwks;
pub mod lifecycle;
mod record;
mod ring;

pub use encryption::KeyEncryptionKey;
pub use file::{KeyFileError, load_or_create_key_file};
pub use jwks::{JwksError, PublicKeys, VerifyingKeys};
pub use record::{Algorithm, KeyAlgorithm, KeyPurpose, KeyRecord, KeyState, edge_byte};
pub(in crate::domain) use ring::Jwk;
pub use ring::{EdgeKey, KeyRing, SigningKey, VerifyingKey, Version, opens};

/// What can be wrong with a key. No message carries key bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not base64 of exactly 32 bytes.
    #[error("a key-encryption key is 32 bytes in base64, this is something else")]
    Malformed,
    /// Far too few different bytes: typed or zeroed rather than drawn at random.
    #[error("this key-encryption key is not random; make one with 32 random bytes")]
    Weak,
    /// A sealed value does not open: other key-encryption key, other place, or altered bytes.
    #[error("a sealed value does not open: it was sealed with another key-encryption key or was altered")]
    DoesNotOpen,
    /// A text column of a key row holds a word nobody wrote there.
    #[error("a stored key has an unknown {0}")]
    UnknownWord(&'static str),
    /// The stored key contradicts itself: id, algorithm, purpose and content do not belong together.
    #[error("the stored key {0} contradicts itself")]
    Inconsistent(String),
    /// There must be exactly one active key for each purpose.
    #[error("there must be exactly one active {0} key, there are {1}")]
    NotOneActive(&'static str, usize),
    /// Keys only go forward: next, active, retired, removed.
    #[error("a key that is {from} cannot become {to}")]
    Backwards {
        /// State now.
        from: &'static str,
        /// State asked for.
        to: &'static str,
    },
    /// 255 edge keys are still needed; their bytes in refresh tokens are all taken.
    #[error("255 edge keys are still in use: no other can be made until one of them goes")]
    NoFreeByte,
    /// A step of the plan names a key that is not there.
    #[error("the key {0} is not there")]
    Unknown(String),
    /// The cryptographic library refused to make a key.
    #[error("no new key could be made")]
    Generation,
}

#[cfg(test)]
mod tests;
