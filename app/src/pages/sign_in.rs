//! Sign in: name and password, and why the person has to.

use leptos::prelude::*;

use crate::components::field::TextField;
use crate::components::form::{Form, Hidden, Submit};
use crate::components::message::{Message, Refused, Tone};
use crate::error::PageError;
use crate::request::{Access, Frame, Sheet, Visit, page, see_other};
use crate::types::SignInPrompt;
use crate::words;

/// `/sign-in`
#[component]
pub fn SignIn() -> impl IntoView {
    page(Access::Anyone, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let return_to = visit.query("return_to");
    if visit.viewer.is_some() {
        // Another tab has signed in meanwhile: go on.
        see_other(&return_to);
        return Ok(Sheet::new("Sign in", Frame::Steps, ()));
    }
    let prompt = visit.services.sign_in.prompt().await?;
    let error = visit.failure("sign_in");
    Ok(Sheet::new(
        "Sign in",
        Frame::Steps,
        view! {
            <h1>"Sign in"</h1>
            <Why prompt/>
            <Refused error/>
            <Form action="sign_in">
                <Hidden name="return_to" value=return_to/>
                <TextField name="identifier" label="Sign-in name or e-mail address" autocomplete="username" required=true first=true/>
                <TextField name="password" label="Password" kind="password" autocomplete="current-password" required=true/>
                <Submit label="Sign in"/>
            </Form>
            <p class="quiet">"No account yet? Accounts here are made by an administrator."</p>
        },
    ))
}

#[component]
fn Why(prompt: SignInPrompt) -> impl IntoView {
    let ended = prompt.ending.map(|ending| {
        let tone = if words::is_alarming(ending.reason) {
            Tone::Warning
        } else {
            Tone::Neutral
        };
        view! { <Message tone><p>{words::ending(&ending)}</p></Message> }.into_any()
    });
    let other_browser = prompt.other_browser.then(|| {
        view! {
            <Message tone=Tone::Warning>
                <p>"Please sign in again. Your sign-in is bound to one browser, and this one could not show that it is the same. That happens when its data was moved to another device or reset."</p>
            </Message>
        }
        .into_any()
    });
    let signed_out = prompt
        .signed_out
        .then(|| view! { <Message tone=Tone::Good><p>"You are signed out on this device."</p></Message> }.into_any());
    let setup = prompt.needs_setup.then(|| {
        view! {
            <Message tone=Tone::Warning>
                <p>"This server has no account yet. Open the one-time link that it printed when it started to make the first administrator."</p>
            </Message>
        }
    });
    // The reason says more than the bare fact.
    view! { {setup} {ended.or(other_browser).or(signed_out)} }.into_any()
}
