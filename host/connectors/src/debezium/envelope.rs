//! What a message says: what happened, where and when. Rows stay raw text here.

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
    pub(super) key: Option<Cow<'a, str>>,
}

#[derive(Debug)]
pub enum Message<'a> {
    Change(Box<Envelope<'a>>),
    Ignored(Ignored),
}

/// A string that is borrowed where it has no escapes, inside an `Option` as well.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The fields of a JSON object in their order; values as raw text.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(pub(super) Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Fields<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        Ok(serde_json::from_str(text)?)
    }

    /// The place of a field; `hint`: where it is likely to be.
    pub(super) fn find(&self, name: &str, hint: usize) -> Option<usize> {
        match self.0.get(hint) {
            Some((found, _)) if found == name => Some(hint),
            _ => self.0.iter().position(|(found, _)| found == name),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.find(name, 0).map(|place| self.0[place].1)
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
