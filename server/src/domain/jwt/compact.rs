//! Step 1: the compact form (RFC 7515, section 7.1), read strictly. Knows nothing of keys or claims.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::verify::Refusal;

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A token taken apart; nothing in it is to be trusted yet.
pub(in crate::domain) struct Compact<'a> {
    pub(in crate::domain) header: Map<String, Value>,
    pub(in crate::domain) claims: Map<String, Value>,
    /// What was signed: the first two parts with the dot between them.
    pub(in crate::domain) signed: &'a str,
    /// The signature, still in (canonical) base64url.
    pub(in crate::domain) signature: &'a str,
}

impl<'a> Compact<'a> {
    /// At most 8 KiB, exactly three parts, each in canonical base64url without padding, and two JSON objects
    /// in UTF-8 without duplicate members at any depth.
    pub(in crate::domain) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let ([header, claims], signed, signature) = parts(token)?;
        Ok(Self {
            header: object(&header)?,
            claims: object(&claims)?,
            signed,
            signature,
        })
    }
}

/// Header and payload decoded; what was signed; the signature, which is canonical base64url.
pub(super) fn parts(token: &str) -> Result<([Vec<u8>; 2], &str, &str), Refusal> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Parts)?;
    let (header, payload) = signed.split_once('.').ok_or(Refusal::Parts)?;
    if payload.contains('.') || header.is_empty() || payload.is_empty() {
        return Err(Refusal::Parts);
    }
    let decoded = [decode(header)?, decode(payload)?];
    decode(signature)?;
    Ok((decoded, signed, signature))
}

/// The decoder refuses padding, other alphabets, white space, and trailing bits that are not zero.
fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refusal::Base64)
}

pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Utf8)?;
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(Value::Object(members))) => Ok(members),
        // The only complaint of our own below is about duplicates; everything else is bad syntax.
        Err(error) if error.classify() == Category::Data => Err(Refusal::DuplicateMember),
        Ok(_) | Err(_) => Err(Refusal::Json),
    }
}

/// A JSON value in which every object has each member once (RFC 8725bis; RFC 8259 leaves it open, and
/// readers that differ about which one counts can be played against each other).
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Strict(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Strict, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Strict(Value::Object(object)))
    }
}
