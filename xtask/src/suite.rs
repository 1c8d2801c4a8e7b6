//! `cargo xtask test`: every check in order, each counted, and one closing line.

use std::io::IsTerminal as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::postgres::{Cluster, Durability};
use crate::run::{self as program, Counts, count};
use crate::serve::{release_server, released_server};
use crate::{Failure, install, older, root, site, target_dir};

/// Tests that can do more than every day has time for look at this variable.
const FULL: &str = "MAYFLY_TEST_FULL";

/// Full runs upgrade from it and go back to it.
const OLDER_PROGRAM: &str = "MAYFLY_TEST_OLDER_PROGRAM";

/// Full counts are of the program that people run.
const PROGRAM: &str = "MAYFLY_TEST_PROGRAM";

/// The product's packages, always named together: cargo chooses the features of dependencies by the packages it is
/// given, and every other choice would compile hyper, axum, leptos and the server once more.
const PRODUCT: [&str; 6] = ["--package", "app", "--package", "server", "--features", "app/ssr"];

/// The targets in `server/fuzz/targets`.
const FUZZ_TARGETS: [&str; 4] = ["tokens", "claims", "refresh_tokens", "public_keys"];

/// Runs everything; a step that fails is counted and the others go on. Whether all of it passed.
#[must_use]
pub fn run(quick: bool, full: bool, filter: Option<&str>) -> bool {
    let mut suite = Suite {
        counts: Counts::default(),
        slow: Vec::new(),
    };
    if filter.is_none() {
        suite.check("format", || run_cargo(&["fmt", "--all", "--check"]));
        suite.check("lints", || {
            run_cargo(&[
                "clippy",
                "--workspace",
                "--exclude",
                "frontend",
                "--exclude",
                "fuzz",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])
        });
    }
    suite.tests("tool", || cargo_test(&["--package", "xtask"], filter, None, false));
    if full {
        suite.check("program as it is released", || {
            install::node_modules()?;
            release_server().map(drop)
        });
        suite.check("the older program", older::build);
        if filter.is_none() {
            // What is constant in time as it is written need not be so as it is optimised.
            let alone = [PRODUCT.as_slice(), &["--test", "properties"]].concat();
            suite.tests("timing, optimised", || cargo_test(&alone, Some("timing"), None, full));
        }
    }
    suite.tests("pages, server on SQLite", || {
        if !quick {
            install::strace()?;
        }
        cargo_test(&PRODUCT, filter, Some(("sqlite", String::new())), full)
    });
    if !quick {
        suite.tests("server, PostgreSQL", || {
            let cluster = Cluster::start(Durability::None)?;
            let with_database = ["--test", "api", "--test", "storage", "--test", "faults"];
            cargo_test(
                &[PRODUCT.as_slice(), &with_database].concat(),
                filter,
                Some(("postgres", cluster.url())),
                full,
            )
        });
        if filter.is_none() {
            suite.check("site", || {
                install::node_modules()?;
                site::build().map(drop)
            });
            suite.check("lints of the islands", || {
                run_cargo(&[
                    "clippy",
                    "--package",
                    "frontend",
                    "--target",
                    "wasm32-unknown-unknown",
                    "--",
                    "-D",
                    "warnings",
                ])
            });
        }
        suite.tests("browser", || browser_tests(filter, full));
    }
    if full && filter.is_none() {
        suite.check("lints of the fuzz targets", || {
            install::cpp_compiler()?;
            run_cargo(&["clippy", "--package", "fuzz", "--", "-D", "warnings"])
        });
        suite.tests("fuzzing", fuzz);
    }
    suite.close()
}

struct Suite {
    counts: Counts,
    slow: Vec<(String, Duration)>,
}

impl Suite {
    /// A step that passes or fails as a whole.
    fn check(&mut self, name: &str, step: impl FnOnce() -> Result<(), Failure>) {
        self.tests(name, || match step() {
            Ok(()) => Ok(Counts {
                passed: 1,
                ..Counts::default()
            }),
            Err(error) => Err(error),
        });
    }

    /// A step that counts for itself.
    fn tests(&mut self, name: &str, step: impl FnOnce() -> Result<Counts, Failure>) {
        println!("\n── {name}");
        let start = now();
        let mut counts = step().unwrap_or_else(|error| Counts {
            failed: 1,
            failures: vec![error.to_string()],
            ..Counts::default()
        });
        for failure in &mut counts.failures {
            failure.insert_str(0, &format!("{name}: "));
            println!("FAILED {failure}");
        }
        let took = now() - start;
        println!(
            "── {name}: {} passed, {} failed in {} s",
            counts.passed,
            counts.failed,
            took.as_secs()
        );
        self.slow.push((name.to_owned(), took));
        self.counts.add(counts);
    }

    fn close(self) -> bool {
        println!("\n── summary");
        for (name, took) in &self.slow {
            println!("{name}: {} s", took.as_secs());
        }
        let Counts {
            passed,
            failed,
            skipped,
            failures,
        } = self.counts;
        for failure in failures {
            println!("FAILED {failure}");
        }
        if skipped > 0 {
            println!("{skipped} skipped");
        }
        if passed + failed == 0 {
            println!("No test has a name like that.");
        }
        println!("\n{passed} passed, {failed} failed");
        failed == 0 && passed > 0
    }
}

fn run_cargo(words: &[&str]) -> Result<(), Failure> {
    program::run(&mut cargo(words))
}

/// Of a log that nobody watches only what failed is read.
fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    if !std::io::stdout().is_terminal() {
        command.arg("--quiet");
    }
    command.args(words).current_dir(root());
    command
}

fn cargo_test(
    words: &[&str],
    filter: Option<&str>,
    database: Option<(&str, String)>,
    full: bool,
) -> Result<Counts, Failure> {
    let mut command = cargo(&["test", "--no-fail-fast"]);
    // Of many layers of futures a trace shows only those, thousands of lines of them.
    command.args(words).args(filter).env("RUST_BACKTRACE", "0");
    if full {
        command
            .args(["--profile", "full"])
            .env(FULL, "1")
            .env(PROGRAM, released_server()?)
            .env(OLDER_PROGRAM, older::program());
    }
    // What it measured and counted is of interest, though nothing failed.
    command.args(["--", "--show-output"]);
    if let Some((kind, url)) = database {
        command
            .env("MAYFLY_TEST_DATABASE", kind)
            .env("MAYFLY_TEST_POSTGRES_URL", url);
    }
    count(&mut command)
}

fn browser_tests(filter: Option<&str>, full: bool) -> Result<Counts, Failure> {
    install::node_modules()?;
    let browser = install::browser()?;
    let server = if full {
        released_server()?
    } else {
        // Built together with the tests of the API, so this only makes sure.
        run_cargo(&[["test", "--no-run"].as_slice(), &PRODUCT].concat())?;
        target_dir().join("debug/mayfly")
    };
    let mut command = Command::new("npx");
    command.args(["playwright", "test"]).current_dir(root().join("end2end"));
    if full {
        command.env(FULL, "1");
    }
    if let Some(filter) = filter {
        command.args(["--grep", filter, "--pass-with-no-tests"]);
    }
    count(command.env("MAYFLY_BIN", server).env("MAYFLY_CHROMIUM", browser))
}

/// Every fuzz target for a minute, from its seeds and from what earlier runs found to be of interest. Without a
/// sanitizer, so that the stable compiler will do: the rules hold no unsafe code.
fn fuzz() -> Result<Counts, Failure> {
    install::cpp_compiler()?;
    install::cargo_fuzz()?;
    let folder = target_dir().join("fuzz");
    let found = folder.join("found");
    std::fs::create_dir_all(&found)?;
    let mut counts = Counts::default();
    for target in FUZZ_TARGETS {
        let corpus = folder.join("corpus").join(target);
        std::fs::create_dir_all(&corpus)?;
        let mut command = Command::new("cargo");
        command
            .args(["fuzz", "run", "--fuzz-dir", "server/fuzz", "--sanitizer", "none"])
            .arg("--target-dir")
            .arg(&folder)
            .arg(target)
            .arg(&corpus)
            .arg(root().join("server/fuzz/seeds").join(target))
            .args([
                "--",
                "-max_total_time=60",
                "-max_len=9000",
                "-timeout=5",
                "-verbosity=0",
            ])
            .args([
                "-print_final_stats=1",
                &format!("-artifact_prefix={}/", found.display()),
            ])
            // Linking takes longer than it gains in a minute.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .current_dir(root());
        match program::run(&mut command) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                println!("{error}; what it found is in {}", found.display());
                counts.failed += 1;
            }
        }
    }
    Ok(counts)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a step took, for people; no rule depends on it"
)]
fn now() -> Instant {
    Instant::now()
}
