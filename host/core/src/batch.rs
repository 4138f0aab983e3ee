//! Change batches: what moves through a pipeline.

use std::sync::{Arc, OnceLock};

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow_buffer::BooleanBuffer;
use arrow_select::filter::FilterBuilder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::position::{Order, SourceKey};
use crate::quarantine::RowKeys;
use crate::schema::TableSchema;

/// What a row image is, named as Delta's change data feed names it. The numbers are the contract's
/// (`wit/`, `change-type`); `Truncate` never enters a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ChangeType {
    Insert = 1,
    UpdatePreimage = 2,
    UpdatePostimage = 3,
    Delete = 4,
    /// The table was emptied at its source; the one row of its batch has no values.
    Truncate = 5,
}

impl ChangeType {
    pub fn name(self) -> &'static str {
        match self {
            ChangeType::Insert => "insert",
            ChangeType::UpdatePreimage => "update_preimage",
            ChangeType::UpdatePostimage => "update_postimage",
            ChangeType::Delete => "delete",
            ChangeType::Truncate => "truncate",
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => ChangeType::Insert,
            2 => ChangeType::UpdatePreimage,
            3 => ChangeType::UpdatePostimage,
            4 => ChangeType::Delete,
            5 => ChangeType::Truncate,
            _ => return None,
        })
    }

    /// Whether this image decides the fate of its change: every one but the preimage.
    pub fn decides(self) -> bool {
        self != ChangeType::UpdatePreimage
    }
}

/// A refusal of one change, by the source's decoder, a stage or a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index into the [`Changes`] that the batch points to.
    pub change: u32,
    /// Stable, machine-readable: `decimal.overflow`.
    pub code: Arc<str>,
    pub reason: String,
    /// The column to blame.
    pub column: Option<Arc<str>>,
}

/// The changes that a batch was decoded from: one entry a change, however many row images it has. Shared
/// by every batch that stages make of it, so positions are stored once and survive filters, expansion and
/// routing.
#[derive(Clone, Debug)]
pub struct Changes {
    pub source: SourceKey,
    /// Read by a snapshot: all images are inserts.
    pub snapshot: bool,
    /// Ascending.
    pub orders: Vec<Order>,
    /// Microseconds since 1970-01-01 UTC.
    pub commit_times: Vec<i64>,
    /// Changes that the source itself could not represent (`type.numeric_nan`): they become dead letters
    /// before the first stage. The cell in question is null.
    pub rejects: Vec<Reject>,
    /// The keys of the rows as they came, where later changes of a key wait behind its letters (I15); set before the first
    /// stage.
    pub keys: OnceLock<RowKeys>,
}

/// Row images of one table at one schema version, in commit order. One row is one image.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    pub schema: Arc<TableSchema>,
    pub origin: Arc<Changes>,
    /// One a row.
    pub change_types: Vec<ChangeType>,
    /// One a row: index into `origin`; ascending. The images of a change stand together.
    pub changes: Vec<u32>,
    /// One array a column of `schema`, each as long as the batch.
    pub columns: Vec<ArrayRef>,
    /// One a column: set where the value is unavailable (unchanged TOAST, the non-key part of a key-only
    /// image), which is not NULL. `None`: every value is there. The cell beside a set bit is null.
    pub unavailable: Vec<Option<BooleanBuffer>>,
}

impl ChangeBatch {
    pub fn rows(&self) -> usize {
        self.change_types.len()
    }

    pub fn is_empty(&self) -> bool {
        self.change_types.is_empty()
    }

    pub fn order(&self, row: usize) -> Order {
        self.origin.orders[self.changes[row] as usize]
    }

    pub fn commit_time(&self, row: usize) -> i64 {
        self.origin.commit_times[self.changes[row] as usize]
    }

    pub fn is_truncate(&self) -> bool {
        self.change_types.first() == Some(&ChangeType::Truncate)
    }

    pub fn is_unavailable(&self, column: usize, row: usize) -> bool {
        self.unavailable[column].as_ref().is_some_and(|bits| bits.value(row))
    }

    /// Bytes of the column buffers.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|c| c.get_array_memory_size()).sum()
    }

    /// The rows whose bit is set, in order. Change types can be given anew by `retype`.
    pub fn filter(&self, keep: &BooleanBuffer) -> Result<ChangeBatch> {
        if keep.count_set_bits() == self.rows() {
            return Ok(self.clone());
        }
        // Made once for all columns: a predicate of its own for each costs as much as the copy.
        let mask = BooleanArray::new(keep.clone(), None);
        let predicate = FilterBuilder::new(&mask).optimize().build();
        let columns = self.columns.iter().map(|c| predicate.filter(c).map_err(arrow_bug)).collect::<Result<_>>()?;
        let rows: Vec<usize> = keep.set_indices().collect();
        Ok(ChangeBatch {
            schema: self.schema.clone(),
            origin: self.origin.clone(),
            change_types: rows.iter().map(|r| self.change_types[*r]).collect(),
            changes: rows.iter().map(|r| self.changes[*r]).collect(),
            columns,
            unavailable: self.unavailable.iter().map(|u| u.as_ref().map(|bits| pick(bits, &rows))).collect(),
        })
    }

    /// The rows of the changes for which `keep` holds, and the others.
    pub fn partition(&self, keep: impl Fn(u32) -> bool) -> Result<(ChangeBatch, ChangeBatch)> {
        let kept: BooleanBuffer = self.changes.iter().map(|change| keep(*change)).collect();
        Ok((self.filter(&kept)?, self.filter(&!&kept)?))
    }

    /// The given rows, in the given order; a row may be named several times.
    pub fn take(&self, rows: &[u32]) -> Result<ChangeBatch> {
        let indices = UInt32Array::from(rows.to_vec());
        let columns = self
            .columns
            .iter()
            .map(|c| arrow_select::take::take(c, &indices, None).map_err(arrow_bug))
            .collect::<Result<_>>()?;
        let positions: Vec<usize> = rows.iter().map(|r| *r as usize).collect();
        Ok(ChangeBatch {
            schema: self.schema.clone(),
            origin: self.origin.clone(),
            change_types: positions.iter().map(|r| self.change_types[*r]).collect(),
            changes: positions.iter().map(|r| self.changes[*r]).collect(),
            columns,
            unavailable: self.unavailable.iter().map(|u| u.as_ref().map(|bits| pick(bits, &positions))).collect(),
        })
    }

    /// The rows from `offset`, sharing the buffers.
    pub fn slice(&self, offset: usize, length: usize) -> ChangeBatch {
        ChangeBatch {
            schema: self.schema.clone(),
            origin: self.origin.clone(),
            change_types: self.change_types[offset..offset + length].to_vec(),
            changes: self.changes[offset..offset + length].to_vec(),
            columns: self.columns.iter().map(|c| c.slice(offset, length)).collect(),
            unavailable: self.unavailable.iter().map(|u| u.as_ref().map(|bits| bits.slice(offset, length))).collect(),
        }
    }

    /// Fails where the parts do not fit together: a bug of whoever built the batch.
    pub fn check(&self) -> Result<()> {
        let rows = self.rows();
        let fits = self.changes.len() == rows
            && self.columns.len() == self.schema.columns.len()
            && self.unavailable.len() == self.columns.len()
            && self.columns.iter().all(|c| c.len() == rows)
            && self.unavailable.iter().flatten().all(|u| u.len() == rows)
            && self.changes.windows(2).all(|w| w[0] <= w[1])
            && self.changes.iter().all(|c| (*c as usize) < self.origin.orders.len())
            && self.columns.iter().zip(&self.schema.columns).all(|(a, c)| *a.data_type() == c.ty.arrow());
        if fits { Ok(()) } else { Err(Error::bug(format!("a batch of {} does not fit its schema", self.schema.name))) }
    }
}

fn pick(bits: &BooleanBuffer, rows: &[usize]) -> BooleanBuffer {
    let mut picked = BooleanBufferBuilder::new(rows.len());
    for row in rows {
        picked.append(bits.value(*row));
    }
    picked.finish()
}

pub(crate) fn arrow_bug(error: arrow_schema::ArrowError) -> Error {
    Error::bug(error.to_string())
}
