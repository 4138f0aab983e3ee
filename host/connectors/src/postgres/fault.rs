//! What can go wrong with a connection, and the one table that says what the engine does about it.

use std::fmt;
use std::io;

use millrace_core::error::{Error, Kind};
use postgres_protocol::message::backend::ErrorFields;

/// An error message of the server (protocol: Error and Notice Message Fields).
#[derive(Debug, Clone, Default)]
pub(super) struct ServerError {
    /// Five characters: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub(super) sqlstate: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
}

impl ServerError {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        use fallible_iterator::FallibleIterator;
        let mut error = Self::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.sqlstate = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                _ => {}
            }
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) enum Fault {
    /// Refused, reset, timed out, no such host.
    Unreachable(io::Error),
    /// The connection was up and broke.
    Lost(io::Error),
    Server(ServerError),
    /// The server said what the protocol does not allow there.
    Protocol(String),
    /// The encryption that was asked for is not to be had.
    Tls(String),
    /// The server asks for a password, or a way to show it, that we were not given or do not know.
    Login(String),
}

impl Fault {
    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Fault::Protocol(what.into())
    }

    pub(super) fn closed() -> Self {
        Fault::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"))
    }

    /// `place`: what was being done and where, in front of the message.
    pub(super) fn at(self, place: impl fmt::Display) -> Error {
        let error = match self {
            Fault::Unreachable(e) => Error::retry("postgres.unreachable", e.to_string())
                .hint("check host and port of the url, and that the server listens there and no firewall is between"),
            Fault::Lost(e) => Error::retry("postgres.connection_lost", e.to_string()),
            Fault::Protocol(what) => Error::halt("postgres.protocol", what)
                .hint("is this a PostgreSQL server, and no proxy between that does not know replication?"),
            Fault::Tls(what) => Error::config("postgres.tls", what).hint(
                "sslmode=verify-full needs the host name in the server's certificate and its issuer in sslrootcert; \
                 sslmode=require encrypts without asking who answers",
            ),
            Fault::Login(what) => Error::config("postgres.login_refused", what),
            Fault::Server(e) => server_error(&e),
        };
        error.context(place)
    }
}

/// SQLSTATE → what the engine does, the stable code, what a person should do.
fn server_error(e: &ServerError) -> Error {
    use Kind::{Config, Halt, Retry};
    let (kind, code, hint): (Kind, &'static str, &str) = match e.sqlstate.as_str() {
        "28P01" => (Config, "postgres.password_rejected", "check user and password of the url"),
        "28000" => (
            Config,
            "postgres.login_refused",
            "the role needs LOGIN and REPLICATION (or rolsuper), and pg_hba.conf a line for it: \
             `host DATABASE ROLE ADDRESS scram-sha-256` (logical replication matches the database's name, not `replication`)",
        ),
        "3D000" => (Config, "postgres.database_missing", "the last part of the url names the database"),
        "42501" => (
            Config,
            "postgres.privilege_missing",
            "the role needs REPLICATION, USAGE on the schemas and SELECT on the tables; to create the publication it must \
             own the tables, or an owner creates it beforehand",
        ),
        "42P01" | "3F000" => {
            (Config, "postgres.table_missing", "check `tables` of the source: schema.table, as in the catalog")
        }
        "42704" => (Config, "postgres.object_missing", "check `publication` and `slot` of the source"),
        "55006" => (
            Retry,
            "postgres.slot_in_use",
            "another process reads this slot (see pg_stat_replication); after a crash the server frees it within wal_sender_timeout",
        ),
        "55000" if e.message.contains("wal_level") || e.message.contains("logical decoding requires") => {
            (Config, "postgres.wal_level", "set wal_level = logical and restart the server")
        }
        "55000" if e.message.contains("slot") => (Halt, "position.gap", GAP),
        "58P01" if e.message.contains("WAL segment") => (Halt, "position.gap", GAP),
        "53400" => (
            Retry,
            "postgres.slots_exhausted",
            "raise max_replication_slots, or drop slots that nobody reads (pg_replication_slots)",
        ),
        "53300" => (
            Retry,
            "postgres.connections_exhausted",
            "raise max_wal_senders or max_connections: a snapshot needs two more",
        ),
        "53100" | "53200" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "40001" | "40P01" | "55P03" | "25P03" => {
            (Retry, "postgres.interrupted", "")
        }
        state if state.starts_with("08") => (Retry, "postgres.connection_lost", ""),
        _ => (Halt, "postgres.server_error", ""),
    };
    let error = Error::new(kind, code, e.to_string());
    match (hint, &e.hint) {
        ("", None) => error,
        ("", Some(hint)) => error.hint(hint.clone()),
        (ours, None) => error.hint(ours),
        (ours, Some(theirs)) => error.hint(format!("{ours} (the server says: {theirs})")),
    }
}

/// What to do about changes that the server no longer has.
pub(super) const GAP: &str = "the server no longer has every change since the resume record: drop the slot, and start a pipeline \
    under a new name, with tables of its own, so that everything is read anew";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unreachable(e) | Fault::Lost(e) => e.fmt(f),
            Fault::Protocol(what) | Fault::Tls(what) | Fault::Login(what) => f.write_str(what),
            Fault::Server(e) => e.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(sqlstate: &str, message: &str) -> (Kind, &'static str) {
        let e = ServerError { sqlstate: sqlstate.into(), message: message.into(), ..ServerError::default() };
        let error = Fault::Server(e).at("connecting to h:1/d");
        assert!(error.message.starts_with("connecting to h:1/d: "));
        (error.kind, error.code)
    }

    #[test]
    fn every_known_sqlstate_has_its_code_and_reaction() {
        assert_eq!(code("28P01", "x"), (Kind::Config, "postgres.password_rejected"));
        assert_eq!(code("55006", "x"), (Kind::Retry, "postgres.slot_in_use"));
        assert_eq!(
            code("55000", "logical decoding requires wal_level >= logical"),
            (Kind::Config, "postgres.wal_level")
        );
        assert_eq!(
            code("55000", "can no longer get changes from replication slot \"s\""),
            (Kind::Halt, "position.gap")
        );
        assert_eq!(code("58P01", "requested WAL segment 0001 has already been removed"), (Kind::Halt, "position.gap"));
        assert_eq!(code("57P01", "x"), (Kind::Retry, "postgres.interrupted"));
        assert_eq!(code("08006", "x"), (Kind::Retry, "postgres.connection_lost"));
        assert_eq!(code("22012", "x"), (Kind::Halt, "postgres.server_error"));
    }
}
