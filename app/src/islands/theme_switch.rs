//! Light or dark, kept in the cookie `theme` for a year. The server reads it; it is no secret.

use leptos::prelude::*;
use wasm_bindgen::JsCast;

/// A button that turns the other theme on.
#[island]
pub fn ThemeSwitch() -> impl IntoView {
    let switch = move |_| {
        let Some(root) = document().document_element() else {
            return;
        };
        let dark = match root.get_attribute("data-theme") {
            Some(theme) => theme == "dark",
            None => prefers_dark(),
        };
        let theme = if dark { "light" } else { "dark" };
        // An attribute with a fixed, valid name cannot be refused.
        drop(root.set_attribute("data-theme", theme));
        let cookie = format!("theme={theme}; Path=/; Max-Age=31536000; SameSite=Lax");
        drop(document().unchecked_into::<web_sys::HtmlDocument>().set_cookie(&cookie));
    };
    view! {
        <button class="theme-switch" type="button" aria-label="Switch between light and dark" on:click=switch>
            <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false">
                <path d="M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16z"></path>
                <path class="icon-filled" d="M12 4a8 8 0 0 1 0 16z"></path>
            </svg>
        </button>
    }
}

fn prefers_dark() -> bool {
    window()
        .match_media("(prefers-color-scheme: dark)")
        .ok()
        .flatten()
        .is_some_and(|query| query.matches())
}
