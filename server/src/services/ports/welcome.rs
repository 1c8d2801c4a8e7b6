//! First run and invitations.

use app::error::{ActionError, Field, PageError, Problem};
use app::services::Welcome;
use app::types::{Invitation, NextStep};
use async_trait::async_trait;
use secrecy::SecretString;

use super::admin::refused;
use super::{Visit, action_fault, invalid, page_fault, password_problem, slot};
use crate::services::invitations::{AcceptOutcome, Acceptance};

#[async_trait]
impl Welcome for Visit {
    async fn invitation(&self) -> Result<Invitation, PageError> {
        let secret: Option<String> = self.get(slot::INVITATION).await.map_err(page_fault)?;
        let secret = SecretString::from(secret.ok_or(PageError::NotFound)?);
        let found = self
            .backend
            .find_invitation(&secret)
            .await
            .map_err(page_fault)?
            .ok_or(PageError::NotFound)?;
        Ok(Invitation {
            first_admin: found.user.is_none(),
            username: found.user.as_ref().map(|user| user.username.clone()),
            email: found.user.as_ref().and_then(|user| user.email.clone()),
            roles: found.roles,
            min_password_length: u32::try_from(found.min_password_length).unwrap_or(u32::MAX),
        })
    }

    async fn accept(
        &self,
        username: String,
        email: String,
        display_name: String,
        password: String,
    ) -> Result<NextStep, ActionError> {
        let secret: Option<String> = self.get(slot::INVITATION).await.map_err(action_fault)?;
        let secret = SecretString::from(secret.ok_or(ActionError::FlowExpired)?);
        if password.is_empty() {
            return Err(invalid(Field::Password, Problem::Missing));
        }
        let with = Acceptance {
            username,
            email,
            display_name,
            password: SecretString::from(password),
        };
        match self
            .backend
            .accept_invitation(&secret, with, &self.caller)
            .await
            .map_err(action_fault)?
        {
            AcceptOutcome::LinkDead => Err(ActionError::FlowExpired),
            AcceptOutcome::Refused(why) => Err(refused(why)),
            AcceptOutcome::Password(problem) => Err(password_problem(Field::Password, problem)),
            AcceptOutcome::Accepted(outcome) => {
                self.take::<String>(slot::INVITATION).await.map_err(action_fault)?;
                self.after_password(outcome)
                    .await
                    .map_err(action_fault)?
                    .ok_or(ActionError::FlowExpired)
            }
        }
    }
}
