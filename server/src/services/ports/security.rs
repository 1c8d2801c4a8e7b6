//! A person's own password and factors.

use app::error::{ActionError, Field, PageError, Problem};
use app::services::Security;
use app::types::{Enrolment, NextStep, Notice, SecurityView};
use async_trait::async_trait;

use super::{Delivery, Guess, Visit, action_fault, done, invalid, page_fault, password_problem, slot};
use crate::domain::mfa::TotpSecret;
use crate::domain::policy::Mfa;
use crate::services::Backend;
use crate::services::account::{AddOutcome, PasswordChange, RemoveOutcome};
use crate::services::sessions::is_recent;

const PAGE: &str = "/security";
const AUTHENTICATOR_PAGE: &str = "/security/authenticator";

#[async_trait]
impl Security for Visit {
    async fn overview(&self) -> Result<SecurityView, PageError> {
        let live = self.signed_in_for_page()?;
        let facts = self.backend.security_facts(live).await.map_err(page_fault)?;
        let mfa = live.limits.lifetimes.mfa;
        Ok(SecurityView {
            password_changed_at: facts.password_changed_at.as_millis(),
            authenticator_since: facts
                .authenticator_since
                .map(crate::domain::clock::Timestamp::as_millis),
            factor_required: mfa == Mfa::Required,
            recovery_codes_left: facts.recovery_codes_left,
            min_password_length: u32::try_from(Backend::min_password_length(mfa)).unwrap_or(u32::MAX),
            other_sessions: facts.other_sessions,
            notice: self.notice().await?,
        })
    }

    async fn change_password(&self, current: String, new: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        if current.is_empty() {
            return Err(invalid(Field::CurrentPassword, Problem::Missing));
        }
        self.count_try(Guess::Password, &live.user.id.to_string()).await?;
        let outcome = self
            .backend
            .change_password(live, &current, &new, &self.caller.from)
            .await
            .map_err(action_fault)?;
        match outcome {
            PasswordChange::WrongCurrent => Err(invalid(Field::CurrentPassword, Problem::Wrong)),
            PasswordChange::Refused(problem) => Err(password_problem(Field::Password, problem)),
            PasswordChange::Conflict => Err(ActionError::Conflict),
            PasswordChange::Done { ended, issued } => {
                self.renew_flow().await.map_err(action_fault)?;
                self.deliver(Delivery::Tokens(issued));
                self.notify(Notice::PasswordChanged { ended })
                    .await
                    .map_err(action_fault)?;
                Ok(done(PAGE.to_owned()))
            }
        }
    }

    async fn enrolment(&self) -> Result<Enrolment, PageError> {
        let live = self.signed_in_for_page()?;
        if !is_recent(&live.session, live.limits.lifetimes.step_up, self.backend.now()) {
            return Err(PageError::StepUpRequired);
        }
        let kept: Option<String> = self.get(slot::ENROLMENT).await.map_err(page_fault)?;
        let secret = if let Some(secret) = kept.as_deref().and_then(TotpSecret::from_base32) {
            secret
        } else {
            let made = TotpSecret::generate(self.backend.random());
            self.put(slot::ENROLMENT, made.to_base32()).await.map_err(page_fault)?;
            made
        };
        Ok(Self::enrolment_view(&secret, &live.user.username))
    }

    async fn confirm_enrolment(&self, code: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        self.count_try(Guess::Code, &live.user.id.to_string()).await?;
        let kept: Option<String> = self.get(slot::ENROLMENT).await.map_err(action_fault)?;
        let secret = kept
            .as_deref()
            .and_then(TotpSecret::from_base32)
            .ok_or(ActionError::FlowExpired)?;
        match self
            .backend
            .add_authenticator(live, &secret, &code, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            AddOutcome::Wrong => Err(ActionError::WrongCode),
            AddOutcome::StepUpRequired => Ok(NextStep::StepUp {
                return_to: AUTHENTICATOR_PAGE.to_owned(),
            }),
            AddOutcome::Done(codes) => {
                self.take::<String>(slot::ENROLMENT).await.map_err(action_fault)?;
                self.keep_codes(&codes, PAGE).await.map_err(action_fault)?;
                self.notify(Notice::AuthenticatorAdded).await.map_err(action_fault)?;
                Ok(NextStep::RecoveryCodes)
            }
        }
    }

    async fn remove_authenticator(&self) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        match self
            .backend
            .remove_authenticator(live, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            RemoveOutcome::Done => {
                self.notify(Notice::AuthenticatorRemoved).await.map_err(action_fault)?;
                Ok(done(PAGE.to_owned()))
            }
            RemoveOutcome::Required => Err(ActionError::Forbidden),
            RemoveOutcome::NotFound => Err(ActionError::NotFound),
            RemoveOutcome::StepUpRequired => Ok(NextStep::StepUp {
                return_to: PAGE.to_owned(),
            }),
        }
    }

    async fn renew_recovery_codes(&self) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        match self
            .backend
            .renew_recovery_codes(live, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Some(codes) => {
                self.keep_codes(&codes, PAGE).await.map_err(action_fault)?;
                Ok(NextStep::RecoveryCodes)
            }
            None => Ok(NextStep::StepUp {
                return_to: PAGE.to_owned(),
            }),
        }
    }
}
