//! `bench MAYFLY`: measures the server's release binary, each figure beside the same figure of a bare axum handler
//! taken in the same run, because seconds of one machine say nothing on another and ratios do.
//!
//! Owns: what is measured, how often, and how it is printed. Must not know: anything of the server but its command
//! line, its environment variables and its addresses.

#![expect(clippy::disallowed_methods, reason = "measuring time is what this tool is for")]

mod hello;
mod load;
mod process;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use load::Load;
use process::{Figures, Launch, ScratchFolder};

/// Anything that ends the tool, in one sentence.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Every figure is the median of this many.
const ROUNDS: usize = 3;
/// How long one round of requests lasts.
const ROUND: Duration = Duration::from_secs(3);
/// Connections held open by the load generator.
const CONNECTIONS: usize = 16;

/// Cold start with an existing database: the product's own limit.
const COLD_START_LIMIT_MS: f64 = 300.0;
/// Resident memory when idle: the product's own limit, MB of 10⁶ bytes.
const RESIDENT_LIMIT_MB: f64 = 40.0;

fn main() -> ExitCode {
    let outcome = match std::env::args_os().nth(1) {
        Some(word) if word == "hello" => hello::serve(),
        // It is started in another folder than this one.
        Some(mayfly) => PathBuf::from(mayfly)
            .canonicalize()
            .map_err(Failure::from)
            .and_then(compare),
        None => Err("usage: bench PATH-OF-MAYFLY".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures both programs and prints one line for each figure.
fn compare(mayfly: PathBuf) -> Result<(), Failure> {
    let scratch = ScratchFolder::create()?;
    let hello = Launch::hello(std::env::current_exe()?);
    let mayfly = Launch::mayfly(mayfly, &scratch);
    // Makes folder, secrets, database and keys, and ends in good order: what follows finds an existing database.
    mayfly.start()?.stop()?;

    let reference = measure(&hello)?;
    let product = measure(&mayfly)?;

    println!(
        "median of {ROUNDS} rounds; {CONNECTIONS} connections on loopback, {} s a round",
        ROUND.as_secs()
    );
    println!("{:<46} {:>12} {:>12} {:>9}", "", "mayfly", "bare axum", "ratio");
    let line = |name: &str, ours: f64, bare: f64, note: &str| {
        println!("{name:<46} {ours:>12.1} {bare:>12.1} {:>9.2}  {note}", ours / bare);
    };
    line(
        "cold start, existing database, to /healthz, ms",
        product.cold_start_ms,
        reference.cold_start_ms,
        &against(product.cold_start_ms, COLD_START_LIMIT_MS),
    );
    line(
        "resident memory, idle, MB",
        product.resident_mb,
        reference.resident_mb,
        &against(product.resident_mb, RESIDENT_LIMIT_MB),
    );
    line(
        "GET /healthz through every layer, requests/s",
        product.requests_per_s,
        reference.requests_per_s,
        "",
    );
    Ok(())
}

fn against(value: f64, limit: f64) -> String {
    if value < limit {
        format!("under {limit:.0}")
    } else {
        format!("OVER {limit:.0}")
    }
}

/// Start, memory and requests of one program.
fn measure(launch: &Launch) -> Result<Figures, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut starts, mut memory, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let running = launch.start()?;
        starts.push(running.cold_start.as_secs_f64() * 1000.0);
        memory.push(running.idle_resident_mb()?);
        let load = Load::get(running.address, "/healthz", CONNECTIONS, ROUND);
        rates.push(runtime.block_on(load.run())?.per_second());
        running.stop()?;
    }
    Ok(Figures {
        cold_start_ms: median(starts),
        resident_mb: median(memory),
        requests_per_s: median(rates),
    })
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
