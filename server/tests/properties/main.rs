//! The rule about refresh tokens, explored exhaustively in small worlds (TOKENS.md §3, properties A, B and C).
//!
//! [`world`] says what can happen around `domain::refresh::decide`, [`state`] what comes of it, [`explore`] visits every
//! state, shortest ways first, and [`rules`] holds rules weakened on purpose. The tests assert that the product's rule
//! keeps all three properties, and that the explorer finds what is wrong with each weakened one.
//!
//! The everyday run explores bounded worlds in a few seconds; `MAYFLY_TEST_FULL=1` explores larger ones. Every test
//! prints how many states it visited (`cargo test … -- --nocapture`).

mod bench;
mod explore;
mod lasso;
mod proof;
mod rules;
mod state;
mod weakened;
mod words;
mod world;
