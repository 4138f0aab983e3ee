//! What outlives a host: the source's history, the tables, the letters and the records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::executor::{Executor, Rng, SimEnvironment, lock};
use crate::batch::ChangeType;
use crate::compare_and_set::Head;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::position::{Order, SourceKey};
use crate::record::{Create, Record, RecordStore};

/// One row image in a table, as the simulated sink keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) source: String,
    pub(super) order: Order,
    pub(super) change_type: u8,
    pub(super) id: i64,
    pub(super) value: String,
    /// The version of the code that made it.
    pub(super) version: i64,
}

/// One change at the source. `before` and `after` are values; the key never changes.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) source: &'static str,
    pub(super) ordinal: i64,
    pub(super) id: i64,
    pub(super) before: Option<char>,
    pub(super) after: Option<char>,
}

impl Change {
    pub(super) fn images(&self) -> Vec<(ChangeType, char)> {
        match (self.before, self.after) {
            (None, Some(new)) => vec![(ChangeType::Insert, new)],
            (Some(old), Some(new)) => vec![(ChangeType::UpdatePreimage, old), (ChangeType::UpdatePostimage, new)],
            (Some(old), None) => vec![(ChangeType::Delete, old)],
            (None, None) => Vec::new(),
        }
    }
}

/// How far commits are apart.
pub(super) const STEP: i64 = 1_000;

/// The place of the transaction with this index.
pub(super) fn commit_of(index: usize) -> i64 {
    (index as i64 + 1) * STEP
}

/// One commit of a table or of the letters.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) id: u64,
    pub(super) epoch: u64,
    pub(super) positions: BTreeMap<SourceKey, Order>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) transactions: Vec<Vec<Change>>,
    /// How many of them have been committed at the source so far.
    pub(super) head: usize,
    pub(super) tables: BTreeMap<String, Vec<Commit>>,
    pub(super) records: BTreeMap<u64, Vec<u8>>,
    pub(super) artifacts: BTreeMap<String, Vec<u8>>,
    pub(super) acknowledged: i64,
    /// Requests may still get no answer.
    pub(super) faults: bool,
    pub(super) violation: Option<String>,
    /// Source tables of which a new snapshot is asked for.
    pub(super) requests: BTreeSet<String>,
    /// How many snapshots were begun.
    pub(super) snapshots: i64,
    /// Later changes of a key wait behind its letters (I15).
    pub(super) quarantine: bool,
}

pub(super) const SOURCES: [&str; 3] = ["S", "T", "R"];
/// Values by what the stages make of them: see `stage.rs`.
const VALUES: [char; 11] = ['a', 'b', 'a', 'b', 'a', 'x', 'y', 'z', '?', 'q', 'h'];

impl World {
    /// A history of a few transactions, some of them longer than what a cut may hold.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut live: BTreeMap<(&str, i64), char> = BTreeMap::new();
        let count = 4 + rng.below(8) as usize;
        let transactions = (0..count)
            .map(|_| {
                let length = if rng.one_in(4) { 8 + rng.below(6) } else { 1 + rng.below(3) };
                let mut ordinals = BTreeMap::new();
                (0..length).map(|_| change(rng, &mut live, &mut ordinals)).collect()
            })
            .collect();
        let (head, quarantine) = (rng.below(3) as usize, rng.one_in(2));
        Self { transactions, head, quarantine, faults: true, ..Self::default() }
    }

    /// One more transaction than was planned, of a row of its own.
    pub(super) fn one_more(&mut self) {
        let id = 100 + self.transactions.len() as i64;
        self.transactions.push(vec![Change { source: "R", ordinal: 1, id, before: None, after: Some('a') }]);
    }

    pub(super) fn violate(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }

    /// The rows of a source table after the first `count` transactions.
    pub(super) fn state(&self, source: &str, count: usize) -> BTreeMap<i64, char> {
        let mut rows = BTreeMap::new();
        for change in self.transactions[..count].iter().flatten().filter(|c| c.source == source) {
            match change.after {
                Some(value) => rows.insert(change.id, value),
                None => rows.remove(&change.id),
            };
        }
        rows
    }

    /// The place of a snapshot that sees what is committed: after it, and beyond every snapshot before.
    pub(super) fn begin_snapshot(&mut self) -> i64 {
        self.snapshots = (self.snapshots + 1) % (STEP - 1);
        self.head as i64 * STEP + 1 + self.snapshots
    }

    pub(super) fn latest_record(&self) -> Option<Record> {
        self.records.last_key_value().and_then(|(_, bytes)| serde_json::from_slice(bytes).ok())
    }

    pub(super) fn head_of(&self, table: &str) -> (usize, Head) {
        let commits = self.tables.get(table).map_or(&[][..], Vec::as_slice);
        (commits.len(), head(commits))
    }

    /// Put if absent: the version is the number of commits before it.
    pub(super) fn put(&mut self, table: &str, version: usize, commit: Commit) -> bool {
        let commits = self.tables.entry(table.to_string()).or_default();
        let free = commits.len() == version;
        if free {
            commits.push(commit);
        }
        free
    }
}

/// Records, then each table's commits, one a line.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, record) in &self.records {
            writeln!(f, "record {number}: {}", String::from_utf8_lossy(record))?;
        }
        for (name, commits) in &self.tables {
            for commit in commits {
                let positions: Vec<String> = commit.positions.iter().map(|(s, o)| format!("{s}={o}")).collect();
                write!(f, "{name} epoch {} [{}]", commit.epoch, positions.join(" "))?;
                for row in &commit.rows {
                    let Row { source, order, change_type, id, value, version } = row;
                    write!(f, " {source}:{order}:t{change_type}:{id}={value}:v{version}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

pub(super) fn head(commits: &[Commit]) -> Head {
    let mut head = Head::default();
    for commit in commits {
        head.epoch = head.epoch.max(commit.epoch);
        head.positions.extend(commit.positions.clone());
    }
    head
}

fn change(
    rng: &mut Rng,
    live: &mut BTreeMap<(&'static str, i64), char>,
    ordinals: &mut BTreeMap<&'static str, i64>,
) -> Change {
    let source = SOURCES[rng.below(3) as usize];
    let id = rng.below(4) as i64;
    let value = VALUES[rng.below(VALUES.len() as u64) as usize];
    let before = live.get(&(source, id)).copied();
    let after = if before.is_some() && rng.one_in(4) { None } else { Some(value) };
    match after {
        Some(value) => live.insert((source, id), value),
        None => live.remove(&(source, id)),
    };
    let ordinal = ordinals.entry(source).or_insert(0);
    *ordinal += 1;
    Change { source, ordinal: *ordinal, id, before, after }
}

/// How a request to a store ends for the host that sent it.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Given,
    /// It landed, but the answer is lost.
    Lost,
    /// It never landed.
    Never,
    /// It lands later, perhaps after its host's death.
    Late,
}

/// A host's way to the world: every request takes time, and may get no answer.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) env: SimEnvironment,
}

impl Link {
    pub(super) async fn pause(&self) {
        let micros = self.env.random() % 3_000;
        self.env.sleep(Duration::from_micros(micros)).await;
    }

    pub(super) async fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        self.pause().await;
        let seen = look(&lock(&self.world));
        self.pause().await;
        seen
    }

    /// Does `act` in the world, once at most.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T> {
        self.pause().await;
        match self.answer() {
            Answer::Given => {
                let done = act(&mut lock(&self.world));
                self.pause().await;
                return Ok(done);
            }
            Answer::Lost => {
                act(&mut lock(&self.world));
            }
            Answer::Never => {}
            Answer::Late => self.later(act),
        }
        self.pause().await;
        Err(Error::retry("sim.no_answer", "no answer"))
    }

    fn answer(&self) -> Answer {
        let executor = &self.env.executor;
        if !lock(&self.world).faults || !executor.one_in(12) {
            return Answer::Given;
        }
        match executor.random() % 3 {
            0 => Answer::Lost,
            1 => Answer::Never,
            _ => Answer::Late,
        }
    }

    /// The network is no host: what is under way survives the death of its sender.
    fn later<T: Send + 'static>(&self, act: impl FnOnce(&mut World) -> T + Send + 'static) {
        const NETWORK: u64 = 0;
        let (executor, world): (Executor, _) = (self.env.executor.clone(), self.world.clone());
        let delay = self.env.sleep(Duration::from_micros(self.env.random() % 200_000));
        executor.spawn(
            NETWORK,
            Box::pin(async move {
                delay.await;
                act(&mut lock(&world));
            }),
        );
    }
}

/// The records in the world.
pub(super) struct SimRecords(pub(super) Link);

#[async_trait]
impl RecordStore for SimRecords {
    async fn latest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        Ok(self.0.read(|world| world.records.last_key_value().map(|(n, r)| (*n, r.clone()))).await)
    }

    async fn read(&self, number: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.0.read(|world| world.records.get(&number).cloned()).await)
    }

    async fn create(&self, number: u64, record: &[u8]) -> Result<Create> {
        let record = record.to_vec();
        self.0
            .write(move |world| {
                if world.records.contains_key(&number) {
                    return Create::Taken;
                }
                world.records.insert(number, record);
                Create::Created
            })
            .await
    }

    async fn prune(&self, _below: u64) -> Result<()> {
        Ok(())
    }

    async fn put_artifact(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let (digest, bytes) = (digest.to_string(), bytes.to_vec());
        self.0.write(move |world| world.artifacts.insert(digest, bytes)).await.map(|_| ())
    }

    async fn artifact(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.read(|world| world.artifacts.get(digest).cloned()).await)
    }

    async fn snapshot_requests(&self) -> Result<Vec<String>> {
        Ok(self.0.read(|world| world.requests.iter().cloned().collect()).await)
    }

    async fn request_snapshot(&self, table: &str) -> Result<()> {
        let table = table.to_owned();
        self.0.write(move |world| world.requests.insert(table)).await.map(|_| ())
    }

    async fn withdraw_snapshot_request(&self, table: &str) -> Result<()> {
        let table = table.to_owned();
        self.0.write(move |world| world.requests.remove(&table)).await.map(|_| ())
    }
}
