//! From the words of a case to a change batch.

use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, ColumnBuilder, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use serde_json::Value as Json;

use super::case::{Given, Row};

const TABLE: (&str, &str) = ("public", "t");

/// The table of these columns.
pub(super) fn schema(columns: &[String]) -> Result<Arc<TableSchema>, String> {
    let columns = columns.iter().map(|text| column(text).ok_or_else(|| format!("`{text}` is no column")));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(TableSchema::new(TableName::new(TABLE.0, TABLE.1), columns, Images::Full)))
}

fn column(text: &str) -> Option<Column> {
    let mut words = text.split(' ');
    let (name, ty) = (words.next()?, column_type(words.next()?)?);
    let column = Column::new(name, ty);
    words.try_fold(column, |column, word| match word {
        "key" => Some(column.key()),
        "not-null" => Some(column.not_null()),
        _ => None,
    })
}

/// A column in the words of a case.
pub(super) fn words(column: &Column) -> String {
    let key = if column.key { " key" } else { "" };
    let not_null = if column.nullable || column.key { "" } else { " not-null" };
    format!("{} {}{key}{not_null}", column.name, column.ty)
}

fn column_type(name: &str) -> Option<ColumnType> {
    Some(match name {
        "boolean" => ColumnType::Boolean,
        "int8" => ColumnType::Int8,
        "int16" => ColumnType::Int16,
        "int32" => ColumnType::Int32,
        "int64" => ColumnType::Int64,
        "uint64" => ColumnType::UInt64,
        "float32" => ColumnType::Float32,
        "float64" => ColumnType::Float64,
        "decimal" => ColumnType::BigDecimal,
        "text" => ColumnType::Text,
        "binary" => ColumnType::Binary,
        "uuid" => ColumnType::Uuid,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time,
        "timestamp" => ColumnType::Timestamp,
        "timestamp-tz" => ColumnType::TimestampTz,
        "json" => ColumnType::Json,
        _ => {
            let (kind, inner) = name.strip_suffix(')')?.split_once('(')?;
            match kind {
                "other" => ColumnType::Other(inner.into()),
                "decimal" => {
                    let (precision, scale) = inner.split_once(',')?;
                    ColumnType::Decimal { precision: precision.parse().ok()?, scale: scale.parse().ok()? }
                }
                _ => return None,
            }
        }
    })
}

/// The changes as one batch, numbered from `first`.
pub(super) fn batch(schema: &Arc<TableSchema>, given: &[Given], first: usize) -> Result<Option<ChangeBatch>, String> {
    let source = SourceKey::new("public.t");
    let mut rows = RowsBuilder::new(source, schema.clone(), false, given.len()).map_err(|e| e.to_string())?;
    for (index, change) in given.iter().enumerate() {
        rows.begin_change(Order::new(1, (first + index) as i64), 0);
        for (change_type, row) in images(change) {
            rows.begin_row(change_type);
            for (column, cells) in schema.columns.iter().zip(rows.columns()) {
                append(cells, column, row.get(&*column.name))
                    .ok_or_else(|| format!("change {}: column {} is {}", first + index, column.name, column.ty))?;
            }
        }
    }
    rows.finish().map_err(|e| e.to_string())
}

fn images(change: &Given) -> Vec<(ChangeType, &Row)> {
    match change {
        Given::Insert(row) => vec![(ChangeType::Insert, row)],
        Given::Delete(row) => vec![(ChangeType::Delete, row)],
        Given::Update { before, after } => {
            let before = before.as_ref().map(|row| (ChangeType::UpdatePreimage, row));
            before.into_iter().chain([(ChangeType::UpdatePostimage, after)]).collect()
        }
    }
}

fn append(column: &mut ColumnBuilder, form: &Column, value: Option<&Json>) -> Option<()> {
    let Some(value) = value else {
        column.append_unavailable();
        return Some(());
    };
    if value.is_null() {
        column.append_null();
        return Some(());
    }
    let float = || value.as_f64().or_else(|| value.as_str()?.parse().ok());
    match (&mut column.cells, &form.ty) {
        (Cells::Boolean(b), _) => b.append_value(value.as_bool()?),
        (Cells::Int16(b), _) => b.append_value(value.as_i64()?.try_into().ok()?),
        (Cells::Int32(b), _) => b.append_value(value.as_i64()?.try_into().ok()?),
        (Cells::Int64(b), _) => b.append_value(value.as_i64()?),
        (Cells::UInt64(b), _) => b.append_value(value.as_u64()?),
        (Cells::Float32(b), _) => b.append_value(float()? as f32),
        (Cells::Float64(b), _) => b.append_value(float()?),
        (Cells::Decimal(b), ColumnType::Decimal { precision, scale }) => {
            b.append_value(crate::schema::decimal_value(value.as_str()?, *precision, *scale)?)
        }
        (Cells::Text(b), ColumnType::Json) => b.append_value(value.to_string()),
        (Cells::Text(b), _) => b.append_value(value.as_str()?),
        (Cells::Binary(b), _) => b.append_value(hex(value.as_str()?.strip_prefix("\\x")?)?),
        (Cells::Uuid(b), _) => b.append_value(hex(&value.as_str()?.replace('-', ""))?).ok()?,
        (Cells::Date(b), _) => b.append_value(moment(value, i32::MIN, i32::MAX, |v| v.try_into().ok())?),
        (Cells::Time(b), _) => b.append_value(value.as_i64()?),
        (Cells::Timestamp(b), _) => b.append_value(moment(value, i64::MIN, i64::MAX, Some)?),
        (Cells::Decimal(_), _) => return None,
    }
    Some(())
}

fn moment<T>(value: &Json, least: T, most: T, at: impl Fn(i64) -> Option<T>) -> Option<T> {
    match value.as_str() {
        Some("-infinity") => Some(least),
        Some("infinity") => Some(most),
        Some(_) => None,
        None => at(value.as_i64()?),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}
