//! Pages, components, islands, and the ports they ask through.
//!
//! Owns: everything a person sees. Must not know: SQL, axum state, a domain type of the server.
//!
//! Only [`islands`] is compiled for the browser; pages, forms and ports exist on the server alone,
//! so that no page can grow the WebAssembly by accident.

// Views are types: a page nests as many of them as it has elements.
#![recursion_limit = "256"]

pub mod error;
pub mod islands;
pub mod types;
pub mod words;

#[cfg(feature = "ssr")]
mod actions;
#[cfg(feature = "ssr")]
mod components;
#[cfg(feature = "ssr")]
mod pages;
#[cfg(feature = "ssr")]
mod request;
#[cfg(feature = "ssr")]
mod routes;
#[cfg(feature = "ssr")]
pub mod services;
#[cfg(feature = "ssr")]
mod shell;

#[cfg(feature = "ssr")]
pub use actions::action_paths;
#[cfg(feature = "ssr")]
pub use routes::App;
#[cfg(feature = "ssr")]
pub use shell::{Shell, shell};
