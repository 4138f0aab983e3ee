//! A child process that ends when its handle is dropped, and also when the test process dies without dropping it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The guard reads from a pipe that only this process can write to: its end-of-file, at drop, panic or `kill -9` of
/// the test runner, ends the server. (`PR_SET_PDEATHSIG` follows the parent *thread*, and tests run in threads.)
const GUARD: &str = r#""$@" </dev/null 3>&- & pid=$!; echo $pid >&3; exec 3>&-; read -r _ || :
kill -s "$STOP_SIGNAL" $pid 2>/dev/null; wait $pid"#;

/// How long a server may take to end by its own signal before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running server process. Dropping it sends the stop signal and waits for the end.
#[derive(Debug)]
pub struct Process {
    guard: Child,
    pipe: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `log`; `stop_signal` is a name as `kill -s` takes it.
    pub fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], log: &Path, stop_signal: &str) -> Process {
        let mut command = Command::new(program);
        command.args(args);
        Self::start_command(&command, log, stop_signal)
    }

    /// As [`Process::start`], with the program, arguments, environment and folder of a command.
    pub fn start_command(command: &Command, log: &Path, stop_signal: &str) -> Process {
        let output = File::options().create(true).append(true).open(log).expect("a log file");
        // The pid comes back on descriptor 3, which the shell makes of its standard output.
        let script = format!("exec 3>&1 1>>\"$GUARD_LOG\"\n{GUARD}");
        let mut guard = Command::new("sh");
        guard.args(["-c", &script, "guard"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guard.env(name, value),
                None => guard.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            guard.current_dir(dir);
        }
        guard.env("STOP_SIGNAL", stop_signal).env("GUARD_LOG", log);
        let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(output).spawn().expect("a shell");
        let mut line = String::new();
        let stdout = guard.stdout.take().expect("a piped stdout");
        BufReader::new(stdout).read_line(&mut line).expect("the server's process id");
        let pid = line.trim().parse().expect("the server's process id");
        Process { pipe: guard.stdin.take(), guard, pid, log: log.to_owned() }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state follows the parenthesised name; a zombie has ended.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// With what code it ended; waits for the end. None: a signal ended the guard.
    pub fn exit_code(mut self) -> Option<i32> {
        drop(self.pipe.take());
        self.guard.wait().ok()?.code()
    }

    /// Sends a signal by name (`KILL`, `STOP`, `CONT` …).
    pub fn signal(&self, name: &str) {
        assert!(send(name, self.pid), "signal {name} did not reach process {}", self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let start = Instant::now();
        while matches!(self.guard.try_wait(), Ok(None)) {
            if start.elapsed() > STOP_LIMIT {
                send("KILL", self.pid);
                self.guard.wait().ok();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// By the shell's own `kill`: a bare machine has no other.
fn send(signal: &str, pid: u32) -> bool {
    Command::new("sh").args(["-c", &format!("kill -s {signal} {pid}")]).status().is_ok_and(|status| status.success())
}
