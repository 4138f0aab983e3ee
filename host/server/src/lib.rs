//! The binary `millrace`: command line, pipeline files, wiring of sources, stages and sinks, hot reload, logs, metrics
//! and health.

pub mod cli;
pub mod config;
pub mod environment;
pub mod examples;
pub mod hot_reload;
pub mod metric_names;
pub mod telemetry;
pub mod wiring;

/// glibc's keeps what its arenas held at their worst: a mirror of ten million rows took twice the memory, compaction beside
/// it (bench `upsert`, `peak_rss_mib_10m`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
