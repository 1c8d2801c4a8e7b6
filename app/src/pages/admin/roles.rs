//! Roles and their limits in words.

#![expect(clippy::needless_pass_by_value, reason = "properties of a component are owned")]

use leptos::prelude::*;

use crate::components::form::ButtonLink;
use crate::components::message::{Badge, Tone};
use crate::components::when::When;
use crate::error::PageError;
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page};
use crate::types::{Lifetimes, RoleView};
use crate::words;
use crate::words::time::count_of;

/// `/admin/roles`
#[component]
pub fn Roles() -> impl IntoView {
    page(Access::Admins, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let now = visit.page.now;
    let roles = visit.services.admin.roles().await?;
    let cards = roles
        .into_iter()
        .map(|role| view! { <RoleCard role now/> })
        .collect_view();
    Ok(Sheet::new(
        "Roles",
        Frame::Console(Entry::Roles),
        view! {
            <header class="page-head">
                <h1>"Roles"</h1>
                <p class="lead">"How long a sign-in lives is set by role. Somebody with several roles gets the strictest value of each limit."</p>
            </header>
            <div class="cards">{cards}</div>
        },
    ))
}

#[component]
fn RoleCard(role: RoleView, now: i64) -> impl IntoView {
    let heading = format!("role-{}", role.name);
    let href = format!("/admin/roles/{}", encode(&role.name));
    let people = people(role.people);
    view! {
        <article class="card role" aria-labelledby=heading.clone()>
            <div class="section-head">
                <h2 id=heading.clone()>{role.name.clone()}</h2>
                <ButtonLink href label="Edit limits" names=role.name.clone()/>
            </div>
            <p class="quiet">{role.description} " · " {people}</p>
            <Limits limits=role.lifetimes/>
            {role.justification.map(|text| view! { <p><Badge tone=Tone::Warning text="Beyond NIST SP 800-63B-4"/> " " {text}</p> })}
            <p class="quiet">
                "Policy " {role.version} " by " {role.changed_by} ", " <When at=role.changed_at now/> ": " {role.reason}
            </p>
        </article>
    }
    .into_any()
}

/// The limits as a list of terms.
#[component]
pub fn Limits(
    /// Values.
    limits: Lifetimes,
) -> impl IntoView {
    let rows = words::limits(&limits)
        .into_iter()
        .map(|(name, value)| view! { <div><dt>{name}</dt><dd>{value}</dd></div> })
        .collect_view();
    view! { <dl class="facts limits">{rows}</dl> }.into_any()
}

/// "37 people", for texts.
pub fn people(count: u32) -> String {
    if count == 1 {
        "1 person".to_owned()
    } else {
        format!("{count} people")
    }
}

/// "412 sessions", for texts.
pub fn sessions(count: u32) -> String {
    count_of(i64::from(count), "session")
}
