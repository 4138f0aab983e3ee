//! Installs what the demo and the tests need, once: pinned, by the ordinary package clients, and says what it does.

pub(crate) mod guests;
mod servers;
mod system;

use std::path::Path;
use std::time::Instant;

use crate::command::{Run, has};
use crate::{Outcome, paths, plugins};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Demo,
    Test,
    /// The toolchains of plugins in other languages than Rust, for `conformance` alone.
    Guests,
    All,
}

impl Scope {
    pub(crate) fn parse(word: &str) -> Outcome<Scope> {
        match word {
            "demo" => Ok(Scope::Demo),
            "test" => Ok(Scope::Test),
            "guests" => Ok(Scope::Guests),
            "all" => Ok(Scope::All),
            _ => Err(format!("`setup {word}`: there are demo, test, guests and all")),
        }
    }
}

/// Brings the machine to where the scope's commands run. Quick when nothing is missing.
pub(crate) fn run(scope: Scope) -> Outcome {
    let start = Instant::now();
    if scope == Scope::Guests {
        guests::install()?;
        println!("setup: everything is there ({:.1} s)", start.elapsed().as_secs_f64());
        return Ok(());
    }
    system::install(if scope == Scope::Demo { system::DEMO } else { system::ALL })?;
    rust_target(plugins::TARGET)?;
    if scope != Scope::Demo {
        rust_target(plugins::WASI_TARGET)?;
        let cache = paths::cache()?;
        std::fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
        servers::install(&cache)?;
        guests::install()?;
    }
    println!("setup: everything is there ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(())
}

fn rust_target(target: &str) -> Outcome {
    let rustc = || Run::new("rustc").quiet();
    let libs = rustc().args(["--print", "target-libdir", "--target", target]).output()?;
    if Path::new(libs.trim()).is_dir() {
        return Ok(());
    }
    println!("setup: the compiler lacks the target {target} for the plugins");
    if !has("rustup") {
        return Err(format!("install the standard library for {target}, or rustup, which fetches it"));
    }
    Run::new("rustup").args(["target", "add", target]).must()
}
