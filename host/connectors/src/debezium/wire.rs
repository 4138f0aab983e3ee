//! From text to messages: one pass down to the rows, which stay raw.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{Envelope, Ignored, Malformed, Message, Operation, Text};

/// The fields by which envelopes, their schema blocks and Kafka records are told apart, whichever of them an object is.
#[derive(Deserialize)]
struct Wire<'a> {
    // Of a Kafka record.
    topic: Option<IgnoredAny>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<Part<'a>>,
    // Of a value with its schema; kcat calls a record's value so, too.
    #[serde(borrow)]
    payload: Option<Part<'a>>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    // Of an envelope.
    #[serde(borrow)]
    op: Option<Text<'a>>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<Source<'a>>,
    ts_ms: Option<i64>,
    // Of a transaction's beginning and end.
    status: Option<IgnoredAny>,
    // Of a schema change.
    ddl: Option<IgnoredAny>,
    #[serde(rename = "tableChanges")]
    table_changes: Option<IgnoredAny>,
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

/// A value within a record or beside a schema.
enum Part<'a> {
    Object(Box<Wire<'a>>),
    /// Text that holds JSON.
    Quoted(Cow<'a, str>),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tell;
        impl<'de> Visitor<'de> for Tell {
            type Value = Part<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Wire::deserialize(MapAccessDeserializer::new(map)).map(|wire| Part::Object(Box::new(wire)))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Part::Quoted(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Part::Quoted(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Part::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Part::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Part::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Part::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Part::Other)
            }
        }
        deserializer.deserialize_any(Tell)
    }
}

/// A line of a file.
#[derive(Debug)]
pub enum Line<'a> {
    Message(Message<'a>),
    /// A record whose value is a string with the message in it: for [`parse`].
    Quoted {
        key: Option<&'a str>,
        value: Cow<'a, str>,
    },
}

/// Reads an envelope, or a Kafka record around one: an object with a `topic` or a `value` and no `op`. Its key and value
/// are JSON, or strings that hold JSON; what kcat's `-J` writes (`payload` for `value`) is one as well.
pub fn parse_line(line: &str) -> Result<Line<'_>, Malformed> {
    let wire: Wire<'_> = serde_json::from_str(line)?;
    if wire.op.is_some() || (wire.topic.is_none() && wire.value.is_none()) {
        return message(wire, None).map(Line::Message);
    }
    let key = wire.key.map(RawValue::get);
    match wire.value.or(wire.payload) {
        None => Ok(Line::Message(Message::Ignored(Ignored::Tombstone))),
        Some(Part::Object(value)) => message(*value, key).map(Line::Message),
        Some(Part::Quoted(value)) => Ok(Line::Quoted { key, value }),
        Some(Part::Other) => Err(Malformed("the record's value is no object".into())),
    }
}

/// Reads a record's value (`None` or `null`: a tombstone), and its key where there is one. Both with or without
/// schema block (`{"schema": ..., "payload": ...}`); the key may be a string that holds JSON.
pub fn parse<'a>(key: Option<&'a str>, value: Option<&'a str>) -> Result<Message<'a>, Malformed> {
    match value.map(serde_json::from_str::<Option<Wire<'a>>>).transpose()?.flatten() {
        Some(wire) => message(wire, key),
        None => Ok(Message::Ignored(Ignored::Tombstone)),
    }
}

/// Out of its schema block, if it has one.
fn message<'a>(wire: Wire<'a>, key: Option<&'a str>) -> Result<Message<'a>, Malformed> {
    if wire.op.is_some() {
        return change(wire, None, key);
    }
    match (wire.payload, wire.schema) {
        (Some(Part::Object(inner)), schema) => change(*inner, schema.map(RawValue::get), key),
        (Some(_), _) => Err(Malformed("the payload is no object".into())),
        (None, Some(_)) if wire.source.is_none() => Ok(Message::Ignored(Ignored::Tombstone)),
        (None, _) => without_op(&Wire { payload: None, ..wire }),
    }
}

fn change<'a>(wire: Wire<'a>, schema: Option<&'a str>, key: Option<&'a str>) -> Result<Message<'a>, Malformed> {
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

fn without_op<'a>(wire: &Wire<'_>) -> Result<Message<'a>, Malformed> {
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

/// The key's object, out of its quotes and its schema block if it has them. A key of another form names no columns.
fn key_fields(key: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Key<'a> {
        #[serde(borrow)]
        schema: Option<&'a RawValue>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    if key.starts_with('"') {
        let text: String = serde_json::from_str(key).ok()?;
        return (!text.starts_with('"')).then(|| key_fields(&text).map(|k| Cow::Owned(k.into_owned())))?;
    }
    let wire: Key<'_> = serde_json::from_str(key).ok()?;
    match (wire.schema, wire.payload) {
        (Some(_), Some(payload)) => Some(Cow::Borrowed(payload.get())),
        _ => Some(Cow::Borrowed(key)),
    }
}
