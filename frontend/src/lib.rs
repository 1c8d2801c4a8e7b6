//! The browser's share: wakes the islands of a page.
//!
//! Owns: the entry point that the page's loader calls. Must not know: any single island.

// Without this reference the linker drops the islands.
use app as _;
use wasm_bindgen::prelude::wasm_bindgen;

/// Called once per page, before its islands.
#[wasm_bindgen]
pub fn hydrate() {
    leptos::mount::hydrate_islands();
}
