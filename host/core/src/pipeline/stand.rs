//! Source tables that have to stand while the others go on (I12): what is said of one, and where the sink stopped.

use std::collections::BTreeMap;

use super::replay::parts;
use crate::batch::ChangeBatch;
use crate::error::Error;
use crate::position::{Order, SourceKey};

/// A source table that has to stand.
#[derive(Clone, Debug)]
pub(super) struct Halt {
    pub source: SourceKey,
    /// The last of its changes that passed.
    pub after: Option<Order>,
    pub in_snapshot: bool,
    pub error: Error,
}

/// The changes that the sink could not take, by source table: the first of them, and why. What came before may belong to
/// a cut that was begun (I4), so it is committed first: the stages of the start that follows let their tables stand there.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops(BTreeMap<SourceKey, (Order, Error)>);

impl Stops {
    pub(super) fn note(&mut self, source: SourceKey, first: Order, error: Error) {
        self.0.insert(source, (first, error));
    }

    /// The table stands, and that is recorded.
    pub(super) fn is_recorded(&mut self, source: &SourceKey) {
        self.0.remove(source);
    }

    /// Without those that another host got beyond meanwhile, with its batches cut otherwise.
    pub(super) fn beyond(mut self, settled: &BTreeMap<SourceKey, Order>) -> Self {
        self.0.retain(|source, (first, _)| settled.get(source).is_none_or(|settled| *first > *settled));
        self
    }

    /// New code: what it makes of the same changes is another thing.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Why a batch can not go on, where it begins at such a place.
    pub(super) fn at(&self, batch: &ChangeBatch) -> Option<Error> {
        let (first, error) = self.0.get(&batch.origin.source)?;
        (batch.rows() > 0 && batch.order(0) >= *first && !batch.origin.snapshot).then(|| error.clone())
    }

    /// What lies before such a place, and what begins there.
    pub(super) fn split(&self, batch: ChangeBatch) -> Vec<ChangeBatch> {
        let Some((stop, _)) = self.0.get(&batch.origin.source) else { return vec![batch] };
        let before = batch.changes.partition_point(|change| batch.origin.orders[*change as usize] < *stop);
        parts(batch, before)
    }
}
