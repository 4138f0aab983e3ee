//! MongoDB's messages, as far as they go without a schema: the table is the collection, with the columns `_id` (the
//! key) and `document`, both JSON.
//!
//! `after` is the whole document as a JSON string (extended JSON), `before` the preimage where the server keeps them.
//! An update whose document was not looked up, and a delete, have a document that is unavailable.

use millrace_core::schema::{Column, ColumnType};

use super::cells::Encoding;
use super::envelope::{Envelope, Fields, Malformed};

pub(super) fn is(envelope: &Envelope<'_>) -> bool {
    envelope.connector == "mongodb"
}

pub(super) fn columns() -> Vec<(Column, Encoding)> {
    vec![
        (Column::new("_id", ColumnType::Json).key(), Encoding::Nested),
        (Column::new("document", ColumnType::Json), Encoding::Nested),
    ]
}

/// `_id` and document of an image, as JSON texts.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) document: Option<String>,
}

impl Image {
    /// Errors: the image is no document, and the key does not name one.
    pub(super) fn new(image: Option<&str>, envelope: &Envelope<'_>) -> Result<Self, Malformed> {
        let document = image.map(unquote).transpose()?;
        let in_document = match &document {
            Some(document) => Fields::parse(document)?.get("_id").map(str::to_owned),
            None => None,
        };
        let id = match in_document {
            Some(id) => id,
            None => in_key(envelope.key.as_deref())?,
        };
        Ok(Self { id, document })
    }
}

/// The key is `{"id": TEXT}`, where TEXT is JSON.
fn in_key(key: Option<&str>) -> Result<String, Malformed> {
    let fields = Fields::parse(key.ok_or_else(|| Malformed("neither the document nor the key has an id".into()))?)?;
    let id = fields.get("id").ok_or_else(|| Malformed("the key has no `id`".into()))?;
    unquote(id)
}

/// The JSON text in a JSON string; what is no string is JSON already.
fn unquote(raw: &str) -> Result<String, Malformed> {
    if !raw.starts_with('"') {
        return Ok(raw.to_owned());
    }
    let inner: String = serde_json::from_str(raw)?;
    serde_json::from_str::<&serde_json::value::RawValue>(&inner)
        .map_err(|e| Malformed(format!("the document is no JSON: {e}")))?;
    Ok(inner)
}
