//! The gate that is not tests: everything is run, then what failed is listed.

use std::path::Path;
use std::time::Instant;

use crate::command::{Run, has};
use crate::setup::{self, Scope};
use crate::{Outcome, paths, plugins, tidy};

type Step = (&'static str, fn() -> Outcome);

const STEPS: &[Step] = &[
    ("format", format),
    ("tidy", tidy::run),
    ("model of the protocol", model),
    ("lints", lints),
    ("documentation of the code", rustdoc),
    ("licences and advisories", licences),
];

/// All steps, or those whose name starts with one of `only`.
pub(crate) fn run(only: &[&str]) -> Outcome {
    let chosen = |name: &str| only.is_empty() || only.iter().any(|start| name.starts_with(start));
    let steps: Vec<&Step> = STEPS.iter().filter(|(name, _)| chosen(name)).collect();
    if steps.is_empty() {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        return Err(format!("no such step: there are {}", names.join(", ")));
    }
    setup::run(Scope::Demo)?;
    let mut failed = Vec::new();
    for (name, step) in &steps {
        println!("check: {name}");
        let start = Instant::now();
        if let Err(message) = step() {
            eprintln!("{message}");
            failed.push(*name);
        }
        println!("check: {name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("check: {} passed, {} failed", steps.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(format!("check failed: {}", failed.join(", "))) }
}

/// The workspaces beside the main one, where they exist.
fn guests() -> impl Iterator<Item = &'static str> {
    ["plugins", "sdk/rust"].into_iter().filter(|dir| paths::root().join(dir).join("Cargo.toml").is_file())
}

fn in_guest(dir: &str, args: &[&str]) -> Run {
    Run::cargo().args(args).dir(&paths::root().join(dir)).env("CARGO_TARGET_DIR", paths::guest_target())
}

fn format() -> Outcome {
    Run::cargo().args(["fmt", "--all", "--check"]).must()?;
    guests().try_for_each(|dir| in_guest(dir, &["fmt", "--all", "--check"]).must())
}

fn lints() -> Outcome {
    let clippy = ["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    Run::cargo().args(clippy).must()?;
    // Guests for their own target: their generated bindings differ on the host's.
    let guest = ["clippy", "--release", "--workspace", "--target", plugins::TARGET, "--", "-D", "warnings"];
    guests().try_for_each(|dir| in_guest(dir, &guest).must())
}

fn rustdoc() -> Outcome {
    let doc = Run::cargo().args(["doc", "--release", "--locked", "--workspace", "--no-deps", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings").must()
}

/// It explores every interleaving: about two minutes.
fn model() -> Outcome {
    let file = Path::new("docs/protocol/protocol_model.py");
    if !has("python3") {
        return Err("python3 is absent: `cargo xtask setup test` installs it".to_owned());
    }
    Run::new("python3").arg(file).args(["-q", "--expect"]).must()
}

fn licences() -> Outcome {
    if !Run::cargo().args(["deny", "--version"]).succeeds() {
        println!("check: skipped, cargo-deny is not installed (`cargo install --locked cargo-deny`)");
        return Ok(());
    }
    // Advisories need their database from outside; licences, bans and sources do not.
    Run::cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]).must()
}
