//! From what a stage decides about row images to what goes on: the arithmetic of filters, routes and verdicts.
//!
//! A filter is a predicate on row images, a verdict is on the change (design: the plugin contract). It is done here,
//! once, for every plugin and for the simulator's stages.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;

use crate::batch::{ChangeBatch, ChangeType, Reject};
use crate::error::{Error, Result};
use crate::schema::{TableName, TableSchema};
use crate::stage::StageOutput;

/// Where a column of the output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Index of an input column (renamed perhaps): costs nothing a row.
    Input(usize),
    /// Index into [`Outcome::columns`]; `replaces`: the input column whose cells stand in where the outcome has none.
    Written { index: usize, replaces: Option<usize> },
}

/// A further form, for rows that a stage adds.
#[derive(Clone, Debug)]
pub struct Shape {
    pub schema: Arc<TableSchema>,
    /// Input columns that come first, copied from the parent row as the stage got it.
    pub inherits: Vec<usize>,
}

/// What a transform does to one schema; made once, checked against the grants by the runtime.
#[derive(Clone, Debug)]
pub struct TransformPlan {
    pub output: Arc<TableSchema>,
    /// One a column of `output`.
    pub columns: Vec<From>,
    /// Input columns that the stage reads: a delete that lacks one of them is never dropped.
    pub reads: Vec<usize>,
    /// One of the written columns is part of the key: a row whose key can not be written has none to go on by.
    pub writes_key: bool,
    pub shapes: Vec<Shape>,
}

/// A refusal, named on a row image.
#[derive(Clone, Debug)]
pub struct RowReject {
    pub row: u32,
    pub code: String,
    pub reason: String,
    pub column: Option<String>,
}

/// A written column, and where its values are unavailable.
#[derive(Clone, Debug)]
pub struct Written {
    pub cells: ArrayRef,
    pub unavailable: Option<BooleanBuffer>,
}

/// Rows that a stage adds after their parents.
#[derive(Clone, Debug)]
pub struct Emission {
    pub shape: usize,
    /// Input row, ascending.
    pub parent: Vec<u32>,
    pub change_types: Vec<ChangeType>,
    /// The shape's own columns, after the inherited ones.
    pub columns: Vec<Written>,
}

/// Names of tables, and one index into them a row; the empty name is the default route.
#[derive(Clone, Debug)]
pub struct Routing {
    pub names: Vec<String>,
    pub by_row: Vec<u16>,
}

/// A stage's answer for one batch, checked for lengths and types by the runtime.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Set = keep. `None`: keep all.
    pub keep: Option<BooleanBuffer>,
    /// One for each written column; `None`: this batch keeps the input cells.
    pub columns: Vec<Option<Written>>,
    pub rejects: Vec<RowReject>,
    pub emissions: Vec<Emission>,
    pub routing: Option<Routing>,
}

/// Does the arithmetic: which images go on, as what, to which table; which changes are refused.
pub fn resolve(input: &ChangeBatch, plan: &TransformPlan, outcome: Outcome) -> Result<StageOutput> {
    let mut refused = refusals(input, plan, &outcome.rejects);
    let mut fates = Fates::new(input, plan, &outcome, &mut refused);
    fates.settle(input);
    let mut output = StageOutput { rejects: refused.rejects, ..StageOutput::default() };
    let all = written_batch(input, plan, &outcome, &refused.unwritten)?;
    fates.collect(&all, plan, &mut output)?;
    let kept: usize = output.batches.iter().map(ChangeBatch::rows).sum();
    output.dropped = (input.rows() - kept - fates.refused_rows) as u64;
    for emission in &outcome.emissions {
        emit(input, plan, emission, &fates, &mut output)?;
    }
    Ok(output)
}

/// Which changes are refused, and which images merely could not be written.
struct Refused {
    /// In the order of their changes, however the plugin names them; the first that it names of a change counts.
    rejects: Vec<Reject>,
    /// Change ids, ascending.
    changes: Vec<u32>,
    /// Rows whose written cells count as not sent.
    unwritten: Vec<u32>,
}

fn refusals(input: &ChangeBatch, plan: &TransformPlan, named: &[RowReject]) -> Refused {
    let mut refused = Refused { rejects: Vec::new(), changes: Vec::new(), unwritten: Vec::new() };
    for reject in named {
        let row = reject.row as usize;
        let goes_on =
            matches!(input.change_types[row], ChangeType::UpdatePreimage | ChangeType::Delete) && !plan.writes_key;
        if goes_on {
            refused.unwritten.push(reject.row);
            continue;
        }
        let change = input.changes[row];
        if let Err(at) = refused.changes.binary_search(&change) {
            refused.changes.insert(at, change);
            let reject = Reject {
                change,
                code: reject.code.as_str().into(),
                reason: reject.reason.clone(),
                column: reject.column.as_deref().map(Into::into),
            };
            refused.rejects.insert(at, reject);
        }
    }
    refused
}

/// The fate of each image: gone, or kept as some change type on some route.
struct Fates {
    kept: Vec<bool>,
    types: Vec<ChangeType>,
    /// Index into `tables`, which starts with the default route's.
    routes: Vec<u16>,
    tables: Vec<TableName>,
    /// Rows that turned into a delete without their own preimage: only their key is known of the old row.
    key_only: Vec<u32>,
    refused: Vec<bool>,
    refused_rows: usize,
    untouched: bool,
}

impl Fates {
    fn new(input: &ChangeBatch, plan: &TransformPlan, outcome: &Outcome, refused: &mut Refused) -> Self {
        let rows = input.rows();
        let is_refused: Vec<bool> = if refused.changes.is_empty() {
            vec![false; rows]
        } else {
            input.changes.iter().map(|c| refused.changes.binary_search(c).is_ok()).collect()
        };
        let refused_rows = is_refused.iter().filter(|r| **r).count();
        let lacks_a_read = |row: usize| plan.reads.iter().any(|c| input.is_unavailable(*c, row));
        let mut kept: Vec<bool> = match &outcome.keep {
            Some(keep) => keep.iter().collect(),
            None => vec![true; rows],
        };
        // The fate of a row that is named in a reject is ignored.
        refused.unwritten.iter().for_each(|row| kept[*row as usize] = true);
        for row in 0..rows {
            if !kept[row] && input.change_types[row] == ChangeType::Delete && lacks_a_read(row) {
                kept[row] = true;
                // The stage dropped it, so that its cells mean nothing.
                refused.unwritten.push(row as u32);
            }
            kept[row] &= !is_refused[row];
        }
        let (tables, routes) = routes(rows, outcome.routing.as_ref(), &plan.output.name);
        let untouched = outcome.keep.is_none() && refused_rows == 0 && tables.len() == 1;
        Self {
            kept,
            types: input.change_types.clone(),
            routes,
            tables,
            key_only: Vec::new(),
            refused: is_refused,
            refused_rows,
            untouched,
        }
    }

    /// Pairs each preimage with its postimage: the two leave as an update only where both stay, in one table.
    fn settle(&mut self, input: &ChangeBatch) {
        if self.untouched {
            return;
        }
        let mut row = 0;
        while row < self.kept.len() {
            let paired = input.change_types[row] == ChangeType::UpdatePreimage
                && input.change_types.get(row + 1) == Some(&ChangeType::UpdatePostimage)
                && input.changes[row] == input.changes[row + 1];
            if paired {
                self.settle_pair(row);
                row += 2;
            } else {
                self.settle_alone(row);
                row += 1;
            }
        }
    }

    fn settle_pair(&mut self, pre: usize) {
        let post = pre + 1;
        let together = self.kept[pre] && self.kept[post] && self.routes[pre] == self.routes[post];
        if !together {
            self.types[pre] = ChangeType::Delete;
            self.types[post] = ChangeType::Insert;
        }
    }

    /// An update without a preimage whose row is filtered out may be in the table from before: it leaves by its key.
    fn settle_alone(&mut self, row: usize) {
        if self.types[row] == ChangeType::UpdatePostimage && !self.kept[row] && !self.refused[row] {
            self.kept[row] = true;
            self.types[row] = ChangeType::Delete;
            self.key_only.push(row as u32);
        }
    }

    fn collect(&self, all: &ChangeBatch, plan: &TransformPlan, output: &mut StageOutput) -> Result<()> {
        if self.untouched {
            output.batches.push(all.clone());
            return Ok(());
        }
        let mut retyped = all.clone();
        retyped.change_types.clone_from(&self.types);
        if !self.key_only.is_empty() {
            only_keys(&mut retyped, &self.key_only)?;
        }
        for (route, table) in self.tables.iter().enumerate() {
            let keep = bits(self.kept.iter().zip(&self.routes).map(|(kept, r)| *kept && *r as usize == route));
            if keep.count_set_bits() == 0 {
                continue;
            }
            let mut batch = retyped.filter(&keep)?;
            if *table != plan.output.name {
                batch.schema = named(&plan.output, table.clone());
            }
            output.batches.push(batch);
        }
        Ok(())
    }
}

/// The tables that rows go to, the default route's first, and the index of each row's. Names that mean the same table are
/// one route: its rows stay in order, and an update within it stays an update.
fn routes(rows: usize, routing: Option<&Routing>, default: &TableName) -> (Vec<TableName>, Vec<u16>) {
    let mut tables = vec![default.clone()];
    let Some(routing) = routing else { return (tables, vec![0; rows]) };
    let index: Vec<u16> = routing
        .names
        .iter()
        .map(|name| {
            if name.is_empty() {
                return 0;
            }
            let table = table_name(default, name);
            match tables.iter().position(|known| *known == table) {
                Some(known) => known as u16,
                None => {
                    tables.push(table);
                    tables.len() as u16 - 1
                }
            }
        })
        .collect();
    let by_row = routing.by_row.iter().map(|r| index[*r as usize]).collect();
    (tables, by_row)
}

/// A routed table: the same form under another name, in the same namespace unless the name has one.
pub fn renamed(schema: &Arc<TableSchema>, name: &str) -> Arc<TableSchema> {
    named(schema, table_name(&schema.name, name))
}

fn named(schema: &TableSchema, name: TableName) -> Arc<TableSchema> {
    Arc::new(TableSchema { name, ..schema.clone() })
}

fn table_name(default: &TableName, name: &str) -> TableName {
    match name.split_once('.') {
        Some((namespace, table)) => TableName::new(namespace, table),
        None => TableName::new(default.namespace.clone(), name),
    }
}

fn bits(values: impl Iterator<Item = bool>) -> BooleanBuffer {
    values.collect()
}

/// All rows of the input in the form of the output.
fn written_batch(
    input: &ChangeBatch,
    plan: &TransformPlan,
    outcome: &Outcome,
    unwritten: &[u32],
) -> Result<ChangeBatch> {
    let mut columns = Vec::with_capacity(plan.columns.len());
    let mut unavailable = Vec::with_capacity(plan.columns.len());
    for (from, column) in plan.columns.iter().zip(&plan.output.columns) {
        let input_cells = |c: usize| (input.columns[c].clone(), input.unavailable[c].clone());
        let (cells, missing) = match from {
            From::Input(column) => input_cells(*column),
            From::Written { index, replaces } => match (&outcome.columns[*index], replaces) {
                // A row without a key would have nothing to go on by.
                (Some(written), _) if column.key => (written.cells.clone(), written.unavailable.clone()),
                (Some(written), _) => with_unwritten(written, unwritten)?,
                (None, Some(column)) => input_cells(*column),
                (None, None) => return Err(Error::bug("a new column came without cells")),
            },
        };
        columns.push(cells);
        unavailable.push(missing);
    }
    let batch = ChangeBatch {
        schema: plan.output.clone(),
        origin: input.origin.clone(),
        change_types: input.change_types.clone(),
        changes: input.changes.clone(),
        columns,
        unavailable,
    };
    batch.check()?;
    Ok(batch)
}

/// Cells of images that were rejected, or dropped, but go on by their key count as not sent.
fn with_unwritten(written: &Written, rows: &[u32]) -> Result<(ArrayRef, Option<BooleanBuffer>)> {
    if rows.is_empty() {
        return Ok((written.cells.clone(), written.unavailable.clone()));
    }
    blank(&written.cells, written.unavailable.as_ref(), rows)
}

/// Sets the given rows to null and unavailable.
fn blank(
    cells: &ArrayRef,
    unavailable: Option<&BooleanBuffer>,
    rows: &[u32],
) -> Result<(ArrayRef, Option<BooleanBuffer>)> {
    let mut set = BooleanBufferBuilder::new(cells.len());
    match unavailable {
        Some(bits) => set.append_buffer(bits),
        None => set.append_n(cells.len(), false),
    }
    for row in rows {
        set.set_bit(*row as usize, true);
    }
    let set = set.finish();
    let valid = match cells.nulls() {
        Some(nulls) => nulls.inner() & &!&set,
        None => !&set,
    };
    let data = cells.to_data().into_builder().nulls(Some(valid.into()));
    let data = data.build().map_err(|e| Error::bug(e.to_string()))?;
    Ok((arrow_array::make_array(data), Some(set)))
}

fn only_keys(batch: &mut ChangeBatch, rows: &[u32]) -> Result<()> {
    for index in 0..batch.columns.len() {
        if !batch.schema.columns[index].key {
            let (cells, missing) = blank(&batch.columns[index], batch.unavailable[index].as_ref(), rows)?;
            batch.columns[index] = cells;
            batch.unavailable[index] = missing;
        }
    }
    Ok(())
}

fn emit(
    input: &ChangeBatch,
    plan: &TransformPlan,
    emission: &Emission,
    fates: &Fates,
    output: &mut StageOutput,
) -> Result<()> {
    let shape = &plan.shapes[emission.shape];
    let parents = input.take(&emission.parent)?;
    let mut columns = Vec::with_capacity(shape.schema.columns.len());
    let mut unavailable = Vec::with_capacity(shape.schema.columns.len());
    for column in &shape.inherits {
        columns.push(parents.columns[*column].clone());
        unavailable.push(parents.unavailable[*column].clone());
    }
    for written in &emission.columns {
        columns.push(written.cells.clone());
        unavailable.push(written.unavailable.clone());
    }
    let batch = ChangeBatch {
        schema: shape.schema.clone(),
        origin: input.origin.clone(),
        change_types: emission.change_types.clone(),
        changes: parents.changes,
        columns,
        unavailable,
    };
    batch.check()?;
    // An emitted row belongs to its parent's change: where that is refused, it goes as well.
    let batch = batch.filter(&bits(emission.parent.iter().map(|p| !fates.refused[*p as usize])))?;
    if !batch.is_empty() {
        output.emitted += batch.rows() as u64;
        output.batches.push(batch);
    }
    Ok(())
}
