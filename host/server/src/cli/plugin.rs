//! `millrace plugin`.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use millrace_core::{Error, Result};
use millrace_wasm::componentize;
use serde_json::json;

use super::table::table;
use super::{Outcome, print, say};
use crate::config::reference::io_reason;
use crate::wiring::{PluginRuntime, plugins};

/// Starts plugins, looks at them, tests them, and makes components of what a compiler wrote
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    New(super::plugin_new::Args),
    Inspect(InspectArgs),
    Build(BuildArgs),
    Test(super::plugin_test::Args),
    Bench(super::plugin_bench::Args),
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

/// A component's bytes, by its file or its name.
pub(super) fn read(plugin: &str) -> Result<(PathBuf, Vec<u8>)> {
    let path = match PathBuf::from(plugin) {
        file if file.is_file() => file,
        _ => plugins::find(plugin, &std::env::current_dir().unwrap_or_default())?,
    };
    let bytes = std::fs::read(&path)
        .map_err(|e| Error::config("plugin.unreadable", format!("{}: {}", path.display(), io_reason(&e))))?;
    Ok((path, bytes))
}

pub(super) async fn inspect(args: &InspectArgs) -> Result<Outcome> {
    let (path, bytes) = read(&args.plugin)?;
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

/// Makes a component of the core module that a compiler wrote; one that is a component already stays as it is
///
/// The file appears in one step, so that a pipeline that watches it never sees half of it.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Example:\n  millrace plugin build target/wasm32-unknown-unknown/release/mine.wasm -o mine.wasm"
)]
pub(super) struct BuildArgs {
    /// The compiler's file
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Where the component goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn build(args: &BuildArgs) -> Result<Outcome> {
    let unusable = |path: &Path, e: std::io::Error| {
        Error::config("plugin.unreadable", format!("{}: {}", path.display(), io_reason(&e)))
            .hint("give the path of the compiler's file")
    };
    let module = std::fs::read(&args.module).map_err(|e| unusable(&args.module, e))?;
    let component = componentize(&module).map_err(|e| e.context(args.module.display()))?;
    let staged = args.output.with_extension("wasm.new");
    let written = std::fs::write(&staged, &component).and_then(|()| std::fs::rename(&staged, &args.output));
    written.map_err(|e| {
        Error::config("plugin.unwritable", format!("{}: {}", args.output.display(), io_reason(&e)))
            .hint("give a path that this user may write")
    })?;
    say(format_args!("{}: {} kB", args.output.display(), component.len() / 1000));
    Ok(Outcome::Done)
}
