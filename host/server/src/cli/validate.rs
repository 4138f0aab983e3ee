//! `millrace validate`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millrace_core::Result;
use serde_json::json;

use super::{Outcome, say, say_problems};
use crate::config::problem::{Problem, Severity};
use crate::config::{self, Loaded};
use crate::wiring::PluginRuntime;

/// Checks pipeline files: every problem at once, each with its place and what would be right
///
/// The plugins are loaded and their configuration is checked; no server is contacted.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  millrace validate shop.yaml\n  shop.yaml:3:5: error[config.unknown_key]: `source.postgres` has no key `tabels`; did you mean `tables`?"
)]
pub(super) struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print `{"problems": [...]}` instead of a line for each
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn perform(args: &Args) -> Result<Outcome> {
    let problems = match config::load_all(&args.files) {
        Ok(files) => {
            let plugins = PluginRuntime::start()?;
            let mut problems = Vec::new();
            for loaded in &files {
                problems.extend(loaded.warnings.iter().cloned());
                problems.extend(plugin_problems(loaded, &plugins).await);
            }
            problems
        }
        Err(problems) => problems,
    };
    say_problems(&problems, args.json);
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    if errors > 0 {
        if !args.json {
            eprintln!("{errors} {}", if errors == 1 { "problem" } else { "problems" });
        }
        return Ok(Outcome::Failed);
    }
    if !args.json {
        for file in &args.files {
            say(format_args!("{}: right", file.display()));
        }
    }
    Ok(Outcome::Done)
}

/// What only the plugins know: whether they load, and whether their configuration is right.
pub(super) async fn plugin_problems(loaded: &Loaded, plugins: &PluginRuntime) -> Vec<Problem> {
    crate::wiring::check_plugins(loaded, plugins).await
}

/// Problems as the answer of a verb that does not start because of them.
pub(super) fn refused(problems: &[Problem], json: bool) -> Outcome {
    say_problems(problems, false);
    if json {
        say(json!({ "error": { "code": "config.invalid", "problems": problems } }));
    }
    Outcome::Failed
}
