//! The statistics of a data file, from what the Parquet writer has counted anyway.
//!
//! Every bound holds under any reader: timestamps are rounded outwards to milliseconds (readers truncate), a text
//! bound that was cut is a bound still, and where one can not be sure (NaN, years that have no text) there is none.

use std::fmt::Write as _;

use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::civil;
use crate::log::schema::DeltaType;

/// Delta's default of `delta.dataSkippingNumIndexedCols`: readers expect statistics of these first columns only.
pub(crate) const INDEXED_COLUMNS: usize = 32;

/// A column of the file for which statistics are wanted.
pub(crate) struct Indexed<'a> {
    pub name: &'a str,
    pub ty: &'a DeltaType,
    /// A NaN was written: the bounds leave it out, and Delta orders it above everything.
    pub has_nan: bool,
}

/// What is known of one column over all row groups.
#[derive(Default)]
struct Bounds {
    nulls: Option<u64>,
    least: Option<String>,
    greatest: Option<String>,
}

/// The `stats` of an add action. `columns` are the file's, in order; those beyond the first 32 are left out unless
/// they are ours.
pub(crate) fn stats(metadata: &ParquetMetaData, columns: &[Indexed<'_>]) -> String {
    let mut least = String::new();
    let mut greatest = String::new();
    let mut nulls = String::new();
    for (index, column) in columns.iter().enumerate() {
        if index >= INDEXED_COLUMNS && !column.name.starts_with(crate::META_PREFIX) || *column.ty == DeltaType::TextList
        {
            continue;
        }
        let bounds = bounds(metadata, index, column);
        push(&mut least, column.name, bounds.least.as_deref());
        push(&mut greatest, column.name, bounds.greatest.as_deref());
        push(&mut nulls, column.name, bounds.nulls.map(|n| n.to_string()).as_deref());
    }
    let rows: i64 = metadata.row_groups().iter().map(|group| group.num_rows()).sum();
    format!(r#"{{"numRecords":{rows},"minValues":{{{least}}},"maxValues":{{{greatest}}},"nullCount":{{{nulls}}}}}"#)
}

fn push(object: &mut String, name: &str, json: Option<&str>) {
    let Some(json) = json else { return };
    if !object.is_empty() {
        object.push(',');
    }
    object.push_str(&quoted(name));
    object.push(':');
    object.push_str(json);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Flat columns come first in the file, so that their index is the leaf's.
fn bounds(metadata: &ParquetMetaData, index: usize, column: &Indexed<'_>) -> Bounds {
    let groups: Option<Vec<(i64, &Statistics)>> =
        metadata.row_groups().iter().map(|group| Some((group.num_rows(), group.column(index).statistics()?))).collect();
    let Some(groups) = groups else { return Bounds::default() };
    let nulls = groups.iter().map(|(_, s)| s.null_count_opt()).sum();
    // A group of nulls alone has no bounds and bounds nothing; any other without bounds is unbounded.
    let has_values = |(rows, s): &(i64, &Statistics)| s.null_count_opt() != u64::try_from(*rows).ok();
    let valued: Vec<&Statistics> = groups.into_iter().filter(has_values).map(|(_, s)| s).collect();
    let unbounded = valued.iter().any(|s| s.min_bytes_opt().is_none() || s.max_bytes_opt().is_none());
    if column.has_nan || valued.is_empty() || unbounded {
        return Bounds { nulls, ..Bounds::default() };
    }
    let (least, greatest) = extremes(&valued, column.ty);
    Bounds { nulls, least, greatest }
}

fn extremes(groups: &[&Statistics], ty: &DeltaType) -> (Option<String>, Option<String>) {
    match groups.first() {
        Some(Statistics::Int32(_)) => {
            let all = groups.iter().filter_map(|s| match s {
                Statistics::Int32(v) => Some((i128::from(*v.min_opt()?), i128::from(*v.max_opt()?))),
                _ => None,
            });
            integers(all, ty)
        }
        Some(Statistics::Int64(_)) => {
            let all = groups.iter().filter_map(|s| match s {
                Statistics::Int64(v) => Some((i128::from(*v.min_opt()?), i128::from(*v.max_opt()?))),
                _ => None,
            });
            integers(all, ty)
        }
        Some(Statistics::FixedLenByteArray(_)) if matches!(ty, DeltaType::Decimal { .. }) => {
            let all =
                groups.iter().filter_map(|s| Some((big_endian(s.min_bytes_opt()?)?, big_endian(s.max_bytes_opt()?)?)));
            integers(all, ty)
        }
        Some(Statistics::Float(_)) => {
            let all = groups.iter().filter_map(|s| match s {
                Statistics::Float(v) => Some((f64::from(*v.min_opt()?), f64::from(*v.max_opt()?))),
                _ => None,
            });
            floats(all)
        }
        Some(Statistics::Double(_)) => {
            let all = groups.iter().filter_map(|s| match s {
                Statistics::Double(v) => Some((*v.min_opt()?, *v.max_opt()?)),
                _ => None,
            });
            floats(all)
        }
        Some(Statistics::ByteArray(_)) if *ty == DeltaType::Text => texts(groups),
        _ => (None, None),
    }
}

fn integers(all: impl Iterator<Item = (i128, i128)>, ty: &DeltaType) -> (Option<String>, Option<String>) {
    let Some((least, greatest)) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return (None, None) };
    let text = |value: i128, up: bool| match ty {
        DeltaType::Date => civil::date(i32::try_from(value).ok()?).map(|d| quoted(&d)),
        DeltaType::Timestamp => timestamp(i64::try_from(value).ok()?, up).map(|t| quoted(&format!("{t}Z"))),
        DeltaType::TimestampNtz => timestamp(i64::try_from(value).ok()?, up).map(|t| quoted(&t)),
        DeltaType::Decimal { scale, .. } => Some(decimal(value, usize::from(*scale))),
        _ => Some(value.to_string()),
    };
    (text(least, false), text(greatest, true))
}

/// Rounded outwards to milliseconds.
fn timestamp(micros: i64, up: bool) -> Option<String> {
    let rounded = if up { micros.checked_add(999)? } else { micros }.div_euclid(1_000).checked_mul(1_000)?;
    let mut text = civil::timestamp(rounded, 'T')?;
    text.truncate(text.len() - 3);
    Some(text)
}

fn decimal(unscaled: i128, scale: usize) -> String {
    let mut text = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    if unscaled < 0 {
        text.insert(0, '-');
    }
    text
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let mut wide = [if bytes[0] & 0x80 == 0 { 0 } else { 0xff }; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

fn floats(all: impl Iterator<Item = (f64, f64)>) -> (Option<String>, Option<String>) {
    let Some((least, greatest)) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return (None, None) };
    let text = |value: f64| {
        let mut text = String::new();
        // JSON has no infinities; without a bound the file is read.
        (value.is_finite() && write!(text, "{value:?}").is_ok()).then_some(text)
    };
    (text(least), text(greatest))
}

fn texts(groups: &[&Statistics]) -> (Option<String>, Option<String>) {
    let least = groups.iter().filter_map(|s| s.min_bytes_opt()).min();
    let greatest = groups.iter().filter_map(|s| s.max_bytes_opt()).max();
    let text = |bytes: Option<&[u8]>| Some(quoted(std::str::from_utf8(bytes?).ok()?));
    (text(least), text(greatest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_their_point() {
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(12345, 2), "123.45");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(decimal(0, 3), "0.000");
    }

    #[test]
    fn timestamps_are_rounded_outwards() {
        assert_eq!(timestamp(1_001, false).unwrap(), "1970-01-01T00:00:00.001");
        assert_eq!(timestamp(1_001, true).unwrap(), "1970-01-01T00:00:00.002");
        assert_eq!(timestamp(-1, false).unwrap(), "1969-12-31T23:59:59.999");
        assert_eq!(timestamp(i64::MAX, true), None);
    }

    #[test]
    fn negative_big_endian_numbers_keep_their_sign() {
        assert_eq!(big_endian(&[0xff, 0xfe]), Some(-2));
        assert_eq!(big_endian(&[0x00, 0xfe]), Some(254));
        assert_eq!(big_endian(&[]), None);
    }
}
