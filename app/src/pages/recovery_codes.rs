//! Recovery codes, shown once.

use leptos::prelude::*;

use crate::components::form::{Form, Submit};
use crate::components::message::{Message, Refused, Tone};
use crate::error::PageError;
use crate::islands::CopyButton;
use crate::request::{Access, Frame, Sheet, Visit, encode, page};

/// `/recovery-codes`
#[component]
pub fn RecoveryCodes() -> impl IntoView {
    page(Access::Anyone, load)
}

async fn load(visit: Visit) -> Result<Sheet, PageError> {
    let codes = visit.services.sign_in.recovery_codes().await?;
    let error = visit.failure("acknowledge_recovery_codes");
    let text = codes.join("\n");
    let file = format!(
        "data:text/plain;charset=utf-8,{}",
        encode(&format!("Mayfly recovery codes\n\n{text}\n"))
    );
    let list = codes
        .into_iter()
        .map(|code| view! { <li><code>{code}</code></li> })
        .collect_view();
    Ok(Sheet::new(
        "Save your recovery codes",
        Frame::Steps,
        view! {
            <h1>"Save your recovery codes"</h1>
            <p>"If you lose your phone, each of these codes lets you in once. Keep them where you keep important papers."</p>
            <Message tone=Tone::Warning><p>"They are shown only now. Codes from before have stopped working."</p></Message>
            <Refused error/>
            <ul class="codes">{list}</ul>
            <div class="buttons">
                <CopyButton text label="Copy all codes".to_owned()/>
                <a class="button" data-look="plain" href=file download="mayfly-recovery-codes.txt">"Download as a text file"</a>
            </div>
            <Form action="acknowledge_recovery_codes"><Submit label="I have saved them"/></Form>
        },
    ))
}
