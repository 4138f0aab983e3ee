//! All tests, with their servers; closes with the counts of all workspaces.

use std::time::Instant;

use crate::command::Run;
use crate::setup::{self, Scope};
use crate::{Outcome, conformance, paths, plugins};

/// `filter`: arguments for the test programs, as after `cargo test --`.
pub(crate) fn run(filter: &[&str]) -> Outcome {
    setup::run(Scope::Test)?;
    let start = Instant::now();
    let dist = plugins::build_all()?;
    let millrace = paths::build_millrace()?;
    let mut counts = Counts::default();
    let main = Run::cargo().args(["test", "--release", "--locked", "--workspace", "--no-fail-fast"]);
    let main = main.env("MILLRACE_BIN", millrace).env("MILLRACE_PLUGINS", dist);
    counts.of(main, filter)?;
    // What plugins compute is tested natively; not in their release profile, whose whole-program optimisation is slow.
    let host = plugins::host()?;
    for workspace in ["plugins", "sdk/rust"] {
        let guest = Run::cargo().args(["test", "--locked", "--workspace", "--no-fail-fast", "--target", &host]);
        let guest = guest.dir(&paths::root().join(workspace)).env("CARGO_TARGET_DIR", paths::guest_target());
        counts.of(guest, filter)?;
    }
    // The SDKs of all languages, where no test is asked for by name.
    let conform = if filter.is_empty() { conformance::run(&[]) } else { Ok(()) };
    println!("took {:.0} s", start.elapsed().as_secs_f64());
    println!("{}", counts.closing_line());
    counts.verdict().and(conform)
}

/// What the closing lines of `cargo test` add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// A command that ended badly without a failed test: it did not build, or a test program died.
    broken: bool,
}

impl Counts {
    fn of(&mut self, cargo: Run, filter: &[&str]) -> Outcome {
        let failed_before = self.failed;
        let ok = cargo.arg("--").args(filter).lines(|line| {
            println!("{line}");
            self.add(line);
        })?;
        self.broken |= !ok && self.failed == failed_before;
        Ok(())
    }

    /// Adds `test result: ok. 5 passed; 0 failed; 1 ignored; …`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, word)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn closing_line(&self) -> String {
        let skipped = if self.ignored > 0 { format!(", {} skipped", self.ignored) } else { String::new() };
        format!("tests: {} passed, {} failed{skipped}", self.passed, self.failed)
    }

    fn verdict(&self) -> Outcome {
        match self {
            Counts { failed: 0, broken: false, passed: 1.., .. } => Ok(()),
            Counts { broken: true, .. } => Err("a test program did not build, or ended without a result".to_owned()),
            Counts { failed: 0, .. } => Err("no test ran".to_owned()),
            Counts { failed, .. } => Err(format!("{failed} tests failed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    fn counted(lines: &[&str]) -> Counts {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.add(line));
        counts
    }

    #[test]
    fn closing_lines_of_all_test_programs_add_up() {
        let counts = counted(&[
            "running 3 tests",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s",
        ]);
        assert_eq!(counts.closing_line(), "tests: 7 passed, 1 failed, 1 skipped");
        assert_eq!(counts.verdict(), Err("1 tests failed".to_owned()));
    }

    #[test]
    fn a_run_without_a_test_is_a_failure() {
        assert_eq!(counted(&["running 0 tests"]).verdict(), Err("no test ran".to_owned()));
    }

    #[test]
    fn a_program_that_dies_without_a_result_is_a_failure() {
        let mut counts = counted(&["test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"]);
        counts.broken = true;
        assert!(counts.verdict().is_err());
    }
}
