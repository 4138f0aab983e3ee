//! The resume record: a lower bound of what is durable, and what is in force from there on (I3).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
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
}

/// Staged by a snapshot and not yet in every table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub snapshot: BTreeMap<SourceKey, Order>,
    pub letters: Option<String>,
    pub data: Option<String>,
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
    /// Everything up to here is in the sink's tables or among the letters.
    pub position: Option<Position>,
    /// Every sink table that may exist: its name is here before it is created.
    pub tables: BTreeSet<TableName>,
    /// The stages in force from `position` on.
    pub stages: Vec<StageSpec>,
    /// Source tables whose snapshot is complete, and the order that stands for it: changes at or before it are in the
    /// snapshot.
    pub snapshots: BTreeMap<SourceKey, Order>,
    pub pending: Option<Pending>,
}
