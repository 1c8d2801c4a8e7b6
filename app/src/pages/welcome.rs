//! First run and invitations: make or complete an account.

use leptos::prelude::*;

use crate::components::field::{TextField, problem_at};
use crate::components::form::{Form, Submit};
use crate::components::message::Refused;
use crate::error::{Field, PageError};
use crate::request::{Access, Frame, Sheet, Visit, page};

/// `/welcome`
#[component]
pub fn Welcome() -> impl IntoView {
    page(Access::Anyone, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let invitation = visit.services.welcome.invitation().await?;
    let error = visit.failure("accept_invitation");
    let (heading, sentence) = if invitation.first_admin {
        ("Make the first administrator", "This server has no account yet. The one you make now can do everything; it will set up a second factor next.".to_owned())
    } else {
        (
            "Welcome",
            format!(
                "An administrator made an account for you, with {}. Choose a password to start using it.",
                roles(&invitation.roles)
            ),
        )
    };
    let shortest = invitation.min_password_length;
    Ok(Sheet::new(
        heading,
        Frame::Steps,
        view! {
            <h1>{heading}</h1>
            <p>{sentence}</p>
            <Refused error/>
            <Form action="accept_invitation">
                <TextField name="username" label="Sign-in name" value=invitation.username.unwrap_or_default()
                    autocomplete="username" required=true problem=problem_at(error, Field::Username)
                    hint="Short, without spaces. You sign in with it."/>
                <TextField name="display_name" label="Your name" autocomplete="name" required=true
                    problem=problem_at(error, Field::DisplayName)/>
                <TextField name="email" label="E-mail address" kind="email" value=invitation.email.unwrap_or_default()
                    autocomplete="email" required=true problem=problem_at(error, Field::Email)/>
                <TextField name="password" label="Password" kind="password" autocomplete="new-password" required=true
                    shortest problem=problem_at(error, Field::Password)
                    hint=format!("At least {shortest} characters. A sentence or a few unrelated words work well; a password manager works best.")/>
                <Submit label="Continue"/>
            </Form>
        },
    ))
}

fn roles(names: &[String]) -> String {
    match names {
        [] => "no roles yet".to_owned(),
        [one] => format!("the role {one}"),
        [most @ .., last] => format!("the roles {} and {last}", most.join(", ")),
    }
}
