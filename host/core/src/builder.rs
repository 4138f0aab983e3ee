//! Typed column builders: sources decode straight into them, row by row, without a value type between.

use std::sync::{Arc, OnceLock};

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBufferBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow_buffer::BooleanBuffer;

use crate::batch::{ChangeBatch, ChangeType, Changes, Reject};
use crate::error::{Error, Result};
use crate::position::{Order, SourceKey};
use crate::schema::{ColumnType, TableSchema};

/// The builder of a column's cells: match on it to append a value of the column's type.
#[derive(Debug)]
pub enum Cells {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    /// Unscaled values.
    Decimal(Decimal128Builder),
    /// Also big decimals, JSON and other types as text.
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
    /// Days.
    Date(Date32Builder),
    /// Microseconds since midnight.
    Time(Time64MicrosecondBuilder),
    /// Microseconds, with and without zone.
    Timestamp(TimestampMicrosecondBuilder),
}

/// Runs `$body` with `$b` bound to the builder, whatever its type.
macro_rules! each_cells {
    ($cells:expr, $b:ident => $body:expr) => {
        match $cells {
            Cells::Boolean($b) => $body,
            Cells::Int16($b) => $body,
            Cells::Int32($b) => $body,
            Cells::Int64($b) => $body,
            Cells::UInt64($b) => $body,
            Cells::Float32($b) => $body,
            Cells::Float64($b) => $body,
            Cells::Decimal($b) => $body,
            Cells::Text($b) => $body,
            Cells::Binary($b) => $body,
            Cells::Uuid($b) => $body,
            Cells::Date($b) => $body,
            Cells::Time($b) => $body,
            Cells::Timestamp($b) => $body,
        }
    };
}

impl Cells {
    fn new(ty: &ColumnType, rows: usize) -> Result<Self> {
        Ok(match ty {
            ColumnType::Boolean => Cells::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::Int8 | ColumnType::Int16 => Cells::Int16(Int16Builder::with_capacity(rows)),
            ColumnType::Int32 => Cells::Int32(Int32Builder::with_capacity(rows)),
            ColumnType::Int64 => Cells::Int64(Int64Builder::with_capacity(rows)),
            ColumnType::UInt64 => Cells::UInt64(UInt64Builder::with_capacity(rows)),
            ColumnType::Float32 => Cells::Float32(Float32Builder::with_capacity(rows)),
            ColumnType::Float64 => Cells::Float64(Float64Builder::with_capacity(rows)),
            ColumnType::Decimal { precision, scale } => Cells::Decimal(
                Decimal128Builder::with_capacity(rows)
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(|e| Error::config("schema.decimal", e.to_string()))?,
            ),
            ColumnType::BigDecimal | ColumnType::Text | ColumnType::Json | ColumnType::Other(_) => {
                Cells::Text(StringBuilder::with_capacity(rows, rows * 16))
            }
            ColumnType::Binary => Cells::Binary(BinaryBuilder::with_capacity(rows, rows * 16)),
            ColumnType::Uuid => Cells::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            ColumnType::Date => Cells::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Time => Cells::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            ColumnType::Timestamp => Cells::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows)),
            ColumnType::TimestampTz => {
                Cells::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"))
            }
        })
    }

    pub fn append_null(&mut self) {
        each_cells!(self, b => b.append_null());
    }

    pub fn len(&self) -> usize {
        use arrow_array::builder::ArrayBuilder;
        each_cells!(self, b => b.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn finish(&mut self) -> ArrayRef {
        each_cells!(self, b => Arc::new(b.finish()))
    }
}

/// One column under construction: cells, and the bits of unavailable values (only where one occurs).
#[derive(Debug)]
pub struct ColumnBuilder {
    pub cells: Cells,
    unavailable: Option<BooleanBufferBuilder>,
}

impl ColumnBuilder {
    pub fn append_null(&mut self) {
        self.cells.append_null();
    }

    /// The source did not send the value, which is not NULL.
    pub fn append_unavailable(&mut self) {
        let row = self.cells.len();
        self.cells.append_null();
        let bits = self.unavailable.get_or_insert_with(|| BooleanBufferBuilder::new(row + 1));
        bits.append_n(row - bits.len(), false);
        bits.append(true);
    }

    fn finish(&mut self, rows: usize) -> (ArrayRef, Option<BooleanBuffer>) {
        let unavailable = self.unavailable.take().map(|mut bits| {
            bits.append_n(rows - bits.len(), false);
            bits.finish()
        });
        (self.cells.finish(), unavailable)
    }
}

/// Builds the batches of one source table at one schema version.
///
/// ```text
/// begin_change(order, commit_time); begin_row(Insert); append one cell to each column; end of row;
/// begin_row ...; begin_change ...
/// ```
#[derive(Debug)]
pub struct RowsBuilder {
    schema: Arc<TableSchema>,
    source: SourceKey,
    snapshot: bool,
    columns: Vec<ColumnBuilder>,
    change_types: Vec<ChangeType>,
    changes: Vec<u32>,
    orders: Vec<Order>,
    commit_times: Vec<i64>,
    rejects: Vec<Reject>,
    /// Bytes of the values appended, as the source counts them.
    bytes: usize,
    capacity: usize,
}

impl RowsBuilder {
    pub fn new(source: SourceKey, schema: Arc<TableSchema>, snapshot: bool, capacity: usize) -> Result<Self> {
        let columns = schema
            .columns
            .iter()
            .map(|c| Ok(ColumnBuilder { cells: Cells::new(&c.ty, capacity)?, unavailable: None }))
            .collect::<Result<_>>()?;
        Ok(Self {
            schema,
            source,
            snapshot,
            columns,
            change_types: Vec::with_capacity(capacity),
            changes: Vec::with_capacity(capacity),
            orders: Vec::with_capacity(capacity),
            commit_times: Vec::with_capacity(capacity),
            rejects: Vec::new(),
            bytes: 0,
            capacity,
        })
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    pub fn rows(&self) -> usize {
        self.change_types.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn last_order(&self) -> Option<Order> {
        self.orders.last().copied()
    }

    /// `commit_time`: microseconds since 1970-01-01 UTC.
    pub fn begin_change(&mut self, order: Order, commit_time: i64) {
        debug_assert!(self.orders.last().is_none_or(|last| *last < order), "orders ascend: {order}");
        self.orders.push(order);
        self.commit_times.push(commit_time);
    }

    /// A row image of the change begun last. Each column must then get exactly one cell.
    pub fn begin_row(&mut self, change_type: ChangeType) {
        self.change_types.push(change_type);
        self.changes.push(self.orders.len() as u32 - 1);
    }

    pub fn column(&mut self, index: usize) -> &mut ColumnBuilder {
        &mut self.columns[index]
    }

    pub fn columns(&mut self) -> &mut [ColumnBuilder] {
        &mut self.columns
    }

    /// Adds to the byte count by which batches are closed.
    pub fn count_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The change begun last can not be represented: it becomes a dead letter.
    pub fn reject(&mut self, code: &str, reason: impl Into<String>, column: Option<&str>) {
        let change = self.orders.len() as u32 - 1;
        if self.rejects.last().is_none_or(|r| r.change != change) {
            self.rejects.push(Reject {
                change,
                code: code.into(),
                reason: reason.into(),
                column: column.map(Into::into),
            });
        }
    }

    /// The batch so far, `None` where there is no row; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<Option<ChangeBatch>> {
        if self.change_types.is_empty() {
            return Ok(None);
        }
        let rows = self.change_types.len();
        let (columns, unavailable) = self.columns.iter_mut().map(|c| c.finish(rows)).unzip();
        let origin = Changes {
            source: self.source.clone(),
            snapshot: self.snapshot,
            orders: std::mem::replace(&mut self.orders, Vec::with_capacity(self.capacity)),
            commit_times: std::mem::replace(&mut self.commit_times, Vec::with_capacity(self.capacity)),
            rejects: std::mem::take(&mut self.rejects),
            keys: OnceLock::new(),
        };
        self.bytes = 0;
        let batch = ChangeBatch {
            schema: self.schema.clone(),
            origin: Arc::new(origin),
            change_types: std::mem::replace(&mut self.change_types, Vec::with_capacity(self.capacity)),
            changes: std::mem::replace(&mut self.changes, Vec::with_capacity(self.capacity)),
            columns,
            unavailable,
        };
        batch.check()?;
        Ok(Some(batch))
    }
}
