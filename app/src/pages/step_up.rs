//! Confirm that it is you, before something sensitive.

use leptos::either::Either;
use leptos::prelude::*;

use super::code::{CodeOrRecovery, code_problem, other_way};
use crate::components::field::TextField;
use crate::components::form::{AccountOfPassword, Form, Hidden, Submit};
use crate::components::message::Refused;
use crate::error::PageError;
use crate::request::{Access, Frame, Sheet, Visit, encode, page};
use crate::types::StepUpPrompt;

/// `/step-up?return_to=…`, with `&with=recovery` for a recovery code.
#[component]
pub fn StepUp() -> impl IntoView {
    page(Access::SignedIn, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let prompt = visit.services.sign_in.step_up_prompt().await?;
    let error = visit.failure("step_up");
    let return_to = visit.query("return_to");
    let recovery = visit.query("with") == "recovery";
    let field = match prompt {
        StepUpPrompt::Code => {
            Either::Left(view! { <CodeOrRecovery name="answer" recovery problem=code_problem(error)/> })
        }
        StepUpPrompt::Password => Either::Right(view! {
            <AccountOfPassword username=visit.viewer.as_ref().map(|viewer| viewer.username.clone()).unwrap_or_default()/>
            <TextField name="answer" label="Password" kind="password" autocomplete="current-password" required=true first=true/>
        }),
    };
    let other = (prompt == StepUpPrompt::Code)
        .then(|| view! { <p>{other_way("/step-up", &format!("return_to={}", encode(&return_to)), recovery)}</p> });
    Ok(Sheet::new(
        "Confirm it is you",
        Frame::Steps,
        view! {
            <h1>"Confirm it is you"</h1>
            <p>"What you are about to do matters, and it has been a while since you last showed that it is you."</p>
            <Refused error/>
            <Form action="step_up">
                <Hidden name="return_to" value=return_to/>
                {field}
                <Submit label="Confirm"/>
            </Form>
            {other}
            <p><a href="/">"Not now, back to your devices"</a></p>
        },
    ))
}
