//! What the host offers: log and metrics always, crypto by grant.
//!
//! Natively, in unit tests, [`crate::testing`] stands in for the host.

use crate::bindings::types;
use crate::column::Column;
use crate::error::Error;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes a line to the host's log, with the plugin's name beside it. The host keeps a bounded number of lines a second.
pub fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    #[cfg(target_family = "wasm")]
    {
        use crate::bindings::log as host;
        let level = match level {
            Level::Trace => host::Level::Trace,
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        if level as u8 >= host::threshold() as u8 {
            host::write(level, message, &owned(fields));
        }
    }
    #[cfg(not(target_family = "wasm"))]
    crate::testing::log(level, message, fields);
}

/// Adds to a counter of the plugin's. Labels must have few values.
pub fn count(name: &str, labels: &[(&str, &str)], add: u64) {
    #[cfg(target_family = "wasm")]
    crate::bindings::metrics::count(name, &owned(labels), add);
    #[cfg(not(target_family = "wasm"))]
    crate::testing::count(name, labels, add);
}

/// Adds a value to a histogram of the plugin's.
pub fn observe(name: &str, labels: &[(&str, &str)], value: f64) {
    #[cfg(target_family = "wasm")]
    crate::bindings::metrics::observe(name, &owned(labels), value);
    #[cfg(not(target_family = "wasm"))]
    crate::testing::observe(name, labels, value);
}

/// HMAC-SHA-256 of each cell of a text or binary column under the named key, which never enters the sandbox.
/// 32 bytes a row ([`Column::into_hex`] makes text of them); NULL and not sent stay.
///
/// # Errors
/// The key is not granted to the plugin (`grant: { crypto: [NAME] }`), or the column is not of text or bytes.
pub fn hmac_sha256(key: &str, input: &Column) -> Result<Column, Error> {
    hmac(key, &input.0).map(Column)
}

#[cfg(target_family = "wasm")]
fn hmac(key: &str, input: &types::Column) -> Result<types::Column, Error> {
    use crate::bindings::crypto;
    crypto::hmac_sha256(key, input).map_err(|e| match e {
        crypto::Error::NotGranted => not_granted(key),
        crypto::Error::Failed(reason) => Error::Bug(reason),
    })
}

#[cfg(not(target_family = "wasm"))]
fn hmac(key: &str, input: &types::Column) -> Result<types::Column, Error> {
    crate::testing::hmac(key, input)
}

pub(crate) fn not_granted(key: &str) -> Error {
    Error::config(format!("the key {key:?} is not granted: add `grant: {{ crypto: [{key}] }}` to the stage"))
}

#[cfg(target_family = "wasm")]
fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
