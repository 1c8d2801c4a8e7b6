//! The doors for other software (OAuth 2.0): metadata, tokens, revocation, introspection; and who passes a door that
//! only services may.
//!
//! No cookie is ever looked at here, and no answer may be kept.

mod service;

pub use service::admit_service;
