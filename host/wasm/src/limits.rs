//! What a plugin may use, and why that much.

use std::time::Duration;

use millrace_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The most that a pipeline file may give one plugin: the size of a slot of the pooling allocator.
pub(crate) const MEMORY_CEILING_MIB: u32 = 1024;

const MIB: usize = 1 << 20;

/// Limits of one plugin, as `limits:` of a stage has them. What is absent keeps its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory in MiB. A Rust plugin takes 2 for a batch of a thousand rows, a JavaScript one up to 150.
    pub memory_mib: u32,
    /// Milliseconds that any batch may take.
    pub batch_ms: u32,
    /// Milliseconds on top of it for every thousand rows, so that large batches are not punished: a Python plugin
    /// takes 5 for them.
    pub per_thousand_rows_ms: u32,
    /// Milliseconds for `describe`, `configure` and `plan`. A JavaScript plugin takes 10 for its first call.
    pub setup_ms: u32,
    /// Entries of tables, of functions mostly. CPython has 10,000.
    pub table_entries: u32,
    /// MiB that one call may hand to the host: the answer, and the arguments of host calls.
    pub answer_mib: u32,
    /// Poison rows of one batch that are looked for one by one; with more of them the batch fails as a whole.
    pub poison_rows: u32,
    /// Lines a second that the host's log takes from the plugin.
    pub log_lines_per_second: u32,
    /// Calls after which an instance makes way for a fresh one: guest runtimes leak.
    pub calls_per_instance: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 64,
            // Two hundred times what a thousand rows take in Rust, on a machine that is busy with something else.
            batch_ms: 250,
            per_thousand_rows_ms: 1_000,
            setup_ms: 5_000,
            table_entries: 100_000,
            // Sixteen times a batch of a thousand rows of a kilobyte.
            answer_mib: 16,
            poison_rows: 8,
            log_lines_per_second: 100,
            // 0.5 MiB a call (the leak of a Python guest) fill 64 MiB in 128 calls: that is what the memory watermark is
            // for. This bound is for what grows slower.
            calls_per_instance: 10_000,
        }
    }
}

impl Limits {
    /// Of a stage's canonical JSON; empty: the defaults.
    ///
    /// # Errors
    /// `plugin.limits`: an unknown limit, or one that this host can not give.
    pub fn parse(json: &str) -> Result<Self> {
        if json.trim().is_empty() {
            return Ok(Self::default());
        }
        let limits: Self = serde_json::from_str(json).map_err(|e| {
            Error::config("plugin.limits", format!("limits: {e}"))
                .hint("see `limits` in the pipeline reference for the names and units")
        })?;
        let usable = (1..=MEMORY_CEILING_MIB).contains(&limits.memory_mib)
            && limits.batch_ms > 0
            && limits.setup_ms > 0
            && limits.answer_mib > 0
            && limits.calls_per_instance > 0;
        if usable {
            return Ok(limits);
        }
        Err(Error::config(
            "plugin.limits",
            format!("limits: every one must be more than 0, and memory_mib at most {MEMORY_CEILING_MIB}"),
        )
        .hint("leave a limit out to keep its default"))
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_mib as usize * MIB
    }

    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer_mib as usize * MIB
    }

    /// Input plus output of one call: a quarter of the memory, for the guest keeps copies of both.
    pub(crate) fn slice_bytes(&self) -> usize {
        self.memory_bytes() / 4
    }

    /// An instance that has grown to this is replaced after the call, before it fails in one.
    pub(crate) fn watermark_bytes(&self) -> usize {
        self.memory_bytes() / 4 * 3
    }

    pub(crate) fn setup_time(&self) -> Duration {
        Duration::from_millis(u64::from(self.setup_ms))
    }

    pub(crate) fn batch_time(&self, rows: usize) -> Duration {
        let for_rows = u64::from(self.per_thousand_rows_ms) * rows as u64 / 1_000;
        Duration::from_millis(u64::from(self.batch_ms) + for_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_keeps_its_default_and_what_is_unknown_is_refused() {
        let limits = Limits::parse(r#"{"memory_mib": 256}"#).expect("limits");
        assert_eq!(limits, Limits { memory_mib: 256, ..Limits::default() });
        assert_eq!(Limits::parse("").expect("none"), Limits::default());
        for wrong in [r#"{"memory": 1}"#, r#"{"memory_mib": 0}"#, r#"{"memory_mib": 5000}"#] {
            assert_eq!(Limits::parse(wrong).expect_err("wrong").code, "plugin.limits");
        }
    }
}
