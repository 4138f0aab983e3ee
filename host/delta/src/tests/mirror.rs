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

use super::support::*;
use crate::file::reader::{FileReader, Rows};
use crate::log::{Table, deletion_vectors};
use crate::store::Store;

/// SplitMix64.
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What tells the rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Long,
    Text,
    /// Text and integer.
    Composite,
    Uuid,
    Decimal,
    Date,
    Timestamp,
    Binary,
    Boolean,
}

pub(super) const KEY_KINDS: [KeyKind; 9] = [
    KeyKind::Long,
    KeyKind::Text,
    KeyKind::Composite,
    KeyKind::Uuid,
    KeyKind::Decimal,
    KeyKind::Date,
    KeyKind::Timestamp,
    KeyKind::Binary,
    KeyKind::Boolean,
];

impl KeyKind {
    fn columns(self) -> Vec<Column> {
        let one = |ty| vec![Column::new("k", ty).key()];
        match self {
            KeyKind::Long => one(ColumnType::Int64),
            KeyKind::Text => one(ColumnType::Text),
            KeyKind::Composite => {
                vec![Column::new("k", ColumnType::Text).key(), Column::new("k2", ColumnType::Int32).key()]
            }
            KeyKind::Uuid => one(ColumnType::Uuid),
            KeyKind::Decimal => one(ColumnType::Decimal { precision: 30, scale: 2 }),
            KeyKind::Date => one(ColumnType::Date),
            KeyKind::Timestamp => one(ColumnType::TimestampTz),
            KeyKind::Binary => one(ColumnType::Binary),
            KeyKind::Boolean => one(ColumnType::Boolean),
        }
    }

    fn append(self, id: u64, column: usize, cells: &mut Cells) {
        let spread = id as i64 * 7 - 50;
        match cells {
            Cells::Int64(c) => c.append_value(spread),
            Cells::Int32(c) => c.append_value((id / 3) as i32),
            Cells::Text(c) if self == KeyKind::Composite && column == 0 => c.append_value(format!("é{}", id % 3)),
            Cells::Text(c) => c.append_value(format!("key {id}")),
            Cells::Uuid(c) => c.append_value([id.to_be_bytes(), id.to_le_bytes()].concat()).unwrap(),
            Cells::Decimal(c) => c.append_value(i128::from(spread) * 10_000_000_000_000_000_000),
            Cells::Date(c) => c.append_value(spread as i32),
            Cells::Timestamp(c) => c.append_value(spread * 1_000_001),
            Cells::Binary(c) => c.append_value([0, (id >> 8) as u8, id as u8, 0]),
            Cells::Boolean(c) => c.append_value(id.is_multiple_of(2)),
            other => panic!("no key of {other:?}"),
        }
    }
}

/// `value`, `wide` and `region` of a row, and the position of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
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

pub(super) struct Source {
    pub kind: KeyKind,
    pub schema: Arc<TableSchema>,
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
        Self { kind, schema, mirror: Mirror::default(), dice, full, keys, region: "r" }
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
        Self { schema: Arc::clone(&self.schema), mirror: self.mirror.clone(), dice: Dice(self.dice.0), ..*self }
    }

    fn image(&self, rows: &mut RowsBuilder, kind: ChangeType, id: u64, cells: [Cell<'_>; 3]) {
        rows.begin_row(kind);
        let keys = self.schema.columns.len() - cells.len();
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
        let fresh = |dice: &mut Dice| Row {
            value: (!dice.one_in(4)).then(|| format!("v{}", dice.below(1_000))),
            wide: format!("wide {} {}", dice.below(1_000_000), "x".repeat(50)),
            region: region.clone(),
            position,
        };
        let Some(before) = self.mirror.rows.get(&id).cloned() else {
            let row = fresh(&mut self.dice);
            // An upsert without a preimage is what some sources send for an insert as well.
            let kind = if self.dice.one_in(4) { ChangeType::UpdatePostimage } else { ChangeType::Insert };
            self.image(rows, kind, id, Self::whole(&row));
            self.mirror.rows.insert(id, row);
            return;
        };
        match self.dice.below(10) {
            0..=1 => {
                let cells = if self.full { Self::whole(&before) } else { [Cell::Unsent, Cell::Unsent, Cell::Unsent] };
                self.image(rows, ChangeType::Delete, id, cells);
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
                if self.full {
                    self.image(rows, ChangeType::UpdatePreimage, id, Self::whole(&before));
                }
                let mut cells = Self::whole(&row);
                if keep_wide {
                    cells[1] = Cell::Unsent;
                }
                if keep_region && !self.full {
                    cells[2] = Cell::Unsent;
                }
                self.image(rows, ChangeType::UpdatePostimage, id, cells);
                self.mirror.rows.insert(id, row);
            }
        }
    }

    fn change_key(&mut self, rows: &mut RowsBuilder, id: u64, before: Row, position: Order) {
        let free = (0..50).map(|_| self.dice.below(self.keys)).find(|k| !self.mirror.rows.contains_key(k));
        let to = free.unwrap_or(id);
        let pre = if self.full { Self::whole(&before) } else { [Cell::Unsent, Cell::Unsent, Cell::Unsent] };
        self.image(rows, ChangeType::UpdatePreimage, id, pre);
        let row = Row { value: Some(format!("moved {}", position.commit())), position, ..before };
        let mut cells = Self::whole(&row);
        cells[1] = Cell::Unsent;
        self.image(rows, ChangeType::UpdatePostimage, to, cells);
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
            if let Some(row) = self.mirror.rows.get_mut(&id) {
                row.position = position;
            }
            let row = self.mirror.rows[&id].clone();
            self.image(&mut rows, ChangeType::Insert, id, Self::whole(&row));
        }
        rows.finish().unwrap()
    }

    /// What the table must hold: key columns, value, wide, region and position as text, sorted.
    pub(super) fn expected(&self) -> Vec<Vec<String>> {
        let mut rows = RowsBuilder::new(source(), Arc::clone(&self.schema), false, 1_000).unwrap();
        rows.begin_change(Order::START, 0);
        for (id, row) in &self.mirror.rows {
            self.image(&mut rows, ChangeType::Insert, *id, Self::whole(row));
        }
        let Some(batch) = rows.finish().unwrap() else { return Vec::new() };
        let meta = crate::file::meta::MetaColumns { change_type: false, unavailable: false };
        let mut table = Default::default();
        let layout = crate::file::layout::Layout::plan(&self.schema, &mut table, &[], Default::default(), meta);
        let batch = layout.unwrap().unwrap().convert(&batch).unwrap();
        let columns = &batch.columns()[..self.schema.columns.len()];
        let positions = self.mirror.rows.values().map(|row| row.position.to_sortable());
        let text = |(at, position)| columns.iter().map(|c| shown(c, at)).chain([position]).collect();
        let mut texts: Vec<Vec<String>> = positions.enumerate().map(text).collect();
        texts.sort();
        texts
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.schema.columns.iter().map(|c| &*c.name).chain(["_millrace_position"]).collect()
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

const READ: &str = r#"
import glob, json, sys, sysconfig
import duckdb, polars
from deltalake import DeltaTable, QueryBuilder
path, names = sys.argv[1], sys.argv[2:]
site = sysconfig.get_paths()["purelib"]
(extension,) = glob.glob(site + "/duckdb_extension_delta/extensions/*/delta.duckdb_extension")
c = duckdb.connect()
c.execute("set timezone = 'UTC'")
# On a slow machine it would be in the answer.
c.execute("set enable_progress_bar = false")
c.execute(f"load '{extension}'")
types = dict(r[:2] for r in c.execute(f"describe select * from delta_scan('{path}')").fetchall())
def shown(name):
    if types[name] == "BLOB": return f'coalesce(hex("{name}"), \'NULL\')'
    if types[name].startswith("TIMESTAMP"): return f'coalesce(epoch_us("{name}")::varchar, \'NULL\')'
    return f'coalesce("{name}"::varchar, \'NULL\')'
columns = ", ".join(shown(n) for n in names)
duck = sorted(list(r) for r in c.execute(f"select {columns} from delta_scan('{path}')").fetchall())
def fusion(name):
    if types[name] == "BLOB": return f'coalesce(upper(encode("{name}", \'hex\')), \'NULL\')'
    if types[name].startswith("TIMESTAMP"): return f'coalesce(cast(cast("{name}" as bigint) as varchar), \'NULL\')'
    return f'coalesce(cast("{name}" as varchar), \'NULL\')'
def polar(name):
    column = polars.col(name)
    if types[name] == "BLOB": column = column.bin.encode("hex").str.to_uppercase()
    if types[name].startswith("TIMESTAMP"): column = column.dt.epoch("us")
    return column.cast(polars.String).fill_null("NULL")
texts = ", ".join(f"{fusion(n)} c{i}" for i, n in enumerate(names))
answer = QueryBuilder().register("t", DeltaTable(path)).execute(f"select {texts} from t").read_all()
rows = zip(*(answer[f"c{i}"].to_pylist() for i in range(len(names))))
print(json.dumps({
    "duckdb": duck,
    "count": c.execute(f"select count(*) from delta_scan('{path}')").fetchone()[0],
    "deltalake": sorted(list(r) for r in rows),
    "polars": sorted(list(r) for r in polars.read_delta(path).select([polar(n) for n in names]).rows()),
}))
"#;

/// The table's rows by others: DuckDB, delta-rs and polars; `None` where they are not installed.
pub(super) fn by_others(path: &Path, names: &[&str]) -> Option<BTreeMap<String, Vec<Vec<String>>>> {
    let python = python()?;
    let path = path.display().to_string();
    let args: Vec<&str> = std::iter::once(path.as_str()).chain(names.iter().copied()).collect();
    let mut answer: serde_json::Value = serde_json::from_str(&run_python(&python, READ, &args)).unwrap();
    let count = answer.as_object_mut().unwrap().remove("count").unwrap();
    assert_eq!(
        count.as_u64().unwrap() as usize,
        answer["duckdb"].as_array().unwrap().len(),
        "DuckDB's count of {path}"
    );
    Some(serde_json::from_value(answer).unwrap())
}
