//! What the end-to-end tests stand on: real servers, the host, writers, an oracle and independent readers.
//!
//! Nothing here is ever skipped: a server whose binary is absent panics with the command that installs it.

pub mod bank;
pub mod chance;
pub mod component;
pub mod disk;
pub mod host;
pub mod oracle;
pub mod place;
pub mod servers;
pub mod shop;
pub mod slot;
pub mod workload;
