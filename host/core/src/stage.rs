//! The seam to what happens to changes on the way: plugins, mostly.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::batch::{ChangeBatch, Reject};
use crate::error::Result;
use crate::schema::TableSchema;

/// Columns and capabilities that the pipeline file grants to a stage. What is not granted does not enter the
/// sandbox, its name neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Columns that it may see. `*` stands for all.
    pub read: Vec<String>,
    /// Columns that it may change or drop, and names of columns that it may add. `*` stands for all.
    pub write: Vec<String>,
    /// Key columns need to be named here, besides in `write`, to be written.
    pub keys: Vec<String>,
    /// Names of secrets that `crypto` may use.
    pub crypto: Vec<String>,
}

impl Grants {
    pub fn may_read(&self, column: &str) -> bool {
        granted(&self.read, column)
    }

    pub fn may_write(&self, column: &str) -> bool {
        granted(&self.write, column)
    }
}

fn granted(list: &[String], column: &str) -> bool {
    list.iter().any(|g| g == "*" || g == column)
}

/// What the engine does with a change that a stage refuses, and with those of a batch on which it fails as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The changes go to the dead letters.
    #[default]
    DeadLetter,
    /// Their table is left behind, and the others go on (I12).
    HaltTable,
    /// The pipeline stops.
    Halt,
}

/// A stage as the pipeline file has it, with its code by digest: what the resume record keeps, so that what was
/// started under a version is finished by it (I4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// As users see it: the plugin's name or file name.
    pub name: String,
    /// SHA-256 of the component, lower-case hexadecimal.
    pub digest: String,
    /// Canonical JSON.
    pub config: String,
    pub grants: Grants,
    /// Patterns of table names; empty = all.
    pub tables: Vec<String>,
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Limits by which the stage runs, in the runtime's own form (canonical JSON); part of the identity, since
    /// they decide verdicts.
    #[serde(default)]
    pub limits: String,
}

impl StageSpec {
    /// Whether rows of this table pass through the stage. A pattern is a name, or a prefix with `*` at its end.
    pub fn sees(&self, table: &str) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|p| matches(p, table))
    }

    /// What provenance and dead letters name: digest, and everything else that decides its output.
    pub fn identity(&self) -> String {
        format!("{}@{}", self.name, &self.digest[..self.digest.len().min(12)])
    }
}

/// `billing.*` and `public.orders`: a star at the end stands for anything.
pub fn matches(pattern: &str, table: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => table.starts_with(prefix),
        None => pattern == table,
    }
}

/// What a stage will do to the rows of one schema, found out before any of them flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// Names of columns that enter the sandbox.
    pub reads: Vec<String>,
    /// Names of output columns that it makes or changes.
    pub writes: Vec<String>,
    /// "drop", "reject", "emit", "route".
    pub effects: Vec<String>,
    /// The form rows leave with on the default route.
    pub output: Arc<TableSchema>,
    /// Further forms, for 1 -> n.
    pub shapes: Vec<Arc<TableSchema>>,
    /// It makes rows of messages: only the data shows of which tables, and `output` is what goes in.
    pub parses: bool,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct StageOutput {
    /// What goes on, in order within each table. Same `origin` as the input.
    pub batches: Vec<ChangeBatch>,
    /// Changes of the input that are refused; none of their images is in `batches`.
    pub rejects: Vec<Reject>,
    /// Row images of the input that were dropped, and images that were added to it (emissions).
    pub dropped: u64,
    pub emitted: u64,
}

/// One step on the way, at one version. It is called for one batch at a time, in order.
#[async_trait]
pub trait Stage: Send {
    fn spec(&self) -> &StageSpec;

    /// What it will do to rows of this schema; `None`: they pass untouched. Cheap when asked again.
    ///
    /// Errors: `Config` where the plan asks for what was not granted, or does not fit the schema.
    async fn plan(&mut self, schema: &Arc<TableSchema>) -> Result<Option<StagePlan>>;

    /// The output depends on the row, the configuration and keyed state alone: not on how batches were cut.
    /// A truncate goes through without the plugin, under the plan's output name.
    ///
    /// Errors: `Retry` where nothing was decided (call again with the same batch); any other kind means that the batch
    /// as a whole can not be handled, and [`OnFailure`] decides.
    async fn apply(&mut self, batch: &ChangeBatch) -> Result<StageOutput>;
}

/// Makes stages of specs: the plugin runtime, and the simulator's.
#[async_trait]
pub trait StageLoader: Send + Sync {
    /// `artifact` is the component whose digest the spec names.
    async fn load(&self, spec: &StageSpec, artifact: &[u8]) -> Result<Box<dyn Stage>>;
}
