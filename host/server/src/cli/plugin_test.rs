//! `millrace plugin test`.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use millrace_core::Result;
use serde_json::json;

use super::{Outcome, plugin, say, test, validate};
use crate::examples::cases::{self, Golden};
use crate::wiring::PluginRuntime;

/// Runs a plugin's cases: given changes, and what must come out; or the conformance kit
///
/// A file of cases names the plugin, its grant and its config. A case without `expect` is compared with the golden file beside it
/// (`cases.yaml`: `cases.golden.json`), which holds rows, refusals and errors with their words; `--update` writes it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  millrace plugin test cases.yaml\n  ok    phones are cut\n  1 passed, 0 failed\n  \
                  millrace plugin test --conformance ./conformance.wasm")]
pub(super) struct Args {
    /// Files of cases, YAML or JSON
    #[arg(value_name = "CASES", required_unless_present = "conformance", conflicts_with = "conformance")]
    files: Vec<PathBuf>,
    /// Write what comes out into the golden files
    #[arg(long, conflicts_with_all = ["conformance", "only"])]
    update: bool,
    /// Run the conformance kit on this component instead, which does what sdk/conformance/README.md says
    ///
    /// Each case runs cut at 1, 7 and 1,000 changes and on fresh instances, and all answers must be equal byte for byte.
    #[arg(long, value_name = "PLUGIN")]
    conformance: Option<String>,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Print one JSON object instead of lines
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn perform(args: &Args) -> Result<Outcome> {
    if let Some(component) = &args.conformance {
        return conformance(component, args).await;
    }
    let plugins = PluginRuntime::start()?;
    let mut reports = Vec::new();
    for file in &args.files {
        let cases = match cases::read(file) {
            Ok(cases) => cases,
            Err(problems) => return Ok(validate::refused(&problems, args.json)),
        };
        let golden = cases::read_golden(file)?;
        let mut fresh = Golden::new();
        for case in cases.cases.iter().filter(|case| case.name.contains(&args.only)) {
            let (mut report, got) = cases::run(file, &cases, case, &golden, &plugins).await?;
            if let Some(got) = got {
                report.passed |= args.update;
                fresh.insert(case.name.clone(), got);
            }
            if !args.json {
                test::show(&cases.plugin, &report);
            }
            reports.push(report);
        }
        if args.update && fresh != golden {
            cases::write_golden(file, &fresh)?;
            say_written(file, args.json);
        }
    }
    let failed = reports.iter().filter(|r| !r.passed).count();
    let passed = reports.len() - failed;
    if args.json {
        say(json!({ "passed": passed, "failed": failed, "cases": reports }));
    } else {
        say(format_args!("{passed} passed, {failed} failed"));
    }
    Ok(if failed == 0 { Outcome::Done } else { Outcome::Failed })
}

fn say_written(file: &Path, json: bool) {
    if !json {
        say(format_args!("wrote {}", cases::golden_path(file).display()));
    }
}

async fn conformance(component: &str, args: &Args) -> Result<Outcome> {
    let (path, bytes) = plugin::read(component)?;
    let verdicts =
        PluginRuntime::start()?.conformance(&bytes, &args.only).await.map_err(|e| e.context(path.display()))?;
    let failed = verdicts.iter().filter(|v| v.wrong.is_some()).count();
    let passed = verdicts.len() - failed;
    if args.json {
        say(json!({ "passed": passed, "failed": failed, "cases": verdicts }));
    } else {
        for (case, wrong) in verdicts.iter().filter_map(|v| Some((&v.case, v.wrong.as_ref()?))) {
            say(format_args!("FAIL  {case}\n      {}", wrong.replace('\n', "\n      ")));
        }
        say(format_args!("{passed} passed, {failed} failed"));
    }
    Ok(if failed == 0 { Outcome::Done } else { Outcome::Failed })
}
