//! What the metrics endpoint says of each plugin.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

/// Series of one stage at one version.
#[derive(Clone)]
pub(crate) struct Telemetry {
    rows_in: Counter,
    rows_out: Counter,
    rejected: Counter,
    seconds: Histogram,
    memory: Gauge,
    recycled: Counter,
    plugin: String,
    version: String,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("plugin", &self.plugin)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    pub(crate) fn new(plugin: &str, digest: &str) -> Self {
        let (plugin, version) = (plugin.to_string(), digest.chars().take(12).collect::<String>());
        let labels = [("plugin", plugin.clone()), ("version", version.clone())];
        Self {
            rows_in: metrics::counter!("millrace_plugin_rows_in_total", &labels),
            rows_out: metrics::counter!("millrace_plugin_rows_out_total", &labels),
            rejected: metrics::counter!("millrace_plugin_rejected_total", &labels),
            seconds: metrics::histogram!("millrace_plugin_seconds", &labels),
            memory: metrics::gauge!("millrace_plugin_memory_bytes", &labels),
            recycled: metrics::counter!("millrace_plugin_recycled_total", &labels),
            plugin,
            version,
        }
    }

    pub(crate) fn call(&self, rows: usize, time: Duration, memory: usize) {
        self.rows_in.increment(rows as u64);
        self.seconds.record(time.as_secs_f64());
        self.memory.set(memory as f64);
    }

    pub(crate) fn answered(&self, rows: usize, rejected: usize) {
        self.rows_out.increment(rows as u64);
        self.rejected.increment(rejected as u64);
    }

    pub(crate) fn recycled(&self) {
        self.recycled.increment(1);
    }

    pub(crate) fn fault(&self, code: &'static str) {
        let labels = [("plugin", self.plugin.clone()), ("version", self.version.clone()), ("kind", code.to_string())];
        metrics::counter!("millrace_plugin_traps_total", &labels).increment(1);
    }

    pub(crate) fn violated(&self, rule: &str, times: u64) {
        let labels = [("plugin", self.plugin.clone()), ("version", self.version.clone()), ("rule", rule.to_string())];
        metrics::counter!("millrace_plugin_violations_total", &labels).increment(times);
    }
}
