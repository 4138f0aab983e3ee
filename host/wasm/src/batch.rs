//! A batch on its way into the sandbox: the columns that the plan reads, and what each row is.

use millrace_core::Result;
use millrace_core::batch::{ChangeBatch, ChangeType};

use crate::bindings::types::{Batch, ColumnParam};
use crate::plan::Planned;
use crate::project::Projected;

/// Everything that a call borrows.
#[derive(Debug)]
pub(crate) struct Shipment {
    schema: u32,
    partition: u32,
    snapshot: bool,
    change_types: Vec<u8>,
    changes: Option<Vec<u32>>,
    meta: Vec<Projected>,
    columns: Vec<Projected>,
}

impl Shipment {
    pub(crate) fn new(batch: &ChangeBatch, planned: &Planned) -> Result<Self> {
        let column = |at: &usize| {
            Projected::new(&batch.schema.columns[*at].ty, &batch.columns[*at], batch.unavailable[*at].as_ref())
        };
        Ok(Self {
            schema: planned.id,
            partition: batch.origin.source.partition,
            snapshot: batch.origin.snapshot,
            change_types: batch.change_types.iter().map(|t| *t as u8).collect(),
            changes: numbers(batch),
            meta: planned.meta.iter().map(|name| meta(batch, name)).collect(),
            columns: planned.reads.iter().map(column).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn params(&self) -> (Vec<ColumnParam<'_>>, Vec<ColumnParam<'_>>) {
        (self.meta.iter().map(Projected::param).collect(), self.columns.iter().map(Projected::param).collect())
    }

    pub(crate) fn batch<'a>(&'a self, meta: &'a [ColumnParam<'a>], columns: &'a [ColumnParam<'a>]) -> Batch<'a> {
        Batch {
            schema: self.schema,
            partition: self.partition,
            snapshot: self.snapshot,
            rows: self.change_types.len() as u32,
            change_types: &self.change_types,
            changes: self.changes.as_deref(),
            meta,
            columns,
        }
    }
}

pub(crate) fn meta(batch: &ChangeBatch, name: &str) -> Projected {
    let rows = 0..batch.rows();
    match name {
        "position" => Projected::of_texts(rows.map(|row| batch.order(row).to_sortable())),
        _ => Projected::of_i64s(rows.map(|row| batch.commit_time(row)).collect()),
    }
}

/// The number of the change of each row, from 0 without gaps. None, which costs a guest nothing: each row is a change of its own,
/// but for a preimage and the postimage right after it.
fn numbers(batch: &ChangeBatch) -> Option<Vec<u32>> {
    let pair = |row: usize| {
        batch.change_types[row - 1] == ChangeType::UpdatePreimage
            && batch.change_types[row] == ChangeType::UpdatePostimage
    };
    let usual = (1..batch.rows()).all(|row| (batch.changes[row] == batch.changes[row - 1]) == pair(row));
    if usual {
        return None;
    }
    let mut number = 0;
    let mut last = batch.changes.first().copied();
    let numbered = batch.changes.iter().map(|change| {
        if last != Some(*change) {
            number += 1;
            last = Some(*change);
        }
        number
    });
    Some(numbered.collect())
}
