//! What Millrace reads from and writes to, but for Delta Lake: one folder for each outside system. The seams are the
//! core's (`Source`, `Sink`); no client library's type leaves its folder.

pub mod debezium;
pub mod file;
pub mod generator;
pub mod null;
pub mod postgres;
pub mod stdout;
