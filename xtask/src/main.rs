//! Builds, serves, tests and measures Mayfly: a tool, not part of the product.

mod install;
mod older;
mod postgres;
mod run;
mod serve;
mod site;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Anything that ends the tool, in one sentence.
type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, serve, test and measure Mayfly")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is needed and serve on <http://localhost:3000>.
    Serve {
        /// A made-up company in a data folder of its own.
        #[arg(long)]
        demo: bool,
        /// Another port.
        #[arg(long, default_value_t = 3000)]
        port: u16,
    },
    /// Build the islands and the style sheet.
    Site,
    /// Measure the release binary, as ratios to a bare handler in the same run.
    Bench,
    /// Run everything: format, lints, unit, property and API tests, browser.
    Test {
        /// The inner loop: without PostgreSQL, islands and browser.
        #[arg(long, conflicts_with = "full")]
        quick: bool,
        /// With the full counts of steps, kills and rounds instead of the small ones of every day.
        #[arg(long)]
        full: bool,
        /// Only tests whose names contain this.
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve { demo, port } => serve::serve(demo, port),
        Command::Site => site::build().map(|_| true),
        Command::Bench => serve::bench(),
        Command::Test { quick, full, filter } => Ok(suite::run(quick, full, filter.as_deref())),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// Cargo's output folder.
fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}
