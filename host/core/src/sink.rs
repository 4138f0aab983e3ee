//! The seam to what changes are written to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::batch::ChangeBatch;
use crate::cut::Cut;
use crate::error::Result;
use crate::position::{Order, SourceKey};
use crate::record::RecordStore;
use crate::schema::TableName;

/// Under what a host writes: taken anew at every start (I13).
#[derive(Clone, Debug)]
pub struct Claim {
    pub pipeline: String,
    pub incarnation: String,
    pub epoch: u64,
    /// Every table whose name is in the resume record: the fence covers, or creates, them all.
    pub tables: BTreeSet<TableName>,
}

/// Positions as the tables' own commits have them, read after the fence.
pub type Stored = BTreeMap<TableName, BTreeMap<SourceKey, Order>>;

/// Changes that a sink refuses: they become dead letters before the data commits.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The rows as they came to the sink, of the refused changes alone.
    pub batch: ChangeBatch,
    /// Stable, machine-readable: `sink.type_mismatch`. One for the batch.
    pub code: &'static str,
    pub reason: String,
    pub column: Option<String>,
}

/// What a sink says of a cut before anything of it is committed.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// The sink leaves out the refused changes, in all of its tables, when it commits.
    pub refused: Vec<Refusal>,
    /// Tables that the commit will create: their names enter the resume record first.
    pub new_tables: BTreeSet<TableName>,
    /// Of a snapshot: how to commit what is staged after a crash. Staged data is durable then. The engine
    /// keeps it in the resume record until every table has it.
    pub manifest: Option<String>,
}

/// A change that is stored as a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredLetter {
    pub source: SourceKey,
    pub order: Order,
}

/// A stored letter, and the keys whose later changes wait behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKeys {
    pub letter: StoredLetter,
    /// As [`crate::quarantine::RowKeys::shown`] gave them.
    pub keys: Vec<String>,
}

/// One line of the provenance table: from this position on, these stages made the rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Provenance {
    pub pipeline: String,
    pub incarnation: String,
    pub epoch: u64,
    /// The resume record that made it so; unique in a pipeline.
    pub record: u64,
    /// Sortable text of the last order that was not made by these stages.
    pub after: String,
    /// The stages' specs, as JSON.
    pub stages: String,
    /// Microseconds since 1970-01-01 UTC.
    pub at: i64,
}

/// A sink of changes, and the only store of what is in it.
///
/// The engine calls, for each cut: `write` n times, `prepare`, (the letters commit), `commit`. A sink without
/// positions of its own (`stdout`) answers `fence` with nothing and is at-least-once.
#[async_trait]
pub trait Sink: Send {
    /// Commits the claim's epoch to every table of the claim (an empty commit; creating the table where it is only a
    /// name yet, or leaving an absent one absent where creation by another host would be seen by its commit), and only then
    /// reads their positions, of this incarnation alone. What an earlier run staged and did not commit is forgotten.
    ///
    /// Errors: `LetGo` where a higher epoch is found; `position.gap` where a table was replaced or restored by others.
    async fn fence(&mut self, claim: &Claim) -> Result<Stored>;

    /// Takes rows of the cut under way. They go to the table that `batch.schema.name` names; the engine has left out
    /// what that table already holds.
    ///
    /// Errors: `HaltTable` where rows of this form can not go there at all: their source table stands (I12).
    async fn write(&mut self, batch: ChangeBatch) -> Result<()>;

    /// Everything of the cut has been written: stage it, and say what is refused.
    async fn prepare(&mut self, cut: &Cut) -> Result<Prepared>;

    /// One commit for each table with rows in the cut: rows and positions (`cut.last` of the source tables that have rows
    /// there) together, compare-and-set from where this host believes the table to be. Durable when it answers.
    ///
    /// Errors: `Reload`, `LetGo` by [`crate::compare_and_set::decide`]; `Retry` where the store is not there.
    async fn commit(&mut self, cut: &Cut) -> Result<()>;

    /// Commits what a manifest of an earlier run staged, in the tables that do not have it yet.
    async fn recommit(&mut self, manifest: &str) -> Result<()> {
        let _unused = manifest;
        Ok(())
    }

    /// The store of the pipeline's resume record, beside the data. `None`: the host's `state_dir` is used.
    fn records(&self) -> Option<Arc<dyn RecordStore>> {
        None
    }

    /// As the dead letters' sink: the changes stored beyond `after` (all where `None`) of this pipeline and incarnation.
    async fn stored_letters(&mut self, after: Option<Order>) -> Result<Vec<StoredLetter>> {
        let _unused = after;
        Ok(Vec::new())
    }

    /// As the dead letters' sink: every letter of this pipeline and incarnation that names keys.
    async fn stored_keys(&mut self) -> Result<Vec<StoredKeys>> {
        Ok(Vec::new())
    }

    /// Notes which stages make the rows from here on. Called again with the same record number after a crash: once is
    /// enough.
    async fn provenance(&mut self, line: &Provenance) -> Result<()> {
        let _unused = line;
        Ok(())
    }

    /// Bytes that the last commit wrote anew of what was there before, beside its rows: where it is much for few rows, cuts
    /// get longer.
    fn rewritten(&self) -> u64 {
        0
    }

    /// Row images committed so far, by table; for reports.
    fn committed(&self) -> BTreeMap<TableName, u64> {
        BTreeMap::new()
    }

    /// Where a table is, for people.
    fn location(&self, table: &TableName) -> Option<String> {
        let _unused = table;
        None
    }
}
