//! What stands around a page: navigation and account, or the single card of a sign-in step.

use leptos::prelude::*;
use leptos_meta::Title;

use super::form::{Form, Submit};
use super::icons::{Glyph, Icon, Logo};
use super::message::{Message, Tone};
use crate::islands::{IdleWarning, LocalTime, ThemeSwitch};
use crate::request::Entry;
use crate::types::{Notice, PageContext, Viewer};
use crate::words;

/// A page beside the navigation.
#[component]
pub fn Console(
    /// Title of the document.
    title: String,
    /// Where the page stands in the navigation.
    entry: Entry,
    /// Who is signed in.
    viewer: Viewer,
    /// The server's time.
    now: i64,
    /// News.
    notice: Option<Notice>,
    /// The page.
    body: AnyView,
) -> impl IntoView {
    let form_token = use_context::<PageContext>()
        .map(|page| page.form_token)
        .unwrap_or_default();
    let left_ms = viewer.absolute_end_at.saturating_sub(now);
    let link = move |to: Entry, href: &'static str, icon: Icon, words: &'static str| {
        let current = (to == entry).then_some("page");
        view! { <li><a href=href aria-current=current><Glyph icon/><span>{words}</span></a></li> }
    };
    let administration = (viewer.is_admin || viewer.may_read_audit).then(|| {
        view! {
            <p class="navigation-heading" id="administration">"Administration"</p>
            <ul aria-labelledby="administration">
                {viewer.is_admin.then(|| link(Entry::Roles, "/admin/roles", Icon::Sliders, "Roles"))}
                {viewer.is_admin.then(|| link(Entry::People, "/admin/people", Icon::People, "People"))}
                {viewer.may_read_audit.then(|| link(Entry::Audit, "/admin/audit", Icon::Log, "Audit log"))}
            </ul>
        }
    });
    view! {
        <Title text=title/>
        <a class="skip-link" href="#content">"Skip to content"</a>
        <div class="console">
            <header class="side">
                <a class="brand" href="/"><Logo/><span>"Mayfly"</span></a>
                <nav class="navigation" aria-label="Main">
                    <ul>
                        {link(Entry::Devices, "/", Icon::Devices, "Your devices")}
                        {link(Entry::Security, "/security", Icon::Shield, "Security")}
                    </ul>
                    {administration}
                </nav>
                <div class="account">
                    <p class="account-name"><span class="visually-hidden">"Signed in as "</span>{viewer.display_name}</p>
                    <ThemeSwitch/>
                    <Form action="sign_out"><Submit label="Sign out" look="quiet"/></Form>
                </div>
            </header>
            <main id="content" class="content" tabindex="-1">
                <News notice/>
                {body}
            </main>
        </div>
        <IdleWarning
            idle_limit_s=viewer.idle_limit_s
            idle_warning_s=viewer.idle_warning_s
            left_s=left_ms / 1000
            form_token
        />
        <LocalTime/>
    }
    .into_any()
}

/// A step of signing in.
#[component]
pub fn Steps(
    /// Title of the document.
    title: String,
    /// News.
    notice: Option<Notice>,
    /// The page.
    body: AnyView,
) -> impl IntoView {
    view! {
        <Title text=title/>
        <div class="steps">
            <header class="steps-head"><span class="brand"><Logo/><span>"Mayfly"</span></span><ThemeSwitch/></header>
            <main id="content" class="card step" tabindex="-1">
                <News notice/>
                {body}
            </main>
        </div>
        <LocalTime/>
    }
    .into_any()
}

#[component]
fn News(notice: Option<Notice>) -> impl IntoView {
    notice.map(|notice| {
        let tone = if words::is_good(notice) {
            Tone::Good
        } else {
            Tone::Warning
        };
        view! { <Message tone><p>{words::notice(notice)}</p></Message> }
    })
}
