//! What it costs to take a batch of 1,000 row images of 12 columns through a plugin, from Arrow to Arrow: CPU time of this thread.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, BooleanArray, Int64Array};
use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BatchSize, Criterion, Throughput};
use millrace_benches::{Measured, median, stage};
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::stage::{Stage, StageLoader};
use millrace_wasm::{RuntimeOptions, WasmRuntime};

const ROWS: usize = 1_000;
const SAMPLES: usize = 61;
const CALLS: u32 = 20;

/// 4 integers, 1 float, 1 bool, 6 texts; one row in ten has the status "test".
fn batch() -> ChangeBatch {
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
fn natively(batch: &ChangeBatch) -> ChangeBatch {
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

struct ThreadCpu;

impl Measurement for ThreadCpu {
    type Intermediate = ThreadTime;
    type Value = Duration;

    fn start(&self) -> ThreadTime {
        ThreadTime::now()
    }

    fn end(&self, start: ThreadTime) -> Duration {
        start.elapsed()
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        criterion::measurement::WallTime.formatter()
    }
}

fn load(runtime: &tokio::runtime::Runtime, name: &str) -> Box<dyn Stage> {
    let wasm = WasmRuntime::new(RuntimeOptions::default()).expect("the plugin runtime");
    let stage = stage(name, &[], &["status", "amount", "customer", "customer_name"], "{}");
    let spec = millrace_core::stage::StageSpec {
        grants: millrace_core::stage::Grants { crypto: Vec::new(), ..stage.spec.grants.clone() },
        ..stage.spec
    };
    runtime.block_on(wasm.load(&spec, &stage.artifact)).expect("the plugin loads")
}

/// Nanoseconds a row of a few calls.
fn sample(work: &mut dyn FnMut()) -> f64 {
    let start = ThreadTime::now();
    for _ in 0..CALLS {
        work();
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS) / ROWS as f64
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let batch = batch();
    let mut noop = load(&runtime, "bench-noop");
    let mut convert = load(&runtime, "bench-convert");
    let mut run_noop = || drop(runtime.block_on(noop.apply(&batch)).expect("noop"));
    let check = runtime.block_on(convert.apply(&batch)).expect("convert");
    let native = natively(&batch);
    assert_eq!(check.batches[0].columns[7].as_ref(), native.columns[7].as_ref(), "both ways answer the same");
    assert_eq!(check.batches[0].schema.columns[8].name, native.schema.columns[8].name);
    let mut run_convert = || drop(runtime.block_on(convert.apply(&batch)).expect("convert"));

    let mut criterion = Criterion::default().with_measurement(ThreadCpu).sample_size(40).configure_from_args();
    let mut group = criterion.benchmark_group("boundary");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("noop", |b| b.iter(&mut run_noop));
    group.bench_function("filter_rename_convert", |b| b.iter(&mut run_convert));
    group.bench_function("native", |b| b.iter_batched(|| (), |()| natively(&batch), BatchSize::SmallInput));
    group.finish();

    // The same side by side, in turns, for the ratios.
    let (mut noops, mut converts, mut natives) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        noops.push(sample(&mut run_noop));
        converts.push(sample(&mut run_convert));
        natives.push(sample(&mut || drop(natively(&batch))));
    }
    let aa = |all: &[f64]| {
        let half = |start: usize| median(all.iter().skip(start).step_by(2).copied().collect());
        Some(half(0) / half(1))
    };
    let native = median(natives.clone());
    let converted = median(converts.clone());
    let result =
        |metric, unit, value, baseline, aa| Measured { bench: "boundary", metric, unit, value, baseline, aa }.report();
    result("noop_ns", "ns/row", median(noops.clone()), None, aa(&noops));
    result("filter_rename_convert_ns", "ns/row", converted, Some(native), aa(&converts));
    result("vs_native", "ratio", converted / native, Some(1.0), aa(&natives));
}
