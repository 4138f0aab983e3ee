//! What a line is: an envelope, or a Kafka record around one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::debezium::Malformed;

/// The fields by which a record is told from an envelope.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Key and value as JSON texts; no value: a tombstone.
#[derive(Debug, PartialEq)]
pub(super) struct Record<'a> {
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) value: Option<Cow<'a, str>>,
}

/// A record has a `topic` or a `value`, its key and value as JSON or as strings that hold JSON; kcat's `-J` calls the
/// value `payload`. Any other object is an envelope without a key.
pub(super) fn split(line: &str) -> Result<Record<'_>, Malformed> {
    let fields: Line<'_> = serde_json::from_str(line)?;
    if fields.op.is_some() || (fields.topic.is_none() && fields.value.is_none()) {
        return Ok(Record { key: None, value: Some(Cow::Borrowed(line)) });
    }
    let value = fields.value.or(fields.payload);
    Ok(Record { key: fields.key.map(content).transpose()?, value: value.map(content).transpose()? })
}

/// The JSON itself, or that in a string.
fn content(raw: &RawValue) -> Result<Cow<'_, str>, Malformed> {
    let raw = raw.get();
    if raw.starts_with('"') { Ok(Cow::Owned(serde_json::from_str(raw)?)) } else { Ok(Cow::Borrowed(raw)) }
}
