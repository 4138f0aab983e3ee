//! Runs a parser natively.

use serde_json::{Map, Value as Json, json};

use super::{HOST, Host, Seen, show};
use crate::bindings::exports_parser::{Parsed, RawBatch};
use crate::bindings::types;
use crate::cell::Cell;
use crate::column::{Any, Column, Reader};
use crate::export::ParserSlot;
use crate::parser::Parser;
use crate::schema::{DataType, Schema};
use crate::{ChangeType, Out};

/// Raw messages and a config, for one run of a parser.
#[derive(Debug, Clone)]
pub struct Messages {
    config: Json,
    /// key and value
    messages: Vec<(Part, Part)>,
}

type Part = Option<Vec<u8>>;

/// How a message ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// `{ "table": …, "change": …, "row": {…} }` each; cells that were not sent are absent
    Rows(Vec<Json>),
    /// no rows
    Ignored,
    /// a dead letter
    Rejected {
        /// "area.reason"
        code: String,
        /// for people
        reason: String,
    },
}

impl Messages {
    /// No messages, with this config.
    pub fn new(config: Json) -> Self {
        Messages { config, messages: Vec::new() }
    }

    /// Adds a message without a key.
    pub fn value(self, value: impl AsRef<[u8]>) -> Self {
        self.message(None, Some(value.as_ref()))
    }

    /// Adds a message; without a value it is a tombstone.
    pub fn message(mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.messages.push((key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec)));
        self
    }

    /// Runs a parser on all messages as one batch, and on each by itself.
    ///
    /// # Errors
    /// What `configure` or `parse` answered, or that the answers differ.
    pub fn parse<P: Parser>(&self) -> Result<Vec<Ending>, String> {
        let whole = self.cut::<P>(self.messages.len().max(1))?;
        let single = self.cut::<P>(1)?;
        if whole == single { Ok(whole) } else { Err(format!("cut at 1: {single:?}, as a whole: {whole:?}")) }
    }

    fn cut<P: Parser>(&self, size: usize) -> Result<Vec<Ending>, String> {
        HOST.set(Host { keys: Default::default(), seen: Seen::default() });
        let slot = ParserSlot::<P>::new();
        slot.configure(self.config.to_string(), "test".to_string()).map_err(show)?;
        let plan = slot.plan();
        let (mut forms, mut endings) = (Vec::new(), Vec::new());
        for part in self.messages.chunks(size) {
            let absent = || bytes(part.iter().map(|_| None));
            let batch = RawBatch {
                source: "file.lines".to_string(),
                partition: 0,
                rows: part.len() as u32,
                keys: bytes(part.iter().map(|(key, _)| key.as_deref())),
                values: bytes(part.iter().map(|(_, value)| value.as_deref())),
                meta: plan.meta.iter().map(|_| absent()).collect(),
            };
            let parsed = slot.parse(batch).map_err(show)?;
            endings.extend(endings_of(parsed, part.len(), &mut forms)?);
        }
        Ok(endings)
    }
}

fn bytes<'a>(cells: impl Iterator<Item = Option<&'a [u8]>>) -> types::Column {
    let mut out = Out::new(&DataType::Binary, 0, None);
    for cell in cells {
        match cell {
            Some(cell) => out.push_bytes(cell),
            None => out.set_null(),
        }
        out.end_row();
    }
    out.finish().0
}

fn endings_of(parsed: Parsed, messages: usize, forms: &mut Vec<Schema>) -> Result<Vec<Ending>, String> {
    forms.extend(parsed.schemas.into_iter().map(|s| Schema::from(s.table)));
    let mut endings: Vec<Option<Ending>> = vec![None; messages];
    for run in parsed.runs {
        let schema = &forms[run.schema as usize];
        let columns: Vec<Column> = run.columns.into_iter().map(Column).collect();
        let readers = schema.columns.iter().zip(&columns).map(|(c, cells)| Reader::<Any>::new(cells, &c.ty));
        let readers = readers.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        for (at, message) in run.source_row.iter().enumerate() {
            let mut row = Map::new();
            for (column, reader) in schema.columns.iter().zip(&readers) {
                match reader.get(at) {
                    Cell::Value(value) => row.insert(column.name.clone(), super::json(value)),
                    Cell::Null => row.insert(column.name.clone(), Json::Null),
                    Cell::NotSent => None,
                };
            }
            let change = ChangeType::from(run.change_types[at]).name();
            let row = json!({ "table": schema.full_name(), "change": change, "row": row });
            match endings[*message as usize].get_or_insert_with(|| Ending::Rows(Vec::new())) {
                Ending::Rows(rows) => rows.push(row),
                other => return Err(format!("message {message} has rows and is {other:?}")),
            }
        }
    }
    for row in parsed.ignored {
        endings[row as usize] = Some(Ending::Ignored);
    }
    for reject in parsed.rejects {
        endings[reject.row as usize] = Some(Ending::Rejected { code: reject.code, reason: reject.reason });
    }
    endings.into_iter().enumerate().map(|(at, end)| end.ok_or_else(|| format!("message {at} has no end"))).collect()
}
