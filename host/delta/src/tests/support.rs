//! A lake in a temporary folder, batches for it, and ways to look at what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use deltalake_core::DeltaTableBuilder;
use futures::future::BoxFuture;
use millrace_core::Result;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::cut::Cut;
use millrace_core::environment::{Abort, Environment, Task};
use millrace_core::position::{Order, Position, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::sink::{Claim, Sink, Stored};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use url::Url;

use crate::config::{DeltaConfig, Mode};
use crate::sink::DeltaSink;
use crate::store::{S3Config, Store};

/// Tokio's clock and tasks; `skip` moves the monotonic clock.
pub(super) struct Machine {
    started: std::time::Instant,
    skipped: AtomicI64,
    numbers: AtomicU64,
}

impl Machine {
    pub(super) fn new() -> Arc<Self> {
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        Arc::new(Self { started: std::time::Instant::now(), skipped: AtomicI64::new(0), numbers: AtomicU64::new(seed) })
    }

    pub(super) fn skip(&self, seconds: i64) {
        self.skipped.fetch_add(seconds, Ordering::SeqCst);
    }
}

struct Handle(tokio::task::AbortHandle);

impl Abort for Handle {
    fn abort(&self) {
        self.0.abort();
    }
}

impl Environment for Machine {
    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed() + Duration::from_secs(self.skipped.load(Ordering::SeqCst) as u64)
    }

    /// Back-off pauses are not waited for.
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) -> Task {
        Task(Box::new(Handle(tokio::spawn(task).abort_handle())))
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        let mut z = self.numbers.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

pub(super) const PIPELINE: &str = "shop";

pub(super) fn orders() -> TableName {
    TableName::new("public", "orders")
}

pub(super) fn source() -> SourceKey {
    SourceKey::new("public.orders")
}

/// `id` (key) and `note`.
pub(super) fn orders_schema() -> Arc<TableSchema> {
    let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("note", ColumnType::Text)];
    Arc::new(TableSchema::new(orders(), columns, Images::Full))
}

/// One insert for each commit number of the range: `id` is the number, `note` is `n NUMBER`.
pub(super) fn inserts(
    schema: &Arc<TableSchema>,
    source: SourceKey,
    commits: std::ops::RangeInclusive<i64>,
) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source, Arc::clone(schema), false, 16).unwrap();
    for commit in commits {
        rows.begin_change(Order::new(commit, 1), commit * 1_000_000);
        rows.begin_row(ChangeType::Insert);
        for column in rows.columns() {
            match &mut column.cells {
                Cells::Int64(cells) => cells.append_value(commit),
                Cells::Int32(cells) => cells.append_value(commit as i32),
                Cells::Text(cells) => cells.append_value(format!("n {commit}")),
                other => other.append_null(),
            }
        }
    }
    rows.finish().unwrap().unwrap()
}

/// The cut that ends with these changes.
pub(super) fn cut_of(last: &[(SourceKey, i64)]) -> Cut {
    let newest = last.iter().map(|(_, c)| *c).max().unwrap_or(0);
    let order = Order::new(newest, i64::MAX);
    Cut {
        number: newest as u64,
        position: Some(Position { order, token: Default::default() }),
        last: last.iter().map(|(s, c)| (s.clone(), Order::new(*c, 1))).collect(),
        snapshot: BTreeMap::new(),
        rows: 1,
        bytes: 1,
        commit_time: 0,
        end: false,
    }
}

pub(super) struct Lake {
    pub folder: tempfile::TempDir,
    pub machine: Arc<Machine>,
    pub config: DeltaConfig,
    /// Bytes for keys in memory, where it is less than a pipeline file may say.
    pub index_memory: Option<u64>,
}

impl Lake {
    pub(super) fn new(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = DeltaConfig::new(format!("{}/{{namespace}}/{{table}}", folder.path().display()));
        config.mode = mode;
        Self { folder, machine: Machine::new(), config, index_memory: None }
    }

    /// For mirrors by deletion vectors, and by files that are written anew.
    pub(super) fn of_current_rows() -> [Self; 2] {
        [true, false].map(|deletion_vectors| {
            let mut lake = Self::new(Mode::Upsert);
            lake.config.deletion_vectors = deletion_vectors;
            lake
        })
    }

    pub(super) fn sink(&self) -> DeltaSink {
        let environment = Arc::clone(&self.machine) as Arc<dyn Environment>;
        let sink = DeltaSink::new(self.config.clone(), PIPELINE, environment).unwrap();
        match self.index_memory {
            Some(bytes) => sink.with_index_memory(bytes),
            None => sink,
        }
    }

    /// A sink on another store over the same folder: faults are put in between.
    pub(super) fn sink_on(&self, root: Arc<dyn object_store::ObjectStore>) -> DeltaSink {
        let url = Url::from_directory_path(self.folder.path()).unwrap();
        let store = Store::new(root, url).unwrap();
        DeltaSink::on_store(self.config.clone(), store, PIPELINE, Arc::clone(&self.machine) as Arc<dyn Environment>)
            .unwrap()
    }

    pub(super) fn local_root(&self) -> Arc<dyn object_store::ObjectStore> {
        Store::open(&self.folder.path().display().to_string(), &S3Config::default()).unwrap().root()
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }
}

pub(super) fn claim(epoch: u64, tables: &[TableName]) -> Claim {
    Claim { pipeline: PIPELINE.into(), incarnation: "sys/1".into(), epoch, tables: tables.iter().cloned().collect() }
}

pub(super) async fn fenced(sink: &mut DeltaSink, epoch: u64, tables: &[TableName]) -> Stored {
    sink.fence(&claim(epoch, tables)).await.unwrap()
}

/// Writes, prepares and commits the inserts of a range of commits.
pub(super) async fn put(sink: &mut DeltaSink, commits: std::ops::RangeInclusive<i64>) -> Result<()> {
    let last = *commits.end();
    sink.write(inserts(&orders_schema(), source(), commits)).await?;
    let cut = cut_of(&[(source(), last)]);
    sink.prepare(&cut).await?;
    sink.commit(&cut).await
}

/// The rows of a table's newest version, read by deltalake's listing and plain Parquet.
pub(super) async fn rows(path: &Path) -> Vec<RecordBatch> {
    let url = Url::from_directory_path(path).unwrap();
    let table = DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
    let mut batches = Vec::new();
    for file in table.snapshot().unwrap().log_data().iter() {
        let file = std::fs::File::open(path.join(file.object_store_path().as_ref())).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        batches.extend(reader.map(|b| b.unwrap()));
    }
    batches
}

/// A column of all rows as text, sorted.
pub(super) async fn column(path: &Path, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    for batch in rows(path).await {
        let Some(cells) = batch.column_by_name(name) else {
            values.extend(std::iter::repeat_n("(absent)".to_owned(), batch.num_rows()));
            continue;
        };
        let text = arrow_cast::cast(cells, &DataType::Utf8).unwrap();
        let text = text.as_string::<i32>();
        values.extend(
            (0..text.len()).map(|i| if text.is_null(i) { "NULL".to_owned() } else { text.value(i).to_owned() }),
        );
    }
    values.sort();
    values
}

/// The `id`s of a table, ascending.
pub(super) async fn ids(path: &Path) -> Vec<i64> {
    let mut ids: Vec<i64> = column(path, "id").await.iter().map(|t| t.parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

pub(super) fn count_of(path: &Path, suffix: &str) -> usize {
    let Ok(files) = std::fs::read_dir(path) else { return 0 };
    files.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().ends_with(suffix)).count()
}

/// Where `cargo xtask setup` puts what the tests need.
pub(super) fn setup_folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("millrace"))
}

/// The Python with DuckDB, deltalake and polars that `cargo xtask setup test` installs; `None` where it is not there.
pub(super) fn python() -> Option<PathBuf> {
    let python = setup_folder()?.join("venv/bin/python");
    python.exists().then_some(python)
}

/// Runs a script with `args`; answers its standard output, fails the test with its standard error.
pub(super) fn run_python(python: &Path, script: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(python).arg("-c").arg(script).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
