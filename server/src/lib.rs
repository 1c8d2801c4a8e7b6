//! Mayfly: sign-in and session server.
//!
//! `domain` holds the rules, `storage` the SQL, `services` the acts (one transaction each), `http` the edge.
//! `verify` is for other services that check our access tokens by themselves.
//! `startup` puts them together, for the binary and for the tests alike.

pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod services;
pub mod startup;
pub mod storage;
pub mod verify;
