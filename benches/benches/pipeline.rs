//! Whole pipelines from the generator: CPU of the process, in microseconds a change.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use millrace_benches::pipeline::{Run, measure};
use millrace_benches::{Measured, in_turns, micros, stage};
use millrace_connectors::generator::GeneratorConfig;
use millrace_core::pipeline::ConfiguredStage;
use millrace_delta::{DeltaConfig, DeltaSink};

const CHANGES: u64 = 1_000_000;
const TURNS: usize = 5;

/// Sees every change: each of the three tables has columns of its.
fn mask() -> Vec<ConfiguredStage> {
    let config = r#"{"email":"redact","phone":"last4","number":"last4","channel":"redact","method":"redact"}"#;
    vec![stage("mask", &[], &["email", "phone", "number", "channel", "method"], config)]
}

/// CPU microseconds a change.
fn cost(stages: Vec<ConfiguredStage>, delta: bool) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = format!("{}/{{namespace}}/{{table}}", folder.path().display());
    let took = measure(Run {
        source: Box::new(|| {
            Ok(Box::new(GeneratorConfig { events: Some(CHANGES), ..GeneratorConfig::default() }.build()?))
        }),
        sink: delta.then(|| {
            let make: Box<dyn Fn(_) -> _ + Send + Sync> = Box::new(move |env| {
                let sink = DeltaSink::new(DeltaConfig::new(path.clone()), "bench", env)?;
                Ok(Box::new(sink) as Box<dyn millrace_core::sink::Sink>)
            });
            make
        }),
        stages,
        until: None,
    });
    micros(took.cpu) / CHANGES as f64
}

fn main() {
    let (with, without, aa) = in_turns(TURNS, || cost(mask(), false), || cost(Vec::new(), false));
    let result = |metric, value, baseline, aa| {
        Measured { bench: "pipeline", metric, unit: "cpu us/change", value, baseline: Some(baseline), aa: Some(aa) }
            .report()
    };
    result("generator_plugin_null_cpu_us", with, without, aa);
    result("generator_null_cpu_us", without, with, aa);
    let (delta, null, aa) = in_turns(TURNS, || cost(mask(), true), || cost(mask(), false));
    result("generator_plugin_delta_cpu_us", delta, null, aa);
}
