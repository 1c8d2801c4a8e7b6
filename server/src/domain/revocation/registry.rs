//! Revocations in memory: found by id, forgotten when no token can be concerned any more, and bounded: what does not
//! fit makes the answer "unknown" and never "not revoked".

use std::collections::HashMap;
use std::hash::Hash;

use super::{Entry, Presented, Target};
use crate::domain::clock::Timestamp;
use crate::domain::id::{SessionId, TokenId};

/// What is known of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Refuse it.
    Revoked,
    /// Nothing speaks against it.
    NotRevoked,
    /// There were more revocations than there was room for: ask somebody who knows, or refuse to answer.
    Unknown,
}

/// What a registry knows to be over, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Sessions.
    pub sessions: Vec<SessionId>,
    /// People whose sessions all ended, and clients that were disabled, with the earliest issue accepted.
    pub subjects: Vec<(String, Timestamp)>,
    /// Signing keys.
    pub keys: Vec<String>,
    /// Single tokens, and until when that matters.
    pub tokens: Vec<(TokenId, Timestamp)>,
}

/// All revocations that matter.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Most entries that are kept.
    capacity: usize,
    /// Sessions that are over, each with the end of its last token's life.
    ended: HashMap<SessionId, Timestamp>,
    /// Smallest generations accepted.
    generations: HashMap<SessionId, (u64, Timestamp)>,
    /// Earliest issue accepted.
    subjects: HashMap<String, (Timestamp, Timestamp)>,
    /// Removed keys.
    keys: HashMap<String, Timestamp>,
    /// Single tokens.
    tokens: HashMap<TokenId, Timestamp>,
    /// The earliest `until` there is: before it there is nothing to forget.
    first_until: Option<Timestamp>,
    /// Until then the last entry that did not fit would have mattered.
    lost_until: Option<Timestamp>,
}

impl Registry {
    /// An empty one that keeps at most so many entries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ended: HashMap::new(),
            generations: HashMap::new(),
            subjects: HashMap::new(),
            keys: HashMap::new(),
            tokens: HashMap::new(),
            first_until: None,
            lost_until: None,
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ended.len() + self.generations.len() + self.subjects.len() + self.keys.len() + self.tokens.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes entries over, in any order and however often.
    pub fn apply(&mut self, entries: &[Entry], now: Timestamp) {
        // Also what is over by our clock, which may be ahead; it is forgotten in its time.
        for entry in entries {
            if self.len() >= self.capacity {
                self.forget(now);
            }
            if self.len() < self.capacity || self.knows(&entry.target) {
                self.insert(entry);
            } else {
                self.lost_until = self.lost_until.max(Some(entry.until));
            }
        }
    }

    fn knows(&self, target: &Target) -> bool {
        match target {
            Target::Session { id, below: None } => self.ended.contains_key(id),
            Target::Session { id, below: Some(_) } => self.generations.contains_key(id),
            Target::Subject { sub, .. } => self.subjects.contains_key(sub),
            Target::Key { id } => self.keys.contains_key(id),
            Target::Token { id } => self.tokens.contains_key(id),
        }
    }

    fn insert(&mut self, entry: &Entry) {
        let until = entry.until;
        match &entry.target {
            Target::Session { id, below: None } => keep(&mut self.ended, *id, until),
            Target::Session { id, below: Some(below) } => keep_highest(&mut self.generations, *id, *below, until),
            Target::Subject { sub, before } => keep_highest(&mut self.subjects, sub.clone(), *before, until),
            Target::Key { id } => keep(&mut self.keys, id.clone(), until),
            Target::Token { id } => keep(&mut self.tokens, *id, until),
        }
        self.first_until = Some(self.first_until.map_or(until, |first| first.min(until)));
    }

    /// Drops what concerns no living token any more. Cheap when there is nothing of the kind.
    pub fn forget(&mut self, now: Timestamp) {
        if self.lost_until.is_some_and(|until| until <= now) {
            self.lost_until = None;
        }
        if self.first_until.is_none_or(|first| first > now) {
            return;
        }
        self.ended.retain(|_, until| *until > now);
        self.generations.retain(|_, (_, until)| *until > now);
        self.subjects.retain(|_, (_, until)| *until > now);
        self.keys.retain(|_, until| *until > now);
        self.tokens.retain(|_, until| *until > now);
        let single = self
            .ended
            .values()
            .chain(self.keys.values())
            .chain(self.tokens.values());
        let pairs = self.generations.values().map(|(_, until)| until);
        let subjects = self.subjects.values().map(|(_, until)| until);
        self.first_until = single.chain(pairs).chain(subjects).min().copied();
    }

    /// What is known of a token at this moment. Says nothing about how old the knowledge is.
    #[must_use]
    pub fn verdict(&self, token: &Presented<'_>, now: Timestamp) -> Verdict {
        let session_is = |id: SessionId| {
            self.ended.contains_key(&id)
                || self
                    .generations
                    .get(&id)
                    .is_some_and(|(least, _)| token.generation < *least)
        };
        let revoked = token.session.is_some_and(session_is)
            || self
                .subjects
                .get(token.sub)
                .is_some_and(|(before, _)| token.issued_at < *before)
            || self.keys.contains_key(token.kid)
            || self.tokens.contains_key(&token.token);
        if revoked {
            Verdict::Revoked
        } else if self.lost_until.is_some_and(|until| until > now) {
            Verdict::Unknown
        } else {
            Verdict::NotRevoked
        }
    }

    /// Whether this one token was revoked. None: there was no room for all that were.
    #[must_use]
    pub fn is_token_revoked(&self, id: TokenId, now: Timestamp) -> Option<bool> {
        let is_known = self.tokens.contains_key(&id);
        (is_known || self.lost_until.is_none_or(|until| until <= now)).then_some(is_known)
    }

    /// What must not become good again.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        Remembered {
            sessions: self.ended.keys().copied().collect(),
            subjects: self
                .subjects
                .iter()
                .map(|(sub, (before, _))| (sub.clone(), *before))
                .collect(),
            keys: self.keys.keys().cloned().collect(),
            tokens: self.tokens.iter().map(|(id, until)| (*id, *until)).collect(),
        }
    }

    /// Whether this key was removed.
    #[must_use]
    pub fn is_key_removed(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }
}

fn keep<K: Hash + Eq>(map: &mut HashMap<K, Timestamp>, key: K, until: Timestamp) {
    let kept = map.entry(key).or_insert(until);
    *kept = until.max(*kept);
}

/// Two bounds of one thing: the wider one counts, for as long as either would have.
fn keep_highest<K: Hash + Eq, B: Ord + Copy>(map: &mut HashMap<K, (B, Timestamp)>, key: K, bound: B, until: Timestamp) {
    let kept = map.entry(key).or_insert((bound, until));
    *kept = (bound.max(kept.0), until.max(kept.1));
}
