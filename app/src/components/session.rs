//! Sessions in lists, as their owner and as administrators see them.

#![expect(clippy::needless_pass_by_value, reason = "properties of a component are owned")]

use leptos::prelude::*;

use super::icons::{Glyph, Icon};
use super::message::{Badge, Tone};
use super::when::When;
use crate::types::{DeviceKind, EndedSessionView, SessionView};
use crate::words;
use crate::words::time::duration;

/// One living session as a card; `action` is what can be done with it.
#[component]
pub fn SessionCard(
    /// The session.
    session: SessionView,
    /// The server's time.
    now: i64,
    /// Button or link.
    #[prop(optional)]
    action: Option<AnyView>,
) -> impl IntoView {
    let heading = format!("session-{}", session.id);
    view! {
        <article class="session card" aria-labelledby=heading.clone()>
            <span class="session-icon"><Glyph icon=Icon::of_device(session.kind)/></span>
            <div class="session-main">
                <h3 id=heading.clone()>{session.device.clone()} {session.current.then(|| view! { " " <Badge tone=Tone::Good text="This device"/> })}</h3>
                <p class="quiet">{session.network.clone()} " · signed in with " {session.signed_in_with.clone()} {bound(&session)}</p>
                <dl class="facts">
                    <div><dt>"First seen"</dt><dd><When at=session.started_at now/></dd></div>
                    <div><dt>"Last active"</dt><dd><When at=session.last_active_at now/></dd></div>
                    <div><dt>"Signs out"</dt><dd><When at=session.ends_at now/></dd></div>
                </dl>
                <p class="quiet session-rule">{rule_sentence(&session)}</p>
            </div>
            {action.map(|action| view! { <div class="session-action">{action}</div> })}
        </article>
    }
    .into_any()
}

fn bound(session: &SessionView) -> Option<&'static str> {
    let holder = match session.kind {
        DeviceKind::Program => " · bound to a key of the app",
        _ => " · bound to a key of its browser",
    };
    session.bound_to_key.then_some(holder)
}

/// When it ends by itself, and which rule says so.
pub fn rule_sentence(session: &SessionView) -> String {
    let idle = format!(
        "after {} without activity ({})",
        duration(session.idle_limit_s),
        words::rule(&session.idle_rule)
    );
    let lifetime = duration((session.absolute_end_at - session.started_at) / 1000);
    let absolute = format!("{lifetime} after sign-in ({})", words::rule(&session.absolute_rule));
    if session.ends_idle {
        format!("Signs out {idle}, at the latest {absolute}.")
    } else {
        format!("Signs out {absolute}, earlier {idle}.")
    }
}

/// Sessions that are over, as a table.
#[component]
pub fn EndedSessions(
    /// Newest first.
    sessions: Vec<EndedSessionView>,
    /// The server's time.
    now: i64,
) -> impl IntoView {
    let rows = sessions
        .into_iter()
        .map(|session| {
            let alarming = words::is_alarming(session.ending.reason);
            let why = words::ended(&session.ending);
            let why = if alarming {
                view! { <Badge tone=Tone::Warning text=why/> }.into_any()
            } else {
                why.into_any()
            };
            view! {
                <tr>
                    <th scope="row"><span class="device"><Glyph icon=Icon::of_device(session.kind)/>{session.device}</span></th>
                    <td data-label="Network">{session.network}</td>
                    <td data-label="Signed in"><When at=session.started_at now/></td>
                    <td data-label="Ended"><When at=session.ended_at now/></td>
                    <td data-label="Why">{why}</td>
                </tr>
            }
        })
        .collect_view();
    view! {
        <div class="table-card">
            <table class="table">
                <caption class="visually-hidden">"Ended sessions of the last 30 days, newest first"</caption>
                <thead>
                    <tr>
                        <th scope="col">"Device"</th>
                        <th scope="col">"Network"</th>
                        <th scope="col">"Signed in"</th>
                        <th scope="col">"Ended"</th>
                        <th scope="col">"Why"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}
