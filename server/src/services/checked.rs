//! Access tokens that were checked a moment ago, so that a client which sends many requests does not cost a signature
//! and two queries each time.
//!
//! **Why an answer from here is right.** The complete check goes by the token and by what the database says. From here
//! comes the result of a complete check that began at most [`LONGEST`] ago, and only if nothing of it can have changed:
//! * *revoked*: every ending, role change, password change, disabling and key removal is in the registry within
//!   milliseconds of its commit, and the registry is asked each time. What it refuses, does not know, or knows as of too
//!   long ago is checked completely. What this process itself has committed it must have taken in before: a revocation
//!   that was acknowledged here is refused here at once.
//! * *policies*: one saved by this process empties the memory; one saved elsewhere is seen when the entry is too old.
//! * *time*: `exp`, the idle and the absolute limit are judged again. Activity elsewhere only moves the idle end back, so
//!   a session that seems idle is checked completely; everything else about limits only changes with policies and roles.
//! * *writing*: what the complete check would write is never left out. An entry is made only when the generation is
//!   confirmed (which is never taken back), and the person's activity, due once a second, goes the complete way.
//!
//! So a change is felt at once where it was made, and elsewhere after the next look into the database, in any case
//! within [`LONGEST`] (a process that cannot reach its database stops answering from here as quickly).
//!
//! Must not know how tokens arrive.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::revocations::BOUND;
use super::sessions::Live;
use super::{Backend, sha256};
use crate::domain::clock::Timestamp;
use crate::domain::jwt::{AccessClaims, MAX_TOKEN_BYTES, TokenKind, key_id};
use crate::domain::revocation::{Presented, Verdict};
use crate::domain::session::Standing;

/// The oldest result that is used.
const LONGEST: Duration = BOUND;
/// Most results in memory: about 20 MB.
const CAPACITY: usize = 10_000;

/// SHA-256 of a token: the memory holds nothing that could be presented.
type Key = [u8; 32];

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Checked(RwLock<HashMap<Key, Arc<Entry>>>);

/// A token that was good.
#[derive(Debug)]
struct Entry {
    kid: String,
    sub: String,
    claims: AccessClaims,
    /// Shared with every request that shows the token.
    live: Arc<Live>,
    began: Began,
}

/// What was the case before the complete check read anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began {
    at: Timestamp,
    /// Policies saved by this process.
    policies: u64,
}

impl Backend {
    /// Call it before a complete check reads anything.
    pub(super) fn begin_check(&self) -> Began {
        Began {
            at: self.now(),
            policies: self.store.saved_policies(),
        }
    }

    /// The result of a complete check a moment ago, if it would be the same now and would write nothing.
    pub(super) fn checked_before(&self, token: &str, is_activity: bool) -> Option<Arc<Live>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let key = sha256(token.as_bytes());
        let memory = self.checked.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = memory.get(&key)?.clone();
        drop(memory);
        self.would_pass_again(&entry, is_activity).then(|| entry.live.clone())
    }

    fn would_pass_again(&self, entry: &Entry, is_activity: bool) -> bool {
        let now = self.now();
        let Live { session, user, limits } = &*entry.live;
        let is_young = now.since(entry.began.at) <= LONGEST && entry.began.at.since(now) <= LONGEST;
        let writes = is_activity && super::tokens::is_new_activity(session, now);
        is_young
            && !writes
            && entry.began.policies == self.store.saved_policies()
            && self.verifier.is_in_time(&entry.claims, self.moment())
            && self.is_within_access(&entry.claims, session.access, now)
            && matches!(session.standing(user, Some(limits), self.limits_now()), Standing::Alive(tight) if !tight.changed)
            && self.knows_own_revocations()
            && self.revocation_verdict(&Presented::of(&entry.claims, &entry.kid, &entry.sub)) == Verdict::NotRevoked
    }

    /// Keeps the result of a complete check that let the token pass.
    pub(super) fn remember_check(&self, token: &str, claims: AccessClaims, live: &Arc<Live>, began: Began) {
        let is_settled = live.session.child_confirmed || claims.rg < live.session.generation;
        let Ok(kid) = key_id(token, TokenKind::Access) else {
            return;
        };
        if !is_settled || !self.knows_revocations() {
            return;
        }
        let entry = Arc::new(Entry {
            kid,
            sub: claims.sub.to_string(),
            claims,
            live: live.clone(),
            began,
        });
        let key = sha256(token.as_bytes());
        let mut memory = self.checked.0.write().unwrap_or_else(PoisonError::into_inner);
        if memory.len() >= CAPACITY && !memory.contains_key(&key) {
            memory.retain(|_, entry| began.at.since(entry.began.at) <= LONGEST);
            if memory.len() >= CAPACITY {
                return;
            }
        }
        memory.insert(key, entry);
    }

    /// Drops what is too old to be used. Called by the housekeeping: those who are gone leave no trace.
    pub fn forget_old_checks(&self) {
        let now = self.now();
        let mut memory = self.checked.0.write().unwrap_or_else(PoisonError::into_inner);
        memory.retain(|_, entry| now.since(entry.began.at) <= LONGEST);
    }
}
