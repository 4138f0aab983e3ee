//! Runs benches, prints their medians as a table, and writes them as JSON for those who compare.
//!
//! A bench appends a JSON object a line to the file that `MILLRACE_BENCH_JSON` names:
//! `{"bench", "metric", "unit", "value", "baseline", "ratio", "aa"}`, where `baseline`, `ratio` and `aa` may be null.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::command::Run;
use crate::setup::{self, Scope};
use crate::{Outcome, kits, paths, plugins};

const FIELDS: [&str; 7] = ["bench", "metric", "unit", "value", "baseline", "ratio", "aa"];

pub(crate) fn run(args: &[&str]) -> Outcome {
    let (names, json) = parse(args)?;
    let known = benches()?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("no bench `{unknown}`: there are {}", known.join(", ")));
    }
    let chosen = if names.is_empty() { known } else { names };
    let needs_servers = chosen.iter().any(|name| name == "postgres");
    setup::run(if needs_servers { Scope::Test } else { Scope::Demo })?;
    let dist = plugins::build()?;
    let millrace = paths::build_millrace()?;
    if chosen.iter().any(|name| name == "plugins") {
        kits::examples(&millrace, &dist)?;
    }
    let mut rows = Vec::new();
    for name in &chosen {
        let results = paths::target().join(format!("bench-{name}.jsonl"));
        fs::remove_file(&results).or_else(absent_is_fine).map_err(|e| format!("{}: {e}", results.display()))?;
        let bench = Run::cargo().args(["bench", "--locked", "--package", "millrace-benches", "--bench", name]);
        let bench = bench.env("MILLRACE_BENCH_JSON", &results).env("MILLRACE_BIN", &millrace);
        bench.env("MILLRACE_PLUGINS", &dist).must()?;
        rows.extend(read(&results)?);
    }
    print!("{}", table(&rows));
    json.map_or(Ok(()), |file| merge(&file, rows))
}

fn parse(args: &[&str]) -> Outcome<(Vec<String>, Option<PathBuf>)> {
    let (mut names, mut json) = (Vec::new(), None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match *arg {
            "--json" => json = Some(PathBuf::from(rest.next().ok_or("--json needs the name of a file")?)),
            flag if flag.starts_with('-') => return Err(format!("`bench {flag}`: there is --json FILE")),
            name => names.push(name.to_owned()),
        }
    }
    Ok((names, json))
}

/// The benches are the files of benches/benches.
fn benches() -> Outcome<Vec<String>> {
    let dir = paths::root().join("benches/benches");
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn read(results: &Path) -> Outcome<Vec<Map<String, Value>>> {
    let text = fs::read_to_string(results).map_err(|e| format!("the bench wrote no {}: {e}", results.display()))?;
    text.lines().map(row).collect()
}

/// One result, with all fields: those that the bench left out are null.
fn row(line: &str) -> Outcome<Map<String, Value>> {
    let mut found: Map<String, Value> = serde_json::from_str(line).map_err(|e| format!("{e} in the result {line}"))?;
    if !(found.get("bench").is_some_and(Value::is_string) && found.get("metric").is_some_and(Value::is_string)) {
        return Err(format!("a result without bench and metric: {line}"));
    }
    if !found.get("value").is_some_and(Value::is_number) {
        return Err(format!("a result without a value: {line}"));
    }
    Ok(FIELDS.iter().map(|field| ((*field).to_owned(), found.remove(*field).unwrap_or(Value::Null))).collect())
}

fn table(rows: &[Map<String, Value>]) -> String {
    let mut lines = vec![FIELDS.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| FIELDS.map(|field| cell(row.get(field)))));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..FIELDS.len()).map(width).collect();
    let shown = |line: &[String; 7]| {
        let cell = |(i, text): (usize, &String)| {
            if i < 3 { format!("{text:<w$}", w = widths[i]) } else { format!("{text:>w$}", w = widths[i]) }
        };
        line.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(shown).collect()
}

/// Four significant digits: more is noise on a shared machine.
fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(number)) => {
            let float = number.as_f64().unwrap_or_default();
            if float.abs() >= 1000.0 { format!("{float:.0}") } else { format!("{float:.3}") }
        }
        Some(Value::String(text)) => text.clone(),
        _ => "-".to_owned(),
    }
}

/// Replaces, in the array of the file, the results that were measured again.
fn merge(file: &Path, rows: Vec<Map<String, Value>>) -> Outcome {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let mut all: Vec<Map<String, Value>> = match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| failed(&e))?,
        Err(error) => absent_is_fine(error).map(|()| Vec::new()).map_err(|e| failed(&e))?,
    };
    for row in rows {
        let same =
            |old: &Map<String, Value>| old.get("bench") == row.get("bench") && old.get("metric") == row.get("metric");
        all.retain(|old| !same(old));
        all.push(row);
    }
    let text = serde_json::to_string_pretty(&all).map_err(|e| failed(&e))?;
    fs::write(file, text + "\n").map_err(|e| failed(&e))?;
    println!("written to {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_completed_with_nulls_and_shown_as_a_line() {
        let row = row(r#"{"bench":"boundary","metric":"noop_ns","unit":"ns","value":11.25,"aa":1.01}"#);
        let row = row.expect("a result");
        assert_eq!(row.len(), 7);
        assert_eq!(row["ratio"], Value::Null);
        let table = table(&[row]);
        assert_eq!(
            table.lines().nth(1).map(str::trim_end),
            Some("boundary  noop_ns  ns    11.250         -      -  1.010")
        );
    }

    #[test]
    fn a_result_without_a_value_is_refused() {
        assert!(row(r#"{"bench":"boundary","metric":"noop_ns"}"#).is_err());
    }

    #[test]
    fn a_metric_measured_again_replaces_its_old_result() {
        let dir = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        let result = |value: u32| row(&format!(r#"{{"bench":"b","metric":"m","value":{value}}}"#)).expect("a result");
        merge(&dir, vec![result(1)]).expect("the first");
        merge(&dir, vec![result(2)]).expect("the second");
        let text = fs::read_to_string(&dir).expect("the file");
        fs::remove_file(&dir).expect("removed");
        let all: Vec<Value> = serde_json::from_str(&text).expect("an array");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["value"], 2);
    }
}
