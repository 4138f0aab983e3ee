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
