//! The resume record: a lower bound of what is durable, and what is in force from there on (I3).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::position::{Order, Position, SourceKey};
use crate::schema::TableName;
use crate::stage::StageSpec;

/// How creating a numbered record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    Created,
    /// The number is taken: somebody else wrote it, or an earlier try of ours landed after all.
    Taken,
}

/// Small objects beside the sink: create-only numbered records, and components by digest.
///
/// A request without an answer is an error of kind `Retry`; the record may or may not be there, so its reader
/// looks before any further commit.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// The record with the highest number.
    async fn latest(&self) -> Result<Option<(u64, Vec<u8>)>>;

    /// The record of this number.
    async fn read(&self, number: u64) -> Result<Option<Vec<u8>>>;

    /// Conditional: never overwrites. Durable when it answers `Created`.
    async fn create(&self, number: u64, record: &[u8]) -> Result<Create>;

    /// Removes records below `number` that are also older than the store's keeping time (an hour: a host that was
    /// suspended for less finds its next number taken, and knows that it is not the owner).
    async fn prune(&self, below: u64) -> Result<()>;

    async fn put_artifact(&self, digest: &str, bytes: &[u8]) -> Result<()>;

    async fn artifact(&self, digest: &str) -> Result<Option<Vec<u8>>>;

    /// Source tables of which somebody wants a new snapshot; asked with every record.
    async fn snapshot_requests(&self) -> Result<Vec<String>>;

    /// Asks for one. Asking twice is asking once.
    async fn request_snapshot(&self, table: &str) -> Result<()>;

    async fn withdraw_snapshot_request(&self, table: &str) -> Result<()>;
}

/// Staged by a snapshot and not yet in every table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub snapshot: BTreeMap<SourceKey, Order>,
    pub letters: Option<String>,
    pub data: Option<String>,
}

/// A source table that stands, or is catching up, while the others went on (I12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Where its changes are read again from: the source holds them. `None`: it does not, and the table needs a new snapshot.
    pub from: Option<Position>,
    /// Its changes at or before this are done, as those before `from`.
    pub after: Option<Order>,
    /// Why it stands. `None`: it is catching up.
    pub halted: Option<Halted>,
    /// It stands until a new snapshot of it is taken beside the stream.
    #[serde(default)]
    pub resnapshot: bool,
}

/// Why a source table stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    pub code: String,
    pub reason: String,
    /// Microseconds since 1970-01-01 UTC.
    pub at: i64,
}

/// One numbered object: everything a start needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub pipeline: String,
    /// Of the host that wrote it; every start takes the next one.
    pub epoch: u64,
    /// Which host wrote it, for the lease.
    pub instance: String,
    /// Random, one a start: tells our own record from that of a host with the same name.
    pub nonce: u64,
    /// Microseconds since 1970-01-01 UTC, by the writer's clock; for people.
    pub written_at: i64,
    /// Written at an orderly stop: nobody waits for the lease.
    pub released: bool,
    pub incarnation: Option<String>,
    /// Everything up to here is in the sink's tables or among the letters, except of the tables that are `behind`.
    pub position: Option<Position>,
    /// Every sink table that may exist: its name is here before it is created.
    pub tables: BTreeSet<TableName>,
    /// The stages in force from `position` on.
    pub stages: Vec<StageSpec>,
    /// Source tables whose snapshot is complete, and the order that stands for it: changes at or before it are in the
    /// snapshot.
    pub snapshots: BTreeMap<SourceKey, Order>,
    pub pending: Option<Pending>,
    #[serde(default)]
    pub behind: BTreeMap<SourceKey, Behind>,
    /// What told each source table from another of its name at the last start.
    /// Sink tables that held positions: one that holds none any more was removed, or is another.
    #[serde(default)]
    pub stored: BTreeSet<TableName>,
    /// As [`crate::pipeline::Pipeline::sink`].
    #[serde(default)]
    pub sink: Option<String>,
    #[serde(default)]
    pub source_tables: BTreeMap<SourceKey, String>,
}

impl Record {
    /// The record with the highest number.
    ///
    /// Errors: those of the store; as [`Record::parse`].
    pub async fn latest(store: &dyn RecordStore) -> Result<Option<Self>> {
        let latest = store.latest().await?;
        latest.map(|(number, bytes)| Self::parse(number, &bytes)).transpose()
    }

    /// Errors: `record.unreadable` (halt).
    pub fn parse(number: u64, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| {
            Error::halt("record.unreadable", format!("resume record {number}: {e}"))
                .hint("it was written by another version of millrace, or damaged: use the version that wrote it, or restore the object")
        })
    }

    /// Where the source is read from, and up to where it may forget: what the furthest behind of the tables needs.
    pub fn resume_position(&self) -> Option<&Position> {
        let held = self.behind.values().filter_map(|b| b.from.as_ref());
        self.position.iter().chain(held).min_by_key(|p| p.order)
    }

    /// Takes in which tables the source reads. Those that left, and those that miss changes, need a new snapshot.
    pub fn read_tables(&mut self, tables: &BTreeMap<SourceKey, String>, gaps: &BTreeSet<SourceKey>) {
        self.source_tables.clone_from(tables);
        self.snapshots.retain(|source, _| tables.contains_key(source) && !gaps.contains(source));
        self.behind.retain(|source, behind| {
            let gap = gaps.contains(source);
            if gap {
                (behind.from, behind.after) = (None, None);
            }
            tables.contains_key(source) && (!gap || behind.halted.is_some())
        });
    }

    /// Tables that stand are tried again: from where they stopped, or by a new snapshot.
    pub fn try_again(&mut self) {
        self.behind.retain(|_, behind| behind.from.is_some());
        self.behind.values_mut().filter(|behind| !behind.resnapshot).for_each(|behind| behind.halted = None);
    }

    /// These snapshots are in the tables. A table that stood for its own catches up from there.
    pub fn complete_snapshot(&mut self, snapshot: &BTreeMap<SourceKey, Order>) {
        for (source, order) in snapshot {
            self.snapshots.insert(source.clone(), *order);
            if let Some(behind) = self.behind.get_mut(source).filter(|behind| behind.resnapshot) {
                *behind = Behind { after: Some(*order), halted: None, resnapshot: false, from: behind.from.take() };
            }
        }
        self.pending = None;
    }

    /// Everything up to `position` is stored, of the tables that are catching up too.
    pub fn advance(&mut self, position: &Position) {
        let front = self.position.as_ref().is_none_or(|front| front.order <= position.order);
        if front {
            self.position = Some(position.clone());
            self.behind.retain(|_, behind| behind.halted.is_some());
        }
        // One table may be further than where another is read again from.
        let passed = |from: &Position| from.order < position.order;
        for behind in self.behind.values_mut().filter(|b| b.halted.is_none() && b.from.as_ref().is_some_and(passed)) {
            behind.from = Some(position.clone());
        }
    }
}
