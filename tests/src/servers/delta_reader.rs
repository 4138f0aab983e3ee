//! Readers of Delta tables that share no code with the sink: DuckDB's delta extension, and deltalake for Python.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::{cache_dir, require};

/// A Python process with the readers loaded (1–2 s); each question is a line to it. It ends when the handle is dropped.
#[derive(Debug)]
pub struct DeltaReader {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl DeltaReader {
    /// Starts the readers.
    pub fn start() -> DeltaReader {
        let python = require(cache_dir().join("venv/bin/python"));
        let mut child = Command::new(python)
            .args(["-u", "-c", include_str!("delta_reader.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let answers = BufReader::new(child.stdout.take().expect("a piped stdout"));
        DeltaReader { questions: child.stdin.take(), answers, child }
    }

    /// Runs SQL in DuckDB; a table is `delta_scan('/its/folder')`, an older version of it
    /// `delta_scan('/its/folder', version=>3)`. Answers one JSON object a row: integers and booleans as such, floats
    /// as numbers (NaN and infinities as text), decimals, dates and timestamps as text, binary as hex text.
    ///
    /// # Panics
    /// With the reader's message if it refuses.
    pub fn query(&mut self, sql: &str) -> Vec<Value> {
        self.try_query(sql).unwrap_or_else(|message| panic!("{message}\nin: {sql}"))
    }

    /// As [`DeltaReader::query`], the refusal as a value.
    ///
    /// # Errors
    /// The reader's message.
    pub fn try_query(&mut self, sql: &str) -> Result<Vec<Value>, String> {
        self.ask(&json!({ "engine": "duckdb", "sql": sql }))
    }

    /// All rows of the table in this folder, as DuckDB reads them.
    pub fn rows(&mut self, table: &Path) -> Vec<Value> {
        self.query(&format!("select * from delta_scan('{}')", table.display()))
    }

    /// How many rows the table in this folder has, as DuckDB counts them.
    pub fn count(&mut self, table: &Path) -> u64 {
        let rows = self.query(&format!("select count(*) as n from delta_scan('{}')", table.display()));
        rows[0]["n"].as_u64().expect("a count")
    }

    /// Runs SQL in deltalake's query engine over the table at `uri`, which is called `t`; `storage` as in
    /// [`super::seaweed::Seaweed::storage_options`] for `s3://` ones.
    ///
    /// # Panics
    /// With the reader's message if it refuses.
    pub fn query_deltalake(&mut self, uri: &str, storage: &[(&str, String)], sql: &str) -> Vec<Value> {
        let question = json!({ "engine": "deltalake", "uri": uri, "storage": object(storage), "sql": sql });
        self.ask(&question).unwrap_or_else(|message| panic!("{message}\nin: {sql}"))
    }

    /// Writes a table of two rows, `(1, 'a')` and `(2, NULL)` in columns `id` and `name`, with deltalake for Python: a
    /// foreign writer's table.
    ///
    /// # Panics
    /// With the writer's message if it refuses.
    pub fn write_sample(&mut self, uri: &str, storage: &[(&str, String)]) {
        let question = json!({ "engine": "sample", "uri": uri, "storage": object(storage) });
        self.ask(&question).unwrap_or_else(|message| panic!("{message}"));
    }

    fn ask(&mut self, question: &Value) -> Result<Vec<Value>, String> {
        let pipe = self.questions.as_mut().expect("open until dropped");
        writeln!(pipe, "{question}").and_then(|()| pipe.flush()).expect("the reader listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the reader answers");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the reader said {line:?}"));
        match answer["rows"].take() {
            Value::Array(rows) => Ok(rows),
            _ => Err(answer["error"].as_str().unwrap_or(&line).to_owned()),
        }
    }
}

impl Drop for DeltaReader {
    fn drop(&mut self) {
        drop(self.questions.take()); // end-of-file ends its loop
        self.child.wait().ok();
    }
}

fn object(options: &[(&str, String)]) -> Value {
    options.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}
