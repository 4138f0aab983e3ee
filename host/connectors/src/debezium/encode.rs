//! The other way: rows as Debezium's JSON, for `millrace generate`.
//!
//! Dates and times are ISO 8601 (`time.precision.mode=isostring`). Decimals are text without a schema
//! (`decimal.handling.mode=string`), and Kafka Connect's `Decimal` with one.

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use millrace_core::batch::ChangeBatch;
use millrace_core::json;
use millrace_core::schema::{Column, ColumnType, TableSchema};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json};

use super::{UNAVAILABLE, bigint};

/// A row as the object that `before` or `after` is, or the fields of a record's key.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) batch: &'a ChangeBatch,
    pub(crate) row: usize,
    pub(crate) with_schema: bool,
    pub(crate) keys_only: bool,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, column) in self.batch.schema.columns.iter().enumerate() {
            if self.keys_only && !column.key {
                continue;
            }
            if self.batch.is_unavailable(index, self.row) {
                map.serialize_entry(&column.name, UNAVAILABLE)?;
            } else {
                let array = &self.batch.columns[index];
                map.serialize_entry(&column.name, &cell(&column.ty, array, self.row, self.with_schema))?;
            }
        }
        map.end()
    }
}

fn cell(ty: &ColumnType, array: &ArrayRef, row: usize, with_schema: bool) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match ty {
        // Whole numbers stay numbers, however large; JSON is text; bytes are base64: as Debezium has them.
        ColumnType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        ColumnType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        ColumnType::Json => array.as_string::<i32>().value(row).into(),
        ColumnType::Binary => BASE64_STANDARD.encode(array.as_binary::<i32>().value(row)).into(),
        ColumnType::Decimal { .. } if with_schema => {
            BASE64_STANDARD.encode(bigint::from_i128(array.as_primitive::<Decimal128Type>().value(row))).into()
        }
        _ => json::cell(ty, array, row),
    }
}

/// The schema blocks of a table's keys and values.
pub(crate) fn schema_blocks(schema: &TableSchema) -> (Value, Value) {
    let fields =
        |keys_only: bool| -> Vec<Value> { schema.columns.iter().filter(|c| c.key || !keys_only).map(field).collect() };
    let image = |name: &str| json!({ "type": "struct", "fields": fields(false), "optional": true, "field": name });
    let key = json!({ "type": "struct", "fields": fields(true), "optional": false });
    let plain = |ty: &str, name: &str| json!({ "type": ty, "optional": true, "field": name });
    let source: Vec<Value> =
        [("string", "connector"), ("string", "schema"), ("string", "table"), ("int64", "ts_us"), ("int64", "txId")]
            .map(|(ty, name)| plain(ty, name))
            .to_vec();
    let fields = vec![
        image("before"),
        image("after"),
        json!({ "type": "struct", "fields": source, "optional": false, "field": "source" }),
        plain("string", "op"),
        plain("int64", "ts_ms"),
    ];
    (key, json!({ "type": "struct", "fields": fields, "optional": false }))
}

/// The inverse of `schema::column_type`.
fn field(column: &Column) -> Value {
    let (ty, name) = match &column.ty {
        ColumnType::Boolean => ("boolean", None),
        ColumnType::Int8 => ("int8", None),
        ColumnType::Int16 => ("int16", None),
        ColumnType::Int32 => ("int32", None),
        ColumnType::Int64 | ColumnType::UInt64 => ("int64", None),
        ColumnType::Float32 => ("float", None),
        ColumnType::Float64 => ("double", None),
        ColumnType::Decimal { .. } => ("bytes", Some("org.apache.kafka.connect.data.Decimal")),
        ColumnType::BigDecimal | ColumnType::Text | ColumnType::Other(_) => ("string", None),
        ColumnType::Binary => ("bytes", None),
        ColumnType::Uuid => ("string", Some("io.debezium.data.Uuid")),
        ColumnType::Date => ("string", Some("io.debezium.time.IsoDate")),
        ColumnType::Time => ("string", Some("io.debezium.time.IsoTime")),
        ColumnType::Timestamp => ("string", Some("io.debezium.time.IsoTimestamp")),
        ColumnType::TimestampTz => ("string", Some("io.debezium.time.ZonedTimestamp")),
        ColumnType::Json => ("string", Some("io.debezium.data.Json")),
    };
    let mut field = json!({ "type": ty, "optional": column.nullable, "field": &*column.name });
    if let Some(name) = name {
        field["name"] = name.into();
    }
    if let ColumnType::Decimal { precision, scale } = &column.ty {
        field["parameters"] = json!({ "scale": scale.to_string(), "connect.decimal.precision": precision.to_string() });
    }
    field
}
