//! The pipeline file as types. Doc comments here are what editors show and what the reference is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_core::stage::OnFailure as CoreOnFailure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::quantity::{Interval, Size};
use super::secret::Secret;

pub(super) const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";
pub(super) const DIGEST_PATTERN: &str = "^(sha256:)?[0-9a-f]{64}$";

/// One pipeline: a source, the stages that every change passes, and the sink it ends in.
///
/// Paths count from the folder of this file. A text may hold `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Millrace pipeline")]
pub struct PipelineFile {
    /// Stable id of the pipeline: its stored positions belong to it. Lower-case letters, digits, `-` and `_`.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub pipeline: String,
    /// Where changes come from.
    pub source: SourceEntry,
    /// What happens to changes on the way, in order.
    #[serde(default)]
    pub stages: Vec<StageEntry>,
    /// Where changes go to.
    pub sink: SinkEntry,
    /// Where refused changes go to. Default: beside the sink, at `_dead_letters`; for `stdout` and `null` a file
    /// `dead_letters.ndjson` in `state_dir`.
    #[serde(default)]
    pub dead_letters: Option<LettersEntry>,
    /// Secrets that stages may use through `crypto` without seeing them: a name, and a reference to the secret.
    #[serde(default)]
    pub keys: BTreeMap<String, Secret>,
    /// Sizes and times; the defaults fit most pipelines.
    #[serde(default)]
    pub settings: SettingsEntry,
    /// Swapping plugins while the stream runs.
    #[serde(default)]
    pub hot_reload: HotReload,
    /// The HTTP endpoint with `/metrics` (Prometheus), `/healthz` and `/readyz`. Default: none.
    #[serde(default)]
    pub metrics: Option<MetricsEntry>,
    /// Folder for what has no place beside the sink. Default: `.millrace/PIPELINE` beside this file.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub state_dir: Option<PathBuf>,
    /// What the stages do, by example: `millrace test` runs them, without any server.
    #[serde(default)]
    pub tests: Vec<TestCase>,
}

/// A change source: exactly one key names it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct SourceEntry {
    /// PostgreSQL 15 to 18, by logical replication.
    #[serde(default)]
    pub postgres: Option<millrace_connectors::postgres::PostgresConfig>,
    /// Shop data from a seed, for demos, tests and measurements.
    #[serde(default)]
    pub generator: Option<millrace_connectors::generator::GeneratorConfig>,
    /// Debezium envelopes from NDJSON files, plain or zstd; or lines and Kafka records as raw messages for a parser.
    #[serde(default)]
    pub file: Option<millrace_connectors::file::FileConfig>,
}

/// A sink: exactly one key names it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct SinkEntry {
    /// Delta Lake tables, on a local disk or S3; exactly once.
    #[serde(default)]
    pub delta: Option<millrace_delta::DeltaConfig>,
    /// One JSON object a row image on standard output; at least once.
    #[serde(default)]
    pub stdout: Option<millrace_connectors::stdout::StdoutConfig>,
    /// Nothing is kept: for measuring.
    #[serde(default)]
    pub null: Option<millrace_connectors::null::NullConfig>,
}

/// Where dead letters go to: one key names the sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LettersEntry {
    /// A Delta table; `path` is its folder. Exactly once.
    #[serde(default)]
    pub delta: Option<LettersDelta>,
    /// A file with one JSON object a letter; at least once.
    #[serde(default)]
    pub ndjson: Option<LettersFile>,
    /// Keep the rows of letters whole, also the columns that a stage may be there to mask.
    #[serde(default)]
    pub keep_original: bool,
    /// In mode `upsert`: later changes of a key wait behind its letters, as letters too.
    #[serde(default = "yes")]
    pub quarantine: bool,
    /// Letters of a source table, those that wait among them, at which the table is halted. Default: 100,000.
    #[serde(default)]
    pub max_waiting: Option<u64>,
}

fn yes() -> bool {
    true
}

/// The Delta table of the dead letters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LettersDelta {
    /// Folder or `s3://` URL of the table.
    pub path: String,
    /// How to reach an S3 store. Default: as the sink does.
    #[serde(default)]
    pub s3: Option<millrace_delta::S3Config>,
}

/// The file of the dead letters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LettersFile {
    /// It is appended to.
    #[schemars(with = "String")]
    pub path: PathBuf,
}

/// A plugin at work.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageEntry {
    /// A first-party plugin by name (`mask`, `filter`, …), or the path of a component (`./mine.wasm`).
    pub plugin: String,
    /// SHA-256 of the component in hexadecimal: only this very file is run, and it is not hot-swapped.
    #[serde(default)]
    #[schemars(regex(pattern = DIGEST_PATTERN))]
    pub digest: Option<String>,
    /// Tables that it sees: names, or prefixes with `*` at their end. Default: all.
    #[serde(default)]
    pub tables: Vec<String>,
    /// What it may touch. Nothing is granted by default: no column, no capability.
    #[serde(default)]
    pub grant: Grant,
    /// The plugin's own settings, checked against the schema that it brings.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// What becomes of the changes of a batch on which the plugin fails as a whole.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Limits of the sandbox.
    #[serde(default)]
    pub limits: Limits,
}

/// Columns and capabilities that a stage is granted. `*` stands for all columns.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Columns that it may see and change.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Columns that it may see alone.
    #[serde(default)]
    pub read: Vec<String>,
    /// Columns that it may change, drop or add without seeing them.
    #[serde(default)]
    pub write: Vec<String>,
    /// Columns of the table's key that it may change: they have to be named here as well.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Names from `keys` whose secrets `crypto` may use for it.
    #[serde(default)]
    pub crypto: Vec<String>,
}

/// What becomes of the changes of a batch on which a plugin fails as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They become dead letters, and the stream goes on.
    #[default]
    DeadLetter,
    /// Their table stands before anything of them is committed, and the others go on.
    HaltTable,
    /// The pipeline stops before anything of them is committed.
    Halt,
}

impl From<OnFailure> for CoreOnFailure {
    fn from(choice: OnFailure) -> Self {
        match choice {
            OnFailure::DeadLetter => CoreOnFailure::DeadLetter,
            OnFailure::HaltTable => CoreOnFailure::HaltTable,
            OnFailure::Halt => CoreOnFailure::Halt,
        }
    }
}

/// Limits of one plugin. A breach is a named error and costs the changes of the call, never the host.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory of one instance, at most 1GiB. Default: 64MiB.
    #[serde(default)]
    pub memory: Option<Size>,
    /// Time that any batch may take. Default: 250ms.
    #[serde(default)]
    pub batch_time: Option<Interval>,
    /// Time on top of it for every thousand rows. Default: 1s.
    #[serde(default)]
    pub time_per_1000_rows: Option<Interval>,
    /// Time to describe itself, to take its configuration and to plan. Default: 5s.
    #[serde(default)]
    pub setup_time: Option<Interval>,
    /// What one call may hand to the host. Default: 16MiB.
    #[serde(default)]
    pub answer: Option<Size>,
    /// Poison rows of one batch that are looked for one by one after a trap. Default: 8.
    #[serde(default)]
    pub poison_rows: Option<u32>,
    /// Lines a second that the host's log takes from it. Default: 100.
    #[serde(default)]
    pub log_lines_per_second: Option<u32>,
    /// Calls after which an instance makes way for a fresh one. Default: 10000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub calls_per_instance: Option<u32>,
}

/// Sizes and times of a pipeline.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsEntry {
    /// Batches: what a plugin sees at once.
    #[serde(default)]
    pub batch: BatchEntry,
    /// Cuts: what the sink commits at once.
    #[serde(default)]
    pub cut: CutEntry,
    /// The resume record.
    #[serde(default)]
    pub record: RecordEntry,
}

/// Batches: what a plugin sees at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchEntry {
    /// Row images a batch. Default: 1000.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000))]
    pub rows: Option<u32>,
    /// Bytes of values a batch. Default: 4MiB.
    #[serde(default)]
    pub bytes: Option<Size>,
}

/// Cuts: what the sink commits at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutEntry {
    /// A cut ends at the first commit of the source after this time. Default: 250ms (mode `upsert`: 1s, on S3 5s), and more
    /// while commits are slow.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// A cut ends at the first commit after this many row images. Default: 100000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_rows: Option<u64>,
    /// A cut ends at the first commit after this many bytes of values. Default: 64MiB.
    #[serde(default)]
    pub max_bytes: Option<Size>,
    /// A transaction of more row images than this is split over cuts. Default: 2000000.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub split_rows: Option<u64>,
}

/// The resume record: where a restart continues.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordEntry {
    /// How often it is written at most. An older record costs replay at a restart, never rows. Default: 5s.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// How much of the source's log a halted table may hold back, so that it goes on without a loss once it is mended. Beyond,
    /// the table needs a new snapshot, and the source may forget. Default: 1GiB.
    #[serde(default)]
    pub held_log: Option<Size>,
}

/// Swapping plugins while the stream runs.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HotReload {
    /// Watch the plugins' files and the stages of this file, and swap when they change.
    pub enabled: bool,
    /// Let a swap change the form of tables.
    pub allow_schema_change: bool,
}

impl Default for HotReload {
    fn default() -> Self {
        Self { enabled: true, allow_schema_change: false }
    }
}

/// The HTTP endpoint for metrics and health.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsEntry {
    /// Address and port, such as `127.0.0.1:9464`; port 0 takes a free one, which the log names.
    pub listen: String,
}

/// An example of what the stages do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    /// What the example shows, as a sentence.
    pub name: String,
    /// Changes as the source would send them.
    #[schemars(length(min = 1))]
    pub given: Vec<TestChange>,
    /// What comes out of the last stage, table by table in this order. What is not here must not come out.
    #[serde(default)]
    pub expect: Vec<TestChange>,
    /// How many row images the stages drop. Default: any number.
    #[serde(default)]
    pub dropped: Option<u64>,
    /// Types and keys of given tables, where the values do not tell them.
    #[serde(default)]
    pub tables: BTreeMap<String, TestTable>,
}

/// One change: exactly one of `insert`, `update`, `delete` and (in `expect`) `reject`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestChange {
    /// `namespace.table`.
    pub table: String,
    /// The new row.
    #[serde(default)]
    pub insert: Option<Map<String, Value>>,
    /// The row before and after.
    #[serde(default)]
    pub update: Option<TestUpdate>,
    /// The row that is gone.
    #[serde(default)]
    pub delete: Option<Map<String, Value>>,
    /// A change that a stage refuses.
    #[serde(default)]
    pub reject: Option<TestReject>,
}

/// An update's two row images.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestUpdate {
    /// Not every source sends it.
    #[serde(default)]
    pub before: Option<Map<String, Value>>,
    pub after: Map<String, Value>,
}

/// A refusal, as a dead letter would name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestReject {
    /// The stable code, such as `rule.violated`.
    pub code: String,
    /// The column to blame. Default: any.
    #[serde(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// The form of a given table.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestTable {
    /// Columns of the key. Default: `id` where there is one, else the first column by name.
    #[serde(default)]
    pub key: Vec<String>,
    /// Types of columns: `int32`, `int64`, `float64`, `decimal(10,2)`, `text`, `boolean`, `json`, `date`, `timestamp`,
    /// `timestamp-tz`, `uuid`, `binary`. Default: as the values look.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
}
