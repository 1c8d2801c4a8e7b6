//! The one way to send a form: plain HTML with the synchroniser token, so that none can be without it.

use leptos::prelude::*;

use crate::types::PageContext;

/// A form that posts to the server function `action`.
#[component]
pub fn Form(
    /// Endpoint of the server function, e.g. `sign_in`.
    action: &'static str,
    /// Class of the form.
    #[prop(optional)]
    class: &'static str,
    /// Fields and buttons.
    children: Children,
) -> impl IntoView {
    // Without a page context no page is rendered, so no form is either.
    let token = use_context::<PageContext>()
        .map(|page| page.form_token)
        .unwrap_or_default();
    view! {
        <form class=format!("form {class}") method="post" action=format!("/actions/{action}")>
            <input type="hidden" name="form_token" value=token/>
            {children()}
        </form>
    }
    .into_any()
}

/// A value the form carries without showing it.
#[component]
pub fn Hidden(
    /// Name.
    name: &'static str,
    /// Value.
    #[prop(into)]
    value: String,
) -> impl IntoView {
    view! { <input type="hidden" name=name value=value/> }.into_any()
}

/// The account a password belongs to, for password managers; neither shown nor sent.
#[component]
pub fn AccountOfPassword(
    /// Sign-in name.
    username: String,
) -> impl IntoView {
    view! { <input hidden=true type="text" autocomplete="username" value=username readonly=true/> }.into_any()
}

/// The button that sends the form.
#[component]
pub fn Submit(
    /// What it does, in words.
    #[prop(into)]
    label: String,
    /// `primary` once per page, `danger` for endings, `plain` otherwise.
    #[prop(default = "primary")]
    look: &'static str,
) -> impl IntoView {
    view! { <button class="button" data-look=look type="submit">{label}</button> }.into_any()
}

/// A link that looks like a button and goes to another page.
#[component]
pub fn ButtonLink(
    /// Address.
    #[prop(into)]
    href: String,
    /// Words.
    #[prop(into)]
    label: String,
    /// As for [`Submit`].
    #[prop(default = "plain")]
    look: &'static str,
    /// Names the thing, where the same words stand more than once on a page.
    #[prop(optional, into)]
    names: Option<String>,
) -> impl IntoView {
    let names = names.map(|names| view! { <span class="visually-hidden">": " {names}</span> });
    view! { <a class="button" data-look=look href=href>{label}{names}</a> }.into_any()
}
