//! The PostgreSQL source against real servers, versions 15 to 18.

#![allow(clippy::unwrap_used, reason = "a test may: clippy sees only functions under #[test] as such")]

// The harness belongs to the end-to-end tests, which stand above this crate: taken as source, it needs no dependency on
// them.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../tests/src/servers/mod.rs"]
mod servers;

mod changes;
mod errors;
mod feed;
mod login;
mod resume;
mod snapshot;
mod streamed;
mod types;
