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

/// A run of row images of one table: the columns that the plan reads, in the plan's order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) rows: usize,
    pub(crate) change_types: Vec<u8>,
    pub(crate) columns: Vec<Column>,
}

impl From<types::Batch> for Batch {
    fn from(batch: types::Batch) -> Self {
        let columns = batch.columns.into_iter().map(Column).collect();
        Batch { rows: batch.rows as usize, change_types: batch.change_types, columns }
    }
}

/// A column that a plan reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input(pub(crate) usize);

/// All columns of a batch, looked at once.
pub(crate) struct Rows<'a> {
    readers: Vec<Reader<'a, Any>>,
    change_types: &'a [u8],
}

impl<'a> Rows<'a> {
    pub(crate) fn new(batch: &'a Batch, types: &[DataType]) -> Result<Self, Error> {
        let readers = batch.columns.iter().zip(types).map(|(c, ty)| Reader::new(c, ty)).collect::<Result<_, _>>()?;
        Ok(Rows { readers, change_types: &batch.change_types })
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
}
