//! The main job on the embedded default: generator, plugins, Delta table; a plugin swapped meanwhile; counts reconciled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{Run, has};
use crate::setup::{self, Scope};
use crate::{Outcome, paths, plugins};

const PIPELINE: &str = "pipelines/demo.yaml";
/// Six seconds of stream at this rate: several times what a swap takes, also on a busy machine.
const EVENTS: &str = "600000";
const RATE: &str = "100000";
/// Commits of the table before the plugin is replaced: the stream is well under way.
const COMMITS_BEFORE_SWAP: usize = 3;
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(args: &[&str]) -> Outcome {
    let json = match args {
        [] => false,
        ["--json"] => true,
        _ => return Err(format!("`demo {}`: there is --json", args.join(" "))),
    };
    setup::run(Scope::Demo)?;
    let dist = plugins::build()?;
    // The same plugin, built for size: another component with the same meaning, as a release of it would be.
    let second = plugins::build_variant("mask", "profile.release.opt-level='s'")?;
    let millrace = paths::build_millrace()?;
    let dir = fresh_folder()?;
    let plugin = dir.join("mask.wasm");
    plugins::publish(&dist.join("mask.wasm"), &plugin)?;

    println!("demo: {EVENTS} changes of a shop through {} into Delta Lake", paths::shown(&plugin));
    let start = Instant::now();
    let pipeline = start_pipeline(&millrace, &dist, &dir, &plugin)?;
    let summary = swap_and_wait(pipeline, &dir, || plugins::publish(&second, &plugin))?;
    let report = Report::of(&summary)?;
    report.reconcile()?;
    report.print(start.elapsed());
    if json {
        println!("{}", report.as_json());
    }
    Ok(())
}

fn fresh_folder() -> Outcome<PathBuf> {
    let dir = paths::target().join("demo");
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(failed)?;
    }
    fs::create_dir_all(&dir).map_err(failed)?;
    dir.canonicalize().map_err(failed)
}

fn log(dir: &Path) -> PathBuf {
    dir.join("millrace.log")
}

fn start_pipeline(millrace: &Path, dist: &Path, dir: &Path, plugin: &Path) -> Outcome<Child> {
    let run = Run::new(millrace).args(["run", PIPELINE, "--until-end", "--json"]).piped();
    let run = run.env("MILLRACE_PLUGINS", dist).env("MILLRACE_DEMO_PLUGIN", plugin).env("MILLRACE_DEMO_DIR", dir);
    run.env("MILLRACE_DEMO_EVENTS", EVENTS).env("MILLRACE_DEMO_RATE", RATE).log_to(&log(dir))?.spawn()
}

/// Replaces the plugin once the stream is under way, waits for the end, and answers the last line of the output.
fn swap_and_wait(mut pipeline: Child, dir: &Path, swap: impl FnOnce() -> Outcome) -> Outcome<Value> {
    let start = Instant::now();
    let mut swap = Some(swap);
    // Its standard output is one line at the end, which fits the pipe: nobody has to read before.
    while pipeline.try_wait().map_err(|e| format!("millrace: {e}"))?.is_none() {
        if start.elapsed() > LIMIT {
            pipeline.kill().map_err(|e| format!("millrace: {e}"))?;
            return Err(format!("the pipeline did not end in {} s", LIMIT.as_secs()));
        }
        if swap.is_some() && commits(dir) >= COMMITS_BEFORE_SWAP {
            println!("demo: the plugin's file is replaced while the pipeline runs");
            swap.take().map_or(Ok(()), |swap| swap())?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let out = pipeline.wait_with_output().map_err(|e| format!("millrace: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        let said = fs::read_to_string(log(dir)).unwrap_or_default();
        return Err(format!("the pipeline ended with {}\n{said}{text}", out.status));
    }
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|e| format!("{e} in the last line of `millrace run`: {last}"))
}

/// Commits of the first table that is there.
fn commits(dir: &Path) -> usize {
    let tables = fs::read_dir(dir.join("shop")).into_iter().flatten().flatten();
    let log = |table: fs::DirEntry| fs::read_dir(table.path().join("_delta_log")).into_iter().flatten().flatten();
    tables.map(|table| log(table).filter(is_commit).count()).max().unwrap_or(0)
}

fn is_commit(entry: &fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|end| end == "json")
}

/// What the run says of itself, in row images.
struct Report {
    events: u64,
    rows: u64,
    dropped: u64,
    dead_letters: u64,
    swaps: u64,
    table: PathBuf,
}

impl Report {
    fn of(summary: &Value) -> Outcome<Report> {
        let count = |field: &str| summary[field].as_u64().ok_or_else(|| format!("no `{field}` in {summary}"));
        let tables = summary["tables"].as_array().ok_or_else(|| format!("no `tables` in {summary}"))?;
        let [table] = tables.as_slice() else {
            return Err(format!("the demo writes one table, not {}", summary["tables"]));
        };
        let path = table["path"].as_str().ok_or_else(|| format!("no path in {table}"))?;
        Ok(Report {
            events: count("images_in")?,
            rows: count("images_out")?,
            dropped: count("dropped")?,
            dead_letters: count("dead_letters")?,
            swaps: count("swaps")?,
            table: PathBuf::from(path.strip_prefix("file://").unwrap_or(path)),
        })
    }

    /// Nothing lost, nothing twice: by the host's counts, and by the table's own log.
    fn reconcile(&self) -> Outcome {
        let Report { events, rows, dropped, dead_letters, .. } = self;
        if *events != rows + dropped + dead_letters {
            return Err(format!(
                "{events} row images came in, {rows} went out, {dropped} dropped, {dead_letters} letters"
            ));
        }
        let stored = rows_in_log(&self.table)?;
        if stored != *rows {
            return Err(format!("the host wrote {rows} rows, the table's log holds {stored}"));
        }
        if self.swaps == 0 {
            return Err("the plugin was not swapped while the pipeline ran".to_owned());
        }
        Ok(())
    }

    fn print(&self, took: Duration) {
        let Report { events, rows, dropped, dead_letters, swaps, .. } = self;
        let table = self.table.display();
        println!();
        println!("  row images in              {events:>10}");
        println!("  = rows in the table        {rows:>10}   (as many by the table's own log)");
        println!("  + dropped by a filter      {dropped:>10}");
        println!("  + refused, dead letters    {dead_letters:>10}");
        println!("  plugin swapped meanwhile   {swaps:>10}");
        println!("  took                       {:>10.1} s", took.as_secs_f64());
        println!("\nThe table: {table}");
        println!("Read it with any reader of Delta Lake:");
        println!("  DuckDB   INSTALL delta; SELECT * FROM delta_scan('{table}') LIMIT 10;");
        println!("  polars   polars.read_delta('{table}')");
        let python = paths::cache().map(|cache| cache.join("venv/bin/python"));
        if let Some(python) = python.ok().filter(|python| python.is_file()) {
            println!(
                "  here     {} -c \"import polars; print(polars.read_delta('{table}').head())\"",
                python.display()
            );
        } else if has("python3") {
            println!("`cargo xtask setup test` brings both of them.");
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "table": self.table,
            "events": self.events,
            "rows": self.rows,
            "dropped": self.dropped,
            "dead_letters": self.dead_letters,
            "swaps": self.swaps,
        })
    }
}

/// Rows of the table as the statistics in its log count them.
fn rows_in_log(table: &Path) -> Outcome<u64> {
    let log = table.join("_delta_log");
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", log.display());
    let mut rows = 0;
    for entry in fs::read_dir(&log).map_err(|e| failed(&e))? {
        let entry = entry.map_err(|e| failed(&e))?;
        if !is_commit(&entry) {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|e| failed(&e))?;
        for line in text.lines() {
            let action: Value = serde_json::from_str(line).map_err(|e| failed(&e))?;
            if !action["remove"].is_null() {
                return Err(failed(&"a changelog table only grows, and here a file was removed"));
            }
            if let Some(stats) = action["add"]["stats"].as_str() {
                let stats: Value = serde_json::from_str(stats).map_err(|e| failed(&e))?;
                rows += stats["numRecords"].as_u64().ok_or_else(|| failed(&"a file without a row count"))?;
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(out: u64) -> Value {
        json!({
            "images_in": 10, "images_out": out, "dropped": 2, "dead_letters": 1, "swaps": 1,
            "tables": [{ "name": "shop.customers", "path": "/nowhere", "rows": out }],
        })
    }

    #[test]
    fn counts_that_do_not_add_up_are_an_error() {
        let error = Report::of(&summary(6)).expect("a report").reconcile().expect_err("one is missing");
        assert!(error.starts_with("10 row images came in, 6 went out"), "{error}");
    }

    #[test]
    fn the_machines_line_has_the_fields_that_checkers_read() {
        let line = Report::of(&summary(7)).expect("a report").as_json();
        let expected =
            json!({ "table": "/nowhere", "events": 10, "rows": 7, "dropped": 2, "dead_letters": 1, "swaps": 1 });
        assert_eq!(line, expected);
    }

    #[test]
    fn rows_are_counted_from_the_log_of_the_table() {
        let table = std::env::temp_dir().join(format!("xtask-demo-{}", std::process::id()));
        fs::create_dir_all(table.join("_delta_log")).expect("a folder");
        let commit =
            |n: u32, text: &str| fs::write(table.join(format!("_delta_log/{n:020}.json")), text).expect("written");
        commit(0, "{\"protocol\":{}}\n{\"add\":{\"path\":\"a\",\"stats\":\"{\\\"numRecords\\\":3}\"}}\n");
        commit(1, "{\"txn\":{}}\n{\"add\":{\"path\":\"b\",\"stats\":\"{\\\"numRecords\\\":4}\"}}\n");
        assert_eq!(rows_in_log(&table), Ok(7));
        commit(2, "{\"remove\":{\"path\":\"a\"}}\n");
        assert!(rows_in_log(&table).is_err());
        fs::remove_dir_all(&table).expect("removed");
    }
}
