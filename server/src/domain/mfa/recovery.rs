//! Recovery codes: ten, shown once, each good for one sign-in.

use aws_lc_rs::hmac;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::domain::id::UserId;
use crate::domain::random::{Random, secret};

/// How many codes a set has.
pub const RECOVERY_CODES: usize = 10;
/// 80 bits: ten bytes, sixteen characters (NIST SP 800-63B-4, section 4.2.1.1, asks for 64).
const CODE_BYTES: usize = 10;
const CODE_LENGTH: usize = 16;
/// Crockford's base32: no I, L, O or U, so that nothing is misread.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Longest text looked at: a code with room for separators.
const MAX_TYPED_BYTES: usize = 64;

/// A recovery code in its one normal form, not yet compared with anything. Wiped on drop, redacted in `Debug`.
pub struct RecoveryCode(Zeroizing<[u8; CODE_LENGTH]>);

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode([redacted])")
    }
}

/// A fresh set of codes in the form a person keeps: "7K3M-9QXT-…", four groups of four.
#[must_use]
pub fn generate_recovery_codes(random: &dyn Random) -> Vec<SecretString> {
    (0..RECOVERY_CODES)
        .map(|_| {
            let bytes = secret::<CODE_BYTES>(random);
            let mut text = Zeroizing::new(String::with_capacity(CODE_LENGTH + 3));
            for (i, character) in encode(&bytes).iter().enumerate() {
                if i > 0 && i % 4 == 0 {
                    text.push('-');
                }
                text.push(char::from(*character));
            }
            SecretString::from(text.as_str())
        })
        .collect()
}

fn encode(bytes: &[u8; CODE_BYTES]) -> Zeroizing<[u8; CODE_LENGTH]> {
    let number = bytes
        .iter()
        .fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Zeroizing::new(std::array::from_fn(|i| {
        let shift = 5 * (CODE_LENGTH - 1 - i);
        ALPHABET[usize::from((number >> shift).to_le_bytes()[0] & 31)]
    }))
}

/// Reads what a person typed: case, spaces and dashes do not matter, and the letters that look like digits
/// are taken for them. None if it is no recovery code at all.
#[must_use]
pub fn normalise_recovery_code(typed: &str) -> Option<RecoveryCode> {
    if typed.len() > MAX_TYPED_BYTES {
        return None;
    }
    let mut code = Zeroizing::new([0; CODE_LENGTH]);
    let mut length = 0;
    // Word processors turn a dash into a longer one.
    for character in typed
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2010}'..='\u{2015}'))
    {
        let character = match character.to_ascii_uppercase() {
            'I' | 'L' => '1',
            'O' => '0',
            other => other,
        };
        let byte = u8::try_from(character).ok().filter(|byte| ALPHABET.contains(byte))?;
        *code.get_mut(length)? = byte;
        length += 1;
    }
    (length == CODE_LENGTH).then_some(RecoveryCode(code))
}

/// What is stored of a code: HMAC-SHA256 over user and code.
///
/// A fast hash is right here, unlike for passwords: 80 random bits cannot be searched through even with the
/// key, and a lookup by hash keeps the number of codes out of the timing. The key lies outside the database,
/// and the user is hashed along, so that equal codes of two people would not show.
#[must_use]
pub fn hash_recovery_code(key: &[u8; 32], user: UserId, code: &RecoveryCode) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(b"recovery code v1");
    context.update(user.0.as_bytes());
    context.update(code.0.as_slice());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.sign().as_ref());
    hash
}
