//! Lines as raw messages, for a parser plugin: `file.lines` and `file.records`.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use millrace_core::batch::ChangeType;
use millrace_core::builder::{Cells, ColumnBuilder};
use millrace_core::cut::CutBuilder;
use millrace_core::position::SourceKey;
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::{Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Format, Place};
use crate::debezium::{Failure, Malformed};

type Form = (SourceKey, Arc<TableSchema>);

fn form(name: &str, columns: Vec<Column>) -> Form {
    let name = TableName::new("file", name);
    (SourceKey::new(name.to_string()), Arc::new(TableSchema::new(name, columns, Images::None)))
}

/// A line is a message; it has no key.
fn lines() -> &'static Form {
    static FORM: LazyLock<Form> = LazyLock::new(|| {
        let text = Column::new("file", ColumnType::Text);
        form("lines", vec![text, Column::new("line", ColumnType::Int64), Column::new("value", ColumnType::Binary)])
    });
    &FORM
}

/// A line is a Kafka record. Later changes wait behind a letter of their key, of one topic.
fn records() -> &'static Form {
    static FORM: LazyLock<Form> = LazyLock::new(|| {
        let of_key = |name: &str, ty| Column { key: true, ..Column::new(name, ty) };
        let columns = vec![
            of_key("topic", ColumnType::Text),
            of_key("key", ColumnType::Binary),
            Column::new("value", ColumnType::Binary),
            Column::new("partition", ColumnType::Int32),
            Column::new("offset", ColumnType::Int64),
            Column::new("timestamp", ColumnType::TimestampTz),
            Column::new("headers", ColumnType::Json),
        ];
        form("records", columns)
    });
    &FORM
}

/// As Kafka's tools print one; what `kcat -J` prints has `payload` and `ts`.
#[derive(Deserialize)]
struct Record<'a> {
    topic: String,
    partition: Option<i32>,
    offset: Option<i64>,
    /// Milliseconds.
    #[serde(alias = "ts")]
    timestamp: Option<i64>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow, alias = "payload")]
    value: Option<&'a RawValue>,
}

/// Appends the line as one row.
pub(super) fn append(line: &[u8], format: Format, place: &Place<'_>, into: &mut CutBuilder) -> Result<(), Failure> {
    match format {
        Format::Records => record(line, place, into),
        Format::Lines | Format::Debezium => plain(line, place, into).map_err(Failure::Engine),
    }
}

fn plain(line: &[u8], place: &Place<'_>, into: &mut CutBuilder) -> Result<()> {
    let (source, schema) = lines();
    let rows = into.table(source, schema, false)?;
    rows.begin_change(place.order, 0);
    rows.begin_row(ChangeType::Insert);
    let columns = rows.columns();
    put(&mut columns[0], |cells| text(cells, Some(&place.file.to_string_lossy())))?;
    put(&mut columns[1], |cells| integer(cells, Some(place.file_line as i64)))?;
    put(&mut columns[2], |cells| bytes(cells, Some(line)))?;
    rows.count_bytes(line.len());
    Ok(())
}

fn record(line: &[u8], place: &Place<'_>, into: &mut CutBuilder) -> Result<(), Failure> {
    let record: Record<'_> =
        serde_json::from_slice(line).map_err(|e| Malformed(format!("no record with a topic: {e}")))?;
    let (key, value) = (content(record.key)?, content(record.value)?);
    let micros = record.timestamp.map(|millis| millis.saturating_mul(1_000));
    let mut append = || {
        let (source, schema) = records();
        let rows = into.table(source, schema, false)?;
        rows.begin_change(place.order, micros.unwrap_or(0));
        rows.begin_row(ChangeType::Insert);
        let columns = rows.columns();
        put(&mut columns[0], |cells| text(cells, Some(&record.topic)))?;
        put(&mut columns[1], |cells| bytes(cells, key.as_deref().map(str::as_bytes)))?;
        put(&mut columns[2], |cells| bytes(cells, value.as_deref().map(str::as_bytes)))?;
        put(&mut columns[3], |cells| integer(cells, record.partition.map(i64::from)))?;
        put(&mut columns[4], |cells| integer(cells, record.offset))?;
        put(&mut columns[5], |cells| integer(cells, micros))?;
        put(&mut columns[6], |cells| text(cells, record.headers.map(RawValue::get)))?;
        rows.count_bytes(line.len());
        Ok(())
    };
    append().map_err(Failure::Engine)
}

/// The bytes that the record held: a string's text, any other JSON as it is. `null` is no value.
fn content(json: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Malformed> {
    let Some(json) = json.map(RawValue::get).filter(|json| *json != "null") else { return Ok(None) };
    if json.starts_with('"') {
        return Ok(Some(serde_json::from_str::<String>(json)?.into()));
    }
    Ok(Some(json.into()))
}

fn put(column: &mut ColumnBuilder, append: impl FnOnce(&mut Cells) -> bool) -> Result<()> {
    match append(&mut column.cells) {
        true => Ok(()),
        false => Err(Error::bug("a raw table has another form")),
    }
}

fn text(cells: &mut Cells, value: Option<&str>) -> bool {
    let Cells::Text(builder) = cells else { return false };
    builder.append_option(value);
    true
}

fn bytes(cells: &mut Cells, value: Option<&[u8]>) -> bool {
    let Cells::Binary(builder) = cells else { return false };
    builder.append_option(value);
    true
}

fn integer(cells: &mut Cells, value: Option<i64>) -> bool {
    match cells {
        Cells::Int32(builder) => builder.append_option(value.and_then(|v| i32::try_from(v).ok())),
        Cells::Int64(builder) => builder.append_option(value),
        Cells::Timestamp(builder) => builder.append_option(value),
        _ => return false,
    }
    true
}
