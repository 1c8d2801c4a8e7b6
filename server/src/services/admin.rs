//! The admin console: people and their sessions; lifetimes per role stand in [`super::lifetimes`].
//!
//! Every act checks the role itself; nothing relies on a page having asked before.

use std::collections::HashSet;

use secrecy::SecretString;

use super::sessions::{Live, is_recent};
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::id::{SessionId, UserId};
use crate::domain::policy::PolicyProblem;
use crate::domain::session::{EndReason, Ending, Session, Standing};
use crate::domain::user::{ADMIN, AUDITOR, Email, NameProblem, User, UserStatus, Username, canonical};
use crate::storage::users::PersonListRow;
use crate::storage::{Tx, audit, sessions, users};

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
    pub(super) async fn require_admin(&self, live: &Live, from: &Circumstances) -> AdminResult<()> {
        if is_admin(live) {
            Ok(Ok(()))
        } else {
            self.deny("admin", from).await.map(|()| Err(Refused::Forbidden))
        }
    }

    /// Like [`Self::require_admin`], with a recent factor.
    pub(super) async fn require_recent_admin(&self, live: &Live, from: &Circumstances) -> AdminResult<()> {
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
        let now = self.limits_now();
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
        let since = now.now.minus(super::account::ENDED_LISTED);
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
        // As for a new password: every session that there is ends by its id.
        let before = Some(self.revoked_before());
        if !users::set_status(&mut tx, id, user.status, UserStatus::Disabled, before).await? {
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
        if !users::set_status(&mut tx, id, UserStatus::Disabled, to, None).await? {
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
        users::set_roles(&mut tx, id, &roles, self.now()).await?;
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

pub(super) fn reason_of(text: &str) -> Result<&str, Refused> {
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
