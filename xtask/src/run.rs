//! Running other programs: shown before they run, judged by their exit code, counted by what they print.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::Failure;

/// Tests that passed, failed and were skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Skipped.
    pub skipped: u64,
    /// The names of those that failed.
    pub failures: Vec<String>,
}

impl Counts {
    /// Adds another step's.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

/// Reads the lists of failed tests: Cargo's stands before the line that counts, Playwright's after it.
#[derive(Default)]
struct Names {
    reads: bool,
    found: Vec<String>,
}

impl Names {
    fn read(&mut self, line: &str, counts: &mut Counts) {
        let counted = counts_in(line);
        if counted != Counts::default() {
            counts.failures.append(&mut self.found);
            self.reads = counted.failed > 0 && !line.starts_with("test result");
        } else if line == "failures:" {
            // Said twice: before what the tests printed, and before their names.
            self.found.clear();
            self.reads = true;
        } else if self.reads
            && let Some(name) = line.strip_prefix("    ").filter(|name| !name.starts_with(' '))
        {
            self.found.push(name.trim_end_matches(['─', ' ']).to_owned());
        }
        counts.add(counted);
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
    let mut names = Names::default();
    if let Some(output) = child.stdout.take() {
        let mut lists_passed = false;
        for line in BufReader::new(output).lines() {
            let line = line?;
            // What passed is shown with what it printed, its figures; not its name once more.
            lists_passed = line == "successes:" || (lists_passed && (line.is_empty() || line.starts_with("    ")));
            if !lists_passed {
                println!("{line}");
            }
            names.read(&line, &mut counts);
        }
    }
    counts.failures.append(&mut names.found);
    if !child.wait()?.success() && counts.failed == 0 {
        counts.failed = 1;
        counts.failures.push(shown);
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
                skipped: 2,
                ..Counts::default()
            }
        );
        assert_eq!(
            counts_in("  41 passed (1.2m)"),
            Counts {
                passed: 41,
                ..Counts::default()
            }
        );
        assert_eq!(
            counts_in("  2 failed"),
            Counts {
                failed: 2,
                ..Counts::default()
            }
        );
        assert_eq!(
            counts_in("  7 skipped"),
            Counts {
                skipped: 7,
                ..Counts::default()
            }
        );
        assert_eq!(counts_in("12 passed the gate in the morning"), Counts::default());
        assert_eq!(counts_in("running 3 tests"), Counts::default());
    }

    fn failures_in(text: &str) -> Vec<String> {
        let (mut names, mut counts) = (Names::default(), Counts::default());
        for line in text.lines() {
            names.read(line, &mut counts);
        }
        counts.failures.append(&mut names.found);
        counts.failures
    }

    #[test]
    fn failed_tests_are_named_as_cargo_and_playwright_name_them() {
        let cargo = "successes:\n\nsuccesses:\n    fine\n\nfailures:\n\n---- it stdout ----\n    its own words\n\n\
                     failures:\n    a::it\n    a::that\n\ntest result: FAILED. 3 passed; 2 failed; 0 ignored\n    no name\n";
        assert_eq!(failures_in(cargo), ["a::it", "a::that"]);
        let playwright = "  1) [javascript] › a.spec.ts:3:1 › it ──\n    Error: no\n\n  1 failed\n    \
                          [javascript] › a.spec.ts:3:1 › it ──────\n  2 did not run\n  41 passed (1.2m)\n    no name\n";
        assert_eq!(failures_in(playwright), ["[javascript] › a.spec.ts:3:1 › it"]);
    }
}
