//! Data files: from change batches to Parquet and what the log says of it.

mod civil;
pub(crate) mod evolution;
pub(crate) mod layout;
pub(crate) mod meta;
pub(crate) mod partition;
pub(crate) mod reader;
mod stats;
pub(crate) mod types;
pub(crate) mod writer;
