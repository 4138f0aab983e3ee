//! Stands in for the engine: reads the source, keeps what it would record, and shows changes as plain text.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use millrace_connectors::postgres::{PostgresConfig, build};
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::cut::{BatchLimits, Boundary, CutBuilder};
use millrace_core::error::{Error, Result};
use millrace_core::position::{Order, Position, SourceKey};
use millrace_core::schema::TableSchema;
use millrace_core::source::{Opened, Resume, Source};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::servers::postgres::Postgres;

/// Nothing that these tests wait for takes longer on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// One row image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) table: String,
    pub(crate) order: Order,
    pub(crate) commit_time: i64,
    pub(crate) kind: ChangeType,
    pub(crate) snapshot: bool,
    /// Name and value of each column; `NULL`, `?` where unavailable.
    pub(crate) cells: Vec<(String, String)>,
    /// Code and column of the refusal, if the source refuses the change.
    pub(crate) reject: Option<(String, String)>,
    pub(crate) schema: Arc<TableSchema>,
}

impl Image {
    pub(crate) fn get(&self, column: &str) -> &str {
        self.cells.iter().find(|(name, _)| name == column).map_or("no such column", |(_, value)| value)
    }

    /// `insert id=1 name=a`, in column order.
    pub(crate) fn line(&self) -> String {
        let cells: Vec<String> = self.cells.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {}", self.kind.name(), cells.join(" "))
    }
}

pub(crate) struct Feed {
    config: PostgresConfig,
    source: Box<dyn Source>,
    cut: CutBuilder,
    /// What the engine would have recorded.
    pub(crate) resume: Resume,
    pub(crate) images: Vec<Image>,
    pub(crate) boundaries: Vec<Boundary>,
    /// Whether every read is given up at its first await.
    pub(crate) impatient: bool,
    /// How many images there were when it was opened last.
    before: usize,
    state: TempDir,
}

/// A config for these tables; `extra` overrides.
pub(crate) fn config(server: &Postgres, tables: &[&str], extra: serde_json::Value) -> PostgresConfig {
    let mut json = serde_json::json!({ "url": server.url() + "?sslmode=disable", "tables": tables });
    for (name, value) in extra.as_object().into_iter().flatten() {
        json[name] = value.clone();
    }
    serde_json::from_value(json).expect("a config")
}

impl Feed {
    pub(crate) fn new(config: PostgresConfig) -> Self {
        let state = tempfile::tempdir().unwrap();
        let source = build(&config, "test", state.path()).expect("a config without problems");
        Self {
            config,
            source,
            cut: CutBuilder::new(BatchLimits::default()),
            resume: Resume::default(),
            images: Vec::new(),
            boundaries: Vec::new(),
            impatient: false,
            before: 0,
            state,
        }
    }

    /// A source that is open.
    pub(crate) async fn open(server: &Postgres, tables: &[&str], extra: serde_json::Value) -> Self {
        let mut feed = Self::new(config(server, tables, extra));
        feed.reopen().await.unwrap();
        feed
    }

    /// Opens at what is recorded, as the engine does after an error of kind `Retry`. What was read of an unfinished
    /// transaction is forgotten.
    pub(crate) async fn reopen(&mut self) -> Result<Opened> {
        self.cut = CutBuilder::new(BatchLimits::default());
        self.before = self.images.len();
        let opened = timeout(LIMIT, self.source.open(&self.resume)).await.expect("open in time")?;
        self.resume.incarnation = Some(opened.incarnation.clone());
        Ok(opened)
    }

    /// As [`Feed::reopen`], again while the slot is held by a session that the server has not noticed to be dead.
    pub(crate) async fn reopen_when_free(&mut self) -> Opened {
        let end = Instant::now() + LIMIT;
        loop {
            match self.reopen().await {
                Ok(opened) => return opened,
                Err(e) if e.code == "postgres.slot_in_use" || e.code == "postgres.interrupted" => {
                    assert!(Instant::now() < end, "{e}");
                    tokio::task::yield_now().await;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// A new host with the same record.
    pub(crate) async fn restart(&mut self) -> Opened {
        self.source = build(&self.config, "test", self.state.path()).unwrap();
        self.reopen_when_free().await
    }

    /// One `read`, noted.
    pub(crate) async fn step(&mut self) -> Result<Boundary> {
        let boundary = if self.impatient {
            self.read_impatiently().await?
        } else {
            timeout(LIMIT, self.source.read(&mut self.cut)).await.expect("a boundary in time")?
        };
        for batch in self.cut.take_closed() {
            self.take(&batch);
        }
        match &boundary {
            Boundary::Within => {}
            Boundary::Commit(position) | Boundary::Idle(position) | Boundary::End(position) => {
                self.finish();
                self.check_position(position);
                self.resume.position = Some(position.clone());
            }
            Boundary::Snapshot { source, order } => {
                self.finish();
                self.resume.snapshots.insert(source.clone(), *order);
            }
        }
        self.boundaries.push(boundary.clone());
        Ok(boundary)
    }

    /// As an engine that gives up every read at its first await, and asks again.
    async fn read_impatiently(&mut self) -> Result<Boundary> {
        let end = Instant::now() + LIMIT;
        loop {
            // Polls the read before it looks at the clock.
            if let Ok(boundary) = timeout(Duration::ZERO, self.source.read(&mut self.cut)).await {
                return boundary;
            }
            assert!(Instant::now() < end, "no boundary");
            tokio::task::yield_now().await;
        }
    }

    /// A position is not beneath any change that it covers, nor beneath an earlier position.
    fn check_position(&self, position: &Position) {
        if let Some(before) = &self.resume.position {
            assert!(position.order >= before.order, "{position:?} after {before:?}");
        }
        if let Some(last) = self.images[self.before..].iter().filter(|i| !i.snapshot).map(|i| i.order).max() {
            assert!(last <= position.order, "{last} beyond {position:?}");
        }
    }

    fn finish(&mut self) {
        let (batches, _) = self.cut.finish().unwrap();
        for batch in batches {
            self.take(&batch);
        }
    }

    fn take(&mut self, batch: &ChangeBatch) {
        batch.check().unwrap();
        for row in 0..batch.rows() {
            let cells = batch.schema.columns.iter().enumerate();
            let cells = cells.map(|(i, column)| (column.name.to_string(), cell(batch, i, row))).collect();
            let change = batch.changes[row];
            let reject = batch.origin.rejects.iter().find(|r| r.change == change);
            self.images.push(Image {
                table: batch.origin.source.table.to_string(),
                order: batch.order(row),
                commit_time: batch.commit_time(row),
                kind: batch.change_types[row],
                snapshot: batch.origin.snapshot,
                cells,
                reject: reject.map(|r| (r.code.to_string(), r.column.as_deref().unwrap_or_default().to_owned())),
                schema: batch.schema.clone(),
            });
        }
    }

    /// Reads until `enough` says so.
    pub(crate) async fn until(&mut self, mut enough: impl FnMut(&Feed) -> bool) {
        let end = Instant::now() + LIMIT;
        while !enough(self) {
            assert!(Instant::now() < end, "not enough after {LIMIT:?}: {:?}", self.lines());
            self.step().await.unwrap();
        }
    }

    /// Reads until this many row images are complete.
    pub(crate) async fn until_images(&mut self, count: usize) {
        self.until(|feed| feed.images.len() >= count).await;
    }

    /// Reads until every snapshot is complete.
    pub(crate) async fn until_snapshots(&mut self, count: usize) {
        self.until(|feed| feed.resume.snapshots.len() >= count).await;
    }

    /// Reads until the source says that it is idle.
    pub(crate) async fn until_idle(&mut self) {
        self.until(|feed| matches!(feed.boundaries.last(), Some(Boundary::Idle(_)))).await;
    }

    /// Where the source keeps transactions that have not committed.
    pub(crate) fn spill_dir(&self) -> PathBuf {
        self.state.path().join("spill/millrace_test")
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.images.iter().map(Image::line).collect()
    }

    pub(crate) async fn acknowledge(&mut self) {
        let position = self.resume.position.clone().expect("a position");
        self.source.acknowledge(&position).await.unwrap();
    }

    pub(crate) async fn fails(&mut self) -> Error {
        let end = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < end, "no error");
            if let Err(e) = self.step().await {
                return e;
            }
        }
    }

    /// What each table holds after all images in their order, by key column `id`: the fold that an upsert sink does.
    /// What came twice (after a restart) is folded once.
    pub(crate) fn folded(&self) -> BTreeMap<(String, String), Vec<(String, String)>> {
        let mut rows = BTreeMap::new();
        for image in self.distinct() {
            let key = (image.table.clone(), image.get("id").to_owned());
            match image.kind {
                ChangeType::Insert | ChangeType::UpdatePostimage => {
                    rows.insert(key, image.cells.clone());
                }
                ChangeType::UpdatePreimage | ChangeType::Delete => {
                    rows.remove(&key);
                }
                ChangeType::Truncate => rows.retain(|(table, _), _| *table != image.table),
            }
        }
        rows
    }

    /// The images by table and order; what lies at or before a table's snapshot or was read before is left out, as
    /// the engine leaves it out. What was read twice must be the same.
    pub(crate) fn distinct(&self) -> Vec<&Image> {
        let mut seen: BTreeMap<(String, Order, u8), &Image> = BTreeMap::new();
        for image in &self.images {
            let key = (image.table.clone(), image.order, image.kind as u8);
            if let Some(before) = seen.insert(key, image) {
                assert_eq!(before.line(), image.line(), "read again as another change at {}", image.order);
            }
        }
        seen.into_values()
            .filter(|image| {
                let snapshot = self.resume.snapshots.get(&SourceKey::new(image.table.as_str()));
                image.snapshot || snapshot.is_none_or(|order| image.order > *order)
            })
            .collect()
    }
}

fn cell(batch: &ChangeBatch, column: usize, row: usize) -> String {
    if batch.is_unavailable(column, row) {
        return "?".into();
    }
    value(&batch.columns[column], row)
}

fn value(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(_, scale) => format!("{}e-{scale}", array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::FixedSizeBinary(16) => hex(array.as_fixed_size_binary().value(row)),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Time64(_) => array.as_primitive::<Time64MicrosecondType>().value(row).to_string(),
        DataType::Timestamp(_, _) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        other => panic!("no column is {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A psql session that stays open, for transactions that overlap.
pub(crate) struct Session {
    psql: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    pub(crate) fn of(server: &Postgres) -> Self {
        let mut psql = server.psql("postgres").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
        let input = psql.stdin.take().expect("a pipe");
        let output = BufReader::new(psql.stdout.take().expect("a pipe"));
        Self { psql, input, output }
    }

    /// Runs it and waits until it is done.
    pub(crate) fn run(&mut self, sql: &str) {
        writeln!(self.input, "{sql}\n\\echo done").expect("psql goes on");
        let mut line = String::new();
        while line.trim_end() != "done" {
            line.clear();
            assert!(self.output.read_line(&mut line).expect("psql's answer") > 0, "psql refused: {sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.psql.kill().ok();
        self.psql.wait().ok();
    }
}
