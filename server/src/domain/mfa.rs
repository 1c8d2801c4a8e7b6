//! Second factors: one-time codes of an authenticator app (TOTP, RFC 6238) and recovery codes.
//!
//! Owns secrets, codes and what counts as a match. Must not know where the last accepted step is stored (the
//! caller compares and stores it in one statement) or how often somebody may try.

mod recovery;

pub use recovery::{
    RECOVERY_CODES, RecoveryCode, generate_recovery_codes, hash_recovery_code, normalise_recovery_code,
};

use std::fmt;

use qrcode::render::svg::Color;
use qrcode::{EcLevel, QrCode};
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

use super::clock::Timestamp;
use super::random::{Random, secret};

/// Who issues the codes, as the authenticator app shows it.
pub const ISSUER: &str = "Mayfly";
/// Seconds in which one code is shown.
pub const STEP_SECONDS: u64 = 30;
const DIGITS: u8 = 6;
const SECRET_BYTES: usize = 20;
/// Longest account name put into the QR code; more would only make it hard to read for a camera.
const MAX_ACCOUNT_LENGTH: usize = 64;
const MAX_ISSUER_LENGTH: usize = 32;

/// The secret shared with an authenticator app: 160 bits. Wiped on drop, redacted in `Debug`.
#[derive(Clone)]
pub struct TotpSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret([redacted])")
    }
}

impl TotpSecret {
    /// A fresh secret.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        Self(secret(random))
    }

    /// From stored bytes (opened before); none unless they are 20.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// The bytes, for sealing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Base32 without padding, as it is kept while an authenticator is being set up.
    #[must_use]
    pub fn to_base32(&self) -> String {
        data_encoding::BASE32_NOPAD.encode(self.as_bytes())
    }

    /// From what [`Self::to_base32`] gave; none for anything else.
    #[must_use]
    pub fn from_base32(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(data_encoding::BASE32_NOPAD.decode(text.as_bytes()).ok()?);
        Self::from_bytes(&bytes)
    }

    /// Base32 in groups of four, for typing it into an app: "ABCD EFGH …".
    #[must_use]
    pub fn to_base32_groups(&self) -> String {
        let base32 = Zeroizing::new(self.to_base32());
        let mut groups = String::with_capacity(base32.len() * 5 / 4);
        for (i, character) in base32.chars().enumerate() {
            if i > 0 && i % 4 == 0 {
                groups.push(' ');
            }
            groups.push(character);
        }
        groups
    }

    /// The code that an authenticator app shows at a moment.
    #[must_use]
    pub fn code_at(&self, at: Timestamp) -> String {
        self.totp()
            .generate(u64::try_from(at.as_seconds()).unwrap_or(0))
            .to_string()
    }

    fn builder(&self) -> Builder {
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_step_duration(STEP_SECONDS)
            // Which steps count is decided in `check`, not by the library's window, which reaches into the future.
            .with_skew(0)
            .with_secret(self.as_bytes())
    }

    fn totp(&self) -> Totp {
        // The checks of `build` concern the length of the secret, which is fixed, and names, which are absent.
        self.builder().build_noncompliant()
    }
}

/// An address that authenticator apps read. It contains the secret: wiped on drop, redacted in `Debug`.
pub struct OtpauthUrl(Zeroizing<String>);

impl fmt::Debug for OtpauthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OtpauthUrl([redacted])")
    }
}

impl OtpauthUrl {
    /// The address, for a link that opens the app.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The address for an authenticator app (`otpauth://totp/…`): SHA-1, six digits, 30 seconds, which is what every
/// app understands. Colons separate parts there, so those in names become spaces; long names are cut, for they
/// are only shown.
///
/// # Panics
/// Never: the library refuses only names that are empty or contain colons.
#[must_use]
pub fn otpauth_url(secret: &TotpSecret, account: &str, issuer: &str) -> OtpauthUrl {
    let shown = |name: &str, length| name.replace(':', " ").chars().take(length).collect::<String>();
    let account = if account.is_empty() { "account" } else { account };
    let url = secret
        .builder()
        .with_account_name(shown(account, MAX_ACCOUNT_LENGTH))
        .with_issuer(Some(shown(issuer, MAX_ISSUER_LENGTH)))
        .build()
        .and_then(|totp| totp.to_url())
        .expect("names without colons make an address");
    OtpauthUrl(Zeroizing::new(url))
}

/// The step whose code this is, if it may be accepted now: the current step or the one before it (RFC 6238,
/// section 5.2, allows one step for delay), later than `last_step`, never one of the future. Spaces in the
/// code are passed over.
///
/// The caller accepts only if it can store the step in place of a smaller one, in one statement: that is what
/// makes a code single-use.
#[must_use]
pub fn check(secret: &TotpSecret, code: &str, now: Timestamp, last_step: i64) -> Option<i64> {
    // Nobody types more than this; it bounds the copy below.
    if code.len() > 32 {
        return None;
    }
    let code: Zeroizing<String> = Zeroizing::new(code.chars().filter(|c| !c.is_whitespace()).collect());
    let totp = secret.totp();
    let current = u64::try_from(now.as_seconds()).ok()? / STEP_SECONDS;
    // Both are computed whatever the first says, and the newer one counts.
    let matched = [current.checked_sub(1), Some(current)]
        .map(|step| step.and_then(|step| totp.check(&code, step * STEP_SECONDS)));
    let step = i64::try_from(matched[1].or(matched[0])?).ok()?;
    (step > last_step).then_some(step)
}

/// A QR code as an `<svg>` element for a page: an image with a name for screen readers, without inline styles.
/// Always dark on white with its quiet zone, also in a dark theme, because many cameras read nothing else; size
/// it by its class `qr-code`.
///
/// # Panics
/// Never: no address is longer than 2,000 bytes, and a code of this level holds 2,331.
#[must_use]
pub fn qr_svg(url: &OtpauthUrl) -> String {
    let code = QrCode::with_error_correction_level(url.as_str(), EcLevel::M).expect("the address fits into a QR code");
    let document = code
        .render::<Color<'_>>()
        .dark_color(Color("#000"))
        .light_color(Color("#fff"))
        .quiet_zone(true)
        .module_dimensions(4, 4)
        .build();
    // Only the element: the renderer puts an XML declaration before it, which has no place inside a page.
    let element = document
        .split_once("<svg ")
        .map_or(document.as_str(), |(_, element)| element);
    format!(r#"<svg class="qr-code" role="img" aria-label="QR code for your authenticator app" {element}"#)
}

#[cfg(test)]
mod tests;
