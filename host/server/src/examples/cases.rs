//! `millrace plugin test`: cases of one plugin, in a file of their own; what is not expected there stands in a golden file
//! beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_core::pipeline::ConfiguredStage;
use millrace_core::{Error, Result};
use millrace_wasm::Measured;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Came, Report, compare, judged, outcome};
use crate::config::folder_of;
use crate::config::model::{Grant, Limits, OnFailure, StageEntry, TestCase, TestChange, TestTable};
use crate::config::problem::{Place, Problem, Problems};
use crate::config::reference::io_reason;
use crate::config::secret::Secret;
use crate::config::tree;
use crate::wiring::{PluginRuntime, configure_stage};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// As in a stage: a first-party plugin by name, or the path of a component, from this file's folder.
    pub plugin: String,
    /// What `crypto` may hash with; no secrets, since it is a test.
    #[serde(default)]
    pub keys: BTreeMap<String, Secret>,
    /// Of every case that has none of its own.
    #[serde(default)]
    pub grant: Grant,
    #[serde(default)]
    pub config: Map<String, Value>,
    #[serde(default)]
    pub limits: Limits,
    pub cases: Vec<Case>,
}

/// One run of the plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub grant: Option<Grant>,
    #[serde(default)]
    pub config: Option<Map<String, Value>>,
    pub given: Vec<TestChange>,
    /// As in a pipeline file's `tests`. None: the golden file says it, refusals and errors with their words.
    #[serde(default)]
    pub expect: Option<Vec<TestChange>>,
    #[serde(default)]
    pub dropped: Option<u64>,
    #[serde(default)]
    pub tables: BTreeMap<String, TestTable>,
}

/// What the golden file holds: by the case's name, what came of it.
pub type Golden = BTreeMap<String, Value>;

/// `cases.yaml` has its golden file in `cases.golden.json`.
pub fn golden_path(file: &Path) -> PathBuf {
    file.with_extension("golden.json")
}

/// Reads a file of cases, YAML or JSON.
pub fn read(file: &Path) -> Result<CaseFile, Vec<Problem>> {
    let mut problems = Problems::new(file);
    let parsed = std::fs::read_to_string(file).map_err(|e| io_reason(&e)).map(|text| tree::parse(&text, &mut problems));
    match parsed {
        Err(reason) => problems.error(Place::START, "file.unreadable", reason, "give the path of a file of cases"),
        Ok(None) => {}
        Ok(Some(tree)) => match CaseFile::deserialize(tree.to_json()) {
            Ok(cases) => return distinct(cases, problems),
            Err(error) => {
                let hint = "it has plugin, keys, grant, config, limits and cases; a case has name, grant, config, given, expect, dropped and tables";
                problems.error(Place::START, "cases.invalid", error.to_string(), hint);
            }
        },
    }
    Err(problems.into_sorted())
}

fn distinct(cases: CaseFile, mut problems: Problems) -> Result<CaseFile, Vec<Problem>> {
    for (at, case) in cases.cases.iter().enumerate() {
        if cases.cases[..at].iter().any(|other| other.name == case.name) {
            let message = format!("two cases are called `{}`", case.name);
            problems.error(Place::START, "cases.duplicate", message, "give each a name of its own");
        }
    }
    if problems.has_errors() { Err(problems.into_sorted()) } else { Ok(cases) }
}

/// Reads the golden file; none is an empty one.
///
/// Errors: `golden.unreadable`.
pub fn read_golden(file: &Path) -> Result<Golden> {
    let path = golden_path(file);
    let wrong = |reason: String| {
        Error::config("golden.unreadable", format!("{}: {reason}", path.display()))
            .hint("write it anew with `millrace plugin test --update`")
    };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Golden::new()),
        Err(e) => Err(wrong(io_reason(&e))),
    }
}

/// Writes the golden file, in one step; a file that would be empty is removed.
///
/// Errors: `golden.unwritable`.
pub fn write_golden(file: &Path, golden: &Golden) -> Result<()> {
    let path = golden_path(file);
    let text = serde_json::to_string_pretty(golden).map_err(|e| Error::bug(e.to_string()))? + "\n";
    let staged = path.with_extension("json.new");
    let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, &path));
    written.map_err(|e| {
        Error::config("golden.unwritable", format!("{}: {}", path.display(), io_reason(&e)))
            .hint("give a folder that this user may write")
    })
}

/// Runs one case. Answers how it went, and what the golden file is to say of it.
///
/// # Errors
/// The plugin's file is not there.
pub async fn run(
    file: &Path,
    cases: &CaseFile,
    case: &Case,
    golden: &Golden,
    plugins: &PluginRuntime,
) -> Result<(Report, Option<Value>)> {
    let configured = configured(file, cases, case)?;
    let loader = plugins.loader("test", &cases.keys)?;
    let example = example(case, case.given.clone());
    let came = match loader.load(&configured.spec, &configured.artifact).await {
        Ok(stage) => outcome(&example, &mut [stage]).await,
        Err(error) => Err(error),
    };
    if case.expect.is_some() {
        return Ok((judged(&example, came), None));
    }
    // The digest changes with each build.
    let plain = |text: &str| text.replace(&configured.spec.identity(), &configured.spec.name);
    let got = shown(came, &plain);
    let report = match golden.get(&case.name) {
        Some(expected) if *expected == got => Report::passed(&case.name),
        expected => Report {
            passed: false,
            differences: vec![compare::Difference {
                table: "what came of it".to_owned(),
                expected: expected.cloned(),
                got: Some(got.clone()),
            }],
            ..Report::passed(&case.name)
        },
    };
    Ok((report, Some(got)))
}

/// Runs a case's given changes, repeated to so many, again and again; those of its first table.
///
/// # Errors
/// The plugin's file is not there, or it does not load or work.
pub async fn measure(
    file: &Path,
    cases: &CaseFile,
    case: &Case,
    changes: usize,
    time: Duration,
    plugins: &PluginRuntime,
) -> Result<Measured> {
    let configured = configured(file, cases, case)?;
    let table = case.given.first().map(|change| change.table.clone()).unwrap_or_default();
    let given = case.given.iter().filter(|change| change.table == table).cycle().take(changes).cloned().collect();
    let batches = super::rows::batches(&example(case, given))?;
    let batch = batches.first().ok_or_else(|| Error::config("test.given", "the case gives no change"))?;
    plugins.measure("test", &cases.keys, &configured, batch, time).await
}

fn configured(file: &Path, cases: &CaseFile, case: &Case) -> Result<ConfiguredStage> {
    let entry = StageEntry {
        plugin: cases.plugin.clone(),
        digest: None,
        tables: Vec::new(),
        grant: case.grant.clone().unwrap_or_else(|| cases.grant.clone()),
        config: case.config.clone().unwrap_or_else(|| cases.config.clone()),
        on_failure: OnFailure::default(),
        limits: cases.limits.clone(),
    };
    configure_stage(&entry, &folder_of(file))
}

fn example(case: &Case, given: Vec<TestChange>) -> TestCase {
    TestCase {
        name: case.name.clone(),
        given,
        expect: case.expect.clone().unwrap_or_default(),
        dropped: case.dropped,
        tables: case.tables.clone(),
    }
}

fn shown(came: Result<Came>, plain: &dyn Fn(&str) -> String) -> Value {
    let came = match came {
        Ok(came) => came,
        Err(error) => return json!({ "error": { "code": error.code, "message": plain(&error.message) } }),
    };
    let letter = |(table, reject): &(String, millrace_core::batch::Reject)| {
        json!({
            "table": table, "change": reject.change + 1, "code": &*reject.code, "column": reject.column.as_deref(),
            "reason": plain(&reject.reason),
        })
    };
    json!({
        "rows": came.tables, "letters": came.rejects.iter().map(letter).collect::<Vec<_>>(), "dropped": came.dropped,
    })
}
