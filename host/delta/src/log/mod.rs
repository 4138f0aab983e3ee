//! Our own client of a Delta table's transaction log.
//!
//! A table is loaded once and then followed: by our own commits, which cost one conditional put, and by reading the
//! commits of others when one of them took the number that we wanted. deltalake's own commit path grows to
//! hundreds of milliseconds with the log and repeats a known `txn` without noticing (measured).

pub(crate) mod actions;
mod checkpoint;
mod checkpoint_files;
mod commit;
pub(crate) mod deletion_vectors;
pub(crate) mod features;
pub(crate) mod files;
pub(crate) mod kernel;
mod load;
pub(crate) mod schema;
pub(crate) mod unused;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::environment::Environment;
use millrace_core::{Error, Result};

use self::actions::{Entry, Metadata, Protocol, Txn};
use self::checkpoint::Checkpoints;
use self::files::Files;
use self::schema::DeltaSchema;
use crate::store::Store;

pub(crate) use commit::Step;

/// A table as of one version. An appending writer needs none of its files.
#[derive(Clone, Debug)]
pub(crate) struct TableState {
    pub version: u64,
    pub protocol: Protocol,
    pub metadata: Metadata,
    pub schema: DeltaSchema,
    /// The version at which metadata or protocol changed last, as far as this host saw.
    pub changed_at: u64,
    /// By app id.
    pub txns: HashMap<String, Txn>,
    /// Where they were asked for.
    pub files: Option<Files>,
    /// The version at which others added or removed files last, as far as this host saw.
    pub files_changed_at: u64,
}

impl TableState {
    /// `place`: for messages.
    fn apply(&mut self, place: &str, version: u64, entry: Entry, ours: bool) -> Result<()> {
        if entry.info.as_ref().is_some_and(actions::CommitInfo::rewinds) {
            return Err(rewound(place, version, entry.info.as_ref()));
        }
        if let Some(metadata) = entry.metadata {
            if metadata.id != self.metadata.id {
                return Err(another_table(place, &self.metadata.id, &metadata.id));
            }
            self.schema = DeltaSchema::parse(place, &metadata.schema_string)?;
            self.metadata = metadata;
            self.changed_at = version;
        }
        if let Some(protocol) = entry.protocol {
            self.protocol = protocol;
            self.changed_at = version;
        }
        for txn in entry.txns {
            self.txns.insert(txn.app_id.clone(), txn);
        }
        features::check_vectors(&format!("{place}, version {version}"), &self.protocol, entry.adds.iter())?;
        let changes_files = !entry.adds.is_empty() || !entry.removes.is_empty();
        if changes_files && !ours {
            self.files_changed_at = version;
        }
        if let Some(files) = &mut self.files {
            files.apply(&format!("{place}, version {version}"), entry.adds, &entry.removes)?;
        }
        self.version = version;
        Ok(())
    }
}

fn rewound(place: &str, version: u64, info: Option<&actions::CommitInfo>) -> Error {
    let operation = info.map_or("", |i| i.operation.as_str());
    Error::halt("position.gap", format!("{place} was turned back or replaced by others (version {version}: {operation})"))
        .hint("its stored positions no longer say what it holds; write to another path, or start a new pipeline with a new snapshot")
}

fn another_table(place: &str, known: &str, found: &str) -> Error {
    Error::halt("position.gap", format!("{place} is another table now: its id was {known} and is {found}"))
        .hint("it was replaced by others; write to another path, or start a new pipeline with a new snapshot")
}

/// A handle on one table, which may not exist yet.
pub(crate) struct Table {
    store: Store,
    environment: Arc<dyn Environment>,
    /// `None`: not created.
    state: Option<TableState>,
    /// When we last knew the newest version, by the monotonic clock.
    known_at: Duration,
    checkpoints: Checkpoints,
    with_files: bool,
    /// An earlier put may land yet, or what we believe may be wrong: read anew before the next commit.
    doubtful: bool,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("place", &self.place()).field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Table {
    /// Loads the newest version; a folder without a log is a table that is not created yet. `checkpoint_every`: commits.
    ///
    /// Errors: `log.damaged`, `store.*`.
    pub(crate) async fn open(store: Store, environment: Arc<dyn Environment>, checkpoint_every: u64) -> Result<Self> {
        Self::load(store, environment, checkpoint_every, false).await
    }

    /// As [`Table::open`], and knows the table's files.
    pub(crate) async fn open_with_files(
        store: Store,
        environment: Arc<dyn Environment>,
        checkpoint_every: u64,
    ) -> Result<Self> {
        Self::load(store, environment, checkpoint_every, true).await
    }

    async fn load(
        store: Store,
        environment: Arc<dyn Environment>,
        checkpoint_every: u64,
        with_files: bool,
    ) -> Result<Self> {
        let known_at = environment.monotonic();
        let state = load::newest(&store, with_files).await?;
        let checkpoints = Checkpoints::new(checkpoint_every, state.as_ref().map_or(0, |s| s.version));
        Ok(Self { store, environment, state, known_at, checkpoints, with_files, doubtful: false })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// From now on files that no version of the table's retention refers to are removed, at every tenth checkpoint.
    pub(crate) fn vacuum(&mut self) {
        self.checkpoints.vacuum();
    }

    pub(crate) fn environment(&self) -> &Arc<dyn Environment> {
        &self.environment
    }

    /// For logs and errors.
    pub(crate) fn place(&self) -> String {
        self.store.location()
    }

    pub(crate) fn state(&self) -> Option<&TableState> {
        self.state.as_ref()
    }

    pub(crate) fn version(&self) -> Option<u64> {
        Some(self.state.as_ref()?.version)
    }

    /// Writes a checkpoint of the version that is known, and removes of the log what is older than its retention.
    pub(crate) async fn checkpoint_now(&self) -> Result<()> {
        let Some(version) = self.version() else { return Ok(()) };
        checkpoint::checkpoint(&self.store, version).await?;
        checkpoint::clean_log(&self.store, version, self.now_millis()).await
    }

    /// Refuses a table that others turned back after this pipeline's last commit: `txn` does not follow a RESTORE.
    ///
    /// Errors: `position.gap` (halt).
    pub(crate) async fn check_not_rewound(&self, pipeline: &str) -> Result<()> {
        let Some(state) = &self.state else { return Ok(()) };
        for version in (0..=state.version).rev() {
            let Some(entry) = load::entry(&self.store, version).await? else {
                // Removed by retention: what is older was followed while it was there.
                return Ok(());
            };
            match &entry.info {
                Some(info) if info.is_of(pipeline) => return Ok(()),
                Some(info) if info.rewinds() => return Err(rewound(&self.place(), version, Some(info))),
                _ => {}
            }
        }
        Ok(())
    }
}
