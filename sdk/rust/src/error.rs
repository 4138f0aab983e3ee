//! How a plugin refuses a row, and how it refuses the whole call.

use crate::bindings::types;

/// What goes wrong with a whole call: a config that makes no sense, a table that the plugin cannot handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nothing was decided: the host calls again after `after_ms` milliseconds.
    RetryLater {
        /// milliseconds to wait
        after_ms: u32,
        /// shown to the user
        reason: String,
    },
    /// The table is quarantined, the pipeline goes on.
    UnsupportedSchema(String),
    /// The config document is wrong: what, and what would be right.
    InvalidConfig(String),
    /// A fault of the plugin itself.
    Bug(String),
}

impl Error {
    /// The config document is wrong: say what, and what would be right.
    pub fn config(message: impl Into<String>) -> Self {
        Error::InvalidConfig(message.into())
    }

    /// This table cannot be handled: say which column, and why.
    pub fn schema(message: impl Into<String>) -> Self {
        Error::UnsupportedSchema(message.into())
    }

    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Error::Bug(message.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::RetryLater { after_ms, reason } => write!(f, "retry after {after_ms} ms: {reason}"),
            Error::UnsupportedSchema(m) | Error::InvalidConfig(m) | Error::Bug(m) => f.write_str(m),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for types::StageError {
    fn from(error: Error) -> Self {
        match error {
            Error::RetryLater { after_ms, reason } => Self::RetryLater(types::Retry { after_ms, reason }),
            Error::UnsupportedSchema(m) => Self::UnsupportedSchema(m),
            Error::InvalidConfig(m) => Self::InvalidConfig(m),
            Error::Bug(m) => Self::Bug(m),
        }
    }
}

/// Why a row is refused. The change goes to the dead letters with this code and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Stable and machine-readable, `area.reason`: "decimal.overflow"
    pub code: String,
    /// For people: what is wrong with which value.
    pub reason: String,
    /// The host may try the row again, with its back-off, before it becomes a dead letter.
    pub retryable: bool,
}

impl Reject {
    /// A refusal for good.
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Reject { code: code.into(), reason: reason.into(), retryable: false }
    }
}
