//! A column on its way out of the sandbox: believed only after every length, offset and byte was looked at.

use std::sync::Arc;

use arrow_array::types::Decimal128Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, PrimitiveArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use millrace_core::outcome::Written;
use millrace_core::schema::ColumnType;

use crate::bindings::types::{CellsResult, ColumnResult, VarDataResult};
use crate::schema::decimal_value;

/// What a column of an answer must be.
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    pub(crate) ty: &'a ColumnType,
    pub(crate) nullable: bool,
    pub(crate) rows: usize,
    /// Rows whose cells count: those that are kept.
    pub(crate) counts: &'a dyn Fn(usize) -> bool,
    /// Rows in which the plugin may say "not sent": the source had not sent what the cell is made of.
    pub(crate) may_be_unsent: &'a dyn Fn(usize) -> bool,
}

/// The column, or what is wrong with it.
pub(crate) fn column(answer: ColumnResult, expected: &Expected<'_>) -> Result<Written, String> {
    let wrong = |what: String| format!("column {}: {what}", expected.name);
    let (nulls, unavailable) = presence(answer.presence, expected).map_err(wrong)?;
    let cells = cells(answer.cells, expected, nulls).map_err(wrong)?;
    Ok(Written { cells, unavailable })
}

type Presence = (Option<NullBuffer>, Option<BooleanBuffer>);

fn presence(presence: Option<Vec<u8>>, expected: &Expected<'_>) -> Result<Presence, String> {
    let Some(codes) = presence else { return Ok((None, None)) };
    if codes.len() != expected.rows {
        return Err(format!("{} presence codes for {} rows", codes.len(), expected.rows));
    }
    let mut unsent = false;
    for (row, code) in codes.iter().enumerate() {
        match code {
            1 => {}
            0 if expected.nullable || !(expected.counts)(row) => {}
            0 => return Err(format!("row {row} is null, and the column is not nullable")),
            2 if (expected.may_be_unsent)(row) || !(expected.counts)(row) => unsent = true,
            2 => return Err(format!("row {row} is said to be not sent, but the source had sent it")),
            code => return Err(format!("row {row} has the presence code {code}; there are 0, 1 and 2")),
        }
    }
    let valid: BooleanBuffer = codes.iter().map(|code| *code == 1).collect();
    let unavailable = unsent.then(|| codes.iter().map(|code| *code == 2).collect());
    Ok((Some(NullBuffer::new(valid)).filter(|n| n.null_count() > 0), unavailable))
}

fn count(found: usize, rows: usize) -> Result<(), String> {
    if found == rows { Ok(()) } else { Err(format!("{found} cells for {rows} rows")) }
}

fn cells(cells: CellsResult, expected: &Expected<'_>, nulls: Option<NullBuffer>) -> Result<ArrayRef, String> {
    let rows = expected.rows;
    let is_value = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
    Ok(match (expected.ty, cells) {
        (ColumnType::Boolean, CellsResult::Bools(v)) => {
            count(v.len(), rows)?;
            if let Some(row) = (0..rows).find(|row| v[*row] > 1 && is_value(*row)) {
                return Err(format!("row {row} is {}, a boolean is 0 or 1", v[row]));
            }
            Arc::new(BooleanArray::new(v.iter().map(|b| *b == 1).collect(), nulls))
        }
        (ColumnType::Int8 | ColumnType::Int16, CellsResult::I32s(v)) => {
            count(v.len(), rows)?;
            Arc::new(Int16Array::new(narrow(&v, expected.ty, &is_value)?, nulls))
        }
        (ColumnType::Int32, CellsResult::I32s(v)) => {
            count(v.len(), rows).map(|()| Arc::new(Int32Array::new(v.into(), nulls)))?
        }
        (ColumnType::Date, CellsResult::I32s(v)) => {
            count(v.len(), rows).map(|()| Arc::new(Date32Array::new(v.into(), nulls)))?
        }
        (ColumnType::Float32, CellsResult::F32s(v)) => {
            count(v.len(), rows).map(|()| Arc::new(Float32Array::new(v.into(), nulls)))?
        }
        (ColumnType::Float64, CellsResult::F64s(v)) => {
            count(v.len(), rows).map(|()| Arc::new(Float64Array::new(v.into(), nulls)))?
        }
        (ty, CellsResult::I64s(v)) => {
            count(v.len(), rows)?;
            longs(v, ty, nulls)?
        }
        (ColumnType::Uuid, CellsResult::Fixed(fixed)) => {
            if fixed.width != 16 || fixed.data.len() != 16 * rows {
                return Err(format!("{} bytes of width {} for {rows} UUIDs", fixed.data.len(), fixed.width));
            }
            let array = FixedSizeBinaryArray::try_new(16, Buffer::from_vec(fixed.data), nulls);
            Arc::new(array.map_err(|e| e.to_string())?)
        }
        (ty, CellsResult::Vars(vars)) => variable(vars, ty, rows, nulls)?,
        (ty, _) => return Err(format!("its cells are not those of {ty}")),
    })
}

fn narrow(values: &[i32], ty: &ColumnType, is_value: &dyn Fn(usize) -> bool) -> Result<ScalarBuffer<i16>, String> {
    let range = if *ty == ColumnType::Int8 { -128..=127 } else { -32_768..=32_767 };
    if let Some(row) = (0..values.len()).find(|row| !range.contains(&values[*row]) && is_value(*row)) {
        return Err(format!("row {row} is {}, which does not fit into {ty}", values[row]));
    }
    Ok(values.iter().map(|v| *v as i16).collect())
}

fn longs(values: Vec<i64>, ty: &ColumnType, nulls: Option<NullBuffer>) -> Result<ArrayRef, String> {
    let values = ScalarBuffer::from(values);
    Ok(match ty {
        ColumnType::Int64 => Arc::new(Int64Array::new(values, nulls)),
        ColumnType::Time => Arc::new(Time64MicrosecondArray::new(values, nulls)),
        ColumnType::Timestamp => Arc::new(TimestampMicrosecondArray::new(values, nulls)),
        ColumnType::TimestampTz => Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone("UTC")),
        ColumnType::UInt64 => {
            let rows = values.len();
            Arc::new(UInt64Array::new(ScalarBuffer::new(values.into_inner(), 0, rows), nulls))
        }
        ColumnType::Decimal { precision, scale } if *precision <= 18 => {
            let bound = 10i64.pow(u32::from(*precision)).unsigned_abs();
            let fits =
                |row: usize| values[row].unsigned_abs() < bound || nulls.as_ref().is_some_and(|n| n.is_null(row));
            if let Some(row) = (0..values.len()).find(|row| !fits(*row)) {
                return Err(format!("row {row} is {}, which does not fit into {ty}", values[row]));
            }
            let wide = values.iter().map(|v| i128::from(*v)).collect();
            decimal_array(wide, *precision, *scale, nulls)?
        }
        ty => return Err(format!("its cells are not those of {ty}")),
    })
}

fn decimal_array(
    values: ScalarBuffer<i128>,
    precision: u8,
    scale: i8,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, String> {
    let array = PrimitiveArray::<Decimal128Type>::new(values, nulls).with_precision_and_scale(precision, scale);
    Ok(Arc::new(array.map_err(|e| e.to_string())?))
}

fn variable(vars: VarDataResult, ty: &ColumnType, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef, String> {
    let offsets = checked_offsets(vars.offsets, vars.data.len(), rows)?;
    let data = Buffer::from_vec(vars.data);
    let text = |nulls| StringArray::try_new(offsets.clone(), data.clone(), nulls).map_err(|e| e.to_string());
    Ok(match ty {
        ColumnType::Binary => Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(|e| e.to_string())?),
        ColumnType::Text | ColumnType::Json | ColumnType::BigDecimal | ColumnType::Other(_) => Arc::new(text(nulls)?),
        ColumnType::Decimal { precision, scale } if *precision > 18 => {
            let text = text(nulls.clone())?;
            let mut values = Vec::with_capacity(rows);
            for row in 0..rows {
                let is_value = nulls.as_ref().is_none_or(|n| n.is_valid(row));
                let value = if is_value { decimal_value(text.value(row), *precision, *scale) } else { Some(0) };
                values.push(value.ok_or_else(|| format!("row {row} is {:?}, no {ty}", text.value(row)))?);
            }
            decimal_array(values.into(), *precision, *scale, nulls)?
        }
        ty => return Err(format!("its cells are not those of {ty}")),
    })
}

/// From 0, ascending, to the end of the data, one more than rows.
fn checked_offsets(offsets: Vec<u32>, bytes: usize, rows: usize) -> Result<OffsetBuffer<i32>, String> {
    if offsets.len() != rows + 1 {
        return Err(format!("{} offsets for {rows} rows", offsets.len()));
    }
    let ends_fit = offsets[0] == 0 && offsets[rows] as usize == bytes && i32::try_from(bytes).is_ok();
    if !ends_fit {
        return Err(format!("offsets from {} to {} for {bytes} bytes", offsets[0], offsets[rows]));
    }
    if let Some(row) = offsets.windows(2).position(|w| w[0] > w[1]) {
        return Err(format!("the offsets descend at row {row}"));
    }
    // The same bits: none is more than the last, which fits into an i32.
    let rows = offsets.len();
    Ok(OffsetBuffer::new(ScalarBuffer::new(Buffer::from_vec(offsets), 0, rows)))
}
