//! From decoded messages to change batches: which table a change belongs to, its position, its row images.

use std::sync::Arc;

use millrace_core::batch::ChangeType;
use millrace_core::cut::CutBuilder;
use millrace_core::error::{Error, Result};
use millrace_core::position::SourceKey;

use super::lsn::Lsn;
use super::pgoutput::{Malformed, Message, OldKind, RelationBody};
use super::relation::{Relation, RowWriter, Shape};

/// Between 1970-01-01 and PostgreSQL's 2000-01-01, in microseconds.
pub(super) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The commit that changes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    /// Of the commit record.
    pub(super) lsn: Lsn,
    /// Microseconds since 1970-01-01 UTC.
    pub(super) time: i64,
}

/// A table that is read.
#[derive(Debug)]
struct Table {
    source: SourceKey,
    namespace: String,
    name: String,
    /// Changes that committed here or before are in its snapshot.
    skip_through: i64,
    /// The commit that `ordinal` counts in.
    commit: Lsn,
    ordinal: i64,
}

/// What the stream announced of a table.
#[derive(Debug)]
struct Entry {
    oid: u32,
    /// `None`: published, but not ours to read.
    known: Option<(usize, Arc<Relation>)>,
}

/// The tables that are read and the relations that the stream announced.
#[derive(Debug, Default)]
pub(super) struct Changes {
    tables: Vec<Table>,
    /// By oid.
    entries: Vec<Entry>,
    /// Index of the entry used last: changes come in runs of a table.
    last: usize,
    writer: RowWriter,
}

impl Changes {
    /// Adds a table as the catalog has it now; answers its index.
    pub(super) fn add_table(&mut self, source: SourceKey, relation: Arc<Relation>) -> usize {
        let shape = &relation.shape;
        self.tables.push(Table {
            source,
            namespace: shape.namespace.clone(),
            name: shape.name.clone(),
            skip_through: i64::MIN,
            commit: Lsn(0),
            ordinal: 0,
        });
        let index = self.tables.len() - 1;
        self.set(relation.shape.oid, Some((index, relation)));
        index
    }

    /// What committed at `commit` or before is in the table's snapshot: it is counted, and not read again.
    pub(super) fn skip_through(&mut self, table: usize, commit: i64) {
        self.tables[table].skip_through = commit;
    }

    fn set(&mut self, oid: u32, known: Option<(usize, Arc<Relation>)>) {
        match self.entries.binary_search_by_key(&oid, |e| e.oid) {
            Ok(at) => self.entries[at].known = known,
            Err(at) => self.entries.insert(at, Entry { oid, known }),
        }
    }

    fn find(&mut self, oid: u32) -> Result<usize, Malformed> {
        if self.entries.get(self.last).is_none_or(|e| e.oid != oid) {
            let found = self.entries.binary_search_by_key(&oid, |e| e.oid);
            self.last = found.map_err(|_| Malformed("a change of a table that was not announced"))?;
        }
        Ok(self.last)
    }

    /// A Relation message. Answers a shape that must be looked up in the catalog, and then given to
    /// [`Changes::install`]; nothing reaches the pipeline before a change of that shape does.
    pub(super) fn announce(&mut self, body: &RelationBody<'_>, commit: Lsn) -> Result<Option<Shape>> {
        let shape = Shape::from(body);
        let table = self.tables.iter().position(|t| t.namespace == shape.namespace && t.name == shape.name);
        let before = self.entries.iter().find(|e| e.oid == shape.oid).and_then(|e| e.known.as_ref());
        let others =
            |t: usize| self.entries.iter().any(|e| e.oid != shape.oid && e.known.as_ref().is_some_and(|k| k.0 == t));
        match (table, before) {
            // By its former name, or of a former table of this name: before the snapshot of what there is now.
            (None, Some((table, _))) if commit.0 as i64 <= self.tables[*table].skip_through => {
                self.set(shape.oid, None);
                Ok(None)
            }
            (Some(table), None) if others(table) && commit.0 as i64 <= self.tables[table].skip_through => {
                self.set(shape.oid, None);
                Ok(None)
            }
            (Some(table), None) if others(table) => {
                let message = format!("table {}.{} was replaced by another of its name", shape.namespace, shape.name);
                Err(Error::retry("postgres.table_replaced", message).hint("it gets a new snapshot"))
            }
            (None, Some((_, before))) => {
                let was = before.schema.name.to_string();
                let message = format!("table {was} is called {}.{} now", shape.namespace, shape.name);
                Err(Error::halt("postgres.table_renamed", message)
                    .hint("name it so in `tables`: it is then a new table with a snapshot of its own"))
            }
            (None, None) => {
                self.set(shape.oid, None);
                Ok(None)
            }
            (Some(_), Some((_, before))) if before.shape == shape => Ok(None),
            (Some(_), _) => Ok(Some(shape)),
        }
    }

    /// A shape that was announced, with what the catalog says of it.
    pub(super) fn install(&mut self, mut relation: Relation) {
        let shape = &relation.shape;
        let table = self.tables.iter().position(|t| t.namespace == shape.namespace && t.name == shape.name);
        let before = self.entries.iter().filter_map(|e| e.known.as_ref()).find(|(t, _)| Some(*t) == table);
        if let Some((_, before)) = before {
            let before = before.schema.clone();
            relation.share_schema(&before);
        }
        if let Some(table) = table {
            self.set(relation.shape.oid, Some((table, Arc::new(relation))));
        }
    }

    /// Appends a change. Messages that are none are left alone.
    pub(super) fn apply(&mut self, message: &Message<'_>, commit: Commit, into: &mut CutBuilder) -> Result<()> {
        let oid = match message {
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                *relation
            }
            Message::Truncate { relations } => {
                for oid in relations.iter() {
                    self.truncate(oid, commit, into)?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let at = self.find(oid).map_err(malformed)?;
        let Some((table, relation)) = &self.entries[at].known else { return Ok(()) };
        let table = &mut self.tables[*table];
        let Some(ordinal) = table.next_ordinal(commit) else { return Ok(()) };
        let rows = into.table(&table.source, &relation.schema, false)?;
        rows.begin_change(commit.lsn.order(ordinal), commit.time);
        let writer = &mut self.writer;
        match message {
            Message::Insert { new, .. } => writer.new_row(relation, (ChangeType::Insert, new), None, rows),
            Message::Delete { kind, old, .. } => writer.old_row(relation, ChangeType::Delete, (*kind, old), rows),
            Message::Update { old, new, .. } => {
                let before = match old {
                    Some((kind, old)) => {
                        writer.old_row(relation, ChangeType::UpdatePreimage, (*kind, old), rows).map_err(malformed)?;
                        (*kind == OldKind::Full).then_some(old)
                    }
                    None => None,
                };
                writer.new_row(relation, (ChangeType::UpdatePostimage, new), before, rows)
            }
            _ => Ok(()),
        }
        .map_err(malformed)
    }

    fn truncate(&mut self, oid: u32, commit: Commit, into: &mut CutBuilder) -> Result<()> {
        let at = self.find(oid).map_err(malformed)?;
        let Some((table, relation)) = &self.entries[at].known else { return Ok(()) };
        let table = &mut self.tables[*table];
        match table.next_ordinal(commit) {
            Some(ordinal) => into.truncate(&table.source, &relation.schema, commit.lsn.order(ordinal), commit.time),
            None => Ok(()),
        }
    }
}

impl Table {
    /// The ordinal of the next change in this commit, from 1; `None` where the change is in the snapshot.
    fn next_ordinal(&mut self, commit: Commit) -> Option<i64> {
        if self.commit != commit.lsn {
            self.commit = commit.lsn;
            self.ordinal = 0;
        }
        self.ordinal += 1;
        (commit.lsn.0 as i64 > self.skip_through).then_some(self.ordinal)
    }
}

pub(super) fn malformed(e: Malformed) -> Error {
    Error::halt("postgres.protocol", e.to_string())
        .hint("the stream is not what a supported server sends: please report this")
}
