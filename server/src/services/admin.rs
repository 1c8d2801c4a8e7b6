//! The admin console: lifetimes per role, people, their sessions.
//!
//! Every act checks the role itself; nothing relies on a page having asked before.

use std::collections::HashSet;

use secrecy::SecretString;

use super::sessions::{Live, is_recent};
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::id::{SessionId, UserId};
use crate::domain::policy::{self, Lifetimes, Mfa, Policy, PolicyProblem, strictest};
use crate::domain::session::{EndReason, Ending, Session, Standing};
use crate::domain::user::{ADMIN, AUDITOR, Email, NameProblem, User, UserStatus, Username, canonical};
use crate::storage::users::{PersonListRow, RoleRow};
use crate::storage::{Tx, audit, policies, sessions, users};

/// Why an act of administration was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The role does not allow it.
    Forbidden,
    /// The last factor is too old.
    StepUpRequired,
    /// No such role, person or session.
    NotFound,
    /// Somebody else changed it meanwhile.
    Conflict,
    /// One active administrator must remain.
    LastAdmin,
    /// The limits are not acceptable.
    Policy(PolicyProblem),
    /// A reason is required (1–500 characters).
    ReasonMissing,
    /// A reason of at most 500 characters.
    ReasonTooLong,
    /// The sign-in name.
    Username(NameProblem),
    /// The e-mail address.
    Email(NameProblem),
    /// The name for people.
    DisplayName(NameProblem),
    /// Already in use.
    UsernameTaken,
    /// Already in use.
    EmailTaken,
    /// Unknown, or none at all.
    Roles,
}

/// Result of an act of administration.
pub type AdminResult<T> = Result<Result<T, Refused>, ServiceError>;

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

/// A person's data for a new account.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// Sign-in name.
    pub username: String,
    /// E-mail address; may be empty.
    pub email: String,
    /// Name for people; the sign-in name if empty.
    pub display_name: String,
    /// Roles.
    pub roles: Vec<String>,
}

/// Administrators do everything under `/admin`.
#[must_use]
pub fn is_admin(live: &Live) -> bool {
    live.user.has_role(ADMIN)
}

/// Auditors and administrators read the audit log.
#[must_use]
pub fn may_read_audit(live: &Live) -> bool {
    is_admin(live) || live.user.has_role(AUDITOR)
}

impl Backend {
    /// Refuses and audits unless an administrator acts.
    async fn require_admin(&self, live: &Live, from: &Circumstances) -> AdminResult<()> {
        if is_admin(live) {
            Ok(Ok(()))
        } else {
            self.deny("admin", from).await.map(|()| Err(Refused::Forbidden))
        }
    }

    /// Like [`Self::require_admin`], with a recent factor.
    async fn require_recent_admin(&self, live: &Live, from: &Circumstances) -> AdminResult<()> {
        if let Err(refused) = self.require_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let recent = is_recent(&live.session, live.limits.lifetimes.step_up, self.now());
        Ok(if recent { Ok(()) } else { Err(Refused::StepUpRequired) })
    }

    /// Audits that a role did not allow something.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn deny(&self, area: &str, from: &Circumstances) -> Result<(), ServiceError> {
        self.record(
            self.event(Kind::AccessDenied, from)
                .outcome(Outcome::Denied)
                .reason(area),
        )
        .await
    }

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
        let now = self.now();
        let mut tx = self.store.read().await?;
        let mut preview = Preview::default();
        for id in users::list_user_ids_with_role(&mut tx, role).await? {
            let Some(user) = users::find_user(&mut tx, id).await? else {
                continue;
            };
            if user.status != UserStatus::Active {
                continue;
            }
            let mut held = policies::find_policies_in_force_of_user(&mut tx, id).await?;
            let before = strictest(&held);
            for policy in held.iter_mut().filter(|policy| policy.role == role) {
                policy.lifetimes = lifetimes.clone();
            }
            let after = strictest(&held);
            let living = sessions::list_living_sessions(&mut tx, id).await?;
            let lives = |session: &Session, limits| matches!(session.standing(&user, limits, now), Standing::Alive(_));
            let ended = living
                .iter()
                .filter(|session| lives(session, before.as_ref()) && !lives(session, after.as_ref()))
                .count();
            preview.sessions_ended = preview
                .sessions_ended
                .saturating_add(u32::try_from(ended).unwrap_or(u32::MAX));
            preview.people += u32::from(ended > 0);
            let requires = after.is_some_and(|limits| limits.lifetimes.mfa == Mfa::Required);
            let has_factor = crate::storage::authenticators::find_authenticator(&mut tx, id)
                .await?
                .is_some();
            preview.must_enrol += u32::from(requires && !has_factor);
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

    /// People by name, 50 at a time; `after` is the canonical name of the last one seen.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_people(
        &self,
        live: &Live,
        search: &str,
        after: Option<String>,
        from: &Circumstances,
    ) -> AdminResult<Vec<PersonListRow>> {
        if let Err(refused) = self.require_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.read().await?;
        Ok(Ok(users::list_people(&mut tx, &canonical(search), after, 51).await?))
    }

    /// One person with their sessions, as their own page would list them.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn find_person(
        &self,
        live: &Live,
        id: UserId,
        from: &Circumstances,
    ) -> AdminResult<(PersonListRow, Vec<Session>, Vec<Session>)> {
        if let Err(refused) = self.require_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let now = self.now();
        let mut tx = self.store.read().await?;
        let Some(user) = users::find_user(&mut tx, id).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let limits = self.limits_of(&mut tx, &user).await?;
        let mut living = sessions::list_living_sessions(&mut tx, id).await?;
        living.retain_mut(|session| match session.standing(&user, limits.as_ref(), now) {
            Standing::Alive(tight) => {
                session.tighten(&tight);
                true
            }
            Standing::Over(_) => false,
        });
        living.sort_by_key(|session| std::cmp::Reverse(session.last_active_at));
        let since = now.minus(super::account::ENDED_LISTED);
        let ended = sessions::list_ended_sessions(&mut tx, id, since, 50).await?;
        let has_factor = crate::storage::authenticators::find_authenticator(&mut tx, id)
            .await?
            .is_some();
        let row = PersonListRow {
            user,
            has_factor,
            living_sessions: u32::try_from(living.len()).unwrap_or(u32::MAX),
            last_active_at: living.iter().map(|session| session.last_active_at).max(),
        };
        Ok(Ok((row, living, ended)))
    }

    /// Names of all roles.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn role_names(&self) -> Result<Vec<String>, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(users::list_roles(&mut tx)
            .await?
            .into_iter()
            .map(|role| role.name)
            .collect())
    }

    /// Adds a person and makes the one-time link they set their password with.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn invite(
        &self,
        live: &Live,
        new: NewPerson,
        from: &Circumstances,
    ) -> AdminResult<(UserId, SecretString)> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.write().await?;
        let made = self.insert_person(&mut tx, new, from).await?;
        if made.is_ok() {
            tx.commit().await?;
        }
        Ok(made)
    }

    /// Inserts an invited person with a link; the caller has checked who asks, and commits.
    pub(super) async fn insert_person(
        &self,
        tx: &mut Tx,
        new: NewPerson,
        from: &Circumstances,
    ) -> AdminResult<(UserId, SecretString)> {
        let user = match self.parse_person(tx, &new).await? {
            Ok(user) => user,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = self.check_names_free(tx, &user).await? {
            return Ok(Err(refused));
        }
        users::insert_user(tx, &user, None).await?;
        let created = self
            .event(Kind::UserCreated, from)
            .subject(user.id)
            .fact("username", user.username.clone())
            .fact("roles", user.roles.clone());
        audit::append_events(tx, &[created]).await?;
        let link = self.make_invitation(tx, user.id, from).await?;
        Ok(Ok((user.id, link)))
    }

    async fn parse_person(&self, tx: &mut Tx, new: &NewPerson) -> AdminResult<User> {
        let username = match Username::parse(&new.username) {
            Ok(username) => username,
            Err(problem) => return Ok(Err(Refused::Username(problem))),
        };
        let email = match new.email.trim() {
            "" => None,
            text => match Email::parse(text) {
                Ok(email) => Some(email.as_str().to_owned()),
                Err(problem) => return Ok(Err(Refused::Email(problem))),
            },
        };
        let display_name = match display_name(&new.display_name, username.as_str()) {
            Ok(name) => name,
            Err(problem) => return Ok(Err(Refused::DisplayName(problem))),
        };
        let Some(roles) = known_roles(tx, &new.roles).await? else {
            return Ok(Err(Refused::Roles));
        };
        let now = self.now();
        Ok(Ok(User {
            id: UserId::new(now, self.random()),
            username: username.as_str().to_owned(),
            email,
            display_name,
            status: UserStatus::Invited,
            password_changed_at: None,
            auth_epoch: 0,
            grant_epoch: 0,
            created_at: now,
            roles,
        }))
    }

    /// Names and addresses share one space, so that nobody signs in with another's.
    pub(super) async fn check_names_free(&self, tx: &mut Tx, user: &User) -> AdminResult<()> {
        let taken = |found: Option<User>| found.is_some_and(|found| found.id != user.id);
        if taken(users::find_user_by_identifier(tx, &canonical(&user.username)).await?) {
            return Ok(Err(Refused::UsernameTaken));
        }
        if let Some(email) = &user.email
            && taken(users::find_user_by_identifier(tx, &canonical(email)).await?)
        {
            return Ok(Err(Refused::EmailTaken));
        }
        Ok(Ok(()))
    }

    /// A new link for a person who has not accepted yet; the older one is dead.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn invite_again(&self, live: &Live, id: UserId, from: &Circumstances) -> AdminResult<SecretString> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.write().await?;
        let found = users::find_user(&mut tx, id).await?;
        if found.is_none_or(|user| user.status != UserStatus::Invited) {
            return Ok(Err(Refused::NotFound));
        }
        let link = self.make_invitation(&mut tx, id, from).await?;
        tx.commit().await?;
        Ok(Ok(link))
    }

    /// Disables an account: its sessions end at once (S7). How many ended.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn disable(&self, live: &Live, id: UserId, reason: &str, from: &Circumstances) -> AdminResult<u32> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let reason = match reason_of(reason) {
            Ok(reason) => reason,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut tx = self.store.write().await?;
        let Some(user) = users::find_user(&mut tx, id).await? else {
            return Ok(Err(Refused::NotFound));
        };
        if user.status == UserStatus::Disabled {
            return Ok(Err(Refused::Conflict));
        }
        if user.has_role(ADMIN) && !users::any_other_active_admin(&mut tx, id).await? {
            return Ok(Err(Refused::LastAdmin));
        }
        if !users::set_status(&mut tx, id, user.status, UserStatus::Disabled, true).await? {
            return Ok(Err(Refused::Conflict));
        }
        let ended = self
            .end_sessions_of(&mut tx, id, None, EndReason::UserDisabled, from)
            .await?;
        let event = self
            .event(Kind::UserDisabled, from)
            .subject(id)
            .fact("note", reason)
            .fact("sessions_ended", ended)
            .change("status", user.status.as_str(), UserStatus::Disabled.as_str());
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(Ok(ended))
    }

    /// Enables an account again.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn enable(&self, live: &Live, id: UserId, from: &Circumstances) -> AdminResult<()> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.write().await?;
        let Some(user) = users::find_user(&mut tx, id).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let to = if users::find_password_hash(&mut tx, id).await?.is_some() {
            UserStatus::Active
        } else {
            UserStatus::Invited
        };
        if !users::set_status(&mut tx, id, UserStatus::Disabled, to, false).await? {
            return Ok(Err(Refused::Conflict));
        }
        let event = self
            .event(Kind::UserEnabled, from)
            .subject(id)
            .change("status", user.status.as_str(), to.as_str());
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Sets a person's roles; access tokens with the old ones are refused from now on (L2).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn set_roles(&self, live: &Live, id: UserId, roles: &[String], from: &Circumstances) -> AdminResult<()> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.write().await?;
        let Some(user) = users::find_user(&mut tx, id).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let Some(roles) = known_roles(&mut tx, roles).await? else {
            return Ok(Err(Refused::Roles));
        };
        let demotes = user.has_role(ADMIN) && !roles.iter().any(|role| role == ADMIN);
        if demotes && user.status == UserStatus::Active && !users::any_other_active_admin(&mut tx, id).await? {
            return Ok(Err(Refused::LastAdmin));
        }
        users::set_roles(&mut tx, id, &roles).await?;
        let event = self
            .event(Kind::RolesChanged, from)
            .subject(id)
            .change("roles", user.roles, roles);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    /// Ends every session of a person. How many ended.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn end_person_sessions(&self, live: &Live, id: UserId, from: &Circumstances) -> AdminResult<u32> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.write().await?;
        if users::find_user(&mut tx, id).await?.is_none() {
            return Ok(Err(Refused::NotFound));
        }
        let ended = self
            .end_sessions_of(&mut tx, id, None, EndReason::EndedByAdmin, from)
            .await?;
        tx.commit().await?;
        Ok(Ok(ended))
    }

    /// Ends one session of a person.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn end_person_session(
        &self,
        live: &Live,
        id: UserId,
        target: SessionId,
        from: &Circumstances,
    ) -> AdminResult<()> {
        if let Err(refused) = self.require_recent_admin(live, from).await? {
            return Ok(Err(refused));
        }
        let mut tx = self.store.write().await?;
        let Some(session) = sessions::find_session(&mut tx, target)
            .await?
            .filter(|found| found.user_id == id)
        else {
            return Ok(Err(Refused::NotFound));
        };
        let ending = Ending {
            at: self.now(),
            reason: EndReason::EndedByAdmin,
            rule: None,
            limit: None,
        };
        if !self
            .end_session(&mut tx, &session, ending, Kind::SessionRevoked, from)
            .await?
        {
            return Ok(Err(Refused::NotFound));
        }
        tx.commit().await?;
        Ok(Ok(()))
    }
}

fn reason_of(text: &str) -> Result<&str, Refused> {
    match text.trim() {
        "" => Err(Refused::ReasonMissing),
        text if text.chars().count() > 500 => Err(Refused::ReasonTooLong),
        text => Ok(text),
    }
}

/// A name for people: 1–100 characters without control characters; the sign-in name if left empty.
///
/// # Errors
/// Says what is wrong with it.
pub fn display_name(text: &str, username: &str) -> Result<String, NameProblem> {
    match text.trim() {
        "" => Ok(username.to_owned()),
        text if text.chars().count() > 100 => Err(NameProblem::TooLong(100)),
        text if text.chars().any(char::is_control) => Err(NameProblem::BadCharacters),
        text => Ok(text.to_owned()),
    }
}

/// The roles sorted and without doubles; `None` if one is unknown or there is none.
async fn known_roles(tx: &mut Tx, roles: &[String]) -> Result<Option<Vec<String>>, ServiceError> {
    let known: HashSet<String> = users::list_roles(tx).await?.into_iter().map(|role| role.name).collect();
    let mut wanted: Vec<String> = roles.to_vec();
    wanted.sort();
    wanted.dedup();
    Ok((!wanted.is_empty() && wanted.iter().all(|role| known.contains(role))).then_some(wanted))
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
