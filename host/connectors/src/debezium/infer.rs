//! Types of rows that come without a schema.
//!
//! | JSON | column |
//! |---|---|
//! | integer that fits 64 bits | int64 |
//! | other integer | text |
//! | number with a fraction or an exponent | float64 |
//! | string | text |
//! | `true`, `false` | boolean |
//! | object, array | json |
//! | `null`, or unavailable | no column until a value comes |
//!
//! A value of another kind than its column gives a new schema version: int64 and float64 meet in float64 (but an
//! integer beyond 2^53 there makes it text), anything meets an object or array in json, all else meets in text. In a
//! float64 column the strings `NaN`, `Infinity` and `-Infinity` are numbers, as Debezium writes them. A column that a
//! row does not have is NULL there.

use millrace_core::schema::ColumnType;

use super::cells::{Encoding, is_unavailable};

/// 2^53: from here on a float does not hold every integer.
const EXACT: u64 = 1 << 53;

/// The kind of a value; `None` where it says nothing.
pub(super) fn kind(raw: &str) -> Option<ColumnType> {
    Some(match raw.as_bytes().first()? {
        b'n' => return None,
        b't' | b'f' => ColumnType::Boolean,
        b'{' | b'[' => {
            if is_unavailable(raw) {
                return None;
            }
            ColumnType::Json
        }
        b'"' => {
            if is_unavailable(raw) {
                return None;
            }
            ColumnType::Text
        }
        _ if raw.contains(['.', 'e', 'E']) => ColumnType::Float64,
        _ if raw.parse::<i64>().is_ok() => ColumnType::Int64,
        _ => ColumnType::Text,
    })
}

/// What holds both the column's values and this one.
pub(super) fn widen(column: &ColumnType, raw: &str) -> ColumnType {
    let Some(value) = kind(raw) else { return column.clone() };
    match (column, &value) {
        (ColumnType::Float64, ColumnType::Text) if is_special_float(raw) => ColumnType::Float64,
        (ColumnType::Float64, ColumnType::Int64) if raw.parse::<i64>().is_ok_and(|i| i.unsigned_abs() > EXACT) => {
            ColumnType::Text
        }
        (ColumnType::Int64, ColumnType::Float64) | (ColumnType::Float64, ColumnType::Int64) => ColumnType::Float64,
        (ColumnType::Json, _) | (_, ColumnType::Json) => ColumnType::Json,
        (column, value) if column == value => value.clone(),
        _ => ColumnType::Text,
    }
}

/// How the values of an inferred column stand in the JSON.
pub(super) fn encoding(ty: &ColumnType) -> Encoding {
    match ty {
        ColumnType::Boolean => Encoding::Boolean,
        ColumnType::Int64 => Encoding::Integer,
        ColumnType::Float64 => Encoding::Float,
        ColumnType::Json => Encoding::Nested,
        _ => Encoding::Text,
    }
}

fn is_special_float(raw: &str) -> bool {
    matches!(raw, "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"")
}
