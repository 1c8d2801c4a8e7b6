//! Your devices: where you are signed in, and what ended lately.

use leptos::prelude::*;

use crate::components::form::{ButtonLink, Form, Hidden, Submit};
use crate::components::icons::Icon;
use crate::components::message::{Empty, Refused};
use crate::components::session::{EndedSessions, SessionCard};
use crate::error::PageError;
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page};
use crate::types::SessionView;
use crate::words::time::count_of;

const FRAME: Frame = Frame::Console(Entry::Devices);

/// `/`
#[component]
pub fn Devices() -> impl IntoView {
    page(Access::SignedIn, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let list = visit.services.devices.list().await?;
    let now = visit.page.now;
    let (this, others): (Vec<_>, Vec<_>) = list.living.into_iter().partition(|session| session.current);
    let this = this
        .into_iter()
        .map(|session| view! { <SessionCard session now/> })
        .collect_view();
    let end_others = (!others.is_empty())
        .then(|| view! { <ButtonLink href="/devices/end-others" label=end_others_words(others.len())/> });
    let others = if others.is_empty() {
        view! { <Empty icon=Icon::Devices><p>"You are not signed in anywhere else."</p></Empty> }.into_any()
    } else {
        others
            .into_iter()
            .map(|session| other(session, now))
            .collect_view()
            .into_any()
    };
    let ended = if list.ended.is_empty() {
        view! { <Empty icon=Icon::Check><p>"No sign-in of yours ended in the last 30 days."</p></Empty> }.into_any()
    } else {
        view! { <EndedSessions sessions=list.ended now/> }.into_any()
    };
    Ok(Sheet::new(
        "Your devices",
        FRAME,
        view! {
            <header class="page-head">
                <h1>"Your devices"</h1>
                <p class="lead">"Everywhere you are signed in. End what you do not recognise; it is signed out at its next click."</p>
            </header>
            <section aria-labelledby="this-device"><h2 id="this-device">"This device"</h2>{this}</section>
            <section aria-labelledby="other-devices">
                <div class="section-head"><h2 id="other-devices">"Other devices"</h2>{end_others}</div>
                <div class="stack">{others}</div>
            </section>
            <section aria-labelledby="ended"><h2 id="ended">"Ended in the last 30 days"</h2>{ended}</section>
        },
    )
    .with_notice(list.notice))
}

fn other(session: SessionView, now: i64) -> impl IntoView {
    let href = format!("/devices/end?session={}", encode(&session.id));
    let names = session.device.clone();
    let action = view! { <ButtonLink href label="End this session" names/> }.into_any();
    view! { <SessionCard session now action/> }.into_any()
}

fn end_others_words(others: usize) -> String {
    if others == 1 {
        "End the other session".to_owned()
    } else {
        format!("End {others} other sessions")
    }
}

/// `/devices/end?session=…`
#[component]
pub fn EndSession() -> impl IntoView {
    page(Access::SignedIn, load_end)
}

async fn load_end(visit: Visit) -> Result<Sheet, PageError> {
    let id = visit.query("session");
    let list = visit.services.devices.list().await?;
    let session = list
        .living
        .into_iter()
        .find(|session| session.id == id)
        .ok_or(PageError::NotFound)?;
    let error = visit.failure("end_session");
    let consequence = if session.current {
        "This is the device you are using. You will be signed out and have to sign in again."
    } else {
        "That device is signed out at its next click. Whoever uses it has to sign in again."
    };
    let now = visit.page.now;
    Ok(Sheet::new(
        "End this session?",
        FRAME,
        view! {
            <h1>"End this session?"</h1>
            <Refused error/>
            <p>{consequence}</p>
            <section aria-labelledby="ends"><h2 id="ends">"What will end"</h2><SessionCard session now/></section>
            <Form action="end_session" class="buttons">
                <Hidden name="session_id" value=id/>
                <Submit label="End this session" look="danger"/>
                <ButtonLink href="/" label="Keep it"/>
            </Form>
        },
    ))
}

/// `/devices/end-others`
#[component]
pub fn EndOthers() -> impl IntoView {
    page(Access::SignedIn, load_end_others)
}

async fn load_end_others(visit: Visit) -> Result<Sheet, PageError> {
    let list = visit.services.devices.list().await?;
    let error = visit.failure("end_other_sessions");
    let others: Vec<_> = list.living.into_iter().filter(|session| !session.current).collect();
    let now = visit.page.now;
    let count = others.len();
    let body = if count == 0 {
        view! {
            <h1>"End other sessions"</h1>
            <Empty icon=Icon::Devices><p>"You are not signed in anywhere else; there is nothing to end."</p></Empty>
            <p><ButtonLink href="/" label="Back to your devices"/></p>
        }
        .into_any()
    } else {
        let label = end_others_words(count);
        let cards = others
            .into_iter()
            .map(|session| view! { <SessionCard session now/> })
            .collect_view();
        let total = i64::try_from(count).unwrap_or(i64::MAX);
        view! {
            <h1>{label.clone()} "?"</h1>
            <p>{format!("{} will be signed out. This device stays signed in.", count_of(total, "device"))}</p>
            <Refused error/>
            <section aria-labelledby="ends"><h2 id="ends">"What will end"</h2><div class="stack">{cards}</div></section>
            <Form action="end_other_sessions" class="buttons">
                <Submit label look="danger"/>
                <ButtonLink href="/" label="Keep them"/>
            </Form>
        }
        .into_any()
    };
    Ok(Sheet::new("End other sessions", FRAME, body))
}
