//! Lifetimes per role in the admin console: what is in force, what a change would do, saving one.
//!
//! Like every act of administration these check the role themselves.

use std::collections::HashMap;

use super::Backend;
use super::admin::{AdminResult, Refused, reason_of};
use super::sessions::Live;
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::id::UserId;
use crate::domain::policy::{self, Lifetimes, Limits, Mfa, Policy, strictest};
use crate::domain::session::{Session, Standing};
use crate::domain::user::UserStatus;
use crate::storage::users::RoleRow;
use crate::storage::{audit, policies, sessions, users};

/// People whose sessions are looked at together.
const PEOPLE_AT_ONCE: u32 = 100;

/// A role as the console lists it.
#[derive(Clone, Debug)]
pub struct RoleInForce {
    /// The role.
    pub role: RoleRow,
    /// Its policy in force.
    pub policy: Policy,
    /// Who saved it, by name.
    pub author: Option<String>,
}

/// A policy as it is to be saved.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// The role.
    pub role: String,
    /// Version the change was made from.
    pub based_on: u32,
    /// The values.
    pub lifetimes: Lifetimes,
    /// Why.
    pub reason: String,
    /// Why beyond NIST; empty if not.
    pub justification: String,
}

/// What limits would do to those who live now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Sessions that would end.
    pub sessions_ended: u32,
    /// Of so many people.
    pub people: u32,
    /// People who would have to set up a second factor.
    pub must_enrol: u32,
}

impl Backend {
    /// Roles with their policies in force.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_roles(&self, live: &Live, from: &Circumstances) -> AdminResult<Vec<RoleInForce>> {
        if let Err(refused) = self.require_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.read().await?;
        let roles = users::list_roles(&mut tx).await?;
        let in_force = policies::list_policies_in_force(&mut tx).await?;
        let authors: Vec<UserId> = in_force.iter().filter_map(|policy| policy.author_id).collect();
        let names = users::find_names(&mut tx, &authors).await?;
        let pair = |role: RoleRow| {
            let policy = in_force.iter().find(|policy| policy.role == role.name)?.clone();
            let author = policy.author_id.and_then(|id| names.get(&id).cloned());
            Some(RoleInForce { role, policy, author })
        };
        Ok(Ok(roles.into_iter().filter_map(pair).collect()))
    }

    /// Versions of a role's policy, newest first, with their authors' names.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn policy_history(
        &self,
        live: &Live,
        role: &str,
        from: &Circumstances,
    ) -> AdminResult<Vec<(Policy, Option<String>)>> {
        if let Err(refused) = self.require_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.read().await?;
        let versions = policies::list_policy_versions(&mut tx, role, 50).await?;
        let authors: Vec<UserId> = versions.iter().filter_map(|policy| policy.author_id).collect();
        let names = users::find_names(&mut tx, &authors).await?;
        let with_name = |policy: Policy| {
            let name = policy.author_id.and_then(|id| names.get(&id).cloned());
            (policy, name)
        };
        Ok(Ok(versions.into_iter().map(with_name).collect()))
    }

    /// What these limits would do now, without doing it.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn preview_policy(
        &self,
        live: &Live,
        role: &str,
        lifetimes: &Lifetimes,
        from: &Circumstances,
    ) -> AdminResult<Preview> {
        if let Err(refused) = self.require_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let now = self.limits_now();
        let mut tx = self.store.read().await?;
        let in_force = policies::list_policies_in_force(&mut tx).await?;
        let mut limits: HashMap<Vec<String>, [Option<Limits>; 2]> = HashMap::new();
        let mut preview = Preview::default();
        let mut after = None;
        loop {
            let holders = users::list_holders(&mut tx, role, after, PEOPLE_AT_ONCE).await?;
            after = holders.last().map(|(user, _)| user.id);
            if after.is_none() {
                break;
            }
            let ids: Vec<UserId> = holders.iter().map(|(user, _)| user.id).collect();
            let mut living: HashMap<UserId, Vec<Session>> = HashMap::new();
            for session in sessions::list_living_sessions_of(&mut tx, &ids).await? {
                living.entry(session.user_id).or_default().push(session);
            }
            for (user, has_factor) in holders.iter().filter(|(user, _)| user.status == UserStatus::Active) {
                let [today, changed] = limits
                    .entry(user.roles.clone())
                    .or_insert_with(|| limits_with(&in_force, &user.roles, role, lifetimes));
                let lives = |session: &Session, limits: &Option<Limits>| {
                    matches!(session.standing(user, limits.as_ref(), now), Standing::Alive(_))
                };
                let sessions = living.get(&user.id).map_or(&[][..], Vec::as_slice);
                let ended = sessions
                    .iter()
                    .filter(|session| lives(session, today) && !lives(session, changed))
                    .count();
                preview.sessions_ended = preview
                    .sessions_ended
                    .saturating_add(u32::try_from(ended).unwrap_or(u32::MAX));
                preview.people += u32::from(ended > 0);
                let requires = changed
                    .as_ref()
                    .is_some_and(|limits| limits.lifetimes.mfa == Mfa::Required);
                preview.must_enrol += u32::from(requires && !has_factor);
            }
        }
        Ok(Ok(preview))
    }

    /// Saves a new version of a role's policy.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn save_policy(&self, live: &Live, new: NewPolicy, from: &Circumstances) -> AdminResult<u32> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let reason = match reason_of(&new.reason) {
            Ok(reason) => reason,
            Err(refused) => return Ok(Err(refused)),
        };
        let justification = new.justification.trim();
        if justification.chars().count() > 500 {
            return Ok(Err(Refused::ReasonTooLong));
        }
        if let Err(problem) = policy::validate(&new.role, &new.lifetimes, !justification.is_empty()) {
            return Ok(Err(Refused::Policy(problem)));
        }
        let mut tx = self.store.write().await?;
        let Some(old) = policies::find_policy(&mut tx, &new.role).await? else {
            return Ok(Err(Refused::NotFound));
        };
        if old.version != new.based_on {
            return Ok(Err(Refused::Conflict));
        }
        let saved = Policy {
            role: new.role,
            version: old.version + 1,
            lifetimes: new.lifetimes,
            review_at: None,
            reason: reason.to_owned(),
            justification: (!justification.is_empty()).then(|| justification.to_owned()),
            author_id: Some(live.user.id),
            created_at: self.now(),
        };
        match policies::insert_policy(&mut tx, &saved).await {
            Err(error) if error.is_unique_violation() => return Ok(Err(Refused::Conflict)),
            other => other?,
        }
        let event = describe_change(self.event(Kind::PolicyChanged, from), &old, &saved);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(Ok(saved.version))
    }
}

/// The limits of somebody with these roles, as they are in force and with other lifetimes for one role.
fn limits_with(in_force: &[Policy], roles: &[String], role: &str, lifetimes: &Lifetimes) -> [Option<Limits>; 2] {
    let mut held: Vec<Policy> = in_force
        .iter()
        .filter(|policy| roles.contains(&policy.role))
        .cloned()
        .collect();
    let before = strictest(&held);
    for policy in held.iter_mut().filter(|policy| policy.role == role) {
        policy.lifetimes = lifetimes.clone();
    }
    [before, strictest(&held)]
}

fn describe_change(event: crate::domain::audit::Event, old: &Policy, new: &Policy) -> crate::domain::audit::Event {
    let (was, is) = (&old.lifetimes, &new.lifetimes);
    event
        .subject(None)
        .fact("role", new.role.clone())
        .fact("note", new.reason.clone())
        .change("version", old.version, new.version)
        .change("access_s", was.access.as_secs(), is.access.as_secs())
        .change("idle_s", was.idle.as_secs(), is.idle.as_secs())
        .change("absolute_s", was.absolute.as_secs(), is.absolute.as_secs())
        .change("idle_warning_s", was.idle_warning.as_secs(), is.idle_warning.as_secs())
        .change(
            "remember_device_s",
            was.remember_device.as_secs(),
            is.remember_device.as_secs(),
        )
        .change("mfa", was.mfa.as_str(), is.mfa.as_str())
        .change("step_up_s", was.step_up.as_secs(), is.step_up.as_secs())
        .change("max_sessions", was.max_sessions, is.max_sessions)
        .change("justification", old.justification.clone(), new.justification.clone())
}
