//! What a service's access token says: a closed set of its own, so that it is never taken for a person's.

use serde::Serialize;
use serde_json::{Map, Value};

use super::claims::{Claim, Reader, short_token, text};
use super::verify::Refusal;
use crate::domain::client::{ClientId, Scopes};
use crate::domain::id::TokenId;

/// The claims of a service's access token (RFC 9068, section 2.2): `sub` is the client itself, and there is no
/// session. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceClaims {
    /// Issuer: this installation's URL.
    pub iss: String,
    /// Audience, as in people's tokens.
    pub aud: String,
    /// The client; in the token both as `sub` and as `client_id`.
    #[serde(flatten, serialize_with = "both_names")]
    pub client_id: ClientId,
    /// What it is for; never nothing.
    #[serde(serialize_with = "as_text")]
    pub scope: Scopes,
    /// Id of this token; in the token as base64url of its 16 bytes.
    #[serde(serialize_with = "short_token")]
    pub jti: TokenId,
    /// Issued at.
    pub iat: i64,
    /// Not before.
    pub nbf: i64,
    /// Not from then on.
    pub exp: i64,
}

fn both_names<S: serde::Serializer>(id: &ClientId, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap as _;
    let mut members = serializer.serialize_map(Some(2))?;
    members.serialize_entry("sub", id.as_str())?;
    members.serialize_entry("client_id", id.as_str())?;
    members.end()
}

fn as_text<S: serde::Serializer>(scopes: &Scopes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(scopes)
}

impl ServiceClaims {
    /// Every claim present, of its type, and no other one.
    pub(super) fn read(object: Map<String, Value>) -> Result<Self, Refusal> {
        let mut reader = Reader(object);
        let client = |value| ClientId::parse(&text(value)?);
        let claims = Self {
            iss: reader.text(Claim::Iss)?,
            aud: reader.text(Claim::Aud)?,
            client_id: reader.take(Claim::Sub, client)?,
            scope: reader.take(Claim::Scope, |value| Scopes::parse(&text(value)?).ok())?,
            jti: TokenId(reader.short_id(Claim::Jti)?),
            iat: reader.time(Claim::Iat)?,
            nbf: reader.time(Claim::Nbf)?,
            exp: reader.time(Claim::Exp)?,
        };
        let same = reader.take(Claim::ClientId, client)?;
        if same != claims.client_id {
            return Err(Refusal::ClaimMistyped(Claim::ClientId));
        }
        reader.finish(claims)
    }
}
