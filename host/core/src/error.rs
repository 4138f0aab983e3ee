//! One error type, named by what the engine does about it.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the engine does about an error. The one decision table is [`Kind::reaction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The outside world is not there now (connection lost, store busy): the pipeline starts again
    /// from its resume record after a growing pause.
    Retry,
    /// What this host believes about the stored positions is out of date, but it is still the owner:
    /// drop what is in flight and start again from the record at once.
    Reload,
    /// Another host owns the pipeline now (a higher epoch was seen): stop without writing anything more.
    LetGo,
    /// One source table can not go on: it is left behind, and the others go on (I12).
    HaltTable,
    /// Going on could lose, repeat or falsify a change, or needs a person: the pipeline stops and
    /// nothing further is acknowledged.
    Halt,
    /// The pipeline file, an argument or a grant is wrong: nothing was started.
    Config,
}

/// What the engine does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    RestartAfterPause,
    RestartNow,
    Stop,
}

impl Kind {
    pub fn reaction(self) -> Reaction {
        match self {
            Kind::Retry => Reaction::RestartAfterPause,
            Kind::Reload => Reaction::RestartNow,
            // Of a table the engine takes care before it asks here.
            Kind::LetGo | Kind::HaltTable | Kind::Halt | Kind::Config => Reaction::Stop,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Retry => "retry",
            Kind::Reload => "reload",
            Kind::LetGo => "let-go",
            Kind::HaltTable => "halt-table",
            Kind::Halt => "halt",
            Kind::Config => "config",
        }
    }
}

/// An error with a stable code (`area.reason`), what is wrong and where, and what to do about it.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    /// Stable and machine-readable: `position.gap`, `postgres.slot_in_use`.
    pub code: &'static str,
    /// What is wrong and where; lower case, without "failed to".
    pub message: String,
    /// What a person should do.
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), hint: None }
    }

    pub fn retry(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Retry, code, message)
    }

    pub fn reload(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Reload, code, message)
    }

    pub fn let_go(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::LetGo, code, message)
    }

    pub fn halt_table(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::HaltTable, code, message)
    }

    pub fn halt(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Halt, code, message)
    }

    pub fn config(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Config, code, message)
    }

    /// A broken promise between our own parts: always a bug of ours, never the user's fault.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Halt, "internal.bug", message)
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where it happened, in front of what happened.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
