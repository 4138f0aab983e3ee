//! `millrace plugin bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use millrace_core::{Error, Result};
use serde_json::json;

use super::table::table;
use super::{Outcome, print, say, validate};
use crate::examples::cases;
use crate::wiring::PluginRuntime;

/// Says how long a plugin takes for a row, and how much memory it holds
///
/// The given changes of a case, over and over, are one batch; it is run again and again, from Arrow to Arrow. Rows that the plugin
/// refuses or drops count as well.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  millrace plugin bench cases.yaml --case 'phones are cut'")]
pub(super) struct Args {
    /// A file of cases, as `millrace plugin test` has it
    #[arg(value_name = "CASES")]
    file: PathBuf,
    /// The case; default: the first
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Changes a batch
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,
    /// How long it is run
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn perform(args: &Args) -> Result<Outcome> {
    let cases = match cases::read(&args.file) {
        Ok(cases) => cases,
        Err(problems) => return Ok(validate::refused(&problems, args.json)),
    };
    let case = match &args.case {
        Some(name) => cases.cases.iter().find(|case| case.name == *name),
        None => cases.cases.first(),
    };
    let case = case.ok_or_else(|| {
        let names: Vec<&str> = cases.cases.iter().map(|case| case.name.as_str()).collect();
        Error::config("cases.unknown", format!("{} has no such case", args.file.display()))
            .hint(format!("it has: {}", names.join("; ")))
    })?;
    let plugins = PluginRuntime::start()?;
    let time = Duration::from_secs(args.seconds);
    let measured = cases::measure(&args.file, &cases, case, args.changes as usize, time, &plugins).await?;
    if args.json {
        say(json!({ "plugin": cases.plugin, "case": case.name, "measured": measured }));
        return Ok(Outcome::Done);
    }
    let rows = [
        ("plugin", cases.plugin.clone()),
        ("case", case.name.clone()),
        ("row images a batch", measured.rows.to_string()),
        ("batches", measured.batches.to_string()),
        ("ns a row image, median", format!("{:.0}", measured.median_ns)),
        ("ns a row image, least", format!("{:.0}", measured.least_ns)),
        ("memory", format!("{:.1} MiB", measured.memory as f64 / f64::from(1 << 20))),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
    print(table(&["what", "value"], &rows));
    Ok(Outcome::Done)
}
