//! How a column's type stands in a Delta table, and how its cells get there. The table in docs/src/delta.md.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Time64MicrosecondType, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, StringArray};
use arrow_schema::DataType;
use millrace_core::schema::ColumnType;
use millrace_core::{Error, Result};

use crate::log::schema::DeltaType;

/// Digits that a Delta decimal holds at most.
const MAX_DIGITS: u8 = 38;

/// The type of a new column of a Delta table.
pub(crate) fn delta_type(ty: &ColumnType) -> DeltaType {
    match ty {
        ColumnType::Boolean => DeltaType::Boolean,
        ColumnType::Int8 | ColumnType::Int16 => DeltaType::Short,
        ColumnType::Int32 => DeltaType::Integer,
        ColumnType::Int64 => DeltaType::Long,
        ColumnType::UInt64 => DeltaType::Decimal { precision: 20, scale: 0 },
        ColumnType::Float32 => DeltaType::Float,
        ColumnType::Float64 => DeltaType::Double,
        ColumnType::Decimal { precision, scale } => delta_decimal(*precision, *scale),
        ColumnType::Binary => DeltaType::Binary,
        ColumnType::Date => DeltaType::Date,
        ColumnType::Timestamp => DeltaType::TimestampNtz,
        ColumnType::TimestampTz => DeltaType::Timestamp,
        ColumnType::BigDecimal
        | ColumnType::Text
        | ColumnType::Uuid
        | ColumnType::Time
        | ColumnType::Json
        | ColumnType::Other(_) => DeltaType::Text,
    }
}

/// Delta knows no negative scale and no scale beyond the precision; PostgreSQL has both.
fn delta_decimal(precision: u8, scale: i8) -> DeltaType {
    let (precision, scale) = match u8::try_from(scale) {
        Err(_) => (precision.saturating_add(scale.unsigned_abs()), 0),
        Ok(scale) => (precision.max(scale), scale),
    };
    if precision <= MAX_DIGITS { DeltaType::Decimal { precision, scale } } else { DeltaType::Text }
}

/// How cells of a column become cells of the table's column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Convert {
    /// They are.
    Same,
    /// Dates and timestamps: Arrow's least value, which stands for -infinity, becomes the one that DuckDB reads as such.
    Temporal,
    /// Lossless widening.
    Cast(DataType),
    UuidText,
    /// `HH:MM:SS.ffffff`.
    TimeText,
}

/// How to write `from` into a column of type `to`; `None` where it does not fit without loss.
pub(crate) fn conversion(from: &ColumnType, to: &DeltaType) -> Option<Convert> {
    let natural = delta_type(from);
    if natural == *to {
        return Some(natural_conversion(from, to));
    }
    let widens = match (&natural, to) {
        (DeltaType::Short, DeltaType::Integer | DeltaType::Long)
        | (DeltaType::Integer, DeltaType::Long)
        | (DeltaType::Short | DeltaType::Integer | DeltaType::Float, DeltaType::Double) => true,
        (DeltaType::Short, DeltaType::Decimal { precision, scale }) => precision - scale >= 5,
        (DeltaType::Integer, DeltaType::Decimal { precision, scale }) => precision - scale >= 10,
        (DeltaType::Long, DeltaType::Decimal { precision, scale }) => precision - scale >= 19,
        (
            DeltaType::Decimal { precision: had, scale: had_scale },
            DeltaType::Decimal { precision: has, scale: has_scale },
        ) => has_scale >= had_scale && has - has_scale >= had - had_scale,
        _ => false,
    };
    widens.then(|| Convert::Cast(to.arrow()))
}

fn natural_conversion(from: &ColumnType, to: &DeltaType) -> Convert {
    match from {
        ColumnType::Uuid => Convert::UuidText,
        ColumnType::Time => Convert::TimeText,
        ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz => Convert::Temporal,
        _ if from.arrow() == to.arrow() => Convert::Same,
        _ => Convert::Cast(to.arrow()),
    }
}

pub(crate) fn convert(cells: &ArrayRef, how: &Convert) -> Result<ArrayRef> {
    match how {
        Convert::Same => Ok(Arc::clone(cells)),
        Convert::Temporal => Ok(match cells.data_type() {
            DataType::Date32 => clamp_least::<Date32Type>(cells, i32::MIN),
            _ => clamp_least::<TimestampMicrosecondType>(cells, i64::MIN),
        }),
        Convert::Cast(to) => arrow_cast::cast(cells, to).map_err(|e| Error::bug(e.to_string())),
        Convert::UuidText => Ok(Arc::new(uuid_text(cells))),
        Convert::TimeText => Ok(Arc::new(time_text(cells))),
    }
}

fn clamp_least<T: ArrowPrimitiveType>(cells: &ArrayRef, least: T::Native) -> ArrayRef
where
    T::Native: Successor,
{
    let cells: &PrimitiveArray<T> = cells.as_primitive();
    if !cells.values().contains(&least) {
        return Arc::new(cells.clone());
    }
    let clamped: PrimitiveArray<T> = cells.unary(|v| if v == least { v.successor() } else { v });
    Arc::new(clamped.with_data_type(cells.data_type().clone()))
}

trait Successor {
    fn successor(self) -> Self;
}

impl Successor for i32 {
    fn successor(self) -> Self {
        self + 1
    }
}

impl Successor for i64 {
    fn successor(self) -> Self {
        self + 1
    }
}

fn uuid_text(cells: &ArrayRef) -> StringArray {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let cells = cells.as_fixed_size_binary();
    let mut texts = StringBuilder::with_capacity(cells.len(), cells.len() * 36);
    let mut text = [b'-'; 36];
    for row in 0..cells.len() {
        if cells.is_null(row) {
            texts.append_null();
            continue;
        }
        let mut at = 0;
        for (i, byte) in cells.value(row).iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        // Only ASCII was put in.
        texts.append_value(std::str::from_utf8(&text).unwrap_or_default());
    }
    texts.finish()
}

fn time_text(cells: &ArrayRef) -> StringArray {
    let cells = cells.as_primitive::<Time64MicrosecondType>();
    let mut texts = StringBuilder::with_capacity(cells.len(), cells.len() * 15);
    let mut text = String::with_capacity(15);
    for cell in cells {
        let Some(micros) = cell else {
            texts.append_null();
            continue;
        };
        let seconds = micros.div_euclid(1_000_000);
        text.clear();
        // Writing to a String does not fail.
        let written = write!(
            text,
            "{:02}:{:02}:{:02}.{:06}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            micros.rem_euclid(1_000_000)
        );
        debug_assert!(written.is_ok());
        texts.append_value(&text);
    }
    texts.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{FixedSizeBinaryArray, Time64MicrosecondArray, TimestampMicrosecondArray};

    #[test]
    fn decimals_that_delta_does_not_know_are_widened_or_become_text() {
        let ty = |precision, scale| delta_type(&ColumnType::Decimal { precision, scale });
        assert_eq!(ty(10, 2), DeltaType::Decimal { precision: 10, scale: 2 });
        assert_eq!(ty(2, -3), DeltaType::Decimal { precision: 5, scale: 0 });
        assert_eq!(ty(3, 5), DeltaType::Decimal { precision: 5, scale: 5 });
        assert_eq!(ty(38, -1), DeltaType::Text);
    }

    #[test]
    fn cells_go_into_wider_columns_and_never_into_narrower_ones() {
        for (from, to, fits) in [
            (ColumnType::Int16, DeltaType::Long, true),
            (ColumnType::Int64, DeltaType::Integer, false),
            (ColumnType::Int64, DeltaType::Double, false),
            (ColumnType::Int32, DeltaType::Double, true),
            (ColumnType::Int64, DeltaType::Decimal { precision: 20, scale: 0 }, true),
            (ColumnType::Int64, DeltaType::Decimal { precision: 20, scale: 2 }, false),
            (ColumnType::Decimal { precision: 10, scale: 2 }, DeltaType::Decimal { precision: 12, scale: 4 }, true),
            (ColumnType::Decimal { precision: 10, scale: 2 }, DeltaType::Decimal { precision: 11, scale: 4 }, false),
            (ColumnType::Text, DeltaType::Long, false),
            (ColumnType::Json, DeltaType::Text, true),
            (ColumnType::Timestamp, DeltaType::Timestamp, false),
        ] {
            assert_eq!(conversion(&from, &to).is_some(), fits, "{from} into {to}");
        }
    }

    #[test]
    fn uuids_and_times_become_their_text() {
        let uuid: ArrayRef = Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([0xab_u8; 16]), None].into_iter(), 16).unwrap(),
        );
        let text = convert(&uuid, &Convert::UuidText).unwrap();
        assert_eq!(text.as_string::<i32>().value(0), "abababab-abab-abab-abab-abababababab");
        assert!(text.is_null(1));
        let time: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![86_399_000_001, 86_400_000_000]));
        let text = convert(&time, &Convert::TimeText).unwrap();
        assert_eq!(text.as_string::<i32>().value(0), "23:59:59.000001");
        assert_eq!(text.as_string::<i32>().value(1), "24:00:00.000000");
    }

    #[test]
    fn infinities_become_the_ones_that_readers_know() {
        let cells: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from(vec![Some(i64::MIN), Some(0), None, Some(i64::MAX)]).with_timezone("UTC"),
        );
        let out = convert(&cells, &Convert::Temporal).unwrap();
        let values = out.as_primitive::<TimestampMicrosecondType>();
        assert_eq!((values.value(0), values.value(1), values.value(3)), (-i64::MAX, 0, i64::MAX));
        assert!(values.is_null(2));
        assert_eq!(out.data_type(), cells.data_type());
    }
}
