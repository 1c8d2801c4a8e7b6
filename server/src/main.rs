//! `mayfly`: one binary to serve, migrate, check the configuration, make an administrator and verify the log.

use std::process::ExitCode;

use clap::Parser;
use server::cli::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mayfly: {error}");
            ExitCode::FAILURE
        }
    }
}
