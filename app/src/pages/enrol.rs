//! Setting up the authenticator app while signing in.

use leptos::prelude::*;

use super::code::code_problem;
use crate::components::form::{Form, Submit};
use crate::components::message::Refused;
use crate::error::PageError;
use crate::islands::{CodeInput, CopyButton};
use crate::request::{Access, Frame, Sheet, Visit, page};
use crate::types::Enrolment;

/// `/sign-in/enrol`
#[component]
pub fn Enrol() -> impl IntoView {
    page(Access::Anyone, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let enrolment = visit.services.sign_in.enrolment().await?;
    let error = visit.failure("confirm_sign_in_enrolment");
    Ok(Sheet::new(
        "Set up your authenticator app",
        Frame::Steps,
        view! {
            <h1>"Set up your authenticator app"</h1>
            <p>"Your account needs a second factor besides the password. An authenticator app on your phone makes a new code every 30 seconds."</p>
            <Refused error/>
            <Steps enrolment/>
            <Form action="confirm_sign_in_enrolment">
                <ConfirmCode problem=code_problem(error)/>
                <Submit label="Confirm the code"/>
            </Form>
        },
    ))
}

/// Scan or type: the two ways into the app.
#[component]
pub fn Steps(
    /// What to scan.
    enrolment: Enrolment,
) -> impl IntoView {
    view! {
        <ol class="enrol">
            <li>
                <p>"Scan this picture with the app."</p>
                <div class="qr" role="img" aria-label="QR code of the key below" inner_html=enrolment.qr_svg></div>
            </li>
            <li>
                <p>"Or enter this key by hand, for the account " <strong>{enrolment.account}</strong> "."</p>
                <p class="secret"><code>{enrolment.text_key.clone()}</code> <CopyButton text=enrolment.text_key label="Copy the key".to_owned()/></p>
            </li>
            <li><p>"Enter the code that the app shows."</p></li>
        </ol>
    }
    .into_any()
}

/// The first code of the new app.
#[component]
pub fn ConfirmCode(
    /// What was wrong with the one before; empty for nothing.
    problem: String,
) -> impl IntoView {
    let (name, label, hint) = ("code".to_owned(), "Six-digit code".to_owned(), String::new());
    view! { <CodeInput name label hint problem/> }.into_any()
}
