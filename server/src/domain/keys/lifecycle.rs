//! The life of keys: what is due when, and what each step changes (TOKENS.md §7, SECURITY.md J12).
//!
//! Pure: stored keys, rules and the time come in, steps go out. Must not know who carries them out, where keys are
//! stored, or how one is made.
//!
//! A `next` key is a rotation under way: it is made a [`LEAD`] before the active key has reached its age, or when
//! somebody asks, and becomes active when it has been published that long. A retired key goes when nothing that was
//! made with it can be alive; that date is derived ([`goes_at`]) from the longest lives that any policy may allow:
//! * signing keys: the longest access token. No verifier accepts a longer one, whatever a policy said before.
//! * edge keys: the longest session. Any refresh token a session ever had must still be recognised for as long as it
//!   lives: the last one to refresh with, all others to tell that somebody uses a copy.
//!
//! Every node makes these steps, under one lock. Clocks may differ and a node hears of a step a little later than the
//! one that made it; [`SPREAD`] is allowed for that on both sides.

use std::time::Duration;

use super::{Algorithm, KeyAlgorithm, KeyError, KeyPurpose, KeyRecord, KeyState, edge_byte};
use crate::domain::clock::Timestamp;
use crate::domain::policy::{MAX_ABSOLUTE, MAX_ACCESS};

/// How long others may keep a copy of the key set: the `max-age` it is served with.
pub const JWKS_CACHE: Duration = Duration::from_mins(5);
/// Every node has heard of a change this long after it, and works with it.
pub const SPREAD: Duration = Duration::from_secs(30);
/// A key is published this long before it signs: every copy of the key set was fetched again by then, though a slow
/// node handed out the old one for a while.
pub const LEAD: Duration = JWKS_CACHE.saturating_add(SPREAD);
/// A date that lies further ahead than this was written by a clock that has been put right since.
const FAR_AHEAD: Duration = Duration::from_hours(1);

/// What the configuration says about keys.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Age at which an active key is replaced.
    pub rotate_every: Duration,
    /// The one tolerance for clock differences.
    pub tolerance: Duration,
}

/// A key to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKey {
    /// For access tokens.
    Signing(Algorithm),
    /// For the outer tag of refresh tokens, with its number.
    Edge(u32),
}

impl NewKey {
    /// The one that follows this key.
    fn after(key: &KeyRecord, records: &[KeyRecord]) -> Self {
        match (key.purpose, key.algorithm) {
            (KeyPurpose::Edge, _) => Self::edge(records),
            (KeyPurpose::Signing, KeyAlgorithm::EdDsa) => Self::Signing(Algorithm::EdDsa),
            (KeyPurpose::Signing, _) => Self::Signing(Algorithm::Es256),
        }
    }

    fn edge(records: &[KeyRecord]) -> Self {
        let last = records.iter().filter_map(KeyRecord::edge_number).max();
        Self::Edge(last.unwrap_or(0).saturating_add(1))
    }

    /// No living edge key has its byte.
    fn is_possible(self, records: &[KeyRecord]) -> bool {
        let Self::Edge(number) = self else { return true };
        !living(records).any(|key| {
            key.edge_number()
                .is_some_and(|other| edge_byte(other) == edge_byte(number))
        })
    }
}

/// What is to be done with the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Make a key and publish it; it is used later.
    Publish(NewKey),
    /// Make a key and use it at once: there is none, or the one there was must not be used any more.
    Install(NewKey),
    /// Use this `next` key from now on; the one in use retires.
    Activate(String),
    /// Count this retired key's time from now on.
    RetireAnew(String),
    /// Forget this key.
    Remove(String),
}

/// Why it is done, as the audit log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There was none.
    Missing,
    /// It is old enough.
    Schedule,
    /// Somebody asked for it.
    Asked,
    /// The configuration names another algorithm.
    Algorithm,
    /// Somebody revoked it.
    Revoked,
    /// A backup was restored.
    Recovery,
    /// Its row was altered and can no longer be opened.
    Damaged,
    /// Nothing made with it can be alive.
    Outlived,
    /// Its date lies in the future: the clock was wrong when it was made.
    ClockWentBack,
}

impl Cause {
    /// The reason code in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Schedule => "schedule",
            Self::Asked => "asked",
            Self::Algorithm => "algorithm_changed",
            Self::Revoked => "revoked",
            Self::Recovery => "recovery",
            Self::Damaged => "damaged",
            Self::Outlived => "outlived",
            Self::ClockWentBack => "clock_went_back",
        }
    }
}

/// A step in the life of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub act: Act,
    /// Why.
    pub cause: Cause,
}

/// A change of one stored key.
#[derive(Clone, Debug)]
pub struct Change {
    /// The state it was in; none for a new one.
    pub from: Option<KeyState>,
    /// The key as it is to be stored.
    pub key: KeyRecord,
}

impl Step {
    /// Whether it rests on the clock alone, and a clock that is put right later would miss what it takes away.
    #[must_use]
    pub const fn needs_settled_clock(&self) -> bool {
        matches!(self.cause, Cause::Outlived) || matches!(self.act, Act::RetireAnew(_))
    }
}

/// What is due now. Nothing for a purpose without an active key: see [`missing`].
#[must_use]
pub fn due(records: &[KeyRecord], rules: &Rules, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for purpose in [KeyPurpose::Signing, KeyPurpose::Edge] {
        let Some(active) = find(records, purpose, KeyState::Active) else {
            continue;
        };
        let step = |act, cause| Some(Step { act, cause });
        steps.extend(match find(records, purpose, KeyState::Next) {
            None if is_old(active, rules, now) => {
                let new = NewKey::after(active, records);
                // Should all bytes be taken, the rotation waits for one; nothing else does.
                new.is_possible(records).then_some(Step {
                    act: Act::Publish(new),
                    cause: Cause::Schedule,
                })
            }
            Some(next) if lies_far_ahead(next.created_at, now) => {
                step(Act::Remove(next.id.clone()), Cause::ClockWentBack)
            }
            Some(next) if now >= used_from(next) => step(Act::Activate(next.id.clone()), Cause::Schedule),
            _ => None,
        });
    }
    let outlived = records
        .iter()
        .filter(|key| goes_at(key, rules).is_some_and(|at| now >= at));
    steps.extend(outlived.map(|key| Step {
        act: Act::Remove(key.id.clone()),
        cause: Cause::Outlived,
    }));
    // Otherwise it would verify for as long as the clock was ahead.
    let retired_ahead = records
        .iter()
        .filter(|key| key.state == KeyState::Retired && key.retired_at.is_some_and(|at| lies_far_ahead(at, now)));
    steps.extend(retired_ahead.map(|key| Step {
        act: Act::RetireAnew(key.id.clone()),
        cause: Cause::ClockWentBack,
    }));
    steps
}

/// Keys for the purposes that have no active one: on the first run, or because they were lost.
#[must_use]
pub fn missing(records: &[KeyRecord], algorithm: Algorithm) -> Vec<Step> {
    [
        (KeyPurpose::Signing, NewKey::Signing(algorithm)),
        (KeyPurpose::Edge, NewKey::edge(records)),
    ]
    .into_iter()
    .filter(|(purpose, _)| find(records, *purpose, KeyState::Active).is_none())
    // No verifier can hold a copy of the key set that lacks the very first key.
    .map(|(_, new)| Step {
        act: Act::Install(new),
        cause: Cause::Missing,
    })
    .collect()
}

/// Living keys that do not open are given up. Only for who has proof that it is not the key-encryption key that is wrong.
#[must_use]
pub fn damaged(records: &[KeyRecord], opens: impl Fn(&KeyRecord) -> bool) -> Vec<Step> {
    let damaged = living(records).filter(|key| !opens(key));
    let step = |key: &KeyRecord| Step {
        act: Act::Remove(key.id.clone()),
        cause: Cause::Damaged,
    };
    damaged.map(step).collect()
}

/// A rotation that somebody asks for. None if one is under way.
#[must_use]
pub fn asked(records: &[KeyRecord], purpose: KeyPurpose) -> Option<Step> {
    if find(records, purpose, KeyState::Next).is_some() {
        return None;
    }
    let active = find(records, purpose, KeyState::Active)?;
    Some(Step {
        act: Act::Publish(NewKey::after(active, records)),
        cause: Cause::Asked,
    })
}

/// A rotation to another algorithm, if the active key has not got it and no key of it is under way.
#[must_use]
pub fn algorithm_changed(records: &[KeyRecord], algorithm: Algorithm) -> Vec<Step> {
    let wanted = KeyAlgorithm::from(algorithm);
    let has_it = |state| find(records, KeyPurpose::Signing, state).map(|key| key.algorithm == wanted);
    let mut acts = Vec::new();
    if has_it(KeyState::Next) == Some(false)
        && let Some(next) = find(records, KeyPurpose::Signing, KeyState::Next)
    {
        // Never used: nobody holds a token of it.
        acts.push(Act::Remove(next.id.clone()));
    }
    if has_it(KeyState::Active) == Some(false) && has_it(KeyState::Next) != Some(true) {
        acts.push(Act::Publish(NewKey::Signing(algorithm)));
    }
    let step = |act| Step {
        act,
        cause: Cause::Algorithm,
    };
    acts.into_iter().map(step).collect()
}

/// Why a key is not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRevoked {
    /// There is no such key.
    Unknown,
    /// It is removed already.
    Gone,
    /// An edge key forges nothing: it only spares the database a look. Without it every session that has its tag
    /// would end; rotating it is enough.
    Edge,
}

/// The emergency: a signing key must not be trusted any more. Its access tokens are refused from now on; sessions go
/// on by refreshing. With the active key the next one goes too: it lay in the same place, and nobody uses it yet.
///
/// # Errors
/// [`NotRevoked`].
pub fn revocation(records: &[KeyRecord], id: &str) -> Result<Vec<Step>, NotRevoked> {
    let key = records.iter().find(|key| key.id == id).ok_or(NotRevoked::Unknown)?;
    if key.purpose == KeyPurpose::Edge {
        return Err(NotRevoked::Edge);
    }
    let mut acts = vec![Act::Remove(key.id.clone())];
    match key.state {
        KeyState::Removed => return Err(NotRevoked::Gone),
        KeyState::Next | KeyState::Retired => {}
        KeyState::Active => {
            let next = find(records, KeyPurpose::Signing, KeyState::Next);
            acts.extend(next.map(|next| Act::Remove(next.id.clone())));
            acts.push(Act::Install(NewKey::after(key, records)));
        }
    }
    let step = |act| Step {
        act,
        cause: Cause::Revoked,
    };
    Ok(acts.into_iter().map(step).collect())
}

/// After a restored backup: nobody knows what the signing keys have signed since, so all of them go and another one is
/// used at once. Edge keys stay: they forge nothing.
#[must_use]
pub fn recovery(records: &[KeyRecord]) -> Vec<Step> {
    let signing = living(records).filter(|key| key.purpose == KeyPurpose::Signing);
    let removed = signing.map(|key| Act::Remove(key.id.clone()));
    let active = find(records, KeyPurpose::Signing, KeyState::Active);
    let installed = active.map(|active| Act::Install(NewKey::after(active, records)));
    let step = |act| Step {
        act,
        cause: Cause::Recovery,
    };
    removed.chain(installed).map(step).collect()
}

/// When a `next` key comes into use.
#[must_use]
pub fn used_from(next: &KeyRecord) -> Timestamp {
    next.created_at.plus(LEAD)
}

/// When a retired key goes: nothing that was made with it can be alive then. None for keys that are not retired.
#[must_use]
pub fn goes_at(key: &KeyRecord, rules: &Rules) -> Option<Timestamp> {
    if key.state != KeyState::Retired {
        return None;
    }
    let longest = match key.purpose {
        KeyPurpose::Signing => MAX_ACCESS,
        KeyPurpose::Edge => MAX_ABSOLUTE,
    };
    // A slow node may have used it a little longer, and edge keys are used that long on purpose.
    Some(key.retired_at?.plus(SPREAD).plus(longest).plus(rules.tolerance))
}

impl Act {
    /// What this step changes, in the order in which it is to be written: there is never more than one active key.
    ///
    /// # Errors
    /// [`KeyError`] of a key that cannot be made, is not there, or is not in the state for this.
    pub fn changes(
        &self,
        records: &[KeyRecord],
        now: Timestamp,
        make: &mut dyn FnMut(NewKey) -> Result<KeyRecord, KeyError>,
    ) -> Result<Vec<Change>, KeyError> {
        let named = |id: &str| {
            let key = records.iter().find(|key| key.id == id);
            key.cloned().ok_or_else(|| KeyError::Unknown(id.to_owned()))
        };
        match self {
            Self::Publish(new) | Self::Install(new) => {
                if !new.is_possible(records) {
                    return Err(KeyError::NoFreeByte);
                }
                let mut key = make(*new)?;
                if matches!(self, Self::Install(_)) {
                    key.activate(now)?;
                }
                Ok(vec![Change { from: None, key }])
            }
            Self::Activate(id) => {
                let mut next = named(id)?;
                let mut changes = Vec::new();
                if let Some(active) = find(records, next.purpose, KeyState::Active) {
                    let mut key = active.clone();
                    key.retire(now)?;
                    changes.push(Change {
                        from: Some(KeyState::Active),
                        key,
                    });
                }
                next.activate(now)?;
                changes.push(Change {
                    from: Some(KeyState::Next),
                    key: next,
                });
                Ok(changes)
            }
            Self::RetireAnew(id) => {
                let mut key = named(id)?;
                key.retired_at = Some(now);
                Ok(vec![Change {
                    from: Some(KeyState::Retired),
                    key,
                }])
            }
            Self::Remove(id) => {
                let mut key = named(id)?;
                let from = Some(key.state);
                key.remove(now)?;
                Ok(vec![Change { from, key }])
            }
        }
    }
}

/// Not removed.
pub fn living(records: &[KeyRecord]) -> impl Iterator<Item = &KeyRecord> {
    records.iter().filter(|key| key.state != KeyState::Removed)
}

fn find(records: &[KeyRecord], purpose: KeyPurpose, state: KeyState) -> Option<&KeyRecord> {
    records.iter().find(|key| key.purpose == purpose && key.state == state)
}

/// So old that the next one has to be published now.
fn is_old(active: &KeyRecord, rules: &Rules, now: Timestamp) -> bool {
    let age = rules.rotate_every.saturating_sub(LEAD);
    active
        .activated_at
        .is_none_or(|at| lies_far_ahead(at, now) || now.since(at) >= age)
}

/// Otherwise a clock that was decades ahead for a moment would stop all rotation for decades.
fn lies_far_ahead(at: Timestamp, now: Timestamp) -> bool {
    at > now.plus(FAR_AHEAD)
}

#[cfg(test)]
mod tests;
