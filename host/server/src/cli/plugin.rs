//! `millrace plugin`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use millrace_core::{Error, Result};
use serde_json::json;

use super::table::table;
use super::{Outcome, print, say};
use crate::config::reference::io_reason;
use crate::wiring::{PluginRuntime, plugins};

/// Looks at plugins
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Inspect(InspectArgs),
}

/// Says what a plugin is: name, version, role, what it imports, its digest and the schema of its configuration
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  millrace plugin inspect ./mask.wasm")]
pub(super) struct InspectArgs {
    /// A component's file, or the name of a first-party plugin
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn inspect(args: &InspectArgs) -> Result<Outcome> {
    let path = match PathBuf::from(&args.plugin) {
        file if file.is_file() => file,
        _ => plugins::find(&args.plugin, &std::env::current_dir().unwrap_or_default())?,
    };
    let bytes = std::fs::read(&path)
        .map_err(|e| Error::config("plugin.unreadable", format!("{}: {}", path.display(), io_reason(&e))))?;
    let runtime = PluginRuntime::start()?;
    let seen = runtime.inspect(&bytes).await.map_err(|e| e.context(path.display()))?;
    if args.json {
        say(json!(seen));
        return Ok(Outcome::Done);
    }
    let list = |items: &[String]| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
    let rows = [
        ("name", seen.name.clone()),
        ("version", seen.version.clone()),
        ("description", seen.description.clone()),
        ("role", seen.role.to_owned()),
        ("contract", seen.wit_version.clone()),
        ("imports", list(&seen.imports)),
        ("size", format!("{} kB", seen.bytes / 1000)),
        ("digest", format!("sha256:{}", seen.digest)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
    print(table(&["what", "value"], &rows));
    if seen.config_schema.is_object() {
        let text = serde_json::to_string_pretty(&seen.config_schema).map_err(|e| Error::bug(e.to_string()))?;
        say(format_args!("\nconfig:\n{text}"));
    }
    Ok(Outcome::Done)
}
