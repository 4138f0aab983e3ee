//! From envelopes to row images in column builders, with what must be known of each table.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::Error;
use millrace_core::batch::ChangeType;
use millrace_core::builder::RowsBuilder;
use millrace_core::cut::CutBuilder;
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, Images, TableName, TableSchema};
use serde::{Deserialize, Serialize};

use super::cells::{self, Encoding};
use super::envelope::{Envelope, Fields, Malformed, Operation};
use super::{infer, mongodb, schema};

/// Tables and columns that are remembered at most; a message that would bring more is malformed. A table has at most
/// 4,096 columns in MySQL, fewer elsewhere; rows whose field names are data would grow without end.
const MOST_TABLES: usize = 10_000;
const MOST_COLUMNS: usize = 4_096;

/// Why a change was not appended. Nothing of it was.
#[derive(Debug)]
pub enum Failure {
    /// The message: it belongs among the dead letters.
    Message(Malformed),
    Engine(Error),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Failure::Message(malformed)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Engine(error)
    }
}

/// Appends changes to the builders of their tables.
///
/// What it has learned of the tables decides how later messages are read, so it belongs to a position:
/// [`Decoder::state`] and [`Decoder::restore`] carry it over a restart.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: BTreeMap<String, Known>,
    /// Key columns by table, for messages whose record has no key.
    keys: BTreeMap<String, Vec<String>>,
    state: Option<Arc<str>>,
}

/// A table as far as it has shown itself.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    columns: Vec<(Column, Encoding)>,
    /// It has shown a whole preimage.
    full: bool,
    /// The schema block that `columns` are from.
    #[serde(skip)]
    block: String,
    #[serde(skip)]
    form: Option<(SourceKey, Arc<TableSchema>)>,
}

/// The row images of a change: how they leave, and their fields.
type Image<'a> = (ChangeType, Fields<'a>);

impl Decoder {
    /// `keys`: the key columns of tables (`namespace.table`) whose records have no key of their own.
    pub fn new(keys: BTreeMap<String, Vec<String>>) -> Self {
        Self { tables: BTreeMap::new(), keys, state: None }
    }

    /// What it knows, as JSON; the same `Arc` until that changes.
    pub fn state(&mut self) -> Result<Arc<str>, Error> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let text = serde_json::to_string(&self.tables).map_err(|e| Error::bug(e.to_string()))?;
        Ok(self.state.insert(text.into()).clone())
    }

    /// Goes back to a state. Errors: `position.token` where it is none.
    pub fn restore(&mut self, state: &str) -> Result<(), Error> {
        self.tables = serde_json::from_str(state)
            .map_err(|e| Error::halt("position.token", format!("the state of the tables: {e}")))?;
        self.state = None;
        Ok(())
    }

    /// Appends one change at this place, of which a cell that does not fit its column is NULL and a reject.
    pub fn append(&mut self, envelope: &Envelope<'_>, order: Order, into: &mut CutBuilder) -> Result<(), Failure> {
        let name = match &*envelope.namespace {
            "" => envelope.table.to_string(),
            namespace => format!("{namespace}.{}", envelope.table),
        };
        if self.tables.len() >= MOST_TABLES && !self.tables.contains_key(&name) {
            return Err(Malformed(format!("more than {MOST_TABLES} tables")).into());
        }
        if mongodb::is(envelope) {
            return self.append_document(name, envelope, order, into);
        }
        let images = images(envelope)?;
        let keys = self.keys.get(&name);
        // Met for the first time: only PostgreSQL leaves out what is not the key.
        let known = self.tables.entry(name).or_insert_with(|| Known::new(envelope.connector != "postgresql"));
        if learn(known, envelope, &images, keys)? {
            self.state = None;
        }
        let (source, schema) = known.form(envelope);
        if envelope.operation == Operation::Truncate {
            return Ok(into.truncate(&source, &schema, order, envelope.commit_time)?);
        }
        let builder = into.table(&source, &schema, false)?;
        builder.begin_change(order, envelope.commit_time);
        for (change_type, fields) in &images {
            known.append(*change_type, fields, builder);
        }
        Ok(())
    }

    fn append_document(
        &mut self,
        name: String,
        envelope: &Envelope<'_>,
        order: Order,
        into: &mut CutBuilder,
    ) -> Result<(), Failure> {
        let image = |image| mongodb::Image::new(image, envelope);
        let images = match envelope.operation {
            Operation::Create => vec![(ChangeType::Insert, image(envelope.after)?)],
            Operation::Update if envelope.before.is_some() => {
                vec![
                    (ChangeType::UpdatePreimage, image(envelope.before)?),
                    (ChangeType::UpdatePostimage, image(envelope.after)?),
                ]
            }
            Operation::Update => vec![(ChangeType::UpdatePostimage, image(envelope.after)?)],
            Operation::Delete => vec![(ChangeType::Delete, image(envelope.before)?)],
            Operation::Truncate => return Err(Malformed("a collection is never truncated".into()).into()),
        };
        let whole_preimage = envelope.before.is_some();
        let known =
            self.tables.entry(name).or_insert_with(|| Known { columns: mongodb::columns(), ..Known::new(false) });
        if whole_preimage && !known.full {
            known.full = true;
            known.form = None;
            self.state = None;
        }
        let (source, schema) = known.form(envelope);
        let builder = into.table(&source, &schema, false)?;
        builder.begin_change(order, envelope.commit_time);
        for (change_type, image) in images {
            builder.begin_row(change_type);
            builder.count_bytes(image.id.len() + image.document.as_ref().map_or(0, String::len));
            let fits = cells::append(builder.column(0), Encoding::Nested, Some(&image.id));
            match image.document {
                Some(document) => fits.and(cells::append(builder.column(1), Encoding::Nested, Some(&document))),
                None => {
                    builder.column(1).append_unavailable();
                    fits
                }
            }
            .map_err(|reason| Error::bug(format!("JSON did not fit a JSON column: {reason}")))?;
        }
        Ok(())
    }
}

/// The images that an operation has. Errors where one that it must have is missing.
fn images<'a>(envelope: &Envelope<'a>) -> Result<Vec<Image<'a>>, Malformed> {
    let needed = |image: Option<&'a str>, name: &str| match image {
        Some(text) => Fields::parse(text),
        None => Err(Malformed(format!("the envelope has no `{name}`, which its `op` needs"))),
    };
    Ok(match envelope.operation {
        Operation::Create => vec![(ChangeType::Insert, needed(envelope.after, "after")?)],
        Operation::Update => {
            let after = (ChangeType::UpdatePostimage, needed(envelope.after, "after")?);
            match envelope.before {
                Some(before) => vec![(ChangeType::UpdatePreimage, Fields::parse(before)?), after],
                None => vec![after],
            }
        }
        Operation::Delete => vec![(ChangeType::Delete, needed(envelope.before, "before")?)],
        Operation::Truncate => Vec::new(),
    })
}

/// Brings what is known of a table up to what this message shows; answers whether that is something new.
fn learn(
    known: &mut Known,
    envelope: &Envelope<'_>,
    images: &[Image<'_>],
    configured: Option<&Vec<String>>,
) -> Result<bool, Malformed> {
    let key = envelope.key.as_deref().and_then(|k| Fields::parse(k).ok()).unwrap_or_default();
    let is_key = |name: &str| key.get(name).is_some() || configured.is_some_and(|c| c.iter().any(|k| k == name));
    let mut changed = match envelope.schema {
        Some(block) => known.take_block(block)?,
        None => known.infer(images)?,
    };
    for (column, _) in &mut known.columns {
        if !column.key && is_key(&column.name) {
            *column = column.clone().key();
            changed = true;
        }
    }
    if !known.full && images.iter().any(|(change_type, fields)| known.is_whole_preimage(*change_type, fields)) {
        known.full = true;
        changed = true;
    }
    if changed {
        known.form = None;
    }
    Ok(changed)
}

fn within_the_limit(columns: usize) -> Result<(), Malformed> {
    if columns <= MOST_COLUMNS {
        Ok(())
    } else {
        Err(Malformed(format!("a table of more than {MOST_COLUMNS} columns")))
    }
}

impl Known {
    fn new(full: bool) -> Self {
        Self { columns: Vec::new(), full, block: String::new(), form: None }
    }

    fn take_block(&mut self, block: &str) -> Result<bool, Malformed> {
        if self.block == block {
            return Ok(false);
        }
        let mut columns = schema::columns(block)?;
        within_the_limit(columns.len())?;
        // A record without a key (a truncate) tells nothing new of it.
        for (column, _) in &mut columns {
            if self.columns.iter().any(|(known, _)| known.key && known.name == column.name) {
                *column = column.clone().key();
            }
        }
        block.clone_into(&mut self.block);
        let changed = self.columns != columns;
        self.columns = columns;
        Ok(changed)
    }

    fn infer(&mut self, images: &[Image<'_>]) -> Result<bool, Malformed> {
        // Only a row that is wider than any before can bring too many.
        let widest = images.iter().map(|(_, fields)| fields.0.len()).sum::<usize>();
        if self.columns.len() + widest > MOST_COLUMNS {
            let is_unknown = |(name, _): &&(std::borrow::Cow<'_, str>, &str)| self.find(name, 0).is_none();
            let unknown = images.iter().map(|(_, fields)| fields.0.iter().filter(is_unknown).count());
            within_the_limit(self.columns.len() + unknown.sum::<usize>())?;
        }
        let mut changed = false;
        for (_, fields) in images {
            let mut hint = 0;
            for (name, raw) in &fields.0 {
                match self.find(name, hint) {
                    Some(index) => {
                        hint = index + 1;
                        let (column, encoding) = &mut self.columns[index];
                        let ty = infer::widen(&column.ty, raw);
                        if ty != column.ty {
                            *encoding = infer::encoding(&ty);
                            column.ty = ty;
                            changed = true;
                        }
                    }
                    None => {
                        if let Some(ty) = infer::kind(raw) {
                            let encoding = infer::encoding(&ty);
                            self.columns.push((Column::new(&**name, ty), encoding));
                            changed = true;
                        }
                    }
                }
            }
        }
        Ok(changed)
    }

    fn find(&self, name: &str, hint: usize) -> Option<usize> {
        if self.columns.get(hint).is_some_and(|(c, _)| &*c.name == name) {
            return Some(hint);
        }
        self.columns.iter().position(|(c, _)| &*c.name == name)
    }

    /// An update's preimage, or a deleted row that has more than its key.
    fn is_whole_preimage(&self, change_type: ChangeType, fields: &Fields<'_>) -> bool {
        match change_type {
            ChangeType::UpdatePreimage => true,
            ChangeType::Delete => {
                let has_key = self.columns.iter().any(|(c, _)| c.key);
                !has_key
                    || fields.0.iter().any(|(name, raw)| {
                        *raw != "null" && !self.columns.iter().any(|(c, _)| c.key && *c.name == **name)
                    })
            }
            _ => false,
        }
    }

    fn form(&mut self, envelope: &Envelope<'_>) -> (SourceKey, Arc<TableSchema>) {
        let form = self.form.get_or_insert_with(|| {
            let name = TableName::new(&*envelope.namespace, &*envelope.table);
            let columns = self.columns.iter().map(|(c, _)| c.clone()).collect();
            let images = if self.full { Images::Full } else { Images::Key };
            (SourceKey::new(name.to_string()), Arc::new(TableSchema::new(name, columns, images)))
        });
        form.clone()
    }

    fn append(&self, change_type: ChangeType, fields: &Fields<'_>, builder: &mut RowsBuilder) {
        builder.begin_row(change_type);
        let key_only = change_type == ChangeType::Delete && !self.full;
        let mut hint = 0;
        for (index, (column, encoding)) in self.columns.iter().enumerate() {
            let cell = builder.column(index);
            if key_only && !column.key {
                cell.append_unavailable();
                continue;
            }
            let place = fields.find(&column.name, hint);
            hint = place.map_or(hint, |place| place + 1);
            let raw = place.map(|place| fields.0[place].1);
            let appended = cells::append(cell, *encoding, raw);
            builder.count_bytes(raw.map_or(1, str::len));
            if let Err(reason) = appended {
                builder.reject("debezium.bad_value", reason, Some(&column.name));
            }
        }
    }
}
