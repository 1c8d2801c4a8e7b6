//! Rules that hold for everything that can happen, tried on more of it than anybody would write down.
//!
//! Refresh tokens, explored exhaustively in small worlds (TOKENS.md §3, properties A, B and C): [`world`] says what can
//! happen around `domain::refresh::decide`, [`state`] what comes of it, [`explore`] visits every state, shortest ways
//! first, and [`rules`] holds rules weakened on purpose. The tests assert that the product's rule keeps all three
//! properties, and that the explorer finds what is wrong with each weakened one.
//!
//! Forged input at every parser (TOKENS.md §4, J7): [`mutation`] makes it, [`forged`] sees what becomes of it.
//!
//! How long comparisons with secrets take (J14, R7): [`timing`].
//!
//! The everyday run takes a few seconds; `MAYFLY_TEST_FULL=1` explores larger worlds, makes more forgeries and measures
//! times. Every test prints how much it visited (`cargo test … -- --show-output`).

mod bench;
mod explore;
mod forged;
mod lasso;
mod mutation;
mod proof;
mod rules;
mod state;
mod timing;
mod weakened;
mod words;
mod world;
