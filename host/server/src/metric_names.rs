//! Every metric of the host, in one list: described to Prometheus, and the source of the table in the book.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Shown as quantiles 0.5, 0.9, 0.99 and 1, with sum and count.
    Histogram,
}

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static str,
    pub meaning: &'static str,
}

impl Metric {
    pub(crate) fn describe(&self) {
        match self.kind {
            Kind::Counter => describe_counter!(self.name, self.unit, self.meaning),
            Kind::Gauge => describe_gauge!(self.name, self.unit, self.meaning),
            Kind::Histogram => describe_histogram!(self.name, self.unit, self.meaning),
        }
    }
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, labels: &'static str, meaning: &'static str) -> Metric {
    Metric { name, kind, unit, labels, meaning }
}

pub const SWAPS: &str = "millrace_swaps_total";
pub const SWAPS_REFUSED: &str = "millrace_swap_refused_total";

use Kind::{Counter, Gauge, Histogram};

pub const ALL: &[Metric] = &[
    metric("millrace_images_in_total", Counter, Unit::Count, "pipeline", "row images read from the source"),
    metric("millrace_images_out_total", Counter, Unit::Count, "pipeline", "row images committed to the sink"),
    metric("millrace_images_dropped_total", Counter, Unit::Count, "pipeline", "row images that stages dropped"),
    metric("millrace_dead_letters_total", Counter, Unit::Count, "pipeline", "changes that became dead letters"),
    metric(
        "millrace_errors_total",
        Counter,
        Unit::Count,
        "pipeline, kind, code",
        "errors that started the pipeline anew or stopped it",
    ),
    metric(
        "millrace_stage_errors_total",
        Counter,
        Unit::Count,
        "pipeline, plugin, code",
        "batches on which a plugin failed as a whole",
    ),
    metric(
        "millrace_table_halted",
        Gauge,
        Unit::Count,
        "pipeline, table",
        "1 while a source table is halted and the others go on",
    ),
    metric(
        "millrace_batch_images",
        Histogram,
        Unit::Count,
        "pipeline",
        "row images of a batch, as it reaches the stages",
    ),
    metric(
        "millrace_queue_fill",
        Gauge,
        Unit::Count,
        "pipeline, queue",
        "how full the queue before `stages` and before `sink` is, 0 to 1: saturation",
    ),
    metric("millrace_cuts_total", Counter, Unit::Count, "pipeline", "cuts committed"),
    metric("millrace_cut_images", Histogram, Unit::Count, "pipeline", "row images a cut"),
    metric("millrace_cut_bytes", Histogram, Unit::Bytes, "pipeline", "bytes of values a cut"),
    metric(
        "millrace_commit_seconds",
        Histogram,
        Unit::Seconds,
        "pipeline",
        "time from a cut's end to its last durable commit",
    ),
    metric(
        "millrace_source_lag_bytes",
        Gauge,
        Unit::Bytes,
        "pipeline",
        "what the source's server has written and the pipeline has not acknowledged",
    ),
    metric(
        "millrace_lag_seconds",
        Gauge,
        Unit::Seconds,
        "pipeline",
        "age of the last committed change, by its commit time at the source",
    ),
    metric(
        "millrace_plugin_rows_in_total",
        Counter,
        Unit::Count,
        "plugin, version",
        "row images that entered a plugin",
    ),
    metric("millrace_plugin_rows_out_total", Counter, Unit::Count, "plugin, version", "row images that left it"),
    metric("millrace_plugin_rejected_total", Counter, Unit::Count, "plugin, version", "changes that it refused"),
    metric("millrace_plugin_seconds", Histogram, Unit::Seconds, "plugin, version", "time of one call, a batch each"),
    metric(
        "millrace_plugin_memory_bytes",
        Gauge,
        Unit::Bytes,
        "plugin, version",
        "memory of its instance after the last call",
    ),
    metric(
        "millrace_plugin_recycled_total",
        Counter,
        Unit::Count,
        "plugin, version",
        "instances that made way for a fresh one",
    ),
    metric(
        "millrace_plugin_traps_total",
        Counter,
        Unit::Count,
        "plugin, version, kind",
        "calls that ended in a trap or broke a limit",
    ),
    metric(
        "millrace_plugin_violations_total",
        Counter,
        Unit::Count,
        "plugin, version, rule",
        "violations of a validator's rules, warnings included",
    ),
    metric(
        "millrace_plugin_cache_total",
        Counter,
        Unit::Count,
        "result (hit, miss)",
        "components taken from the cache of compiled ones, or compiled",
    ),
    metric("millrace_plugin_log_left_out_total", Counter, Unit::Count, "plugin", "log lines beyond a plugin's limit"),
    metric(
        "millrace_plugin_series_refused_total",
        Counter,
        Unit::Count,
        "plugin",
        "metrics of a plugin beyond its limit of series",
    ),
    metric("millrace_delta_rows_total", Counter, Unit::Count, "table", "rows committed to a Delta table"),
    metric(
        "millrace_delta_overtaken_total",
        Counter,
        Unit::Count,
        "table",
        "commits that found their version taken by another writer",
    ),
    metric("millrace_delta_files", Gauge, Unit::Count, "table", "files of a table in mode upsert"),
    metric(
        "millrace_delta_rows_read_total",
        Counter,
        Unit::Count,
        "table",
        "rows read back for values that the source did not send",
    ),
    metric(
        "millrace_delta_duplicates_removed_total",
        Counter,
        Unit::Count,
        "table",
        "rows removed since their key was in the table more than once",
    ),
    metric(
        "millrace_delta_late_images_total",
        Counter,
        Unit::Count,
        "table",
        "row images that were left out since the row of their key was newer (`order_by`)",
    ),
    metric(
        "millrace_delta_replans_total",
        Counter,
        Unit::Count,
        "table",
        "cuts planned anew since another writer changed a file that they touch",
    ),
    metric(
        "millrace_delta_files_rewritten_total",
        Counter,
        Unit::Count,
        "table",
        "files of a table in mode upsert without deletion vectors that were written anew since rows of them went",
    ),
    metric("millrace_delta_compactions_total", Counter, Unit::Count, "table", "compactions of a table in mode upsert"),
    metric(
        "millrace_delta_compaction_failures_total",
        Counter,
        Unit::Count,
        "table",
        "compactions that did not succeed; the next one is tried after the next cut",
    ),
    metric(
        "millrace_delta_files_removed_total",
        Counter,
        Unit::Count,
        "table",
        "files that a table in mode upsert did not refer to for its retention, removed",
    ),
    metric(
        "millrace_delta_key_scans_total",
        Counter,
        Unit::Count,
        "–",
        "files whose keys were read without being kept",
    ),
    metric(
        "millrace_delta_index_evictions_total",
        Counter,
        Unit::Count,
        "–",
        "files whose keys went from memory to make room, to disk where there is one",
    ),
    metric("millrace_delta_index_bytes", Gauge, Unit::Bytes, "–", "memory that the keys of tables in mode upsert take"),
    metric(
        "millrace_delta_index_disk_bytes",
        Gauge,
        Unit::Bytes,
        "–",
        "local disk that the keys of tables in mode upsert take",
    ),
    metric(
        "millrace_delta_index_rejected_total",
        Counter,
        Unit::Count,
        "table",
        "files of keys on local disk that were damaged or of something else; they are made anew",
    ),
    metric(
        "millrace_delta_index_write_failures_total",
        Counter,
        Unit::Count,
        "–",
        "files of keys that local disk did not take",
    ),
    metric(
        "millrace_delta_index_merges_total",
        Counter,
        Unit::Count,
        "table",
        "sets of keys merged for `index: exact`",
    ),
    metric("millrace_delta_checkpoints_total", Counter, Unit::Count, "table", "checkpoints of a table's log"),
    metric(
        "millrace_delta_checkpoint_failures_total",
        Counter,
        Unit::Count,
        "table",
        "checkpoints that did not succeed; the next one is tried later",
    ),
    metric(
        SWAPS,
        Counter,
        Unit::Count,
        "pipeline",
        "plugin or configuration versions put in force while the stream ran",
    ),
    metric(
        SWAPS_REFUSED,
        Counter,
        Unit::Count,
        "pipeline, code",
        "new versions that were refused; the old one went on",
    ),
];

/// The table of the book's page about metrics.
pub fn markdown() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in ALL {
        let kind = match metric.kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "summary",
        };
        text += &format!("| `{}` | {kind} | {} | {} |\n", metric.name, metric.labels, metric.meaning);
    }
    text
}
