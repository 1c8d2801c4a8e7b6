//! Islands: the few parts of pages that run in the browser. Each is an addition; every page works without.
//!
//! Owns: comfort. Must not know: ports, pages. Props are visible in the page, so none carries a secret
//! that the page does not already show. Style hides what needs JavaScript until `data-islands` stands on
//! the document (set by the loader).

mod code_input;
mod copy_button;
mod idle_warning;
mod local_time;
mod theme_switch;

pub use code_input::CodeInput;
pub use copy_button::CopyButton;
pub use idle_warning::IdleWarning;
pub use local_time::LocalTime;
pub use theme_switch::ThemeSwitch;
