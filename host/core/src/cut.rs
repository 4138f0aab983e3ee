//! Cuts: everything, of every table, up to a commit boundary; and the builder by which a source fills one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{ChangeBatch, ChangeType};
use crate::builder::RowsBuilder;
use crate::error::Result;
use crate::position::{Order, Position, SourceKey};
use crate::schema::TableSchema;

/// What a batch holds at most. 1,000 rows: the boundary's fixed cost is 12 ns a row there, and a longer
/// batch gains nothing but memory.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    pub rows: usize,
    /// Of values. 4 MiB: a quarter of the 64 MiB that a plugin has, with its answer and copies.
    pub bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { rows: 1_000, bytes: 4 << 20 }
    }
}

/// The end of a cut: what the sink commits.
#[derive(Clone, Debug)]
pub struct Cut {
    /// From 1, for logs and metrics.
    pub number: u64,
    /// Where the source can start again after this cut. `None` where the cut ends inside a transaction
    /// (a part of one that exceeds the size limit) or is a snapshot: the record stays where it is.
    pub position: Option<Position>,
    /// The last change of each source table in this cut, counted at the source: what its sink tables store.
    pub last: BTreeMap<SourceKey, Order>,
    /// The source tables whose snapshot this cut completes, with the order that stands for it.
    pub snapshot: BTreeMap<SourceKey, Order>,
    /// Row images and bytes as read, before any stage.
    pub rows: u64,
    pub bytes: u64,
    /// Commit time of the last change, microseconds since 1970-01-01 UTC; 0 where there is none.
    pub commit_time: i64,
    /// The source has nothing more, ever.
    pub end: bool,
}

impl Cut {
    /// Whether code may change after this cut (I4): it is complete and ends a transaction.
    pub fn ends_transaction(&self) -> bool {
        self.position.is_some()
    }

    pub fn is_snapshot(&self) -> bool {
        !self.snapshot.is_empty()
    }
}

/// Where a source stands after filling a cut for a while.
#[derive(Clone, Debug)]
pub enum Boundary {
    /// In the middle of a transaction or of a snapshot; what is closed can move on meanwhile.
    Within,
    /// Everything up to here has been appended, and a transaction ends here.
    Commit(Position),
    /// Nothing in flight: the source's own place moved on without a change of ours (I12).
    Idle(Position),
    /// The snapshot of one table is complete; the cut ends here. The source appends nothing else to the
    /// cut of a snapshot.
    Snapshot { source: SourceKey, order: Order },
    /// A bounded source has been read to its end.
    End(Position),
}

/// Collects the changes of a cut, grouped by source table, and closes their batches.
///
/// Sources append to [`CutBuilder::table`] and say where they stand by [`Boundary`]; the engine takes the
/// closed batches and decides where the cut ends.
#[derive(Debug)]
pub struct CutBuilder {
    limits: BatchLimits,
    /// A handful to a few hundred tables: the last one used is tried first, then the list is scanned.
    open: Vec<(SourceKey, RowsBuilder)>,
    current: usize,
    closed: Vec<ChangeBatch>,
    last: BTreeMap<SourceKey, Order>,
    rows: u64,
    bytes: u64,
    commit_time: i64,
    /// Rows of a snapshot were appended.
    snapshot: bool,
}

impl CutBuilder {
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            open: Vec::new(),
            current: 0,
            closed: Vec::new(),
            last: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            commit_time: 0,
            snapshot: false,
        }
    }

    /// The builder of a source table at this schema version. Call it once a change, before `begin_change`: it closes
    /// the table's batch where it is full or of another version, so that the images of a change stay together.
    /// Tables are told apart by the identity of the `Arc`: keep one for each schema version.
    pub fn table(&mut self, source: &SourceKey, schema: &Arc<TableSchema>, snapshot: bool) -> Result<&mut RowsBuilder> {
        self.snapshot |= snapshot;
        let is_open = self.open.get(self.current).is_some_and(|(s, _)| s == source);
        if !is_open {
            self.current = match self.open.iter().position(|(s, _)| s == source) {
                Some(found) => found,
                None => {
                    let builder = RowsBuilder::new(source.clone(), schema.clone(), snapshot, self.limits.rows)?;
                    self.open.push((source.clone(), builder));
                    self.open.len() - 1
                }
            };
        }
        let index = self.current;
        let builder = &self.open[index].1;
        let full = builder.rows() >= self.limits.rows || builder.bytes() >= self.limits.bytes;
        let other = !Arc::ptr_eq(builder.schema(), schema) || builder.is_snapshot() != snapshot;
        if full || other {
            self.close(index)?;
        }
        if other {
            self.open[index].1 = RowsBuilder::new(source.clone(), schema.clone(), snapshot, self.limits.rows)?;
        }
        Ok(&mut self.open[index].1)
    }

    /// The table was emptied at this place.
    pub fn truncate(
        &mut self,
        source: &SourceKey,
        schema: &Arc<TableSchema>,
        order: Order,
        commit_time: i64,
    ) -> Result<()> {
        self.table(source, schema, false)?;
        let index = self.current;
        self.close(index)?;
        let builder = &mut self.open[index].1;
        builder.begin_change(order, commit_time);
        builder.begin_row(ChangeType::Truncate);
        for column in builder.columns() {
            column.append_unavailable();
        }
        self.close(index)
    }

    fn close(&mut self, index: usize) -> Result<()> {
        let (source, builder) = &mut self.open[index];
        let bytes = builder.bytes();
        if let Some(batch) = builder.finish()? {
            self.rows += batch.rows() as u64;
            self.bytes += bytes as u64;
            if let (Some(order), Some(time)) = (batch.origin.orders.last(), batch.origin.commit_times.last()) {
                match self.last.get_mut(source) {
                    Some(last) => *last = *order,
                    None => {
                        self.last.insert(source.clone(), *order);
                    }
                }
                self.commit_time = self.commit_time.max(*time);
            }
            self.closed.push(batch);
        }
        Ok(())
    }

    /// Row images of this cut so far, closed or not.
    pub fn rows(&self) -> u64 {
        self.rows + self.open.iter().map(|(_, b)| b.rows() as u64).sum::<u64>()
    }

    /// Bytes of this cut so far, closed or not.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.open.iter().map(|(_, b)| b.bytes() as u64).sum::<u64>()
    }

    /// Whether the rows of a snapshot are in it: such a cut ends with the snapshot and nowhere else (I9).
    pub fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    /// Batches that are closed and not yet taken: a source that has filled one may return [`Boundary::Within`].
    pub fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Takes the closed batches, in order.
    pub fn take_closed(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.closed)
    }

    /// Ends the cut: closes every batch and answers the rest of them with the cut, whose `number`, `position`,
    /// `snapshot` and `end` the caller fills in.
    pub fn finish(&mut self) -> Result<(Vec<ChangeBatch>, Cut)> {
        self.snapshot = false;
        for index in 0..self.open.len() {
            self.close(index)?;
        }
        let cut = Cut {
            number: 0,
            position: None,
            last: std::mem::take(&mut self.last),
            snapshot: BTreeMap::new(),
            rows: std::mem::take(&mut self.rows),
            bytes: std::mem::take(&mut self.bytes),
            commit_time: std::mem::take(&mut self.commit_time),
            end: false,
        };
        Ok((self.take_closed(), cut))
    }
}
