//! The Delta Lake sink, and the only crate that knows deltalake and its kernel.
//!
//! Rows and the position that they end at go into one commit of a table's own log, so what a table holds is decided by
//! the table alone (design: exactly-once). The commit is our own entry, put if absent; deltalake reads logs
//! and its kernel writes checkpoints.

mod config;
mod file;
mod log;
mod mutants;
mod positions;
mod provenance;
mod records;
mod sink;
mod store;
mod stored_letters;
mod template;
#[cfg(test)]
mod tests;
mod upsert;

pub use config::{DeltaConfig, IndexKind, Mode, SchemaChange, SchemaEvolution, SchemaRule};
pub use records::ObjectRecords;
pub use sink::{DeltaSink, Maintained};
pub use store::S3Config;
pub use stored_letters::{Letter, letters};

/// Names of our own columns start so; no column of a source may.
pub(crate) const META_PREFIX: &str = "_millrace_";
#[doc(hidden)]
pub use upsert::index::measure::{IndexCost, index_costs};
