//! One module per page. A page asks one port, and draws what it says.

pub mod admin;
pub mod code;
pub mod devices;
pub mod enrol;
pub mod errors;
pub mod recovery_codes;
pub mod security;
pub mod sign_in;
pub mod step_up;
pub mod welcome;
