//! Real servers on free loopback ports, each in a temporary folder, each stopped by its handle.
//!
//! `cargo xtask setup test` fetches what they need, pinned, into the cache folder; a start without it panics and says so.

pub mod delta_reader;
pub mod postgres;
pub mod process;
pub mod seaweed;
pub mod tls;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder that `cargo xtask setup` fills: `$XDG_CACHE_HOME/millrace`, else `$HOME/.cache/millrace`.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME is set")).join(".cache");
    base.unwrap_or_else(home).join("millrace")
}

/// A port that nobody listened on a moment ago. Another process may take it before the server does: a server that
/// does not come up is then started again on another one by its own start function.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    listener.local_addr().expect("a bound address").port()
}

/// The file, or a panic that says how to get it.
pub fn require(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is absent: run `cargo xtask setup test`", path.display());
    path
}

/// Polls until `ready` answers `Some`, for at most `limit`; on a time-out panics with `what` and what `detail` says.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    detail: impl Fn() -> String,
    mut ready: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what} took more than {limit:?}\n{}", detail());
        // A poll of an outside process, which can notify nobody.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last lines of a log, for the message of a failure.
pub(crate) fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
