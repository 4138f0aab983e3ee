//! Tables and columns, as sources declare them and stages change them.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use serde::{Deserialize, Serialize};

/// Namespace (schema, database) and table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct TableName {
    pub namespace: Arc<str>,
    pub table: Arc<str>,
}

impl TableName {
    pub fn new(namespace: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), table: table.into() }
    }
}

/// `namespace.table`, or `table` alone where there is no namespace.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.table)
        } else {
            write!(f, "{}.{}", self.namespace, self.table)
        }
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

/// Splits at the first dot.
impl From<String> for TableName {
    fn from(text: String) -> Self {
        match text.split_once('.') {
            Some((namespace, table)) => Self::new(namespace, table),
            None => Self::new("", text),
        }
    }
}

/// The type of a column, as in the plugin contract (`wit/`), and how its cells stand in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ColumnType {
    Boolean,
    /// Arrow `Int16` (there is no 8-bit column in any source yet; the narrowest is widened).
    Int8,
    Int16,
    Int32,
    Int64,
    UInt64,
    Float32,
    Float64,
    /// Precision 1 to 38: Arrow `Decimal128`.
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// No or more than 38 digits: Arrow `Utf8`, canonical text, also `NaN` and `Infinity`.
    BigDecimal,
    Text,
    Binary,
    /// Arrow `FixedSizeBinary(16)`.
    Uuid,
    /// Days since 1970-01-01; the least and the greatest value are -infinity and infinity.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 1970-01-01 of an unknown zone; least and greatest value are -infinity and infinity.
    Timestamp,
    /// Microseconds since 1970-01-01 UTC; least and greatest value are -infinity and infinity.
    TimestampTz,
    /// One JSON document a row, as text.
    Json,
    /// Any other type by its logical name, as the source's own text.
    Other(Arc<str>),
}

impl ColumnType {
    pub fn arrow(&self) -> DataType {
        match self {
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Int8 | ColumnType::Int16 => DataType::Int16,
            ColumnType::Int32 => DataType::Int32,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::UInt64 => DataType::UInt64,
            ColumnType::Float32 => DataType::Float32,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            ColumnType::BigDecimal | ColumnType::Text | ColumnType::Json | ColumnType::Other(_) => DataType::Utf8,
            ColumnType::Binary => DataType::Binary,
            ColumnType::Uuid => DataType::FixedSizeBinary(16),
            ColumnType::Date => DataType::Date32,
            ColumnType::Time => DataType::Time64(TimeUnit::Microsecond),
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            ColumnType::Decimal { precision, scale } => return write!(f, "decimal({precision},{scale})"),
            ColumnType::Other(name) => return write!(f, "other({name})"),
            ColumnType::Boolean => "boolean",
            ColumnType::Int8 => "int8",
            ColumnType::Int16 => "int16",
            ColumnType::Int32 => "int32",
            ColumnType::Int64 => "int64",
            ColumnType::UInt64 => "uint64",
            ColumnType::Float32 => "float32",
            ColumnType::Float64 => "float64",
            ColumnType::BigDecimal => "decimal",
            ColumnType::Text => "text",
            ColumnType::Binary => "binary",
            ColumnType::Uuid => "uuid",
            ColumnType::Date => "date",
            ColumnType::Time => "time",
            ColumnType::Timestamp => "timestamp",
            ColumnType::TimestampTz => "timestamp-tz",
            ColumnType::Json => "json",
        };
        f.write_str(name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: Arc<str>,
    pub ty: ColumnType,
    pub nullable: bool,
    /// Part of the row's identity.
    pub key: bool,
    /// Native name at the source (`numeric(10,2)`); empty for a plugin's own column.
    pub source_type: Arc<str>,
}

impl Column {
    pub fn new(name: impl Into<Arc<str>>, ty: ColumnType) -> Self {
        Self { name: name.into(), ty, nullable: true, key: false, source_type: "".into() }
    }

    #[must_use]
    pub fn key(mut self) -> Self {
        self.key = true;
        self.nullable = false;
        self
    }

    #[must_use]
    pub fn not_null(mut self) -> Self {
        self.nullable = false;
        self
    }
}

/// Which before-images the updates and deletes of a table carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Images {
    None,
    /// The key (PostgreSQL's default replica identity); of an update only where the key changes.
    Key,
    /// The whole row.
    Full,
}

/// One version of a table's form. Batches share it by `Arc`; a new version is a new `Arc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub name: TableName,
    pub columns: Vec<Column>,
    pub images: Images,
}

impl TableSchema {
    pub fn new(name: TableName, columns: Vec<Column>, images: Images) -> Self {
        Self { name, columns, images }
    }

    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns.iter().enumerate().find(|(_, c)| &*c.name == name)
    }

    /// The Arrow form of the columns; every field is nullable there, since a cell whose value is unavailable is
    /// stored as null beside its bit.
    pub fn arrow(&self) -> Schema {
        Schema::new(self.columns.iter().map(|c| Field::new(&*c.name, c.ty.arrow(), true)).collect::<Vec<_>>())
    }
}
