//! Reads sources to their end.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::path::PathBuf;

use futures::FutureExt;
use millrace_connectors::file::FileConfig;
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::{BatchLimits, Boundary, CutBuilder};
use millrace_core::json;
use millrace_core::source::{Resume, Source};
use serde_json::Value;

/// What answers without waiting for anything.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("answers at once")
}

pub fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)
}

/// Every batch of the files, from the start to the end.
pub fn all(config: &FileConfig) -> Vec<ChangeBatch> {
    let mut source = config.build().expect("a good configuration");
    block_on(source.open(&Resume::default())).expect("opens");
    to_the_end(&mut source)
}

pub fn to_the_end(source: &mut dyn Source) -> Vec<ChangeBatch> {
    let mut cut = CutBuilder::new(BatchLimits::default());
    let mut batches = Vec::new();
    loop {
        let boundary = block_on(source.read(&mut cut)).expect("reads");
        batches.extend(cut.take_closed());
        if matches!(boundary, Boundary::End(_)) {
            batches.extend(cut.finish().expect("finishes").0);
            return batches;
        }
    }
}

/// The rows of one source table, in order.
pub fn rows_of<'a>(batches: &'a [ChangeBatch], table: &'a str) -> impl Iterator<Item = (&'a ChangeBatch, usize)> {
    batches.iter().filter(move |b| &*b.origin.source.table == table).flat_map(|b| (0..b.rows()).map(move |r| (b, r)))
}

pub fn cell(batch: &ChangeBatch, column: &str, row: usize) -> Value {
    let (index, column) = batch.schema.column(column).expect("a column of this name");
    json::cell(&column.ty, &batch.columns[index], row)
}

/// A row with all that belongs to it, as text.
pub fn describe(batch: &ChangeBatch, row: usize) -> String {
    let columns: Vec<String> = batch.schema.columns.iter().map(|c| format!("{}:{}:{}", c.name, c.ty, c.key)).collect();
    let reject = batch.origin.rejects.iter().find(|r| r.change == batch.changes[row]).map(|r| (&r.code, &r.reason));
    format!(
        "{} {} {} {} [{}] {} unavailable {:?} {:?} reject {reject:?}",
        batch.schema.name,
        batch.order(row),
        batch.commit_time(row),
        batch.change_types[row].name(),
        columns.join(" "),
        Value::from(json::row(batch, row, |_| false)),
        json::unavailable(batch, row),
        batch.schema.images,
    )
}
