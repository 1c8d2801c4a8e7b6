//! What a logout token says: a closed set of its own, so that it is taken for nothing else, and nothing else for it.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::claims::{Claim, Reader, own_user, short_session};
use super::verify::Refusal;
use crate::domain::id::{EventId, SessionId, UserId};

/// The one event it tells of.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The claims of a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4): one session of a person ended.
/// Times are Unix seconds. Never a `nonce`, so that it cannot be taken for an ID token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogoutClaims {
    /// Issuer: this installation's URL.
    pub iss: String,
    /// The client that is told.
    pub aud: String,
    /// Issued at.
    pub iat: i64,
    /// Not from then on: two minutes later at most.
    pub exp: i64,
    /// The same at every delivery of the same ending.
    pub jti: EventId,
    /// Whose session it was, as access tokens name the account.
    pub sub: UserId,
    /// The session, as access tokens name it.
    #[serde(serialize_with = "short_session")]
    pub sid: SessionId,
    /// That this is a logout.
    pub events: LogoutEvent,
}

/// One event, of which there is nothing more to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutEvent;

impl LogoutEvent {
    fn read(events: &Value) -> Option<Self> {
        let events = events.as_object()?;
        let said = events.get(EVENT)?.as_object()?;
        (events.len() == 1 && said.is_empty()).then_some(Self)
    }
}

impl Serialize for LogoutEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(EVENT, Map::<String, Value>::new())])
    }
}

impl LogoutClaims {
    /// Every claim present, of its type, and no other one.
    pub(super) fn read(object: Map<String, Value>) -> Result<Self, Refusal> {
        let mut reader = Reader(object);
        let claims = Self {
            iss: reader.text(Claim::Iss)?,
            aud: reader.text(Claim::Aud)?,
            iat: reader.time(Claim::Iat)?,
            exp: reader.time(Claim::Exp)?,
            jti: reader.take(Claim::Jti, |value| {
                let text = value.as_str()?;
                text.parse::<EventId>().ok().filter(|id| id.to_string() == text)
            })?,
            sub: reader.take(Claim::Sub, |value| own_user(&value))?,
            sid: SessionId(reader.short_id(Claim::Sid)?),
            events: reader.take(Claim::Events, |value| LogoutEvent::read(&value))?,
        };
        reader.finish(claims)
    }
}
