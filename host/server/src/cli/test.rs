//! `millrace test`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use millrace_core::Result;
use serde_json::{Value, json};

use super::{Outcome, say, validate};
use crate::config::{self, Loaded};
use crate::examples::{self, Report};
use crate::wiring::{self, PluginRuntime};

/// Runs the `tests:` of pipeline files through their real plugins; no server is needed
///
/// Each test gives changes and expects what comes out of the last stage; what differs is shown as a diff.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  millrace test shop.yaml\n  ok    shop: phones are cut\n  1 passed, 0 failed")]
pub(super) struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn perform(args: &Args) -> Result<Outcome> {
    let files = match config::load_all(&args.files) {
        Ok(files) => files,
        Err(problems) => return Ok(validate::refused(&problems, args.json)),
    };
    let plugins = PluginRuntime::start()?;
    let mut results: Vec<(String, Report)> = Vec::new();
    for loaded in &files {
        let problems = validate::plugin_problems(loaded, &plugins).await;
        if !problems.is_empty() {
            return Ok(validate::refused(&problems, args.json));
        }
        for report in run(loaded, &plugins).await? {
            if !args.json {
                show(&loaded.config.pipeline, &report);
            }
            results.push((loaded.config.pipeline.clone(), report));
        }
    }
    let failed = results.iter().filter(|(_, r)| !r.passed).count();
    let passed = results.len() - failed;
    if args.json {
        let tests: Vec<Value> =
            results.iter().map(|(pipeline, report)| json!({ "pipeline": pipeline, "test": report })).collect();
        say(json!({ "passed": passed, "failed": failed, "tests": tests }));
    } else {
        say(format_args!("{passed} passed, {failed} failed"));
    }
    Ok(if failed == 0 { Outcome::Done } else { Outcome::Failed })
}

async fn run(loaded: &Loaded, plugins: &PluginRuntime) -> Result<Vec<Report>> {
    let configured = wiring::configure(loaded, &loaded.config.stages)?;
    let loader = plugins.loader(&loaded.config.pipeline, &loaded.config.keys)?;
    let mut reports = Vec::with_capacity(loaded.config.tests.len());
    for case in &loaded.config.tests {
        // Fresh instances: what one test leaves in a plugin does not reach the next.
        let mut stages = wiring::load_for(loader.as_ref(), &configured).await?;
        reports.push(examples::run(case, &mut stages).await);
    }
    Ok(reports)
}

/// One line, and what differs; `whose`: the pipeline's or the plugin's name.
pub(super) fn show(whose: &str, report: &Report) {
    let word = if report.passed { "ok   " } else { "FAIL " };
    say(format_args!("{word} {whose}: {}", report.name));
    if let Some(error) = &report.error {
        say(format_args!("      {}", error.replace('\n', "\n      ")));
    }
    for difference in &report.differences {
        say(format_args!("      {}", difference.to_string().replace('\n', "\n      ")));
    }
}
