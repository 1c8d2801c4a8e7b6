//! The warning before a sign-in ends for want of activity (MISSION.md M20).
//!
//! Owns: the countdown, and telling other tabs. Must not know: whether the session still lives; the
//! server decides, this only asks.

use std::cell::RefCell;
use std::time::Duration;

use js_sys::{Date, Object, Reflect};
use leptos::ev;
use leptos::html::Dialog;
use leptos::prelude::*;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{BroadcastChannel, HtmlDialogElement, RequestInit, Response};

/// Tabs tell each other here that the person is active.
const CHANNEL: &str = "mayfly-activity";

thread_local! {
    /// This tab's end of it. Not a `StoredValue::new_local`: on the server that is made by one thread and dropped by
    /// another, which panics and tears the connection down.
    static OPEN_CHANNEL: RefCell<Option<BroadcastChannel>> = const { RefCell::new(None) };
}

/// Counts from the loading of the page, warns in time, offers to stay, and goes to the sign-in page at the end.
#[island]
pub fn IdleWarning(
    /// Idle limit of this session, seconds.
    idle_limit_s: i64,
    /// How long before it the warning comes, seconds; 0 = none.
    idle_warning_s: i64,
    /// Seconds until the session ends whatever happens, from the loading of the page.
    left_s: i64,
    /// For the form inside.
    form_token: String,
) -> impl IntoView {
    let dialog = NodeRef::<Dialog>::new();
    let (remaining, set_remaining) = signal(idle_limit_s);
    let (trouble, set_trouble) = signal("");
    let active_at = StoredValue::new(0.0_f64);

    let active_here = move || {
        active_at.set_value(Date::now());
        set_trouble.set("");
        close(dialog);
    };

    // Effects run in the browser only.
    Effect::new(move |_| {
        let loaded_at = Date::now();
        active_at.set_value(loaded_at);
        if let Ok(open) = BroadcastChannel::new(CHANNEL) {
            let heard = Closure::<dyn Fn()>::new(active_here);
            open.set_onmessage(Some(heard.as_ref().unchecked_ref()));
            heard.forget();
            tell(&open);
            OPEN_CHANNEL.set(Some(open));
        }
        let tick = move || {
            let now = Date::now();
            let idle_left = left(idle_limit_s, active_at.get_value(), now);
            let at_most = left(left_s, loaded_at, now);
            if idle_left.min(at_most) <= 0 {
                go_to_sign_in();
            } else if idle_left <= idle_warning_s {
                set_remaining.set(idle_left);
                open(dialog);
            }
        };
        if let Err(error) = set_interval_with_handle(tick, Duration::from_secs(1)) {
            leptos::logging::error!("The idle warning could not be started: {error:?}");
        }
    });

    let stay = {
        let token = form_token.clone();
        move |event: ev::Event| {
            event.prevent_default();
            let answered = Closure::once(
                move |answer: JsValue| match answer.unchecked_into::<Response>().status() {
                    200..=299 => {
                        active_here();
                        OPEN_CHANNEL.with_borrow(|channel| channel.as_ref().map(tell));
                    }
                    401 => go_to_sign_in(),
                    _ => set_trouble.set("That did not work. Please try again."),
                },
            );
            let unreachable =
                Closure::once(move |_: JsValue| set_trouble.set("The server cannot be reached. Please try again."));
            drop(post(&token).then2(&answered, &unreachable));
            answered.forget();
            unreachable.forget();
        }
    };
    let stay_on_escape = stay.clone();
    view! {
        <dialog
            node_ref=dialog
            class="idle-warning"
            role="alertdialog"
            aria-labelledby="idle-title"
            aria-describedby="idle-text"
            on:cancel=move |event: ev::Event| stay_on_escape(event)
        >
            <form method="post" action="/actions/stay_signed_in" on:submit=move |event| stay(event.into())>
                <input type="hidden" name="form_token" value=form_token/>
                <h2 id="idle-title">"Are you still there?"</h2>
                <p id="idle-text">
                    "You have not done anything for a while. To protect you, you will be signed out in "
                    <span class="countdown" role="timer">{move || clock(remaining.get())}</span>
                    "."
                </p>
                <p class="problem" role="alert">{trouble}</p>
                <button class="button" data-look="primary" type="submit">"Stay signed in"</button>
            </form>
        </dialog>
    }
}

/// Whole seconds left of `limit_s` since `from`, both times in milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a difference of two times of this page, far below 2^53 ms"
)]
fn left(limit_s: i64, from: f64, now: f64) -> i64 {
    limit_s - ((now - from) / 1000.0) as i64
}

/// "1:05"
fn clock(seconds: i64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn open(dialog: NodeRef<Dialog>) {
    if let Some(dialog) = dialog.get_untracked().filter(|dialog| !dialog.open())
        && let Err(error) = dialog.show_modal()
    {
        leptos::logging::error!("The idle warning could not be shown: {error:?}");
    }
}

fn close(dialog: NodeRef<Dialog>) {
    if let Some(dialog) = dialog.get_untracked().filter(HtmlDialogElement::open) {
        dialog.close();
    }
}

fn tell(channel: &BroadcastChannel) {
    // A closed channel means that this page is being left.
    drop(channel.post_message(&JsValue::TRUE));
}

/// The sign-in page says why; afterwards the person is back here.
fn go_to_sign_in() {
    let location = window().location();
    let here = location.pathname().unwrap_or_default() + &location.search().unwrap_or_default();
    let to = format!(
        "/sign-in?return_to={}",
        String::from(js_sys::encode_uri_component(&here))
    );
    if let Err(error) = location.assign(&to) {
        leptos::logging::error!("The sign-in page could not be opened: {error:?}");
    }
}

fn post(token: &str) -> js_sys::Promise {
    let headers = Object::new();
    for (name, value) in [
        ("Accept", "application/json"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ] {
        // Setting a property of a plain object made here cannot fail.
        drop(Reflect::set(&headers, &name.into(), &value.into()));
    }
    let request = RequestInit::new();
    request.set_method("POST");
    request.set_headers(&headers);
    request.set_body(&format!("form_token={}", String::from(js_sys::encode_uri_component(token))).into());
    window().fetch_with_str_and_init("/actions/stay_signed_in", &request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_countdown_reads_as_a_clock() {
        assert_eq!(clock(65), "1:05");
        assert_eq!(clock(9), "0:09");
    }

    #[test]
    fn what_is_left_shrinks_with_time() {
        assert_eq!(left(900, 1_000.0, 1_000.0), 900);
        assert_eq!(left(900, 1_000.0, 901_500.0), 0);
        assert_eq!(left(900, 1_000.0, 61_999.0), 840);
    }
}
