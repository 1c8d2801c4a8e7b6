//! One event of the audit log: everything known, with jumps to person and session.

use leptos::prelude::*;

use super::audit::Outcome;
use crate::components::when::Stamp;
use crate::error::PageError;
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page};
use crate::types::AuditDetail;
use crate::words;

/// `/admin/audit/:id`
#[component]
pub fn AuditEvent() -> impl IntoView {
    page(Access::Auditors, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let event = visit.services.audit.detail(visit.param("id")).await?;
    let is_admin = visit.viewer.is_some_and(|viewer| viewer.is_admin);
    let kind = words::kind(&event.row.kind);
    let changes = (!event.changes.is_empty()).then(|| view! { <Changes changes=event.changes.clone()/> });
    Ok(Sheet::new(
        kind.clone(),
        Frame::Console(Entry::Audit),
        view! {
            <p class="crumb"><a href="/admin/audit">"Audit log"</a></p>
            <header class="page-head">
                <h1>{kind}</h1>
                <p class="lead">{event.row.summary.clone()}</p>
            </header>
            <Facts event is_admin/>
            {changes}
        },
    ))
}

#[component]
fn Facts(event: AuditDetail, is_admin: bool) -> impl IntoView {
    let person = move |name: String, id: Option<String>| {
        let audit = format!("/admin/audit?person={}", encode(&name));
        let page = id.filter(|_| is_admin).map(|id| {
            view! { " · " <a href=format!("/admin/people/{}", encode(&id))>"Account"</a> }
        });
        view! { {name} " · " <a href=audit>"All events"</a> {page} }.into_any()
    };
    let subject_is_person = event.subject_id.is_some();
    let row = event.row;
    let text = |value: Option<String>| value.map(|value| view! { <span class="exact">{value}</span> }.into_any());
    let session = event.session_id.map(|id| {
        let href = format!("/admin/audit?session={}", encode(&id));
        view! { <span class="exact">{id}</span> " · " <a href=href>"All events of this session"</a> }.into_any()
    });
    let actor = if event.actor_id.is_some() {
        person(row.actor, event.actor_id)
    } else {
        row.actor.into_any()
    };
    let subject = if subject_is_person {
        person(row.subject, event.subject_id)
    } else {
        row.subject.into_any()
    };
    let known: Vec<(String, Option<AnyView>)> = vec![
        ("Time (UTC)".into(), Some(view! { <Stamp at=row.at/> }.into_any())),
        (
            "Outcome".into(),
            Some(view! { <Outcome outcome=row.outcome/> }.into_any()),
        ),
        ("By".into(), Some(actor)),
        ("About".into(), Some(subject)),
        ("Reason".into(), text(event.reason)),
        ("Address".into(), text(Some(row.address))),
        ("Device".into(), text(event.device)),
        ("Browser as it named itself".into(), text(event.user_agent)),
        ("Session".into(), session),
        ("Device id".into(), text(event.device_id)),
        ("Request".into(), text(event.request_id)),
        ("Event".into(), text(Some(row.id))),
        ("Seal".into(), text(event.seal)),
    ];
    let facts = event.facts.into_iter().map(|(name, value)| {
        let shown = if name == "about_event" {
            let href = format!("/admin/audit/{}", encode(&value));
            Some(view! { <a href=href class="exact">{value}</a> }.into_any())
        } else {
            text(Some(value))
        };
        (words::kind(&name), shown)
    });
    let rows = known
        .into_iter()
        .chain(facts)
        .filter_map(|(name, value)| value.map(|value| view! { <div><dt>{name}</dt><dd>{value}</dd></div> }))
        .collect_view();
    view! { <section class="card" aria-label="What is known"><dl class="known">{rows}</dl></section> }.into_any()
}

#[component]
fn Changes(changes: Vec<(String, String, String)>) -> impl IntoView {
    let rows = changes
        .into_iter()
        .map(|(name, before, after)| {
            view! { <tr><th scope="row">{words::kind(&name)}</th><td data-label="Before">{before}</td><td data-label="After">{after}</td></tr> }
        })
        .collect_view();
    view! {
        <section aria-labelledby="changes">
            <h2 id="changes">"What changed"</h2>
            <div class="table-card">
                <table class="table">
                    <thead><tr><th scope="col">"Field"</th><th scope="col">"Before"</th><th scope="col">"After"</th></tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
    .into_any()
}
