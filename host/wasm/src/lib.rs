//! The plugin runtime: the only crate that knows wasmtime.
//!
//! [`WasmRuntime`] compiles components (once, the image is kept on disk), and makes a [`millrace_core::stage::Stage`] of each. A
//! stage owns one warm instance; it ships the granted columns that the plugin reads straight from Arrow, checks the answer, and
//! leaves the arithmetic of filters and verdicts to the core. Whatever a plugin does, it ends in rows, in rejects, or in an error
//! with a code that names plugin, digest and limit.
//!
//! The way of a batch: `stage.rs :: Stage::apply` → `slice.rs` (memory) → `batch.rs`, `project.rs` (in) → `instance.rs` (the call)
//! → `outcome.rs`, `answer.rs` (out) → `millrace_core::outcome::resolve`. A trap goes through `stage.rs :: bisect`.
//! A parser goes by `raw.rs` instead of `batch.rs`, `outcome.rs` and `resolve`.

mod answer;
mod batch;
mod bench;
mod bindings;
mod cache;
mod component;
mod componentize;
pub mod conformance;
mod engine;
mod host;
mod instance;
mod keys;
mod limits;
mod log;
mod outcome;
mod plan;
mod project;
mod raw;
mod runtime;
mod schema;
mod slice;
mod stage;
mod telemetry;
mod wasi;

pub use bench::Measured;
pub use component::{Role, digest};
pub use componentize::componentize;
pub use keys::Keys;
pub use limits::Limits;
pub use runtime::{Inspection, RuntimeOptions, WasmRuntime};
