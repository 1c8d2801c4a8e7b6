//! The assertion that a client proves itself with: a JWT of its own, signed with its own key (RFC 7523, section 3).
//!
//! Read as strictly as our own tokens, but for what the standard leaves to the client: further claims, and an audience
//! that names us in one of two ways. That each is used once needs state and is the caller's.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::claims::text;
use super::compact::Compact;
use super::verify::{FORBIDDEN, MAX_TOLERANCE};
use crate::domain::client::{ClientId, PublicKey};
use crate::domain::clock::{APART, Timestamp};

/// Longest time that an assertion may go on being valid.
const LONGEST: Duration = Duration::from_mins(5);
const MOST_JTI_CHARS: usize = 256;
/// RFC 7519, and the type of its own that the successor of RFC 7523 gives it.
const TYPES: [&str; 2] = ["JWT", "client-authentication+jwt"];

/// Why an assertion proves nothing. A closed list, for the audit log; the client hears less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionRefusal {
    /// Not three parts of canonical base64url with a JSON object each.
    Form,
    /// A header member that brings a key, an encoding or an extension, or another `typ`.
    Header,
    /// No key of this client has that `kid` and `alg`.
    KeyUnknown,
    /// The signature is of none of its keys.
    Signature,
    /// A claim is missing or has the wrong type.
    Claims,
    /// `iss` or `sub` is not the client.
    Subject,
    /// Made for somebody else, or not for us alone.
    Audience,
    /// Past its end.
    Expired,
    /// Issued in the future, or not valid yet.
    NotYetValid,
    /// Valid for more than five minutes from now.
    TooLong,
}

impl AssertionRefusal {
    /// One word for the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "assertion_form",
            Self::Header => "assertion_header",
            Self::KeyUnknown => "assertion_key_unknown",
            Self::Signature => "assertion_signature",
            Self::Claims => "assertion_claims",
            Self::Subject => "assertion_subject",
            Self::Audience => "assertion_audience",
            Self::Expired => "assertion_expired",
            Self::NotYetValid => "assertion_not_yet_valid",
            Self::TooLong => "assertion_too_long",
        }
    }
}

/// What this server expects of an assertion.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedAssertion<'a> {
    /// Our issuer and our token endpoint: `aud` names one of them, or both, and nobody else.
    pub audiences: [&'a str; 2],
    /// The one clock tolerance; never more than two minutes are used.
    pub tolerance: Duration,
}

/// An assertion taken apart; nothing in it is to be trusted yet.
pub struct Assertion<'a>(Compact<'a>);

/// A proof that holds, if it is used for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// To be remembered until …
    pub jti: String,
    /// … nobody accepts the assertion any more.
    pub until: Timestamp,
}

impl<'a> Assertion<'a> {
    /// The compact form, read strictly.
    ///
    /// # Errors
    /// [`AssertionRefusal::Form`].
    pub fn parse(token: &'a str) -> Result<Self, AssertionRefusal> {
        Compact::parse(token).map(Self).map_err(|_| AssertionRefusal::Form)
    }

    /// Who it says signed it: tells whose keys to try, and proves nothing.
    #[must_use]
    pub fn claimed_client(&self) -> Option<ClientId> {
        ClientId::parse(self.0.claims.get("sub")?.as_str()?)
    }

    /// Checks everything but that it is used for the first time.
    ///
    /// # Errors
    /// The first [`AssertionRefusal`] met.
    pub fn verify(
        self,
        client: &ClientId,
        keys: &[PublicKey],
        expected: ExpectedAssertion<'_>,
        now: Timestamp,
    ) -> Result<Proven, AssertionRefusal> {
        let Self(token) = self;
        check_signature(&token, keys)?;
        let mut claims = token.claims;
        for name in ["iss", "sub"] {
            if take_text(&mut claims, name)? != client.as_str() {
                return Err(AssertionRefusal::Subject);
            }
        }
        let audience = match claims.remove("aud") {
            Some(Value::Array(names)) => names,
            Some(name @ Value::String(_)) => vec![name],
            _ => return Err(AssertionRefusal::Claims),
        };
        let ours = |name: &Value| name.as_str().is_some_and(|name| expected.audiences.contains(&name));
        // An assertion for others, too, could be played on by them.
        if audience.is_empty() || !audience.iter().all(ours) {
            return Err(AssertionRefusal::Audience);
        }
        let tolerance = expected.tolerance.min(MAX_TOLERANCE);
        let exp = take_time(&mut claims, "exp")?.ok_or(AssertionRefusal::Claims)?;
        if now >= exp.plus(tolerance) {
            return Err(AssertionRefusal::Expired);
        }
        if exp > now.plus(LONGEST + tolerance) {
            return Err(AssertionRefusal::TooLong);
        }
        for name in ["iat", "nbf"] {
            if take_time(&mut claims, name)?.is_some_and(|at| now < at.minus(tolerance)) {
                return Err(AssertionRefusal::NotYetValid);
            }
        }
        let jti = take_text(&mut claims, "jti")?;
        if jti.chars().count() > MOST_JTI_CHARS || jti.chars().any(char::is_control) {
            return Err(AssertionRefusal::Claims);
        }
        Ok(Proven {
            jti,
            // Another node, whose clock is behind, takes it for so much longer.
            until: exp.plus(tolerance + APART),
        })
    }
}

fn check_signature(token: &Compact<'_>, keys: &[PublicKey]) -> Result<(), AssertionRefusal> {
    let header = &token.header;
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(AssertionRefusal::Header),
    };
    if header.keys().any(|name| FORBIDDEN.contains(&name.as_str()))
        || text("typ")?.is_some_and(|typ| !TYPES.contains(&typ))
    {
        return Err(AssertionRefusal::Header);
    }
    let (alg, kid) = (text("alg")?.ok_or(AssertionRefusal::Header)?, text("kid")?);
    // Keys without a name of their own may have signed under any.
    let mut candidates = keys
        .iter()
        .filter(|key| key.signs_as(alg) && (kid.is_none() || key.kid().is_none() || key.kid() == kid))
        .peekable();
    if candidates.peek().is_none() {
        return Err(AssertionRefusal::KeyUnknown);
    }
    let Ok(signature) = BASE64URL_NOPAD.decode(token.signature.as_bytes()) else {
        return Err(AssertionRefusal::Form);
    };
    if candidates.any(|key| key.verifies(token.signed.as_bytes(), &signature)) {
        Ok(())
    } else {
        Err(AssertionRefusal::Signature)
    }
}

fn take_text(claims: &mut Map<String, Value>, name: &str) -> Result<String, AssertionRefusal> {
    claims.remove(name).and_then(text).ok_or(AssertionRefusal::Claims)
}

/// Seconds since 1970.
fn take_time(claims: &mut Map<String, Value>, name: &str) -> Result<Option<Timestamp>, AssertionRefusal> {
    let value = claims.remove(name);
    value
        .map(|value| numeric_date(&value).ok_or(AssertionRefusal::Claims))
        .transpose()
}

/// The standard allows fractions (RFC 7519, `NumericDate`), which are cut off.
pub(in crate::domain) fn numeric_date(value: &Value) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "checked to lie far within i64")]
    let seconds = value.as_i64().or_else(|| {
        value
            .as_f64()
            .filter(|seconds| (0.0..1e15).contains(seconds))
            .map(|seconds| seconds as i64)
    });
    seconds.filter(|seconds| *seconds >= 0).map(Timestamp::from_seconds)
}
