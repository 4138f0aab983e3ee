//! A table as the server describes it, and its rows on their way into column builders.

use std::sync::Arc;

use millrace_core::batch::ChangeType;
use millrace_core::builder::RowsBuilder;
use millrace_core::schema::{Column, Images, TableName, TableSchema};

use super::pgoutput::{Cell, Malformed, OldKind, RelationBody, Tuple};
use super::text::Unfit;
use super::types::{self, Decode, Scratch, Types};

/// A column as the catalog and the stream both name it: what tells two shapes of a table apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawColumn {
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) typmod: i32,
    /// Part of the replica identity; with `REPLICA IDENTITY FULL` every column is.
    pub(super) identity: bool,
}

/// The shape of a table at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) oid: u32,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `pg_class.relreplident`: d, n, f, i.
    pub(super) replica_identity: u8,
    pub(super) columns: Vec<RawColumn>,
}

impl From<&RelationBody<'_>> for Shape {
    fn from(body: &RelationBody<'_>) -> Self {
        let column = |c: &super::pgoutput::RelationColumn<'_>| RawColumn {
            name: c.name.to_owned(),
            type_oid: c.type_oid,
            typmod: c.typmod,
            identity: c.key,
        };
        Self {
            oid: body.oid,
            namespace: body.namespace.to_owned(),
            name: body.name.to_owned(),
            replica_identity: body.replica_identity,
            columns: body.columns.iter().map(column).collect(),
        }
    }
}

impl Shape {
    fn images(&self) -> Images {
        match self.replica_identity {
            b'f' => Images::Full,
            b'n' => Images::None,
            _ if self.columns.iter().any(|c| c.identity) => Images::Key,
            _ => Images::None,
        }
    }
}

/// What the catalog alone knows of a shape: the stream does not carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// `format_type` of each column.
    pub(super) type_names: Vec<String>,
    /// Names of the primary key's columns: what identifies a row under `REPLICA IDENTITY FULL`.
    pub(super) primary_key: Vec<String>,
    pub(super) types: Types,
}

/// A table at one schema version: how its rows are read.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) shape: Shape,
    pub(super) schema: Arc<TableSchema>,
    decode: Vec<Decode>,
}

impl Relation {
    /// Columns outside of the key are nullable whatever the catalog says: the stream does not tell when a NOT NULL
    /// comes or goes, and runs behind the catalog.
    pub(super) fn new(shape: Shape, description: &Description) -> Self {
        let full = shape.replica_identity == b'f';
        let (columns, decode) = shape
            .columns
            .iter()
            .enumerate()
            .map(|(i, raw)| {
                let (ty, decode) = types::plan(raw.type_oid, raw.typmod, &description.types);
                let key = if full { description.primary_key.contains(&raw.name) } else { raw.identity };
                let source_type = description.type_names.get(i).map_or("", String::as_str);
                let column =
                    Column { name: raw.name.as_str().into(), ty, nullable: !key, key, source_type: source_type.into() };
                (column, decode)
            })
            .unzip();
        let name = TableName::new(shape.namespace.as_str(), shape.name.as_str());
        let schema = Arc::new(TableSchema::new(name, columns, shape.images()));
        Self { shape, schema, decode }
    }

    /// The same schema version as before where nothing of it differs: versions are told apart by the `Arc`.
    pub(super) fn share_schema(&mut self, before: &Arc<TableSchema>) {
        if *self.schema == **before {
            self.schema = before.clone();
        }
    }
}

/// Writes row images. Holds the space that values are unpacked into.
#[derive(Debug, Default)]
pub(super) struct RowWriter {
    scratch: Scratch,
}

impl RowWriter {
    /// A whole new row. What it does not repeat (`Unchanged`) comes from `before`, where the server sent the whole old
    /// row, and is unavailable else.
    pub(super) fn new_row(
        &mut self,
        relation: &Relation,
        (change, new): (ChangeType, &Tuple<'_>),
        before: Option<&Tuple<'_>>,
        rows: &mut RowsBuilder,
    ) -> Result<(), Malformed> {
        check_width(relation, new)?;
        rows.begin_row(change);
        rows.count_bytes(new.bytes());
        let mut unfit = None;
        let mut old = before.map(Tuple::cells);
        for (index, cell) in new.cells().enumerate() {
            let old_cell = match &mut old {
                Some(cells) => cells.next().transpose()?,
                None => None,
            };
            let cell = match (cell?, old_cell) {
                (Cell::Unchanged, Some(old)) => old,
                (cell, _) => cell,
            };
            self.cell(relation, index, cell, rows, &mut unfit);
        }
        report(relation, unfit, rows);
        Ok(())
    }

    /// The image of an old row: whole, or its key with everything else unavailable.
    pub(super) fn old_row(
        &mut self,
        relation: &Relation,
        change: ChangeType,
        (kind, old): (OldKind, &Tuple<'_>),
        rows: &mut RowsBuilder,
    ) -> Result<(), Malformed> {
        check_width(relation, old)?;
        rows.begin_row(change);
        rows.count_bytes(old.bytes());
        let mut unfit = None;
        for (index, cell) in old.cells().enumerate() {
            let cell = match cell? {
                // Protocol: what is not in the key stands there as NULL.
                _ if kind == OldKind::Key && !relation.shape.columns[index].identity => Cell::Unchanged,
                cell => cell,
            };
            self.old_cell(relation, index, cell, rows, &mut unfit);
        }
        report(relation, unfit, rows);
        Ok(())
    }

    /// A row of a query: each value behind its length, -1 for NULL (protocol: DataRow).
    pub(super) fn data_row(
        &mut self,
        relation: &Relation,
        body: &[u8],
        rows: &mut RowsBuilder,
    ) -> Result<(), Malformed> {
        const SHORT: Malformed = Malformed("a row of the snapshot ends too early");
        let (count, mut rest) = body.split_first_chunk::<2>().ok_or(SHORT)?;
        if usize::from(u16::from_be_bytes(*count)) != relation.decode.len() {
            return Err(Malformed("a row of the snapshot has another number of columns than its table"));
        }
        rows.begin_row(ChangeType::Insert);
        rows.count_bytes(body.len());
        let mut unfit = None;
        for index in 0..relation.decode.len() {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let cell = match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    let (value, after) = after.split_at_checked(length).ok_or(SHORT)?;
                    rest = after;
                    Cell::Text(value)
                }
                Err(_) => {
                    rest = after;
                    Cell::Null
                }
            };
            self.cell(relation, index, cell, rows, &mut unfit);
        }
        report(relation, unfit, rows);
        Ok(())
    }

    /// An old value that can not be represented refuses nothing: it counts as not sent, and the change goes on by its
    /// key. Only in the key itself it is one too many.
    fn old_cell(
        &mut self,
        relation: &Relation,
        index: usize,
        cell: Cell<'_>,
        rows: &mut RowsBuilder,
        unfit: &mut Option<(usize, Unfit)>,
    ) {
        let mut refused = None;
        match cell {
            Cell::Text(value) if !relation.schema.columns[index].key => {
                let column = rows.column(index);
                if relation.decode[index].append(value, column, &mut self.scratch).is_err() {
                    column.append_unavailable();
                }
            }
            cell => self.cell(relation, index, cell, rows, &mut refused),
        }
        *unfit = unfit.or(refused);
    }

    #[inline]
    fn cell(
        &mut self,
        relation: &Relation,
        index: usize,
        cell: Cell<'_>,
        rows: &mut RowsBuilder,
        unfit: &mut Option<(usize, Unfit)>,
    ) {
        let column = rows.column(index);
        match cell {
            Cell::Text(value) => {
                if let Err(e) = relation.decode[index].append(value, column, &mut self.scratch) {
                    column.append_null();
                    unfit.get_or_insert((index, e));
                }
            }
            Cell::Null => column.append_null(),
            Cell::Unchanged => column.append_unavailable(),
        }
    }
}

/// A row of another width would put values under wrong names.
fn check_width(relation: &Relation, tuple: &Tuple<'_>) -> Result<(), Malformed> {
    if tuple.columns() == relation.decode.len() {
        Ok(())
    } else {
        Err(Malformed("a row has another number of columns than its table"))
    }
}

fn report(relation: &Relation, unfit: Option<(usize, Unfit)>, rows: &mut RowsBuilder) {
    if let Some((index, unfit)) = unfit {
        let name = &relation.schema.columns[index].name;
        rows.reject(unfit.code, unfit.reason, Some(name));
    }
}
