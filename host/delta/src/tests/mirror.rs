//! A source to be mirrored: random changes of its rows, the batches that a connector would make of them, and what its table
//! must hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;
use futures::TryStreamExt;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::environment::Environment;
use millrace_core::position::Order;
use millrace_core::schema::{Column, ColumnType, Images, TableSchema};

pub(super) use super::key_kinds::*;
use super::support::*;
use crate::config::DeltaConfig;
use crate::file::reader::{FileReader, Rows};
use crate::log::{Table, deletion_vectors};
use crate::store::Store;

/// `value`, `wide` and `region` of a row, what it has in columns that come and go (none: NULL), and the position of its last
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub extras: BTreeMap<Arc<str>, i64>,
    pub value: Option<String>,
    pub wide: String,
    pub region: String,
    pub position: Order,
}

/// The rows at the source, by the number that its key is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    pub rows: BTreeMap<u64, Row>,
    pub commit: i64,
}

/// Cells of an image: a value, NULL, or not sent.
enum Cell<'a> {
    Text(&'a str),
    Null,
    Unsent,
}

/// What changes about the columns of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evolves {
    /// Columns come and go, and may be NULL at some time.
    pub columns: bool,
    /// Integers become long.
    pub types: bool,
}

pub(super) struct Source {
    pub kind: KeyKind,
    pub schema: Arc<TableSchema>,
    /// Every column that there ever was, as the table has it.
    pub table: Arc<TableSchema>,
    pub evolves: Evolves,
    pub mirror: Mirror,
    pub dice: Dice,
    /// Whether updates and deletes carry whole rows before the change.
    full: bool,
    /// Distinct keys that there are.
    keys: u64,
    /// How regions are spelled.
    region: &'static str,
}

impl Source {
    pub(super) fn new(kind: KeyKind, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let full = dice.one_in(3);
        let mut columns = kind.columns();
        columns.extend(["value", "wide", "region"].map(|name| Column::new(name, ColumnType::Text)));
        let images = if full { Images::Full } else { Images::Key };
        let schema = Arc::new(TableSchema::new(orders(), columns, images));
        let keys = if kind == KeyKind::Boolean { 2 } else { 40 };
        let table = Arc::clone(&schema);
        let evolves = Evolves::default();
        Self { kind, schema, table, evolves, mirror: Mirror::default(), dice, full, keys, region: "r" }
    }

    /// With a column `n0` that is NOT NULL; more come and go.
    pub(super) fn evolving(mut self, evolves: Evolves) -> Self {
        self.evolves = evolves;
        self.add_column(Column::new("n0", ColumnType::Int32).not_null());
        self
    }

    fn add_column(&mut self, column: Column) {
        for schema in [&mut self.schema, &mut self.table] {
            Arc::make_mut(schema).columns.push(column.clone());
        }
    }

    /// The first of the columns that come and go.
    fn first_extra(&self) -> usize {
        self.kind.columns().len() + 3
    }

    /// A column comes, goes, grows or may be NULL; what follows has the new form.
    fn evolve(&mut self) {
        let extras = self.schema.columns.len() - self.first_extra();
        let chosen = (extras > 0).then(|| self.first_extra() + self.dice.below(extras as u64) as usize);
        match (self.dice.below(4), chosen) {
            (0, Some(column)) if self.evolves.types => {
                let name = Arc::clone(&self.schema.columns[column].name);
                for schema in [&mut self.schema, &mut self.table] {
                    let of_name = Arc::make_mut(schema).columns.iter_mut().filter(|c| c.name == name);
                    of_name.for_each(|c| c.ty = ColumnType::Int64);
                }
            }
            (1, Some(column)) => Arc::make_mut(&mut self.schema).columns[column].nullable = true,
            (2, Some(column)) => drop(Arc::make_mut(&mut self.schema).columns.remove(column)),
            _ => self.add_column(Column::new(format!("n{}", self.table.columns.len()), ColumnType::Int32)),
        }
    }

    /// New values in the columns that there are now.
    fn fresh_extras(&mut self) -> BTreeMap<Arc<str>, i64> {
        let dice = &mut self.dice;
        let extras = &self.schema.columns[self.kind.columns().len() + 3..];
        extras
            .iter()
            .filter_map(|column| {
                let is_long = column.ty == ColumnType::Int64;
                let value = dice.below(if is_long { 1 << 40 } else { 1 << 20 }) as i64;
                (!column.nullable || !dice.one_in(4)).then(|| (Arc::clone(&column.name), value))
            })
            .collect()
    }

    fn has_extra(&self, name: &str) -> bool {
        self.schema.columns[self.first_extra()..].iter().any(|c| *c.name == *name)
    }

    pub(super) fn with_keys(mut self, keys: u64) -> Self {
        self.keys = keys.min(if self.kind == KeyKind::Boolean { 2 } else { keys });
        self
    }

    /// Regions that make awkward names of folders.
    pub(super) fn with_odd_regions(mut self) -> Self {
        self.region = "ü %41/=:";
        self
    }

    /// What would come next, without that it does.
    pub(super) fn clone_of(&self) -> Self {
        let (schema, table) = (Arc::clone(&self.schema), Arc::clone(&self.table));
        Self { schema, table, mirror: self.mirror.clone(), dice: Dice(self.dice.0), ..*self }
    }

    /// `extras`: `None` for columns that were not sent.
    fn image(
        &self,
        rows: &mut RowsBuilder,
        kind: ChangeType,
        id: u64,
        cells: [Cell<'_>; 3],
        extras: Option<&BTreeMap<Arc<str>, i64>>,
    ) {
        rows.begin_row(kind);
        let keys = self.first_extra() - cells.len();
        for column in 0..keys {
            self.kind.append(id, column, &mut rows.column(column).cells);
        }
        for (column, cell) in cells.into_iter().enumerate() {
            let builder = rows.column(keys + column);
            match (cell, &mut builder.cells) {
                (Cell::Text(text), Cells::Text(cells)) => cells.append_value(text),
                (Cell::Null, _) => builder.append_null(),
                _ => builder.append_unavailable(),
            }
        }
        let names: Vec<Arc<str>> = rows.schema().columns.iter().map(|c| Arc::clone(&c.name)).collect();
        for (column, name) in names.iter().enumerate().skip(self.first_extra()) {
            let builder = rows.column(column);
            match (extras.map(|extras| extras.get(name)), &mut builder.cells) {
                (Some(Some(value)), Cells::Int32(cells)) => cells.append_value(*value as i32),
                (Some(Some(value)), Cells::Int64(cells)) => cells.append_value(*value),
                (Some(_), _) => builder.append_null(),
                (None, _) => builder.append_unavailable(),
            }
        }
    }

    fn whole<'a>(row: &'a Row) -> [Cell<'a>; 3] {
        let value = row.value.as_deref().map_or(Cell::Null, Cell::Text);
        [value, Cell::Text(&row.wide), Cell::Text(&row.region)]
    }

    /// The next change, appended to `rows`. `may_truncate`: a truncate is a batch of its own.
    fn change(&mut self, rows: &mut RowsBuilder) {
        self.mirror.commit += 1;
        let position = Order::new(self.mirror.commit, 1);
        rows.begin_change(position, self.mirror.commit * 1_000);
        let id = self.dice.below(self.keys);
        let region = format!("{}{}", self.region, self.dice.below(3));
        let extras = self.fresh_extras();
        let fresh = |dice: &mut Dice| Row {
            extras: extras.clone(),
            value: (!dice.one_in(4)).then(|| format!("v{}", dice.below(1_000))),
            wide: format!("wide {} {}", dice.below(1_000_000), "x".repeat(50)),
            region: region.clone(),
            position,
        };
        let Some(before) = self.mirror.rows.get(&id).cloned() else {
            let row = fresh(&mut self.dice);
            // An upsert without a preimage is what some sources send for an insert as well.
            let kind = if self.dice.one_in(4) { ChangeType::UpdatePostimage } else { ChangeType::Insert };
            self.image(rows, kind, id, Self::whole(&row), Some(&row.extras));
            self.mirror.rows.insert(id, row);
            return;
        };
        match self.dice.below(10) {
            0..=1 => {
                let cells = if self.full { Self::whole(&before) } else { [Cell::Unsent, Cell::Unsent, Cell::Unsent] };
                self.image(rows, ChangeType::Delete, id, cells, self.full.then_some(&before.extras));
                self.mirror.rows.remove(&id);
            }
            2..=3 => self.change_key(rows, id, before, position),
            _ => {
                let mut row = fresh(&mut self.dice);
                let (keep_wide, keep_region) = (!self.dice.one_in(3), self.dice.one_in(3));
                if keep_wide {
                    row.wide.clone_from(&before.wide);
                }
                if keep_region {
                    row.region.clone_from(&before.region);
                }
                let keep_extras = !self.full && self.dice.one_in(3);
                if keep_extras {
                    row.extras = self.kept_extras(&before);
                }
                if self.full {
                    self.image(rows, ChangeType::UpdatePreimage, id, Self::whole(&before), Some(&before.extras));
                }
                let mut cells = Self::whole(&row);
                if keep_wide {
                    cells[1] = Cell::Unsent;
                }
                if keep_region && !self.full {
                    cells[2] = Cell::Unsent;
                }
                let extras = (!keep_extras).then_some(&row.extras);
                self.image(rows, ChangeType::UpdatePostimage, id, cells, extras);
                self.mirror.rows.insert(id, row);
            }
        }
    }

    /// What a row has in the columns that there still are.
    fn kept_extras(&self, row: &Row) -> BTreeMap<Arc<str>, i64> {
        let kept = row.extras.iter().filter(|(name, _)| self.has_extra(name));
        kept.map(|(name, value)| (Arc::clone(name), *value)).collect()
    }

    fn change_key(&mut self, rows: &mut RowsBuilder, id: u64, before: Row, position: Order) {
        let free = (0..50).map(|_| self.dice.below(self.keys)).find(|k| !self.mirror.rows.contains_key(k));
        let to = free.unwrap_or(id);
        let pre = if self.full { Self::whole(&before) } else { [Cell::Unsent, Cell::Unsent, Cell::Unsent] };
        self.image(rows, ChangeType::UpdatePreimage, id, pre, self.full.then_some(&before.extras));
        let extras = self.kept_extras(&before);
        let row = Row { extras, value: Some(format!("moved {}", position.commit())), position, ..before };
        let mut cells = Self::whole(&row);
        cells[1] = Cell::Unsent;
        self.image(rows, ChangeType::UpdatePostimage, to, cells, self.full.then_some(&row.extras));
        self.mirror.rows.remove(&id);
        self.mirror.rows.insert(to, row);
    }

    /// Batches of `changes` changes, and perhaps a truncate between.
    pub(super) fn batches(&mut self, changes: u64) -> Vec<ChangeBatch> {
        let mut batches = Vec::new();
        let mut left = changes;
        while left > 0 {
            let size = (1 + self.dice.below(20)).min(left);
            left -= size;
            if self.evolves.columns && self.dice.one_in(8) {
                self.evolve();
            }
            let mut rows = RowsBuilder::new(source(), Arc::clone(&self.schema), false, 64).unwrap();
            for _ in 0..size {
                self.change(&mut rows);
            }
            batches.extend(rows.finish().unwrap());
            // A table of many rows is to keep them.
            if self.keys <= 1_000 && self.dice.one_in(40) {
                batches.push(self.truncate());
            }
        }
        batches
    }

    fn truncate(&mut self) -> ChangeBatch {
        self.mirror.commit += 1;
        let mut rows = RowsBuilder::new(source(), Arc::clone(&self.schema), false, 1).unwrap();
        rows.begin_change(Order::new(self.mirror.commit, 1), 0);
        rows.begin_row(ChangeType::Truncate);
        rows.columns().iter_mut().for_each(|c| c.append_unavailable());
        self.mirror.rows.clear();
        rows.finish().unwrap().unwrap()
    }

    /// All rows, as a snapshot reads them.
    pub(super) fn snapshot(&mut self) -> Option<ChangeBatch> {
        let mut rows = RowsBuilder::new(source(), Arc::clone(&self.schema), true, 64).unwrap();
        self.mirror.commit += 1;
        let ids: Vec<u64> = self.mirror.rows.keys().copied().collect();
        for (place, id) in ids.into_iter().enumerate() {
            let position = Order([self.mirror.commit, 0, place as i64 + 1, 0]);
            rows.begin_change(position, 0);
            let mut row = self.mirror.rows[&id].clone();
            row.position = position;
            row.extras = self.kept_extras(&row);
            self.image(&mut rows, ChangeType::Insert, id, Self::whole(&row), Some(&row.extras));
            self.mirror.rows.insert(id, row);
        }
        rows.finish().unwrap()
    }

    /// What the table must hold: key columns, value, wide, region and position as text, sorted.
    pub(super) fn expected(&self) -> Vec<Vec<String>> {
        let mut rows = RowsBuilder::new(source(), Arc::clone(&self.table), false, 1_000).unwrap();
        rows.begin_change(Order::START, 0);
        for (id, row) in &self.mirror.rows {
            self.image(&mut rows, ChangeType::Insert, *id, Self::whole(row), Some(&row.extras));
        }
        let Some(batch) = rows.finish().unwrap() else { return Vec::new() };
        let meta = crate::file::meta::MetaColumns { change_type: false, unavailable: false };
        let mut table = Default::default();
        let layout = crate::file::layout::Layout::plan(&self.table, &mut table, &[], &DeltaConfig::new("/l"), meta);
        let batch = layout.unwrap().unwrap().convert(&batch).unwrap();
        let columns = &batch.columns()[..self.table.columns.len()];
        let positions = self.mirror.rows.values().map(|row| row.position.to_sortable());
        let text = |(at, position)| columns.iter().map(|c| shown(c, at)).chain([position]).collect();
        let mut texts: Vec<Vec<String>> = positions.enumerate().map(text).collect();
        texts.sort();
        texts
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.table.columns.iter().map(|c| &*c.name).chain(["_millrace_position"]).collect()
    }
}

/// A cell as text; binary in hexadecimal, times as DuckDB spells them.
pub(super) fn shown(cells: &arrow_array::ArrayRef, row: usize) -> String {
    if cells.is_null(row) {
        return "NULL".into();
    }
    match cells.data_type() {
        DataType::Binary => cells.as_binary::<i32>().value(row).iter().map(|b| format!("{b:02X}")).collect(),
        DataType::Timestamp(..) => {
            let micros = cells.as_primitive::<arrow_array::types::TimestampMicrosecondType>().value(row);
            micros.to_string()
        }
        _ => arrow_cast::cast(&cells.slice(row, 1), &DataType::Utf8).unwrap().as_string::<i32>().value(0).to_owned(),
    }
}

/// The table's rows by our own reader, deletion vectors heeded.
pub(super) async fn current(lake: &Lake, path: &Path, names: &[&str]) -> Vec<Vec<String>> {
    let store = Store::open(&path.display().to_string(), &Default::default()).unwrap();
    current_in(store, lake, names).await
}

pub(super) async fn current_in(store: Store, lake: &Lake, names: &[&str]) -> Vec<Vec<String>> {
    let environment = Arc::clone(&lake.machine) as Arc<dyn Environment>;
    let table = Table::open_with_files(store, environment, 0).await.unwrap();
    let Some(state) = table.state() else { return Vec::new() };
    let fields: Vec<_> = names.iter().map(|n| state.schema.field(n).unwrap().clone()).collect();
    let mut vectors = deletion_vectors::Reader::default();
    let mut found = Vec::new();
    for add in state.files.as_ref().unwrap().iter() {
        let gone = vectors.read(table.store(), add).await.unwrap();
        let reader = FileReader::open(table.store(), add).await.unwrap();
        assert!(gone.len() < reader.rows(), "a file of which nothing is left stays");
        let mut row = 0;
        let mut batches = reader.read(&fields, Rows::All).unwrap();
        while let Some(columns) = batches.try_next().await.unwrap() {
            for at in 0..columns[0].len() {
                if !gone.contains(row) {
                    found.push(columns.iter().map(|c| shown(c, at)).collect());
                }
                row += 1;
            }
        }
    }
    found.sort();
    found
}
