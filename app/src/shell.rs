//! The HTML document around every page.
//!
//! Owns: `<head>`, the style sheet, the loader of the islands. Must not know: any page.

use leptos::nonce::use_nonce;
use leptos::prelude::*;
use leptos_meta::MetaTags;

use crate::routes::App;
use crate::types::PageContext;

/// The whole document, for `leptos_routes_with_context` and for the server's fallback.
#[must_use]
pub fn shell() -> impl IntoView {
    view! { <Shell/> }
}

/// The whole document: reads [`PageContext`] from the leptos context.
///
/// Without it (while the routes are listed) only the bare document is made.
#[component]
pub fn Shell() -> impl IntoView {
    let page = use_context::<PageContext>();
    let theme = page.as_ref().and_then(|page| page.theme.clone());
    let assets = page.map(|page| page.assets).unwrap_or_default();
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme>
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <meta name="color-scheme" content="light dark"/>
                <meta name="robots" content="noindex"/>
                <link rel="icon" href=FAVICON/>
                {(!assets.style.is_empty()).then(|| view! { <link rel="stylesheet" href=assets.style/> })}
                {assets.islands.map(|name| view! { <IslandLoader name/> })}
                <MetaTags/>
            </head>
            <body>
                <App/>
            </body>
        </html>
    }
}

/// The logo in 32 pixels. A data address, because `img-src` allows it and it saves a request.
const FAVICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E\
    %3Cg fill='none' stroke='%230f766e' stroke-width='2.5' stroke-linecap='round' stroke-linejoin='round'%3E\
    %3Cpath d='M16 12v10M16 22c0 4-2 6-4 8M16 22c0 4 2 6 4 8M16 14C12 4 6 3 4 5c-2 3 4 9 12 10M16 14c4-10 10-11 12-9 2 3-4 9-12 10'/%3E\
    %3C/g%3E%3C/svg%3E";

/// Loads the WebAssembly and wakes each island of the page.
///
/// Replaces leptos' `HydrationScripts`: that one emits a `modulepreload` without a nonce, which the
/// content security policy (`'strict-dynamic'`) refuses with an error in the console.
#[component]
fn IslandLoader(
    /// `output_name` of the islands.
    name: String,
) -> impl IntoView {
    if let Some(context) = Owner::current_shared_context() {
        context.set_is_hydrating(false);
    }
    let nonce = use_nonce().map(|nonce| nonce.to_string());
    let script = format!("({})({name:?})", include_str!("shell/load_islands.js").trim());
    view! {
        <link rel="modulepreload" href=format!("/pkg/{name}.js") nonce=nonce.clone()/>
        <link rel="preload" href=format!("/pkg/{name}_bg.wasm") r#as="fetch" r#type="application/wasm" crossorigin="anonymous"/>
        <script type="module" nonce=nonce>{script}</script>
    }
}
