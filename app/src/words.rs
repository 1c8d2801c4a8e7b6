//! The sentences people read: one place, plain words, no blame.

use crate::error::ActionError;

/// The sentence for a form that was not carried out.
#[must_use]
pub fn action_error(error: ActionError) -> String {
    format!("{error:?}")
}
