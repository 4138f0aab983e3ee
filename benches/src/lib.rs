//! What the benches share: medians, results for machines, plugins, and a pipeline in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

pub mod orders;
pub mod pipeline;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use millrace_core::pipeline::ConfiguredStage;
use millrace_core::stage::{Grants, OnFailure, StageSpec};
use serde_json::json;

/// One measured number; `ratio` is `value / baseline`, `aa` that of two runs of the same thing.
#[derive(Clone, Debug)]
pub struct Measured {
    pub bench: &'static str,
    pub metric: &'static str,
    pub unit: &'static str,
    pub value: f64,
    pub baseline: Option<f64>,
    pub aa: Option<f64>,
}

impl Measured {
    /// A line for people, and one for `cargo xtask bench` in the file that `MILLRACE_BENCH_JSON` names.
    pub fn report(&self) {
        let Self { bench, metric, unit, value, baseline, aa } = self;
        let ratio = baseline.map(|b| value / b);
        println!("{bench} {metric}: {value:.3} {unit}, baseline {baseline:?}, ratio {ratio:?}, A/A {aa:?}");
        let Ok(file) = std::env::var("MILLRACE_BENCH_JSON") else { return };
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the results' file");
        let line = json!({"bench": bench, "metric": metric, "unit": unit, "value": value, "baseline": baseline, "ratio": ratio, "aa": aa});
        writeln!(file, "{line}").expect("the results' file");
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The A/A control: the median of the even samples against that of the odd ones.
pub fn aa(samples: &[f64]) -> f64 {
    let half = |start: usize| median(samples.iter().skip(start).step_by(2).copied().collect());
    half(0) / half(1)
}

/// Medians of `a` and `b`, run in turns, and the A/A control: `a` of the even turns against `a` of the odd ones.
pub fn in_turns(turns: usize, mut a: impl FnMut() -> f64, mut b: impl FnMut() -> f64) -> (f64, f64, f64) {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        of_a.push(a());
        of_b.push(b());
    }
    let aa = aa(&of_a);
    (median(of_a), median(of_b), aa)
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A component as `cargo xtask plugins` builds it.
pub fn plugin(name: &str) -> Vec<u8> {
    let dist = std::env::var_os("MILLRACE_PLUGINS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist"), PathBuf::from);
    let file = dist.join(format!("{name}.wasm"));
    fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}: run `cargo xtask plugins`", file.display()))
}

/// A stage that is granted the columns it names, for the tables it names.
pub fn stage(name: &str, tables: &[&str], columns: &[&str], config: &str) -> ConfiguredStage {
    let artifact = plugin(name);
    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let spec = StageSpec {
        name: name.into(),
        digest: millrace_wasm::digest(&artifact),
        config: config.into(),
        grants: Grants { read: columns.clone(), write: columns, keys: Vec::new(), crypto: vec!["pii".into()] },
        tables: tables.iter().map(ToString::to_string).collect(),
        on_failure: OnFailure::Halt,
        limits: String::new(),
    };
    ConfiguredStage { spec, artifact: artifact.into() }
}
