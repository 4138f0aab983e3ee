//! One connection to a PostgreSQL server: frontend/backend protocol 3.0, simple queries and COPY
//! both (docs/adr/0001-own-copy-both.md).
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html>

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Header, Message};
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::fault::{Fault, ServerError};
use super::login;
use super::settings::{Host, Settings, SslMode};
use super::tls;

/// What bytes go through: TCP, TLS over it, or a Unix socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// Read at once: a few hundred rows, so that system calls and TLS records are paid for many rows together.
pub(super) const READ_SIZE: usize = 256 << 10;

/// Before the login is through nobody has shown who they are: no message there is long.
const LOGIN_MESSAGE_LIMIT: usize = 64 << 10;

/// A server whose machine is gone is noticed in minutes, also where it has nothing to send: while a slot is created.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A server that does not take the goodbye finds out by the closed socket.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Catalog queries.
    Queries,
    /// A walsender: replication commands and simple queries.
    Replication,
}

pub(super) struct Connection {
    socket: Box<dyn Socket>,
    read: BytesMut,
    /// `server_version_num`-like: 150018 for 15.18; 0 until the server told.
    version: u32,
    /// Of the server's process for this session.
    process_id: i32,
    encrypted: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("version", &self.version).field("encrypted", &self.encrypted).finish()
    }
}

impl Connection {
    /// Connects and logs in; tries in the order of the settings' `sslmode`.
    pub(super) async fn open(settings: &Settings, purpose: Purpose) -> Result<Self, Fault> {
        let within = settings.connect_timeout;
        let attempt = |encryption| async move {
            timeout(within, Self::attempt(settings, purpose, encryption)).await.unwrap_or_else(|_| {
                let what = format!("no answer within {} s", within.as_secs());
                Err(Fault::Unreachable(io::Error::new(io::ErrorKind::TimedOut, what)))
            })
        };
        if matches!(settings.host, Host::Unix(_)) {
            return attempt(Encryption::None).await;
        }
        match settings.sslmode {
            SslMode::Disable => attempt(Encryption::None).await,
            SslMode::Allow => match attempt(Encryption::None).await {
                Err(first) if refuses_this_encryption(&first) => attempt(Encryption::Must).await.map_err(|_| first),
                other => other,
            },
            SslMode::Prefer => match attempt(Encryption::IfOffered).await {
                Err(first) if refuses_this_encryption(&first) => attempt(Encryption::None).await.map_err(|_| first),
                other => other,
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => attempt(Encryption::Must).await,
        }
    }

    async fn attempt(settings: &Settings, purpose: Purpose, encryption: Encryption) -> Result<Self, Fault> {
        let (socket, certificate) = dial(settings, encryption).await?;
        let encrypted = certificate.is_some();
        let mut connection =
            Self { socket, read: BytesMut::with_capacity(8 << 10), version: 0, process_id: 0, encrypted };
        connection.start(settings, purpose).await?;
        login::login(&mut connection, settings, certificate.flatten()).await?;
        connection.until_ready().await?;
        Ok(connection)
    }

    /// The startup message. The session's output formats are fixed here, so that text values do not depend on the
    /// server's, the database's or the role's settings.
    async fn start(&mut self, settings: &Settings, purpose: Purpose) -> Result<(), Fault> {
        let mut parameters = vec![
            ("user", settings.user.as_str()),
            ("database", settings.database.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", settings.application_name.as_str()),
            ("DateStyle", "ISO"),
            ("IntervalStyle", "iso_8601"),
            ("TimeZone", "UTC"),
            ("extra_float_digits", "3"),
            ("bytea_output", "hex"),
            ("xmlbinary", "base64"),
            // A snapshot's COPY and an idle catalog session are as long as they are.
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out).map_err(Fault::Lost)?;
        self.send(&out).await
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn process_id(&self) -> i32 {
        self.process_id
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.socket.write_all(bytes).await.map_err(Fault::Lost)?;
        self.socket.flush().await.map_err(Fault::Lost)
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        self.read.reserve(8 << 10);
        match self.socket.read_buf(&mut self.read).await {
            Ok(0) => Err(Fault::closed()),
            Ok(_) => Ok(()),
            Err(e) => Err(Fault::Lost(e)),
        }
    }

    /// The next message of the login; a longer one than any server sends there is refused.
    pub(super) async fn login_message(&mut self) -> Result<Message, Fault> {
        loop {
            let header = Header::parse(&self.read).map_err(not_the_protocol)?;
            if header.is_some_and(|h| h.len() as usize > LOGIN_MESSAGE_LIMIT) {
                return Err(Fault::protocol("the server's answer to the login is too long"));
            }
            if let Some(message) = self.parsed()? {
                return answer(message);
            }
            self.fill().await?;
        }
    }

    /// The next message but for notices and settings. Cancel-safe.
    async fn message(&mut self) -> Result<Message, Fault> {
        loop {
            match self.parsed()? {
                Some(message) => return Ok(message),
                None => self.fill().await?,
            }
        }
    }

    fn parsed(&mut self) -> Result<Option<Message>, Fault> {
        loop {
            match Message::parse(&mut self.read).map_err(not_the_protocol)? {
                Some(Message::NoticeResponse(notice)) => {
                    let notice = ServerError::read(notice.fields());
                    tracing::debug!(notice = %notice, "the server says");
                }
                Some(Message::NotificationResponse(_)) => {}
                Some(Message::ParameterStatus(status)) => {
                    if status.name().is_ok_and(|name| name == "server_version") {
                        self.version = version_number(status.value().unwrap_or_default());
                    }
                }
                other => return Ok(other),
            }
        }
    }

    async fn until_ready(&mut self) -> Result<(), Fault> {
        let mut failed = None;
        loop {
            match self.message().await {
                Ok(Message::ReadyForQuery(_)) => return failed.map_or(Ok(()), Err),
                Ok(Message::BackendKeyData(key)) => self.process_id = key.process_id(),
                Ok(Message::ErrorResponse(e)) => failed = Some(Fault::Server(ServerError::read(e.fields()))),
                Ok(_) => {}
                // After a fatal error there is no ReadyForQuery: the server hangs up.
                Err(e) => return Err(failed.unwrap_or(e)),
            }
        }
    }

    /// Runs SQL or a replication command and answers the rows of its last result, as text. After a server error the
    /// connection can be used on.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Fault> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        loop {
            match self.message().await? {
                Message::RowDescription(_) => rows.clear(),
                Message::DataRow(row) => rows.push(Row::read(&row)?),
                Message::ErrorResponse(e) => {
                    let error = ServerError::read(e.fields());
                    self.until_ready_or_closed().await;
                    return Err(Fault::Server(error));
                }
                Message::ReadyForQuery(_) => return Ok(rows),
                Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                _ => return Err(Fault::protocol("the server answered a query with what is no result")),
            }
        }
    }

    /// What the query failed with matters, not what the rest of the answer is.
    async fn until_ready_or_closed(&mut self) {
        if let Err(e) = self.until_ready().await {
            tracing::debug!(error = %e, "after a failed query");
        }
    }

    /// The one row of a query that has one.
    pub(super) async fn query_one(&mut self, sql: &str) -> Result<Row, Fault> {
        let mut rows = self.query(sql).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Fault::protocol("the server did not answer one row")),
        }
    }

    /// Sends a query whose rows are read one by one, straight from the buffer: call [`Connection::await_row`] until there
    /// is no more. The simple protocol sends rows as it finds them, each value as text behind its length, so there is
    /// nothing to unescape, as there would be with COPY.
    pub(super) async fn send_query(&mut self, sql: &str) -> Result<(), Fault> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(Fault::Lost)?;
        self.send(&out).await
    }

    /// Waits for a row of the query sent, `false` at its end. Cancel-safe. The row stands at the front of
    /// [`Connection::buffered_row`] until [`Connection::next_row`].
    pub(super) async fn await_row(&mut self) -> Result<bool, Fault> {
        loop {
            let whole = self.has_frame()?;
            match self.read.first() {
                Some(b'D') if whole => return Ok(true),
                Some(b'E') if whole => break,
                Some(b'Z') if whole => {
                    self.next_row();
                    return Ok(false);
                }
                // The description and completion of the rows; notices and settings may come between them.
                Some(b'T' | b'C' | b'N' | b'S' | b'A') if whole => self.next_row(),
                Some(_) if whole => return Err(Fault::protocol("the server sent what does not belong into rows")),
                _ => {
                    self.read.reserve(READ_SIZE);
                    self.fill().await?;
                }
            }
        }
        match self.parsed()? {
            Some(Message::ErrorResponse(e)) => Err(Fault::Server(ServerError::read(e.fields()))),
            _ => Err(Fault::protocol("the server sent what does not belong into rows")),
        }
    }

    /// The row that is wholly buffered, without its header; `None`: more must be read, or it is another message.
    pub(super) fn buffered_row(&self) -> Result<Option<&[u8]>, Fault> {
        if self.read.first() != Some(&b'D') || !self.has_frame()? {
            return Ok(None);
        }
        Ok(self.read.get(5..frame_length(&self.read)))
    }

    /// Drops the buffered row.
    pub(super) fn next_row(&mut self) {
        self.read.advance(frame_length(&self.read).min(self.read.len()));
    }

    fn has_frame(&self) -> Result<bool, Fault> {
        let header = Header::parse(&self.read).map_err(not_the_protocol)?;
        Ok(header.is_some() && self.read.len() >= frame_length(&self.read))
    }

    /// Ends the session beside the caller; the server rolls back what is open and drops temporary slots.
    pub(super) fn close(mut self) {
        tokio::spawn(async move {
            let mut out = BytesMut::new();
            frontend::terminate(&mut out);
            if let Ok(Err(e)) = timeout(CLOSE_LIMIT, self.send(&out)).await {
                tracing::debug!(error = %e, "closing a session");
            }
        });
    }

    /// Starts `START_REPLICATION` and hands out the socket, with what was already read of the stream.
    pub(super) async fn copy_both(mut self, command: &str) -> Result<(Box<dyn Socket>, BytesMut), Fault> {
        const COPY_BOTH_RESPONSE: u8 = b'W';
        self.send_query(command).await?;
        loop {
            // postgres-protocol does not know this message.
            if self.read.first() == Some(&COPY_BOTH_RESPONSE) {
                if self.has_frame()? {
                    self.next_row();
                    return Ok((self.socket, self.read));
                }
            } else if let Some(message) = self.parsed()? {
                return Err(match message {
                    Message::ErrorResponse(e) => Fault::Server(ServerError::read(e.fields())),
                    _ => Fault::protocol("the server answered START_REPLICATION with what is no stream"),
                });
            } else if self.read.first() == Some(&COPY_BOTH_RESPONSE) {
                continue;
            }
            self.fill().await?;
        }
    }
}

/// Header and body of the message at the front, whose header is there.
pub(super) fn frame_length(buffer: &[u8]) -> usize {
    match buffer {
        [_, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1,
        _ => usize::MAX,
    }
}

fn answer(message: Message) -> Result<Message, Fault> {
    match message {
        Message::ErrorResponse(e) => Err(Fault::Server(ServerError::read(e.fields()))),
        other => Ok(other),
    }
}

fn not_the_protocol(e: io::Error) -> Fault {
    Fault::Protocol(format!("the server does not speak PostgreSQL's protocol: {e}"))
}

/// `15.18 (Debian …)` → 150018, `17beta1` → 170000.
fn version_number(text: &str) -> u32 {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse::<u32>().unwrap_or(0));
    let major = parts.next().unwrap_or(0);
    let minor = if text.contains('.') { parts.next().unwrap_or(0) } else { 0 };
    major * 10_000 + minor.min(9_999)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Encryption {
    None,
    IfOffered,
    Must,
}

/// pg_hba.conf may let a role in only with, or only without, TLS (28000); a handshake may fail on what is
/// no TLS server at all. A wrong password is wrong either way.
fn refuses_this_encryption(fault: &Fault) -> bool {
    match fault {
        Fault::Server(e) => e.sqlstate == "28000",
        Fault::Tls(_) => true,
        _ => false,
    }
}

/// The server's certificate where the socket is encrypted; the inner `None`: the server showed none.
type Dialled = (Box<dyn Socket>, Option<Option<Vec<u8>>>);

async fn dial(settings: &Settings, encryption: Encryption) -> Result<Dialled, Fault> {
    let host = match &settings.host {
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", settings.port));
            return Ok((Box::new(UnixStream::connect(path).await.map_err(Fault::Unreachable)?), None));
        }
        Host::Tcp(host) => host,
    };
    let mut tcp = TcpStream::connect((host.as_str(), settings.port)).await.map_err(Fault::Unreachable)?;
    tcp.set_nodelay(true).map_err(Fault::Unreachable)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(Fault::Unreachable)?;
    if encryption == Encryption::None {
        return Ok((Box::new(tcp), None));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(Fault::Unreachable)?;
    match tcp.read_u8().await.map_err(Fault::Unreachable)? {
        b'S' => {}
        b'N' if encryption == Encryption::IfOffered => return Ok((Box::new(tcp), None)),
        b'N' => return Err(Fault::Tls("the server does not offer TLS, which sslmode demands".into())),
        _ => return Err(Fault::protocol("the server answered the request for TLS with neither yes nor no")),
    }
    let connector = TlsConnector::from(Arc::new(tls::client_config(settings)?));
    let name = tls::server_name(host)?;
    let stream = connector.connect(name, tcp).await.map_err(|e| match e.get_ref() {
        Some(inner) if inner.is::<rustls::Error>() => Fault::Tls(format!("TLS handshake: {e}")),
        _ => Fault::Unreachable(e),
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| c.to_vec());
    Ok((Box::new(stream), Some(certificate)))
}

/// A row of a simple query: text or NULL a column.
#[derive(Debug, Clone, Default)]
pub(super) struct Row(Vec<Option<String>>);

impl Row {
    fn read(body: &DataRowBody) -> Result<Self, Fault> {
        let buffer = body.buffer();
        let cells = body.ranges().map(|range| Ok(range.map(|r| String::from_utf8_lossy(&buffer[r]).into_owned())));
        Ok(Self(cells.collect().map_err(not_the_protocol)?))
    }

    /// Empty for NULL and for a column that is not there.
    pub(super) fn text(&self, column: usize) -> &str {
        self.get(column).unwrap_or_default()
    }

    pub(super) fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    pub(super) fn is_true(&self, column: usize) -> bool {
        self.text(column) == "t"
    }

    pub(super) fn number<N: std::str::FromStr>(&self, column: usize) -> Result<N, Fault> {
        let text = self.text(column);
        text.parse().map_err(|_| Fault::Protocol(format!("the server answered `{text}` where a number belongs")))
    }
}

/// A name in SQL.
pub(super) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL, whatever `standard_conforming_strings` says.
pub(super) fn quoted_text(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// How long the server's `…ms` settings are: `SHOW wal_sender_timeout` answers `1min`, `30s`, `500ms`, `0`.
pub(super) fn duration_setting(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match text[digits..].trim() {
        "ms" | "" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_durations_are_read_as_servers_write_them() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version_number("17beta1"), 170_000);
        assert_eq!(version_number(""), 0);
        assert_eq!(duration_setting("1min"), Some(Duration::from_secs(60)));
        assert_eq!(duration_setting("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration_setting("0"), Some(Duration::ZERO));
        assert_eq!(duration_setting("soon"), None);
    }

    #[test]
    fn names_and_texts_are_quoted_against_injection() {
        assert_eq!(quoted_name("a\"b"), "\"a\"\"b\"");
        assert_eq!(quoted_text("it's"), "'it''s'");
        assert_eq!(quoted_text("a\\'b"), "E'a\\\\''b'");
    }
}
