//! Running other programs: shown before they run, judged by their exit code, counted by what they print.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::Failure;

/// Tests that passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Skipped.
    pub skipped: u64,
}

impl Counts {
    /// Adds another step's.
    pub const fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let shown = show(command);
    let status = command.status().map_err(|error| format!("{shown}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown}: {status}").into())
    }
}

/// Runs tests, shows what they print, and counts. A program that fails without a failed test counts as one.
///
/// # Errors
/// When it cannot be started.
pub fn count(command: &mut Command) -> Result<Counts, Failure> {
    let shown = show(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let mut counts = Counts::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            counts.add(counts_in(&line));
        }
    }
    if !child.wait()?.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …` of cargo, and Playwright's `  3 passed (1.2s)`.
fn counts_in(line: &str) -> Counts {
    let mut counts = Counts::default();
    let line = line.trim();
    if let Some(result) = line.strip_prefix("test result: ") {
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(number), Some(word)) = (words.next().and_then(|n| n.parse().ok()), words.next()) {
                note(&mut counts, word, number);
            }
        }
        return counts;
    }
    let mut words = line.split_whitespace();
    if let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse), words.next()) {
        let rest: Vec<&str> = words.collect();
        let closes = rest.is_empty() || (rest.len() == 1 && rest[0].starts_with('('));
        if closes {
            note(&mut counts, if word == "flaky" { "failed" } else { word }, number);
        }
    }
    counts
}

fn note(counts: &mut Counts, word: &str, number: u64) {
    match word {
        "passed" => counts.passed += number,
        "failed" => counts.failed += number,
        "ignored" | "skipped" => counts.skipped += number,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_cargo_and_playwright_are_counted_and_nothing_else_is() {
        let cargo = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.05s";
        assert_eq!(
            counts_in(cargo),
            Counts {
                passed: 3,
                failed: 1,
                skipped: 2
            }
        );
        assert_eq!(
            counts_in("  41 passed (1.2m)"),
            Counts {
                passed: 41,
                failed: 0,
                skipped: 0
            }
        );
        assert_eq!(
            counts_in("  2 failed"),
            Counts {
                passed: 0,
                failed: 2,
                skipped: 0
            }
        );
        assert_eq!(
            counts_in("  7 skipped"),
            Counts {
                passed: 0,
                failed: 0,
                skipped: 7
            }
        );
        assert_eq!(counts_in("12 passed the gate in the morning"), Counts::default());
        assert_eq!(counts_in("running 3 tests"), Counts::default());
    }
}
