//! PostgreSQL as a source: `pgoutput` over the replication protocol, with streamed transactions, and a snapshot of
//! each table that is consistent with the stream.
//!
//! The way of a change: `socket` reads whole messages ahead and answers the server → `stream` takes them apart into
//! transactions, streamed ones by way of `spill` → `changes` finds table and position → `relation` and `types` read the
//! values' text straight into column builders. `snapshot` does the last step for rows that are there already.

mod catalog;
mod changes;
mod config;
mod connection;
mod fault;
mod login;
mod lsn;
mod pgoutput;
mod publication;
mod relation;
mod settings;
mod slot;
mod snapshot;
mod socket;
mod source;
mod spill;
mod stream;
mod tables;
mod text;
mod tls;
mod types;

pub use config::{PostgresConfig, SnapshotMode, build};
