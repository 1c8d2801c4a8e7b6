//! People: search, list, invite.

use leptos::prelude::*;

use crate::components::field::{RoleChoice, TextField, problem_at};
use crate::components::form::{ButtonLink, Form, Submit};
use crate::components::icons::Icon;
use crate::components::message::{Badge, Empty, Refused, Tone};
use crate::components::when::When;
use crate::error::{Field, PageError};
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page};
use crate::types::PersonRow;

const FRAME: Frame = Frame::Console(Entry::People);

/// `/admin/people?search=&cursor=`
#[component]
pub fn People() -> impl IntoView {
    page(Access::Admins, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let now = visit.page.now;
    let cursor = visit.query("cursor");
    let list = visit
        .services
        .admin
        .people(visit.query("search"), cursor.clone())
        .await?;
    let search = list.search;
    let rows: Vec<_> = list
        .people
        .into_iter()
        .map(|person| view! { <Row person now/> })
        .collect();
    let table = if rows.is_empty() {
        let nobody = if search.is_empty() {
            "There is nobody here yet.".to_owned()
        } else {
            format!("Nobody matches “{search}”.")
        };
        view! { <Empty icon=Icon::People><p>{nobody}</p></Empty> }.into_any()
    } else {
        view! {
            <div class="table-card">
                <table class="table">
                    <thead>
                        <tr>
                            <th scope="col">"Person"</th>
                            <th scope="col">"E-mail address"</th>
                            <th scope="col">"Roles"</th>
                            <th scope="col">"State"</th>
                            <th scope="col" class="number">"Sessions"</th>
                            <th scope="col">"Last active"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        }
        .into_any()
    };
    let query = format!("search={}", encode(&search));
    let first =
        (!cursor.is_empty()).then(|| view! { <ButtonLink href=format!("/admin/people?{query}") label="First page"/> });
    let next = list.next.map(|next| {
        view! { <ButtonLink href=format!("/admin/people?{query}&cursor={}", encode(&next)) label="Next page"/> }
    });
    Ok(Sheet::new(
        "People",
        FRAME,
        view! {
            <header class="page-head section-head">
                <h1>"People"</h1>
                <ButtonLink href="/admin/people/new" label="Invite a person" look="primary"/>
            </header>
            <search>
                <form class="form search" method="get" action="/admin/people">
                    <TextField name="search" label="Search by name or e-mail address" kind="search" value=search.clone()/>
                    <Submit label="Search" look="plain"/>
                </form>
            </search>
            {table}
            <nav class="buttons pages" aria-label="Pages of the list">{first}{next}</nav>
        },
    )
    .with_notice(list.notice))
}

#[component]
fn Row(person: PersonRow, now: i64) -> impl IntoView {
    let state = State {
        disabled: person.disabled,
        invited: person.invited,
        has_factor: person.has_factor,
    };
    view! {
        <tr>
            <th scope="row">
                <a href=format!("/admin/people/{}", encode(&person.id))>{person.display_name}</a>
                <span class="quiet block">{person.username}</span>
            </th>
            <td data-label="E-mail">{person.email}</td>
            <td data-label="Roles">{person.roles.join(", ")}</td>
            <td data-label="State">{state.badges()}</td>
            <td data-label="Sessions" class="number">{person.sessions}</td>
            <td data-label="Last active">
                {person.last_active_at.map_or_else(|| state.never_seen().into_any(), |at| view! { <When at now/> }.into_any())}
            </td>
        </tr>
    }
    .into_any()
}

/// State of an account.
#[derive(Clone, Copy)]
pub struct State {
    /// Cannot sign in.
    pub disabled: bool,
    /// Has not set a password yet.
    pub invited: bool,
    /// Has an authenticator.
    pub has_factor: bool,
}

impl State {
    /// When no session is left that would tell: ended ones are removed after a time.
    pub const fn never_seen(self) -> &'static str {
        if self.invited { "Never" } else { "Not for a month" }
    }

    /// As badges.
    pub fn badges(self) -> impl IntoView {
        let account = match (self.disabled, self.invited) {
            (true, _) => (Tone::Bad, "Disabled"),
            (false, true) => (Tone::Neutral, "Invited"),
            (false, false) => (Tone::Good, "Active"),
        };
        let factor = (!self.has_factor && !self.invited).then_some((Tone::Warning, "No second factor"));
        let badge = |(tone, text): (Tone, &'static str)| view! { <Badge tone text/> " " };
        view! { <span class="badges">{badge(account)}{factor.map(badge)}</span> }
    }
}

/// `/admin/people/new`
#[component]
pub fn Invite() -> impl IntoView {
    page(Access::Admins, load_invite)
}

async fn load_invite(visit: Visit) -> Result<Sheet, PageError> {
    let all = visit
        .services
        .admin
        .roles()
        .await?
        .into_iter()
        .map(|role| role.name)
        .collect::<Vec<_>>();
    let error = visit.failure("invite_person");
    let typed = visit.services.admin.refused_invitee().await?.unwrap_or_default();
    Ok(Sheet::new(
        "Invite a person",
        FRAME,
        view! {
            <p class="crumb"><a href="/admin/people">"People"</a></p>
            <header class="page-head">
                <h1>"Invite a person"</h1>
                <p class="lead">"The next page shows a one-time link. Send it to them; with it they choose their password."</p>
            </header>
            <Refused error/>
            <Form action="invite_person" class="card">
                <TextField name="username" label="Sign-in name" value=typed.username required=true
                    problem=problem_at(error, Field::Username)/>
                <TextField name="display_name" label="Name" value=typed.display_name required=true
                    problem=problem_at(error, Field::DisplayName)/>
                <TextField name="email" label="E-mail address" kind="email" value=typed.email required=true
                    problem=problem_at(error, Field::Email)/>
                <RoleChoice all held=typed.roles problem=problem_at(error, Field::Roles)/>
                <div class="buttons"><Submit label="Make the invitation"/><ButtonLink href="/admin/people" label="Cancel"/></div>
            </Form>
        },
    ))
}
