//! An entry as the feed writes it: `{"cursor", one of "sid" | "sub" | "kid" | "jti", "below" | "before", "at", "until"}`.
//!
//! Ids have exactly the form of the claims in a token, so that others compare texts. Times are Unix milliseconds.
//! A reader ignores members it does not know, but refuses an entry whose target it does not understand: what cannot
//! be understood must not be taken for "nothing was revoked".

use serde::{Deserialize, Serialize};

use super::{Entry, Target};
use crate::domain::clock::Timestamp;
use crate::domain::id::{SessionId, TokenId};

/// An entry that names no target, several, or one in another form than ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a revocation of a kind that is not understood")]
pub struct LineError;

/// The members.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Line {
    cursor: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    below: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    at: i64,
    until: i64,
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        let mut line = Self {
            cursor: entry.cursor,
            at: entry.at.as_millis(),
            until: entry.until.as_millis(),
            ..Self::default()
        };
        match &entry.target {
            Target::Session { id, below } => (line.sid, line.below) = (Some(id.to_short()), *below),
            Target::Subject { sub, before } => {
                (line.sub, line.before) = (Some(sub.clone()), Some(before.as_millis()));
            }
            Target::Key { id } => line.kid = Some(id.clone()),
            Target::Token { id } => line.jti = Some(id.to_short()),
        }
        line
    }
}

impl TryFrom<Line> for Entry {
    type Error = LineError;

    fn try_from(line: Line) -> Result<Self, LineError> {
        let target = match (line.sid, line.sub, line.kid, line.jti) {
            (Some(sid), None, None, None) => Target::Session {
                id: SessionId::from_short(&sid).ok_or(LineError)?,
                below: line.below,
            },
            (None, Some(sub), None, None) => Target::Subject {
                sub,
                before: line.before.map(Timestamp::from_millis).ok_or(LineError)?,
            },
            (None, None, Some(id), None) => Target::Key { id },
            (None, None, None, Some(jti)) => Target::Token {
                id: TokenId::from_short(&jti).ok_or(LineError)?,
            },
            _ => return Err(LineError),
        };
        if line.cursor == 0 || line.until == 0 {
            return Err(LineError);
        }
        Ok(Self {
            cursor: line.cursor,
            target,
            at: Timestamp::from_millis(line.at),
            until: Timestamp::from_millis(line.until),
        })
    }
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Line::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Line::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
