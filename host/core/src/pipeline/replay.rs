//! What a start reads back from the tables decides what is judged, what is already there, and when code may change.

use std::collections::{BTreeMap, BTreeSet};

use arrow_buffer::BooleanBuffer;

use super::settings::Mutant;
use crate::batch::ChangeBatch;
use crate::error::Result;
use crate::position::{Order, Position, SourceKey};
use crate::record::Record;
use crate::schema::TableName;
use crate::sink::{Stored, StoredLetter};

#[derive(Debug)]
struct Front {
    order: Order,
    behind: BTreeSet<SourceKey>,
}

/// Positions and letters as stored at the last fence; pure bookkeeping, never waits.
#[derive(Debug)]
pub(super) struct Replay {
    tables: Stored,
    letters: BTreeSet<StoredLetter>,
    /// Up to where each source table's verdicts are settled: the furthest of its letters' position and of every table
    /// that it feeds (I5).
    settled: BTreeMap<SourceKey, Order>,
    /// Source tables of which everything up to an order is done: their snapshot holds it (I9), or it was done before they
    /// had to stand (I12).
    done: BTreeMap<SourceKey, Order>,
    /// Where only tables that are behind need to be read again: all others are done up to here.
    front: Option<Front>,
    /// The furthest commit that any stored position is at (I4).
    furthest: i64,
    mutant: Option<Mutant>,
}

impl Replay {
    pub(super) fn new(
        tables: Stored,
        letter_positions: &BTreeMap<SourceKey, Order>,
        letters: Vec<StoredLetter>,
        record: &Record,
        mutant: Option<Mutant>,
    ) -> Self {
        let tables = if mutant == Some(Mutant::PositionPerSinkTable) { one_position_a_table(tables) } else { tables };
        let mut settled = letter_positions.clone();
        for (source, order) in tables.values().flatten() {
            let at = settled.entry(source.clone()).or_insert(*order);
            *at = (*at).max(*order);
        }
        let furthest = settled.values().chain(record.snapshots.values()).map(Order::commit).max().unwrap_or(i64::MIN);
        let mut done = record.snapshots.clone();
        for (source, behind) in &record.behind {
            let after = behind.after.max(behind.from.as_ref().map(|from| from.order)).unwrap_or(Order::START);
            let at = done.entry(source.clone()).or_insert(after);
            *at = (*at).max(after);
        }
        let behind: BTreeSet<SourceKey> = record.behind.keys().cloned().collect();
        let front = record.position.as_ref().filter(|_| !behind.is_empty()).map(|p| Front { order: p.order, behind });
        Self { tables, letters: letters.into_iter().collect(), settled, done, front, furthest, mutant }
    }

    /// Where nothing was stored before: a new snapshot is judged as a whole.
    pub(super) fn of_nothing() -> Self {
        Self {
            tables: Stored::new(),
            letters: BTreeSet::new(),
            settled: BTreeMap::new(),
            done: BTreeMap::new(),
            front: None,
            furthest: i64::MIN,
            mutant: None,
        }
    }

    /// Up to where each source table's verdicts are settled.
    pub(super) fn settled(&self) -> &BTreeMap<SourceKey, Order> {
        &self.settled
    }

    /// Whether no stored position is beyond this place: then nothing that lies ahead was begun under other code (I4).
    pub(super) fn is_over(&self, position: &Position) -> bool {
        self.mutant == Some(Mutant::SwapInReplay) || position.order.commit() >= self.furthest
    }

    /// Whether a start at the record's position finds nothing that was begun and not finished: neither beyond the position
    /// nor of tables that are behind it.
    pub(super) fn is_over_at(&self, record: &Record) -> bool {
        let done = |source| self.settled.get(source).copied() <= self.done.get(source).copied();
        record.position.as_ref().is_some_and(|p| self.is_over(p)) && record.behind.keys().all(done)
    }

    /// A snapshot's cut is on its way to the tables: their positions will be there.
    pub(super) fn note_snapshot(&mut self, source: SourceKey, order: Order) {
        self.furthest = self.furthest.max(order.commit());
        self.done.insert(source, order);
    }

    /// Without the changes that the table's snapshot already holds (I9), and those that are read again for other tables
    /// alone (I12). `None`: nothing is left.
    pub(super) fn beyond_done(&self, batch: ChangeBatch) -> Option<ChangeBatch> {
        if batch.origin.snapshot {
            return Some(batch);
        }
        match self.done(&batch.origin.source) {
            Some(order) => beyond(batch, order),
            None => Some(batch),
        }
    }

    /// Up to where nothing of a table is to be done any more.
    pub(super) fn done(&self, source: &SourceKey) -> Option<Order> {
        self.done.get(source).copied().max(self.front_of(source))
    }

    /// Up to where a table is done only because others are read again.
    pub(super) fn front_of(&self, source: &SourceKey) -> Option<Order> {
        self.front.as_ref().filter(|front| !front.behind.contains(source)).map(|front| front.order)
    }

    /// The changes whose verdict may be settled, and those that are to be judged.
    pub(super) fn split(&self, batch: ChangeBatch) -> Vec<ChangeBatch> {
        if self.is_new(&batch) {
            return vec![batch];
        }
        let settled = self.settled.get(&batch.origin.source).copied().unwrap_or(Order::START);
        let first = batch.changes.partition_point(|change| batch.origin.orders[*change as usize] <= settled);
        parts(batch, first)
    }

    /// Without the rows that this sink table already holds. `None`: nothing is left.
    pub(super) fn not_yet_in(&self, table: &TableName, batch: ChangeBatch) -> Option<ChangeBatch> {
        match self.tables.get(table).and_then(|positions| positions.get(&batch.origin.source)) {
            Some(order) => beyond(batch, *order),
            None => Some(batch),
        }
    }

    /// Whether a verdict on this change may still be given.
    pub(super) fn is_judged(&self, source: &SourceKey, order: Order) -> bool {
        self.settled.get(source).is_none_or(|settled| order > *settled)
    }

    /// Whether every change of the batch is still to be judged: the fast way, which is every batch but the replayed.
    pub(super) fn is_new(&self, batch: &ChangeBatch) -> bool {
        batch.is_empty() || self.is_judged(&batch.origin.source, batch.order(0))
    }

    /// Whether this change is stored as a letter: then that is its verdict (I5).
    pub(super) fn is_letter(&self, source: &SourceKey, order: Order) -> bool {
        self.mutant != Some(Mutant::StoredLetterJudgedAgain)
            && self.letters.contains(&StoredLetter { source: source.clone(), order })
    }

    /// Without the rows of changes that are stored letters.
    pub(super) fn without_letters(&self, batch: ChangeBatch) -> Result<Option<ChangeBatch>> {
        let source = &batch.origin.source;
        let keep: BooleanBuffer = (0..batch.rows()).map(|row| !self.is_letter(source, batch.order(row))).collect();
        let batch = batch.filter(&keep)?;
        Ok((!batch.is_empty()).then_some(batch))
    }
}

/// A batch in two where neither part is empty.
pub(super) fn parts(batch: ChangeBatch, first: usize) -> Vec<ChangeBatch> {
    match batch.rows() - first {
        rest if rest == 0 || first == 0 => vec![batch],
        rest => vec![batch.slice(0, first), batch.slice(first, rest)],
    }
}

/// The rows beyond an order; orders ascend in a batch.
fn beyond(batch: ChangeBatch, order: Order) -> Option<ChangeBatch> {
    let rows = batch.rows();
    if rows > 0 && batch.order(0) > order {
        return Some(batch);
    }
    let first = batch.changes.partition_point(|change| batch.origin.orders[*change as usize] <= order);
    (first < rows).then(|| batch.slice(first, rows - first))
}

/// The mutant: whatever source table a row came from, the table has one position.
fn one_position_a_table(mut tables: Stored) -> Stored {
    let sources: BTreeSet<SourceKey> = tables.values().flat_map(|p| p.keys().cloned()).collect();
    for positions in tables.values_mut() {
        if let Some(most) = positions.values().max().copied() {
            *positions = sources.iter().map(|s| (s.clone(), most)).collect();
        }
    }
    tables
}
