//! Where the server is and who we are: a `postgres://` URL as libpq understands it.
//!
//! Errors name the part that is wrong and never quote it, because any part may hold the password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with a URL; never holds text of the URL but the names of its parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct UrlError(pub(super) String);

/// How far the connection is to be encrypted and the server identified: libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// libpq's `channel_binding`: whether SCRAM must be tied to the TLS certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// A password, which no formatting shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(String);

impl Password {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Tcp(String),
    /// The folder that holds `.s.PGSQL.<port>`.
    Unix(PathBuf),
}

/// Everything that a connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<Password>,
    pub(super) database: String,
    pub(super) sslmode: SslMode,
    /// PEM file of trusted roots; `system` or absent: the public ones.
    pub(super) sslrootcert: Option<PathBuf>,
    /// PEM files of our own certificate and its key, for servers that ask for one.
    pub(super) client_cert: Option<(PathBuf, PathBuf)>,
    pub(super) channel_binding: ChannelBinding,
    pub(super) connect_timeout: Duration,
    pub(super) application_name: String,
}

/// Long enough for a server across an ocean that is starting, short enough that a typo shows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Settings {
    /// Reads `postgres://user:password@host:port/database?sslmode=…`.
    ///
    /// Parameters: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `channel_binding`,
    /// `connect_timeout` (seconds), `application_name`, and `host`, `port`, `user`, `password`,
    /// `dbname` in the place of the parts before the `?`. A host that starts with `/` is the folder of
    /// a Unix socket.
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        let parts = Parts::split(url)?;
        let host = parts.host.filter(|h| !h.is_empty()).unwrap_or_else(|| "localhost".into());
        if host.contains(',') {
            return Err(wrong("several hosts are given; name the one that holds the slot"));
        }
        let user = parts.user.filter(|u| !u.is_empty());
        let user = user.ok_or_else(|| wrong("the url has no user: postgres://USER:PASSWORD@HOST/DATABASE"))?;
        let client_cert = match (parts.sslcert, parts.sslkey) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(wrong("sslcert and sslkey go together; one of them is missing")),
        };
        Ok(Self {
            host: if host.starts_with('/') { Host::Unix(host.into()) } else { Host::Tcp(host) },
            port: parts.port.unwrap_or(5432),
            database: parts.database.filter(|d| !d.is_empty()).unwrap_or_else(|| user.clone()),
            user,
            password: parts.password.map(Password),
            sslmode: parts.sslmode.unwrap_or(SslMode::Prefer),
            sslrootcert: parts.sslrootcert.filter(|path| path != "system").map(PathBuf::from),
            client_cert,
            channel_binding: parts.channel_binding.unwrap_or(ChannelBinding::Prefer),
            connect_timeout: parts.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            application_name: parts.application_name.unwrap_or_else(|| "millrace".into()),
        })
    }

    /// `host:port/database`, for messages.
    pub(super) fn place(&self) -> String {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}/{}", self.port, self.database),
            Host::Tcp(host) => format!("{host}:{}/{}", self.port, self.database),
            Host::Unix(folder) => format!("{}:{}/{}", folder.display(), self.port, self.database),
        }
    }
}

fn wrong(what: impl Into<String>) -> UrlError {
    UrlError(what.into())
}

#[derive(Default)]
struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    sslmode: Option<SslMode>,
    sslrootcert: Option<String>,
    sslcert: Option<String>,
    sslkey: Option<String>,
    channel_binding: Option<ChannelBinding>,
    connect_timeout: Option<Duration>,
    application_name: Option<String>,
}

impl Parts {
    fn split(url: &str) -> Result<Self, UrlError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| wrong("the url must start with postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.contains('@') {
            return Err(wrong("the url has a / before the @: write %2F for a / in the password"));
        }
        let mut parts = Self::default();
        parts.authority(authority)?;
        if !database.is_empty() {
            parts.database = Some(percent_decoded(database, "database")?);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong("a parameter after the ? has no ="))?;
            parts.parameter(name, percent_decoded(value, name)?)?;
        }
        Ok(parts)
    }

    fn authority(&mut self, authority: &str) -> Result<(), UrlError> {
        // The last @ divides: an unescaped one in a password is common and means no other thing.
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        if let Some(login) = login {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            self.user = Some(percent_decoded(user, "user")?);
            self.password = password.map(|p| percent_decoded(p, "password")).transpose()?;
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("the host has a [ without its ]"))?;
                (host, after.strip_prefix(':'))
            }
            None => match place.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        self.host = Some(percent_decoded(host, "host")?);
        if let Some(port) = port.filter(|p| !p.is_empty()) {
            self.port = Some(port_number(port)?);
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: String) -> Result<(), UrlError> {
        match name {
            "host" => self.host = Some(value),
            "port" => self.port = Some(port_number(&value)?),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.database = Some(value),
            "sslmode" => {
                self.sslmode = Some(SslMode::parse(&value).ok_or_else(|| {
                    wrong("sslmode must be disable, allow, prefer, require, verify-ca or verify-full")
                })?);
            }
            "sslrootcert" => self.sslrootcert = Some(value),
            "sslcert" => self.sslcert = Some(value),
            "sslkey" => self.sslkey = Some(value),
            "channel_binding" => {
                self.channel_binding = Some(match value.as_str() {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(wrong("channel_binding must be disable, prefer or require")),
                });
            }
            "connect_timeout" => {
                let seconds: u64 = value.parse().map_err(|_| wrong("connect_timeout must be whole seconds"))?;
                self.connect_timeout = Some(Duration::from_secs(seconds.clamp(1, 3600)));
            }
            "application_name" => self.application_name = Some(value),
            other => {
                let known = "host, port, user, password, dbname, sslmode, sslrootcert, sslcert, sslkey, \
                             channel_binding, connect_timeout, application_name";
                // A name without its value is no secret, unless an unescaped & cut a password in two.
                let plain = other.len() <= 40 && other.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let shown = if plain { format!("`{other}`") } else { "one".into() };
                return Err(wrong(format!("the url has a parameter that is not known: {shown}; known are {known}")));
            }
        }
        Ok(())
    }
}

fn port_number(text: &str) -> Result<u16, UrlError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(wrong("the port must be a number from 1 to 65535; a : in the password is written %3A")),
    }
}

fn percent_decoded(text: &str, part: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong(format!("{part}: a % is not followed by two hex digits; write %25")))?);
        rest = &tail[2..];
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(wrong(format!("{part}: the escaped bytes are not UTF-8 text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_url_is_taken_apart() {
        let s = Settings::parse(
            "postgresql://app:p%40ss@db.example:6543/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=3",
        )
        .unwrap();
        assert_eq!(s.host, Host::Tcp("db.example".into()));
        assert_eq!((s.port, s.user.as_str(), s.database.as_str()), (6543, "app", "shop"));
        assert_eq!(s.password.as_ref().unwrap().as_bytes(), b"p@ss");
        assert_eq!(s.sslmode, SslMode::VerifyFull);
        assert_eq!(s.sslrootcert, Some("/etc/ca.pem".into()));
        assert_eq!(s.connect_timeout, Duration::from_secs(3));
        assert_eq!(s.place(), "db.example:6543/shop");
    }

    #[test]
    fn defaults_are_those_of_libpq() {
        let s = Settings::parse("postgres://app@").unwrap();
        assert_eq!((s.host, s.port, s.database.as_str()), (Host::Tcp("localhost".into()), 5432, "app"));
        assert_eq!((s.sslmode, s.password), (SslMode::Prefer, None));
    }

    #[test]
    fn unix_sockets_and_ipv6_hosts_are_understood() {
        for url in ["postgres://u@/d?host=/run/pg", "postgres://u@%2Frun%2Fpg/d"] {
            assert_eq!(Settings::parse(url).unwrap().host, Host::Unix("/run/pg".into()));
        }
        let s = Settings::parse("postgres://u@[::1]:6000/d").unwrap();
        assert_eq!((s.place().as_str(), s.host), ("[::1]:6000/d", Host::Tcp("::1".into())));
    }

    #[test]
    fn no_error_and_no_debug_shows_the_password() {
        let urls = [
            "postgres://u:s3cr3t@h:port/d",
            "postgres://u:s3cr3t/x@h/d",
            "postgres://u:s3cr3t%zz@h/d",
            "postgres://u:a@h/d?s3cr3t=1&T=2",
            "postgres://u:a@h/d?password=s3cr3t&sslmode=no",
            "s3cr3t",
        ];
        for url in urls {
            let error = Settings::parse(url).unwrap_err();
            if !url.contains("?s3cr3t") {
                assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
            }
        }
        let s = Settings::parse("postgres://u:s3cr3t@h/d").unwrap();
        assert!(!format!("{s:?}").contains("s3cr3t"));
    }

    #[test]
    fn an_unescaped_at_in_a_password_still_parses() {
        let s = Settings::parse("postgres://u:a@b@h/d").unwrap();
        assert_eq!((s.password.unwrap().as_bytes(), s.host), (&b"a@b"[..], Host::Tcp("h".into())));
    }
}
