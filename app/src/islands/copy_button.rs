//! Copies a text that stands on the page.

use leptos::prelude::*;
use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;

/// A button that copies `text` and says whether it worked.
#[island]
pub fn CopyButton(
    /// What is copied; visible on the page anyway.
    text: String,
    /// Words on the button.
    label: String,
) -> impl IntoView {
    let (outcome, set_outcome) = signal("");
    let copy = move |_| {
        let copied = Closure::once(move |_: JsValue| set_outcome.set("Copied"));
        let refused = Closure::once(move |_: JsValue| set_outcome.set("Please select and copy it by hand"));
        // Both closures must outlive this call; the browser calls one of them once.
        drop(
            window()
                .navigator()
                .clipboard()
                .write_text(&text)
                .then2(&copied, &refused),
        );
        copied.forget();
        refused.forget();
    };
    view! {
        <span class="copy">
            <button class="button" data-look="plain" type="button" on:click=copy>{label}</button>
            <span class="quiet" role="status">{outcome}</span>
        </span>
    }
}
