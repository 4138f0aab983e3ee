//! `millrace maintain`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use millrace_core::record::Record;
use millrace_core::schema::TableName;
use millrace_core::{Error, Result};
use millrace_delta::Maintained;
use serde_json::{Value, json};

use super::table::{table, thousands};
use super::{Outcome, error_json, print, say, say_error, validate};
use crate::config;
use crate::environment::TokioEnvironment;
use crate::wiring;

/// Puts the Delta tables of a pipeline in order
///
/// Merges small files and writes those anew of which much is gone (of mirrors), puts the log into a checkpoint, and removes
/// files that no version within the table's retention refers to. The pipeline may run meanwhile.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  millrace maintain shop.yaml --table public.orders\n  table          files before  files  bytes       removed\n  public.orders  12            3      43,201,770  7"
)]
pub(super) struct Args {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// This table of the lake alone, as SCHEMA.TABLE
    #[arg(long)]
    table: Option<String>,
    /// Remove no files
    #[arg(long)]
    keep_files: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn perform(args: &Args) -> Result<Outcome> {
    let loaded = match config::load(&args.file) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(validate::refused(&problems, args.json)),
    };
    let env = Arc::new(TokioEnvironment::new());
    let mut sink = wiring::lake(&loaded, env.clone())?;
    let record = Record::latest(wiring::records(&loaded, env)?.as_ref()).await?;
    let known: Vec<TableName> = record.map(|record| record.tables.into_iter().collect()).unwrap_or_default();
    let is_wanted = |name: &&TableName| args.table.as_ref().is_none_or(|wanted| name.to_string() == *wanted);
    let wanted: Vec<&TableName> = known.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        return Err(no_table(&loaded.config.pipeline, args.table.as_deref(), &known));
    }
    let mut done = Vec::new();
    let mut outcome = Outcome::Done;
    for name in wanted {
        match sink.maintain(name, !args.keep_files).await {
            Ok(Some(maintained)) => done.push((name, Ok(maintained))),
            Ok(None) => {}
            // The others get their turn.
            Err(error) => {
                outcome = Outcome::Failed;
                done.push((name, Err(error)));
            }
        }
    }
    if args.json {
        say(json!({ "tables": done.iter().map(|(name, result)| as_json(name, result)).collect::<Vec<_>>() }));
        return Ok(outcome);
    }
    let rows: Vec<Vec<String>> =
        done.iter().filter_map(|(name, result)| Some(as_row(name, result.as_ref().ok()?))).collect();
    if !rows.is_empty() {
        print(table(&["table", "files before", "files", "bytes", "removed"], &rows));
    }
    done.iter().filter_map(|(_, result)| result.as_ref().err()).for_each(|error| say_error(error, false));
    Ok(outcome)
}

fn no_table(pipeline: &str, wanted: Option<&str>, known: &[TableName]) -> Error {
    let what = match wanted {
        Some(wanted) if !known.is_empty() => format!("pipeline {pipeline} writes no table `{wanted}`"),
        _ => format!("pipeline {pipeline} has written no table yet"),
    };
    let error = Error::config("maintain.no_table", what);
    if known.is_empty() {
        return error.hint("run it first: its resume record says which tables are its own");
    }
    let names: Vec<String> = known.iter().map(TableName::to_string).collect();
    error.hint(format!("it writes: {}", names.join(", ")))
}

fn as_row(name: &TableName, done: &Maintained) -> Vec<String> {
    vec![
        name.to_string(),
        thousands(done.files_before),
        thousands(done.files),
        thousands(done.bytes),
        thousands(done.removed_files),
    ]
}

fn as_json(name: &TableName, result: &Result<Maintained>) -> Value {
    let name = name.to_string();
    match result {
        Ok(done) => json!({
            "table": name, "files_before": done.files_before, "bytes_before": done.bytes_before, "files": done.files,
            "bytes": done.bytes, "version": done.version, "removed_files": done.removed_files,
            "removed_bytes": done.removed_bytes,
        }),
        Err(error) => json!({ "table": name, "error": error_json(error) }),
    }
}
