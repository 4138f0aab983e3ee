//! The seam to what changes are read from.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use crate::cut::{Boundary, CutBuilder};
use crate::error::{Error, Result};
use crate::position::{Order, Position, SourceKey};

/// Where a source is to start.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// From the resume record: everything up to here is durable. `None`: never ran.
    pub position: Option<Position>,
    /// The incarnation that `position` belongs to.
    pub incarnation: Option<String>,
    /// Source tables that need no snapshot, and up to where their changes are not wanted: the snapshot holds them. Without
    /// end for tables that stand (I12).
    pub snapshots: BTreeMap<SourceKey, Order>,
    /// As [`Opened::tables`] at the last start.
    pub tables: BTreeMap<SourceKey, String>,
}

/// What a source says of itself once it is connected.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Identity of the history that positions belong to (I2): PostgreSQL's system id and timeline.
    pub incarnation: String,
    /// Where it will start: `Resume::position`, or the place of its slot at the first start.
    pub start: Position,
    /// Whether [`Order::commit`] counts the bytes of a log that the source must keep until they are acknowledged
    /// (PostgreSQL's): what a table that stands may hold is bounded then (I12).
    pub holds_log: bool,
    /// The tables that are read, each with what tells it from another of the same name (PostgreSQL's oid). `None`: they are
    /// met as their changes come. A table that is not among them any more needs a new snapshot when it comes back.
    pub tables: Option<BTreeMap<SourceKey, String>>,
    /// Tables that miss changes, since they were replaced or were not published for a while: they need a new snapshot.
    pub gaps: BTreeSet<SourceKey>,
}

/// A source of changes. Reconnecting, pausing, batching and acknowledging in order are the engine's: a source
/// only answers with an error of kind `Retry`, and is opened again.
#[async_trait]
pub trait Source: Send {
    /// Connects and takes the source's own lock, where it has one.
    ///
    /// Errors: `position.gap` (halt) where another incarnation answers or the source has been acknowledged beyond
    /// `resume.position`; `Config` for what a person must mend; `Retry` where the server is not there.
    async fn open(&mut self, resume: &Resume) -> Result<Opened>;

    /// Instead of [`Source::open`], beside another instance that reads the stream: `read` answers with the rows that the
    /// table has now and [`crate::cut::Boundary::Snapshot`], whose order is beyond every change that was committed before
    /// this call, and ends.
    ///
    /// Errors: as `open`; `source.no_snapshot` (config) where the source takes none.
    async fn open_snapshot(&mut self, table: &SourceKey) -> Result<Opened> {
        Err(Error::config("source.no_snapshot", format!("the source of {table} takes no snapshots")))
    }

    /// Appends changes, in the source's order, and says where that leaves it. Returns when a batch has been closed, when
    /// a transaction has ended and nothing more is buffered, or when idle. Waits while there is nothing to say.
    ///
    /// Must be cancel-safe: the engine drops the future at any await and calls `read` again.
    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary>;

    /// Everything up to `position` is durable and recorded: the source may forget it (I3).
    async fn acknowledge(&mut self, position: &Position) -> Result<()>;

    /// An orderly end, after which nothing else is called: returns when the source has heard the last acknowledgement, or
    /// is not to be waited for any longer.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether the source itself lets one reader in at a time (a replication slot, a group): then no lease is waited for.
    fn is_exclusive(&self) -> bool {
        false
    }
}
