//! A Delta table's schema: the `schemaString` of its metadata
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#schema-serialization-format>).

use std::fmt;

use arrow_schema::{DataType as Arrow, Field as ArrowField, TimeUnit};
use millrace_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeltaType {
    Boolean,
    Byte,
    Short,
    Integer,
    Long,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    Binary,
    Date,
    Timestamp,
    TimestampNtz,
    /// `array<string>`: the only nested type that this sink writes.
    TextList,
    /// A type that others may write and this sink does not.
    Foreign(Value),
}

impl DeltaType {
    fn to_json(&self) -> Value {
        match self {
            DeltaType::TextList => {
                serde_json::json!({ "type": "array", "elementType": "string", "containsNull": false })
            }
            DeltaType::Foreign(value) => value.clone(),
            simple => Value::String(simple.to_string()),
        }
    }

    fn from_json(value: &Value) -> Self {
        let Some(name) = value.as_str() else {
            let is_text_list = value["type"] == "array" && value["elementType"] == "string";
            return if is_text_list { DeltaType::TextList } else { DeltaType::Foreign(value.clone()) };
        };
        match name {
            "boolean" => DeltaType::Boolean,
            "byte" => DeltaType::Byte,
            "short" => DeltaType::Short,
            "integer" => DeltaType::Integer,
            "long" => DeltaType::Long,
            "float" => DeltaType::Float,
            "double" => DeltaType::Double,
            "string" => DeltaType::Text,
            "binary" => DeltaType::Binary,
            "date" => DeltaType::Date,
            "timestamp" => DeltaType::Timestamp,
            "timestamp_ntz" => DeltaType::TimestampNtz,
            other => parse_decimal(other).unwrap_or_else(|| DeltaType::Foreign(value.clone())),
        }
    }

    /// How the column stands in the Parquet files that we write.
    pub(crate) fn arrow(&self) -> Arrow {
        match self {
            DeltaType::Boolean => Arrow::Boolean,
            DeltaType::Byte => Arrow::Int8,
            DeltaType::Short => Arrow::Int16,
            DeltaType::Integer => Arrow::Int32,
            DeltaType::Long => Arrow::Int64,
            DeltaType::Float => Arrow::Float32,
            DeltaType::Double => Arrow::Float64,
            DeltaType::Decimal { precision, scale } => Arrow::Decimal128(*precision, *scale as i8),
            DeltaType::Text => Arrow::Utf8,
            DeltaType::Binary => Arrow::Binary,
            DeltaType::Date => Arrow::Date32,
            DeltaType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DeltaType::TimestampNtz => Arrow::Timestamp(TimeUnit::Microsecond, None),
            DeltaType::TextList => Arrow::List(ArrowField::new("element", Arrow::Utf8, false).into()),
            DeltaType::Foreign(_) => Arrow::Null,
        }
    }
}

fn parse_decimal(name: &str) -> Option<DeltaType> {
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    Some(DeltaType::Decimal { precision: precision.trim().parse().ok()?, scale: scale.trim().parse().ok()? })
}

impl fmt::Display for DeltaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeltaType::Boolean => "boolean",
            DeltaType::Byte => "byte",
            DeltaType::Short => "short",
            DeltaType::Integer => "integer",
            DeltaType::Long => "long",
            DeltaType::Float => "float",
            DeltaType::Double => "double",
            DeltaType::Decimal { precision, scale } => return write!(f, "decimal({precision},{scale})"),
            DeltaType::Text => "string",
            DeltaType::Binary => "binary",
            DeltaType::Date => "date",
            DeltaType::Timestamp => "timestamp",
            DeltaType::TimestampNtz => "timestamp_ntz",
            DeltaType::TextList => "array<string>",
            DeltaType::Foreign(value) => return write!(f, "{value}"),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub name: String,
    pub ty: DeltaType,
    pub nullable: bool,
    pub metadata: Map<String, Value>,
}

impl Field {
    pub(crate) fn new(name: impl Into<String>, ty: DeltaType) -> Self {
        Self { name: name.into(), ty, nullable: true, metadata: Map::new() }
    }
}

/// In a column's metadata: from which types it was widened.
pub(crate) const TYPE_CHANGES: &str = "delta.typeChanges";

/// The columns of a table, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeltaSchema {
    pub fields: Vec<Field>,
}

#[derive(Serialize, Deserialize)]
struct StructJson {
    r#type: String,
    fields: Vec<FieldJson>,
}

#[derive(Serialize, Deserialize)]
struct FieldJson {
    name: String,
    r#type: Value,
    nullable: bool,
    #[serde(default)]
    metadata: Map<String, Value>,
}

impl DeltaSchema {
    pub(crate) fn parse(place: &str, text: &str) -> Result<Self> {
        let parsed: StructJson = serde_json::from_str(text)
            .map_err(|e| Error::halt("log.damaged", format!("{place}: the table's schema does not parse: {e}")))?;
        let fields = parsed.fields.into_iter().map(|f| Field {
            ty: DeltaType::from_json(&f.r#type),
            name: f.name,
            nullable: f.nullable,
            metadata: f.metadata,
        });
        Ok(Self { fields: fields.collect() })
    }

    pub(crate) fn to_text(&self) -> String {
        let fields = self.fields.iter().map(|f| {
            serde_json::json!({ "name": f.name, "type": f.ty.to_json(), "nullable": f.nullable, "metadata": f.metadata })
        });
        serde_json::json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() }).to_string()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Delta's column names are told apart without regard to case.
    pub(crate) fn field_of_any_case(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name.to_lowercase() == name.to_lowercase())
    }

    /// Whether a column has another type than older files have it in.
    pub(crate) fn has_widened(&self) -> bool {
        self.fields.iter().any(|f| f.metadata.contains_key(TYPE_CHANGES))
    }

    pub(crate) fn needs_timestamp_ntz(&self) -> bool {
        self.fields.iter().any(|f| f.ty == DeltaType::TimestampNtz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_schema_string() {
        let foreign = serde_json::json!({"type":"map","keyType":"string","valueType":"long","valueContainsNull":true});
        let types = [
            DeltaType::Boolean,
            DeltaType::Byte,
            DeltaType::Short,
            DeltaType::Integer,
            DeltaType::Long,
            DeltaType::Float,
            DeltaType::Double,
            DeltaType::Decimal { precision: 38, scale: 9 },
            DeltaType::Text,
            DeltaType::Binary,
            DeltaType::Date,
            DeltaType::Timestamp,
            DeltaType::TimestampNtz,
            DeltaType::TextList,
            DeltaType::Foreign(foreign),
        ];
        let fields = types.into_iter().enumerate().map(|(i, ty)| Field::new(format!("c{i}"), ty)).collect();
        let schema = DeltaSchema { fields };
        assert_eq!(DeltaSchema::parse("t", &schema.to_text()).unwrap(), schema);
    }

    #[test]
    fn columns_are_found_without_regard_to_case() {
        let schema = DeltaSchema { fields: vec![Field::new("Name", DeltaType::Text)] };
        assert!(schema.field("name").is_none());
        assert_eq!(schema.field_of_any_case("nAME").unwrap().name, "Name");
    }
}
