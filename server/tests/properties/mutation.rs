//! Changes to a token: blind ones to its bytes, as noise makes them, and knowing ones inside its parts, as somebody
//! does who has read the standards. Must not know what anybody says about the result.

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value};

/// Parts of a token.
const HEADER: usize = 0;
const CLAIMS: usize = 1;

/// One change.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, String),
    Truncate(Index),
    Repeat(Index, usize),
    /// Two parts change places.
    Swap(usize, usize),
    /// A part of another genuine token.
    Splice(usize, Index),
    /// A part is decoded, one of its bits is another, and it is encoded again.
    FlipInside(usize, Index, u8),
    Json(usize, Edit),
}

/// A change to the JSON of a part.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A member has another value, or is new.
    Set(String, Value),
    /// A member stands there a second time.
    Twice(Index, Value),
    /// A member is missing.
    Without(Index),
    /// The same, in another spelling.
    Indented,
    /// One byte of its text is another.
    Byte(Index, u8),
}

impl Edit {
    /// The text after this change; a text that is no object any more stays as it is.
    pub fn apply(&self, text: &str) -> Vec<u8> {
        let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(text) else {
            return text.as_bytes().to_vec();
        };
        let named = |at: &Index, members: &Map<String, Value>| members.keys().nth(at.index(members.len())).cloned();
        match self {
            Self::Set(name, value) => drop(members.insert(name.clone(), value.clone())),
            Self::Without(at) if !members.is_empty() => {
                let name = named(at, &members).expect("one of them");
                members.remove(&name);
            }
            Self::Twice(at, value) if !members.is_empty() => {
                let name = named(at, &members).expect("one of them");
                return format!("{{\"{name}\":{value},{}", &Value::from(members).to_string()[1..]).into_bytes();
            }
            Self::Indented => return serde_json::to_vec_pretty(&members).expect("JSON"),
            Self::Byte(at, byte) => {
                let mut bytes = text.as_bytes().to_vec();
                let at = at.index(bytes.len());
                bytes[at] = *byte;
                return bytes;
            }
            Self::Without(_) | Self::Twice(..) => {}
        }
        Value::from(members).to_string().into_bytes()
    }
}

/// Changes to the JSON of a part, in names and values that mean something.
pub fn edits() -> impl Strategy<Value = Edit> {
    let names = "alg typ kid crit b64 zip jwk jku x5u iss aud sub client_id sid rg jti iat nbf exp auth_time acr amr \
                 roles scope cnf events nonce extra";
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    prop_oneof![
        4 => (select(names), values()).prop_map(|(name, value)| Edit::Set(name, value)),
        3 => (select(vec!["iat", "nbf", "exp"]), 1_799_990_000_i64..1_800_010_000)
            .prop_map(|(name, seconds)| Edit::Set(name.to_owned(), seconds.into())),
        2 => (any::<Index>(), values()).prop_map(|(at, value)| Edit::Twice(at, value)),
        2 => any::<Index>().prop_map(Edit::Without),
        1 => Just(Edit::Indented),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let words = [
        "none",
        "None",
        "HS256",
        "RS256",
        "ES256",
        "EdDSA",
        "Ed25519",
        "at+jwt",
        "JWT",
        "jwt",
        "",
        "exp",
        "k1",
        "../k1",
        "https://mayfly.example",
        "https://evil.example",
        "admin",
        "00000000-0000-0000-0000-000000000001",
    ];
    let word = select(words.to_vec()).prop_map(Value::from);
    let leaf = prop_oneof![
        6 => word.clone(),
        2 => any::<i64>().prop_map(Value::from),
        2 => (1_799_990_000_i64..1_800_010_000).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => ".{0,40}".prop_map(Value::from),
    ];
    prop_oneof![
        5 => leaf,
        1 => prop::collection::vec(word.clone(), 0..4).prop_map(Value::from),
        1 => word.prop_map(|word| serde_json::json!({ "k": word })),
    ]
}

fn mutations() -> impl Strategy<Value = Mutation> {
    let inserted = prop_oneof![
        4 => select(vec![".", "=", "==", " ", "\n", "\0", "+", "/", "%2E", "\u{feff}", "A", "eyJ"]).prop_map(str::to_owned),
        1 => ".{1,8}",
    ];
    prop_oneof![
        3 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => (any::<Index>(), 1..6_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        2 => (any::<Index>(), inserted).prop_map(|(at, text)| Mutation::Insert(at, text)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
        1 => (any::<Index>(), 1..9000_usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        1 => (0..3_usize, 0..3_usize).prop_map(|(one, other)| Mutation::Swap(one, other)),
        3 => (0..3_usize, any::<Index>()).prop_map(|(part, from)| Mutation::Splice(part, from)),
        4 => (0..3_usize, any::<Index>(), 0..8_u8).prop_map(|(part, at, bit)| Mutation::FlipInside(part, at, bit)),
        8 => (HEADER..=CLAIMS, edits()).prop_map(|(part, edit)| Mutation::Json(part, edit)),
    ]
}

impl Mutation {
    fn apply(&self, mut token: Vec<u8>, genuine: &[String]) -> Vec<u8> {
        if token.is_empty() {
            return token;
        }
        let length = token.len();
        match self {
            Self::Flip(at, bit) => token[at.index(length)] ^= 1 << bit,
            Self::Remove(at, many) => {
                let at = at.index(length);
                token.drain(at..(at + many).min(length));
            }
            Self::Insert(at, text) => {
                let at = at.index(length + 1);
                token.splice(at..at, text.bytes());
            }
            Self::Truncate(at) => token.truncate(at.index(length)),
            Self::Repeat(at, many) => {
                let at = at.index(length);
                let again: Vec<u8> = token[at..].iter().copied().cycle().take(*many).collect();
                token.splice(at..at, again);
            }
            Self::Swap(one, other) => {
                let mut parts = parts(&token);
                if parts.len() > *one.max(other) {
                    parts.swap(*one, *other);
                }
                return parts.join(&b'.');
            }
            Self::Splice(part, from) => {
                let other = genuine[from.index(genuine.len())].as_bytes();
                return inside(&token, *part, |_| parts(other).get(*part).cloned());
            }
            Self::FlipInside(part, at, bit) => {
                return inside(&token, *part, |text| {
                    let mut bytes = BASE64URL_NOPAD.decode(text).ok().filter(|bytes| !bytes.is_empty())?;
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                    Some(BASE64URL_NOPAD.encode(&bytes).into_bytes())
                });
            }
            Self::Json(part, edit) => {
                return inside(&token, *part, |text| {
                    let text = String::from_utf8(BASE64URL_NOPAD.decode(text).ok()?).ok()?;
                    Some(BASE64URL_NOPAD.encode(&edit.apply(&text)).into_bytes())
                });
            }
        }
        token
    }
}

fn parts(token: &[u8]) -> Vec<Vec<u8>> {
    token.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect()
}

/// Changes one part; what cannot be read stays.
fn inside(token: &[u8], part: usize, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut parts = parts(token);
    if let Some(changed) = parts.get(part).and_then(|text| change(text)) {
        parts[part] = changed;
    }
    parts.join(&b'.')
}

/// What strangers send in place of one of these tokens: mostly one of them with one to four changes, seldom any text.
pub fn forgeries(genuine: &[String]) -> impl Strategy<Value = String> + use<> {
    let genuine = genuine.to_vec();
    let changed = (any::<Index>(), prop::collection::vec(mutations(), 1..=4)).prop_map(move |(which, changes)| {
        let token = genuine[which.index(genuine.len())].clone().into_bytes();
        let token = changes
            .iter()
            .fold(token, |token, change| change.apply(token, &genuine));
        String::from_utf8_lossy(&token).into_owned()
    });
    prop_oneof![
        16 => changed,
        1 => ".{0,200}",
        1 => "[A-Za-z0-9_=.-]{0,300}",
    ]
}
