//! What plugins cost, from Arrow to Arrow: the example plugin (filter, rename, convert) in each language beside the same natively, one
//! masked column of forty, and a chain of four stages. CPU time of this thread, of batches of 1,000 rows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use std::path::PathBuf;
use std::sync::Arc;

use millrace_benches::orders::{ROWS, batch, natively, sample};
use millrace_benches::{Measured, aa, median, stage};
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::stage::{Grants, Stage, StageLoader, StageSpec};
use millrace_wasm::{RuntimeOptions, WasmRuntime};
use tokio::runtime::Runtime;

const SAMPLES: usize = 31;
/// Metric, component, unit in nanoseconds, calls a sample.
const LANGUAGES: [(&str, &str, f64, u32); 5] = [
    ("rust_ns", "order-cents-rust", 1.0, 20),
    ("c_ns", "order-cents-c", 1.0, 20),
    ("go_us", "order-cents-go", 1_000.0, 20),
    ("js_us", "order-cents-javascript", 1_000.0, 2),
    ("python_us", "order-cents-python", 1_000.0, 2),
];

fn load(runtime: &Runtime, wasm: &WasmRuntime, name: &str, columns: &[&str], config: &str) -> Box<dyn Stage> {
    let stage = stage(name, &[], columns, config);
    let grants = Grants { crypto: Vec::new(), ..stage.spec.grants.clone() };
    let spec = StageSpec { grants, ..stage.spec };
    runtime.block_on(wasm.load(&spec, &stage.artifact)).expect("the plugin loads")
}

/// A table of so many columns of text, `c0` and on.
fn texts(columns: usize) -> ChangeBatch {
    let id = Column::new("id", ColumnType::Int64).key();
    let columns = (0..columns).map(|c| Column::new(format!("c{c}").as_str(), ColumnType::Text));
    let schema =
        TableSchema::new(TableName::new("shop", "texts"), std::iter::once(id).chain(columns).collect(), Images::Full);
    let mut rows = RowsBuilder::new(SourceKey::new("shop.texts"), Arc::new(schema), false, ROWS).expect("a builder");
    for i in 0..ROWS as i64 {
        rows.begin_change(Order::new(i + 1, 1), i);
        rows.begin_row(ChangeType::Insert);
        for column in rows.columns() {
            match &mut column.cells {
                Cells::Int64(b) => b.append_value(i),
                Cells::Text(b) => b.append_value(format!("+49 170 {i:07}")),
                other => panic!("{other:?}"),
            }
        }
    }
    rows.finish().expect("a batch").expect("rows")
}

/// The chain's answer to the batch.
fn pass(runtime: &Runtime, chain: &mut [Box<dyn Stage>], batch: &ChangeBatch) -> ChangeBatch {
    chain
        .iter_mut()
        .fold(batch.clone(), |batch, stage| runtime.block_on(stage.apply(&batch)).expect("applied").batches.remove(0))
}

fn report(metric: &'static str, unit: &'static str, value: f64, baseline: Option<f64>, aa: f64) {
    Measured { bench: "plugins", metric, unit, value, baseline, aa: Some(aa) }.report();
}

/// Two chains on a batch each, in turns: how many times the second the first costs.
fn against(
    runtime: &Runtime,
    metric: &'static str,
    one: (&mut [Box<dyn Stage>], &ChangeBatch),
    other: (&mut [Box<dyn Stage>], &ChangeBatch),
) {
    let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
    for _ in 0..2 * SAMPLES {
        of_one.push(sample(20, &mut || drop(pass(runtime, one.0, one.1))));
        of_other.push(sample(20, &mut || drop(pass(runtime, other.0, other.1))));
    }
    let (aa, baseline) = (aa(&of_one), median(of_other));
    report(metric, "ratio", median(of_one) / baseline, Some(1.0), aa);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // CPython and SpiderMonkey take half a minute to compile.
    let cache = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache"));
    let options = RuntimeOptions { cache, ..RuntimeOptions::default() };
    let wasm = WasmRuntime::new(options).expect("the plugin runtime");
    let orders = batch();
    let native = natively(&orders);
    let granted = ["status", "amount", "customer", "customer_name"];
    let mut stages = LANGUAGES.map(|(_, name, ..)| [load(&runtime, &wasm, name, &granted, "{}")]);
    let mut samples = [const { Vec::new() }; LANGUAGES.len()];
    let mut natives = Vec::new();
    for stage in &mut stages {
        let answer = pass(&runtime, stage, &orders);
        assert_eq!(answer.columns[7].as_ref(), native.columns[7].as_ref(), "all ways answer the same");
    }
    for _ in 0..SAMPLES {
        natives.push(sample(20, &mut || drop(natively(&orders))));
        for ((stage, samples), (.., calls)) in stages.iter_mut().zip(&mut samples).zip(LANGUAGES) {
            samples.push(sample(calls, &mut || drop(pass(&runtime, stage, &orders))));
        }
    }
    let baseline = median(natives.clone());
    report("native_ns", "ns/row", baseline, None, aa(&natives));
    for ((metric, _, unit, _), samples) in LANGUAGES.into_iter().zip(&samples) {
        let unit_name = if unit > 1.0 { "us/row" } else { "ns/row" };
        report(metric, unit_name, median(samples.clone()) / unit, Some(baseline / unit), aa(samples));
    }

    let mask = |columns: &[&str]| {
        let config: Vec<String> = columns.iter().map(|name| format!(r#""{name}": "last4""#)).collect();
        load(&runtime, &wasm, "mask", columns, &format!("{{ {} }}", config.join(", ")))
    };
    let (one, forty) = (texts(1), texts(40));
    let (mut of_forty, mut of_one) = ([mask(&["c0"])], [mask(&["c0"])]);
    against(&runtime, "mask_1_of_40_vs_1", (&mut of_forty, &forty), (&mut of_one, &one));
    // The same work in four stages and in one.
    let four = texts(4);
    let mut chain = ["c0", "c1", "c2", "c3"].map(|column| mask(&[column]));
    let mut single = [mask(&["c0", "c1", "c2", "c3"])];
    against(&runtime, "chain_4_vs_1", (&mut chain, &four), (&mut single, &four));
}
