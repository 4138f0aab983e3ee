//! Partitions of a table: rows by the values of its partition columns, and how those values are spelled
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#partition-value-serialization>).

use std::collections::BTreeMap;
use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use millrace_core::batch::ChangeBatch;
use millrace_core::{Error, Result};

use super::civil;
use super::layout::Layout;
use super::types::convert;

/// The values of the partition columns, in their order; `None` is NULL.
pub(crate) type Key = Vec<Option<String>>;

/// The rows of each partition, in order of first appearance.
pub(crate) fn split(layout: &Layout, batch: &ChangeBatch) -> Result<Vec<(Key, Vec<u32>)>> {
    let mut columns = Vec::with_capacity(layout.partition.len());
    for (_, input, how) in &layout.partition {
        columns.push(convert(&batch.columns[*input], how)?);
    }
    let mut found: Vec<(Key, Vec<u32>)> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    for row in 0..batch.rows() {
        let key = columns.iter().map(|c| value(c, row)).collect::<Result<Key>>()?;
        let place = *places.entry(key).or_insert_with_key(|key| {
            found.push((key.clone(), Vec::new()));
            found.len() - 1
        });
        found[place].1.push(row as u32);
    }
    Ok(found)
}

pub(crate) fn value(cells: &ArrayRef, row: usize) -> Result<Option<String>> {
    if cells.is_null(row) {
        return Ok(None);
    }
    let text = match cells.data_type() {
        DataType::Boolean => Some(cells.as_boolean().value(row).to_string()),
        DataType::Int8 => Some(cells.as_primitive::<Int8Type>().value(row).to_string()),
        DataType::Int16 => Some(cells.as_primitive::<Int16Type>().value(row).to_string()),
        DataType::Int32 => Some(cells.as_primitive::<Int32Type>().value(row).to_string()),
        DataType::Int64 => Some(cells.as_primitive::<Int64Type>().value(row).to_string()),
        DataType::Decimal128(..) => Some(cells.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Date32 => civil::date(cells.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            civil::timestamp(cells.as_primitive::<TimestampMicrosecondType>().value(row), ' ')
        }
        // The protocol reads an empty value as NULL.
        DataType::Utf8 => Some(cells.as_string::<i32>().value(row)).filter(|t| !t.is_empty()).map(str::to_owned),
        other => return Err(Error::bug(format!("a partition value of type {other}"))),
    };
    Ok(text)
}

/// The `partitionValues` of an add action.
pub(crate) fn values(layout: &Layout, key: &Key) -> BTreeMap<String, Option<String>> {
    layout.partition.iter().zip(key).map(|((field, ..), value)| (field.name.clone(), value.clone())).collect()
}

/// `a=1/b=x/`, as Hive and Spark name folders; empty without partition columns.
pub(crate) fn folder(layout: &Layout, key: &Key) -> String {
    let mut folder = String::new();
    for ((field, ..), value) in layout.partition.iter().zip(key) {
        escape_hive(&field.name, &mut folder);
        folder.push('=');
        match value {
            Some(text) => escape_hive(text, &mut folder),
            None => folder.push_str("__HIVE_DEFAULT_PARTITION__"),
        }
        folder.push('/');
    }
    folder
}

/// Hive's escapes, and every byte that is not plain ASCII besides: the folder is the same in every store.
fn escape_hive(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_. ".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The path of a file as the log has it: URL-encoded, so that an escaped folder is escaped twice.
pub(crate) fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.=/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_escaped_once_and_their_paths_twice() {
        let mut folder = String::new();
        escape_hive("a/b=ü %", &mut folder);
        assert_eq!(folder, "a%2Fb%3D%C3%BC %25");
        assert_eq!(encode_path(&folder), "a%252Fb%253D%25C3%25BC%20%2525");
    }
}
