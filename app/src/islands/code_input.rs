//! The field for a six-digit code.

use leptos::ev;
use leptos::html::Input;
use leptos::prelude::*;

/// Digits of a code (RFC 6238 allows more; ours have six).
const DIGITS: usize = 6;

/// For so long after the sixth digit an Enter belongs to it, milliseconds. Later it is a new try.
const HABIT_MS: f64 = 1_000.0;

/// One field that takes a pasted "123 456", keeps the digits and sends the form at the sixth.
///
/// One field and not six: password managers, screen readers and pasting all work with one.
#[island]
pub fn CodeInput(
    /// Name in the form, and id.
    name: String,
    /// Label.
    label: String,
    /// What to enter; empty for none.
    hint: String,
    /// What was wrong with the code before; empty for nothing.
    problem: String,
) -> impl IntoView {
    let field = NodeRef::<Input>::new();
    let sent = StoredValue::new(false);
    let sent_at = StoredValue::new(f64::NEG_INFINITY);
    let on_input = move |event: ev::Event| {
        let Some(field) = field.get_untracked() else { return };
        let typed = field.value();
        let digits: String = typed.chars().filter(char::is_ascii_digit).take(DIGITS).collect();
        if digits != typed {
            field.set_value(&digits);
        }
        if digits.len() < DIGITS {
            sent.set_value(false);
        } else if !sent.get_value() {
            sent.set_value(true);
            sent_at.set_value(event.time_stamp());
            if let Some(form) = field.form() {
                // The only refusal is a submitter that is not the form's; there is none here.
                drop(form.request_submit());
            }
        }
    };
    // Whoever is used to pressing Enter would send the code twice, and the second try would count.
    let on_keydown = move |event: ev::KeyboardEvent| {
        if event.key() == "Enter" && event.time_stamp() - sent_at.get_value() < HABIT_MS {
            event.prevent_default();
        }
    };
    let hint_id = format!("{name}-hint");
    let problem_id = format!("{name}-problem");
    let invalid = !problem.is_empty();
    let described_by = match (hint.is_empty(), invalid) {
        (true, false) => None,
        (false, false) => Some(hint_id.clone()),
        (true, true) => Some(problem_id.clone()),
        (false, true) => Some(format!("{hint_id} {problem_id}")),
    };
    view! {
        <div class="field">
            <label for=name.clone()>{label}</label>
            <input
                node_ref=field
                class="code-input"
                id=name.clone()
                name=name
                type="text"
                inputmode="numeric"
                autocomplete="one-time-code"
                spellcheck="false"
                required=true
                autofocus=true
                aria-invalid=invalid.then_some("true")
                aria-describedby=described_by
                on:input=on_input
                on:keydown=on_keydown
            />
            {(!hint.is_empty()).then(|| view! { <p class="hint" id=hint_id>{hint}</p> })}
            {invalid.then(|| view! { <p class="problem" id=problem_id>{problem}</p> })}
        </div>
    }
}
