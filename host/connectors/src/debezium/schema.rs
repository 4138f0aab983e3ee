//! Columns from the schema block of a message (Kafka Connect's JSON form of a schema).
//!
//! | Connect / Debezium type | column |
//! |---|---|
//! | int8, int16 / int32, `Year` / int64, durations | int16 / int32 / int64 |
//! | float, float32 / double, float64 | float32 / float64 |
//! | boolean / string, `Enum`, `EnumSet`, `Xml`, `Ltree` | boolean / text |
//! | bytes, `Bits` | binary |
//! | `Decimal` with precision up to 38 / without or above, `VariableScaleDecimal` | decimal(p, s) / big decimal |
//! | `Date`, `IsoDate` | date |
//! | `Time`, `MicroTime`, `NanoTime`, `IsoTime` | time (nanoseconds are cut) |
//! | `Timestamp`, `MicroTimestamp`, `NanoTimestamp`, `IsoTimestamp` | timestamp (nanoseconds are cut) |
//! | `ZonedTimestamp` | timestamp with zone |
//! | `ZonedTime`, `Interval` | other, as text |
//! | `Uuid` / `Json` | uuid / json |
//! | struct, array, map (geometry among them) | json |

use std::collections::BTreeMap;

use millrace_core::schema::{Column, ColumnType};
use serde::Deserialize;

use super::cells::Encoding;
use super::envelope::Malformed;

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    ty: String,
    name: Option<String>,
    field: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    fields: Vec<Block>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

/// The columns of a row by the schema block of the whole value: those of `after`, or of `before`.
pub(super) fn columns(block: &str) -> Result<Vec<(Column, Encoding)>, Malformed> {
    let value: Block = serde_json::from_str(block)?;
    let image = |name: &str| value.fields.iter().find(|f| f.field.as_deref() == Some(name) && f.ty == "struct");
    let row = image("after").or_else(|| image("before"));
    let row = row.ok_or_else(|| Malformed("the schema block describes no row".into()))?;
    row.fields.iter().map(column).collect()
}

fn column(block: &Block) -> Result<(Column, Encoding), Malformed> {
    let name = block.field.as_deref().ok_or_else(|| Malformed("a field of the schema block has no name".into()))?;
    let (ty, encoding) = column_type(block);
    let mut column = Column::new(name, ty);
    column.nullable = block.optional;
    let native = block.parameters.get("__debezium.source.column.type").or(block.name.as_ref()).unwrap_or(&block.ty);
    column.source_type = native.as_str().into();
    Ok((column, encoding))
}

/// A table, which is why it is long: one line a type.
fn column_type(block: &Block) -> (ColumnType, Encoding) {
    let logical = block.name.as_deref().and_then(|n| {
        let known = ["io.debezium.data.", "io.debezium.time.", "org.apache.kafka.connect.data."];
        let prefix = known.iter().find(|p| n.starts_with(**p))?;
        Some((prefix.starts_with("io.debezium.time"), &n[prefix.len()..]))
    });
    match logical {
        Some((_, "Decimal")) => decimal(block),
        Some((_, "VariableScaleDecimal")) => (ColumnType::BigDecimal, Encoding::VariableDecimal),
        Some((_, "Date")) => (ColumnType::Date, Encoding::Days),
        Some((_, "IsoDate")) => (ColumnType::Date, Encoding::IsoDate),
        Some((_, "Time")) => (ColumnType::Time, Encoding::TimeMillis),
        Some((_, "MicroTime")) => (ColumnType::Time, Encoding::TimeMicros),
        Some((_, "NanoTime")) => (ColumnType::Time, Encoding::TimeNanos),
        Some((_, "IsoTime")) => (ColumnType::Time, Encoding::IsoTime),
        Some((_, "Timestamp")) => (ColumnType::Timestamp, Encoding::Millis),
        Some((_, "MicroTimestamp")) => (ColumnType::Timestamp, Encoding::Micros),
        Some((_, "NanoTimestamp")) => (ColumnType::Timestamp, Encoding::Nanos),
        Some((_, "IsoTimestamp")) => (ColumnType::Timestamp, Encoding::IsoTimestamp),
        Some((_, "ZonedTimestamp")) => (ColumnType::TimestampTz, Encoding::ZonedTimestamp),
        Some((true, "ZonedTime")) => (ColumnType::Other("time with time zone".into()), Encoding::Text),
        Some((true, "Interval")) => (ColumnType::Other("interval".into()), Encoding::Text),
        Some((false, "Uuid")) => (ColumnType::Uuid, Encoding::Uuid),
        Some((false, "Json")) => (ColumnType::Json, Encoding::Text),
        _ => plain(&block.ty),
    }
}

fn plain(ty: &str) -> (ColumnType, Encoding) {
    match ty {
        "int8" => (ColumnType::Int8, Encoding::Integer),
        "int16" => (ColumnType::Int16, Encoding::Integer),
        "int32" => (ColumnType::Int32, Encoding::Integer),
        "int64" => (ColumnType::Int64, Encoding::Integer),
        "float" | "float32" => (ColumnType::Float32, Encoding::Float),
        "double" | "float64" => (ColumnType::Float64, Encoding::Float),
        "boolean" => (ColumnType::Boolean, Encoding::Boolean),
        "bytes" => (ColumnType::Binary, Encoding::Base64),
        "struct" | "array" | "map" => (ColumnType::Json, Encoding::Nested),
        _ => (ColumnType::Text, Encoding::Text),
    }
}

fn decimal(block: &Block) -> (ColumnType, Encoding) {
    let number = |key: &str| block.parameters.get(key).and_then(|v| v.parse::<i32>().ok());
    let scale = number("scale").unwrap_or(0);
    match (number("connect.decimal.precision"), i8::try_from(scale)) {
        (Some(precision @ 1..=38), Ok(small)) if (0..=precision).contains(&scale) => {
            (ColumnType::Decimal { precision: precision as u8, scale: small }, Encoding::Decimal { scale })
        }
        _ => (ColumnType::BigDecimal, Encoding::Decimal { scale }),
    }
}
