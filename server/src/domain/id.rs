//! Identifiers as types, so that a session id can never stand where a user id belongs.
//!
//! Ids are `UUIDv7` (RFC 9562, section 5.7): they sort by time and are no secrets.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::clock::Timestamp;
use super::random::Random;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id for this moment.
            #[must_use]
            pub fn new(now: Timestamp, random: &dyn Random) -> Self {
                let mut bytes = [0; 10];
                random.fill(&mut bytes);
                let millis = u64::try_from(now.as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
            }

            /// The moment in it, if it is one of ours (`UUIDv7`).
            #[must_use]
            pub fn created_at(self) -> Option<Timestamp> {
                let (seconds, nanos) = (self.0.get_version_num() == 7).then(|| self.0.get_timestamp())??.to_unix();
                let seconds = i64::try_from(seconds).ok()?;
                Some(Timestamp::from_millis(seconds.checked_mul(1000)? + i64::from(nanos / 1_000_000)))
            }

            /// The shortest form, as it stands in tokens: base64url of the 16 bytes, 22 characters.
            #[must_use]
            pub fn to_short(self) -> String {
                BASE64URL_NOPAD.encode(self.0.as_bytes())
            }

            /// From exactly that form.
            #[must_use]
            pub fn from_short(text: &str) -> Option<Self> {
                let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
                Uuid::from_slice(&bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Only the canonical hyphenated form.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let id = Uuid::try_parse(text)?;
                if text.len() == 36 { Ok(Self(id)) } else { Err(Uuid::try_parse("").expect_err("empty text is no UUID")) }
            }
        }
    };
}

id!(
    /// An account.
    UserId
);
id!(
    /// One sign-in on one device (`sid`).
    SessionId
);
id!(
    /// A browser or program that a person uses.
    DeviceId
);
id!(
    /// A row of the audit log.
    EventId
);
id!(
    /// One access token (`jti`).
    TokenId
);
id!(
    /// A process that serves, from its start to its end.
    NodeId
);
id!(
    /// A mail that waits to be sent.
    MailId
);
