//! The generator's events as lines that the source `file` reads: Kafka records around Debezium envelopes.

use std::collections::BTreeMap;
use std::io::Write;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::cut::{BatchLimits, CutBuilder};
use millrace_core::schema::TableName;
use millrace_core::{Error, Result};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use serde_json::Value;

use super::GeneratorConfig;
use crate::debezium::encode::{self, Row};

/// What the lines carry beside the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lines {
    /// Rows alone: readers infer the types.
    #[default]
    Plain,
    /// Each line its schema, as Debezium writes it with `schemas.enable`: the types survive.
    WithSchemas,
}

/// Writes the events, in commit order, a change a line; answers how many. `config.rate` is not kept.
///
/// Errors: `generator.endless` where the configuration has no `events`; `generator.write` where the writer fails.
pub fn generate_ndjson(config: &GeneratorConfig, lines: Lines, out: &mut dyn Write) -> Result<u64> {
    if config.events.is_none() {
        return Err(
            Error::config("generator.endless", "lines without an end fill any disk").hint("say how many `events`")
        );
    }
    let mut source = config.build()?;
    let mut writer = LineWriter { lines, schemas: BTreeMap::new(), offsets: BTreeMap::new(), text: Vec::new() };
    // A transaction a cut, so that lines stand in commit order; the longest has twelve images.
    let mut cut = CutBuilder::new(BatchLimits { rows: 16, ..BatchLimits::default() });
    while source.made < source.events {
        source.transaction(&mut cut)?;
        for batch in cut.finish()?.0 {
            writer.batch(&batch)?;
        }
        writer.pass_on(out, 1 << 16)?;
    }
    writer.pass_on(out, 0)?;
    out.flush().map_err(unwritable)?;
    Ok(source.made)
}

fn unwritable(error: std::io::Error) -> Error {
    Error::halt("generator.write", error.to_string())
}

/// A Kafka record.
#[derive(Serialize)]
struct Record<'a> {
    topic: String,
    partition: u32,
    offset: u64,
    /// Milliseconds.
    timestamp: i64,
    key: Part<'a, Row<'a>>,
    value: Part<'a, Envelope<'a>>,
}

/// A key or value: alone, or beside its schema.
struct Part<'a, T> {
    schema: Option<&'a Value>,
    payload: T,
}

impl<T: Serialize> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(schema) = self.schema else { return self.payload.serialize(serializer) };
        let mut part = serializer.serialize_struct("Part", 2)?;
        part.serialize_field("schema", schema)?;
        part.serialize_field("payload", &self.payload)?;
        part.end()
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    before: Option<Row<'a>>,
    after: Option<Row<'a>>,
    source: Source<'a>,
    op: &'static str,
    ts_ms: i64,
}

#[derive(Serialize)]
struct Source<'a> {
    connector: &'static str,
    schema: &'a str,
    table: &'a str,
    ts_us: i64,
    #[serde(rename = "txId")]
    tx_id: i64,
}

struct LineWriter {
    lines: Lines,
    schemas: BTreeMap<TableName, (Value, Value)>,
    offsets: BTreeMap<TableName, u64>,
    text: Vec<u8>,
}

impl LineWriter {
    fn batch(&mut self, batch: &ChangeBatch) -> Result<()> {
        let mut row = 0;
        while row < batch.rows() {
            let images = 1 + usize::from(batch.change_types[row] == ChangeType::UpdatePreimage);
            self.line(batch, row)?;
            row += images;
        }
        Ok(())
    }

    /// `first`: the first image of a change. The generator has every preimage.
    fn line(&mut self, batch: &ChangeBatch, first: usize) -> Result<()> {
        let with_schema = self.lines == Lines::WithSchemas;
        let image = |row| Row { batch, row, with_schema, keys_only: false };
        let (op, before, after) = match batch.change_types[first] {
            ChangeType::UpdatePreimage => ("u", Some(image(first)), Some(image(first + 1))),
            ChangeType::Delete => ("d", Some(image(first)), None),
            _ => ("c", None, Some(image(first))),
        };
        let name = &batch.schema.name;
        let ts_us = batch.commit_time(first);
        let source = Source {
            connector: "millrace",
            schema: &name.namespace,
            table: &name.table,
            ts_us,
            tx_id: batch.order(first).commit(),
        };
        let envelope = Envelope { before, after, source, op, ts_ms: ts_us / 1_000 };
        let key = Row { keys_only: true, ..image(first) };
        let blocks = match self.lines {
            Lines::Plain => None,
            Lines::WithSchemas => {
                Some(&*self.schemas.entry(name.clone()).or_insert_with(|| encode::schema_blocks(&batch.schema)))
            }
        };
        let (key_schema, schema) = blocks.map(|(key, value)| (key, value)).unzip();
        let offset = self.offsets.entry(name.clone()).or_default();
        let record = Record {
            topic: name.to_string(),
            partition: 0,
            offset: *offset,
            timestamp: envelope.ts_ms,
            key: Part { schema: key_schema, payload: key },
            value: Part { schema, payload: envelope },
        };
        *offset += 1;
        serde_json::to_writer(&mut self.text, &record).map_err(|e| Error::bug(e.to_string()))?;
        self.text.push(b'\n');
        Ok(())
    }

    /// Writes what has gathered, once it is more than `above` bytes.
    fn pass_on(&mut self, out: &mut dyn Write, above: usize) -> Result<()> {
        if self.text.len() > above {
            out.write_all(&self.text).map_err(unwritable)?;
            self.text.clear();
        }
        Ok(())
    }
}
