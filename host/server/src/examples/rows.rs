//! From the rows of an example to change batches.

use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, ColumnBuilder, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::{Error, Result};
use serde_json::{Map, Value};

use crate::config::model::{TestCase, TestChange, TestTable};

type Row = Map<String, Value>;

/// One batch a table, in the order in which the tables first appear.
pub(super) fn batches(case: &TestCase) -> Result<Vec<ChangeBatch>> {
    let mut tables: Vec<&str> = Vec::new();
    for change in &case.given {
        if !tables.contains(&change.table.as_str()) {
            tables.push(&change.table);
        }
    }
    tables.into_iter().map(|table| batch(case, table)).collect()
}

fn batch(case: &TestCase, table: &str) -> Result<ChangeBatch> {
    let changes: Vec<&TestChange> = case.given.iter().filter(|c| c.table == table).collect();
    let form = case.tables.get(table).cloned().unwrap_or_default();
    let schema = Arc::new(schema(table, &changes, &form)?);
    let mut builder = RowsBuilder::new(SourceKey::new(table), schema.clone(), false, changes.len() * 2)?;
    for (index, change) in changes.iter().enumerate() {
        builder.begin_change(Order::new(index as i64 + 1, 1), 0);
        for (change_type, row) in images(change) {
            builder.begin_row(change_type);
            for (column, cells) in schema.columns.iter().zip(builder.columns()) {
                append(cells, column, row.get(&*column.name)).map_err(|reason| {
                    Error::config("test.value", format!("{table}: column `{}` {reason}", column.name))
                        .hint(format!("it is {}; give another type in `tables` of the test", column.ty))
                })?;
            }
        }
    }
    builder.finish()?.ok_or_else(|| Error::config("test.given", format!("{table}: no change is given")))
}

fn images(change: &TestChange) -> Vec<(ChangeType, &Row)> {
    let mut images = Vec::with_capacity(2);
    images.extend(change.insert.as_ref().map(|row| (ChangeType::Insert, row)));
    images.extend(change.delete.as_ref().map(|row| (ChangeType::Delete, row)));
    if let Some(update) = &change.update {
        images.extend(update.before.as_ref().map(|row| (ChangeType::UpdatePreimage, row)));
        images.push((ChangeType::UpdatePostimage, &update.after));
    }
    images
}

fn schema(table: &str, changes: &[&TestChange], form: &TestTable) -> Result<TableSchema> {
    let rows: Vec<&Row> = changes.iter().flat_map(|c| images(c)).map(|(_, row)| row).collect();
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let has_id = names.contains(&"id");
    let is_key = |index: usize, name: &str| match form.key.as_slice() {
        [] if has_id => name == "id",
        [] => index == 0,
        key => key.iter().any(|k| k == name),
    };
    let mut columns = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let ty = match form.columns.get(*name) {
            Some(text) => column_type(text)
                .ok_or_else(|| Error::config("test.type", format!("`{text}` is no type of a column")))?,
            None => inferred(rows.iter().filter_map(|row| row.get(*name))),
        };
        let column = Column::new(*name, ty);
        columns.push(if is_key(index, name) { column.key() } else { column });
    }
    let whole = changes.iter().all(|c| c.update.as_ref().is_none_or(|u| u.before.is_some()));
    let images = if whole { Images::Full } else { Images::Key };
    Ok(TableSchema::new(TableName::from(table.to_owned()), columns, images))
}

/// The narrowest type that holds every value that is given.
fn inferred<'v>(values: impl Iterator<Item = &'v Value>) -> ColumnType {
    let mut found = None;
    for value in values {
        let ty = match value {
            Value::Null => continue,
            Value::Bool(_) => ColumnType::Boolean,
            Value::Number(n) if n.is_f64() => ColumnType::Float64,
            Value::Number(n) if n.is_i64() => ColumnType::Int64,
            Value::Number(_) => ColumnType::UInt64,
            Value::String(_) => ColumnType::Text,
            Value::Array(_) | Value::Object(_) => ColumnType::Json,
        };
        found = Some(match found {
            None => ty,
            Some(same) if same == ty => ty,
            Some(ColumnType::Int64 | ColumnType::Float64) if matches!(ty, ColumnType::Int64 | ColumnType::Float64) => {
                ColumnType::Float64
            }
            Some(_) => ColumnType::Json,
        });
    }
    found.unwrap_or(ColumnType::Text)
}

/// A type as the contract names it: `int64`, `decimal(10,2)`.
pub fn column_type(name: &str) -> Option<ColumnType> {
    Some(match name {
        "boolean" => ColumnType::Boolean,
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
        "timestamp" => ColumnType::Timestamp,
        "timestamp-tz" => ColumnType::TimestampTz,
        "json" => ColumnType::Json,
        _ => {
            let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            let fits = (1..=38).contains(&precision) && (0..=38).contains(&scale) && scale as u8 <= precision;
            return fits.then_some(ColumnType::Decimal { precision, scale });
        }
    })
}

/// `None`: the source did not send the value.
fn append(column: &mut ColumnBuilder, form: &Column, value: Option<&Value>) -> Result<(), String> {
    let Some(value) = value else {
        column.append_unavailable();
        return Ok(());
    };
    if value.is_null() {
        column.append_null();
        return Ok(());
    }
    let misfit = || format!("does not take {value}");
    let int = || value.as_i64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(misfit);
    let float = || value.as_f64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(misfit);
    let text = || value.as_str().ok_or_else(misfit);
    match (&mut column.cells, &form.ty) {
        (Cells::Boolean(b), _) => b.append_value(value.as_bool().ok_or_else(misfit)?),
        (Cells::Int16(b), _) => b.append_value(int()?.try_into().map_err(|_| misfit())?),
        (Cells::Int32(b), _) => b.append_value(int()?.try_into().map_err(|_| misfit())?),
        (Cells::Int64(b), _) => b.append_value(int()?),
        (Cells::UInt64(b), _) => {
            b.append_value(value.as_u64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(misfit)?)
        }
        (Cells::Float32(b), _) => b.append_value(float()? as f32),
        (Cells::Float64(b), _) => b.append_value(float()?),
        (Cells::Decimal(b), ColumnType::Decimal { scale, .. }) => {
            b.append_value(unscaled(value, *scale).ok_or_else(misfit)?)
        }
        (Cells::Text(b), ColumnType::Json) => b.append_value(value.to_string()),
        (Cells::Text(b), ColumnType::BigDecimal) if value.is_number() => b.append_value(value.to_string()),
        (Cells::Text(b), _) => b.append_value(text()?),
        (Cells::Binary(b), _) => {
            b.append_value(hex(text()?.strip_prefix("\\x").unwrap_or_default()).ok_or_else(misfit)?)
        }
        (Cells::Uuid(b), _) => {
            let bytes = hex(&text()?.replace('-', "")).filter(|bytes| bytes.len() == 16).ok_or_else(misfit)?;
            b.append_value(bytes).map_err(|e| e.to_string())?;
        }
        (Cells::Date(b), _) => b.append_value(days(text()?).ok_or_else(misfit)?),
        (Cells::Timestamp(b), _) => b.append_value(micros(text()?).ok_or_else(misfit)?),
        (Cells::Decimal(_) | Cells::Time(_), _) => return Err("has a type that examples can not give".into()),
    }
    Ok(())
}

fn unscaled(value: &Value, scale: i8) -> Option<i128> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let scale = usize::try_from(scale).ok()?;
    if fraction.len() > scale {
        return None;
    }
    format!("{whole}{fraction}{}", "0".repeat(scale - fraction.len())).parse().ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

fn days(text: &str) -> Option<i32> {
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(date.signed_duration_since(chrono::NaiveDate::default()).num_days()).ok()
}

fn micros(text: &str) -> Option<i64> {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let text = text.replacen(' ', "T", 1);
    Some(chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").ok()?.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit_and_refuse_one_too_many() {
        assert_eq!(unscaled(&"-12.5".into(), 2), Some(-1250));
        assert_eq!(unscaled(&7.into(), 2), Some(700));
        assert_eq!(unscaled(&"1.005".into(), 2), None);
    }

    #[test]
    fn dates_and_times_count_from_1970() {
        assert_eq!(days("1970-01-02"), Some(1));
        assert_eq!(micros("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(micros("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(micros("yesterday"), None);
    }

    #[test]
    fn types_are_read_as_the_contract_names_them() {
        assert_eq!(column_type("decimal(10, 2)"), Some(ColumnType::Decimal { precision: 10, scale: 2 }));
        assert_eq!(column_type("decimal(50,2)"), None);
        assert_eq!(column_type("varchar"), None);
    }
}
