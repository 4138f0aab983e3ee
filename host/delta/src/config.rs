//! What a pipeline file says under `sink: delta:`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_core::schema::TableName;
use millrace_core::stage::matches;
use millrace_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::store::S3Config;

/// What a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One row a change: its postimage, or the delete.
    Append,
    /// Every row image, pre- and postimages: a change data feed as a table.
    #[default]
    Changelog,
    /// The current row of each key: a mirror of the source table.
    Upsert,
}

/// How the rows of keys are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// By the keys of each file.
    #[default]
    Files,
    /// By the keys of sets of files, merged on local disk beside the stream.
    Exact,
}

/// What becomes of a table when the columns of its source change (Flink CDC's behaviours).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaEvolution {
    /// The table stands until the Delta table or the policy is changed; the others go on.
    Exception,
    /// It changes likewise, and stands where Delta or this sink can not do that.
    Evolve,
    /// It changes likewise; where that can not be, as `lenient`.
    TryEvolve,
    /// It changes where no reader is shut out by it: it gains columns and NULLs. Columns that go stay, NULL from then on;
    /// values of a type that does not fit become dead letters.
    #[default]
    Lenient,
    /// It stays as it is: new columns are left out, values that do not fit become dead letters.
    Ignore,
}

/// How rows differ from their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaChange {
    /// They have a column more.
    AddColumn,
    /// A column of theirs has a type that does not fit into the table's: `evolve` widens the table's (Delta's type
    /// widening, which not every reader knows).
    ChangeType,
    /// They lack a column of the table.
    DropColumn,
    /// A column that is NOT NULL in the table may be NULL.
    Nullability,
}

/// A policy for some changes of some columns.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaRule {
    /// Which changes; all where left out.
    #[serde(default)]
    pub changes: Vec<SchemaChange>,
    /// Which columns, as `public.orders.total`; a star at the end stands for anything. All where left out.
    #[serde(default)]
    pub columns: Vec<String>,
    pub policy: SchemaEvolution,
}

/// Delta Lake tables on a local disk or S3, exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeltaConfig {
    /// Where the tables go: a path, `file://` or `s3://BUCKET/PREFIX`, with `{namespace}` and `{table}` where a table's
    /// name goes: `s3://lake/{namespace}/{table}`. Without them, `/{namespace}/{table}` is appended.
    pub path: String,
    /// `append`: one row a change. `changelog`: all row images. `upsert`: the current row of each key.
    #[serde(default)]
    pub mode: Mode,
    /// Of mode `upsert`: the columns that tell the rows of a table apart, by the table's name (`public.orders: [id]`).
    /// A table that is not named here is told apart by the primary key of its source table.
    #[serde(default)]
    pub key: BTreeMap<String, Vec<String>>,
    /// Of mode `upsert`: a column that tells which of two rows of a key is newer, by the table's name
    /// (`public.orders: updated_at`). A change whose value is less than that of the row in the table is left out. For sources
    /// that do not give the order of their changes.
    #[serde(default)]
    pub order_by: BTreeMap<String, String>,
    /// Of mode `upsert`: how the rows of keys are found. `files`: by the keys of each file. `exact`: by the keys of many
    /// files in one, merged on local disk beside the stream; for tables of many files whose keys come at random.
    #[serde(default)]
    pub index: IndexKind,
    /// Of mode `upsert`: bytes of memory for the keys of data files, of all tables together. 9 bytes hold a row; what does
    /// not fit goes to `index_dir`.
    #[serde(default = "defaults::index_memory")]
    #[schemars(range(min = 1_048_576))]
    pub index_memory: u64,
    /// Of mode `upsert`: a local folder for keys that do not fit in memory. Default: `index` in the pipeline's `state_dir`.
    /// It may be removed at any time while no host runs. It holds keys in clear.
    #[serde(default)]
    pub index_dir: Option<PathBuf>,
    /// Of mode `upsert`: bytes that `index_dir` may take; 0 = none, and what does not fit in memory is read from the data
    /// files again in every cut.
    #[serde(default = "defaults::index_disk")]
    pub index_disk: u64,
    /// Of mode `upsert`: merge small files and write files anew of which much is gone, beside the stream.
    #[serde(default = "defaults::compaction")]
    pub compaction: bool,
    /// Of mode `upsert`: rows that go are marked by deletion vectors (merge-on-read). `false`: the files that hold them are
    /// written anew in the same commit (copy-on-write), for readers without deletion vectors.
    #[serde(default = "defaults::deletion_vectors")]
    pub deletion_vectors: bool,
    /// Of mode `upsert`: write what each commit changed, row by row, beside the table too (Delta's change data feed).
    #[serde(default)]
    pub change_data_feed: bool,
    /// Turn on, in tables that are there, what the settings ask for and their readers may not know: deletion vectors. New
    /// tables have it from the start.
    #[serde(default)]
    pub upgrade_protocol: bool,
    /// Of mode `upsert`: remove files that the table has not referred to for `delta.deletedFileRetentionDuration`, at every
    /// tenth checkpoint.
    #[serde(default = "defaults::vacuum")]
    pub vacuum: bool,
    /// Columns by which new tables are partitioned. Rows without one of them become dead letters.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Bytes at which a data file ends within one cut. Every cut ends the files that it began.
    #[serde(default = "defaults::target_file_size")]
    #[schemars(range(min = 1_048_576))]
    pub target_file_size: u64,
    /// Commits from one checkpoint of a table's log to the next; 0 = none.
    #[serde(default = "defaults::checkpoint_interval")]
    pub checkpoint_interval: u64,
    /// When the columns of a source table change: `exception`, `evolve`, `try_evolve`, `lenient` or `ignore`.
    #[serde(default)]
    pub schema_evolution: SchemaEvolution,
    /// Other policies for some changes and columns; the first rule that fits counts.
    #[serde(default)]
    pub schema_rules: Vec<SchemaRule>,
    /// Hours that a new table's log keeps its commits (time travel). At least 1.
    #[serde(default = "defaults::log_retention_hours")]
    #[schemars(range(min = 1))]
    pub log_retention_hours: u64,
    /// Hours that files which a new table no longer refers to are kept from vacuum. At least 1.
    #[serde(default = "defaults::deleted_file_retention_hours")]
    #[schemars(range(min = 1))]
    pub deleted_file_retention_hours: u64,
    /// How to reach S3.
    #[serde(default)]
    pub s3: S3Config,
}

mod defaults {
    pub(super) fn target_file_size() -> u64 {
        128 << 20
    }

    pub(super) fn compaction() -> bool {
        true
    }

    pub(super) fn deletion_vectors() -> bool {
        true
    }

    pub(super) fn vacuum() -> bool {
        true
    }

    /// 28 million rows.
    pub(super) fn index_memory() -> u64 {
        256 << 20
    }

    /// 450 million rows.
    pub(super) fn index_disk() -> u64 {
        4 << 30
    }

    pub(super) fn checkpoint_interval() -> u64 {
        100
    }

    /// At a commit a second: 172,800 small objects.
    pub(super) fn log_retention_hours() -> u64 {
        48
    }

    pub(super) fn deleted_file_retention_hours() -> u64 {
        168
    }
}

impl DeltaConfig {
    /// The defaults, for a path.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            mode: Mode::default(),
            key: BTreeMap::new(),
            order_by: BTreeMap::new(),
            index: IndexKind::default(),
            index_memory: defaults::index_memory(),
            index_dir: None,
            index_disk: defaults::index_disk(),
            compaction: defaults::compaction(),
            deletion_vectors: defaults::deletion_vectors(),
            change_data_feed: false,
            upgrade_protocol: false,
            vacuum: defaults::vacuum(),
            partition_by: Vec::new(),
            target_file_size: defaults::target_file_size(),
            checkpoint_interval: defaults::checkpoint_interval(),
            schema_evolution: SchemaEvolution::default(),
            schema_rules: Vec::new(),
            log_retention_hours: defaults::log_retention_hours(),
            deleted_file_retention_hours: defaults::deleted_file_retention_hours(),
            s3: S3Config::default(),
        }
    }

    /// Everything that is wrong with it, without looking at the store.
    pub fn problems(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        problems.extend(self.key_problems());
        if self.path.trim().is_empty() {
            problems.push(Error::config("store.path", "`path` is empty").hint("s3://BUCKET/PREFIX or a folder"));
        }
        if self.target_file_size < 1 << 20 {
            let size = self.target_file_size;
            problems.push(
                Error::config("delta.target_file_size", format!("`target_file_size` is {size} bytes"))
                    .hint("at least 1 MiB"),
            );
        }
        if self.log_retention_hours == 0 || self.deleted_file_retention_hours == 0 {
            let hint = "a host that was suspended for less than an hour must still find its commits";
            problems.push(Error::config("delta.retention", "a retention is 0 hours").hint(hint));
        }
        if let Err(error) = crate::template::Template::parse(&self.path) {
            problems.push(error);
        }
        let repeated = self.partition_by.iter().enumerate().find(|(i, c)| self.partition_by[..*i].contains(c));
        if let Some((_, column)) = repeated {
            problems.push(Error::config("delta.partition_by", format!("`partition_by` names `{column}` twice")));
        }
        problems
    }

    /// What the file says of a change of a table's column.
    pub(crate) fn policy(&self, change: SchemaChange, table: &TableName, column: &str) -> SchemaEvolution {
        let name = format!("{table}.{column}");
        let fits = |rule: &&SchemaRule| {
            (rule.changes.is_empty() || rule.changes.contains(&change))
                && (rule.columns.is_empty() || rule.columns.iter().any(|pattern| matches(pattern, &name)))
        };
        self.schema_rules.iter().find(fits).map_or(self.schema_evolution, |rule| rule.policy)
    }

    fn key_problems(&self) -> Vec<Error> {
        let problem = |why: String, hint: &str| Error::config("delta.key", why).hint(hint);
        let mut problems = Vec::new();
        if self.mode != Mode::Upsert && !self.key.is_empty() {
            let hint = "set `mode: upsert`, or leave `key` out";
            problems.push(problem("`key` is of the mode `upsert` alone".into(), hint));
        }
        if self.mode != Mode::Upsert && !self.order_by.is_empty() {
            let error = Error::config("delta.order_by", "`order_by` is of the mode `upsert` alone");
            problems.push(error.hint("set `mode: upsert`, or leave `order_by` out"));
        }
        if let Some((table, _)) = self.order_by.iter().find(|(_, column)| column.trim().is_empty()) {
            let error = Error::config("delta.order_by", format!("the rows of {table} are ordered by no column"));
            problems.push(error.hint("name one: `updated_at`"));
        }
        for (table, columns) in &self.key {
            let repeated = columns.iter().enumerate().find(|(i, c)| columns[..*i].contains(c));
            if columns.is_empty() {
                problems.push(problem(format!("the key of {table} has no columns"), "name one or more: `[id]`"));
            } else if let Some((_, column)) = repeated {
                problems.push(problem(format!("the key of {table} names `{column}` twice"), "name each column once"));
            }
        }
        if self.index_memory < 1 << 20 {
            let bytes = self.index_memory;
            let error = Error::config("delta.index_memory", format!("`index_memory` is {bytes} bytes"));
            problems.push(error.hint("at least 1 MiB; 9 bytes hold the key of a row"));
        }
        if self.index == IndexKind::Exact && self.index_disk == 0 {
            let why = "`index: exact` lies on local disk, and `index_disk` is 0";
            problems.push(Error::config("delta.index_disk", why).hint("give it 10 bytes a row, or leave `index` out"));
        }
        problems
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }
}
