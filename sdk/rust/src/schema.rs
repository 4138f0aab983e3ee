//! What a plugin is told of a table: the granted columns, in table order.

use crate::bindings::types;

/// A table at one schema version, as far as the pipeline granted it to the plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// e.g. "shop"; filled by the host
    pub connector: String,
    /// e.g. "public"
    pub namespace: String,
    /// e.g. "orders"
    pub table: String,
    /// What updates and deletes carry of the row before.
    pub images: Images,
    /// The granted columns. The plugin can neither see, name, change nor drop any other.
    pub columns: Vec<ColumnDef>,
}

/// Before-images that updates and deletes of a table carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// none
    None,
    /// the key
    Key,
    /// the whole row
    Full,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    /// its name
    pub name: String,
    /// its type
    pub ty: DataType,
    /// may hold NULL
    pub nullable: bool,
    /// part of the row's identity
    pub key: bool,
    /// the native name, e.g. "numeric(10,2)"; empty for a plugin's own column
    pub source_type: String,
    /// what a later contract may add: passed on as it is
    pub ext: Vec<(String, String)>,
}

impl ColumnDef {
    /// A nullable column that is no key.
    pub fn new(name: impl Into<String>, ty: DataType) -> Self {
        ColumnDef { name: name.into(), ty, nullable: true, key: false, source_type: String::new(), ext: Vec::new() }
    }
}

/// The type of a column. See the contract (`types.wit`) for how each travels.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DataType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt64,
    Float32,
    Float64,
    /// precision 1 to 18
    Decimal64 {
        precision: u8,
        scale: i8,
    },
    /// any other precision; 0 is unconstrained
    Decimal {
        precision: u8,
        scale: i8,
    },
    Text,
    Binary,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Json,
    /// A type of this name that the SDK does not know: pass it on.
    Other(String),
}

impl DataType {
    /// Whether its values are numbers: integers, floats, decimals.
    pub fn is_number(&self) -> bool {
        use DataType as T;
        matches!(
            self,
            T::Int8
                | T::Int16
                | T::Int32
                | T::Int64
                | T::UInt64
                | T::Float32
                | T::Float64
                | T::Decimal64 { .. }
                | T::Decimal { .. }
        )
    }

    /// The type of this name: "int64", "text", "decimal(20,2)", "timestamp_tz" …
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "boolean" | "bool" => DataType::Boolean,
            "int8" => DataType::Int8,
            "int16" => DataType::Int16,
            "int32" => DataType::Int32,
            "int64" => DataType::Int64,
            "uint64" => DataType::UInt64,
            "float32" => DataType::Float32,
            "float64" => DataType::Float64,
            "text" => DataType::Text,
            "binary" => DataType::Binary,
            "uuid" => DataType::Uuid,
            "date" => DataType::Date,
            "time" => DataType::Time,
            "timestamp" => DataType::Timestamp,
            "timestamp_tz" | "timestamp-tz" => DataType::TimestampTz,
            "json" => DataType::Json,
            _ => {
                let inner = name.strip_prefix("decimal(")?.strip_suffix(')')?;
                let (precision, scale) = inner.split_once(',')?;
                let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                match precision {
                    1..=18 => DataType::Decimal64 { precision, scale },
                    _ => DataType::Decimal { precision, scale },
                }
            }
        })
    }
}

/// As [`DataType::parse`] reads it.
impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            DataType::Boolean => "boolean",
            DataType::Int8 => "int8",
            DataType::Int16 => "int16",
            DataType::Int32 => "int32",
            DataType::Int64 => "int64",
            DataType::UInt64 => "uint64",
            DataType::Float32 => "float32",
            DataType::Float64 => "float64",
            DataType::Decimal { precision: 0, .. } => "decimal",
            DataType::Decimal64 { precision, scale } | DataType::Decimal { precision, scale } => {
                return write!(f, "decimal({precision},{scale})");
            }
            DataType::Text => "text",
            DataType::Binary => "binary",
            DataType::Uuid => "uuid",
            DataType::Date => "date",
            DataType::Time => "time",
            DataType::Timestamp => "timestamp",
            DataType::TimestampTz => "timestamp_tz",
            DataType::Json => "json",
            DataType::Other(name) => name,
        };
        f.write_str(name)
    }
}

impl Schema {
    /// The column of this name, if the pipeline granted it.
    pub fn column(&self, name: &str) -> Option<&ColumnDef> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// `namespace.table`, or the table's name alone where there is no namespace.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.table.clone() } else { format!("{}.{}", self.namespace, self.table) }
    }
}

impl From<types::TableSchema> for Schema {
    fn from(t: types::TableSchema) -> Self {
        let images = match t.images {
            0 => Images::None,
            1 => Images::Key,
            _ => Images::Full,
        };
        let columns = t.columns.into_iter().map(ColumnDef::from).collect();
        Schema { connector: t.connector, namespace: t.namespace, table: t.table, images, columns }
    }
}

impl From<Schema> for types::TableSchema {
    fn from(s: Schema) -> Self {
        let images = match s.images {
            Images::None => 0,
            Images::Key => 1,
            Images::Full => 2,
        };
        let columns = s.columns.into_iter().map(types::ColumnDef::from).collect();
        let (namespace, table, ext) = (s.namespace, s.table, Vec::new());
        types::TableSchema { connector: s.connector, namespace, table, registry_ref: None, images, ext, columns }
    }
}

impl From<types::ColumnDef> for ColumnDef {
    fn from(c: types::ColumnDef) -> Self {
        let types::ColumnDef { name, ty, nullable, key, source_type, ext } = c;
        ColumnDef { name, ty: ty.into(), nullable, key, source_type, ext }
    }
}

impl From<ColumnDef> for types::ColumnDef {
    fn from(c: ColumnDef) -> Self {
        let ColumnDef { name, ty, nullable, key, source_type, ext } = c;
        types::ColumnDef { name, ty: ty.into(), nullable, key, source_type, ext }
    }
}

impl From<types::DataType> for DataType {
    fn from(ty: types::DataType) -> Self {
        use types::DataType as Wit;
        match ty {
            Wit::Boolean => DataType::Boolean,
            Wit::Int8 => DataType::Int8,
            Wit::Int16 => DataType::Int16,
            Wit::Int32 => DataType::Int32,
            Wit::Int64 => DataType::Int64,
            Wit::Uint64 => DataType::UInt64,
            Wit::Float32 => DataType::Float32,
            Wit::Float64 => DataType::Float64,
            Wit::Decimal64(d) => DataType::Decimal64 { precision: d.precision, scale: d.scale },
            Wit::Decimal(d) => DataType::Decimal { precision: d.precision, scale: d.scale },
            Wit::Text => DataType::Text,
            Wit::Binary => DataType::Binary,
            Wit::Uuid => DataType::Uuid,
            Wit::Date => DataType::Date,
            Wit::Time => DataType::Time,
            Wit::Timestamp => DataType::Timestamp,
            Wit::TimestampTz => DataType::TimestampTz,
            Wit::Json => DataType::Json,
            Wit::Other(name) => DataType::Other(name),
        }
    }
}

impl From<DataType> for types::DataType {
    fn from(ty: DataType) -> Self {
        use types::DataType as Wit;
        match ty {
            DataType::Boolean => Wit::Boolean,
            DataType::Int8 => Wit::Int8,
            DataType::Int16 => Wit::Int16,
            DataType::Int32 => Wit::Int32,
            DataType::Int64 => Wit::Int64,
            DataType::UInt64 => Wit::Uint64,
            DataType::Float32 => Wit::Float32,
            DataType::Float64 => Wit::Float64,
            DataType::Decimal64 { precision, scale } => Wit::Decimal64(types::DecimalType { precision, scale }),
            DataType::Decimal { precision, scale } => Wit::Decimal(types::DecimalType { precision, scale }),
            DataType::Text => Wit::Text,
            DataType::Binary => Wit::Binary,
            DataType::Uuid => Wit::Uuid,
            DataType::Date => Wit::Date,
            DataType::Time => Wit::Time,
            DataType::Timestamp => Wit::Timestamp,
            DataType::TimestampTz => Wit::TimestampTz,
            DataType::Json => Wit::Json,
            DataType::Other(name) => Wit::Other(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_found_by_its_name() {
        assert_eq!(DataType::parse("int64"), Some(DataType::Int64));
        assert_eq!(DataType::parse("decimal(10, 2)"), Some(DataType::Decimal64 { precision: 10, scale: 2 }));
        assert_eq!(DataType::parse("decimal(38,2)"), Some(DataType::Decimal { precision: 38, scale: 2 }));
        assert_eq!(DataType::parse("money"), None);
        for name in ["boolean", "int8", "uint64", "float32", "decimal(10,2)", "decimal(38,4)", "timestamp_tz", "json"] {
            assert_eq!(DataType::parse(name).map(|ty| ty.to_string()).as_deref(), Some(name));
        }
    }
}
