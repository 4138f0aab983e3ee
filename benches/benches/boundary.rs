//! What it costs to take a batch of 1,000 row images of 12 columns through a plugin, from Arrow to Arrow: CPU time of this thread.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BatchSize, Criterion, Throughput};
use millrace_benches::orders::{ROWS, batch, natively, sample};
use millrace_benches::{Measured, aa, median, stage};
use millrace_core::stage::{Stage, StageLoader};
use millrace_wasm::{RuntimeOptions, WasmRuntime};

const SAMPLES: usize = 61;
const CALLS: u32 = 20;

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
        noops.push(sample(CALLS, &mut run_noop));
        converts.push(sample(CALLS, &mut run_convert));
        natives.push(sample(CALLS, &mut || drop(natively(&batch))));
    }
    let native = median(natives.clone());
    let converted = median(converts.clone());
    let result =
        |metric, unit, value, baseline, aa| Measured { bench: "boundary", metric, unit, value, baseline, aa }.report();
    result("noop_ns", "ns/row", median(noops.clone()), None, Some(aa(&noops)));
    result("filter_rename_convert_ns", "ns/row", converted, Some(native), Some(aa(&converts)));
    result("vs_native", "ratio", converted / native, Some(1.0), Some(aa(&natives)));
}
