//! Images that come too late: where a source does not give the order, a column of the row does (`order_by`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_core::{Error, Result};

use super::keys::{KeyForm, Keys, SharedForm, can_be_key};
use super::rows::{PresentRows, read_cells};
use crate::file::layout::Given;
use crate::log::Table;
use crate::log::schema::{DeltaSchema, DeltaType, Field};

/// How old the rows of the table are that a cut's keys have.
#[derive(Debug)]
pub(crate) struct Ages {
    /// The column that tells it, among the table's.
    pub column: u32,
    /// By key, an index into [`super::fold::Folded::keys`]: bytes that sort as the column does. None where there is no row, or
    /// where its value is NULL.
    pub stored: HashMap<u32, Box<[u8]>>,
}

/// By the column `name` of `schema`. Errors: `upsert.order_column` (halts the table).
pub(super) fn form(place: &str, name: &str, schema: &DeltaSchema) -> Result<SharedForm> {
    let wrong = |what: String| {
        let reason = format!("{place}: rows can not be ordered by `{name}`: {what}");
        Error::halt_table("upsert.order_column", reason)
            .hint("check `order_by:` of the sink against the columns of the table")
    };
    let field = schema.field(name).ok_or_else(|| wrong("there is no such column".into()))?;
    if !can_be_key(&field.ty) || field.ty == DeltaType::Boolean {
        return Err(wrong(format!("a {} tells no age", field.ty)));
    }
    Ok(Arc::new(KeyForm { fields: vec![field.clone()] }))
}

/// The age of each row of a batch. Errors: `upsert.order_column` (halts the table) where it has no such column.
pub(super) fn ages_of(form: &SharedForm, columns: &[Given]) -> Result<Keys> {
    let name = name_of(form);
    let column = columns.iter().find(|c| c.name == name).ok_or_else(|| {
        Error::halt_table("upsert.order_column", format!("rows come without `{name}`, by which they are ordered"))
            .hint("a stage or the source removed it; keep it, or leave it out of `order_by:` of the sink")
    })?;
    form.encode(std::slice::from_ref(&column.cells))
}

fn name_of(form: &KeyForm) -> &str {
    form.fields.first().map_or("", |field| &field.name)
}

impl Ages {
    /// Reads how old these rows of the table are.
    pub(super) async fn read(
        table: &Table,
        form: &SharedForm,
        fields: &[Field],
        present: &PresentRows,
    ) -> Result<Self> {
        let column = fields.iter().position(|f| f.name == name_of(form));
        let column = column.ok_or_else(|| Error::bug("rows are ordered by a column that is not there"))? as u32;
        let mut by_file = BTreeMap::new();
        for (key, row) in present {
            let file = by_file.entry(row.add.path.as_str()).or_insert_with(|| (Arc::clone(&row.add), BTreeMap::new()));
            file.1.insert(row.row, *key);
        }
        let cells = read_cells(table, by_file.into_values(), form.fields.as_slice().into()).await?;
        let encoded = cells.batches.iter().map(|batch| form.encode(batch)).collect::<Result<Vec<Keys>>>()?;
        let age = |(key, (batch, row)): (&u32, &(u32, u32))| {
            let (ages, row) = (&encoded[*batch as usize], *row as usize);
            ages.has(row).then(|| (*key, ages.get(row).into()))
        };
        Ok(Self { column, stored: cells.at.iter().filter_map(age).collect() })
    }
}
