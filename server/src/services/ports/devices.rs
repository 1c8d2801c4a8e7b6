//! A person's own sessions.

use app::error::{ActionError, PageError};
use app::services::Devices;
use app::types::{DeviceList, NextStep, Notice};
use async_trait::async_trait;

use super::{Visit, action_fault, done, page_fault, view};
use crate::services::account::EndOutcome;

#[async_trait]
impl Devices for Visit {
    async fn list(&self) -> Result<DeviceList, PageError> {
        let live = self.signed_in_for_page()?;
        let (living, ended) = self.backend.list_sessions(live).await.map_err(page_fault)?;
        Ok(DeviceList {
            living: living
                .iter()
                .map(|session| view::living(session, Some(live.session.id), self.backend.binds_browsers()))
                .collect(),
            ended: ended.iter().filter_map(view::ended).collect(),
            notice: self.notice().await?,
        })
    }

    async fn end(&self, session_id: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let target = session_id.parse().map_err(|_| ActionError::NotFound)?;
        let own = target == live.session.id;
        match self
            .backend
            .end_own_session(live, target, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            EndOutcome::Ended(_) if own => {
                self.forget_signed_out().await.map_err(action_fault)?;
                Ok(done("/sign-in".to_owned()))
            }
            EndOutcome::Ended(_) => {
                self.notify(Notice::SessionEnded).await.map_err(action_fault)?;
                Ok(done("/".to_owned()))
            }
            EndOutcome::NotFound => Err(ActionError::NotFound),
            EndOutcome::StepUpRequired => Ok(NextStep::StepUp {
                return_to: format!("/devices/end?session={target}"),
            }),
        }
    }

    async fn end_others(&self) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        match self
            .backend
            .end_other_sessions(live, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            EndOutcome::Ended(count) => {
                self.notify(Notice::SessionsEnded { count })
                    .await
                    .map_err(action_fault)?;
                Ok(done("/".to_owned()))
            }
            EndOutcome::NotFound => Err(ActionError::NotFound),
            EndOutcome::StepUpRequired => Ok(NextStep::StepUp {
                return_to: "/devices/end-others".to_owned(),
            }),
        }
    }

    async fn stay_signed_in(&self) -> Result<(), ActionError> {
        let live = self.signed_in_for_action()?;
        self.backend.stay_signed_in(live).await.map_err(action_fault)
    }
}
