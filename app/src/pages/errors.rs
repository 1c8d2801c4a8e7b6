//! Pages that cannot be shown: what happened, why, what to do.

use http::StatusCode;
use leptos::prelude::*;

use crate::components::form::ButtonLink;
use crate::components::icons::{Glyph, Icon};
use crate::error::PageError;
use crate::request::{Entry, Frame, Sheet};
use crate::words;

/// The status of the answer.
pub const fn status(error: PageError) -> StatusCode {
    match error {
        PageError::NotSignedIn | PageError::StepUpRequired => StatusCode::SEE_OTHER,
        PageError::Forbidden => StatusCode::FORBIDDEN,
        PageError::NotFound => StatusCode::NOT_FOUND,
        PageError::BadQuery => StatusCode::BAD_REQUEST,
        PageError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The page itself. The request id is there to be quoted.
pub fn sheet(error: PageError, request_id: &str) -> Sheet {
    let (heading, sentence) = words::page_error(error);
    let icon = match error {
        PageError::Forbidden => Icon::Lock,
        PageError::NotFound => Icon::Search,
        _ => Icon::Warning,
    };
    let quote = matches!(error, PageError::Unavailable | PageError::Forbidden).then(|| {
        view! { <p class="quiet">"If you ask for help, quote this number: "<code>{request_id.to_owned()}</code></p> }
    });
    Sheet::new(
        heading,
        Frame::Console(Entry::Elsewhere),
        view! {
            <div class="stopped">
                <Glyph icon/>
                <h1>{heading}</h1>
                <p>{sentence}</p>
                {quote}
                <p><ButtonLink href="/" label="Go to your devices"/></p>
            </div>
        },
    )
}
