//! One-time links: the first administrator of a fresh server, and people whom an administrator adds.
//! The only ways in which an account comes to be (no default account, no open registration).

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::admin::{NewPerson, Refused, display_name};
use super::sign_in::{Caller, PasswordOutcome};
use super::{Backend, ServiceError, sha256};
use crate::domain::audit::{Circumstances, Kind};
use crate::domain::id::UserId;
use crate::domain::password::{self, Password, PasswordProblem};
use crate::domain::policy::{Mfa, strictest};
use crate::domain::user::{ADMIN, Email, User, UserStatus, Username};
use crate::storage::one_time_links::{self, Link, LinkPurpose};
use crate::storage::{Tx, audit, policies, users};

/// How long the link for the first administrator works; every start makes a new one.
pub const FIRST_ADMIN_LIFETIME: Duration = Duration::from_hours(1);
/// How long an invitation works: it is handed over by people, not by mail.
pub const INVITATION_LIFETIME: Duration = Duration::from_hours(24);

/// An invitation that still works.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The invited account; none for the first administrator, whose account does not exist yet.
    pub user: Option<User>,
    /// Roles the account has or will have.
    pub roles: Vec<String>,
    /// Least length of the password.
    pub min_password_length: usize,
}

/// Details that a person chooses.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// Sign-in name; ignored where the administrator chose it.
    pub username: String,
    /// E-mail address; ignored where the administrator gave it.
    pub email: String,
    /// Name for people.
    pub display_name: String,
    /// Password.
    pub password: SecretString,
}

/// What came of accepting.
#[derive(Debug)]
pub enum AcceptOutcome {
    /// The link is used, too old or replaced by a newer one.
    LinkDead,
    /// A name is not acceptable.
    Refused(Refused),
    /// The password is not.
    Password(PasswordProblem),
    /// The account is there; the sign-in goes on as after a right password.
    Accepted(PasswordOutcome),
}

impl Backend {
    /// The first administrator's link if no administrator exists, else `None`. Older links die.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn first_admin_link(&self) -> Result<Option<SecretString>, ServiceError> {
        let mut tx = self.store.write().await?;
        if users::count_active_admins(&mut tx).await? > 0 {
            return Ok(None);
        }
        let (secret, secret_hash) = self.link_secret();
        one_time_links::void_links(&mut tx, LinkPurpose::FirstAdmin, None).await?;
        let link = Link {
            secret_hash,
            purpose: LinkPurpose::FirstAdmin,
            user_id: None,
            created_at: self.now(),
            expires_at: self.now().plus(FIRST_ADMIN_LIFETIME),
        };
        one_time_links::insert_link(&mut tx, &link).await?;
        tx.commit().await?;
        Ok(Some(self.link_url(&secret)))
    }

    /// Adds an invited person on behalf of the machine's own operator (command line, demo realm).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn add_person(&self, new: NewPerson) -> Result<Result<SecretString, Refused>, ServiceError> {
        let mut tx = self.store.write().await?;
        match self.insert_person(&mut tx, new, &Circumstances::default()).await? {
            Ok((_, link)) => {
                tx.commit().await?;
                Ok(Ok(link))
            }
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// A link for an invited person; the older one is dead.
    pub(super) async fn make_invitation(
        &self,
        tx: &mut Tx,
        user: UserId,
        from: &Circumstances,
    ) -> Result<SecretString, ServiceError> {
        let (secret, secret_hash) = self.link_secret();
        one_time_links::void_links(tx, LinkPurpose::Invitation, Some(user)).await?;
        let link = Link {
            secret_hash,
            purpose: LinkPurpose::Invitation,
            user_id: Some(user),
            created_at: self.now(),
            expires_at: self.now().plus(INVITATION_LIFETIME),
        };
        one_time_links::insert_link(tx, &link).await?;
        let event = self.event(Kind::UserInvited, from).subject(user);
        audit::append_events(tx, &[event]).await?;
        Ok(self.link_url(&secret))
    }

    /// The address a person opens. Opening it moves the secret into the browser's flow and changes nothing (C11).
    fn link_url(&self, secret: &SecretString) -> SecretString {
        SecretString::from(format!("{}/welcome/open/{}", self.issuer, secret.expose_secret()))
    }

    /// The invitation behind a link's secret. `None`: used, too old, or replaced.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn find_invitation(&self, secret: &SecretString) -> Result<Option<Invitation>, ServiceError> {
        let mut tx = self.store.read().await?;
        let hash = sha256(secret.expose_secret().as_bytes());
        Ok(self.open_link(&mut tx, &hash).await?.map(|(_, invitation)| invitation))
    }

    async fn open_link(&self, tx: &mut Tx, hash: &[u8; 32]) -> Result<Option<(Link, Invitation)>, ServiceError> {
        let Some(link) = one_time_links::find_link(tx, hash, self.now()).await? else {
            return Ok(None);
        };
        let (user, roles) = match link.user_id {
            Some(id) => {
                let Some(user) = users::find_user(tx, id)
                    .await?
                    .filter(|user| user.status == UserStatus::Invited)
                else {
                    return Ok(None);
                };
                let roles = user.roles.clone();
                (Some(user), roles)
            }
            None if users::count_active_admins(tx).await? == 0 => (None, vec![ADMIN.to_owned()]),
            None => return Ok(None),
        };
        let mut held = policies::list_policies_in_force(tx).await?;
        held.retain(|policy| roles.contains(&policy.role));
        let mfa = strictest(&held).map_or(Mfa::Optional, |limits| limits.lifetimes.mfa);
        let min_password_length = Self::min_password_length(mfa);
        Ok(Some((
            link,
            Invitation {
                user,
                roles,
                min_password_length,
            },
        )))
    }

    /// Makes or completes the account and goes on as after a right password.
    ///
    /// # Errors
    /// Infrastructure, and [`ServiceError::Busy`].
    pub async fn accept_invitation(
        &self,
        secret: &SecretString,
        with: Acceptance,
        caller: &Caller,
    ) -> Result<AcceptOutcome, ServiceError> {
        let hash = sha256(secret.expose_secret().as_bytes());
        let mut tx = self.store.read().await?;
        let Some((_, invitation)) = self.open_link(&mut tx, &hash).await? else {
            return Ok(AcceptOutcome::LinkDead);
        };
        drop(tx);
        let user = match self.accepted_user(&invitation, &with) {
            Ok(user) => user,
            Err(refused) => return Ok(AcceptOutcome::Refused(refused)),
        };
        let context: Vec<&str> = [Some(user.username.as_str()), user.email.as_deref(), Some("mayfly")]
            .into_iter()
            .flatten()
            .chain([user.display_name.as_str()])
            .collect();
        let parsed = Password::parse(with.password.expose_secret())
            .and_then(|parsed| password::check_new(&parsed, invitation.min_password_length, &context).map(|()| parsed));
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(AcceptOutcome::Password(problem)),
        };
        let phc = self.hasher.hash(parsed, self.random.clone()).await?;

        let mut tx = self.store.write().await?;
        if self.open_link(&mut tx, &hash).await?.is_none()
            || !one_time_links::consume_link(&mut tx, &hash, self.now()).await?
        {
            return Ok(AcceptOutcome::LinkDead);
        }
        if let Err(refused) = self.check_names_free(&mut tx, &user).await? {
            return Ok(AcceptOutcome::Refused(refused));
        }
        let now = self.now();
        let mut events = Vec::new();
        if invitation.user.is_none() {
            users::insert_user(&mut tx, &user, None).await?;
            let created = self
                .event(Kind::UserCreated, &caller.from)
                .by_subject(user.id)
                .fact("username", user.username.clone())
                .fact("roles", user.roles.clone());
            events.push(created);
        } else {
            let (name, email) = (&user.display_name, user.email.as_deref());
            users::set_profile(&mut tx, user.id, &user.username, email, name).await?;
        }
        users::update_password(&mut tx, user.id, &phc, now, Some(self.revoked_before())).await?;
        if !users::set_status(&mut tx, user.id, UserStatus::Invited, UserStatus::Active, None).await? {
            return Ok(AcceptOutcome::LinkDead);
        }
        events.push(self.event(Kind::InvitationAccepted, &caller.from).by_subject(user.id));
        audit::append_events(&mut tx, &events).await?;
        tx.commit().await?;
        let name = user.username;
        let went_on = self
            .check_password(&name, with.password.expose_secret(), "/".to_owned(), caller)
            .await?;
        Ok(AcceptOutcome::Accepted(went_on))
    }

    /// The account as it will be, still `Invited`.
    fn accepted_user(&self, invitation: &Invitation, with: &Acceptance) -> Result<User, Refused> {
        if let Some(user) = &invitation.user {
            let mut user = user.clone();
            if !with.display_name.trim().is_empty() {
                user.display_name = display_name(&with.display_name, &user.username).map_err(Refused::DisplayName)?;
            }
            if user.email.is_none() && !with.email.trim().is_empty() {
                let email = Email::parse(&with.email).map_err(Refused::Email)?;
                user.email = Some(email.as_str().to_owned());
            }
            return Ok(user);
        }
        let username = Username::parse(&with.username).map_err(Refused::Username)?;
        let email = match with.email.trim() {
            "" => None,
            text => Some(Email::parse(text).map_err(Refused::Email)?.as_str().to_owned()),
        };
        let now = self.now();
        Ok(User {
            id: UserId::new(now, self.random()),
            display_name: display_name(&with.display_name, username.as_str()).map_err(Refused::DisplayName)?,
            username: username.as_str().to_owned(),
            email,
            status: UserStatus::Invited,
            password_changed_at: None,
            auth_epoch: 0,
            grant_epoch: 0,
            created_at: now,
            roles: invitation.roles.clone(),
        })
    }
}
