//! Sink `stdout`: a change a line, as JSON, for looking.
//!
//! ```json
//! {"table":"shop.orders","op":"update","position":"12/1","commit_time":"2026-01-01T00:00:00.120000Z","before":{},"after":{}}
//! ```
//!
//! Cells are written as in dead letters ([`millrace_core::json`]). Values that the source did not send are left out of
//! `before` and `after`, and their columns named in `unavailable`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use async_trait::async_trait;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::cut::Cut;
use millrace_core::json;
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Prepared, Sink, Stored};
use millrace_core::{Error, Result};
use schemars::JsonSchema;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::null::count;

/// Prints each change as a line of JSON, once its cut is complete. At least once: it has no positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {}

impl StdoutConfig {
    pub fn build(&self) -> StdoutSink {
        StdoutSink::new(Box::new(io::stdout()))
    }
}

/// The sink; made by [`StdoutConfig::build`].
pub struct StdoutSink {
    out: Box<dyn Write + Send + Sync>,
    /// Lines of the cut under way, which the engine bounds.
    lines: Vec<u8>,
    pending: BTreeMap<TableName, u64>,
    committed: BTreeMap<TableName, u64>,
}

impl std::fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdoutSink").field("committed", &self.committed).finish_non_exhaustive()
    }
}

impl StdoutSink {
    /// Writes to something else than the standard output.
    pub fn new(out: Box<dyn Write + Send + Sync>) -> Self {
        Self { out, lines: Vec::new(), pending: BTreeMap::new(), committed: BTreeMap::new() }
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn fence(&mut self, _claim: &Claim) -> Result<Stored> {
        self.lines.clear();
        self.pending.clear();
        Ok(Stored::new())
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        let mut row = 0;
        while row < batch.rows() {
            let images = if is_pair(&batch, row) { 2 } else { 1 };
            serde_json::to_writer(&mut self.lines, &line(&batch, row, images))
                .map_err(|e| Error::bug(e.to_string()))?;
            self.lines.push(b'\n');
            row += images;
        }
        count(&mut self.pending, &batch.schema.name, batch.rows() as u64);
        Ok(())
    }

    async fn prepare(&mut self, _cut: &Cut) -> Result<Prepared> {
        Ok(Prepared::default())
    }

    async fn commit(&mut self, _cut: &Cut) -> Result<()> {
        self.out.write_all(&self.lines).and_then(|()| self.out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::halt("stdout.closed", "nobody reads the standard output any more"),
            _ => Error::retry("stdout.write", error.to_string()),
        })?;
        self.lines.clear();
        for (table, rows) in std::mem::take(&mut self.pending) {
            count(&mut self.committed, &table, rows);
        }
        Ok(())
    }

    fn committed(&self) -> BTreeMap<TableName, u64> {
        self.committed.clone()
    }
}

/// Whether this image and the next are the two of an update.
fn is_pair(batch: &ChangeBatch, row: usize) -> bool {
    batch.change_types[row] == ChangeType::UpdatePreimage
        && batch.change_types.get(row + 1) == Some(&ChangeType::UpdatePostimage)
        && batch.changes[row] == batch.changes[row + 1]
}

/// Its fields in the order in which people read them.
#[derive(Serialize)]
struct Line<'a> {
    table: String,
    op: &'static str,
    position: String,
    commit_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Image<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Image<'a>>,
    #[serde(skip_serializing_if = "Unavailable::is_empty")]
    unavailable: Unavailable<'a>,
}

#[derive(Default, Serialize)]
struct Unavailable<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<&'a str>,
}

impl Unavailable<'_> {
    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

/// The available cells of a row, in the table's order.
struct Image<'a> {
    batch: &'a ChangeBatch,
    row: usize,
}

impl Serialize for Image<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, column) in self.batch.schema.columns.iter().enumerate() {
            if !self.batch.is_unavailable(index, self.row) {
                map.serialize_entry(&column.name, &json::cell(&column.ty, &self.batch.columns[index], self.row))?;
            }
        }
        map.end()
    }
}

fn line(batch: &ChangeBatch, first: usize, images: usize) -> Line<'_> {
    let op = match batch.change_types[first] {
        ChangeType::Insert => "insert",
        ChangeType::UpdatePreimage | ChangeType::UpdatePostimage => "update",
        ChangeType::Delete => "delete",
        ChangeType::Truncate => "truncate",
    };
    let mut line = Line {
        table: batch.schema.name.to_string(),
        op,
        position: batch.order(first).to_string(),
        commit_time: json::timestamp(batch.commit_time(first), "Z"),
        before: None,
        after: None,
        unavailable: Unavailable::default(),
    };
    for row in first..first + images {
        match batch.change_types[row] {
            ChangeType::UpdatePreimage | ChangeType::Delete => {
                line.before = Some(Image { batch, row });
                line.unavailable.before = json::unavailable(batch, row);
            }
            ChangeType::Insert | ChangeType::UpdatePostimage => {
                line.after = Some(Image { batch, row });
                line.unavailable.after = json::unavailable(batch, row);
            }
            ChangeType::Truncate => {}
        }
    }
    line
}
