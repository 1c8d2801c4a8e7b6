//! One role: its limits, presets to start from, a preview on the living sessions, history.
//!
//! Works without JavaScript: presets and preview are addresses, saving is the only form that posts.

use http::StatusCode;
use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::roles::{Limits, people, sessions};
use crate::components::field::{Choice, HoursAndMinutes, NumberField, TextArea, problem_at};
use crate::components::form::{ButtonLink, Form, Hidden, Submit};
use crate::components::message::{Badge, Message, Refused, Tone};
use crate::components::when::When;
use crate::error::{ActionError, Field, PageError, Problem};
use crate::request::{Access, Entry, Frame, Sheet, Visit, encode, page, set_status};
use crate::types::{Lifetimes, MfaRule, PolicyPreview, PolicyVersionView, Preset, RoleView};
use crate::words;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The limits as they are typed: text, so that a wrong entry gets an answer at its own field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsForm {
    access_minutes: String,
    idle_minutes: String,
    absolute_hours: String,
    absolute_minutes: String,
    idle_warning_seconds: String,
    remember_device_days: String,
    mfa: String,
    step_up_minutes: String,
    max_sessions: String,
}

impl LimitsForm {
    /// The values in force, in the units of the form; parts of a unit are rounded up.
    fn of(limits: &Lifetimes) -> Self {
        let whole =
            |seconds: i64, unit: i64| (seconds.div_euclid(unit) + i64::from(seconds.rem_euclid(unit) > 0)).to_string();
        Self {
            access_minutes: whole(limits.access_s, MINUTE),
            idle_minutes: whole(limits.idle_s, MINUTE),
            absolute_hours: limits.absolute_s.div_euclid(HOUR).to_string(),
            absolute_minutes: whole(limits.absolute_s.rem_euclid(HOUR), MINUTE),
            idle_warning_seconds: limits.idle_warning_s.to_string(),
            remember_device_days: whole(limits.remember_device_s, DAY),
            mfa: mfa_key(limits.mfa).to_owned(),
            step_up_minutes: whole(limits.step_up_s, MINUTE),
            max_sessions: limits.max_sessions.to_string(),
        }
    }

    fn of_query(visit: &Visit) -> Self {
        Self {
            access_minutes: visit.query("access_minutes"),
            idle_minutes: visit.query("idle_minutes"),
            absolute_hours: visit.query("absolute_hours"),
            absolute_minutes: visit.query("absolute_minutes"),
            idle_warning_seconds: visit.query("idle_warning_seconds"),
            remember_device_days: visit.query("remember_device_days"),
            mfa: visit.query("mfa"),
            step_up_minutes: visit.query("step_up_minutes"),
            max_sessions: visit.query("max_sessions"),
        }
    }

    fn names_and_values(&self) -> [(&'static str, &String); 9] {
        [
            ("access_minutes", &self.access_minutes),
            ("idle_minutes", &self.idle_minutes),
            ("absolute_hours", &self.absolute_hours),
            ("absolute_minutes", &self.absolute_minutes),
            ("idle_warning_seconds", &self.idle_warning_seconds),
            ("remember_device_days", &self.remember_device_days),
            ("mfa", &self.mfa),
            ("step_up_minutes", &self.step_up_minutes),
            ("max_sessions", &self.max_sessions),
        ]
    }

    /// The values meant.
    ///
    /// # Errors
    /// [`ActionError::Invalid`] for the first entry that is no whole number or far outside any limit;
    /// the exact bounds are the server's.
    pub fn lifetimes(&self) -> Result<Lifetimes, ActionError> {
        let absolute_minutes = if self.absolute_minutes.is_empty() {
            "0"
        } else {
            &self.absolute_minutes
        };
        Ok(Lifetimes {
            access_s: seconds(&self.access_minutes, MINUTE, Field::AccessLifetime)?,
            idle_s: seconds(&self.idle_minutes, MINUTE, Field::IdleLimit)?,
            absolute_s: seconds(&self.absolute_hours, HOUR, Field::AbsoluteLimit)?
                + seconds(absolute_minutes, MINUTE, Field::AbsoluteLimit)?,
            idle_warning_s: seconds(&self.idle_warning_seconds, 1, Field::IdleWarning)?,
            remember_device_s: seconds(&self.remember_device_days, DAY, Field::RememberDevice)?,
            mfa: match self.mfa.as_str() {
                "off" => MfaRule::Off,
                "optional" => MfaRule::Optional,
                "required" => MfaRule::Required,
                _ => {
                    return Err(ActionError::Invalid {
                        field: Field::Mfa,
                        problem: Problem::Wrong,
                    });
                }
            },
            step_up_s: seconds(&self.step_up_minutes, MINUTE, Field::StepUpAge)?,
            max_sessions: u32::try_from(seconds(&self.max_sessions, 1, Field::MaxSessions)?).map_err(|_| {
                ActionError::Invalid {
                    field: Field::MaxSessions,
                    problem: Problem::Wrong,
                }
            })?,
        })
    }
}

/// Ten digits at most: no product below can overflow.
fn seconds(text: &str, unit: i64, field: Field) -> Result<i64, ActionError> {
    let text = text.trim();
    let problem = if text.is_empty() {
        Problem::Missing
    } else {
        Problem::Wrong
    };
    let digits = text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    let count: Option<i64> = if digits { text.parse().ok() } else { None };
    count
        .map(|count| count * unit)
        .ok_or(ActionError::Invalid { field, problem })
}

const fn mfa_key(rule: MfaRule) -> &'static str {
    match rule {
        MfaRule::Off => "off",
        MfaRule::Optional => "optional",
        MfaRule::Required => "required",
    }
}

/// `/admin/roles/:role`, with `?preset=key` or the fields of [`LimitsForm`].
#[component]
pub fn Role() -> impl IntoView {
    page(Access::Admins, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let editor = visit.services.admin.role(visit.param("role")).await?;
    let role = editor.role;
    let now = visit.page.now;
    let chosen = visit.query("preset");
    let preset = editor.presets.iter().find(|preset| preset.key == chosen);
    if preset.is_none() && !chosen.is_empty() {
        return Err(PageError::BadQuery);
    }
    let proposed = visit.query.get("idle_minutes").is_some();
    let form = if proposed {
        LimitsForm::of_query(&visit)
    } else {
        LimitsForm::of(preset.map_or(&role.lifetimes, |preset| &preset.lifetimes))
    };
    let (preview, mut error) = match form.lifetimes() {
        Ok(lifetimes) if proposed => {
            let preview = visit
                .services
                .admin
                .preview_policy(role.name.clone(), lifetimes.clone())
                .await?;
            (Some((lifetimes, preview)), None)
        }
        Ok(_) => (None, None),
        Err(error) => (None, Some(error)),
    };
    let mut justify = role.justification.is_some();
    if let Some((
        _,
        PolicyPreview {
            refusal: Some((field, problem)),
            ..
        },
    )) = &preview
    {
        justify |= *problem == Problem::NeedsJustification;
        if *problem != Problem::NeedsJustification {
            error = Some(ActionError::Invalid {
                field: *field,
                problem: *problem,
            });
        }
    }
    if error.is_some() {
        // What was asked to be previewed is refused; the form shows where, and keeps it.
        set_status(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let saving = visit.failure("save_policy");
    let error = saving.or(error);
    let savable = error.is_none() || saving.is_some();
    let consequence = preview
        .filter(|_| savable)
        .map(|(lifetimes, preview)| view! { <Consequence role=role.clone() lifetimes preview form=form.clone() justify error/> });
    let presets = editor.presets;
    Ok(Sheet::new(
        format!("Limits of role {}", role.name),
        Frame::Console(Entry::Roles),
        view! {
            <p class="crumb"><a href="/admin/roles">"Roles"</a></p>
            <header class="page-head">
                <h1>"Limits of role " {role.name.clone()}</h1>
                <p class="lead">{role.description.clone()} " · " {people(role.people)} " · policy " {role.version}</p>
            </header>
            <Refused error/>
            {consequence}
            <Presets presets role=role.name.clone() chosen/>
            <Editor role=role.name.clone() form error/>
            <History versions=editor.history now/>
        },
    ))
}

#[component]
fn Presets(presets: Vec<Preset>, role: String, chosen: String) -> impl IntoView {
    let links = presets
        .into_iter()
        .map(|preset| {
            let current = (preset.key == chosen).then_some("true");
            let href = format!("/admin/roles/{}?preset={}#limits", encode(&role), encode(&preset.key));
            view! {
                <li><a href=href aria-current=current><strong>{preset.name}</strong><span>{preset.describes}</span></a></li>
            }
        })
        .collect_view();
    view! {
        <section aria-labelledby="presets">
            <h2 id="presets">"Start from a use case"</h2>
            <p class="quiet">"Fills in the form below. Nothing is saved before you have seen what it does."</p>
            <ul class="presets">{links}</ul>
        </section>
    }
    .into_any()
}

#[component]
fn Editor(role: String, form: LimitsForm, error: Option<ActionError>) -> impl IntoView {
    let rules = [MfaRule::Off, MfaRule::Optional, MfaRule::Required];
    let rules = rules
        .map(|rule| (mfa_key(rule).to_owned(), words::mfa(rule).to_owned()))
        .to_vec();
    let at = move |field| problem_at(error, field);
    // The preview is an address: it changes nothing, can be reloaded and sent to a colleague.
    view! {
        <section class="card" aria-labelledby="limits">
            <h2 id="limits">"Limits"</h2>
            <form class="form" method="get" action=format!("/admin/roles/{}", encode(&role))>
                <div class="grid">
                    <NumberField name="idle_minutes" label="Idle limit" unit="minutes" value=form.idle_minutes
                        hint="Signed out after this long without own activity." problem=at(Field::IdleLimit)/>
                    <HoursAndMinutes hours_name="absolute_hours" minutes_name="absolute_minutes" label="Absolute limit"
                        hours=form.absolute_hours minutes=form.absolute_minutes
                        hint="Signed out this long after sign-in, whatever happens." problem=at(Field::AbsoluteLimit)/>
                    <NumberField name="access_minutes" label="Access token lifetime" unit="minutes" value=form.access_minutes
                        hint="Renewed without anybody noticing. Shorter means a stolen one is useless sooner." problem=at(Field::AccessLifetime)/>
                    <Choice name="mfa" label="Second factor" options=rules chosen=form.mfa problem=at(Field::Mfa)/>
                    <NumberField name="step_up_minutes" label="Step-up age" unit="minutes" value=form.step_up_minutes
                        hint="Sensitive acts ask for a factor again when the last one is older." problem=at(Field::StepUpAge)/>
                    <NumberField name="idle_warning_seconds" label="Idle warning" unit="seconds" value=form.idle_warning_seconds
                        hint="So long before the idle limit a warning appears. 0 means none." problem=at(Field::IdleWarning)/>
                    // Remembering devices is not built yet: never.
                    <Hidden name="remember_device_days" value="0"/>
                    <NumberField name="max_sessions" label="Most sessions at once" value=form.max_sessions
                        hint="The oldest makes room for a new one." problem=at(Field::MaxSessions)/>
                </div>
                <div class="buttons">
                    <Submit label="Preview the change" look="plain"/>
                    <ButtonLink href=format!("/admin/roles/{}", encode(&role)) label="Back to the values in force"/>
                </div>
            </form>
        </section>
    }
    .into_any()
}

#[component]
fn Consequence(
    role: RoleView,
    lifetimes: Lifetimes,
    preview: PolicyPreview,
    form: LimitsForm,
    justify: bool,
    error: Option<ActionError>,
) -> impl IntoView {
    let changes = changes(&role.lifetimes, &lifetimes);
    if changes.is_empty() {
        return view! { <Message tone=Tone::Neutral><p>"These are the values in force; there is nothing to save."</p></Message> }.into_any();
    }
    let rows = changes
        .into_iter()
        .map(|(name, before, after)| {
            view! { <tr><th scope="row">{name}</th><td data-label="Now">{before}</td><td data-label="Then"><strong>{after}</strong></td></tr> }
        })
        .collect_view();
    let needs_reason = preview
        .refusal
        .filter(|_| justify)
        .map(|(field, problem)| words::problem(field, problem));
    let carried = form
        .names_and_values()
        .map(|(name, value)| view! { <Hidden name value=value.clone()/> })
        .into_iter()
        .collect_view();
    view! {
        <section class="card consequence" aria-labelledby="preview">
            <h2 id="preview">"What this change does"</h2>
            <ul class="effects">{effects(&preview).into_iter().map(|line| view! { <li>{line}</li> }).collect_view()}</ul>
            <table class="table">
                <thead><tr><th scope="col">"Limit"</th><th scope="col">"Now"</th><th scope="col">"Then"</th></tr></thead>
                <tbody>{rows}</tbody>
            </table>
            <Form action="save_policy">
                <Hidden name="role" value=role.name/>
                <Hidden name="based_on" value=role.version.to_string()/>
                {carried}
                <TextArea name="reason" label="Reason" required=true problem=problem_at(error, Field::Reason)
                    hint="Kept in the history and the audit log."/>
                {if justify {
                    view! {
                        {needs_reason.map(|text| view! { <Message tone=Tone::Warning><p>{text}</p></Message> })}
                        <TextArea name="justification" label="Justification" required=true
                            problem=problem_at(error, Field::Justification)
                            hint="Why this role may go beyond NIST SP 800-63B-4. Kept with the policy."/>
                    }.into_any()
                } else {
                    view! { <Hidden name="justification" value=""/> }.into_any()
                }}
                <div class="buttons"><Submit label="Save these limits"/></div>
            </Form>
        </section>
    }
    .into_any()
}

fn effects(preview: &PolicyPreview) -> Vec<String> {
    let ended = match preview.sessions_ended {
        0 => "Ends no living session.".to_owned(),
        count => format!(
            "Ends {} of {} at the next use.",
            sessions(count),
            people(preview.people)
        ),
    };
    let enrol = (preview.must_enrol > 0).then(|| {
        format!(
            "{} must set up a second factor at the next sign-in.",
            people(preview.must_enrol)
        )
    });
    let later = "Looser limits apply only to new sign-ins.".to_owned();
    [Some(ended), enrol, Some(later)].into_iter().flatten().collect()
}

fn changes(before: &Lifetimes, after: &Lifetimes) -> Vec<(&'static str, String, String)> {
    words::limits(before)
        .into_iter()
        .zip(words::limits(after))
        .filter(|((_, old), (_, new))| old != new)
        .map(|((name, old), (_, new))| (name, old, new))
        .collect()
}

#[component]
fn History(versions: Vec<PolicyVersionView>, now: i64) -> impl IntoView {
    let rows = versions
        .into_iter()
        .enumerate()
        .map(|(index, version)| {
            let in_force = (index == 0).then(|| view! { " " <Badge tone=Tone::Good text="In force"/> });
            view! {
                <tr>
                    <th scope="row">"Policy " {version.version} {in_force}</th>
                    <td data-label="Saved"><When at=version.changed_at now/> " by " {version.changed_by}</td>
                    <td data-label="Reason">{version.reason}</td>
                    <td data-label="Limits">
                        <details>
                            <summary>"Show" <span class="visually-hidden">" limits of policy " {version.version}</span></summary>
                            <Limits limits=version.lifetimes/>
                        </details>
                    </td>
                </tr>
            }
        })
        .collect_view();
    view! {
        <section aria-labelledby="history">
            <h2 id="history">"History"</h2>
            <div class="table-card">
                <table class="table">
                    <thead><tr><th scope="col">"Version"</th><th scope="col">"Saved"</th><th scope="col">"Reason"</th><th scope="col">"Limits"</th></tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Lifetimes {
        Lifetimes {
            access_s: 300,
            idle_s: 900,
            absolute_s: 12 * HOUR + 5 * MINUTE,
            idle_warning_s: 30,
            remember_device_s: 30 * DAY,
            mfa: MfaRule::Required,
            step_up_s: 600,
            max_sessions: 5,
        }
    }

    #[test]
    fn limits_survive_the_form() {
        assert_eq!(LimitsForm::of(&limits()).lifetimes(), Ok(limits()));
        let five_minutes = Lifetimes {
            absolute_s: 300,
            ..limits()
        };
        assert_eq!(LimitsForm::of(&five_minutes).lifetimes(), Ok(five_minutes));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for (text, problem) in [
            ("", Problem::Missing),
            ("x", Problem::Wrong),
            ("-1", Problem::Wrong),
            ("99999999999", Problem::Wrong),
            ("1.5", Problem::Wrong),
        ] {
            let form = LimitsForm {
                idle_minutes: text.to_owned(),
                ..LimitsForm::of(&limits())
            };
            assert_eq!(
                form.lifetimes(),
                Err(ActionError::Invalid {
                    field: Field::IdleLimit,
                    problem
                })
            );
        }
    }

    #[test]
    fn a_change_names_only_what_changes() {
        let tighter = Lifetimes {
            idle_s: 300,
            ..limits()
        };
        assert_eq!(
            changes(&limits(), &tighter),
            [("Idle limit", "15 minutes".to_owned(), "5 minutes".to_owned())]
        );
    }
}
