//! A batch of orders, and what the example plugins do with it, natively.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, BooleanArray, Int64Array};
use cpu_time::ThreadTime;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};

pub const ROWS: usize = 1_000;

/// 4 integers, 1 float, 1 bool, 6 texts; one row in ten has the status "test".
pub fn batch() -> ChangeBatch {
    let text = |name: &str| Column::new(name, ColumnType::Text);
    let columns = vec![
        Column::new("id", ColumnType::Int64).key(),
        Column::new("shop", ColumnType::Int64),
        Column::new("quantity", ColumnType::Int32),
        Column::new("version", ColumnType::Int32),
        Column::new("weight", ColumnType::Float64),
        Column::new("paid", ColumnType::Boolean),
        text("status"),
        text("amount"),
        text("customer"),
        text("city"),
        text("street"),
        text("note"),
    ];
    let schema = Arc::new(TableSchema::new(TableName::new("shop", "orders"), columns, Images::Full));
    let mut rows = RowsBuilder::new(SourceKey::new("shop.orders"), schema, false, ROWS).expect("a builder");
    for i in 0..ROWS as i64 {
        rows.begin_change(Order::new(i + 1, 1), i);
        rows.begin_row(ChangeType::Insert);
        let texts = [
            if i % 10 == 0 { "test".to_owned() } else { "shipped".to_owned() },
            format!("{}.{:02}", i * 97 % 100_000, i % 100),
            format!("customer-{i:08}"),
            "Rotterdam".to_owned(),
            format!("Coolsingel {i}"),
            "leave it with the neighbours, please".to_owned(),
        ];
        for (column, builder) in rows.columns().iter_mut().enumerate() {
            match &mut builder.cells {
                Cells::Int64(b) => b.append_value(i),
                Cells::Int32(b) => b.append_value(i as i32),
                Cells::Float64(b) => b.append_value(i as f64),
                Cells::Boolean(b) => b.append_value(i % 2 == 0),
                Cells::Text(b) => b.append_value(&texts[column - 6]),
                other => panic!("{other:?}"),
            }
        }
    }
    rows.finish().expect("a batch").expect("rows")
}

/// The same filter, rename and conversion, on the same batch, without a sandbox.
pub fn natively(batch: &ChangeBatch) -> ChangeBatch {
    let status = batch.columns[6].as_string::<i32>();
    let amount = batch.columns[7].as_string::<i32>();
    let keep: BooleanArray = status.iter().map(|s| Some(s != Some("test"))).collect();
    let cents: Int64Array = amount.iter().map(|a| a.and_then(cents)).collect();
    let mut schema = (*batch.schema).clone();
    schema.columns[8].name = "customer_name".into();
    schema.columns[7].ty = ColumnType::Int64;
    let mut out = batch.clone();
    out.schema = Arc::new(schema);
    out.columns[7] = Arc::new(cents) as ArrayRef;
    out.filter(keep.values()).expect("a filter")
}

fn cents(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.')?;
    Some(whole.parse::<i64>().ok()? * 100 + fraction.parse::<i64>().ok()?)
}

/// CPU nanoseconds a row of this thread, over so many calls on a batch of [`ROWS`].
pub fn sample(calls: u32, work: &mut dyn FnMut()) -> f64 {
    let start = ThreadTime::now();
    for _ in 0..calls {
        work();
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls) / ROWS as f64
}
