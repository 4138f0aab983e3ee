//! The role `transform`: a plan of column and row operations, made once a schema and run on every batch.

use std::collections::HashMap;

use crate::batch::{Batch, Input, Meta, MetaInput, Row, Rows};
use crate::bindings::exports_transform as wit;
use crate::bindings::types;
use crate::cell::Cell;
use crate::column::{Column, Read, Reader};
use crate::config::Config;
use crate::error::{Error, Reject};
use crate::out::Out;
use crate::schema::{ColumnDef, DataType, Schema};

/// A plugin that filters, renames, converts, masks, adds and routes.
///
/// What it answers for a row must depend on the row and the config alone: the host cuts batches as it likes, and replaces
/// instances at any time.
pub trait Transform: Sized + 'static {
    /// JSON Schema of the config document, which the host checks; empty: anything.
    const CONFIG_SCHEMA: &'static str = "";

    /// Reads the config.
    ///
    /// # Errors
    /// Usually [`Error::InvalidConfig`].
    fn configure(config: &Config) -> Result<Self, Error>;

    /// Says what is done with the rows of a table. A plan that stays empty lets its rows pass by the plugin.
    ///
    /// # Errors
    /// [`Error::UnsupportedSchema`] quarantines the table.
    fn plan(&self, schema: &Schema, plan: &mut TransformPlan) -> Result<(), Error>;
}

/// A granted column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Col(u16);

/// A column that a plan writes, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    write: usize,
    /// position among the outputs of `each_row`
    slot: usize,
}

type Operation = Box<dyn Fn(&Batch, &mut Draft) -> Result<(), Error>>;

/// What is done with the rows of one table, column by column or row by row.
///
/// Columns are read as the source sent them: no operation sees what another wrote. NULL and *not sent* cells pass through
/// column operations untouched, and a filter keeps the rows whose cell was not sent. A row that is dropped is not rejected.
pub struct TransformPlan {
    columns: Vec<ColumnDef>,
    reads: Vec<u16>,
    meta: Vec<Meta>,
    effects: Vec<&'static str>,
    rename_table: Option<String>,
    drops: Vec<u16>,
    renames: Vec<(u16, String)>,
    writes: Vec<(Option<u16>, ColumnDef)>,
    row_outputs: Vec<usize>,
    operations: Vec<Operation>,
    error: Option<Error>,
}

impl std::fmt::Debug for TransformPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransformPlan")
            .field("reads", &self.reads)
            .field("writes", &self.writes)
            .field("drops", &self.drops)
            .field("renames", &self.renames)
            .field("effects", &self.effects)
            .finish_non_exhaustive()
    }
}

impl TransformPlan {
    pub(crate) fn new(schema: &Schema) -> Self {
        TransformPlan {
            columns: schema.columns.clone(),
            reads: Vec::new(),
            meta: Vec::new(),
            effects: Vec::new(),
            rename_table: None,
            drops: Vec::new(),
            renames: Vec::new(),
            writes: Vec::new(),
            row_outputs: Vec::new(),
            operations: Vec::new(),
            error: None,
        }
    }

    /// The column of this name; none: the table has none, or it is not granted.
    pub fn column(&self, name: &str) -> Option<Col> {
        self.columns.iter().position(|c| c.name == name).map(|i| Col(i as u16))
    }

    /// What a column is.
    pub fn definition(&self, column: Col) -> &ColumnDef {
        &self.columns[usize::from(column.0)]
    }

    /// Rows leave for this table.
    pub fn rename_table(&mut self, name: impl Into<String>) {
        self.rename_table = Some(name.into());
    }

    /// Gives a column another name. Costs nothing a row.
    pub fn rename(&mut self, column: Col, name: impl Into<String>) {
        let name = name.into();
        match self.writes.iter_mut().find(|(replaces, _)| *replaces == Some(column.0)) {
            Some((_, output)) => output.name = name,
            None => self.renames.push((column.0, name)),
        }
    }

    /// Leaves a column out. Costs nothing a row.
    pub fn drop_column(&mut self, column: Col) {
        self.drops.push(column.0);
    }

    /// Keeps the rows for whose value `keep` says so, and those without one: NULL, or not sent.
    pub fn filter<R: Read>(&mut self, column: Col, keep: impl for<'a> Fn(R::Item<'a>) -> bool + 'static) {
        self.filter_cells::<R>(column, move |cell| match cell {
            Cell::Value(value) => keep(value),
            Cell::Null | Cell::NotSent => true,
        });
    }

    /// Keeps the rows for whose cell `keep` says so, NULL included; those whose cell was not sent are kept.
    pub fn filter_cells<R: Read>(&mut self, column: Col, keep: impl for<'a> Fn(Cell<R::Item<'a>>) -> bool + 'static) {
        let (slot, ty) = self.input::<R>(column, "filter");
        self.effect("drop");
        self.operations.push(Box::new(move |batch, draft| {
            let cells = Reader::<R>::new(&batch.columns[slot], &ty)?;
            let fates = draft.fates();
            for (row, fate) in fates.iter_mut().enumerate() {
                let cell = cells.get(row);
                if !matches!(cell, Cell::NotSent) && !keep(cell) {
                    *fate = DROP;
                }
            }
            Ok(())
        }));
    }

    /// Sends each row to the table that `to` names for its value; none, NULL and not sent: the usual one.
    pub fn route<R: Read>(&mut self, column: Col, to: impl for<'a> Fn(R::Item<'a>) -> Option<String> + 'static) {
        let (slot, ty) = self.input::<R>(column, "route");
        self.effect("route");
        self.operations.push(Box::new(move |batch, draft| {
            let cells = Reader::<R>::new(&batch.columns[slot], &ty)?;
            for row in 0..batch.rows {
                if let Some(name) = cells.get(row).value().and_then(&to) {
                    draft.route(row, name);
                }
            }
            Ok(())
        }));
    }

    /// Writes a column anew with the same name and type, value by value.
    pub fn map<R: Read>(
        &mut self,
        column: Col,
        f: impl for<'a> Fn(R::Item<'a>, &mut Out) -> Result<(), Reject> + 'static,
    ) {
        let ty = self.definition(column).ty.clone();
        self.convert::<R>(column, ty, f);
    }

    /// Writes a column anew with the same name and another type, value by value.
    pub fn convert<R: Read>(
        &mut self,
        column: Col,
        to: DataType,
        f: impl for<'a> Fn(R::Item<'a>, &mut Out) -> Result<(), Reject> + 'static,
    ) {
        let (slot, ty) = self.input::<R>(column, "convert");
        let write = self.replace(column, to.clone());
        let name = self.definition(column).name.clone();
        self.effect("reject");
        self.operations.push(Box::new(move |batch, draft| {
            let column = &batch.columns[slot];
            let cells = Reader::<R>::new(column, &ty)?;
            let mut out = Out::new(&to, batch.rows, Some(column));
            for row in 0..batch.rows {
                match cells.get(row) {
                    Cell::Value(value) => {
                        if let Err(reject) = f(value, &mut out) {
                            draft.reject(row, reject, Some(&name));
                            out.set_null();
                        }
                    }
                    Cell::Null => out.set_null(),
                    Cell::NotSent => out.set_not_sent(),
                }
                out.end_row();
            }
            draft.columns[write] = Some(out.finish());
            Ok(())
        }));
    }

    /// Writes a column anew as a whole, with the same name and another (or the same) type.
    ///
    /// `f` must answer a column of as many rows, of the cells that belong to the type.
    pub fn map_column(&mut self, column: Col, to: DataType, f: impl Fn(&Column) -> Result<Column, Error> + 'static) {
        let slot = self.read(column).0;
        let write = self.replace(column, to);
        self.operations.push(Box::new(move |batch, draft| {
            draft.columns[write] = Some(f(&batch.columns[slot])?);
            Ok(())
        }));
    }

    /// Looks at a column of each batch as a whole, to count or to log.
    pub fn inspect(&mut self, column: Col, f: impl Fn(&Column) -> Result<(), Error> + 'static) {
        let slot = self.read(column).0;
        self.operations.push(Box::new(move |batch, _| f(&batch.columns[slot])));
    }

    /// For [`TransformPlan::each_row`]: the column as an input.
    pub fn read(&mut self, column: Col) -> Input {
        let known = self.reads.iter().position(|r| *r == column.0);
        Input(known.unwrap_or_else(|| {
            self.reads.push(column.0);
            self.reads.len() - 1
        }))
    }

    /// For [`TransformPlan::each_row`]: what the host knows of each row besides its cells.
    pub fn read_meta(&mut self, meta: Meta) -> MetaInput {
        let known = self.meta.iter().position(|m| *m == meta);
        MetaInput(known.unwrap_or_else(|| {
            self.meta.push(meta);
            self.meta.len() - 1
        }))
    }

    /// For [`TransformPlan::each_row`]: the column as an output of this type; rows that do not set it are NULL.
    pub fn write(&mut self, column: Col, to: DataType) -> Output {
        let write = self.replace(column, to);
        self.row_output(write)
    }

    /// For [`TransformPlan::each_row`]: a new column; rows that do not set it are NULL.
    pub fn add_column(&mut self, definition: ColumnDef) -> Output {
        self.writes.push((None, definition));
        self.row_output(self.writes.len() - 1)
    }

    /// Runs `f` on every row image. A row that it rejects writes nothing. Say what it may do besides writing cells by
    /// [`TransformPlan::may_drop`] and [`TransformPlan::may_route`]. Call it once, after the inputs and outputs.
    pub fn each_row(&mut self, f: impl Fn(&Row<'_, '_>, &mut RowOut<'_>) -> Result<(), Reject> + 'static) {
        self.effect("reject");
        let inputs: Vec<DataType> = self.reads.iter().map(|&i| self.columns[usize::from(i)].ty.clone()).collect();
        let meta = self.meta.clone();
        let outputs: Vec<(usize, DataType)> =
            self.row_outputs.iter().map(|&w| (w, self.writes[w].1.ty.clone())).collect();
        self.operations.push(Box::new(move |batch, draft| {
            let rows = Rows::new(batch, &inputs, &meta)?;
            let mut outs: Vec<Out> = outputs.iter().map(|(_, ty)| Out::new(ty, batch.rows, None)).collect();
            for index in 0..batch.rows {
                let mut out = RowOut { outs: &mut outs, draft, row: index };
                if let Err(reject) = f(&rows.row(index), &mut out) {
                    outs.iter_mut().for_each(Out::set_null);
                    draft.reject(index, reject, None);
                }
                outs.iter_mut().for_each(Out::end_row);
            }
            for ((write, _), out) in outputs.iter().zip(outs) {
                draft.columns[*write] = Some(out.finish());
            }
            Ok(())
        }));
    }

    /// Keeps the row images for which `keep` says so. Call it after the inputs that it looks at.
    pub fn filter_rows(&mut self, keep: impl Fn(&Row<'_, '_>) -> bool + 'static) {
        self.effect("drop");
        let inputs: Vec<DataType> = self.reads.iter().map(|&i| self.columns[usize::from(i)].ty.clone()).collect();
        let meta = self.meta.clone();
        self.operations.push(Box::new(move |batch, draft| {
            let rows = Rows::new(batch, &inputs, &meta)?;
            for (index, fate) in draft.fates().iter_mut().enumerate() {
                if !keep(&rows.row(index)) {
                    *fate = DROP;
                }
            }
            Ok(())
        }));
    }

    /// Announces that `each_row` drops rows.
    pub fn may_drop(&mut self) {
        self.effect("drop");
    }

    /// Announces that `each_row` routes rows.
    pub fn may_route(&mut self) {
        self.effect("route");
    }

    fn row_output(&mut self, write: usize) -> Output {
        self.row_outputs.push(write);
        Output { write, slot: self.row_outputs.len() - 1 }
    }

    fn replace(&mut self, column: Col, ty: DataType) -> usize {
        let definition = self.definition(column);
        let mut output = ColumnDef { ty, ..definition.clone() };
        if output.ty != definition.ty {
            output.source_type = String::new();
        }
        if let Some(at) = self.renames.iter().position(|(c, _)| *c == column.0) {
            output.name = self.renames.remove(at).1;
        }
        self.writes.push((Some(column.0), output));
        self.writes.len() - 1
    }

    fn input<R: Read>(&mut self, column: Col, operation: &str) -> (usize, DataType) {
        let definition = self.definition(column);
        let ty = definition.ty.clone();
        if !R::fits(&ty) && self.error.is_none() {
            let reads = std::any::type_name::<R>().rsplit("::").next().unwrap_or_default().to_lowercase();
            self.error = Some(Error::schema(format!(
                "column {} is {ty:?}, which `{operation}` cannot read as {reads}",
                definition.name
            )));
        }
        (self.read(column).0, ty)
    }

    fn effect(&mut self, effect: &'static str) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.drops.is_empty() && self.renames.is_empty() && self.rename_table.is_none()
    }

    /// Splits the plan into what the host is told and what runs on each batch. None: nothing to do.
    pub(crate) fn finish(self) -> Result<Option<(wit::TransformPlan, Program)>, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.is_empty() {
            return Ok(None);
        }
        let types = self.writes.len();
        let plan = wit::TransformPlan {
            reads: self.reads,
            meta: self.meta.iter().map(|m| m.name().to_string()).collect(),
            effects: self.effects.into_iter().map(str::to_string).collect(),
            rename_table: self.rename_table,
            drops: self.drops,
            renames: self.renames.into_iter().map(|(column, to)| wit::Rename { column, to }).collect(),
            writes: self
                .writes
                .into_iter()
                .map(|(replaces, output)| wit::Write { replaces, output: output.into() })
                .collect(),
            shapes: Vec::new(),
            ext: Vec::new(),
        };
        Ok(Some((plan, Program { operations: self.operations, writes: types })))
    }
}

/// The operations of a plan.
pub(crate) struct Program {
    operations: Vec<Operation>,
    writes: usize,
}

impl Program {
    pub(crate) fn run(&self, batch: types::Batch) -> Result<wit::Outcome, Error> {
        let batch = Batch::from(batch);
        let mut draft = Draft::new(batch.rows, self.writes);
        for operation in &self.operations {
            operation(&batch, &mut draft)?;
        }
        Ok(draft.finish())
    }
}

const KEEP: u8 = 0;
const DROP: u8 = 1;

/// The answer to a batch while it is made.
pub(crate) struct Draft {
    rows: usize,
    fates: Option<Vec<u8>>,
    columns: Vec<Option<Column>>,
    rejects: Vec<types::Reject>,
    routes: Option<Routes>,
}

struct Routes {
    names: Vec<String>,
    by_name: HashMap<String, u16>,
    by_row: Vec<u16>,
}

impl Draft {
    fn new(rows: usize, writes: usize) -> Self {
        Draft { rows, fates: None, columns: (0..writes).map(|_| None).collect(), rejects: Vec::new(), routes: None }
    }

    fn fates(&mut self) -> &mut Vec<u8> {
        let rows = self.rows;
        self.fates.get_or_insert_with(|| vec![KEEP; rows])
    }

    fn reject(&mut self, row: usize, reject: Reject, column: Option<&str>) {
        let Reject { code, reason, retryable } = reject;
        let column = column.map(str::to_string);
        self.rejects.push(types::Reject { row: row as u32, code, reason, column, retryable, ext: Vec::new() });
    }

    fn route(&mut self, row: usize, name: String) {
        let rows = self.rows;
        let routes = self.routes.get_or_insert_with(|| Routes {
            names: vec![String::new()],
            by_name: HashMap::from([(String::new(), 0)]),
            by_row: vec![0; rows],
        });
        let next = routes.names.len() as u16;
        let index = *routes.by_name.entry(name).or_insert_with_key(|name| {
            routes.names.push(name.clone());
            next
        });
        routes.by_row[row] = index;
    }

    fn finish(mut self) -> wit::Outcome {
        if let Some(fates) = &self.fates {
            self.rejects.retain(|r| fates[r.row as usize] == KEEP);
        }
        wit::Outcome {
            fates: self.fates,
            columns: self.columns.into_iter().map(|c| c.map(|c| c.0)).collect(),
            rejects: self.rejects,
            emissions: Vec::new(),
            routing: self.routes.map(|r| wit::Routing { names: r.names, by_row: r.by_row }),
        }
    }
}

/// What `each_row` does with one row image.
pub struct RowOut<'b> {
    outs: &'b mut [Out],
    draft: &'b mut Draft,
    row: usize,
}

impl std::fmt::Debug for RowOut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowOut").field("row", &self.row).finish_non_exhaustive()
    }
}

impl RowOut<'_> {
    /// The cell of a column that the plan writes.
    pub fn cell(&mut self, output: Output) -> &mut Out {
        debug_assert!(output.write >= output.slot);
        &mut self.outs[output.slot]
    }

    /// Leaves the row image out.
    pub fn drop_row(&mut self) {
        let row = self.row;
        self.draft.fates()[row] = DROP;
    }

    /// Sends the row image to another table.
    pub fn route(&mut self, table: impl Into<String>) {
        self.draft.route(self.row, table.into());
    }
}
