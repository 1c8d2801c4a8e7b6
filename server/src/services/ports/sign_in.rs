//! Signing in and out, stepping up.

use app::error::{ActionError, Field, PageError, Problem};
use app::services::SignIn;
use app::types::{Ending, Enrolment, NextStep, PendingSignIn, SignInPrompt, StepUpPrompt};
use async_trait::async_trait;

use super::{Delivery, Guess, Visit, action_fault, done, invalid, page_fault, slot};
use crate::domain::mfa::{TotpSecret, otpauth_url, qr_svg};
use crate::domain::return_path::safe_return_path;
use crate::domain::sign_in::{Flow, Step};
use crate::domain::user::canonical;
use crate::services::account::StepUpOutcome;
use crate::services::sign_in::{CodeOutcome, EnrolOutcome, PasswordOutcome};
use crate::services::{Backend, ServiceError};

impl Visit {
    /// The flow, if it is still open.
    pub(super) async fn flow(&self) -> Result<Option<Flow>, ServiceError> {
        let flow: Option<Flow> = self.get(slot::FLOW).await?;
        Ok(flow.filter(|flow| flow.is_open(self.backend.now())))
    }

    /// What follows a right password, in this browser.
    pub(super) async fn after_password(&self, outcome: PasswordOutcome) -> Result<Option<NextStep>, ServiceError> {
        Ok(Some(match outcome {
            PasswordOutcome::Wrong => return Ok(None),
            PasswordOutcome::SignedIn(signed_in) => {
                let path = self
                    .take::<String>(slot::RETURN_TO)
                    .await?
                    .unwrap_or_else(|| "/".to_owned());
                self.hand_out(signed_in).await?;
                done(path)
            }
            PasswordOutcome::Continue(flow) => {
                let next = next_step(&flow);
                // A new id for the state that now knows more (fixation).
                self.renew_flow().await?;
                self.put(slot::FLOW, flow).await?;
                next
            }
        }))
    }

    /// The enrolment to show for a secret.
    pub(super) fn enrolment_view(secret: &TotpSecret, account: &str) -> Enrolment {
        let url = otpauth_url(secret, account, "Mayfly");
        Enrolment {
            qr_svg: qr_svg(&url),
            text_key: secret.to_base32_groups(),
            account: account.to_owned(),
        }
    }
}

const fn next_step(flow: &Flow) -> NextStep {
    match flow.step {
        Step::Code { .. } => NextStep::Code,
        Step::Enrol { .. } => NextStep::Enrol,
    }
}

#[async_trait]
impl SignIn for Visit {
    async fn prompt(&self) -> Result<SignInPrompt, PageError> {
        let ending: Option<Ending> = self.get(slot::ENDING).await.map_err(page_fault)?;
        let other_browser: Option<bool> = self.get(slot::OTHER_BROWSER).await.map_err(page_fault)?;
        let signed_out: Option<bool> = self.take(slot::SIGNED_OUT).await.map_err(page_fault)?;
        let needs_setup = self.backend.needs_first_admin().await.map_err(page_fault)?;
        Ok(SignInPrompt {
            ending,
            other_browser: other_browser.unwrap_or(false),
            signed_out: signed_out.unwrap_or(false),
            needs_setup,
        })
    }

    async fn start(&self, identifier: String, password: String, return_to: String) -> Result<NextStep, ActionError> {
        let account = canonical(&identifier);
        if account.is_empty() {
            return Err(invalid(Field::Username, Problem::Missing));
        }
        if password.is_empty() {
            return Err(invalid(Field::Password, Problem::Missing));
        }
        self.count_try(Guess::Password, &account).await?;
        let return_to = safe_return_path(&return_to).unwrap_or_else(|| "/".to_owned());
        let outcome = self
            .backend
            .check_password(&identifier, &password, return_to.clone(), &self.caller)
            .await
            .map_err(action_fault)?;
        if let PasswordOutcome::SignedIn(_) = outcome {
            self.put(slot::RETURN_TO, return_to).await.map_err(action_fault)?;
        }
        self.after_password(outcome)
            .await
            .map_err(action_fault)?
            .ok_or(ActionError::WrongCredentials)
    }

    async fn pending(&self) -> Result<Option<PendingSignIn>, PageError> {
        let Some(flow) = self.flow().await.map_err(page_fault)? else {
            return Ok(None);
        };
        let name = self.backend.username(flow.user_id).await.map_err(page_fault)?;
        Ok(name.map(|username| PendingSignIn {
            step: next_step(&flow),
            username,
        }))
    }

    async fn verify_code(&self, code: String) -> Result<NextStep, ActionError> {
        let flow = self
            .flow()
            .await
            .map_err(action_fault)?
            .ok_or(ActionError::FlowExpired)?;
        let account = flow.user_id.to_string();
        self.count_try(Guess::Code, &account).await?;
        let return_to = flow.return_to.clone();
        match self
            .backend
            .check_code(flow, &code, &self.caller)
            .await
            .map_err(action_fault)?
        {
            CodeOutcome::Wrong(flow) => {
                self.put(slot::FLOW, flow).await.map_err(action_fault)?;
                Err(ActionError::WrongCode)
            }
            CodeOutcome::FlowOver => {
                self.take::<Flow>(slot::FLOW).await.map_err(action_fault)?;
                Err(ActionError::FlowExpired)
            }
            CodeOutcome::SignedIn(signed_in) => {
                self.hand_out(signed_in).await.map_err(action_fault)?;
                Ok(done(return_to))
            }
        }
    }

    async fn enrolment(&self) -> Result<Enrolment, PageError> {
        let flow = self.flow().await.map_err(page_fault)?.ok_or(PageError::NotSignedIn)?;
        let Step::Enrol { secret } = &flow.step else {
            return Err(PageError::NotFound);
        };
        let name = self
            .backend
            .username(flow.user_id)
            .await
            .map_err(page_fault)?
            .ok_or(PageError::NotSignedIn)?;
        let secret = if let Some(secret) = secret.as_deref().and_then(TotpSecret::from_base32) {
            secret
        } else {
            let made = TotpSecret::generate(self.backend.random());
            let step = Step::Enrol {
                secret: Some(made.to_base32()),
            };
            self.put(slot::FLOW, Flow { step, ..flow }).await.map_err(page_fault)?;
            made
        };
        Ok(Self::enrolment_view(&secret, &name))
    }

    async fn confirm_enrolment(&self, code: String) -> Result<NextStep, ActionError> {
        let flow = self
            .flow()
            .await
            .map_err(action_fault)?
            .ok_or(ActionError::FlowExpired)?;
        let account = flow.user_id.to_string();
        self.count_try(Guess::Code, &account).await?;
        match self
            .backend
            .enrol_in_flow(&flow, &code, &self.caller)
            .await
            .map_err(action_fault)?
        {
            EnrolOutcome::Wrong => Err(ActionError::WrongCode),
            EnrolOutcome::FlowOver => {
                self.take::<Flow>(slot::FLOW).await.map_err(action_fault)?;
                Err(ActionError::FlowExpired)
            }
            EnrolOutcome::SignedIn(signed_in, codes) => {
                self.hand_out(signed_in).await.map_err(action_fault)?;
                self.keep_codes(&codes, &flow.return_to).await.map_err(action_fault)?;
                Ok(NextStep::RecoveryCodes)
            }
        }
    }

    async fn recovery_codes(&self) -> Result<Vec<String>, PageError> {
        self.signed_in_for_page()?;
        self.get(slot::RECOVERY_CODES)
            .await
            .map_err(page_fault)?
            .ok_or(PageError::NotFound)
    }

    async fn acknowledge_recovery_codes(&self) -> Result<NextStep, ActionError> {
        self.signed_in_for_action()?;
        self.take::<Vec<String>>(slot::RECOVERY_CODES)
            .await
            .map_err(action_fault)?;
        let path = self.take::<String>(slot::RETURN_TO).await.map_err(action_fault)?;
        Ok(done(path.unwrap_or_else(|| "/".to_owned())))
    }

    async fn step_up_prompt(&self) -> Result<StepUpPrompt, PageError> {
        let live = self.signed_in_for_page()?;
        let has = self.backend.has_authenticator(live).await.map_err(page_fault)?;
        Ok(if has {
            StepUpPrompt::Code
        } else {
            StepUpPrompt::Password
        })
    }

    async fn step_up(&self, answer: String, return_to: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let account = live.user.id.to_string();
        self.count_try(Guess::Code, &account).await?;
        let path = safe_return_path(&return_to).unwrap_or_else(|| "/".to_owned());
        match self
            .backend
            .step_up(live, &answer, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            StepUpOutcome::Wrong if self.backend.has_authenticator(live).await.map_err(action_fault)? => {
                Err(ActionError::WrongCode)
            }
            StepUpOutcome::Wrong => Err(invalid(Field::Password, Problem::Wrong)),
            StepUpOutcome::Done(issued) => {
                self.renew_flow().await.map_err(action_fault)?;
                self.deliver(Delivery::Tokens(issued));
                Ok(done(path))
            }
        }
    }

    async fn sign_out(&self) -> Result<NextStep, ActionError> {
        if let Some(live) = &self.live {
            self.backend
                .sign_out(&live.session, &self.caller.from)
                .await
                .map_err(action_fault)?;
        }
        self.forget_signed_out().await.map_err(action_fault)?;
        Ok(done("/sign-in".to_owned()))
    }
}

impl Backend {
    /// No administrator exists yet.
    async fn needs_first_admin(&self) -> Result<bool, ServiceError> {
        let mut tx = self.store().read().await?;
        Ok(crate::storage::users::count_active_admins(&mut tx).await? == 0)
    }

    /// Sign-in name of an account.
    async fn username(&self, id: crate::domain::id::UserId) -> Result<Option<String>, ServiceError> {
        Ok(self.find_user(id).await?.map(|user| user.username))
    }
}
