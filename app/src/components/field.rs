//! Fields with label, hint and error tied together (WCAG 1.3.1, 3.3.1).

#![expect(clippy::needless_pass_by_value, reason = "properties of a component are owned")]

use leptos::prelude::*;

use crate::error::{ActionError, Field};
use crate::words;

/// The sentence for this field, if the error is about it.
pub fn problem_at(error: Option<ActionError>, field: Field) -> Option<String> {
    error
        .filter(|error| error.field() == Some(field))
        .map(words::action_error)
}

/// One line of text.
#[component]
pub fn TextField(
    /// Name in the form, and id.
    name: &'static str,
    /// Label.
    #[prop(into)]
    label: String,
    /// `text`, `password`, `email`, `search`, `datetime-local`.
    #[prop(default = "text")]
    kind: &'static str,
    /// Value.
    #[prop(optional, into)]
    value: String,
    /// What to enter.
    #[prop(optional, into)]
    hint: String,
    /// What is wrong with it.
    #[prop(optional_no_strip)]
    problem: Option<String>,
    /// `autocomplete` of HTML, so that password managers know.
    #[prop(default = "off")]
    autocomplete: &'static str,
    /// Must be filled in.
    #[prop(optional)]
    required: bool,
    /// The first thing to do on this page.
    #[prop(optional)]
    first: bool,
    /// Least number of characters, 0 = any.
    #[prop(optional)]
    shortest: u32,
) -> impl IntoView {
    let (described_by, notes) = notes(name, hint, problem.clone());
    // Names and addresses must not be "corrected" while typing.
    let plain = matches!(kind, "text" | "email" | "search");
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <input
                id=name
                name=name
                type=kind
                value=value
                autocomplete=autocomplete
                autocapitalize=plain.then_some("none")
                spellcheck=plain.then_some("false")
                required=required
                minlength=(shortest > 0).then(|| shortest.to_string())
                autofocus=first || problem.is_some()
                aria-invalid=problem.is_some().then_some("true")
                aria-describedby=described_by
            />
            {notes}
        </div>
    }
    .into_any()
}

/// A whole number with its unit.
#[component]
pub fn NumberField(
    /// Name in the form, and id.
    name: &'static str,
    /// Label.
    #[prop(into)]
    label: String,
    /// Unit, e.g. "minutes".
    #[prop(optional, into)]
    unit: String,
    /// Value.
    #[prop(into)]
    value: String,
    /// What to enter.
    #[prop(optional, into)]
    hint: String,
    /// What is wrong with it.
    #[prop(optional_no_strip)]
    problem: Option<String>,
) -> impl IntoView {
    let (described_by, notes) = notes(name, hint, problem.clone());
    view! {
        <div class="field">
            <label for=name>{label}{(!unit.is_empty()).then(|| view! { <span class="visually-hidden">", in " {unit.clone()}</span> })}</label>
            <span class="with-unit">
                <input
                    id=name
                    name=name
                    type="number"
                    inputmode="numeric"
                    min="0"
                    step="1"
                    required=true
                    value=value
                    autofocus=problem.is_some()
                    aria-invalid=problem.is_some().then_some("true")
                    aria-describedby=described_by
                />
                <span aria-hidden="true">{unit.clone()}</span>
            </span>
            {notes}
        </div>
    }
    .into_any()
}

/// A duration in hours and minutes: two numbers under one label.
#[component]
pub fn HoursAndMinutes(
    /// Name of the hours in the form, and id.
    hours_name: &'static str,
    /// Name of the minutes in the form, and id.
    minutes_name: &'static str,
    /// Label.
    #[prop(into)]
    label: String,
    /// Whole hours.
    hours: String,
    /// Minutes beyond them.
    minutes: String,
    /// What to enter.
    #[prop(optional, into)]
    hint: String,
    /// What is wrong with it.
    #[prop(optional_no_strip)]
    problem: Option<String>,
) -> impl IntoView {
    let invalid = problem.is_some().then_some("true");
    let (described_by, notes) = notes(hours_name, hint, problem);
    view! {
        <div class="field">
            <label for=hours_name>{label.clone()}<span class="visually-hidden">", hours"</span></label>
            <span class="with-unit">
                <input id=hours_name name=hours_name type="number" inputmode="numeric" min="0" step="1" required=true
                    value=hours aria-invalid=invalid aria-describedby=described_by.clone()/>
                <span aria-hidden="true">"hours"</span>
                <label class="visually-hidden" for=minutes_name>{label} ", further minutes"</label>
                <input id=minutes_name name=minutes_name type="number" inputmode="numeric" min="0" max="59" step="1" required=true
                    value=minutes aria-invalid=invalid aria-describedby=described_by/>
                <span aria-hidden="true">"minutes"</span>
            </span>
            {notes}
        </div>
    }
    .into_any()
}

/// Several lines of text.
#[component]
pub fn TextArea(
    /// Name in the form, and id.
    name: &'static str,
    /// Label.
    #[prop(into)]
    label: String,
    /// What to enter.
    #[prop(optional, into)]
    hint: String,
    /// What is wrong with it.
    #[prop(optional_no_strip)]
    problem: Option<String>,
    /// Must be filled in.
    #[prop(optional)]
    required: bool,
) -> impl IntoView {
    let (described_by, notes) = notes(name, hint, problem.clone());
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <textarea
                id=name
                name=name
                rows="2"
                required=required
                aria-invalid=problem.is_some().then_some("true")
                aria-describedby=described_by
            ></textarea>
            {notes}
        </div>
    }
    .into_any()
}

/// A choice of one, as a list to pull down.
#[component]
pub fn Choice(
    /// Name in the form, and id.
    name: &'static str,
    /// Label.
    #[prop(into)]
    label: String,
    /// Values and their words.
    options: Vec<(String, String)>,
    /// The value chosen.
    #[prop(into)]
    chosen: String,
    /// What is wrong with it.
    #[prop(optional_no_strip)]
    problem: Option<String>,
) -> impl IntoView {
    let (described_by, notes) = notes(name, String::new(), problem);
    let options = options
        .into_iter()
        .map(|(value, text)| {
            let selected = value == chosen;
            view! { <option value=value selected=selected>{text}</option> }
        })
        .collect_view();
    view! {
        <div class="field">
            <label for=name>{label}</label>
            <select id=name name=name aria-describedby=described_by>{options}</select>
            {notes}
        </div>
    }
    .into_any()
}

/// Roles to tick, sent as `roles[]`.
#[component]
pub fn RoleChoice(
    /// Words over the boxes.
    #[prop(default = "Roles")]
    legend: &'static str,
    /// Every role there is.
    all: Vec<String>,
    /// Those held.
    #[prop(optional)]
    held: Vec<String>,
    /// What is wrong with it.
    #[prop(optional_no_strip)]
    problem: Option<String>,
) -> impl IntoView {
    let (described_by, notes) = notes("roles", String::new(), problem);
    let boxes = all
        .into_iter()
        .map(|role| {
            let checked = held.contains(&role);
            view! {
                <label class="tick">
                    <input type="checkbox" name="roles[]" value=role.clone() checked=checked/>
                    <span>{role.clone()}</span>
                </label>
            }
        })
        .collect_view();
    view! { <fieldset class="field ticks" aria-describedby=described_by><legend>{legend}</legend>{boxes}{notes}</fieldset> }.into_any()
}

fn notes(name: &str, hint: String, problem: Option<String>) -> (Option<String>, impl IntoView + use<>) {
    let hint_id = format!("{name}-hint");
    let problem_id = format!("{name}-problem");
    let ids: Vec<_> = [
        (!hint.is_empty()).then(|| hint_id.clone()),
        problem.is_some().then(|| problem_id.clone()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let described_by = (!ids.is_empty()).then(|| ids.join(" "));
    let view = (
        (!hint.is_empty()).then(|| view! { <p class="hint" id=hint_id>{hint}</p> }),
        problem.map(|problem| view! { <p class="problem" id=problem_id>{problem}</p> }),
    );
    (described_by, view)
}
