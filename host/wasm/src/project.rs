//! A column on its way into the sandbox: Arrow's buffers as they are, wherever the contract's layout is the same.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use millrace_core::schema::ColumnType;
use millrace_core::{Error, Result};

use crate::bindings::types::{CellsParam, ColumnParam, FixedDataParam, VarDataParam};
use crate::schema::decimal_text;

const NULL: u8 = 0;
const VALUE: u8 = 1;
const NOT_SENT: u8 = 2;

/// A column in the contract's layout: shared with Arrow, or made for the call.
#[derive(Debug)]
pub(crate) struct Projected {
    presence: Option<Vec<u8>>,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Bools(Vec<u8>),
    I32s(ScalarBuffer<i32>),
    I64s(ScalarBuffer<i64>),
    F32s(ScalarBuffer<f32>),
    F64s(ScalarBuffer<f64>),
    Vars { offsets: ScalarBuffer<u32>, data: Buffer },
    Fixed { width: u32, data: Buffer },
}

impl Projected {
    /// `array` has the Arrow type of `ty`; a set bit of `unavailable` says "not sent".
    pub(crate) fn new(ty: &ColumnType, array: &ArrayRef, unavailable: Option<&BooleanBuffer>) -> Result<Self> {
        let nulls = array.nulls().filter(|n| n.null_count() > 0);
        let presence = presence(array.len(), nulls, unavailable);
        Ok(Self { presence, cells: cells(ty, array, nulls)? })
    }

    /// A column of its own making: meta.
    pub(crate) fn of_i64s(values: Vec<i64>) -> Self {
        Self { presence: None, cells: Cells::I64s(values.into()) }
    }

    /// A column of its own making: meta.
    pub(crate) fn of_texts(texts: impl Iterator<Item = String>) -> Self {
        let (mut offsets, mut data) = (vec![0], Vec::new());
        for text in texts {
            data.extend_from_slice(text.as_bytes());
            offsets.push(data.len() as u32);
        }
        Self { presence: None, cells: Cells::Vars { offsets: offsets.into(), data: Buffer::from_vec(data) } }
    }

    /// A column of bytes without a value in any row.
    pub(crate) fn absent(rows: usize) -> Self {
        let cells = Cells::Vars { offsets: vec![0; rows + 1].into(), data: Buffer::from_vec(Vec::<u8>::new()) };
        Self { presence: Some(vec![NULL; rows]), cells }
    }

    pub(crate) fn param(&self) -> ColumnParam<'_> {
        let cells = match &self.cells {
            Cells::Bools(v) => CellsParam::Bools(v),
            Cells::I32s(v) => CellsParam::I32s(v),
            Cells::I64s(v) => CellsParam::I64s(v),
            Cells::F32s(v) => CellsParam::F32s(v),
            Cells::F64s(v) => CellsParam::F64s(v),
            Cells::Vars { offsets, data } => CellsParam::Vars(VarDataParam { offsets, data }),
            Cells::Fixed { width, data } => CellsParam::Fixed(FixedDataParam { width: *width, data }),
        };
        ColumnParam { presence: self.presence.as_deref(), cells }
    }
}

/// Bytes that a row of this column takes in the sandbox.
pub(crate) fn row_bytes(ty: &ColumnType, array: &ArrayRef, row: usize) -> usize {
    // One byte of presence, four of offset.
    match ty {
        ColumnType::Boolean => 2,
        ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Float32 | ColumnType::Date => 5,
        ColumnType::Decimal { .. } => 45,
        ColumnType::Uuid => 17,
        ColumnType::BigDecimal | ColumnType::Text | ColumnType::Json | ColumnType::Other(_) => {
            5 + array.as_string::<i32>().value_length(row) as usize
        }
        ColumnType::Binary => 5 + array.as_binary::<i32>().value_length(row) as usize,
        ColumnType::Int64
        | ColumnType::UInt64
        | ColumnType::Float64
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz => 9,
    }
}

/// Bytes of all rows: what [`row_bytes`] sums up to, without looking at each.
pub(crate) fn column_bytes(ty: &ColumnType, array: &ArrayRef) -> usize {
    let rows = array.len();
    let vars = |offsets: &OffsetBuffer<i32>| (offsets[rows] - offsets[0]) as usize + 5 * rows;
    match ty {
        ColumnType::BigDecimal | ColumnType::Text | ColumnType::Json | ColumnType::Other(_) => {
            vars(array.as_string::<i32>().offsets())
        }
        ColumnType::Binary => vars(array.as_binary::<i32>().offsets()),
        fixed => rows * if rows == 0 { 0 } else { row_bytes(fixed, array, 0) },
    }
}

fn presence(rows: usize, nulls: Option<&NullBuffer>, unavailable: Option<&BooleanBuffer>) -> Option<Vec<u8>> {
    let unavailable = unavailable.filter(|bits| bits.count_set_bits() > 0);
    if nulls.is_none() && unavailable.is_none() {
        return None;
    }
    let mut presence = vec![VALUE; rows];
    if let Some(nulls) = nulls {
        for (state, valid) in presence.iter_mut().zip(nulls.inner()) {
            *state = if valid { VALUE } else { NULL };
        }
    }
    if let Some(bits) = unavailable {
        bits.set_indices().for_each(|row| presence[row] = NOT_SENT);
    }
    Some(presence)
}

fn cells(ty: &ColumnType, array: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<Cells> {
    Ok(match ty {
        ColumnType::Boolean => {
            let values = array.as_boolean().values();
            let value = |(row, bit): (usize, bool)| u8::from(bit && nulls.is_none_or(|n| n.is_valid(row)));
            Cells::Bools(values.iter().enumerate().map(value).collect())
        }
        ColumnType::Int8 | ColumnType::Int16 => {
            let values = zeroed(primitive::<Int16Type>(array), nulls);
            Cells::I32s(values.iter().map(|v| i32::from(*v)).collect())
        }
        ColumnType::Int32 => Cells::I32s(zeroed(primitive::<Int32Type>(array), nulls)),
        ColumnType::Date => Cells::I32s(zeroed(primitive::<Date32Type>(array), nulls)),
        ColumnType::Int64 => Cells::I64s(zeroed(primitive::<Int64Type>(array), nulls)),
        ColumnType::Time => Cells::I64s(zeroed(primitive::<Time64MicrosecondType>(array), nulls)),
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            Cells::I64s(zeroed(primitive::<TimestampMicrosecondType>(array), nulls))
        }
        ColumnType::UInt64 => {
            let values = zeroed(primitive::<UInt64Type>(array), nulls);
            let rows = values.len();
            // The same bits: two's complement.
            Cells::I64s(ScalarBuffer::new(values.into_inner(), 0, rows))
        }
        ColumnType::Float32 => Cells::F32s(zeroed(primitive::<Float32Type>(array), nulls)),
        ColumnType::Float64 => Cells::F64s(zeroed(primitive::<Float64Type>(array), nulls)),
        ColumnType::Decimal { precision, scale } => decimals(*precision, *scale, array, nulls)?,
        ColumnType::BigDecimal | ColumnType::Text | ColumnType::Json | ColumnType::Other(_) => {
            let text = array.as_string::<i32>();
            vars(text.offsets(), text.values(), nulls)
        }
        ColumnType::Binary => {
            let binary = array.as_binary::<i32>();
            vars(binary.offsets(), binary.values(), nulls)
        }
        ColumnType::Uuid => {
            let uuids = array.as_fixed_size_binary();
            let width = uuids.value_length().unsigned_abs();
            Cells::Fixed { width, data: fixed(uuids.value_data(), width as usize, array.len(), nulls) }
        }
    })
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> &ScalarBuffer<T::Native> {
    array.as_primitive::<T>().values()
}

/// What stands beside a null may be anything in Arrow; a plugin sees 0, so that nothing leaks and every run is the same.
fn zeroed<T: ArrowNativeType>(values: &ScalarBuffer<T>, nulls: Option<&NullBuffer>) -> ScalarBuffer<T> {
    let zero = T::default();
    let Some(nulls) = nulls else { return values.clone() };
    if (!nulls.inner()).set_indices().all(|row| values[row] == zero) {
        return values.clone();
    }
    values.iter().enumerate().map(|(row, v)| if nulls.is_valid(row) { *v } else { zero }).collect()
}

fn decimals(precision: u8, scale: i8, array: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<Cells> {
    let values = zeroed(primitive::<Decimal128Type>(array), nulls);
    if precision <= 18 {
        let narrow =
            |v: &i128| i64::try_from(*v).map_err(|_| Error::bug(format!("{v} has more than {precision} digits")));
        return Ok(Cells::I64s(values.iter().map(narrow).collect::<Result<Vec<_>>>()?.into()));
    }
    let (mut offsets, mut text) = (Vec::with_capacity(values.len() + 1), String::with_capacity(24 * values.len()));
    offsets.push(0);
    for (row, value) in values.iter().enumerate() {
        if nulls.is_none_or(|n| n.is_valid(row)) {
            decimal_text(*value, scale, &mut text);
        }
        offsets.push(text.len() as u32);
    }
    Ok(Cells::Vars { offsets: offsets.into(), data: Buffer::from_vec(text.into_bytes()) })
}

fn vars(offsets: &OffsetBuffer<i32>, data: &Buffer, nulls: Option<&NullBuffer>) -> Cells {
    let rows = offsets.len() - 1;
    let (first, last) = (offsets[0] as usize, offsets[rows] as usize);
    let empty_beside_null = |n: &NullBuffer| (!n.inner()).set_indices().all(|row| offsets[row] == offsets[row + 1]);
    if !nulls.is_none_or(empty_beside_null) {
        return without_hidden(offsets, data, nulls);
    }
    let data = data.slice_with_length(first, last - first);
    let offsets = match first {
        // The same bits: no offset of Arrow's is negative.
        0 => ScalarBuffer::new(offsets.inner().inner().clone(), 0, rows + 1),
        first => offsets.iter().map(|offset| *offset as u32 - first as u32).collect(),
    };
    Cells::Vars { offsets, data }
}

/// Cells without those bytes that stand beside a null.
fn without_hidden(offsets: &OffsetBuffer<i32>, data: &Buffer, nulls: Option<&NullBuffer>) -> Cells {
    let (mut kept, mut ends) = (Vec::with_capacity(data.len()), Vec::with_capacity(offsets.len()));
    ends.push(0);
    for (row, ends_of) in offsets.windows(2).enumerate() {
        if nulls.is_none_or(|n| n.is_valid(row)) {
            kept.extend_from_slice(&data[ends_of[0] as usize..ends_of[1] as usize]);
        }
        ends.push(kept.len() as u32);
    }
    Cells::Vars { offsets: ends.into(), data: Buffer::from_vec(kept) }
}

fn fixed(data: &[u8], width: usize, rows: usize, nulls: Option<&NullBuffer>) -> Buffer {
    let mut cells = data[..rows * width].to_vec();
    if let Some(nulls) = nulls {
        (!nulls.inner()).set_indices().for_each(|row| cells[row * width..(row + 1) * width].fill(0));
    }
    Buffer::from_vec(cells)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_slice_of_a_column_starts_at_offset_zero_and_shares_the_bytes() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "bc", "", "def"]));
        let projected = Projected::new(&ColumnType::Text, &text.slice(1, 3), None).expect("projected");
        let CellsParam::Vars(vars) = projected.param().cells else { panic!("text") };
        assert_eq!((vars.offsets, vars.data), (&[0, 2, 2, 5][..], &b"bcdef"[..]));
        assert!(projected.presence.is_none());
    }

    #[test]
    fn what_stands_beside_a_null_does_not_enter_the_sandbox() {
        let nulls = NullBuffer::from(vec![true, false, true]);
        let secret: ArrayRef = Arc::new(Int64Array::new(vec![1, 42, 3].into(), Some(nulls.clone())));
        let projected = Projected::new(&ColumnType::Int64, &secret, None).expect("projected");
        let CellsParam::I64s(values) = projected.param().cells else { panic!("i64s") };
        assert_eq!((values, projected.presence.as_deref()), (&[1, 0, 3][..], Some(&[1, 0, 1][..])));
        let offsets = OffsetBuffer::new(vec![0, 1, 7, 8].into());
        let secret: ArrayRef = Arc::new(StringArray::new(offsets, Buffer::from_vec(b"asecretb".to_vec()), Some(nulls)));
        let projected = Projected::new(&ColumnType::Text, &secret, None).expect("projected");
        let CellsParam::Vars(vars) = projected.param().cells else { panic!("text") };
        assert_eq!((vars.offsets, vars.data), (&[0, 1, 1, 2][..], &b"ab"[..]));
    }

    #[test]
    fn not_sent_is_not_null() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, None]));
        let unavailable = BooleanBuffer::from(vec![false, false, true]);
        let projected = Projected::new(&ColumnType::Int64, &values, Some(&unavailable)).expect("projected");
        assert_eq!(projected.presence.as_deref(), Some(&[1, 0, 2][..]));
    }
}
