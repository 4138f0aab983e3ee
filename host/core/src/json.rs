//! Cells as JSON: what dead letters, `stdout` and `millrace test` show of a row.
//!
//! Numbers that JSON readers round (integers beyond 2^53, decimals) are text; dates and times are ISO 8601 with
//! `infinity` and `-infinity`; binary is hexadecimal after `\x`, as PostgreSQL writes it.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use serde_json::{Map, Value};

use crate::batch::ChangeBatch;
use crate::schema::ColumnType;

/// A row as an object of its available columns, but for those that `omit` names.
pub fn row(batch: &ChangeBatch, row: usize, omit: impl Fn(&str) -> bool) -> Map<String, Value> {
    let mut object = Map::new();
    for (index, column) in batch.schema.columns.iter().enumerate() {
        if !batch.is_unavailable(index, row) && !omit(&column.name) {
            object.insert(column.name.to_string(), cell(&column.ty, &batch.columns[index], row));
        }
    }
    object
}

/// Names of the columns whose value is unavailable in a row.
pub fn unavailable(batch: &ChangeBatch, row: usize) -> Vec<&str> {
    (0..batch.columns.len()).filter(|c| batch.is_unavailable(*c, row)).map(|c| &*batch.schema.columns[c].name).collect()
}

/// One cell.
pub fn cell(ty: &ColumnType, array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match ty {
        ColumnType::Boolean => array.as_boolean().value(row).into(),
        ColumnType::Int8 | ColumnType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        ColumnType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        ColumnType::Int64 => exact(i128::from(array.as_primitive::<Int64Type>().value(row))),
        ColumnType::UInt64 => exact(i128::from(array.as_primitive::<UInt64Type>().value(row))),
        ColumnType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(row))),
        ColumnType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        ColumnType::Decimal { scale, .. } => decimal(array.as_primitive::<Decimal128Type>().value(row), *scale).into(),
        ColumnType::Json => {
            let text = array.as_string::<i32>().value(row);
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
        ColumnType::BigDecimal | ColumnType::Text | ColumnType::Other(_) => array.as_string::<i32>().value(row).into(),
        ColumnType::Binary => hex(array.as_binary::<i32>().value(row)).into(),
        ColumnType::Uuid => uuid(array.as_fixed_size_binary().value(row)).into(),
        ColumnType::Date => date(i64::from(array.as_primitive::<Date32Type>().value(row))).into(),
        ColumnType::Time => time(array.as_primitive::<Time64MicrosecondType>().value(row)).into(),
        ColumnType::Timestamp => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), "").into(),
        ColumnType::TimestampTz => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), "Z").into(),
    }
}

fn exact(value: i128) -> Value {
    const EXACT: i128 = 1 << 53;
    if (-EXACT..=EXACT).contains(&value) { Value::from(value as i64) } else { value.to_string().into() }
}

fn float(value: f64) -> Value {
    if value.is_finite() {
        value.into()
    } else if value.is_nan() {
        "NaN".into()
    } else if value > 0.0 {
        "Infinity".into()
    } else {
        "-Infinity".into()
    }
}

/// An unscaled value as text, with exactly `scale` digits after the point.
pub fn decimal(unscaled: i128, scale: i8) -> String {
    if scale <= 0 {
        let zeros = if unscaled == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return format!("{unscaled}{}", "0".repeat(zeros));
    }
    let scale = scale as usize;
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a String never fails.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// The 8-4-4-4-12 form.
pub fn uuid(bytes: &[u8]) -> String {
    let hex = &hex(bytes)[2..];
    if hex.len() != 32 {
        return hex.to_string();
    }
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Days since 1970-01-01 as a proleptic Gregorian date; years before 1 as `-0001` (ISO 8601: year 0 is 1 BC).
pub fn date(days: i64) -> String {
    match days {
        d if d == i64::from(i32::MIN) => "-infinity".into(),
        d if d == i64::from(i32::MAX) => "infinity".into(),
        d => civil(d),
    }
}

fn civil(days: i64) -> String {
    // Howard Hinnant's algorithm `civil_from_days`.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let sign = if year < 0 { "-" } else { "" };
    format!("{sign}{:04}-{month:02}-{day:02}", year.abs())
}

fn time(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let fraction = micros.rem_euclid(1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { clock } else { format!("{clock}.{fraction:06}") }
}

/// Microseconds since 1970-01-01.
pub fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MIN => "-infinity".into(),
        i64::MAX => "infinity".into(),
        m => {
            let days = m.div_euclid(86_400_000_000);
            format!("{}T{}{zone}", civil(days), time(m.rem_euclid(86_400_000_000)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_iso_8601_with_infinities() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-719_528), "0000-01-01");
        assert_eq!(date(i64::from(i32::MAX)), "infinity");
        assert_eq!(timestamp(-1, "Z"), "1969-12-31T23:59:59.999999Z");
        assert_eq!(timestamp(i64::MIN, ""), "-infinity");
    }

    #[test]
    fn decimals_keep_their_scale() {
        assert_eq!(decimal(-1250, 2), "-12.50");
        assert_eq!(decimal(5, 3), "0.005");
        assert_eq!(decimal(12, -2), "1200");
        assert_eq!(decimal(i128::MAX, 0), i128::MAX.to_string());
    }
}
