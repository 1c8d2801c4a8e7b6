//! Security: password, authenticator app, recovery codes.

use leptos::either::Either;
use leptos::prelude::*;

use super::code::code_problem;
use super::enrol::{ConfirmCode, Steps};
use crate::components::field::{TextField, problem_at};
use crate::components::form::{AccountOfPassword, ButtonLink, Form, Submit};
use crate::components::message::{Badge, Message, Refused, Tone};
use crate::components::when::When;
use crate::error::{ActionError, Field, PageError};
use crate::request::{Access, Entry, Frame, Sheet, Visit, page};
use crate::types::SecurityView;
use crate::words::time::count_of;

const FRAME: Frame = Frame::Console(Entry::Security);

/// `/security`
#[component]
pub fn Security() -> impl IntoView {
    page(Access::SignedIn, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let security = visit.services.security.overview().await?;
    let now = visit.page.now;
    let notice = security.notice;
    let username = visit
        .viewer
        .as_ref()
        .map(|viewer| viewer.username.clone())
        .unwrap_or_default();
    let change = visit.failure("change_password");
    let renew = visit.failure("renew_recovery_codes");
    Ok(Sheet::new(
        "Security",
        FRAME,
        view! {
            <header class="page-head">
                <h1>"Security"</h1>
                <p class="lead">"How you prove that it is you."</p>
            </header>
            <Password security=security.clone() username now error=change/>
            <Authenticator security=security.clone() now/>
            {security.authenticator_since.is_some().then(|| view! { <RecoveryCodes left=security.recovery_codes_left error=renew/> })}
        },
    )
    .with_notice(notice))
}

#[component]
fn Password(security: SecurityView, username: String, now: i64, error: Option<ActionError>) -> impl IntoView {
    let shortest = security.min_password_length;
    let others = match security.other_sessions {
        0 => "You are signed in only here; nothing else ends.".to_owned(),
        count => {
            format!(
                "{} will be signed out. This device stays signed in.",
                count_of(i64::from(count), "other device")
            )
        }
    };
    view! {
        <section class="card" aria-labelledby="password-heading">
            <h2 id="password-heading">"Password"</h2>
            <p class="quiet">"Last changed " <When at=security.password_changed_at now/></p>
            <Refused error/>
            <Form action="change_password">
                <AccountOfPassword username/>
                <TextField name="current_password" label="Current password" kind="password" autocomplete="current-password"
                    required=true problem=problem_at(error, Field::CurrentPassword)/>
                <TextField name="new_password" label="New password" kind="password" autocomplete="new-password"
                    required=true shortest problem=problem_at(error, Field::Password)
                    hint=format!("At least {shortest} characters. A few unrelated words work well.")/>
                <p>{others}</p>
                <Submit label="Change password"/>
            </Form>
        </section>
    }
    .into_any()
}

#[component]
fn Authenticator(security: SecurityView, now: i64) -> impl IntoView {
    let body = match security.authenticator_since {
        Some(since) => Either::Left(view! {
            <p><Badge tone=Tone::Good text="Set up"/> " " <When at=since now/></p>
            <div class="buttons">
                <ButtonLink href="/security/authenticator" label="Replace it"/>
                {(!security.factor_required).then(|| view! { <ButtonLink href="/security/remove-authenticator" label="Remove it"/> })}
            </div>
            {security.factor_required.then(|| view! { <p class="quiet">"Your roles require a second factor, so it can be replaced but not removed."</p> })}
        }),
        None => Either::Right(view! {
            <p><Badge tone=Tone::Warning text="Not set up"/></p>
            <p>"With an authenticator app, your password alone is not enough to sign in as you."</p>
            <div class="buttons"><ButtonLink href="/security/authenticator" label="Set up an authenticator app"/></div>
        }),
    };
    view! {
        <section class="card" aria-labelledby="authenticator-heading">
            <h2 id="authenticator-heading">"Authenticator app"</h2>
            {body}
        </section>
    }
    .into_any()
}

#[component]
fn RecoveryCodes(left: u32, error: Option<ActionError>) -> impl IntoView {
    let tone = if left >= 4 { Tone::Good } else { Tone::Warning };
    let consequence = match left {
        0 => "You have no recovery code left. Make new ones before you need them.".to_owned(),
        _ => format!(
            "New codes replace the old ones: your {} will stop working.",
            count_of(i64::from(left), "unused code")
        ),
    };
    view! {
        <section class="card" aria-labelledby="recovery-heading">
            <h2 id="recovery-heading">"Recovery codes"</h2>
            <p><Badge tone text=format!("{left} of 10 left")/></p>
            <Refused error/>
            <p>{consequence}</p>
            <Form action="renew_recovery_codes"><Submit label="Make ten new codes" look="plain"/></Form>
        </section>
    }
    .into_any()
}

/// `/security/authenticator`
#[component]
pub fn SetUpAuthenticator() -> impl IntoView {
    page(Access::SignedIn, load_authenticator)
}

async fn load_authenticator(visit: Visit) -> Result<Sheet, PageError> {
    let enrolment = visit.services.security.enrolment().await?;
    let error = visit.failure("confirm_authenticator");
    Ok(Sheet::new(
        "Set up an authenticator app",
        FRAME,
        view! {
            <h1>"Set up an authenticator app"</h1>
            <p class="lead">"If you had one before, this one takes its place once you confirm its first code."</p>
            <Refused error/>
            <div class="card">
                <Steps enrolment/>
                <Form action="confirm_authenticator">
                    <ConfirmCode problem=code_problem(error)/>
                    <div class="buttons"><Submit label="Confirm the code"/><ButtonLink href="/security" label="Cancel"/></div>
                </Form>
            </div>
        },
    ))
}

/// `/security/remove-authenticator`
#[component]
pub fn RemoveAuthenticator() -> impl IntoView {
    page(Access::SignedIn, load_remove)
}

async fn load_remove(visit: Visit) -> Result<Sheet, PageError> {
    let security = visit.services.security.overview().await?;
    if security.authenticator_since.is_none() || security.factor_required {
        return Err(PageError::NotFound);
    }
    let error = visit.failure("remove_authenticator");
    Ok(Sheet::new(
        "Remove the authenticator app?",
        FRAME,
        view! {
            <h1>"Remove the authenticator app?"</h1>
            <Refused error/>
            <Message tone=Tone::Warning>
                <p>"Afterwards your password alone is enough to sign in as you, and your recovery codes stop working."</p>
            </Message>
            <Form action="remove_authenticator" class="buttons">
                <Submit label="Remove the authenticator app" look="danger"/>
                <ButtonLink href="/security" label="Keep it"/>
            </Form>
        },
    ))
}
