//! Pages, components, islands, and the ports they ask through.
//!
//! Owns: everything a person sees. Must not know: SQL, axum state, a domain type of the server.

pub mod error;
#[cfg(feature = "ssr")]
pub mod services;
pub mod types;
pub mod words;
