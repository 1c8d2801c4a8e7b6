//! One person: account, roles, sessions, and what can be done about them.

use leptos::prelude::*;

use super::people::State;
use super::roles::sessions as sessions_words;
use crate::components::field::{RoleChoice, TextArea, problem_at};
use crate::components::form::{ButtonLink, Form, Hidden, Submit};
use crate::components::icons::Icon;
use crate::components::message::{Empty, Message, Refused, Tone};
use crate::components::session::{EndedSessions, SessionCard};
use crate::components::when::When;
use crate::error::{ActionError, Field, PageError};
use crate::islands::CopyButton;
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page};
use crate::types::{PersonRow, PersonView, SessionView};

const FRAME: Frame = Frame::Console(Entry::People);

/// `/admin/people/:id`
#[component]
pub fn Person() -> impl IntoView {
    page(Access::Admins, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let view = visit.services.admin.person(visit.param("id")).await?;
    let now = visit.page.now;
    let error = visit
        .failure("set_roles")
        .or_else(|| visit.failure("enable_person"))
        .or_else(|| visit.failure("invite_person_again"));
    let person = view.person.clone();
    let notice = view.notice;
    Ok(Sheet::new(
        person.display_name.clone(),
        FRAME,
        view! {
            <p class="crumb"><a href="/admin/people">"People"</a></p>
            <header class="page-head">
                <h1>{person.display_name.clone()}</h1>
                <p class="lead">{person.username.clone()} " · " {person.email.clone()}</p>
            </header>
            <Refused error/>
            {view.invitation_link.clone().map(|link| view! { <Invitation link/> })}
            <Account person=person.clone() is_viewer=view.is_viewer now/>
            <Roles person=person.clone() all=view.all_roles.clone() error/>
            <Sessions view now/>
        },
    )
    .with_notice(notice))
}

#[component]
fn Invitation(link: String) -> impl IntoView {
    view! {
        <section class="card invitation" aria-labelledby="invitation">
            <h2 id="invitation">"One-time link"</h2>
            <p>"Send this to the person in a way that only they can read. It works once and is shown only now."</p>
            <p class="secret"><code>{link.clone()}</code> <CopyButton text=link label="Copy the link".to_owned()/></p>
        </section>
    }
    .into_any()
}

#[component]
fn Account(person: PersonRow, is_viewer: bool, now: i64) -> impl IntoView {
    let state = State {
        disabled: person.disabled,
        invited: person.invited,
        has_factor: person.has_factor,
    };
    let again = (person.invited && !person.disabled).then(|| {
        let id = person.id.clone();
        view! {
            <Form action="invite_person_again">
                <Hidden name="person_id" value=id/>
                <Submit label="Make a new one-time link" look="plain"/>
            </Form>
            <p class="quiet">"The link from before stops working."</p>
        }
    });
    let action = if is_viewer {
        view! { <p class="quiet">"This is your own account; somebody else has to disable it."</p> }.into_any()
    } else if person.disabled {
        view! {
            <Form action="enable_person">
                <Hidden name="person_id" value=person.id.clone()/>
                <Submit label="Enable this account" look="plain"/>
            </Form>
        }
        .into_any()
    } else {
        view! { <ButtonLink href=format!("/admin/people/{}/disable", encode(&person.id)) label="Disable this account"/> }.into_any()
    };
    let audit = format!("/admin/audit?person={}", encode(&person.username));
    view! {
        <section class="card" aria-labelledby="account">
            <h2 id="account">"Account"</h2>
            <dl class="facts">
                <div><dt>"State"</dt><dd>{state.badges()}</dd></div>
                <div><dt>"Second factor"</dt><dd>{if person.has_factor { "Authenticator app" } else { "None" }}</dd></div>
                <div>
                    <dt>"Last active"</dt>
                    <dd>{person.last_active_at.map_or_else(|| state.never_seen().into_any(), |at| view! { <When at now/> }.into_any())}</dd>
                </div>
            </dl>
            {again}
            <div class="buttons">{action}<ButtonLink href=audit label="Show in the audit log"/></div>
        </section>
    }
    .into_any()
}

#[component]
fn Roles(person: PersonRow, all: Vec<String>, error: Option<ActionError>) -> impl IntoView {
    view! {
        <section class="card" aria-labelledby="roles-heading">
            <h2 id="roles-heading">"Roles"</h2>
            <Form action="set_roles">
                <Hidden name="person_id" value=person.id/>
                <RoleChoice legend="Roles that this person holds" all held=person.roles problem=problem_at(error, Field::Roles)/>
                <p class="quiet">"New roles apply from the next click, and the strictest limits of all roles with them."</p>
                <Submit label="Save roles" look="plain"/>
            </Form>
        </section>
    }
    .into_any()
}

#[component]
fn Sessions(view: PersonView, now: i64) -> impl IntoView {
    let base = format!("/admin/people/{}/end-sessions", encode(&view.person.id));
    let living = view.sessions;
    let end_all = (!living.is_empty()).then(|| view! { <ButtonLink href=base.clone() label="End all sessions"/> });
    let cards = if living.is_empty() {
        view! { <Empty icon=Icon::Devices><p>"Not signed in anywhere."</p></Empty> }.into_any()
    } else {
        living
            .into_iter()
            .map(|session| {
                let href = format!("{base}?session={}", encode(&session.id));
                let names = session.device.clone();
                let action = view! { <ButtonLink href label="End this session" names/> }.into_any();
                view! { <SessionCard session now action/> }
            })
            .collect_view()
            .into_any()
    };
    let ended = if view.ended.is_empty() {
        view! { <Empty icon=Icon::Check><p>"No session ended in the last 30 days."</p></Empty> }.into_any()
    } else {
        view! { <EndedSessions sessions=view.ended now/> }.into_any()
    };
    view! {
        <section aria-labelledby="living">
            <div class="section-head"><h2 id="living">"Signed in on"</h2>{end_all}</div>
            <div class="stack">{cards}</div>
        </section>
        <section aria-labelledby="ended"><h2 id="ended">"Ended in the last 30 days"</h2>{ended}</section>
    }
    .into_any()
}

/// `/admin/people/:id/disable`
#[component]
pub fn Disable() -> impl IntoView {
    page(Access::Admins, load_disable)
}

async fn load_disable(visit: Visit) -> Result<Sheet, PageError> {
    let view = visit.services.admin.person(visit.param("id")).await?;
    let person = view.person;
    if person.disabled || view.is_viewer {
        return Err(PageError::NotFound);
    }
    let now = visit.page.now;
    let error = visit.failure("disable_person");
    let back = format!("/admin/people/{}", encode(&person.id));
    let sentence = consequence(&view.sessions, "cannot sign in until the account is enabled again");
    Ok(Sheet::new(
        format!("Disable {}?", person.display_name),
        FRAME,
        view! {
            <h1>{format!("Disable {}?", person.display_name)}</h1>
            <Refused error/>
            <Message tone=Tone::Warning><p>{sentence}</p></Message>
            <Cards sessions=view.sessions now/>
            <Form action="disable_person">
                <Hidden name="person_id" value=person.id/>
                <TextArea name="reason" label="Reason" required=true problem=problem_at(error, Field::Reason)
                    hint="Kept in the audit log."/>
                <div class="buttons"><Submit label="Disable this account" look="danger"/><ButtonLink href=back label="Cancel"/></div>
            </Form>
        },
    ))
}

/// `/admin/people/:id/end-sessions`, with `?session=…` for one of them.
#[component]
pub fn EndSessions() -> impl IntoView {
    page(Access::Admins, load_end_sessions)
}

async fn load_end_sessions(visit: Visit) -> Result<Sheet, PageError> {
    let view = visit.services.admin.person(visit.param("id")).await?;
    let person = view.person;
    let one = visit.query.get("session");
    let sessions: Vec<_> = view
        .sessions
        .into_iter()
        .filter(|session| one.as_ref().is_none_or(|id| *id == session.id))
        .collect();
    if sessions.is_empty() {
        return Err(PageError::NotFound);
    }
    let now = visit.page.now;
    let back = format!("/admin/people/{}", encode(&person.id));
    let label = if one.is_some() {
        "End this session".to_owned()
    } else {
        format!("End {}", sessions_words(count(&sessions)))
    };
    let heading = format!("{label} of {}?", person.display_name);
    let error = visit
        .failure("end_person_session")
        .or_else(|| visit.failure("end_person_sessions"));
    let sentence = consequence(&sessions, "can sign in again");
    let buttons =
        view! { <div class="buttons"><Submit label look="danger"/><ButtonLink href=back label="Cancel"/></div> };
    let form = match one {
        Some(session) => view! {
            <Form action="end_person_session">
                <Hidden name="person_id" value=person.id/>
                <Hidden name="session_id" value=session/>
                {buttons}
            </Form>
        }
        .into_any(),
        None => view! { <Form action="end_person_sessions"><Hidden name="person_id" value=person.id/>{buttons}</Form> }
            .into_any(),
    };
    Ok(Sheet::new(
        heading.clone(),
        FRAME,
        view! {
            <h1>{heading}</h1>
            <Refused error/>
            <p>{sentence}</p>
            <Cards sessions now/>
            {form}
        },
    ))
}

#[component]
fn Cards(sessions: Vec<SessionView>, now: i64) -> impl IntoView {
    if sessions.is_empty() {
        return ().into_any();
    }
    let cards = sessions
        .into_iter()
        .map(|session| view! { <SessionCard session now/> })
        .collect_view();
    view! { <section aria-labelledby="ends"><h2 id="ends">"What will end"</h2><div class="stack">{cards}</div></section> }
        .into_any()
}

fn count(sessions: &[SessionView]) -> u32 {
    u32::try_from(sessions.len()).unwrap_or(u32::MAX)
}

fn consequence(sessions: &[SessionView], afterwards: &str) -> String {
    match count(sessions) {
        0 => format!("No session ends, because the person is not signed in. The person {afterwards}."),
        count => format!(
            "Ends {}, listed below, at the next click. The person {afterwards}.",
            sessions_words(count)
        ),
    }
}
