//! Row view: one row image of a batch.

use crate::bindings::types;
use crate::cell::{Cell, Value};
use crate::column::{Any, Column, Reader};
use crate::error::Error;
use crate::schema::DataType;

/// What happened to a row, named as Delta's change data feed names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ChangeType {
    Insert,
    UpdatePreimage,
    UpdatePostimage,
    Delete,
    /// Of a later contract: to be kept as it is.
    Other(u8),
}

impl From<u8> for ChangeType {
    fn from(code: u8) -> Self {
        match code {
            1 => ChangeType::Insert,
            2 => ChangeType::UpdatePreimage,
            3 => ChangeType::UpdatePostimage,
            4 => ChangeType::Delete,
            code => ChangeType::Other(code),
        }
    }
}

impl ChangeType {
    pub(crate) fn code(self) -> u8 {
        match self {
            ChangeType::Insert => 1,
            ChangeType::UpdatePreimage => 2,
            ChangeType::UpdatePostimage => 3,
            ChangeType::Delete => 4,
            ChangeType::Other(code) => code,
        }
    }

    /// "insert", "update_preimage", "update_postimage", "delete"; what a later contract adds is "other".
    pub fn name(self) -> &'static str {
        match self {
            ChangeType::Insert => "insert",
            ChangeType::UpdatePreimage => "update_preimage",
            ChangeType::UpdatePostimage => "update_postimage",
            ChangeType::Delete => "delete",
            ChangeType::Other(_) => "other",
        }
    }
}

/// What the host knows of a row besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Ordered bytes of the place in the source, as [`Value::Binary`]; text that sorts as the source's order does.
    Position,
    /// When the source committed the change, as [`Value::TimestampTz`].
    CommitTime,
}

impl Meta {
    /// As the contract calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Meta::Position => "position",
            Meta::CommitTime => "commit-time",
        }
    }

    pub(crate) fn data_type(self) -> DataType {
        match self {
            Meta::Position => DataType::Binary,
            Meta::CommitTime => DataType::TimestampTz,
        }
    }
}

/// A run of row images of one table: the columns that the plan reads, in the plan's order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) rows: usize,
    pub(crate) snapshot: bool,
    pub(crate) change_types: Vec<u8>,
    pub(crate) meta: Vec<Column>,
    pub(crate) columns: Vec<Column>,
}

impl From<types::Batch> for Batch {
    fn from(batch: types::Batch) -> Self {
        let columns = |columns: Vec<types::Column>| columns.into_iter().map(Column).collect();
        Batch {
            rows: batch.rows as usize,
            snapshot: batch.snapshot,
            change_types: batch.change_types,
            meta: columns(batch.meta),
            columns: columns(batch.columns),
        }
    }
}

/// A column that a plan reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input(pub(crate) usize);

/// A [`Meta`] that a plan asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaInput(pub(crate) usize);

/// All columns of a batch, looked at once.
pub(crate) struct Rows<'a> {
    readers: Vec<Reader<'a, Any>>,
    meta: Vec<Reader<'a, Any>>,
    change_types: &'a [u8],
    snapshot: bool,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(batch: &'a Batch, types: &[DataType], meta: &[Meta]) -> Result<Self, Error> {
        let readers = batch.columns.iter().zip(types).map(|(c, ty)| Reader::new(c, ty)).collect::<Result<_, _>>()?;
        let meta = batch.meta.iter().zip(meta).map(|(c, m)| Reader::new(c, &m.data_type()));
        let meta = meta.collect::<Result<_, _>>()?;
        Ok(Rows { readers, meta, change_types: &batch.change_types, snapshot: batch.snapshot })
    }

    pub(crate) fn row(&self, index: usize) -> Row<'_, 'a> {
        Row { rows: self, index }
    }
}

/// One row image.
#[derive(Clone, Copy)]
pub struct Row<'r, 'a> {
    rows: &'r Rows<'a>,
    index: usize,
}

impl std::fmt::Debug for Row<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("index", &self.index).finish_non_exhaustive()
    }
}

impl<'a> Row<'_, 'a> {
    /// The cell of a column that the plan reads.
    pub fn get(&self, input: Input) -> Cell<Value<'a>> {
        self.rows.readers[input.0].get(self.index)
    }

    /// The cell of a text, JSON or text-decimal column; for another type as if it were NULL.
    pub fn text(&self, input: Input) -> Cell<&'a str> {
        match self.get(input) {
            Cell::Value(Value::Text(v) | Value::Json(v)) => Cell::Value(v),
            Cell::Value(Value::Decimal(crate::cell::Decimal::Text(v))) => Cell::Value(v),
            Cell::NotSent => Cell::NotSent,
            Cell::Value(_) | Cell::Null => Cell::Null,
        }
    }

    /// What happened to the row.
    pub fn change_type(&self) -> ChangeType {
        self.rows.change_types[self.index].into()
    }

    /// What the plan asked for by [`crate::TransformPlan::read_meta`].
    pub fn meta(&self, input: MetaInput) -> Cell<Value<'a>> {
        self.rows.meta[input.0].get(self.index)
    }

    /// Read by a snapshot, not from the stream of changes.
    pub fn is_snapshot(&self) -> bool {
        self.rows.snapshot
    }
}
