//! Rows and random changes of the table that is measured.

use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};

use crate::cases::Case;

pub(crate) const BATCH: usize = 1_000;

pub(crate) fn source() -> SourceKey {
    SourceKey::new("public.orders")
}

pub(crate) fn schema() -> Arc<TableSchema> {
    let columns = vec![
        Column::new("id", ColumnType::Int64).key(),
        Column::new("customer", ColumnType::Text),
        Column::new("email", ColumnType::Text),
        Column::new("status", ColumnType::Text),
        Column::new("amount", ColumnType::Decimal { precision: 18, scale: 2 }),
        Column::new("qty", ColumnType::Int32),
        Column::new("active", ColumnType::Boolean),
        Column::new("note", ColumnType::Text),
        Column::new("updated_at", ColumnType::TimestampTz),
    ];
    Arc::new(TableSchema::new(TableName::new("public", "orders"), columns, Images::Key))
}

/// How keys lie in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// As they were inserted: each file has a range of its own.
    Ascending,
    /// As random identifiers: every file may have every key.
    Shuffled,
}

/// SplitMix64; one to one.
pub(crate) fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Ids {
    /// The key of the row of this number.
    fn id(self, number: u64) -> i64 {
        match self {
            Ids::Ascending => number as i64,
            Ids::Shuffled => mixed(number) as i64,
        }
    }
}

const STATES: [&str; 5] = ["new", "paid", "shipped", "returned", "cancelled"];

/// Writes one image. `seed`: what its values are made of.
fn image(rows: &mut RowsBuilder, kind: ChangeType, id: i64, seed: u64, without_note: bool) {
    rows.begin_row(kind);
    let r = mixed(seed);
    for (index, column) in rows.columns().iter_mut().enumerate() {
        if index > 0 && kind == ChangeType::Delete || index == 7 && without_note {
            column.append_unavailable();
            continue;
        }
        match (&mut column.cells, index) {
            (Cells::Int64(c), _) => c.append_value(id),
            (Cells::Text(c), 1) => c.append_value(format!("cust-{:08x}", r as u32)),
            (Cells::Text(c), 2) => c.append_value(format!("user{:08x}@example{}.com", (r >> 16) as u32, r % 97)),
            (Cells::Text(c), 3) => c.append_value(STATES[(r % 5) as usize]),
            (Cells::Text(c), _) => c.append_value(format!("note {r:016x} {:016x} abc", mixed(r))),
            (Cells::Decimal(c), _) => c.append_value(i128::from(r % 10_000_000)),
            (Cells::Int32(c), _) => c.append_value((r % 100) as i32),
            (Cells::Boolean(c), _) => c.append_value(r & 1 == 0),
            (Cells::Timestamp(c), _) => c.append_value(1_760_000_000_000_000 + (r % 1_000_000) as i64),
            (other, _) => other.append_null(),
        }
    }
}

/// Batches of inserts of the rows of even numbers from `2 * first` on.
pub(crate) fn inserts(first: u64, rows: u64, ids: Ids, commit: &mut i64) -> Vec<ChangeBatch> {
    let schema = schema();
    let mut batches = Vec::new();
    let mut at = first;
    while at < first + rows {
        let end = (at + BATCH as u64).min(first + rows);
        let mut builder = RowsBuilder::new(source(), Arc::clone(&schema), false, BATCH).unwrap();
        for number in at..end {
            *commit += 1;
            builder.begin_change(Order::new(*commit, 1), *commit);
            image(&mut builder, ChangeType::Insert, ids.id(2 * number), number, false);
        }
        batches.extend(builder.finish().unwrap());
        at = end;
    }
    batches
}

/// Random changes: of ten, seven updates, two inserts, one delete.
pub(crate) struct Changes {
    rows: u64,
    ids: Ids,
    unsent: bool,
    state: u64,
    commit: i64,
}

impl Changes {
    pub(crate) fn new(case: &Case) -> Self {
        Self { rows: case.rows, ids: case.ids, unsent: case.unsent, state: 7, commit: 1 << 40 }
    }

    pub(crate) fn next(&mut self, count: u64) -> Vec<ChangeBatch> {
        let schema = schema();
        let mut batches = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let mut builder = RowsBuilder::new(source(), Arc::clone(&schema), false, BATCH).unwrap();
            for place in start..(start + BATCH as u64).min(count) {
                self.state += 1;
                self.commit += 1;
                builder.begin_change(Order::new(self.commit, 1), self.commit);
                let number = 2 * (mixed(self.state) % self.rows);
                let (kind, number) = match place % 10 {
                    0..=6 => (ChangeType::UpdatePostimage, number),
                    7 | 8 => (ChangeType::Insert, number + 1),
                    _ => (ChangeType::Delete, number),
                };
                let unsent = self.unsent && kind == ChangeType::UpdatePostimage && place % 2 == 0;
                image(&mut builder, kind, self.ids.id(number), self.state, unsent);
            }
            batches.extend(builder.finish().unwrap());
        }
        batches
    }
}
