//! Messages: news after an action, errors of a form, badges. A colour never stands alone: each tone
//! has its own shape and words.

use leptos::prelude::*;

use super::icons::{Glyph, Icon};
use crate::error::ActionError;
use crate::words;

/// The four tones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Done, in order.
    Good,
    /// To know.
    Neutral,
    /// To look at.
    Warning,
    /// Refused, over.
    Bad,
}

impl Tone {
    const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Neutral => "neutral",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }

    const fn icon(self) -> Icon {
        match self {
            Self::Good => Icon::Check,
            Self::Neutral => Icon::Info,
            Self::Warning => Icon::Warning,
            Self::Bad => Icon::Cross,
        }
    }
}

/// A box with a sentence. `urgent` ones interrupt people who listen.
#[component]
pub fn Message(
    /// Tone.
    tone: Tone,
    /// Announce it at once.
    #[prop(optional)]
    urgent: bool,
    /// The sentence.
    children: Children,
) -> impl IntoView {
    view! {
        <div class="message" data-tone=tone.name() role=if urgent { "alert" } else { "status" }>
            <Glyph icon=tone.icon()/>
            <div>{children()}</div>
        </div>
    }
    .into_any()
}

/// Why a form was not carried out, above the form.
#[component]
pub fn Refused(
    /// The error, if there is one.
    error: Option<ActionError>,
) -> impl IntoView {
    error.map(|error| {
        view! { <Message tone=Tone::Bad urgent=true><p>{words::action_error(error)}</p></Message> }
    })
}

/// One or two words on a state.
#[component]
pub fn Badge(
    /// Tone.
    tone: Tone,
    /// The words.
    #[prop(into)]
    text: String,
) -> impl IntoView {
    view! { <span class="badge" data-tone=tone.name()><Glyph icon=tone.icon()/>{text}</span> }.into_any()
}

/// What is shown where a list has nothing in it.
#[component]
pub fn Empty(
    /// Picture.
    icon: Icon,
    /// What is not there, and what to do.
    children: Children,
) -> impl IntoView {
    view! { <div class="empty"><Glyph icon/><div>{children()}</div></div> }.into_any()
}
