//! The binary `millrace` at work on a pipeline file, to be stopped, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::servers::process::Process;
use crate::servers::{require, wait_for};

/// The binary under test: what `MILLRACE_BIN` names (`cargo xtask test` sets it), else the one beside this test program.
pub fn binary() -> PathBuf {
    let built = || {
        let program = std::env::current_exe().expect("a test program");
        let release = program.parent().and_then(Path::parent).expect("target/release/deps/PROGRAM").to_owned();
        release.join("millrace")
    };
    let path = std::env::var_os("MILLRACE_BIN").map_or_else(built, PathBuf::from);
    assert!(path.is_file(), "{} is absent: cargo build --release -p millrace-server", path.display());
    path
}

/// The folder of first-party plugins: what `MILLRACE_PLUGINS` names, else plugins/dist.
pub fn plugins() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    let path = std::env::var_os("MILLRACE_PLUGINS").map_or_else(built, PathBuf::from);
    assert!(path.is_dir(), "{} is absent: cargo xtask plugins", path.display());
    path
}

/// A running host. Dropping it asks it to stop in order (SIGTERM) and waits.
#[derive(Debug)]
pub struct Host {
    process: Process,
}

impl Host {
    /// Starts `millrace run FILE --json`, its output in `log`, which is appended to.
    pub fn start(pipeline: &Path, log: &Path) -> Host {
        Self::start_with(pipeline, log, &[])
    }

    /// As [`Host::start`], with variables for the pipeline file.
    pub fn start_with(pipeline: &Path, log: &Path, variables: &[(&str, &str)]) -> Host {
        Self::start_on(&[pipeline.to_owned()], log, &[], variables)
    }

    /// As [`Host::start_with`], on several files and with further arguments.
    pub fn start_on(files: &[PathBuf], log: &Path, args: &[&str], variables: &[(&str, &str)]) -> Host {
        let mut command = Command::new(binary());
        command.arg("run").args(files.iter().cloned().map(require)).arg("--json").args(args);
        command.env("MILLRACE_PLUGINS", plugins()).envs(variables.iter().copied());
        Host::launch(&command, log)
    }

    /// A command that ends in `millrace run … --json`.
    pub fn launch(command: &Command, log: &Path) -> Host {
        Host { process: Process::start_command(command, log, "TERM") }
    }

    /// Ends it at once, as a crash does (SIGKILL).
    pub fn kill(self) {
        self.process.signal("KILL");
        let ended = || (!self.process.is_running()).then_some(());
        wait_for("the end of a killed host", Duration::from_secs(10), || self.log(), ended);
    }

    /// Asks it to stop in order and answers the report that it ends with.
    pub fn stop(self, limit: Duration) -> Value {
        self.process.signal("TERM");
        self.finish(limit)
    }

    /// Waits until it ends by itself and answers the report that it ends with.
    ///
    /// # Panics
    /// If it takes longer than `limit`, or ends without a report.
    pub fn finish(self, limit: Duration) -> Value {
        let log = || self.log();
        wait_for("the end of the host", limit, log, || (!self.process.is_running()).then_some(()));
        let report =
            |line: &str| serde_json::from_str(line).ok().filter(|end: &Value| is_end(end) && end["images_in"].is_u64());
        self.log()
            .lines()
            .rev()
            .find_map(report)
            .unwrap_or_else(|| panic!("the host ended without a report:\n{}", self.log()))
    }

    /// Waits until it ends by itself; answers its exit code, and what it said at the end of each pipeline: its report,
    /// or `{"pipeline", "error"}`.
    ///
    /// # Panics
    /// If it takes longer than `limit`.
    pub fn end(self, limit: Duration) -> (i32, Vec<Value>) {
        let log = || self.log();
        wait_for("the end of the host", limit, log, || (!self.process.is_running()).then_some(()));
        let said = self.log();
        let ends = |line: &str| serde_json::from_str(line).ok().filter(is_end);
        let ends: Vec<Value> = said.lines().filter_map(ends).collect();
        let code = self.process.exit_code().unwrap_or_else(|| panic!("the host has no exit code:\n{said}"));
        (code, ends)
    }

    /// Waits until it ends with an error, and answers that: `{"code", "kind", "message", "hint"}`.
    ///
    /// # Panics
    /// If it takes longer than `limit`, or does not end as a failure of one pipeline.
    pub fn fail(self, limit: Duration) -> Value {
        let path = self.process.log().to_owned();
        let (code, ends) = self.end(limit);
        let said = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        assert_eq!((code, ends.len()), (1, 1), "{said}");
        assert!(ends[0]["error"]["code"].is_string(), "{said}");
        ends[0]["error"].clone()
    }

    /// Lets it work for this long.
    ///
    /// # Panics
    /// If it ends meanwhile.
    pub fn work(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            assert!(self.is_running(), "the host ended by itself:\n{}", self.log());
            std::thread::sleep(time.saturating_sub(start.elapsed()).min(Duration::from_millis(20)));
        }
    }

    /// Waits until its log holds a text so many times.
    ///
    /// # Panics
    /// If it ends before, or it takes longer than `limit`.
    pub fn says(&self, text: &str, times: usize, limit: Duration) {
        let said = || {
            let log = self.log();
            assert!(self.is_running() || log.matches(text).count() >= times, "the host ended without `{text}`:\n{log}");
            (log.matches(text).count() >= times).then_some(())
        };
        wait_for(&format!("`{text}` in the log"), limit, || self.log(), said);
    }

    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Its process, for other signals and for /proc.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Bytes of memory that it holds.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kilobytes.expect("VmRSS in kB") << 10
    }

    /// Everything that it and earlier hosts with the same log have said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.process.log()).unwrap_or_default()).into_owned()
    }
}

/// What `run --json` prints at the end of a pipeline, or where none can start; log lines, which have a level, hold counts
/// as well.
fn is_end(line: &Value) -> bool {
    line["level"].is_null() && (line["images_in"].is_u64() || line["error"]["code"].is_string())
}
