//! Second step of signing in: a code, or a recovery code.

use leptos::either::Either;
use leptos::prelude::*;

use crate::components::field::TextField;
use crate::components::form::{Form, Submit};
use crate::components::message::Refused;
use crate::error::{ActionError, Field, PageError};
use crate::islands::CodeInput;
use crate::request::{Access, Frame, Sheet, Visit, page};
use crate::types::NextStep;
use crate::words;

/// `/sign-in/code`, with `?with=recovery` for a recovery code.
#[component]
pub fn Code() -> impl IntoView {
    page(Access::Anyone, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let pending = visit.services.sign_in.pending().await?.ok_or(PageError::NotSignedIn)?;
    if pending.step != NextStep::Code {
        return Err(PageError::NotSignedIn);
    }
    let error = visit.failure("verify_code");
    let recovery = visit.query("with") == "recovery";
    Ok(Sheet::new(
        "Check it is you",
        Frame::Steps,
        view! {
            <h1>"Check it is you"</h1>
            <p>"Signing in as " <strong>{pending.username}</strong> "."</p>
            <Refused error/>
            <Form action="verify_code"><CodeOrRecovery name="code" recovery problem=code_problem(error)/><Submit label="Continue"/></Form>
            <p>{other_way("/sign-in/code", "", recovery)}</p>
            <p><a href="/sign-in">"Start again"</a></p>
        },
    ))
}

/// The field for a code of the app, or for a recovery code.
#[component]
pub fn CodeOrRecovery(
    /// Name in the form.
    name: &'static str,
    /// A recovery code is asked for.
    recovery: bool,
    /// What was wrong with the one before; empty for nothing.
    problem: String,
) -> impl IntoView {
    if recovery {
        Either::Left(view! {
            <TextField
                name
                label="Recovery code"
                hint="One of the ten codes you saved. Each works once; spaces and capitals do not matter."
                required=true
                first=true
                problem=(!problem.is_empty()).then_some(problem)
            />
        })
    } else {
        let hint = "The six digits that your authenticator app shows right now.".to_owned();
        Either::Right(view! { <CodeInput name=name.to_owned() label="Six-digit code".to_owned() hint problem/> })
    }
}

/// The link to the other kind of code. `rest` is the query that must stay.
pub fn other_way(path: &str, rest: &str, recovery: bool) -> impl IntoView + use<> {
    let and = if rest.is_empty() { "" } else { "&" };
    if recovery {
        let query = if rest.is_empty() {
            String::new()
        } else {
            format!("?{rest}")
        };
        view! { <a href=format!("{path}{query}")>"Use the authenticator app instead"</a> }
    } else {
        view! { <a href=format!("{path}?{rest}{and}with=recovery")>"Use a recovery code instead"</a> }
    }
}

/// The sentence at the field for a refused code; other errors stand above the form only.
pub fn code_problem(error: Option<ActionError>) -> String {
    error
        .filter(|error| error.field() == Some(Field::Code))
        .map(words::action_error)
        .unwrap_or_default()
}
