//! Passwords: what one may be, and how it is hashed (SECURITY.md P1 to P5).
//!
//! Owns length rules, the blocklist and the argon2id work. Must not know who signs in, how many try at
//! once (the caller bounds that: one hash takes the memory of its parameters) or where hashes are stored.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Argon2, Block, Params, Version};
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::random::Random;

/// Fewest code points where a password alone signs in (NIST SP 800-63B-4, section 3.1.1.2).
pub const MIN_LENGTH_ALONE: usize = 15;
/// Fewest code points where a second factor is always asked for as well.
pub const MIN_LENGTH_WITH_MFA: usize = 8;
/// Most code points. Longer ones are refused, never cut.
pub const MAX_LENGTH: usize = 256;
/// Most bytes as received: 256 code points of the longest kind.
const MAX_BYTES: usize = 1024;

/// Passwords of eight and more code points out of the 20,000 most common ones in public leaks (the list by
/// Royce Williams that Django ships), lower case, one a line. Text in the binary: it takes no heap.
const COMMON: &str = include_str!("password/common.txt");
/// A password that only repeats a piece this short is as easy to guess as the piece.
const LONGEST_REPEATED_PIECE: usize = 4;

/// A password in Unicode normal form C. NFC is the one change made to it (NIST SP 800-63B-4): the same key
/// presses give the same password on every system. Wiped on drop, redacted in `Debug`.
#[derive(Clone, Debug)]
pub struct Password(SecretString);

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordProblem {
    /// Too few code points.
    #[error("a password needs at least {min} characters")]
    TooShort {
        /// The fewest allowed.
        min: usize,
    },
    /// Too many code points, or bytes.
    #[error("a password has at most {max} characters")]
    TooLong {
        /// The most allowed.
        max: usize,
    },
    /// Well known, made of one repeated piece, or the person's own name or address.
    #[error("this password is among the first that anyone tries")]
    TooCommon,
}

impl Password {
    /// Takes a password as received: nothing is trimmed, cut or changed in case, and NUL is a character
    /// like any other.
    ///
    /// # Errors
    /// [`PasswordProblem::TooLong`] beyond 256 code points or 1 KiB, before any hashing.
    pub fn parse(received: &str) -> Result<Self, PasswordProblem> {
        let too_long = PasswordProblem::TooLong { max: MAX_LENGTH };
        if received.len() > MAX_BYTES {
            return Err(too_long);
        }
        // NFC makes a text at most three times as long; with room for that, no copy is left behind.
        let mut normal = Zeroizing::new(String::with_capacity(received.len() * 3));
        normal.extend(received.nfc());
        if normal.chars().count() > MAX_LENGTH {
            return Err(too_long);
        }
        Ok(Self(SecretString::from(normal.as_str())))
    }

    fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Judges a password somebody wants to set. `context` holds what others know of the person: user name,
/// e-mail address, display name. Only whole passwords are compared; there are no composition rules.
///
/// # Errors
/// What is wrong with it, the length first.
pub fn check_new(password: &Password, min_length: usize, context: &[&str]) -> Result<(), PasswordProblem> {
    if password.text().chars().count() < min_length {
        return Err(PasswordProblem::TooShort { min: min_length });
    }
    let lower = Zeroizing::new(password.text().to_lowercase());
    if is_common(&lower) || repeats_a_piece(&lower) || is_context(&lower, context) {
        return Err(PasswordProblem::TooCommon);
    }
    Ok(())
}

fn is_common(lower: &str) -> bool {
    // A walk through 80 kB takes less than a thousandth of the hashing that follows.
    COMMON.lines().any(|common| common == lower)
}

/// "aaaaaaaa", "abababab", "passwordpassword".
fn repeats_a_piece(lower: &str) -> bool {
    let bytes = lower.as_bytes();
    (1..=bytes.len() / 2)
        .filter(|piece| bytes.len().is_multiple_of(*piece))
        .any(|length| {
            let (piece, rest) = bytes.split_at(length);
            rest.chunks_exact(length).all(|next| next == piece)
                && std::str::from_utf8(piece)
                    .is_ok_and(|piece| piece.chars().count() <= LONGEST_REPEATED_PIECE || is_common(piece))
        })
}

fn is_context(lower: &str, context: &[&str]) -> bool {
    let same = |word: &str| !word.is_empty() && word.nfc().collect::<String>().to_lowercase() == lower;
    context
        .iter()
        .any(|word| same(word) || word.split_once('@').is_some_and(|(local, _)| same(local)))
}

/// The cost of one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashParams {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
}

/// Parameters outside the allowed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("password hashing needs 19456 to 1048576 KiB of memory, 2 to 32 iterations and 1 to 16 lanes")]
pub struct HashParamsOutOfRange;

impl HashParams {
    /// Least cost, and the default: m=19 MiB, t=2, p=1 (OWASP password storage).
    pub const LEAST: Self = Self {
        memory_kib: 19_456,
        iterations: 2,
        parallelism: 1,
    };

    /// Checked parameters. The upper bounds keep a slip of the pen from stopping the server.
    ///
    /// # Errors
    /// [`HashParamsOutOfRange`].
    pub fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self, HashParamsOutOfRange> {
        let allowed = (Self::LEAST.memory_kib..=1_048_576).contains(&memory_kib)
            && (Self::LEAST.iterations..=32).contains(&iterations)
            && (Self::LEAST.parallelism..=16).contains(&parallelism);
        if allowed {
            Ok(Self {
                memory_kib,
                iterations,
                parallelism,
            })
        } else {
            Err(HashParamsOutOfRange)
        }
    }

    /// Memory of one hash, in KiB.
    #[must_use]
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    #[must_use]
    pub const fn iterations(self) -> u32 {
        self.iterations
    }

    /// Lanes.
    #[must_use]
    pub const fn parallelism(self) -> u32 {
        self.parallelism
    }
}

impl Default for HashParams {
    fn default() -> Self {
        Self::LEAST
    }
}

/// What came out of comparing a password with a stored hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Another password.
    Wrong,
    /// The password.
    Right,
    /// The password, hashed at another cost than today's: hash it again and store that.
    RightButOutdated,
}

/// A hash that could not be computed or read. Carries neither the password nor the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The stored text is no argon2id hash of ours.
    #[error("the stored password hash is damaged")]
    Damaged,
    /// The operating system gave no memory.
    #[error("no memory for hashing a password")]
    OutOfMemory,
}

/// Hashes a password: a PHC string with argon2id, its parameters and a fresh 16-byte salt.
///
/// What argon2id sees is HMAC-SHA256(pepper, password). The pepper stays outside the database, so a stolen
/// copy of the database alone allows no guessing at all; and because the pepper comes first, every password
/// costs the same whatever its length.
///
/// # Errors
/// [`HashError::OutOfMemory`].
pub fn hash(
    password: &Password,
    params: &HashParams,
    pepper: &[u8; 32],
    random: &dyn Random,
) -> Result<String, HashError> {
    let mut salt = [0; 16];
    random.fill(&mut salt);
    let output = stretch(password, *params, &salt, pepper)?;
    phc(*params, &salt, output.as_slice())
}

/// Compares a password with a stored hash, at the stored cost and in constant time.
///
/// # Errors
/// [`HashError::Damaged`] if the stored text is not what [`hash`] writes; [`HashError::OutOfMemory`].
pub fn verify(
    password: &Password,
    stored: &str,
    params: &HashParams,
    pepper: &[u8; 32],
) -> Result<Verification, HashError> {
    let stored = PasswordHash::new(stored).map_err(|_| HashError::Damaged)?;
    let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
        return Err(HashError::Damaged);
    };
    if stored.algorithm.as_str() != "argon2id" || stored.version != Some(Version::V0x13.into()) {
        return Err(HashError::Damaged);
    }
    let cost = |name| stored.params.get_decimal(name).ok_or(HashError::Damaged);
    // A stored cost below today's least is still read, so that people keep their passwords when it rises.
    let stored_params = HashParams {
        memory_kib: cost("m")?,
        iterations: cost("t")?,
        parallelism: cost("p")?,
    };
    let upper = HashParams::new(
        stored_params.memory_kib.max(HashParams::LEAST.memory_kib),
        stored_params.iterations.max(HashParams::LEAST.iterations),
        stored_params.parallelism.max(HashParams::LEAST.parallelism),
    );
    if upper.is_err() || expected.len() != 32 {
        return Err(HashError::Damaged);
    }
    let output = stretch(password, stored_params, &salt, pepper)?;
    Ok(if !bool::from(output.as_slice().ct_eq(expected.as_bytes())) {
        Verification::Wrong
    } else if stored_params == *params {
        Verification::Right
    } else {
        Verification::RightButOutdated
    })
}

/// A hash that no password has, at today's cost: verifying against it takes an unknown user as long as a
/// known one. Made without hashing; keep it for the life of the process.
///
/// # Panics
/// Never: the parameters were checked.
#[must_use]
pub fn dummy_hash(params: &HashParams, pepper: &[u8; 32]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, pepper);
    let salt = hmac::sign(&key, b"salt of nobody");
    let output = hmac::sign(&key, b"hash of nobody");
    phc(*params, &salt.as_ref()[..16], output.as_ref()).expect("checked parameters make a hash")
}

fn phc(params: HashParams, salt: &[u8], output: &[u8]) -> Result<String, HashError> {
    let parts = || -> Result<PasswordHash, argon2::password_hash::Error> {
        Ok(PasswordHash {
            algorithm: argon2::ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&library_params(params)?)?,
            salt: Some(Salt::new(salt)?),
            hash: Some(Output::new(output)?),
        })
    };
    Ok(parts().map_err(|_| HashError::Damaged)?.to_string())
}

fn library_params(params: HashParams) -> Result<Params, argon2::Error> {
    Params::new(params.memory_kib, params.iterations, params.parallelism, Some(32))
}

/// The argon2id work itself.
fn stretch(
    password: &Password,
    params: HashParams,
    salt: &[u8],
    pepper: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, HashError> {
    /// Blocks of 1 KiB. The C library gives an allocation above 32 MiB back to the system as soon as it is
    /// freed; below, it would keep 19 MiB for each thread that ever hashed. Unused room costs no memory.
    const ROOM: usize = 33 * 1024;
    let peppered = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pepper), password.text().as_bytes());
    let params = library_params(params).map_err(|_| HashError::Damaged)?;
    let mut memory: Vec<Block> = Vec::new();
    memory
        .try_reserve_exact(params.block_count().max(ROOM))
        .map_err(|_| HashError::OutOfMemory)?;
    memory.resize(params.block_count(), Block::new());
    let mut output = Zeroizing::new([0; 32]);
    Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(peppered.as_ref(), salt, output.as_mut_slice(), &mut memory)
        .map_err(|_| HashError::Damaged)?;
    Ok(output)
}

#[cfg(test)]
mod tests;
