//! What a signed-in person does with their own account: devices, password, factors, step-up, signing out.

use secrecy::SecretString;

use super::sessions::{Issued, Live, NewSession, Proof, is_recent};
use super::sign_in::Factor;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::id::SessionId;
use crate::domain::mfa::TotpSecret;
use crate::domain::password::{self, Password, PasswordProblem, Verification};
use crate::domain::policy::Mfa;
use crate::domain::session::{EndReason, Ending, Session};
use crate::storage::{audit, authenticators, devices, sessions, users};

/// How long ended sessions are listed.
pub const ENDED_LISTED: std::time::Duration = std::time::Duration::from_hours(720);

/// What came of an act that needs a recent factor.
#[derive(Debug, PartialEq, Eq)]
pub enum EndOutcome {
    /// So many sessions ended.
    Ended(u32),
    /// No such session, or not the viewer's own: one answer for both.
    NotFound,
    /// The last factor is too old.
    StepUpRequired,
}

/// What came of a step-up.
#[derive(Debug)]
pub enum StepUpOutcome {
    /// Wrong.
    Wrong,
    /// A new session in place of the old one.
    Done(Box<Issued>),
}

/// What came of a password change.
#[derive(Debug)]
pub enum PasswordChange {
    /// The current one was wrong.
    WrongCurrent,
    /// The new one is not acceptable.
    Refused(PasswordProblem),
    /// Changed; so many other sessions ended, and this device has a new session.
    Done {
        /// Other sessions that ended.
        ended: u32,
        /// New tokens of this device.
        issued: Box<Issued>,
    },
    /// Somebody else changed it at the same moment.
    Conflict,
}

/// What came of setting up an authenticator.
#[derive(Debug)]
pub enum AddOutcome {
    /// Wrong code.
    Wrong,
    /// The last factor is too old.
    StepUpRequired,
    /// Done; these codes are shown once.
    Done(Vec<SecretString>),
}

/// What came of removing an authenticator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// Removed.
    Done,
    /// A role requires a second factor.
    Required,
    /// There is none.
    NotFound,
    /// The last factor is too old.
    StepUpRequired,
}

/// Facts for the security page.
#[derive(Clone, Debug)]
pub struct SecurityFacts {
    /// Last change of the password.
    pub password_changed_at: Timestamp,
    /// When the authenticator was set up.
    pub authenticator_since: Option<Timestamp>,
    /// Unused recovery codes.
    pub recovery_codes_left: u32,
    /// Other living sessions.
    pub other_sessions: u32,
}

impl Backend {
    /// The least length of a new password under these limits (P1).
    #[must_use]
    pub const fn min_password_length(mfa: Mfa) -> usize {
        match mfa {
            Mfa::Required => password::MIN_LENGTH_WITH_MFA,
            Mfa::Off | Mfa::Optional => password::MIN_LENGTH_ALONE,
        }
    }

    /// A person's living sessions (those whose limits have not passed) and those ended in 30 days.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_sessions(&self, live: &Live) -> Result<(Vec<Session>, Vec<Session>), ServiceError> {
        let now = self.limits_now();
        let mut tx = self.store.read().await?;
        let mut living = sessions::list_living_sessions(&mut tx, live.user.id).await?;
        let since = now.now.minus(ENDED_LISTED);
        let ended = sessions::list_ended_sessions(&mut tx, live.user.id, since, 50).await?;
        drop(tx);
        living.retain_mut(|session| {
            use crate::domain::session::Standing;
            match session.standing(&live.user, Some(&live.limits), now) {
                Standing::Alive(tight) => {
                    session.tighten(&tight);
                    true
                }
                Standing::Over(_) => false,
            }
        });
        let current = live.session.id;
        living.sort_by_key(|session| (session.id != current, std::cmp::Reverse(session.last_active_at)));
        Ok((living, ended))
    }

    /// Ends one of the viewer's own sessions. Their own current one counts as signing out.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn end_own_session(
        &self,
        live: &Live,
        target: SessionId,
        from: &Circumstances,
    ) -> Result<EndOutcome, ServiceError> {
        if target == live.session.id {
            self.sign_out(&live.session, from).await?;
            return Ok(EndOutcome::Ended(1));
        }
        let mut tx = self.store.write().await?;
        let found = sessions::find_session(&mut tx, target).await?;
        let Some(session) = found.filter(|session| session.user_id == live.user.id && session.ending.is_none()) else {
            let event = self
                .event(Kind::AccessDenied, from)
                .outcome(Outcome::Denied)
                .reason("not_own_session")
                .fact("target_session", target.to_string());
            audit::append_events(&mut tx, &[event]).await?;
            tx.commit().await?;
            return Ok(EndOutcome::NotFound);
        };
        if !is_recent(&live.session, live.limits.lifetimes.step_up, self.now()) {
            return Ok(EndOutcome::StepUpRequired);
        }
        let ending = Ending {
            at: self.now(),
            reason: EndReason::EndedByUser,
            rule: None,
            limit: None,
        };
        let ended = self
            .end_session(&mut tx, &session, ending, Kind::SessionRevoked, from)
            .await?;
        tx.commit().await?;
        Ok(if ended {
            EndOutcome::Ended(1)
        } else {
            EndOutcome::NotFound
        })
    }

    /// Ends every session of the viewer but this one.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn end_other_sessions(&self, live: &Live, from: &Circumstances) -> Result<EndOutcome, ServiceError> {
        if !is_recent(&live.session, live.limits.lifetimes.step_up, self.now()) {
            return Ok(EndOutcome::StepUpRequired);
        }
        let mut tx = self.store.write().await?;
        let keep = Some(live.session.id);
        let ended = self
            .end_sessions_of(&mut tx, live.user.id, keep, EndReason::EndedByUser, from)
            .await?;
        tx.commit().await?;
        Ok(EndOutcome::Ended(ended))
    }

    /// Signs this device out. Signing out twice is no error.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn sign_out(&self, session: &Session, from: &Circumstances) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        let ending = Ending {
            at: self.now(),
            reason: EndReason::SignedOut,
            rule: None,
            limit: None,
        };
        self.end_session(&mut tx, session, ending, Kind::SignedOut, from)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Counts as the person's own activity ("Stay signed in").
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn stay_signed_in(&self, live: &Live) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        sessions::touch_session(&mut tx, live.session.id, self.limits_now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether step-up asks for a code (else for the password).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn has_authenticator(&self, live: &Live) -> Result<bool, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(authenticators::find_authenticator(&mut tx, live.user.id)
            .await?
            .is_some())
    }

    /// Shows a factor again: a new session id in place of the old one (fixation, ASVS 7.2.4).
    ///
    /// # Errors
    /// Infrastructure, and [`ServiceError::Busy`].
    pub async fn step_up(
        &self,
        live: &Live,
        answer: &str,
        from: &Circumstances,
    ) -> Result<StepUpOutcome, ServiceError> {
        let (amr, mut tx) = if self.has_authenticator(live).await? {
            let mut tx = self.store.write().await?;
            let Some(factor) = self.accept_factor(&mut tx, live.user.id, answer, from).await? else {
                tx.commit().await?;
                return Ok(StepUpOutcome::Wrong);
            };
            (stronger(&live.session.amr, factor), tx)
        } else {
            if !self.password_is_right(live, answer, from).await? {
                return Ok(StepUpOutcome::Wrong);
            }
            ("pwd", self.store.write().await?)
        };
        let proof = Proof { amr, at: self.now() };
        let issued = self.replace_session(&mut tx, live, proof, from).await?;
        let event = self
            .event(Kind::SteppedUp, from)
            .session(issued.live.session.id)
            .fact("amr", amr);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(StepUpOutcome::Done(Box::new(issued)))
    }

    /// Ends the session as replaced and makes the one in its place.
    async fn replace_session(
        &self,
        tx: &mut crate::storage::Tx,
        live: &Live,
        proof: Proof,
        from: &Circumstances,
    ) -> Result<Issued, ServiceError> {
        let ending = Ending {
            at: self.now(),
            reason: EndReason::Replaced,
            rule: None,
            limit: None,
        };
        if !self
            .end_session(tx, &live.session, ending, Kind::SessionReplaced, from)
            .await?
        {
            return Err(ServiceError::Contradiction(
                "the session ended while it was being replaced",
            ));
        }
        let new = NewSession {
            user: &live.user,
            limits: &live.limits,
            proof,
            client: live.session.client,
            key: live.session.jkt,
            device: live.session.device_id,
            replaces: Some(&live.session),
        };
        self.create_session(tx, new, from).await
    }

    async fn password_is_right(&self, live: &Live, given: &str, from: &Circumstances) -> Result<bool, ServiceError> {
        let mut tx = self.store.read().await?;
        let stored = users::find_password_hash(&mut tx, live.user.id).await?;
        drop(tx);
        let right = match Password::parse(given) {
            Ok(given) => self.hasher.verify(given, stored).await? != Verification::Wrong,
            Err(_) => false,
        };
        if !right {
            let event = self
                .event(Kind::SignInFailed, from)
                .outcome(Outcome::Failure)
                .reason("wrong_password");
            self.record(event).await?;
        }
        Ok(right)
    }

    /// Facts for the security page.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn security_facts(&self, live: &Live) -> Result<SecurityFacts, ServiceError> {
        let (living, _) = self.list_sessions(live).await?;
        let mut tx = self.store.read().await?;
        let authenticator = authenticators::find_authenticator(&mut tx, live.user.id).await?;
        Ok(SecurityFacts {
            password_changed_at: live.user.password_changed_at.unwrap_or(live.user.created_at),
            authenticator_since: authenticator.map(|found| found.created_at),
            recovery_codes_left: authenticators::count_recovery_codes(&mut tx, live.user.id).await?,
            other_sessions: u32::try_from(living.len().saturating_sub(1)).unwrap_or(u32::MAX),
        })
    }

    /// Changes the password; needs the current one (P6), ends every other session and remembered device, and gives
    /// this device a new session (R5, S5).
    ///
    /// # Errors
    /// Infrastructure, and [`ServiceError::Busy`].
    pub async fn change_password(
        &self,
        live: &Live,
        current: &str,
        new: &str,
        from: &Circumstances,
    ) -> Result<PasswordChange, ServiceError> {
        let parsed = match Self::acceptable(new, live) {
            Ok(parsed) => parsed,
            Err(problem) => return Ok(PasswordChange::Refused(problem)),
        };
        if !self.password_is_right(live, current, from).await? {
            return Ok(PasswordChange::WrongCurrent);
        }
        let hash = self.hasher.hash(parsed, self.random.clone()).await?;
        // Every session that there is ends by its id. A fresh token of a node whose clock is behind is not from before.
        let (now, before) = (self.now(), Some(self.revoked_before()));
        let mut tx = self.store.write().await?;
        let fresh = users::find_user(&mut tx, live.user.id).await?;
        if fresh.is_none_or(|user| user.auth_epoch != live.user.auth_epoch)
            || !users::update_password(&mut tx, live.user.id, &hash, now, before).await?
        {
            return Ok(PasswordChange::Conflict);
        }
        let user = users::find_user(&mut tx, live.user.id)
            .await?
            .ok_or(ServiceError::Contradiction(
                "the person vanished while changing the password",
            ))?;
        let keep = Some(live.session.id);
        let ended = self
            .end_sessions_of(&mut tx, user.id, keep, EndReason::PasswordChanged, from)
            .await?;
        devices::drop_trust_of_user(&mut tx, user.id).await?;
        let amr = stronger_of(&live.session.amr);
        let renewed = Live {
            session: live.session.clone(),
            user,
            limits: live.limits.clone(),
        };
        let proof = Proof {
            amr,
            at: live.session.authenticated_at,
        };
        let issued = self.replace_session(&mut tx, &renewed, proof, from).await?;
        let event = self.event(Kind::PasswordChanged, from).fact("sessions_ended", ended);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(PasswordChange::Done {
            ended,
            issued: Box::new(issued),
        })
    }

    fn acceptable(new: &str, live: &Live) -> Result<Password, PasswordProblem> {
        let parsed = Password::parse(new)?;
        let context: Vec<&str> = [Some(live.user.username.as_str()), live.user.email.as_deref()]
            .into_iter()
            .flatten()
            .chain([live.user.display_name.as_str(), "mayfly"])
            .collect();
        password::check_new(&parsed, Self::min_password_length(live.limits.lifetimes.mfa), &context)?;
        Ok(parsed)
    }

    /// Stores a new authenticator after its first code, in place of any older one.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn add_authenticator(
        &self,
        live: &Live,
        secret: &TotpSecret,
        code: &str,
        from: &Circumstances,
    ) -> Result<AddOutcome, ServiceError> {
        if !is_recent(&live.session, live.limits.lifetimes.step_up, self.now()) {
            return Ok(AddOutcome::StepUpRequired);
        }
        let mut tx = self.store.write().await?;
        let outcome = match self.enrol(&mut tx, live.user.id, secret, code, from).await? {
            Some(codes) => AddOutcome::Done(codes),
            None => AddOutcome::Wrong,
        };
        tx.commit().await?;
        Ok(outcome)
    }

    /// Removes the authenticator and its recovery codes, where no role requires a second factor.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn remove_authenticator(&self, live: &Live, from: &Circumstances) -> Result<RemoveOutcome, ServiceError> {
        if live.limits.lifetimes.mfa == Mfa::Required {
            return Ok(RemoveOutcome::Required);
        }
        if !is_recent(&live.session, live.limits.lifetimes.step_up, self.now()) {
            return Ok(RemoveOutcome::StepUpRequired);
        }
        let mut tx = self.store.write().await?;
        if !authenticators::delete_authenticator(&mut tx, live.user.id).await? {
            return Ok(RemoveOutcome::NotFound);
        }
        authenticators::replace_recovery_codes(&mut tx, live.user.id, &[], self.now()).await?;
        devices::drop_trust_of_user(&mut tx, live.user.id).await?;
        let keep = Some(live.session.id);
        let ended = self
            .end_sessions_of(&mut tx, live.user.id, keep, EndReason::FactorChanged, from)
            .await?;
        let event = self
            .event(Kind::AuthenticatorRemoved, from)
            .fact("method", "totp")
            .fact("sessions_ended", ended);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(RemoveOutcome::Done)
    }

    /// Ten new recovery codes. `None`: the last factor is too old.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn renew_recovery_codes(
        &self,
        live: &Live,
        from: &Circumstances,
    ) -> Result<Option<Vec<SecretString>>, ServiceError> {
        if !is_recent(&live.session, live.limits.lifetimes.step_up, self.now()) {
            return Ok(None);
        }
        let mut tx = self.store.write().await?;
        let codes = self.renew_codes(&mut tx, live.user.id).await?;
        let event = self.event(Kind::RecoveryCodesRenewed, from);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(Some(codes))
    }
}

/// Methods after a second factor was shown on top of what the session had.
fn stronger(amr: &str, factor: Factor) -> &'static str {
    if amr.contains("otp") {
        Factor::Totp.amr()
    } else {
        factor.amr()
    }
}

/// The closed set of method lists, from the text in a row.
fn stronger_of(amr: &str) -> &'static str {
    match amr {
        "pwd otp" => "pwd otp",
        "pwd recovery" => "pwd recovery",
        _ => "pwd",
    }
}
