//! Columns from a message's schema block (Kafka Connect's JSON form of a schema), or as the config declares them.

use std::collections::BTreeMap;

use millrace_sdk::prelude::*;

use crate::value::{Decimals, Encoding};

/// Columns, and how the values of each stand in the JSON.
pub type Columns = (Vec<ColumnDef>, Vec<Encoding>);

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

/// A column of the config.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Declared {
    Text(String),
    Typed {
        name: String,
        #[serde(rename = "type")]
        ty: String,
        #[serde(default)]
        key: bool,
        #[serde(default)]
        unit: Unit,
    },
}

/// What numbers of a time or timestamp count.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Ms,
    #[default]
    Us,
    Ns,
}

/// # Errors
/// A type that there is not; a decimal of which nobody says how it is written.
pub fn declared(columns: &[Declared], decimals: Option<Decimals>) -> Result<Columns, String> {
    let mut read = (Vec::new(), Vec::new());
    for column in columns {
        let (name, ty, key, unit) = match column {
            Declared::Text(name) => (name, "text", false, Unit::Us),
            Declared::Typed { name, ty, key, unit } => (name, ty.as_str(), *key, *unit),
        };
        let ty = DataType::parse(ty).ok_or_else(|| format!("{name}: there is no type {ty:?}"))?;
        read.1.push(match (&ty, unit) {
            (DataType::Decimal64 { scale, .. } | DataType::Decimal { scale, .. }, _) => match decimals {
                Some(Decimals::String) => Encoding::Plain,
                Some(Decimals::Base64) => Encoding::Decimal(i32::from(*scale)),
                None => {
                    return Err(format!(
                        "{name}: say `decimals: string` or `decimals: base64`, as Debezium writes them"
                    ));
                }
            },
            (DataType::Time | DataType::Timestamp | DataType::TimestampTz, Unit::Ms) => Encoding::Millis,
            (DataType::Time | DataType::Timestamp | DataType::TimestampTz, Unit::Ns) => Encoding::Nanos,
            (DataType::Binary, _) => Encoding::Base64,
            _ => Encoding::Plain,
        });
        read.0.push(ColumnDef { key, nullable: !key, ..ColumnDef::new(name.clone(), ty) });
    }
    Ok(read)
}

/// The columns of a row by the schema block of the whole value: those of `after`, or of `before`.
pub fn of_block(block: &str) -> Result<Columns, Reject> {
    let wrong = |what: String| Reject::new("debezium.schema", format!("the schema block {what}"));
    let value: Block = serde_json::from_str(block).map_err(|e| wrong(format!("is none: {e}")))?;
    let image = |name: &str| value.fields.iter().find(|f| f.field.as_deref() == Some(name) && f.ty == "struct");
    let row = image("after").or_else(|| image("before")).ok_or_else(|| wrong("describes no row".to_string()))?;
    let mut columns = (Vec::new(), Vec::new());
    for field in &row.fields {
        let name = field.field.clone().ok_or_else(|| wrong("has a field without a name".to_string()))?;
        let (ty, encoding) = column_type(field);
        let native = field.parameters.get("__debezium.source.column.type").or(field.name.as_ref()).unwrap_or(&field.ty);
        let source_type = native.clone();
        columns.0.push(ColumnDef { nullable: field.optional, source_type, ..ColumnDef::new(name, ty) });
        columns.1.push(encoding);
    }
    Ok(columns)
}

fn column_type(block: &Block) -> (DataType, Encoding) {
    let known = ["io.debezium.data.", "io.debezium.time.", "org.apache.kafka.connect.data."];
    let logical = block.name.as_deref().and_then(|name| known.iter().find_map(|prefix| name.strip_prefix(prefix)));
    match logical {
        Some("Decimal") => decimal(block),
        Some("VariableScaleDecimal") => (DataType::Decimal { precision: 0, scale: 0 }, Encoding::VariableDecimal),
        Some("Date") => (DataType::Date, Encoding::Plain),
        Some("IsoDate") => (DataType::Date, Encoding::Plain),
        Some("Time") => (DataType::Time, Encoding::Millis),
        Some("MicroTime" | "IsoTime") => (DataType::Time, Encoding::Plain),
        Some("NanoTime") => (DataType::Time, Encoding::Nanos),
        Some("Timestamp") => (DataType::Timestamp, Encoding::Millis),
        Some("MicroTimestamp" | "IsoTimestamp") => (DataType::Timestamp, Encoding::Plain),
        Some("NanoTimestamp") => (DataType::Timestamp, Encoding::Nanos),
        Some("ZonedTimestamp") => (DataType::TimestampTz, Encoding::Plain),
        Some("Uuid") => (DataType::Uuid, Encoding::Plain),
        Some("Json") => (DataType::Json, Encoding::Plain),
        _ => plain(&block.ty),
    }
}

fn plain(ty: &str) -> (DataType, Encoding) {
    match ty {
        "int8" => (DataType::Int8, Encoding::Plain),
        "int16" => (DataType::Int16, Encoding::Plain),
        "int32" => (DataType::Int32, Encoding::Plain),
        "int64" => (DataType::Int64, Encoding::Plain),
        "float" | "float32" => (DataType::Float32, Encoding::Plain),
        "double" | "float64" => (DataType::Float64, Encoding::Plain),
        "boolean" => (DataType::Boolean, Encoding::Plain),
        "bytes" => (DataType::Binary, Encoding::Base64),
        "struct" | "array" | "map" => (DataType::Json, Encoding::Nested),
        _ => (DataType::Text, Encoding::Plain),
    }
}

fn decimal(block: &Block) -> (DataType, Encoding) {
    let number = |key: &str| block.parameters.get(key).and_then(|v| v.parse::<i32>().ok());
    let scale = number("scale").unwrap_or(0);
    let ty = match (number("connect.decimal.precision"), i8::try_from(scale)) {
        (Some(precision @ 1..=18), Ok(small)) if (0..=precision).contains(&scale) => {
            DataType::Decimal64 { precision: precision as u8, scale: small }
        }
        (Some(precision @ 19..=38), Ok(small)) if (0..=precision).contains(&scale) => {
            DataType::Decimal { precision: precision as u8, scale: small }
        }
        _ => DataType::Decimal { precision: 0, scale: 0 },
    };
    (ty, Encoding::Decimal(scale))
}
