//! Other software that acts in its own name: its id, what it proves itself with, what it may ask for.
//!
//! People's browsers and programs are no clients in this sense: they hold sessions (`domain::session::Client`). Must
//! not know how a proof arrives, nor where clients are stored.

mod public_key;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use secrecy::SecretString;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::clock::Timestamp;
use super::random::{Random, secret};

pub use public_key::{PublicKey, PublicKeyError, parse_public_keys};

/// Scope of the feed of revocations.
pub const REVOCATIONS: &str = "revocations";
/// Scope of the security events.
pub const SECURITY_EVENTS: &str = "security_events";
/// What our own endpoints ask of a service's token; other scopes are for other services to understand.
pub const OWN_SCOPES: [&str; 2] = [REVOCATIONS, SECURITY_EVENTS];
/// Shortest life of a service's access token.
pub const SHORTEST_ACCESS: Duration = Duration::from_mins(1);
/// Longest life of a service's access token (M26).
pub const LONGEST_ACCESS: Duration = Duration::from_mins(10);

const ID_PREFIX: &str = "svc-";
const SECRET_PREFIX: &str = "mcs_";
/// Far more than anybody needs; a token has to fit into a header.
const MOST_SCOPES: usize = 16;
const MOST_SCOPE_CHARS: usize = 32;
const MOST_NAME_CHARS: usize = 64;

/// Id of a client: `svc-` and 22 letters. Nothing else is called that, so a service's `sub` is never mistaken for a
/// person's (RFC 9700, section 4.15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(String);

impl ClientId {
    /// A new id for this moment.
    #[must_use]
    pub fn new(now: Timestamp, random: &dyn Random) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
        Self(format!("{ID_PREFIX}{}", BASE64URL_NOPAD.encode(id.as_bytes())))
    }

    /// Only in the form in which we write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.strip_prefix(ID_PREFIX)?.as_bytes()).ok()?;
        Uuid::from_slice(&bytes).ok()?;
        Some(Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a client that is to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Empty, too long, of strange characters, or in the form of an id.
    #[error("a name is 1 to 64 characters of one line, and is not in the form of an id")]
    Name,
    /// RFC 6749, section 3.3.
    #[error(
        "scopes are 1 to 16 words of 1 to 32 visible ASCII characters without quotes and backslashes, each named once"
    )]
    Scopes,
    /// Not within the bounds.
    #[error("access tokens of services live 60 to 600 seconds")]
    Lifetime,
}

/// What people call a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName(String);

impl ClientName {
    /// Refuses what could be taken for the id of a person or of another client.
    ///
    /// # Errors
    /// [`ClientError::Name`].
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        let fits = (1..=MOST_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        let looks_like_an_id =
            Uuid::try_parse(text).is_ok() || text.starts_with(ID_PREFIX) || text.starts_with("mayfly-");
        if fits && !looks_like_an_id {
            Ok(Self(text.to_owned()))
        } else {
            Err(ClientError::Name)
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a token is for: a set of words (RFC 6749, section 3.3). May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Words with one space between them; the empty text is the empty set.
    ///
    /// # Errors
    /// [`ClientError::Scopes`].
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let words: Vec<&str> = text.split(' ').collect();
        let visible = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        let fit = |word: &&str| (1..=MOST_SCOPE_CHARS).contains(&word.len()) && word.bytes().all(visible);
        let set: BTreeSet<String> = words.iter().copied().map(str::to_owned).collect();
        if words.iter().all(fit) && set.len() == words.len() && set.len() <= MOST_SCOPES {
            Ok(Self(set))
        } else {
            Err(ClientError::Scopes)
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this word is among them.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// Whether all of them are among the others.
    #[must_use]
    pub fn is_within(&self, allowed: &Self) -> bool {
        self.0.is_subset(&allowed.0)
    }
}

impl fmt::Display for Scopes {
    /// In the order of the alphabet, one space between them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// How a client proves that it is the one.
#[derive(Clone)]
pub enum Authentication {
    /// SHA-256 of a secret of 256 random bits.
    Secret([u8; 32]),
    /// Signatures of its own keys (RFC 7523).
    Keys(Vec<PublicKey>),
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Authentication {
    /// The word in the database.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Secret(_) => "client_secret",
            Self::Keys(_) => "private_key_jwt",
        }
    }

    /// Whether a text of this hash is the secret; takes equally long for every hash.
    #[must_use]
    pub fn is_secret(&self, presented: &[u8; 32]) -> bool {
        match self {
            Self::Secret(hash) => hash.ct_eq(presented).into(),
            Self::Keys(_) => false,
        }
    }
}

/// A fresh secret of 256 bits, as the operator sees it once.
#[must_use]
pub fn new_client_secret(random: &dyn Random) -> SecretString {
    let text = BASE64URL_NOPAD.encode(secret::<32>(random).as_slice());
    SecretString::from(format!("{SECRET_PREFIX}{text}"))
}

/// Whether a client gets tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientStatus {
    /// It does.
    Active,
    /// It does not, and those it has are refused.
    Disabled,
}

impl ClientStatus {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Active, Self::Disabled];

    /// The word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }
}

/// Other software that gets tokens in its own name.
#[derive(Clone, Debug)]
pub struct ServiceClient {
    /// Its id, and `sub` of its tokens.
    pub id: ClientId,
    /// For people.
    pub name: ClientName,
    /// How it proves itself.
    pub authentication: Authentication,
    /// What it may ask for.
    pub scopes: Scopes,
    /// Life of its access tokens, within [`SHORTEST_ACCESS`] and [`LONGEST_ACCESS`].
    pub access: Duration,
    /// It may ask whether other tokens are good (RFC 7662).
    pub may_introspect: bool,
    /// Whether it gets tokens.
    pub status: ClientStatus,
    /// Made at.
    pub created_at: Timestamp,
}

/// A life of access tokens within the bounds.
///
/// # Errors
/// [`ClientError::Lifetime`].
pub fn check_access(access: Duration) -> Result<Duration, ClientError> {
    if (SHORTEST_ACCESS..=LONGEST_ACCESS).contains(&access) {
        Ok(access)
    } else {
        Err(ClientError::Lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;
    use crate::domain::random::SystemRandom;

    #[test]
    fn j9_no_client_can_be_called_like_a_person() {
        let (now, random) = (Timestamp::from_seconds(1_800_000_000), SystemRandom::default());
        let id = ClientId::new(now, &random);
        assert_eq!(ClientId::parse(id.as_str()), Some(id.clone()));
        assert!(id.as_str().parse::<UserId>().is_err());
        let person = UserId::new(now, &random);
        let short = BASE64URL_NOPAD.encode(person.0.as_bytes());
        let (long, simple) = (person.to_string(), person.0.simple().to_string());
        for text in [
            &long,
            &short,
            "",
            "svc-",
            "svc-x",
            "mayfly-browser",
            &format!("svc-{long}"),
        ] {
            assert_eq!(ClientId::parse(text), None, "{text}");
        }
        assert_eq!(ClientId::parse(&format!("{id}=")), None);
        for name in [
            &long,
            &simple,
            &format!("{{{long}}}"),
            id.as_str(),
            "mayfly-native",
            "",
            "  ",
            "a\nb",
            &"n".repeat(65),
        ] {
            assert_eq!(ClientName::parse(name), Err(ClientError::Name), "{name}");
        }
        assert_eq!(
            ClientName::parse(" Nightly reports ").unwrap().as_str(),
            "Nightly reports"
        );
    }

    #[test]
    fn m26_scopes_are_words_and_nothing_else() {
        let scopes = Scopes::parse("write read").unwrap();
        assert_eq!(scopes.to_string(), "read write");
        assert!(scopes.contains("read") && !scopes.contains("rea"));
        assert!(Scopes::parse("read").unwrap().is_within(&scopes));
        assert!(!Scopes::parse("read admin").unwrap().is_within(&scopes));
        assert!(Scopes::parse("").unwrap().is_empty());
        let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
        for text in [
            " ",
            "a ",
            " a",
            "a  b",
            "a\tb",
            "a\"b",
            "a\\b",
            "ä",
            "a a",
            &"a".repeat(33),
            &many.join(" "),
        ] {
            assert_eq!(Scopes::parse(text), Err(ClientError::Scopes), "{text}");
        }
        for (seconds, fits) in [(0, false), (59, false), (60, true), (600, true), (601, false)] {
            assert_eq!(check_access(Duration::from_secs(seconds)).is_ok(), fits, "{seconds}");
        }
    }

    #[test]
    fn r7_a_secret_is_256_random_bits_and_shows_itself_once() {
        use secrecy::ExposeSecret as _;
        let random = SystemRandom::default();
        let (one, two) = (new_client_secret(&random), new_client_secret(&random));
        assert_eq!(one.expose_secret().len(), 4 + 43);
        assert_ne!(one.expose_secret(), two.expose_secret());
        let kept = Authentication::Secret([7; 32]);
        assert!(kept.is_secret(&[7; 32]) && !kept.is_secret(&[8; 32]));
        assert!(!Authentication::Keys(Vec::new()).is_secret(&[0; 32]));
        assert_eq!(format!("{kept:?}"), "client_secret");
    }
}
