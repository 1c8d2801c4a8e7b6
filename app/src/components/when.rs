//! Points in time, as people read them.

use leptos::prelude::*;

use crate::words::time::{exact, iso, relative, stamp};

/// "3 minutes ago", with the exact time in the tooltip.
#[component]
pub fn When(
    /// The time, Unix milliseconds.
    at: i64,
    /// The server's time.
    now: i64,
) -> impl IntoView {
    view! { <time datetime=iso(at) title=exact(at)>{relative(now, at)}</time> }.into_any()
}

/// "12 March 2026, 10:42 UTC": where the date itself matters.
#[component]
pub fn Exactly(
    /// The time, Unix milliseconds.
    at: i64,
) -> impl IntoView {
    view! { <time datetime=iso(at) title=exact(at) data-show="exact">{exact(at)}</time> }.into_any()
}

/// "2026-03-12 10:42:05": the log, always in UTC so that two people talk about the same line.
#[component]
pub fn Stamp(
    /// The time, Unix milliseconds.
    at: i64,
) -> impl IntoView {
    view! { <time class="stamp" datetime=iso(at) title=exact(at)>{stamp(at)}</time> }.into_any()
}
