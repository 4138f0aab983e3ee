//! The cells that a plugin writes.

use crate::bindings::types::{self, Cells, FixedData, VarData};
use crate::cell::{Decimal, Value};
use crate::column::{Column, NOT_SENT, NULL, VALUE};
use crate::error::Reject;
use crate::schema::DataType;

/// The cells that a plugin writes, row after row. A row that is not set is NULL.
#[derive(Debug)]
pub struct Out {
    rows: usize,
    presence: Option<Vec<u8>>,
    cells: Cells,
    ty: DataType,
}

impl Out {
    /// `rows` cells of this type; `like` gives the room that variable ones probably take.
    pub(crate) fn new(ty: &DataType, rows: usize, like: Option<&Column>) -> Self {
        use DataType as T;
        let cells = match ty {
            T::Boolean => Cells::Bools(Vec::with_capacity(rows)),
            T::Int8 | T::Int16 | T::Int32 | T::Date => Cells::I32s(Vec::with_capacity(rows)),
            T::Int64 | T::UInt64 | T::Decimal64 { .. } | T::Time | T::Timestamp | T::TimestampTz => {
                Cells::I64s(Vec::with_capacity(rows))
            }
            T::Float32 => Cells::F32s(Vec::with_capacity(rows)),
            T::Float64 => Cells::F64s(Vec::with_capacity(rows)),
            T::Uuid => Cells::Fixed(FixedData { width: 16, data: Vec::with_capacity(16 * rows) }),
            T::Decimal { .. } | T::Text | T::Binary | T::Json | T::Other(_) => {
                let bytes = match like.map(|c| &c.0.cells) {
                    Some(Cells::Vars(v)) => v.data.len(),
                    _ => 16 * rows,
                };
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                Cells::Vars(VarData { offsets, data: Vec::with_capacity(bytes) })
            }
        };
        Out { rows: 0, presence: None, cells, ty: ty.clone() }
    }

    /// Of the column.
    pub fn data_type(&self) -> &DataType {
        &self.ty
    }

    /// Sets a text, JSON, decimal or binary cell by appending to it; may be called several times for a row.
    #[inline]
    pub fn push_str(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    /// As [`Out::push_str`], for bytes.
    #[inline]
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        match &mut self.cells {
            Cells::Vars(v) => v.data.extend_from_slice(bytes),
            Cells::Fixed(v) => v.data.extend_from_slice(bytes),
            _ => self.wrong("bytes"),
        }
    }

    /// Sets an integer, decimal64, date, time or timestamp cell.
    ///
    /// # Errors
    /// The value does not fit into the type: `int.overflow`.
    #[inline]
    pub fn set_int(&mut self, value: i64) -> Result<(), Reject> {
        match &mut self.cells {
            Cells::I64s(v) => v.push(value),
            Cells::I32s(v) => {
                let fits = match self.ty {
                    DataType::Int8 => i8::try_from(value).is_ok(),
                    DataType::Int16 => i16::try_from(value).is_ok(),
                    _ => true,
                };
                match i32::try_from(value) {
                    Ok(value) if fits => v.push(value),
                    _ => return Err(Reject::new("int.overflow", format!("{value} does not fit into {:?}", self.ty))),
                }
            }
            _ => self.wrong("an integer"),
        }
        Ok(())
    }

    /// Sets a float cell.
    pub fn set_float(&mut self, value: f64) {
        match &mut self.cells {
            Cells::F64s(v) => v.push(value),
            Cells::F32s(v) => v.push(value as f32),
            _ => self.wrong("a float"),
        }
    }

    /// Sets a boolean cell.
    pub fn set_bool(&mut self, value: bool) {
        match &mut self.cells {
            Cells::Bools(v) => v.push(u8::from(value)),
            _ => self.wrong("a boolean"),
        }
    }

    /// Sets a cell of any type.
    ///
    /// # Errors
    /// The value does not fit into the type: `int.overflow`.
    pub fn set(&mut self, value: Value<'_>) -> Result<(), Reject> {
        match value {
            Value::Bool(v) => self.set_bool(v),
            Value::Int(v) | Value::Time(v) => return self.set_int(v),
            Value::UInt(v) => return self.set_int(v as i64),
            Value::Float(v) => self.set_float(v),
            Value::Decimal(Decimal::Unscaled { unscaled, .. }) if matches!(self.cells, Cells::I64s(_)) => {
                return self.set_int(unscaled);
            }
            Value::Decimal(v) => self.push_str(&v.to_string()),
            Value::Text(v) | Value::Json(v) => self.push_str(v),
            Value::Binary(v) | Value::Other(v) => self.push_bytes(v),
            Value::Uuid(v) => self.push_bytes(&v.0),
            Value::Date(v) => return self.set_int(v.to_i32().map_or(i64::MAX, i64::from)),
            Value::Timestamp(v) | Value::TimestampTz(v) => return self.set_int(v.to_i64()),
        }
        Ok(())
    }

    /// Sets the cell to NULL.
    pub fn set_null(&mut self) {
        self.absent(NULL);
    }

    /// Says that the cell was not sent; allowed where the source had not sent it.
    pub fn set_not_sent(&mut self) {
        self.absent(NOT_SENT);
    }

    fn wrong(&self, what: &str) -> ! {
        panic!("the column is written as {what}, but is declared as {:?}", self.ty)
    }

    fn absent(&mut self, state: u8) {
        let rows = self.rows;
        let presence = self.presence.get_or_insert_with(|| vec![VALUE; rows]);
        presence.resize(rows, VALUE);
        presence.push(state);
    }

    /// Ends the row: closes a variable cell, and pads a fixed-size one that nobody set, which is NULL.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        let row = self.rows;
        self.rows += 1;
        let rows = self.rows;
        let set = match &mut self.cells {
            Cells::Vars(v) => {
                if self.presence.as_ref().is_some_and(|p| p.len() == rows) {
                    v.data.truncate(v.offsets[row] as usize);
                }
                v.offsets.push(v.data.len() as u32);
                true
            }
            Cells::I64s(v) => pad(v, rows, 0),
            Cells::I32s(v) => pad(v, rows, 0),
            Cells::F64s(v) => pad(v, rows, 0.0),
            Cells::F32s(v) => pad(v, rows, 0.0),
            Cells::Bools(v) => pad(v, rows, 0),
            Cells::Fixed(v) => pad(&mut v.data, rows * v.width as usize, 0),
        };
        if !set && self.presence.as_ref().is_none_or(|p| p.len() < rows) {
            let presence = self.presence.get_or_insert_with(|| vec![VALUE; row]);
            presence.resize(row, VALUE);
            presence.push(NULL);
        }
    }

    /// Forgets the rows from this one on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        if rows >= self.rows {
            return;
        }
        self.rows = rows;
        if let Some(presence) = &mut self.presence {
            presence.truncate(rows);
        }
        match &mut self.cells {
            Cells::Bools(v) => v.truncate(rows),
            Cells::I32s(v) => v.truncate(rows),
            Cells::I64s(v) => v.truncate(rows),
            Cells::F32s(v) => v.truncate(rows),
            Cells::F64s(v) => v.truncate(rows),
            Cells::Fixed(v) => v.data.truncate(rows * v.width as usize),
            Cells::Vars(v) => {
                v.offsets.truncate(rows + 1);
                v.data.truncate(v.offsets[rows] as usize);
            }
        }
    }

    pub(crate) fn finish(mut self) -> Column {
        let rows = self.rows;
        if let Some(presence) = &mut self.presence {
            presence.resize(rows, VALUE);
        }
        Column(types::Column { presence: self.presence, cells: self.cells })
    }
}

/// Makes a column `len` long; whether it was.
#[inline]
fn pad<T: Copy>(cells: &mut Vec<T>, len: usize, fill: T) -> bool {
    if cells.len() == len {
        return true;
    }
    let set = cells.len() > len;
    cells.resize(len, fill);
    set
}

impl std::fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push_str(text);
        Ok(())
    }
}
