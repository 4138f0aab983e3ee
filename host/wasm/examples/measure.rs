//! CPU nanoseconds a row of a stage, Arrow in and Arrow out: a quick look while working on the boundary.
//! `cargo xtask bench boundary` is what counts. With components as arguments: of those, each with an empty config.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::stage::{Grants, OnFailure, StageLoader, StageSpec};
use millrace_wasm::{RuntimeOptions, WasmRuntime};

const SAMPLES: usize = 31;

fn schema() -> Arc<TableSchema> {
    let int = |name: &str| Column::new(name, ColumnType::Int64);
    let text = |name: &str| Column::new(name, ColumnType::Text);
    let columns = vec![
        int("id").key(),
        int("customer_id"),
        int("quantity"),
        int("version"),
        Column::new("weight", ColumnType::Float64),
        Column::new("paid", ColumnType::Boolean),
        text("status"),
        text("amount"),
        text("customer"),
        text("email"),
        text("street"),
        text("city"),
    ];
    Arc::new(TableSchema::new(TableName::new("public", "orders"), columns, Images::Full))
}

fn batch(rows: usize) -> ChangeBatch {
    let mut made = RowsBuilder::new(SourceKey::new("public.orders"), schema(), false, rows).expect("builder");
    for row in 0..rows as i64 {
        made.begin_change(Order::new(row, 1), row);
        made.begin_row(ChangeType::Insert);
        for (index, column) in made.columns().iter_mut().enumerate() {
            match &mut column.cells {
                Cells::Int64(cells) => cells.append_value(row * 31 + index as i64),
                Cells::Float64(cells) => cells.append_value(row as f64 * 0.5),
                Cells::Boolean(cells) => cells.append_value(row % 3 == 0),
                Cells::Text(cells) => cells.append_value(match index {
                    6 => ["new", "test", "paid", "shipped", "open", "held", "done", "lost", "sent", "back"]
                        [row as usize % 10]
                        .to_string(),
                    7 => format!("{}.{:02}", row * 7919 % 100_000, row % 100),
                    _ => format!("some text {} of row {row}", index),
                }),
                other => panic!("{other:?}"),
            }
        }
    }
    made.finish().expect("batch").expect("rows")
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("nanoseconds"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let runtime = WasmRuntime::new(RuntimeOptions::default()).expect("runtime");
    let given: Vec<String> = std::env::args().skip(1).collect();
    for path in &given {
        measure(&runtime, path, path, "{}", 20_000).await;
    }
    if !given.is_empty() {
        return;
    }
    for (name, file, config) in [
        ("noop", "bench-noop", "{}"),
        ("filter+rename+convert", "bench-convert", "{}"),
        (
            "cast-rename, the same",
            "cast-rename",
            r#"{"keep":{"status":{"not_in":["test"]}},"rename":{"customer":"customer_name"},"cast":{"amount":{"to":"int64","scale":2}}}"#,
        ),
    ] {
        let path = format!("{}/../../plugins/dist/{file}.wasm", env!("CARGO_MANIFEST_DIR"));
        measure(&runtime, name, &path, config, 500_000).await;
    }
}

/// Prints what a row takes in batches of three sizes; `enough`: rows of a sample, for the kernel to account CPU time.
async fn measure(runtime: &WasmRuntime, name: &str, path: &str, config: &str, enough: usize) {
    let artifact = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}: cargo xtask plugins"));
    let spec = StageSpec {
        name: "measured".into(),
        digest: millrace_wasm::digest(&artifact),
        config: config.into(),
        grants: Grants { read: vec!["*".into()], write: vec!["*".into()], ..Grants::default() },
        tables: Vec::new(),
        on_failure: OnFailure::Halt,
        limits: String::new(),
    };
    let mut stage = runtime.load(&spec, &artifact).await.expect("loaded");
    for rows in [1, 100, 1_000] {
        let batch = batch(rows);
        let calls = (enough / rows).min(20_000);
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            let start = cpu();
            for _ in 0..calls {
                std::hint::black_box(stage.apply(&batch).await.expect("applied"));
            }
            samples.push((cpu() - start).as_nanos() as f64 / (calls * rows) as f64);
        }
        samples.sort_by(f64::total_cmp);
        println!("{name}: {rows} rows: median {:.1} ns a row, least {:.1}", samples[SAMPLES / 2], samples[0]);
    }
}
