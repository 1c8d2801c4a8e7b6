//! Steps 2 to 5: header, key, signature, claims, times. Every refusal has a name for the audit log, and
//! none carries a piece of the token.

use std::time::Duration;

use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::claims::{AccessClaims, Claim};
use super::compact::Compact;
use super::logout::LogoutClaims;
use super::service::ServiceClaims;
use super::{TokenKind, library_algorithm};
use crate::domain::client::LONGEST_ACCESS;
use crate::domain::clock::{Timestamp, millis};
use crate::domain::keys::{Algorithm, VerifyingKeys};

/// Longest life of a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4).
pub const LOGOUT_TOKEN_LIFE: Duration = Duration::from_mins(2);
/// Most clock tolerance there can be, whatever the configuration says.
pub const MAX_TOLERANCE: Duration = Duration::from_mins(2);
const MAX_KEY_ID_LENGTH: usize = 64;
/// Header members that bring keys, change the encoding or demand extensions. We use none of them.
pub(in crate::domain) const FORBIDDEN: [&str; 10] = [
    "crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256",
];
const KNOWN: [&str; 3] = ["alg", "kid", "typ"];

/// Why a token of ours is refused. A closed list, so that metrics stay bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// More than 8 KiB.
    TooLong,
    /// Not three parts.
    Parts,
    /// A part is not canonical base64url.
    Base64,
    /// Header or claims are not UTF-8.
    Utf8,
    /// Header or claims are not a JSON object.
    Json,
    /// A member occurs twice.
    DuplicateMember,
    /// A header member that brings a key, an encoding or an extension.
    HeaderForbidden,
    /// A header member nobody knows.
    HeaderUnknown,
    /// `typ` is not that of the kind of token that belongs here.
    Typ,
    /// `kid` is missing, too long or of strange characters.
    KeyId,
    /// No such key, or it was removed.
    KeyUnknown,
    /// `alg` is not the key's own.
    Algorithm,
    /// The signature is not this key's over these bytes.
    Signature,
    /// A claim is missing.
    ClaimMissing(Claim),
    /// A claim has the wrong type or form.
    ClaimMistyped(Claim),
    /// A claim we do not issue.
    ClaimUnknown,
    /// Another issuer, such as another environment.
    Issuer,
    /// Made for somebody else.
    Audience,
    /// Past its end.
    Expired,
    /// Before its beginning.
    NotYetValid,
    /// Issued in the future.
    IssuedInFuture,
    /// Lives longer than any policy allows, or not at all.
    Lifetime,
}

impl Refusal {
    /// No honest token is ever refused for this, whatever its age: somebody made or changed it.
    #[must_use]
    pub const fn is_forgery(self) -> bool {
        matches!(self, Self::HeaderForbidden | Self::Algorithm | Self::Signature)
    }

    /// One word for metrics and the audit log; claims are told by [`Self::claim`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Parts => "parts",
            Self::Base64 => "base64",
            Self::Utf8 => "utf8",
            Self::Json => "json",
            Self::DuplicateMember => "duplicate_member",
            Self::HeaderForbidden => "header_forbidden",
            Self::HeaderUnknown => "header_unknown",
            Self::Typ => "typ",
            Self::KeyId => "key_id",
            Self::KeyUnknown => "key_unknown",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::ClaimMissing(_) => "claim_missing",
            Self::ClaimMistyped(_) => "claim_mistyped",
            Self::ClaimUnknown => "claim_unknown",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::Lifetime => "lifetime",
        }
    }

    /// The claim it is about, where it is about one.
    #[must_use]
    pub const fn claim(self) -> Option<Claim> {
        match self {
            Self::ClaimMissing(claim) | Self::ClaimMistyped(claim) => Some(claim),
            _ => None,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.claim() {
            Some(claim) => write!(f, "{} {}", self.as_str(), claim.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

impl std::error::Error for Refusal {}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EitherClaims {
    /// A person's.
    Person(AccessClaims),
    /// A service's.
    Service(ServiceClaims),
}

/// When a token is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock of who looks: what is over by it is over.
    pub now: Timestamp,
    /// By the fastest clock of those who sign: what was issued until then is not from the future.
    pub fastest: Timestamp,
}

impl From<Timestamp> for Moment {
    fn from(now: Timestamp) -> Self {
        Self { now, fastest: now }
    }
}

/// What this server expects of an access token.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// `iss`, compared exactly.
    pub issuer: String,
    /// `aud`, compared exactly.
    pub audience: String,
    /// The one clock tolerance, for `exp`, `nbf` and `iat`; never more than [`MAX_TOLERANCE`] is used.
    pub tolerance: Duration,
    /// Longest `exp - iat` any policy allows a person.
    pub max_lifetime: Duration,
}

impl Verifier {
    /// Steps 1 to 5 of TOKENS.md, section 4, in that order. The caller goes on with step 6, revocation, before
    /// it trusts the claims.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn verify_access(
        &self,
        keys: &dyn VerifyingKeys,
        token: &str,
        at: impl Into<Moment>,
    ) -> Result<AccessClaims, Refusal> {
        self.check_access(signed_claims(keys, token, TokenKind::Access)?, at.into())
    }

    /// The same for a service's token. A person's is none, and the other way round (RFC 9700, section 4.15).
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn verify_service(
        &self,
        keys: &dyn VerifyingKeys,
        token: &str,
        at: impl Into<Moment>,
    ) -> Result<ServiceClaims, Refusal> {
        self.check_service(signed_claims(keys, token, TokenKind::Access)?, at.into())
    }

    /// The same for a token that may be a person's or a service's.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn verify_either(
        &self,
        keys: &dyn VerifyingKeys,
        token: &str,
        at: impl Into<Moment>,
    ) -> Result<EitherClaims, Refusal> {
        let claims = signed_claims(keys, token, TokenKind::Access)?;
        // Only a person's names a session, and must.
        if claims.contains_key("sid") {
            self.check_access(claims, at.into()).map(EitherClaims::Person)
        } else {
            self.check_service(claims, at.into()).map(EitherClaims::Service)
        }
    }

    /// The same for a logout token, for the service that it is told to: `audience` is then the service's id as a client
    /// (OpenID Connect Back-Channel Logout 1.0, section 2.6).
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn verify_logout(
        &self,
        keys: &dyn VerifyingKeys,
        token: &str,
        at: impl Into<Moment>,
    ) -> Result<LogoutClaims, Refusal> {
        let claims = LogoutClaims::read(signed_claims(keys, token, TokenKind::Logout)?)?;
        self.check_names(&claims.iss, &claims.aud)?;
        // It has no `nbf`: none is later than any.
        self.check_times([claims.iat, 0, claims.exp], LOGOUT_TOKEN_LIFE, at.into())?;
        Ok(claims)
    }

    fn check_access(&self, claims: Map<String, Value>, at: Moment) -> Result<AccessClaims, Refusal> {
        let claims = AccessClaims::read(claims)?;
        self.check_names(&claims.iss, &claims.aud)?;
        self.check_times([claims.iat, claims.nbf, claims.exp], self.max_lifetime, at)?;
        Ok(claims)
    }

    fn check_service(&self, claims: Map<String, Value>, at: Moment) -> Result<ServiceClaims, Refusal> {
        let claims = ServiceClaims::read(claims)?;
        self.check_names(&claims.iss, &claims.aud)?;
        self.check_times([claims.iat, claims.nbf, claims.exp], LONGEST_ACCESS, at)?;
        Ok(claims)
    }

    /// Whether a person's token that was verified before is still within its times.
    #[must_use]
    pub fn is_in_time(&self, claims: &AccessClaims, at: Moment) -> bool {
        self.check_times([claims.iat, claims.nbf, claims.exp], self.max_lifetime, at)
            .is_ok()
    }

    fn check_names(&self, iss: &str, aud: &str) -> Result<(), Refusal> {
        if iss != self.issuer {
            return Err(Refusal::Issuer);
        }
        if aud != self.audience {
            return Err(Refusal::Audience);
        }
        Ok(())
    }

    fn check_times(&self, [iat, nbf, exp]: [i64; 3], max_lifetime: Duration, moment: Moment) -> Result<(), Refusal> {
        let tolerance = self.tolerance.min(MAX_TOLERANCE);
        let at = Timestamp::from_seconds;
        // RFC 7519, section 4.1.4: "on or after" exp it is over.
        if moment.now >= at(exp).plus(tolerance) {
            return Err(Refusal::Expired);
        }
        if moment.fastest < at(nbf).minus(tolerance) {
            return Err(Refusal::NotYetValid);
        }
        if moment.fastest < at(iat).minus(tolerance) {
            return Err(Refusal::IssuedInFuture);
        }
        let lifetime = at(exp).as_millis().saturating_sub(at(iat).as_millis());
        if lifetime <= 0 || lifetime > millis(max_lifetime) {
            return Err(Refusal::Lifetime);
        }
        Ok(())
    }
}

/// Steps 1 to 3: what a token of ours claims, if it is of that kind.
fn signed_claims(keys: &dyn VerifyingKeys, token: &str, kind: TokenKind) -> Result<Map<String, Value>, Refusal> {
    let token = Compact::parse(token)?;
    let key = check_header(&token.header, kind, keys)?;
    check_signature(&token, key)?;
    Ok(token.claims)
}

/// Step 2: nothing in the header but `alg`, `kid` and `typ`; the key by its exact id; the algorithm is the key's.
pub(super) fn check_header<'r>(
    header: &Map<String, Value>,
    kind: TokenKind,
    keys: &'r dyn VerifyingKeys,
) -> Result<(Algorithm, &'r DecodingKey), Refusal> {
    let key_id = check_members(header, kind)?;
    let key = keys.find(key_id).ok_or(Refusal::KeyUnknown)?;
    if header.get("alg").and_then(Value::as_str) != Some(key.0.as_str()) {
        return Err(Refusal::Algorithm);
    }
    Ok(key)
}

/// The id of the key that a token of this kind names, for looking it up. Nothing of the token is to be trusted yet.
///
/// # Errors
/// The first [`Refusal`] of steps 1 and 2 met.
pub fn key_id(token: &str, kind: TokenKind) -> Result<String, Refusal> {
    check_members(&Compact::parse(token)?.header, kind).map(str::to_owned)
}

/// The members of a header but for what the key says about them; its `kid`.
fn check_members(header: &Map<String, Value>, kind: TokenKind) -> Result<&str, Refusal> {
    if header.keys().any(|name| FORBIDDEN.contains(&name.as_str())) {
        return Err(Refusal::HeaderForbidden);
    }
    if header.keys().any(|name| !KNOWN.contains(&name.as_str())) {
        return Err(Refusal::HeaderUnknown);
    }
    let text = |name| header.get(name).and_then(Value::as_str);
    if text("typ") != Some(kind.typ()) {
        return Err(Refusal::Typ);
    }
    text("kid").filter(|id| is_safe_key_id(id)).ok_or(Refusal::KeyId)
}

fn is_safe_key_id(kid: &str) -> bool {
    (1..=MAX_KEY_ID_LENGTH).contains(&kid.len())
        && kid
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Step 3. The algorithm handed to the library is the key's; the library sees nothing else of the token.
pub(super) fn check_signature(token: &Compact<'_>, (algorithm, key): (Algorithm, &DecodingKey)) -> Result<(), Refusal> {
    let algorithm = library_algorithm(algorithm);
    match jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), key, algorithm) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Refusal::Signature),
    }
}
