//! The audit log: filter, list, older pages.

use leptos::prelude::*;

use crate::components::field::{Choice, TextField};
use crate::components::form::{ButtonLink, Submit};
use crate::components::icons::Icon;
use crate::components::message::{Badge, Empty, Message, Tone};
use crate::components::when::{Exactly, Stamp};
use crate::error::PageError;
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page};
use crate::types::{AuditFilter, AuditOutcome, AuditRow};
use crate::words;

/// `/admin/audit?person=&kind=&outcome=&session=&from=&to=&cursor=`
#[component]
pub fn Audit() -> impl IntoView {
    page(Access::Auditors, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let cursor = visit.query("cursor");
    let asked = AuditFilter {
        person: visit.query("person"),
        kind: visit.query("kind"),
        outcome: visit.query("outcome"),
        session: visit.query("session"),
        from: visit.query("from"),
        to: visit.query("to"),
    };
    let log = visit.services.audit.list(asked, cursor.clone()).await?;
    let filter = log.filter;
    let query = query(&filter);
    let rows: Vec<_> = log.rows.into_iter().map(|row| view! { <Row row/> }).collect();
    let table = if rows.is_empty() {
        view! { <Empty icon=Icon::Log><p>"No event matches this filter."</p><p><a href="/admin/audit">"Show everything"</a></p></Empty> }.into_any()
    } else {
        view! { <Table rows=rows.into_any()/> }.into_any()
    };
    let newest =
        (!cursor.is_empty()).then(|| view! { <ButtonLink href=format!("/admin/audit?{query}") label="Newest"/> });
    let older = log.next.map(|next| {
        view! { <ButtonLink href=format!("/admin/audit?{query}&cursor={}", encode(&next)) label="Older events"/> }
    });
    let sealed = if log.is_contradicted {
        view! {
            <Message tone=Tone::Bad urgent=true>
                <p>
                    "The log does not fit the checkpoint that is kept outside the database: events were removed or replaced. "
                    <code>"mayfly audit verify"</code> " on the server says what is wrong."
                </p>
            </Message>
        }
        .into_any()
    } else {
        log.sealed_until
            .map(|at| view! { <p><Badge tone=Tone::Good text="Sealed"/> " up to " <Exactly at/></p> })
            .into_any()
    };
    Ok(Sheet::new(
        "Audit log",
        Frame::Console(Entry::Audit),
        view! {
            <header class="page-head">
                <h1>"Audit log"</h1>
                <p class="lead">"Newest first. All times are in UTC."</p>
                {sealed}
            </header>
            <Filter filter kinds=log.kinds/>
            {table}
            <nav class="buttons pages" aria-label="Pages of the log">{newest}{older}</nav>
        },
    ))
}

#[component]
fn Filter(filter: AuditFilter, kinds: Vec<String>) -> impl IntoView {
    let any = || (String::new(), "Any".to_owned());
    let kinds = std::iter::once(any())
        .chain(kinds.into_iter().map(|kind| (kind.clone(), words::kind(&kind))))
        .collect::<Vec<_>>();
    let outcomes = std::iter::once(any())
        .chain(
            [AuditOutcome::Success, AuditOutcome::Failure, AuditOutcome::Denied].map(|outcome| {
                (
                    words::outcome(outcome).to_lowercase(),
                    words::outcome(outcome).to_owned(),
                )
            }),
        )
        .collect::<Vec<_>>();
    view! {
        <search>
            <form class="form card filter" method="get" action="/admin/audit" aria-label="Filter">
                <div class="grid">
                    <TextField name="person" label="Person" value=filter.person/>
                    <Choice name="kind" label="Kind" options=kinds chosen=filter.kind/>
                    <Choice name="outcome" label="Outcome" options=outcomes chosen=filter.outcome/>
                    <TextField name="session" label="Session" value=filter.session/>
                    <TextField name="from" label="From (UTC)" kind="datetime-local" value=filter.from/>
                    <TextField name="to" label="To (UTC)" kind="datetime-local" value=filter.to/>
                </div>
                <div class="buttons"><Submit label="Filter" look="plain"/><ButtonLink href="/admin/audit" label="Show everything"/></div>
            </form>
        </search>
    }
    .into_any()
}

#[component]
fn Table(rows: AnyView) -> impl IntoView {
    view! {
        <div class="table-card">
            <table class="table audit">
                <thead>
                    <tr>
                        <th scope="col">"Time (UTC)"</th>
                        <th scope="col">"Event"</th>
                        <th scope="col">"Outcome"</th>
                        <th scope="col">"By"</th>
                        <th scope="col">"About"</th>
                        <th scope="col">"Address"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}

#[component]
fn Row(row: AuditRow) -> impl IntoView {
    view! {
        <tr>
            <td data-label="Time (UTC)"><Stamp at=row.at/></td>
            <th scope="row">
                <a href=format!("/admin/audit/{}", encode(&row.id))>{words::kind(&row.kind)}</a>
                <span class="quiet block">{row.summary}</span>
            </th>
            <td data-label="Outcome"><Outcome outcome=row.outcome/></td>
            <td data-label="By">{row.actor}</td>
            <td data-label="About">{row.subject}</td>
            <td data-label="Address">{row.address}</td>
        </tr>
    }
    .into_any()
}

/// An outcome as a badge.
#[component]
pub fn Outcome(
    /// Which.
    outcome: AuditOutcome,
) -> impl IntoView {
    let tone = match outcome {
        AuditOutcome::Success => Tone::Good,
        AuditOutcome::Failure => Tone::Warning,
        AuditOutcome::Denied => Tone::Bad,
    };
    view! { <Badge tone text=words::outcome(outcome)/> }.into_any()
}

/// The filter as a query string, for links that keep it.
fn query(filter: &AuditFilter) -> String {
    let AuditFilter {
        person,
        kind,
        outcome,
        session,
        from,
        to,
    } = filter;
    [
        ("person", person),
        ("kind", kind),
        ("outcome", outcome),
        ("session", session),
        ("from", from),
        ("to", to),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| format!("{name}={}", encode(value)))
    .collect::<Vec<_>>()
    .join("&")
}
