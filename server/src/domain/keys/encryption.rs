//! The key-encryption key: seals what lies in the database, and is the root of keyed hashes.
//!
//! Must not know what it seals; each caller names a purpose and the row.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use zeroize::Zeroizing;

use super::KeyError;
use crate::domain::random::Random;

/// First byte of everything sealed, so that another cipher can follow one day.
const VERSION: u8 = 1;
/// Of 32 random bytes about 30 differ; fewer than this many means that nobody drew them.
const FEWEST_DIFFERENT_BYTES: usize = 12;

/// 256 bits from outside the database. Wiped on drop, redacted in `Debug`.
pub struct KeyEncryptionKey {
    /// Root of everything; never used with a cipher itself.
    root: Zeroizing<[u8; 32]>,
    /// AES-256-GCM under a key derived from the root (the library wipes it on drop).
    sealing: LessSafeKey,
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey([redacted])")
    }
}

impl KeyEncryptionKey {
    /// From 32 random bytes.
    ///
    /// # Panics
    /// Never: AES-256 takes any 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let root = Zeroizing::new(bytes);
        let sealing = derive(&root, "sealing");
        let sealing = UnboundKey::new(&AES_256_GCM, sealing.as_slice()).expect("AES-256 takes any 32 bytes");
        Self {
            root,
            sealing: LessSafeKey::new(sealing),
        }
    }

    /// From base64 or base64url of 32 bytes, with or without padding, with nothing around it.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], or [`KeyError::Weak`] for bytes nobody drew at random.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let decoded = [BASE64URL_NOPAD, BASE64URL, BASE64, BASE64_NOPAD]
            .iter()
            .find_map(|encoding| encoding.decode(text.as_bytes()).ok().map(Zeroizing::new))
            .ok_or(KeyError::Malformed)?;
        let bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| KeyError::Malformed)?;
        let bytes = Zeroizing::new(bytes);
        let different: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
        if different.len() < FEWEST_DIFFERENT_BYTES {
            return Err(KeyError::Weak);
        }
        Ok(Self::from_bytes(*bytes))
    }

    /// Seals a value with AES-256-GCM: version (1 byte) | nonce (12) | ciphertext and tag.
    ///
    /// `purpose` and `context` (the row's id) are authenticated, so that a sealed value cannot be moved to
    /// another column or row. Nonces are random; NIST SP 800-38D allows 2^32 of them under one key.
    ///
    /// # Panics
    /// Only for a plaintext of 64 GiB or more.
    #[must_use]
    pub fn seal(&self, purpose: &'static str, context: &[u8], plaintext: &[u8], random: &dyn Random) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = self
            .sealing
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(purpose, context)),
                &mut sealed[1 + NONCE_LEN..],
            )
            .expect("AES-256-GCM seals anything below 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what [`Self::seal`] made with the same purpose and context.
    ///
    /// # Errors
    /// [`KeyError::DoesNotOpen`] for anything else.
    pub fn open(&self, purpose: &'static str, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(KeyError::DoesNotOpen)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(KeyError::DoesNotOpen)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .sealing
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated_data(purpose, context)),
                plaintext.as_mut_slice(),
            )
            .map_err(|_| KeyError::DoesNotOpen)?
            .len();
        plaintext.truncate(length);
        Ok(plaintext)
    }

    /// A key of its own for each label (HKDF-SHA256, RFC 5869), for keyed hashes and the audit seal.
    ///
    /// # Panics
    /// Never: HKDF gives up to 8,160 bytes.
    #[must_use]
    pub fn derive(&self, label: &'static str) -> Zeroizing<[u8; 32]> {
        // The prefix keeps callers' labels apart from the key that seals.
        derive(&self.root, &format!("label:{label}"))
    }
}

/// Version, purpose and context without ambiguity: no purpose contains a zero byte.
fn associated_data(purpose: &'static str, context: &[u8]) -> Vec<u8> {
    [&[VERSION], purpose.as_bytes(), &[0], context].concat()
}

/// Length of a derived key, in the form the library asks for.
struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn derive(root: &[u8; 32], info: &str) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, b"mayfly key-encryption key v1")
        .extract(root)
        .expand(&[info.as_bytes()], Bytes32)
        .and_then(|material| material.fill(derived.as_mut_slice()))
        .expect("HKDF-SHA256 gives 32 bytes");
    derived
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::random::SystemRandom;

    fn key() -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    #[test]
    fn what_was_sealed_opens_only_with_the_same_key_purpose_and_row() {
        let random = SystemRandom::default();
        let sealed = key().seal("totp", b"row 1", b"secret", &random);
        assert_eq!(key().open("totp", b"row 1", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key().open("totp", b"row 2", &sealed), Err(KeyError::DoesNotOpen));
        assert_eq!(key().open("session", b"row 1", &sealed), Err(KeyError::DoesNotOpen));
        let other = KeyEncryptionKey::from_bytes([9; 32]);
        assert_eq!(other.open("totp", b"row 1", &sealed), Err(KeyError::DoesNotOpen));
    }

    #[test]
    fn any_altered_or_missing_byte_is_noticed() {
        let sealed = key().seal("totp", b"row", b"secret", &SystemRandom::default());
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 1;
            assert_eq!(
                key().open("totp", b"row", &altered),
                Err(KeyError::DoesNotOpen),
                "byte {i}"
            );
            assert_eq!(
                key().open("totp", b"row", &sealed[..i]),
                Err(KeyError::DoesNotOpen),
                "length {i}"
            );
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_to_the_same_bytes() {
        let random = SystemRandom::default();
        assert_ne!(
            key().seal("a", b"b", b"c", &random),
            key().seal("a", b"b", b"c", &random)
        );
    }

    #[test]
    fn derived_keys_differ_by_label_and_are_stable() {
        assert_eq!(key().derive("audit"), key().derive("audit"));
        assert_ne!(key().derive("audit"), key().derive("pepper"));
        assert_ne!(
            key().derive("sealing").as_slice(),
            derive(&key().root, "sealing").as_slice()
        );
    }

    #[test]
    fn base64_in_the_usual_spellings_is_read_and_nothing_else() {
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8 + 3).unwrap());
        let expected = KeyEncryptionKey::from_bytes(bytes).derive("x");
        for text in [
            BASE64.encode(&bytes),
            BASE64URL_NOPAD.encode(&bytes),
            BASE64URL.encode(&bytes),
        ] {
            assert_eq!(KeyEncryptionKey::from_base64(&text).unwrap().derive("x"), expected);
        }
        for text in [
            "",
            "short",
            &BASE64.encode(&bytes[..31]),
            &format!(" {}", BASE64.encode(&bytes)),
            "ä",
        ] {
            assert_eq!(KeyEncryptionKey::from_base64(text).unwrap_err(), KeyError::Malformed);
        }
        assert_eq!(
            KeyEncryptionKey::from_base64(&BASE64.encode(&[0; 32])).unwrap_err(),
            KeyError::Weak
        );
    }

    #[test]
    fn debug_shows_no_key_bytes() {
        assert_eq!(format!("{:?}", key()), "KeyEncryptionKey([redacted])");
    }
}
