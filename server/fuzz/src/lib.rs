//! What the fuzz targets share: the product's rules, and a world of keys and tokens that is the same in every run.
//!
//! Each target asks more than that nothing panics: what is believed must be genuine, byte for byte (J7, F49).
//! `cargo xtask test --full` runs every target for a minute.

/// The rules themselves, from the product's own sources: `server` as a whole would take ten times as long to build.
#[path = "../../src/domain/mod.rs"]
pub mod domain;
pub mod world;
