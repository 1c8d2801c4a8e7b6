//! What an access token says, and the strict reading of it: every claim there, of its type, and no other.

use data_encoding::BASE64URL_NOPAD;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::verify::Refusal;
use crate::domain::dpop::Thumbprint;
use crate::domain::id::{SessionId, TokenId, UserId};

/// The claims of an access token (RFC 9068, section 2.2, and ours). Times are Unix seconds. No personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessClaims {
    /// Issuer: this installation's URL.
    pub iss: String,
    /// Audience. We issue one text, and accept only that (RFC 7519 would allow a list).
    pub aud: String,
    /// The account, as a UUID in text, the same as everywhere in the API.
    pub sub: UserId,
    /// The client it was issued to.
    pub client_id: String,
    /// The session; in the token as base64url of its 16 bytes.
    #[serde(serialize_with = "short_session")]
    pub sid: SessionId,
    /// The session's refresh generation at issue.
    pub rg: u64,
    /// Id of this token; in the token as base64url of its 16 bytes.
    #[serde(serialize_with = "short_token")]
    pub jti: TokenId,
    /// Issued at.
    pub iat: i64,
    /// Not before.
    pub nbf: i64,
    /// Not from then on.
    pub exp: i64,
    /// When the person last showed a factor.
    pub auth_time: i64,
    /// How strongly: authentication context class.
    pub acr: String,
    /// With what: authentication methods (RFC 8176).
    pub amr: Vec<String>,
    /// Roles at issue.
    pub roles: Vec<String>,
    /// The key it is bound to: it is worth nothing without a proof of that key (RFC 9449, section 6.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// Confirmation method (RFC 7800).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Confirmation {
    /// Thumbprint of the key.
    pub jkt: Thumbprint,
}

/// Session and token ids mean nothing to others but equality, so they stand in the token in their shortest form
/// (22 characters instead of 36): it is sent with every request.
fn short(id: Uuid) -> String {
    BASE64URL_NOPAD.encode(id.as_bytes())
}

pub(super) fn short_session<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&short(id.0))
}

pub(super) fn short_token<S: Serializer>(id: &TokenId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&short(id.0))
}

/// Names of the claims, for refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the claim of that name, documented at AccessClaims")]
pub enum Claim {
    Iss,
    Aud,
    Sub,
    ClientId,
    Sid,
    Rg,
    Jti,
    Iat,
    Nbf,
    Exp,
    AuthTime,
    Acr,
    Amr,
    Roles,
    Scope,
    Cnf,
    Events,
}

impl Claim {
    /// All of a person's token, but for `cnf`, which only a bound one has.
    pub const ALL: [Self; 14] = [
        Self::Iss,
        Self::Aud,
        Self::Sub,
        Self::ClientId,
        Self::Sid,
        Self::Rg,
        Self::Jti,
        Self::Iat,
        Self::Nbf,
        Self::Exp,
        Self::AuthTime,
        Self::Acr,
        Self::Amr,
        Self::Roles,
    ];

    /// The name in the token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Iss => "iss",
            Self::Aud => "aud",
            Self::Sub => "sub",
            Self::ClientId => "client_id",
            Self::Sid => "sid",
            Self::Rg => "rg",
            Self::Jti => "jti",
            Self::Iat => "iat",
            Self::Nbf => "nbf",
            Self::Exp => "exp",
            Self::AuthTime => "auth_time",
            Self::Acr => "acr",
            Self::Amr => "amr",
            Self::Roles => "roles",
            Self::Scope => "scope",
            Self::Cnf => "cnf",
            Self::Events => "events",
        }
    }
}

/// Reads claims one by one out of the token's object; what is left over is refused.
pub(super) struct Reader(pub(super) Map<String, Value>);

impl Reader {
    pub(super) fn take<T>(&mut self, claim: Claim, read: impl FnOnce(Value) -> Option<T>) -> Result<T, Refusal> {
        let value = self.0.remove(claim.as_str()).ok_or(Refusal::ClaimMissing(claim))?;
        read(value).ok_or(Refusal::ClaimMistyped(claim))
    }

    fn optional<T>(&mut self, claim: Claim, read: impl FnOnce(Value) -> Option<T>) -> Result<Option<T>, Refusal> {
        let value = self.0.remove(claim.as_str());
        value
            .map(|value| read(value).ok_or(Refusal::ClaimMistyped(claim)))
            .transpose()
    }

    pub(super) fn text(&mut self, claim: Claim) -> Result<String, Refusal> {
        self.take(claim, text)
    }

    fn texts(&mut self, claim: Claim) -> Result<Vec<String>, Refusal> {
        self.take(claim, |value| match value {
            Value::Array(items) => items.into_iter().map(text).collect(),
            _ => None,
        })
    }

    /// Whole seconds since 1970, without fraction.
    pub(super) fn time(&mut self, claim: Claim) -> Result<i64, Refusal> {
        self.take(claim, |value| value.as_i64().filter(|seconds| *seconds >= 0))
    }

    /// An id in exactly the form in which [`short`] writes it: the decoder takes one spelling only.
    pub(super) fn short_id(&mut self, claim: Claim) -> Result<Uuid, Refusal> {
        self.take(claim, |value| {
            let bytes = BASE64URL_NOPAD.decode(text(value)?.as_bytes()).ok()?;
            Uuid::from_slice(&bytes).ok()
        })
    }

    /// Nothing may be left over.
    pub(super) fn finish<T>(self, claims: T) -> Result<T, Refusal> {
        if self.0.is_empty() {
            Ok(claims)
        } else {
            Err(Refusal::ClaimUnknown)
        }
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// An account in exactly the form in which we write it.
pub(super) fn own_user(value: &Value) -> Option<UserId> {
    let text = value.as_str()?;
    text.parse::<UserId>().ok().filter(|id| id.to_string() == text)
}

impl AccessClaims {
    /// Every claim present, of its type, and no other one but `cnf`.
    pub(super) fn read(object: Map<String, Value>) -> Result<Self, Refusal> {
        let mut reader = Reader(object);
        let claims = Self {
            iss: reader.text(Claim::Iss)?,
            aud: reader.text(Claim::Aud)?,
            sub: reader.take(Claim::Sub, |value| own_user(&value))?,
            client_id: reader.text(Claim::ClientId)?,
            sid: SessionId(reader.short_id(Claim::Sid)?),
            rg: reader.take(Claim::Rg, |value| value.as_u64())?,
            jti: TokenId(reader.short_id(Claim::Jti)?),
            iat: reader.time(Claim::Iat)?,
            nbf: reader.time(Claim::Nbf)?,
            exp: reader.time(Claim::Exp)?,
            auth_time: reader.time(Claim::AuthTime)?,
            acr: reader.text(Claim::Acr)?,
            amr: reader.texts(Claim::Amr)?,
            roles: reader.texts(Claim::Roles)?,
            cnf: reader.optional(Claim::Cnf, |value| {
                let Value::Object(mut members) = value else { return None };
                let jkt = Thumbprint::parse(&text(members.remove("jkt")?)?)?;
                members.is_empty().then_some(Confirmation { jkt })
            })?,
        };
        reader.finish(claims)
    }
}
