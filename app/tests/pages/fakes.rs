//! Ports that answer with fixed data, in a few scenes.

use std::sync::Arc;

use app::error::{ActionError, Field, PageError, Problem};
use app::services::{Admin, Audit, Devices, Security, Services, SignIn, Welcome};
use app::types::*;
use async_trait::async_trait;

use crate::data::*;

/// What the ports answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A little of everything.
    Full,
    /// As little as possible.
    Empty,
    /// Every port refuses with this.
    Refused(PageError),
}

pub fn services(scene: Scene) -> Services {
    let fake = Arc::new(Fake { scene });
    Services {
        sign_in: fake.clone(),
        welcome: fake.clone(),
        devices: fake.clone(),
        security: fake.clone(),
        admin: fake.clone(),
        audit: fake,
    }
}

struct Fake {
    scene: Scene,
}

impl Fake {
    /// The full answer, the empty one, or the refusal.
    fn answer<T>(&self, full: T, empty: T) -> Result<T, PageError> {
        match self.scene {
            Scene::Full => Ok(full),
            Scene::Empty => Ok(empty),
            Scene::Refused(error) => Err(error),
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the answer of a port")]
fn done() -> Result<NextStep, ActionError> {
    Ok(NextStep::Done { path: "/".to_owned() })
}

#[async_trait]
impl SignIn for Fake {
    async fn prompt(&self) -> Result<SignInPrompt, PageError> {
        let ending = Ending {
            reason: EndReason::Idle,
            rule: Some(rule("finance", 7)),
            limit_s: Some(900),
        };
        let full = SignInPrompt {
            ending: Some(ending),
            other_browser: false,
            signed_out: false,
            needs_setup: false,
        };
        self.answer(
            full,
            SignInPrompt {
                needs_setup: true,
                ..SignInPrompt::default()
            },
        )
    }

    async fn start(&self, _: String, password: String, return_to: String) -> Result<NextStep, ActionError> {
        if password == "right" {
            Ok(NextStep::Done { path: return_to })
        } else {
            Err(ActionError::WrongCredentials)
        }
    }

    async fn pending(&self) -> Result<Option<PendingSignIn>, PageError> {
        self.answer(
            Some(PendingSignIn {
                step: NextStep::Code,
                username: "ada".to_owned(),
            }),
            None,
        )
    }

    async fn verify_code(&self, _: String) -> Result<NextStep, ActionError> {
        Err(ActionError::WrongCode)
    }

    async fn enrolment(&self) -> Result<Enrolment, PageError> {
        self.answer(enrolment(), enrolment())
    }

    async fn confirm_enrolment(&self, _: String) -> Result<NextStep, ActionError> {
        Ok(NextStep::RecoveryCodes)
    }

    async fn recovery_codes(&self) -> Result<Vec<String>, PageError> {
        let codes: Vec<_> = (0..10).map(|n| format!("7KQ{n}-M4TX-9WPD")).collect();
        self.answer(codes.clone(), codes)
    }

    async fn acknowledge_recovery_codes(&self) -> Result<NextStep, ActionError> {
        done()
    }

    async fn step_up_prompt(&self) -> Result<StepUpPrompt, PageError> {
        self.answer(StepUpPrompt::Code, StepUpPrompt::Password)
    }

    async fn step_up(&self, _: String, return_to: String) -> Result<NextStep, ActionError> {
        Ok(NextStep::Done { path: return_to })
    }

    async fn sign_out(&self) -> Result<NextStep, ActionError> {
        Ok(NextStep::Done {
            path: "/sign-in".to_owned(),
        })
    }
}

#[async_trait]
impl Welcome for Fake {
    async fn invitation(&self) -> Result<Invitation, PageError> {
        let full = Invitation {
            first_admin: true,
            username: None,
            email: None,
            roles: vec!["admin".to_owned()],
            min_password_length: 12,
        };
        let empty = Invitation {
            first_admin: false,
            username: Some("grace".to_owned()),
            email: Some("grace@example.org".to_owned()),
            roles: vec!["staff".to_owned(), "finance".to_owned()],
            min_password_length: 12,
        };
        self.answer(full, empty)
    }

    async fn accept(&self, _: String, _: String, _: String, _: String) -> Result<NextStep, ActionError> {
        Ok(NextStep::Enrol)
    }
}

#[async_trait]
impl Devices for Fake {
    async fn list(&self) -> Result<DeviceList, PageError> {
        let full = DeviceList {
            living: living(),
            ended: ended(),
            notice: Some(Notice::SessionEnded),
        };
        self.answer(
            full,
            DeviceList {
                living: living().into_iter().take(1).collect(),
                ended: vec![],
                notice: None,
            },
        )
    }

    async fn end(&self, _: String) -> Result<NextStep, ActionError> {
        done()
    }

    async fn end_others(&self) -> Result<NextStep, ActionError> {
        Ok(NextStep::StepUp {
            return_to: "/devices/end-others".to_owned(),
        })
    }

    async fn stay_signed_in(&self) -> Result<(), ActionError> {
        if self.scene == Scene::Full {
            Ok(())
        } else {
            Err(ActionError::SignedOut)
        }
    }
}

#[async_trait]
impl Security for Fake {
    async fn overview(&self) -> Result<SecurityView, PageError> {
        let full = SecurityView {
            password_changed_at: NOW - 40 * DAY,
            authenticator_since: Some(NOW - 30 * DAY),
            factor_required: false,
            recovery_codes_left: 8,
            min_password_length: 12,
            other_sessions: 3,
            notice: Some(Notice::PasswordChanged { ended: 2 }),
        };
        let empty = SecurityView {
            authenticator_since: None,
            recovery_codes_left: 0,
            other_sessions: 0,
            notice: None,
            ..full.clone()
        };
        self.answer(full, empty)
    }

    async fn change_password(&self, _: String, _: String) -> Result<NextStep, ActionError> {
        Err(ActionError::Invalid {
            field: Field::Password,
            problem: Problem::TooCommon,
        })
    }

    async fn enrolment(&self) -> Result<Enrolment, PageError> {
        self.answer(enrolment(), enrolment())
    }

    async fn confirm_enrolment(&self, _: String) -> Result<NextStep, ActionError> {
        done()
    }

    async fn remove_authenticator(&self) -> Result<NextStep, ActionError> {
        done()
    }

    async fn renew_recovery_codes(&self) -> Result<NextStep, ActionError> {
        Ok(NextStep::RecoveryCodes)
    }
}

#[async_trait]
impl Admin for Fake {
    async fn roles(&self) -> Result<Vec<RoleView>, PageError> {
        let beyond = RoleView {
            justification: Some("Field staff without signal".to_owned()),
            ..role("mobile", 1)
        };
        self.answer(vec![role("admin", 2), role("finance", 37), beyond], vec![])
    }

    async fn role(&self, name: String) -> Result<RoleEditor, PageError> {
        let preset = |key: &str, name: &str, idle_s| Preset {
            key: key.to_owned(),
            name: name.to_owned(),
            describes: "Access 5–15 minutes, at most 1–7 days, second factor".to_owned(),
            lifetimes: Lifetimes { idle_s, ..limits() },
        };
        let version = |version, idle_s| PolicyVersionView {
            version,
            lifetimes: Lifetimes { idle_s, ..limits() },
            changed_by: "ada".to_owned(),
            changed_at: NOW - i64::from(8 - version) * 10 * DAY,
            reason: "Quarterly review".to_owned(),
        };
        let editor = RoleEditor {
            role: role(&name, 37),
            presets: vec![
                preset("consumer_web", "Consumer web", 604_800),
                preset("banking", "Banking and payments", 300),
                preset("admin", "Admins and privileged roles", 900),
                preset("mobile", "Mobile app with secure storage", 1_209_600),
                preset("service", "Service to service", 600),
                preset("single_use", "Single use", 900),
            ],
            history: vec![version(7, 900), version(6, 1800)],
        };
        self.answer(
            editor.clone(),
            RoleEditor {
                history: vec![],
                ..editor
            },
        )
    }

    async fn preview_policy(&self, _: String, lifetimes: Lifetimes) -> Result<PolicyPreview, PageError> {
        let refusal = if lifetimes.idle_s > lifetimes.absolute_s {
            Some((
                Field::IdleLimit,
                Problem::ExceedsLimit {
                    of: Field::AbsoluteLimit,
                },
            ))
        } else if lifetimes.absolute_s > 86_400 {
            Some((Field::AbsoluteLimit, Problem::NeedsJustification))
        } else {
            None
        };
        let preview = PolicyPreview {
            sessions_ended: 412,
            people: 37,
            must_enrol: 12,
            refusal,
        };
        self.answer(
            preview.clone(),
            PolicyPreview {
                sessions_ended: 0,
                people: 0,
                must_enrol: 0,
                ..preview
            },
        )
    }

    async fn save_policy(&self, change: PolicyChange) -> Result<NextStep, ActionError> {
        assert_eq!(
            change.lifetimes,
            Lifetimes {
                idle_s: 300,
                ..limits()
            }
        );
        Ok(NextStep::Done {
            path: format!("/admin/roles/{}", change.role),
        })
    }

    async fn people(&self, search: String, _: String) -> Result<PeopleList, PageError> {
        let people = vec![
            person("p-1", "Ada Lovelace"),
            PersonRow {
                has_factor: false,
                ..person("p-2", "Grace Hopper")
            },
            PersonRow {
                disabled: true,
                sessions: 0,
                ..person("p-3", "Alan Turing")
            },
            PersonRow {
                invited: true,
                has_factor: false,
                sessions: 0,
                last_active_at: None,
                ..person("p-4", "Edsger Dijkstra")
            },
        ];
        let full = PeopleList {
            people,
            next: Some("after-p-4".to_owned()),
            search: search.clone(),
            notice: None,
        };
        self.answer(
            full,
            PeopleList {
                people: vec![],
                next: None,
                search,
                notice: None,
            },
        )
    }

    async fn person(&self, _: String) -> Result<PersonView, PageError> {
        let sessions = living()
            .into_iter()
            .map(|session| SessionView {
                current: false,
                ..session
            })
            .collect();
        let full = PersonView {
            person: person("p-2", "Grace Hopper"),
            is_viewer: false,
            sessions,
            ended: ended(),
            all_roles: ["admin", "auditor", "finance", "staff"].map(str::to_owned).to_vec(),
            invitation_link: None,
            notice: Some(Notice::RolesChanged),
        };
        let empty = PersonView {
            person: PersonRow {
                invited: true,
                has_factor: false,
                sessions: 0,
                last_active_at: None,
                ..person("p-4", "Edsger Dijkstra")
            },
            sessions: vec![],
            ended: vec![],
            invitation_link: Some("http://localhost:3000/welcome?invitation=inv_0123456789abcdef".to_owned()),
            notice: None,
            ..full.clone()
        };
        self.answer(full, empty)
    }

    async fn invite(&self, invitee: Invitee) -> Result<NextStep, ActionError> {
        Ok(NextStep::Done {
            path: format!("/admin/people/p-{}", invitee.roles.join("-")),
        })
    }

    async fn refused_invitee(&self) -> Result<Option<Invitee>, PageError> {
        let typed = Invitee {
            username: "\"><b>mia".to_owned(),
            email: "mia@example.org".to_owned(),
            display_name: "Mia Member".to_owned(),
            roles: vec!["finance".to_owned()],
        };
        self.answer(Some(typed), None)
    }

    async fn invite_again(&self, id: String) -> Result<NextStep, ActionError> {
        Ok(NextStep::Done {
            path: format!("/admin/people/{id}"),
        })
    }

    async fn disable(&self, _: String, _: String) -> Result<NextStep, ActionError> {
        Err(ActionError::LastAdmin)
    }

    async fn enable(&self, _: String) -> Result<NextStep, ActionError> {
        done()
    }

    async fn set_roles(&self, _: String, roles: Vec<String>) -> Result<NextStep, ActionError> {
        Ok(NextStep::Done {
            path: format!("/admin/people/p-{}", roles.len()),
        })
    }

    async fn end_sessions(&self, _: String) -> Result<NextStep, ActionError> {
        done()
    }

    async fn end_session(&self, _: String, _: String) -> Result<NextStep, ActionError> {
        done()
    }
}

#[async_trait]
impl Audit for Fake {
    async fn list(&self, filter: AuditFilter, _: String) -> Result<AuditPage, PageError> {
        let rows = vec![
            event(
                "a-1",
                "session_revoked",
                AuditOutcome::Success,
                "ada ended a session of grace",
            ),
            event("a-2", "sign_in_failed", AuditOutcome::Failure, "Wrong password"),
            event(
                "a-3",
                "policy_change_refused",
                AuditOutcome::Denied,
                "An auditor tried to change role finance",
            ),
        ];
        let kinds = ["session_revoked", "sign_in_failed", "token_rotated"]
            .map(str::to_owned)
            .to_vec();
        let full = AuditPage {
            rows,
            next: Some("c-2".to_owned()),
            filter,
            kinds,
            sealed_until: Some(NOW),
            is_contradicted: false,
        };
        self.answer(
            full.clone(),
            AuditPage {
                rows: vec![],
                next: None,
                sealed_until: None,
                ..full
            },
        )
    }

    async fn detail(&self, id: String) -> Result<AuditDetail, PageError> {
        let some = |text: &str| Some(text.to_owned());
        let full = AuditDetail {
            row: event(
                &id,
                "policy_changed",
                AuditOutcome::Success,
                "ada changed the limits of role finance",
            ),
            actor_id: some("p-1"),
            subject_id: None,
            session_id: some("0198b2f4-7c1e-7a10-9d51-1f1f5a2b3c4d"),
            device_id: some("d-1"),
            user_agent: some("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            device: some("Firefox on Windows"),
            request_id: some("r-42"),
            reason: some("review"),
            facts: vec![("policy_version".to_owned(), "8".to_owned())],
            changes: vec![("idle_limit".to_owned(), "15 minutes".to_owned(), "5 minutes".to_owned())],
            seal: some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        };
        self.answer(
            full.clone(),
            AuditDetail {
                facts: vec![],
                changes: vec![],
                seal: None,
                ..full
            },
        )
    }
}
