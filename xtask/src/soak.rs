//! What is too long for `test`, with a dated result file in docs/results/.
//!
//! A soak is an ordinary test run in its long form: `MILLRACE_SOAK` names it, and the variable beside it in the table
//! says how much. A line of the test that starts with `result:` goes into the file.

use std::fs;
use std::time::Instant;

use crate::command::Run;
use crate::setup::{self, Scope};
use crate::{Outcome, paths, plugins};

struct Soak {
    name: &'static str,
    what: &'static str,
    /// What `cargo test` runs of the workspace.
    tests: &'static [&'static str],
    variable: (&'static str, &'static str),
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "kills",
        what: "the host killed 20 times while PostgreSQL is written to at full speed, also during its snapshot",
        tests: &["--test", "kills"],
        variable: ("MILLRACE_KILLS", "20"),
    },
    Soak {
        name: "simulator",
        what: "100,000 schedules of the deterministic simulator",
        tests: &["--test", "simulator"],
        variable: ("MILLRACE_SCHEDULES", "100000"),
    },
    Soak {
        name: "upsert-simulator",
        what: "5,000 schedules of the deterministic simulator of mirrors, and its seeded bugs",
        tests: &["--lib", "tests::simulator"],
        variable: ("MILLRACE_SCHEDULES", "5000"),
    },
    Soak {
        name: "swaps",
        what: "a plugin swapped every 200 ms for 60 s under load",
        tests: &["--test", "swaps"],
        variable: ("MILLRACE_SWAP_SECONDS", "60"),
    },
    Soak {
        name: "load",
        what: "ten minutes of load from PostgreSQL, with memory and lag watched",
        tests: &["--test", "load"],
        variable: ("MILLRACE_LOAD_SECONDS", "600"),
    },
    Soak {
        name: "upsert-kills",
        what: "the host of a mirror killed 200 times while it writes data, deletion vectors, commits, and compacts",
        tests: &["--test", "upsert_kills"],
        variable: ("MILLRACE_UPSERT_KILLS", "200"),
    },
    Soak {
        name: "upsert",
        what: "ten minutes of 10,000 changes a second into a mirror, with memory, lag, files and log watched",
        tests: &["--test", "upsert_load"],
        variable: ("MILLRACE_UPSERT_SECONDS", "600"),
    },
];

pub(crate) fn run(name: &str) -> Outcome {
    let names = || SOAKS.iter().map(|soak| soak.name).collect::<Vec<_>>().join(", ");
    let soak = SOAKS.iter().find(|soak| soak.name == name);
    let soak = soak.ok_or_else(|| format!("no soak `{name}`: there are {}", names()))?;
    setup::run(Scope::Test)?;
    let dist = plugins::build()?;
    let millrace = paths::build_millrace()?;
    println!("soak: {}", soak.what);
    let start = Instant::now();
    let (variable, value) = soak.variable;
    // Of the whole workspace, as `test` builds it: with other features all dependencies would be built again.
    let test = Run::cargo().args(["test", "--release", "--locked", "--workspace"]).args(soak.tests);
    let test = test.args(["--", "--nocapture", "--include-ignored", "--test-threads", "1"]);
    let test = test.env("MILLRACE_SOAK", name).env(variable, std::env::var(variable).unwrap_or(value.to_owned()));
    let mut kept = Vec::new();
    let passed = test.env("MILLRACE_BIN", millrace).env("MILLRACE_PLUGINS", dist).lines(|line| {
        println!("{line}");
        if line.starts_with("result:") || line.starts_with("test ") {
            kept.push(line.to_owned());
        }
    })?;
    let report = report(soak, passed, start.elapsed().as_secs(), &kept)?;
    write(name, &report)?;
    if passed { Ok(()) } else { Err(format!("soak {name} failed")) }
}

fn report(soak: &Soak, passed: bool, seconds: u64, kept: &[String]) -> Outcome<String> {
    let git = |args: &[&str]| Run::new("git").args(args).quiet().output().map(|text| text.trim().to_owned());
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed =
        if git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() { "" } else { " with changes" };
    let verdict = if passed { "passed" } else { "FAILED" };
    let (variable, default) = soak.variable;
    let value = std::env::var(variable).unwrap_or(default.to_owned());
    Ok(format!(
        "# Soak `{}`: {verdict}\n\n{}.\n\n- command: `{variable}={value} cargo xtask soak {}`\n\
         - commit: {commit}{changed}\n- machine: {}\n- took: {seconds} s\n\n```\n{}\n```\n",
        soak.name,
        soak.what,
        soak.name,
        machine(),
        kept.join("\n")
    ))
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {}", model.unwrap_or(std::env::consts::ARCH))
}

fn write(name: &str, report: &str) -> Outcome {
    let date = Run::new("date").args(["-u", "+%Y-%m-%d"]).quiet().output()?;
    let dir = paths::root().join("docs/results");
    let file = dir.join(format!("{}-{name}.md", date.trim()));
    fs::create_dir_all(&dir).and_then(|()| fs::write(&file, report)).map_err(|e| format!("{}: {e}", file.display()))?;
    println!("soak: written to {}", paths::shown(&file));
    Ok(())
}
