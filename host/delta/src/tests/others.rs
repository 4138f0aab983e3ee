//! The rows of a table as others read them: the Delta kernel, DuckDB, delta-rs, polars, Spark. Each cell is text, as
//! [`shown`] spells it; the rows are sorted.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use delta_kernel::Snapshot;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use deltalake_core::logstore::LogStore as _;
use serde_json::{Value, json};

use super::mirror::shown;
use super::support::setup_folder;
use crate::log::kernel;
use crate::store::Store;

/// A Python process that answers a line for a line, one for all tests of this program; it ends with its standard input.
pub(super) struct Reader {
    _child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

type Shared = OnceLock<Option<Mutex<Reader>>>;

impl Reader {
    /// `None`, with a word, where `cargo xtask setup test` has not been.
    fn shared(place: &'static Shared, python: &str, script: &str) -> Option<MutexGuard<'static, Self>> {
        let start = || {
            let python = setup_folder()?.join(python);
            python.exists().then(|| Mutex::new(Self::start(&python, script)))
        };
        let reader = place.get_or_init(start).as_ref();
        if reader.is_none() {
            eprintln!("skipped: `cargo xtask setup test` installs {python}");
        }
        // A test that failed has had its answer.
        reader.map(|r| r.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn start(python: &Path, script: &str) -> Self {
        let mut command = Command::new(python);
        command.args(["-u", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { _child: child, questions, answers }
    }

    fn ask(&mut self, question: &Value) -> Vec<Vec<String>> {
        writeln!(self.questions, "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the reader said {line:?}"));
        assert!(answer["error"].is_null(), "{}\nof {question}", answer["error"].as_str().unwrap_or_default());
        serde_json::from_value(answer["rows"].clone()).unwrap()
    }

    /// Runs a statement in Spark; the table in a folder is called ``delta.`/its/folder` ``.
    pub(super) fn sql(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.ask(&json!({ "sql": sql }))
    }
}

pub(super) fn spark() -> Option<MutexGuard<'static, Reader>> {
    static SPARK: Shared = OnceLock::new();
    Reader::shared(&SPARK, "spark/bin/python", include_str!("spark.py"))
}

fn small() -> Option<MutexGuard<'static, Reader>> {
    static SMALL: Shared = OnceLock::new();
    Reader::shared(&SMALL, "venv/bin/python", include_str!("others.py"))
}

/// By all of them. Those that are not installed are left out.
pub(super) async fn by_others(table: &Path, names: &[&str]) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let mut found = by_all_but_spark(table, names).await;
    if let Some(mut spark) = spark() {
        found.insert("Spark", spark.ask(&json!({ "table": table, "names": names })));
    }
    found
}

/// Spark takes seconds a table.
pub(super) async fn by_all_but_spark(table: &Path, names: &[&str]) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let mut found = by_quick_ones(table, names).await;
    if let Some(mut reader) = small() {
        for name in ["delta-rs", "polars"] {
            found.insert(name, reader.ask(&json!({ "reader": name, "table": table, "names": names })));
        }
    }
    found
}

/// By those that can be asked after every commit: the kernel and DuckDB.
pub(super) async fn by_quick_ones(table: &Path, names: &[&str]) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let mut found = BTreeMap::from([("kernel", by_kernel(table, names).await)]);
    if let Some(rows) = by_duckdb(table, names) {
        found.insert("DuckDB", rows);
    }
    found
}

/// The change data feed from the first version on: commit version, change type and these columns of each row.
pub(super) fn feeds(table: &Path, names: &[&str], with_spark: bool) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let names: Vec<&str> = ["_commit_version", "_change_type"].into_iter().chain(names.iter().copied()).collect();
    let mut found = BTreeMap::new();
    if let Some(mut reader) = small() {
        let question = json!({ "reader": "feed of delta-rs", "table": table, "names": names });
        found.insert("delta-rs", reader.ask(&question));
    }
    if let Some(mut spark) = with_spark.then(spark).flatten() {
        found.insert("Spark", spark.ask(&json!({ "table": table, "names": names, "feed": true })));
    }
    found
}

pub(super) fn by_duckdb(table: &Path, names: &[&str]) -> Option<Vec<Vec<String>>> {
    Some(small()?.ask(&json!({ "reader": "DuckDB", "table": table, "names": names })))
}

async fn by_kernel(table: &Path, names: &[&str]) -> Vec<Vec<String>> {
    let store = Store::open(&table.display().to_string(), &Default::default()).unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let log_store = store.log_store();
    let work = move || {
        let engine = log_store.engine(None);
        let snapshot = Snapshot::builder_for(log_store.config().location().clone()).build(engine.as_ref()).unwrap();
        let scan = snapshot.scan_builder().build().unwrap();
        let mut rows = Vec::new();
        for data in scan.execute(engine).unwrap() {
            let batch = *data.unwrap().into_any().downcast::<ArrowEngineData>().unwrap();
            let batch = batch.record_batch();
            let columns: Vec<_> = names.iter().map(|n| batch.column_by_name(n).unwrap()).collect();
            rows.extend((0..batch.num_rows()).map(|at| columns.iter().map(|c| shown(c, at)).collect::<Vec<_>>()));
        }
        rows.sort();
        rows
    };
    kernel::apart(async move { tokio::task::spawn_blocking(work).await }).await.unwrap().unwrap()
}
