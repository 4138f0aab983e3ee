//! The envelope: what happened, where and when. Rows stay raw text here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a message is not a change event: for people; lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// The envelope's `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `c`, and `r`: read by a snapshot.
    Create,
    Update,
    Delete,
    Truncate,
}

/// Messages that carry no change of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// No value: it lets Kafka forget a key, and follows a delete.
    Tombstone,
    Heartbeat,
    /// The beginning or end of a transaction.
    Transaction,
    /// PostgreSQL's `pg_logical_emit_message`.
    LogicalMessage,
    /// DDL of MySQL, SQL Server and Oracle.
    SchemaChange,
}

/// A change of one row, borrowed from the message.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub operation: Operation,
    pub connector: Cow<'a, str>,
    /// Schema, or database where the connector has no schemas.
    pub namespace: Cow<'a, str>,
    pub table: Cow<'a, str>,
    /// Microseconds since 1970-01-01 UTC.
    pub commit_time: i64,
    pub(super) before: Option<&'a str>,
    pub(super) after: Option<&'a str>,
    /// The schema block of the whole value.
    pub(super) schema: Option<&'a str>,
    /// The fields of the record's key.
    pub(super) key: Option<&'a str>,
}

#[derive(Debug)]
pub enum Message<'a> {
    Change(Box<Envelope<'a>>),
    Ignored(Ignored),
}

/// A string that is borrowed where it has no escapes, inside an `Option` as well.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    op: Option<Text<'a>>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
    ts_ms: Option<i64>,
    /// Of a transaction's beginning and end.
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    /// Of a schema change.
    #[serde(borrow)]
    ddl: Option<&'a RawValue>,
    #[serde(borrow, rename = "tableChanges")]
    table_changes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    connector: Option<Text<'a>>,
    #[serde(borrow)]
    db: Option<Text<'a>>,
    #[serde(borrow)]
    schema: Option<Text<'a>>,
    #[serde(borrow)]
    table: Option<Text<'a>>,
    #[serde(borrow)]
    collection: Option<Text<'a>>,
    ts_ms: Option<i64>,
    ts_us: Option<i64>,
    ts_ns: Option<i64>,
}

impl Source<'_> {
    /// Microseconds; the finest of what is there.
    fn time(&self) -> Option<i64> {
        self.ts_us.or(self.ts_ns.map(|ns| ns.div_euclid(1_000))).or(self.ts_ms.map(|ms| ms.saturating_mul(1_000)))
    }
}

/// Reads a record's value (`None` or `null`: a tombstone), and its key where there is one. Both with or without
/// schema block (`{"schema": ..., "payload": ...}`).
pub fn parse<'a>(key: Option<&'a str>, value: Option<&'a str>) -> Result<Message<'a>, Malformed> {
    let Some(value) = value else { return Ok(Message::Ignored(Ignored::Tombstone)) };
    let Some(mut wire) = serde_json::from_str::<Option<Value<'a>>>(value)? else {
        return Ok(Message::Ignored(Ignored::Tombstone));
    };
    let mut schema = None;
    if wire.op.is_none()
        && let Some(payload) = wire.payload
    {
        schema = wire.schema.map(RawValue::get);
        wire = serde_json::from_str(payload.get())?;
    } else if wire.op.is_none() && wire.schema.is_some() && wire.source.is_none() {
        return Ok(Message::Ignored(Ignored::Tombstone));
    }
    let Some(op) = &wire.op else { return without_op(&wire) };
    let operation = match &*op.0 {
        "c" | "r" => Operation::Create,
        "u" => Operation::Update,
        "d" => Operation::Delete,
        "t" => Operation::Truncate,
        "m" => return Ok(Message::Ignored(Ignored::LogicalMessage)),
        other => return Err(Malformed(format!("op `{}` is none of c, r, u, d, t, m", other.escape_debug()))),
    };
    let source = wire.source.ok_or_else(|| Malformed("the envelope has no `source`".into()))?;
    let commit_time = source.time().or(wire.ts_ms.map(|ms| ms.saturating_mul(1_000))).unwrap_or(0);
    let table = source.table.or(source.collection).map(|t| t.0).filter(|t| !t.is_empty());
    let table = table.ok_or_else(|| Malformed("the envelope's `source` names no table".into()))?;
    let namespace = source.schema.or(source.db).map_or(Cow::Borrowed(""), |n| n.0);
    Ok(Message::Change(Box::new(Envelope {
        operation,
        connector: source.connector.map_or(Cow::Borrowed(""), |c| c.0),
        namespace,
        table,
        commit_time,
        before: wire.before.map(RawValue::get),
        after: wire.after.map(RawValue::get),
        schema,
        key: key.and_then(key_fields),
    })))
}

fn without_op<'a>(wire: &Value<'_>) -> Result<Message<'a>, Malformed> {
    let ignored = if wire.status.is_some() {
        Ignored::Transaction
    } else if wire.ddl.is_some() || wire.table_changes.is_some() {
        Ignored::SchemaChange
    } else if wire.ts_ms.is_some() && wire.source.is_none() && wire.before.is_none() && wire.after.is_none() {
        Ignored::Heartbeat
    } else {
        return Err(Malformed("not a change event: it has no `op`".into()));
    };
    Ok(Message::Ignored(ignored))
}

/// The key's object, out of its schema block if it has one. A key of another form names no columns.
fn key_fields(key: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Key<'a> {
        #[serde(borrow)]
        schema: Option<&'a RawValue>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    let wire: Key<'_> = serde_json::from_str(key).ok()?;
    match (wire.schema, wire.payload) {
        (Some(_), Some(payload)) => Some(payload.get()),
        _ => Some(key),
    }
}

/// The fields of a JSON object in their order; values as raw text.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(pub(super) Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Fields<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        Ok(serde_json::from_str(text)?)
    }

    /// `hint`: where the field is likely to be.
    pub(super) fn get(&self, name: &str, hint: usize) -> Option<&'a str> {
        match self.0.get(hint) {
            Some((found, value)) if found == name => Some(value),
            _ => self.0.iter().find(|(found, _)| found == name).map(|(_, value)| *value),
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row as a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(Text(name)) = map.next_key()? {
                    fields.push((name, map.next_value::<&'de RawValue>()?.get()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
