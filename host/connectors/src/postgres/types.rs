//! Which PostgreSQL type becomes which column type, and how its text is read. The table for users is
//! docs/src/postgres-types.md; keep them together.

use std::collections::BTreeMap;

use millrace_core::builder::{Cells, ColumnBuilder};
use millrace_core::schema::ColumnType;

use super::text::{self, Element, MALFORMED, Unfit};

/// A row of `pg_type`, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PgType {
    pub(super) name: String,
    /// `typtype`: b base, c composite, d domain, e enum, p pseudo, r range, m multirange.
    pub(super) kind: u8,
    /// `typcategory`: A array, S string, …
    pub(super) category: u8,
    /// Of a domain: its base type and that one's typmod.
    pub(super) base: Option<(u32, i32)>,
    /// Of an array: its element type.
    pub(super) element: Option<u32>,
    /// `typdelim`: what divides the elements of an array of this type.
    pub(super) delimiter: u8,
}

/// The types of a database by oid, as far as its tables use them.
pub(super) type Types = BTreeMap<u32, PgType>;

/// How the text of a column's values is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decode {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    /// `scale` digits after the point.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bytea,
    Uuid,
    Date,
    Time,
    Timestamp,
    /// As sent.
    Text,
    Array {
        element: Element,
        delimiter: u8,
    },
}

/// Oids of `pg_type.dat`, which never change.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const CHAR: u32 = 18;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT2VECTOR: u32 = 22;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
    pub(super) const XID: u32 = 28;
    pub(super) const CID: u32 = 29;
    pub(super) const OIDVECTOR: u32 = 30;
    pub(super) const JSON: u32 = 114;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = 1083;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
}

/// The column type of a PostgreSQL type, and how to read it. Domains are what they are made of.
pub(super) fn plan(oid: u32, typmod: i32, types: &Types) -> (ColumnType, Decode) {
    let (oid, typmod) = resolved(oid, typmod, types);
    match oid {
        oid::BOOL => (ColumnType::Boolean, Decode::Bool),
        oid::INT2 => (ColumnType::Int16, Decode::Int16),
        oid::INT4 => (ColumnType::Int32, Decode::Int32),
        oid::INT8 | oid::OID | oid::XID | oid::CID => (ColumnType::Int64, Decode::Int64),
        oid::FLOAT4 => (ColumnType::Float32, Decode::Float32),
        oid::FLOAT8 => (ColumnType::Float64, Decode::Float64),
        oid::NUMERIC => numeric(typmod),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR => (ColumnType::Text, Decode::Text),
        oid::BYTEA => (ColumnType::Binary, Decode::Bytea),
        oid::UUID => (ColumnType::Uuid, Decode::Uuid),
        oid::DATE => (ColumnType::Date, Decode::Date),
        oid::TIME => (ColumnType::Time, Decode::Time),
        oid::TIMESTAMP => (ColumnType::Timestamp, Decode::Timestamp),
        oid::TIMESTAMPTZ => (ColumnType::TimestampTz, Decode::Timestamp),
        oid::JSON | oid::JSONB => (ColumnType::Json, Decode::Text),
        _ => other(oid, types),
    }
}

fn other(oid: u32, types: &Types) -> (ColumnType, Decode) {
    let Some(ty) = types.get(&oid) else {
        // Dropped since: the stream still carries its values.
        return (ColumnType::Other("unknown".into()), Decode::Text);
    };
    match (ty.kind, ty.element) {
        (_, Some(element)) if oid != oid::INT2VECTOR && oid != oid::OIDVECTOR => {
            (ColumnType::Json, array(element, types))
        }
        (b'e', _) => (ColumnType::Text, Decode::Text),
        // citext and its like.
        (b'b', _) if ty.category == b'S' => (ColumnType::Text, Decode::Text),
        _ => (ColumnType::Other(ty.name.as_str().into()), Decode::Text),
    }
}

fn array(element: u32, types: &Types) -> Decode {
    let delimiter = types.get(&element).map_or(b',', |t| t.delimiter);
    let (element, _) = resolved(element, -1, types);
    let element = match element {
        oid::INT2
        | oid::INT4
        | oid::INT8
        | oid::OID
        | oid::XID
        | oid::CID
        | oid::FLOAT4
        | oid::FLOAT8
        | oid::NUMERIC => Element::Number,
        oid::BOOL => Element::Boolean,
        oid::JSON | oid::JSONB => Element::Json,
        _ => Element::Text,
    };
    Decode::Array { element, delimiter }
}

/// Through domains over domains; their depth is bounded so that a broken catalog can not hang us.
fn resolved(mut oid: u32, mut typmod: i32, types: &Types) -> (u32, i32) {
    for _ in 0..32 {
        match types.get(&oid).and_then(|t| t.base) {
            Some((base, base_typmod)) => (oid, typmod) = (base, base_typmod),
            None => break,
        }
    }
    (oid, typmod)
}

/// `numeric(p,s)`: typmod is `(p << 16 | s & 0x7ff) + 4`, the scale an 11-bit signed number (PostgreSQL 15 on).
///
/// A negative scale is a decimal without fraction and with as many more digits; a scale beyond the precision a
/// decimal of that precision: neither Parquet nor Delta has the others. More than 38 digits go as text.
fn numeric(typmod: i32) -> (ColumnType, Decode) {
    if typmod < 4 {
        return (ColumnType::BigDecimal, Decode::Text);
    }
    let precision = (typmod - 4) >> 16 & 0xffff;
    let scale = (((typmod - 4) & 0x7ff) ^ 1_024) - 1_024;
    let digits = (precision - scale.min(0)).max(scale);
    match (u8::try_from(digits), u8::try_from(scale.max(0))) {
        (Ok(precision @ 1..=38), Ok(scale)) => {
            (ColumnType::Decimal { precision, scale: scale as i8 }, Decode::Decimal { precision, scale })
        }
        _ => (ColumnType::BigDecimal, Decode::Text),
    }
}

/// Space that values are unpacked into, kept from row to row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    json: String,
}

impl Decode {
    /// Appends the value to the column. On an error nothing was appended.
    #[inline]
    pub(super) fn append(self, value: &[u8], column: &mut ColumnBuilder, scratch: &mut Scratch) -> Result<(), Unfit> {
        // One arm a kind of value.
        match (self, &mut column.cells) {
            (Decode::Text, Cells::Text(b)) => b.append_value(text::utf8(value)?),
            (Decode::Int64, Cells::Int64(b)) => b.append_value(text::integer(value)?),
            (Decode::Int32, Cells::Int32(b)) => b.append_value(narrow(value)?),
            (Decode::Int16, Cells::Int16(b)) => b.append_value(narrow(value)?),
            (Decode::Timestamp, Cells::Timestamp(b)) => b.append_value(text::timestamp(value)?),
            (Decode::Decimal { precision, scale }, Cells::Decimal(b)) => {
                b.append_value(text::decimal(value, precision, scale)?)
            }
            (Decode::Bool, Cells::Boolean(b)) => b.append_value(text::boolean(value)?),
            (Decode::Float64, Cells::Float64(b)) => b.append_value(text::float64(value)?),
            (Decode::Float32, Cells::Float32(b)) => b.append_value(text::float32(value)?),
            (Decode::Date, Cells::Date(b)) => b.append_value(text::date(value)?),
            (Decode::Time, Cells::Time(b)) => b.append_value(text::time(value)?),
            (Decode::Uuid, Cells::Uuid(b)) => b.append_value(text::uuid(value)?).map_err(|_| MALFORMED)?,
            (Decode::Bytea, Cells::Binary(b)) => {
                scratch.bytes.clear();
                text::bytea(value, &mut scratch.bytes)?;
                b.append_value(&scratch.bytes);
            }
            (Decode::Array { element, delimiter }, Cells::Text(b)) => {
                scratch.json.clear();
                text::json_array(value, element, delimiter, &mut scratch.json)?;
                b.append_value(&scratch.json);
            }
            // `plan` makes the two together.
            _ => return Err(MALFORMED),
        }
        Ok(())
    }
}

fn narrow<N: TryFrom<i64>>(value: &[u8]) -> Result<N, Unfit> {
    N::try_from(text::integer(value)?).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typmod(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + 4
    }

    #[test]
    fn numeric_becomes_a_decimal_where_one_holds_it() {
        let decimal =
            |p, s| (ColumnType::Decimal { precision: p, scale: s as i8 }, Decode::Decimal { precision: p, scale: s });
        assert_eq!(numeric(typmod(10, 2)), decimal(10, 2));
        assert_eq!(numeric(typmod(38, 0)), decimal(38, 0));
        assert_eq!(numeric(typmod(3, -2)), decimal(5, 0));
        assert_eq!(numeric(typmod(3, 5)), decimal(5, 5));
        for text in [-1, typmod(39, 0), typmod(38, -1), typmod(2, 39), typmod(1000, 1000)] {
            assert_eq!(numeric(text), (ColumnType::BigDecimal, Decode::Text), "{text}");
        }
    }

    #[test]
    fn domains_enums_and_arrays_are_resolved() {
        let ty = |name: &str, kind, category| PgType {
            name: name.into(),
            kind,
            category,
            base: None,
            element: None,
            delimiter: b',',
        };
        let mut types = Types::new();
        types.insert(1, PgType { base: Some((2, -1)), ..ty("outer", b'd', b'N') });
        types.insert(2, PgType { base: Some((oid::NUMERIC, typmod(6, 1))), ..ty("inner", b'd', b'N') });
        types.insert(3, ty("mood", b'e', b'E'));
        types.insert(4, PgType { element: Some(1), ..ty("_outer", b'b', b'A') });
        types.insert(5, ty("inet", b'b', b'I'));
        types.insert(6, ty("citext", b'b', b'S'));
        assert_eq!(plan(1, -1, &types).0, ColumnType::Decimal { precision: 6, scale: 1 });
        assert_eq!(plan(3, -1, &types).0, ColumnType::Text);
        assert_eq!(
            plan(4, -1, &types),
            (ColumnType::Json, Decode::Array { element: Element::Number, delimiter: b',' })
        );
        assert_eq!(plan(5, -1, &types).0, ColumnType::Other("inet".into()));
        assert_eq!(plan(6, -1, &types).0, ColumnType::Text);
        assert_eq!(plan(99, -1, &types).0, ColumnType::Other("unknown".into()));
    }
}
