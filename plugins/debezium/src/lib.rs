//! Parses Debezium's JSON envelopes, with and without schema. Config, all of it optional:
//!
//! ```yaml
//! config:
//!   keys: { public.orders: [id] }        # for messages without a key
//!   whole_before: true                   # before images are whole rows (REPLICA IDENTITY FULL)
//!   decimals: string                     # decimal.handling.mode of messages without schema: string, or base64 (precise)
//!   tables:                              # columns of messages without schema
//!     public.orders: [{ name: id, type: int64, key: true }, { name: total, type: "decimal(10,2)" }, note]
//! ```
//! Tombstones, heartbeats, transaction, schema-change and logical messages are ignored. A truncate is refused: it has no row.

use std::collections::BTreeMap;
use std::collections::HashMap;

use millrace_sdk::prelude::*;
use millrace_sdk::{ChangeType, Form, Images, Message, Parsed, Parser};
use serde_json::value::RawValue;

mod schema;
mod value;

use schema::{Columns, Declared};
use value::{Decimals, Encoding};

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");
/// Schema blocks whose columns are remembered: a table has one, until it changes.
const BLOCKS: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    keys: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    whole_before: bool,
    decimals: Option<Decimals>,
    #[serde(default)]
    tables: BTreeMap<String, Vec<Declared>>,
}

struct Debezium {
    keys: BTreeMap<String, Vec<String>>,
    whole_before: bool,
    declared: BTreeMap<String, Columns>,
    known: HashMap<FormId, (Form, Vec<Encoding>)>,
}

/// Schema block, table and key columns.
type FormId = (String, String, Vec<String>);

/// A JSON object whose values stay text.
type Object<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct Envelope<'a> {
    op: Option<String>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    connector: Option<String>,
    schema: Option<String>,
    db: Option<String>,
    table: Option<String>,
}

impl Parser for Debezium {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let Fields { keys, whole_before, decimals, tables } = config.parse()?;
        let read = |(table, columns): (String, Vec<Declared>)| {
            let columns = schema::declared(&columns, decimals);
            columns.map(|c| (table.clone(), c)).map_err(|e| Error::config(format!("tables.{table}: {e}")))
        };
        let declared = tables.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Debezium { keys, whole_before, declared, known: HashMap::new() })
    }

    fn parse(&mut self, message: &Message<'_>, rows: &mut Parsed) -> Result<(), Reject> {
        let Some(value) = message.value else { return Ok(()) };
        let (block, payload) = unwrapped(text(value)?)?;
        let Some(payload) = payload else { return Ok(()) };
        let envelope: Envelope<'_> = serde_json::from_str(payload).map_err(|e| malformed(&e))?;
        let op = match envelope.op.as_deref() {
            Some("m") => return Ok(()),
            None if is_no_change(payload)? => return Ok(()),
            None => return Err(Reject::new("debezium.no_envelope", "the message is no change event: it has no `op`")),
            Some(op) => op,
        };
        let source = envelope.source.ok_or_else(|| Reject::new("debezium.no_envelope", "it has no `source`"))?;
        let table = source.table_name()?;
        if op == "t" {
            return Err(Reject::new("debezium.truncate", format!("{table} was truncated, which no row can say")));
        }
        let (form, encodings) = self.form(message, block, &table, rows)?;
        let schema = rows.schema(form).clone();
        let mut image = |json: Option<&RawValue>, change: ChangeType, is_before: bool| {
            let json = json.filter(|json| json.get() != "null");
            let Some(json) = json else {
                return Err(Reject::new("debezium.no_image", format!("a message of op {op:?} lacks its row")));
            };
            let fields: Object<'_> = serde_json::from_str(json.get()).map_err(|e| malformed(&e))?;
            // Of PostgreSQL's default replica identity a before image has its key alone, and NULL for what was not sent.
            let key_only = is_before && is_key_only(&schema, &fields, source.connector.as_deref());
            rows.row(form, change, |cells| {
                for ((cell, column), encoding) in cells.iter_mut().zip(&schema.columns).zip(&encodings) {
                    let raw = fields.get(&column.name).map(|raw| raw.get());
                    value::put(cell, column, *encoding, raw, key_only && !column.key)?;
                }
                Ok(())
            })
        };
        match op {
            "c" | "r" => image(envelope.after, ChangeType::Insert, false),
            "d" => image(envelope.before, ChangeType::Delete, true),
            "u" => {
                if envelope.before.is_some_and(|json| json.get() != "null") {
                    image(envelope.before, ChangeType::UpdatePreimage, true)?;
                }
                image(envelope.after, ChangeType::UpdatePostimage, false)
            }
            other => Err(Reject::new("debezium.op", format!("{other:?} is no operation: c, r, u, d, t and m are"))),
        }
    }
}

impl Debezium {
    /// The table's form, by the message's schema block or as the config declares it.
    fn form(
        &mut self,
        message: &Message<'_>,
        block: Option<&str>,
        table: &str,
        rows: &mut Parsed,
    ) -> Result<(Form, Vec<Encoding>), Reject> {
        let keys = match message.key {
            Some(key) => key_names(text(key)?)?,
            None => self.keys.get(table).cloned().unwrap_or_default(),
        };
        let id = (block.unwrap_or_default().to_string(), table.to_string(), keys);
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let (columns, encodings) = match block {
            Some(block) => schema::of_block(block)?,
            None => self.declared.get(table).cloned().ok_or_else(|| {
                let reason =
                    format!("the message of {table} has no schema, and `tables` of the config does not have it");
                Reject::new("debezium.no_schema", reason)
            })?,
        };
        let key = |c: ColumnDef| {
            let key = c.key || id.2.contains(&c.name);
            ColumnDef { key, nullable: c.nullable && !key, ..c }
        };
        let columns = columns.into_iter().map(key).collect();
        let (namespace, name) = table.split_once('.').unwrap_or(("", table));
        let (namespace, name) = (namespace.to_string(), name.to_string());
        let images = if self.whole_before { Images::Full } else { Images::Key };
        let form = rows.declare(Schema { connector: String::new(), namespace, table: name, images, columns });
        if self.known.len() >= BLOCKS {
            self.known.clear();
        }
        self.known.insert(id, (form, encodings.clone()));
        Ok((form, encodings))
    }
}

impl Source {
    /// `schema.table`, or `db.table` where there are no schemas.
    fn table_name(&self) -> Result<String, Reject> {
        let Some(table) = &self.table else {
            let connector = self.connector.as_deref().unwrap_or("unknown");
            return Err(Reject::new("debezium.no_table", format!("`source` of connector {connector} names no table")));
        };
        let namespace = self.schema.as_ref().or(self.db.as_ref());
        Ok(namespace.map_or_else(|| table.clone(), |namespace| format!("{namespace}.{table}")))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Reject> {
    std::str::from_utf8(bytes).map_err(|e| Reject::new("debezium.json", format!("it is no UTF-8: {e}")))
}

fn malformed(error: &serde_json::Error) -> Reject {
    Reject::new("debezium.json", format!("it is no JSON of the right form: {error}"))
}

/// The schema block, where there is one, and the payload; none where it is null.
fn unwrapped(json: &str) -> Result<(Option<&str>, Option<&str>), Reject> {
    if json.trim() == "null" {
        return Ok((None, None));
    }
    let outer: Object<'_> = serde_json::from_str(json).map_err(|e| malformed(&e))?;
    let (schema, payload) = (outer.get("schema"), outer.get("payload"));
    let Some(payload) = payload.filter(|_| schema.is_some()) else { return Ok((None, Some(json))) };
    let block = schema.map(|block| block.get()).filter(|block| *block != "null");
    Ok((block, Some(payload.get()).filter(|payload| *payload != "null")))
}

/// Names of the fields of a message's key, which are the table's key columns.
fn key_names(json: &str) -> Result<Vec<String>, Reject> {
    let (_, payload) = unwrapped(json)?;
    let Some(payload) = payload else { return Ok(Vec::new()) };
    let fields: Object<'_> = serde_json::from_str(payload).map_err(|e| malformed(&e))?;
    Ok(fields.into_keys().collect())
}

/// Heartbeats, the ends of transactions, and changes of schema.
fn is_no_change(payload: &str) -> Result<bool, Reject> {
    let fields: Object<'_> = serde_json::from_str(payload).map_err(|e| malformed(&e))?;
    let has = |name: &str| fields.contains_key(name);
    Ok((has("status") && has("id")) || has("ddl") || has("tableChanges") || (has("ts_ms") && fields.len() == 1))
}

fn is_key_only(schema: &Schema, fields: &Object<'_>, connector: Option<&str>) -> bool {
    let others = || schema.columns.iter().filter(|c| !c.key);
    let is_null = |c: &ColumnDef| fields.get(&c.name).is_none_or(|raw| raw.get() == "null");
    connector == Some("postgresql")
        && schema.images != Images::Full
        && others().count() < schema.columns.len()
        && others().all(is_null)
}

millrace_sdk::parser!(Debezium);

#[cfg(test)]
mod tests;
