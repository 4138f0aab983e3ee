//! Keeps the resume record: claims it, advances it, and knows when it belongs to another host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::stand::Halt;
use super::{HaltedTable, Pipeline};
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::position::{Order, Position, SourceKey};
use crate::record::{Behind, Create, Halted, Pending, Record, RecordStore};
use crate::schema::TableName;
use crate::sink::{Claim, Stored};
use crate::source::{Opened, Resume};
use crate::stage::StageSpec;

/// How often a write without an answer is looked for before the pipeline starts anew.
const LOOKS: u32 = 5;
/// Records kept behind the newest one: hours of history at the usual cadence.
const KEEP: u64 = 128;

#[derive(Clone)]
pub(super) struct Keeper {
    store: Arc<dyn RecordStore>,
    env: Arc<dyn Environment>,
    /// The number that this host last read or wrote.
    number: u64,
    /// What the next write will hold.
    record: Record,
    /// There was a record before this start.
    found: bool,
    written: Duration,
    /// As [`Opened::holds_log`].
    holds_log: bool,
}

impl Keeper {
    /// Reads the latest record, and waits until its lease may be taken (I13).
    pub(super) async fn open(pipeline: &Pipeline, exclusive: bool) -> Result<Self> {
        let Pipeline { name, instance, records: store, env, settings, sink, .. } = pipeline;
        let mut latest = store.latest().await?;
        let mut seen_since = env.monotonic();
        while let Some((number, bytes)) = &latest {
            let record = Record::parse(*number, bytes)?;
            let free = record.released || record.instance == *instance || exclusive || settings.take_over;
            if free || env.monotonic().saturating_sub(seen_since) >= settings.lease {
                break;
            }
            tracing::info!(pipeline = %name, owner = %record.instance, "waiting for the lease of another host");
            env.sleep(Duration::from_secs(1)).await;
            let now = store.latest().await?;
            if now.as_ref().map(|(n, _)| *n) != Some(*number) {
                seen_since = env.monotonic();
            }
            latest = now;
        }
        let fresh = Record {
            pipeline: name.clone(),
            epoch: 0,
            instance: instance.clone(),
            nonce: 0,
            written_at: 0,
            released: false,
            incarnation: None,
            position: None,
            tables: BTreeSet::new(),
            stages: Vec::new(),
            snapshots: BTreeMap::new(),
            pending: None,
            behind: BTreeMap::new(),
            stored: BTreeSet::new(),
            sink: None,
            source_tables: BTreeMap::new(),
        };
        let (number, found, before) = match &latest {
            Some((number, bytes)) => (*number, true, Record::parse(*number, bytes)?),
            None => (0, false, fresh),
        };
        if let Some(was) = before.sink.as_ref().filter(|was| *was != sink) {
            let what = format!("pipeline {name} writes to `{was}`, and is to write to `{sink}` now");
            return Err(Error::config("sink.changed", what)
                .hint("its tables would begin without what is in the others: put path and mode back, or give the pipeline a new name"));
        }
        let sink = Some(sink.clone());
        let record = Record { instance: instance.clone(), nonce: env.random(), released: false, sink, ..before };
        let written = env.monotonic();
        Ok(Self { store: store.clone(), env: env.clone(), number, record, found, written, holds_log: false })
    }

    /// Whether the record is still the one that was read.
    pub(super) async fn is_current(&self) -> Result<bool> {
        Ok(self.store.latest().await?.map_or(0, |(number, _)| number) == self.number)
    }

    /// A snapshot that is staged and recorded counts as complete: it is finished before anything is read (I9).
    pub(super) fn resume(&self) -> Resume {
        let mut snapshots = self.record.snapshots.clone();
        snapshots.extend(self.halted().map(|source| (source.clone(), Order::END)));
        snapshots.extend(self.record.pending.iter().flat_map(|p| p.snapshot.clone()));
        let position = self.record.resume_position().cloned();
        let tables = self.record.source_tables.clone();
        Resume { position, incarnation: self.record.incarnation.clone(), snapshots, tables }
    }

    /// Source tables that stand.
    pub(super) fn halted(&self) -> impl Iterator<Item = &SourceKey> {
        self.record.behind.iter().filter(|(_, b)| b.halted.is_some()).map(|(source, _)| source)
    }

    /// The same, with why.
    pub(super) fn halted_tables(&self) -> BTreeMap<SourceKey, HaltedTable> {
        let told = |(source, behind): (&SourceKey, &Behind)| {
            let Halted { code, reason, .. } = behind.halted.clone()?;
            Some((source.clone(), HaltedTable { code, reason, needs_snapshot: behind.from.is_none() }))
        };
        self.record.behind.iter().filter_map(told).collect()
    }

    /// Takes note of sink tables that hold positions.
    ///
    /// Errors: `position.gap` where one of them holds none any more.
    pub(super) fn check_stored(&mut self, found: &Stored) -> Result<()> {
        for (table, positions) in found {
            if !positions.is_empty() {
                self.record.stored.insert(table.clone());
            } else if self.record.stored.contains(table) {
                let what = format!("table {table} of the sink held rows of this pipeline, and is empty or gone");
                return Err(Error::halt("position.gap", what)
                    .hint("restore it (its rows were acknowledged to the source), or start under a new pipeline name, with tables of its own"));
            }
        }
        Ok(())
    }

    pub(super) fn note_stored(&mut self, tables: impl Iterator<Item = TableName>) {
        self.record.stored.extend(tables);
    }

    /// Tables that stand are tried again, by the next start at the latest.
    pub(super) fn try_again(&mut self) {
        self.halted().for_each(|source| self.show_halted(source, 0.0));
        self.record.try_again();
    }

    /// Source tables that stand until a new snapshot of them is taken.
    pub(super) fn to_snapshot(&self) -> impl Iterator<Item = &SourceKey> {
        self.record.behind.iter().filter(|(_, b)| b.resnapshot).map(|(source, _)| source)
    }

    /// Whether nothing that was begun of a table would be read again: it stands, or everything up to where its verdicts are
    /// given (`passed`) is stored.
    pub(super) fn is_over_of(&self, table: &str, passed: &BTreeMap<SourceKey, Order>) -> bool {
        let source = SourceKey::new(table);
        match self.record.behind.get(&source) {
            Some(behind) => behind.halted.is_some(),
            None => passed.get(&source).copied() <= self.stored_of(&source),
        }
    }

    /// Up to where everything of a table is stored, as far as the record knows.
    pub(super) fn stored_of(&self, source: &SourceKey) -> Option<Order> {
        let snapshot = self.record.snapshots.get(source).copied();
        let position = self.record.position.as_ref().map(|position| position.order);
        match self.record.behind.get(source) {
            Some(behind) => behind.after.max(behind.from.as_ref().map(|from| from.order)).max(snapshot),
            None => position.max(snapshot),
        }
    }

    /// A table stands from what is committed now until a new snapshot of it is taken, beside the stream.
    ///
    /// Errors: `resnapshot.refused` where that can not be.
    pub(super) fn stand_for_snapshot(&mut self, table: &str) -> Result<()> {
        let source = SourceKey::new(table);
        let refused =
            |why: &str| Err(Error::config("resnapshot.refused", format!("no new snapshot of {table}: {why}")));
        if !self.record.snapshots.contains_key(&source) {
            return refused("it is no table of this pipeline's source, or has no snapshot yet");
        }
        let before = self.record.behind.get(&source);
        let Some(from) = before.map_or_else(|| self.record.position.clone(), |b| b.from.clone()) else {
            return refused("the source does not hold its changes any more: it gets one at the next start");
        };
        let after = before.and_then(|b| b.after);
        let reason = "a new snapshot of it is being taken".to_owned();
        let halted = Some(Halted { code: "table.resnapshot".into(), reason, at: self.env.now() });
        self.record.behind.insert(source.clone(), Behind { from: Some(from), after, halted, resnapshot: true });
        self.show_halted(&source, 1.0);
        Ok(())
    }

    /// It goes on from there.
    pub(super) fn stand_no_more(&mut self, source: &SourceKey) {
        if let Some(behind) = self.record.behind.get_mut(source) {
            (behind.halted, behind.resnapshot) = (None, false);
        }
        self.show_halted(source, 0.0);
    }

    fn show_halted(&self, source: &SourceKey, value: f64) {
        let pipeline = self.record.pipeline.clone();
        metrics::gauge!("millrace_table_halted", "pipeline" => pipeline, "table" => source.table.to_string())
            .set(value);
    }

    /// A table stands from here on: what is stored of it, and where it goes on once it is tried again.
    pub(super) fn halt(&mut self, halt: &Halt) {
        let before = self.record.behind.get(&halt.source);
        let from = before.map_or_else(|| self.record.position.clone(), |b| b.from.clone());
        let from = from.filter(|_| !halt.in_snapshot);
        let after = halt.after.max(before.and_then(|b| b.after)).filter(|_| from.is_some());
        let reason = halt.error.to_string();
        let halted = Some(Halted { code: halt.error.code.into(), reason, at: self.env.now() });
        self.record.behind.insert(halt.source.clone(), Behind { from, after, halted, resnapshot: false });
        self.show_halted(&halt.source, 1.0);
    }

    /// Lets go of tables that stand and hold back more of the source's log than they may (I12).
    pub(super) fn let_go_of_log(&mut self, budget: u64) {
        let Some(front) = self.record.position.as_ref().filter(|_| self.holds_log).map(|p| p.order.commit()) else {
            return;
        };
        for (source, behind) in self.record.behind.iter_mut().filter(|(_, b)| b.halted.is_some()) {
            let held = behind.from.as_ref().map_or(0, |from| front.abs_diff(from.order.commit()));
            if held > budget {
                behind.from = None;
                behind.after = None;
                behind.resnapshot = false;
                self.record.snapshots.remove(source);
                let pipeline = &self.record.pipeline;
                tracing::error!(%pipeline, table = %source, held, budget, "the table stands for too long: it needs a new snapshot");
            }
        }
    }

    /// Takes the next epoch: from here on the number after ours is this host's (I13). `stages` are put in force
    /// where the pipeline never ran.
    pub(super) async fn claim(&mut self, opened: &Opened, stages: &[StageSpec]) -> Result<()> {
        if let Some(before) = &self.record.incarnation
            && *before != opened.incarnation
        {
            return Err(Error::halt(
                "position.gap",
                format!("the source is now {}, and the resume record was made from {before}", opened.incarnation),
            )
            .hint("positions of two histories can not be compared: check that this is the right server, then start with a new pipeline name or remove the record and the tables"));
        }
        if !self.found {
            self.record.stages = stages.to_vec();
        }
        self.holds_log = opened.holds_log;
        if let Some(tables) = &opened.tables {
            self.record.read_tables(tables, &opened.gaps);
        }
        self.record.epoch += 1;
        self.record.incarnation = Some(opened.incarnation.clone());
        self.record.position.get_or_insert_with(|| opened.start.clone());
        match self.write().await {
            Err(error) if error.kind == Kind::LetGo => {
                Err(Error::reload("record.claimed", "another host claimed the pipeline at the same moment"))
            }
            other => other,
        }
    }

    pub(super) fn claimed(&self) -> Claim {
        Claim {
            pipeline: self.record.pipeline.clone(),
            incarnation: self.record.incarnation.clone().unwrap_or_default(),
            epoch: self.record.epoch,
            tables: self.record.tables.clone(),
        }
    }

    /// The same for the letters' own sink.
    pub(super) fn claimed_letters(&self) -> Claim {
        Claim { tables: [TableName::new("", crate::letters::TABLE)].into(), ..self.claimed() }
    }

    pub(super) fn was_found(&self) -> bool {
        self.found
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn store(&self) -> &Arc<dyn RecordStore> {
        &self.store
    }

    /// Everything up to here is in the tables; written at the record's own cadence.
    pub(super) fn advance(&mut self, position: &Position) {
        self.record.advance(position);
    }

    /// Names enter the record before the tables exist (I13). Answers whether a write is needed.
    pub(super) fn add_tables(&mut self, tables: &BTreeSet<TableName>) -> bool {
        let before = self.record.tables.len();
        self.record.tables.extend(tables.iter().cloned());
        self.record.tables.len() > before
    }

    pub(super) fn set_pending(&mut self, pending: Option<Pending>) {
        self.record.pending = pending;
    }

    pub(super) fn complete_snapshot(&mut self, snapshot: &BTreeMap<SourceKey, Order>) {
        snapshot.keys().for_each(|source| self.show_halted(source, 0.0));
        self.record.complete_snapshot(snapshot);
    }

    pub(super) fn set_stages(&mut self, stages: Vec<StageSpec>) {
        self.record.stages = stages;
    }

    pub(super) fn release(&mut self) {
        self.record.released = true;
    }

    /// Whether the record's cadence asks for a write; an unchanged one is renewed for its lease.
    pub(super) fn is_due(&self, interval: Duration) -> bool {
        self.env.monotonic().saturating_sub(self.written) >= interval
    }

    /// Writes the next number: the one after what this host last read or wrote (I3).
    ///
    /// Errors: `LetGo` where another host took the number; `Retry` where the store does not answer.
    pub(super) async fn write(&mut self) -> Result<()> {
        let number = self.number + 1;
        self.record.written_at = self.env.now();
        let bytes = serde_json::to_vec(&self.record).map_err(|e| Error::bug(format!("resume record: {e}")))?;
        self.create(number, &bytes).await?;
        self.number = number;
        self.written = self.env.monotonic();
        if number.is_multiple_of(KEEP) {
            self.store.prune(number - KEEP).await?;
        }
        Ok(())
    }

    async fn create(&self, number: u64, bytes: &[u8]) -> Result<()> {
        let mut last = None;
        for _ in 0..LOOKS {
            match self.store.create(number, bytes).await {
                Ok(Create::Created) => return Ok(()),
                Ok(Create::Taken) => {}
                Err(error) if error.kind == Kind::Retry => last = Some(error),
                Err(error) => return Err(error),
            }
            // No answer, or taken: what is there decides, before any further commit.
            match self.store.read(number).await {
                Ok(Some(found)) if found == bytes => return Ok(()),
                Ok(Some(_)) => {
                    return Err(Error::let_go(
                        "record.taken",
                        format!("resume record {number} was written by another host"),
                    ));
                }
                Ok(None) => {}
                Err(error) if error.kind == Kind::Retry => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last
            .unwrap_or_else(|| Error::retry("record.unanswered", format!("resume record {number} can not be written"))))
    }
}
