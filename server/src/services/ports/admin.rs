//! The admin console.

use app::error::{ActionError, Field, PageError, Problem};
use app::services::Admin;
use app::types::{
    Invitee, Lifetimes, NextStep, Notice, PeopleList, PersonRow, PersonView, PolicyChange, PolicyPreview,
    PolicyVersionView, Preset, RoleEditor, RoleView,
};
use async_trait::async_trait;
use secrecy::ExposeSecret;

use super::{Visit, action_fault, done, invalid, name_problem, page_fault, slot, view};
use crate::domain::id::UserId;
use crate::domain::policy::{Policy, PolicyField, PolicyProblem, presets, validate};
use crate::domain::user::UserStatus;
use crate::services::admin::{NewPerson, Refused};
use crate::services::lifetimes::{NewPolicy, RoleInForce};
use crate::storage::users::PersonListRow;

/// People on one page of the list.
const PAGE: usize = 50;

/// A refusal in the words of the forms. [`Refused::StepUpRequired`] is a next step instead; see [`or_step_up`].
#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
pub(super) fn refused(why: Refused) -> ActionError {
    match why {
        Refused::Forbidden => ActionError::Forbidden,
        Refused::StepUpRequired => ActionError::StepUpRequired,
        Refused::NotFound => ActionError::NotFound,
        Refused::Conflict => ActionError::Conflict,
        Refused::LastAdmin => ActionError::LastAdmin,
        Refused::Policy(problem) => {
            let (field, problem) = policy_refusal(problem);
            invalid(field, problem)
        }
        Refused::ReasonMissing => invalid(Field::Reason, Problem::Missing),
        Refused::ReasonTooLong => invalid(Field::Reason, Problem::TooLong { max: 500 }),
        Refused::Username(problem) => name_problem(Field::Username, problem),
        Refused::Email(problem) => name_problem(Field::Email, problem),
        Refused::DisplayName(problem) => name_problem(Field::DisplayName, problem),
        Refused::UsernameTaken => invalid(Field::Username, Problem::Taken),
        Refused::EmailTaken => invalid(Field::Email, Problem::Taken),
        Refused::Roles => invalid(Field::Roles, Problem::Missing),
    }
}

fn policy_field(field: PolicyField) -> Field {
    match field {
        PolicyField::Access => Field::AccessLifetime,
        PolicyField::Idle => Field::IdleLimit,
        PolicyField::Absolute => Field::AbsoluteLimit,
        PolicyField::IdleWarning => Field::IdleWarning,
        PolicyField::RememberDevice => Field::RememberDevice,
        PolicyField::StepUp => Field::StepUpAge,
        PolicyField::MaxSessions => Field::MaxSessions,
        PolicyField::Mfa => Field::Mfa,
    }
}

fn policy_refusal(problem: PolicyProblem) -> (Field, Problem) {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    match problem {
        PolicyProblem::OutOfRange { field, min, max } => (
            policy_field(field),
            Problem::OutOfRange {
                min: count(min),
                max: count(max),
            },
        ),
        PolicyProblem::Exceeds { field, of } => (policy_field(field), Problem::ExceedsLimit { of: policy_field(of) }),
        PolicyProblem::NeedsJustification { field } => (policy_field(field), Problem::NeedsJustification),
        PolicyProblem::AdminNeedsMfa => (Field::Mfa, Problem::Wrong),
    }
}

fn page_refused(why: &Refused) -> PageError {
    match why {
        Refused::Forbidden => PageError::Forbidden,
        Refused::StepUpRequired => PageError::StepUpRequired,
        Refused::NotFound => PageError::NotFound,
        _ => PageError::BadQuery,
    }
}

/// An old factor leads through step-up and back to `return_to`; every other refusal is the form's error.
fn or_step_up(why: Refused, return_to: String) -> Result<NextStep, ActionError> {
    match why {
        Refused::StepUpRequired => Ok(NextStep::StepUp { return_to }),
        why => Err(refused(why)),
    }
}

fn author(name: Option<String>, policy: &Policy) -> String {
    name.unwrap_or_else(|| {
        if policy.author_id.is_some() {
            "a former account"
        } else {
            "Mayfly"
        }
        .to_owned()
    })
}

fn role_view(entry: RoleInForce) -> RoleView {
    RoleView {
        name: entry.role.name,
        description: entry.role.description,
        people: entry.role.people,
        version: entry.policy.version,
        lifetimes: view::lifetimes(&entry.policy.lifetimes),
        changed_by: author(entry.author, &entry.policy),
        changed_at: entry.policy.created_at.as_millis(),
        reason: entry.policy.reason,
        justification: entry.policy.justification,
    }
}

fn person_row(row: PersonListRow) -> PersonRow {
    let user = row.user;
    PersonRow {
        id: user.id.to_string(),
        username: user.username,
        display_name: user.display_name,
        email: user.email.unwrap_or_default(),
        roles: user.roles,
        disabled: user.status == UserStatus::Disabled,
        invited: user.status == UserStatus::Invited,
        has_factor: row.has_factor,
        sessions: row.living_sessions,
        last_active_at: row.last_active_at.map(crate::domain::clock::Timestamp::as_millis),
    }
}

fn person_page(id: UserId) -> String {
    format!("/admin/people/{id}")
}

#[async_trait]
impl Admin for Visit {
    async fn roles(&self) -> Result<Vec<RoleView>, PageError> {
        let live = self.signed_in_for_page()?;
        let roles = self
            .backend
            .list_roles(live, &self.caller.from)
            .await
            .map_err(page_fault)?;
        Ok(roles
            .map_err(|why| page_refused(&why))?
            .into_iter()
            .map(role_view)
            .collect())
    }

    async fn role(&self, name: String) -> Result<RoleEditor, PageError> {
        let live = self.signed_in_for_page()?;
        let role = self
            .roles()
            .await?
            .into_iter()
            .find(|role| role.name == name)
            .ok_or(PageError::NotFound)?;
        let history = self
            .backend
            .policy_history(live, &name, &self.caller.from)
            .await
            .map_err(page_fault)?;
        let version = |(policy, name): (Policy, Option<String>)| PolicyVersionView {
            version: policy.version,
            lifetimes: view::lifetimes(&policy.lifetimes),
            changed_by: author(name, &policy),
            changed_at: policy.created_at.as_millis(),
            reason: policy.reason,
        };
        let preset = |preset: crate::domain::policy::Preset| Preset {
            key: preset.key.to_owned(),
            name: preset.name.to_owned(),
            describes: preset.describes.to_owned(),
            lifetimes: view::lifetimes(&preset.lifetimes),
        };
        Ok(RoleEditor {
            role,
            presets: presets().into_iter().map(preset).collect(),
            history: history
                .map_err(|why| page_refused(&why))?
                .into_iter()
                .map(version)
                .collect(),
        })
    }

    async fn preview_policy(&self, role: String, lifetimes: Lifetimes) -> Result<PolicyPreview, PageError> {
        let live = self.signed_in_for_page()?;
        let values = view::lifetimes_from(&lifetimes);
        let preview = self
            .backend
            .preview_policy(live, &role, &values, &self.caller.from)
            .await
            .map_err(page_fault)?;
        let preview = preview.map_err(|why| page_refused(&why))?;
        Ok(PolicyPreview {
            sessions_ended: preview.sessions_ended,
            people: preview.people,
            must_enrol: preview.must_enrol,
            refusal: validate(&role, &values, false).err().map(policy_refusal),
        })
    }

    async fn save_policy(&self, change: PolicyChange) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let page = format!("/admin/roles/{}", change.role);
        let new = NewPolicy {
            lifetimes: view::lifetimes_from(&change.lifetimes),
            role: change.role,
            based_on: change.based_on,
            reason: change.reason,
            justification: change.justification,
        };
        match self
            .backend
            .save_policy(live, new, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(version) => {
                self.notify(Notice::PolicySaved { version })
                    .await
                    .map_err(action_fault)?;
                Ok(done(page))
            }
            Err(Refused::NotFound) => Err(ActionError::NotFound),
            Err(why) => or_step_up(why, page),
        }
    }

    async fn people(&self, search: String, cursor: String) -> Result<PeopleList, PageError> {
        let live = self.signed_in_for_page()?;
        if search.chars().count() > 254 || cursor.chars().count() > 254 {
            return Err(PageError::BadQuery);
        }
        let after = (!cursor.is_empty()).then_some(cursor);
        let found = self
            .backend
            .list_people(live, &search, after, &self.caller.from)
            .await
            .map_err(page_fault)?;
        let mut rows = found.map_err(|why| page_refused(&why))?;
        let more = rows.len() > PAGE;
        rows.truncate(PAGE);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|row| crate::domain::user::canonical(&row.user.username));
        let notice = self.notice().await?;
        Ok(PeopleList {
            people: rows.into_iter().map(person_row).collect(),
            next,
            search,
            notice,
        })
    }

    async fn person(&self, id: String) -> Result<PersonView, PageError> {
        let live = self.signed_in_for_page()?;
        let id: UserId = id.parse().map_err(|_| PageError::NotFound)?;
        let found = self
            .backend
            .find_person(live, id, &self.caller.from)
            .await
            .map_err(page_fault)?;
        let (row, living, ended) = found.map_err(|why| page_refused(&why))?;
        let link: Option<(UserId, String)> = self.get(slot::NEW_LINK).await.map_err(page_fault)?;
        Ok(PersonView {
            person: person_row(row),
            is_viewer: id == live.user.id,
            sessions: living
                .iter()
                .map(|session| view::living(session, Some(live.session.id), self.backend.binds_browsers()))
                .collect(),
            ended: ended.iter().filter_map(view::ended).collect(),
            all_roles: self.backend.role_names().await.map_err(page_fault)?,
            invitation_link: link.filter(|(of, _)| *of == id).map(|(_, link)| link),
            notice: self.notice().await?,
        })
    }

    async fn invite(&self, invitee: Invitee) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let typed = invitee.clone();
        let new = NewPerson {
            username: invitee.username,
            email: invitee.email,
            display_name: invitee.display_name,
            roles: invitee.roles,
        };
        match self
            .backend
            .invite(live, new, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok((id, link)) => {
                self.put(slot::NEW_LINK, (id, link.expose_secret()))
                    .await
                    .map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => {
                let texts = [&typed.username, &typed.display_name, &typed.email];
                let length: usize = texts.into_iter().chain(&typed.roles).map(String::len).sum();
                // Nobody has longer names.
                if length <= 1000 {
                    self.put(slot::INVITEE, typed).await.map_err(action_fault)?;
                }
                or_step_up(why, "/admin/people/new".to_owned())
            }
        }
    }

    async fn refused_invitee(&self) -> Result<Option<Invitee>, PageError> {
        self.take(slot::INVITEE).await.map_err(page_fault)
    }

    async fn invite_again(&self, id: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let id: UserId = id.parse().map_err(|_| ActionError::NotFound)?;
        match self
            .backend
            .invite_again(live, id, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(link) => {
                self.put(slot::NEW_LINK, (id, link.expose_secret()))
                    .await
                    .map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => or_step_up(why, person_page(id)),
        }
    }

    async fn disable(&self, id: String, reason: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let id: UserId = id.parse().map_err(|_| ActionError::NotFound)?;
        match self
            .backend
            .disable(live, id, &reason, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(ended) => {
                self.notify(Notice::PersonDisabled { ended })
                    .await
                    .map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => or_step_up(why, format!("/admin/people/{id}/disable")),
        }
    }

    async fn enable(&self, id: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let id: UserId = id.parse().map_err(|_| ActionError::NotFound)?;
        match self
            .backend
            .enable(live, id, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(()) => {
                self.notify(Notice::PersonEnabled).await.map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => or_step_up(why, person_page(id)),
        }
    }

    async fn set_roles(&self, id: String, roles: Vec<String>) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let id: UserId = id.parse().map_err(|_| ActionError::NotFound)?;
        match self
            .backend
            .set_roles(live, id, &roles, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(()) => {
                self.notify(Notice::RolesChanged).await.map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => or_step_up(why, person_page(id)),
        }
    }

    async fn end_sessions(&self, id: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let id: UserId = id.parse().map_err(|_| ActionError::NotFound)?;
        match self
            .backend
            .end_person_sessions(live, id, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(count) => {
                self.notify(Notice::SessionsEnded { count })
                    .await
                    .map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => or_step_up(why, format!("/admin/people/{id}/end-sessions")),
        }
    }

    async fn end_session(&self, id: String, session_id: String) -> Result<NextStep, ActionError> {
        let live = self.signed_in_for_action()?;
        let id: UserId = id.parse().map_err(|_| ActionError::NotFound)?;
        let target = session_id.parse().map_err(|_| ActionError::NotFound)?;
        match self
            .backend
            .end_person_session(live, id, target, &self.caller.from)
            .await
            .map_err(action_fault)?
        {
            Ok(()) => {
                self.notify(Notice::SessionEnded).await.map_err(action_fault)?;
                Ok(done(person_page(id)))
            }
            Err(why) => or_step_up(why, person_page(id)),
        }
    }
}
