//! The simulated tables and letters: put-if-absent logs, compare-and-set by the rule that the Delta sink uses.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_buffer::BooleanBuffer;
use async_trait::async_trait;

use super::stage::sink_halts;
use super::world::{Commit, Link, Row, World};
use crate::batch::ChangeBatch;
use crate::compare_and_set::{Head, Verdict, decide};
use crate::cut::Cut;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::letters;
use crate::pipeline::Mutant;
use crate::position::{Order, SourceKey};
use crate::quarantine;
use crate::schema::TableName;
use crate::sink::{Claim, Prepared, Refusal, Sink, Stored, StoredKeys, StoredLetter};

/// The value that this sink refuses.
pub(super) const REFUSED: char = 'q';

/// What this host believes a table to be.
#[derive(Clone, Debug, Default)]
struct View {
    version: usize,
    head: Head,
}

pub(super) struct SimSink {
    pub(super) link: Link,
    pub(super) mutant: Option<Mutant>,
    epoch: u64,
    views: BTreeMap<String, View>,
    staged: BTreeMap<String, Vec<Row>>,
    refused: Vec<ChangeBatch>,
    /// Of the cut under way.
    written: Vec<ChangeBatch>,
}

impl SimSink {
    pub(super) fn new(link: Link, mutant: Option<Mutant>) -> Self {
        Self {
            link,
            mutant,
            epoch: 0,
            views: BTreeMap::new(),
            staged: BTreeMap::new(),
            refused: Vec::new(),
            written: Vec::new(),
        }
    }

    fn decide(&self, found: &Head, continues_from: &Head) -> Verdict {
        match self.mutant {
            Some(Mutant::EpochNotCompared) => {
                decide(&Head { epoch: continues_from.epoch, ..found.clone() }, continues_from)
            }
            Some(Mutant::StoredLessThanMine) => {
                // Positions only have to be behind what is committed now.
                Verdict::Commit
            }
            _ => decide(found, continues_from),
        }
    }

    /// Takes note of what a table was read to be. A higher epoch lets go at any reading, also after a commit of ours that
    /// succeeded: the next put would land behind the other host's fence (I6).
    fn note(&mut self, table: &str, version: usize, head: Head) -> Result<()> {
        if head.epoch > self.epoch && self.mutant != Some(Mutant::EpochNotCompared) {
            return Err(Error::let_go("sim.fenced", format!("{table} has another owner")));
        }
        self.views.insert(table.to_string(), View { version, head });
        Ok(())
    }

    /// Commits at the version after the one that this host believes in, by rule 6.
    async fn commit_to(&mut self, table: &str, positions: BTreeMap<SourceKey, Order>, rows: Vec<Row>) -> Result<()> {
        let continues_from =
            Head { epoch: self.epoch, positions: self.views.get(table).cloned().unwrap_or_default().head.positions };
        let commit = Commit { id: self.link.env.random(), epoch: self.epoch, positions, rows };
        loop {
            let version = self.views.get(table).map_or(0, |v| v.version);
            let (name, put) = (table.to_string(), commit.clone());
            match self.link.write(move |world| world.put(&name, version, put)).await {
                Ok(true) => {}
                Ok(false) => {}
                Err(error) if error.kind == Kind::Retry => {}
                Err(error) => return Err(error),
            }
            // Whatever the answer was: what is there decides.
            let name = table.to_string();
            let commits = self.link.read(move |world| world.tables.get(&name).cloned().unwrap_or_default()).await;
            let done = commits.iter().any(|c| c.id == commit.id);
            let before: Vec<Commit> = commits.iter().take_while(|c| c.id != commit.id).cloned().collect();
            let found = super::world::head(if done { &before } else { &commits });
            if done {
                return self.note(table, commits.len(), super::world::head(&commits));
            }
            match self.decide(&found, &continues_from) {
                Verdict::Commit => self.views.entry(table.to_string()).or_default().version = commits.len(),
                Verdict::Reload => return Err(Error::reload("sim.moved", format!("{table} moved"))),
                Verdict::LetGo => return Err(Error::let_go("sim.fenced", format!("{table} has another owner"))),
            }
        }
    }

    async fn fence_table(&mut self, table: &str) -> Result<BTreeMap<SourceKey, Order>> {
        loop {
            let name = table.to_string();
            let (version, head) = self.link.read(move |world| world.head_of(&name)).await;
            self.note(table, version, head)?;
            match self.commit_to(table, BTreeMap::new(), Vec::new()).await {
                Ok(()) => break,
                // Somebody committed before our fence: look again.
                Err(error) if error.kind == Kind::Reload => {}
                Err(error) => return Err(error),
            }
        }
        let name = table.to_string();
        let (version, head) = self.link.read(move |world| world.head_of(&name)).await;
        let positions = head.positions.clone();
        self.note(table, version, head)?;
        Ok(positions)
    }

    fn positions(cut: &Cut, rows: &[Row], all: bool) -> BTreeMap<SourceKey, Order> {
        cut.last
            .iter()
            .filter(|(s, _)| all || rows.iter().any(|r| *r.source == *s.table))
            .map(|(s, o)| (s.clone(), *o))
            .collect()
    }
}

fn rows_of(batch: &ChangeBatch) -> Vec<Row> {
    let is_letter = &*batch.schema.name.table == letters::TABLE;
    (0..batch.rows())
        .map(|row| Row {
            source: batch.origin.source.table.to_string(),
            order: batch.order(row),
            change_type: batch.change_types[row] as u8,
            id: if is_letter { 0 } else { batch.columns[0].as_primitive::<Int64Type>().value(row) },
            // Of a letter: its keys.
            value: if is_letter {
                keys_of(batch, row)
            } else {
                batch.columns[1].as_string::<i32>().value(row).to_string()
            },
            version: if is_letter { 0 } else { batch.columns[2].as_primitive::<Int64Type>().value(row) },
        })
        .collect()
}

fn keys_of(letters: &ChangeBatch, row: usize) -> String {
    let column = letters.schema.columns.iter().position(|c| &*c.name == letters::KEYS);
    let cells = column.map(|at| letters.columns[at].as_string::<i32>());
    cells.filter(|cells| cells.is_valid(row)).map(|cells| cells.value(row).to_owned()).unwrap_or_default()
}

#[async_trait]
impl Sink for SimSink {
    async fn fence(&mut self, claim: &Claim) -> Result<Stored> {
        self.epoch = claim.epoch;
        self.staged.clear();
        self.refused.clear();
        self.written.clear();
        let mut stored = Stored::new();
        for table in &claim.tables {
            stored.insert(table.clone(), self.fence_table(&table.to_string()).await?);
        }
        Ok(stored)
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        let rows = rows_of(&batch);
        if rows.iter().any(|row| row.value.chars().next().is_some_and(|value| sink_halts(row.version, value))) {
            return Err(Error::halt_table("sim.sink_halts", "h"));
        }
        let refuses: Vec<bool> = rows
            .iter()
            .zip(&batch.change_types)
            .map(|(row, change_type)| {
                change_type.decides() && *change_type as u8 != 4 && row.value.starts_with(REFUSED)
            })
            .collect();
        if refuses.contains(&true) {
            let changes: BTreeSet<u32> =
                refuses.iter().zip(&batch.changes).filter(|(r, _)| **r).map(|(_, c)| *c).collect();
            let keep: BooleanBuffer = batch.changes.iter().map(|c| changes.contains(c)).collect();
            self.refused.push(batch.filter(&keep)?);
        }
        self.staged.entry(batch.schema.name.to_string()).or_default().extend(rows);
        self.written.push(batch);
        Ok(())
    }

    async fn prepare(&mut self, cut: &Cut) -> Result<Prepared> {
        self.link.pause().await;
        let mut refused = Vec::new();
        let (own, written) = (std::mem::take(&mut self.refused), std::mem::take(&mut self.written));
        let waits = quarantine::behind(&own.iter().collect::<Vec<_>>(), &written.iter().collect::<Vec<_>>())?;
        let codes = std::iter::repeat_n("sim.refused", own.len()).chain(std::iter::repeat(quarantine::WAITS));
        for (batch, code) in own.into_iter().chain(waits).zip(codes) {
            let gone: BTreeSet<Order> = (0..batch.rows()).map(|r| batch.order(r)).collect();
            for rows in self.staged.values_mut() {
                rows.retain(|r| *r.source != *batch.origin.source.table || !gone.contains(&r.order));
            }
            refused.push(Refusal { batch, code, reason: "q".into(), column: None });
        }
        self.staged.retain(|_, rows| !rows.is_empty());
        let new_tables = self.staged.keys().filter(|t| !self.views.contains_key(*t) && **t != letters::TABLE);
        let new_tables = new_tables.map(|t| TableName::new("", t.as_str())).collect();
        let manifest = cut.is_snapshot().then(|| {
            let parts: Vec<_> = self
                .staged
                .iter()
                .map(|(t, rows)| (t, rows, Self::positions(cut, rows, *t == letters::TABLE)))
                .collect();
            serde_json::to_string(&parts).unwrap_or_default()
        });
        Ok(Prepared { refused, new_tables, manifest })
    }

    async fn commit(&mut self, cut: &Cut) -> Result<()> {
        for (table, rows) in std::mem::take(&mut self.staged) {
            let positions = Self::positions(cut, &rows, table == letters::TABLE);
            self.commit_to(&table, positions, rows).await?;
        }
        Ok(())
    }

    async fn recommit(&mut self, manifest: &str) -> Result<()> {
        let parts: Vec<(String, Vec<Row>, BTreeMap<SourceKey, Order>)> =
            serde_json::from_str(manifest).map_err(|e| Error::bug(e.to_string()))?;
        for (table, rows, positions) in parts {
            if !self.views.contains_key(&table) {
                self.fence_table(&table).await?;
            }
            let stored = &self.views[&table].head.positions;
            if positions.iter().all(|(s, o)| stored.get(s).is_some_and(|at| at >= o)) {
                continue;
            }
            self.commit_to(&table, positions, rows).await?;
        }
        Ok(())
    }

    async fn stored_letters(&mut self, after: Option<Order>) -> Result<Vec<StoredLetter>> {
        let beyond = self.letters().await.into_iter().filter(|r| after.is_none_or(|a| r.order > a));
        Ok(beyond.map(stored_letter).collect())
    }

    async fn stored_keys(&mut self) -> Result<Vec<StoredKeys>> {
        let with_keys = self.letters().await.into_iter().filter(|r| !r.value.is_empty());
        let parsed = |row: Row| {
            let keys = serde_json::from_str(&row.value).map_err(|e| Error::bug(e.to_string()))?;
            Ok(StoredKeys { keys, letter: stored_letter(row) })
        };
        with_keys.map(parsed).collect()
    }
}

fn stored_letter(row: Row) -> StoredLetter {
    StoredLetter { source: SourceKey::new(row.source), order: row.order }
}

impl SimSink {
    async fn letters(&self) -> Vec<Row> {
        let rows = |world: &World| {
            let commits = world.tables.get(letters::TABLE).map_or(&[][..], Vec::as_slice);
            commits.iter().flat_map(|c| c.rows.clone()).collect()
        };
        self.link.read(rows).await
    }
}
