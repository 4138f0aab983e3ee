//! Running other programs, each shown before it runs.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Outcome, paths};

/// A command line in the making; it runs in the project's root unless told otherwise.
pub(crate) struct Run {
    command: Command,
    quiet: bool,
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Run {
        let mut command = Command::new(program);
        command.current_dir(paths::root());
        Run { command, quiet: false }
    }

    /// The cargo that runs this program, in the environment that it was called in: some build scripts (ring's) run again
    /// when a variable that `cargo run` sets for this program differs, and everything above them is built again.
    pub(crate) fn cargo() -> Run {
        let mut run = Run::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        const OURS: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        for (name, _) in std::env::vars_os() {
            if OURS.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                run.command.env_remove(&name);
            }
        }
        run.command.env_remove("CARGO");
        run
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Run {
        self.command.current_dir(dir);
        self
    }

    /// Does not show the command line.
    pub(crate) fn quiet(mut self) -> Run {
        self.quiet = true;
        self
    }

    /// The command line as one would type it, with paths of the project relative to it.
    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let words: Vec<String> = words.map(|word| shown(&word.to_string_lossy())).collect();
        words.join(" ")
    }

    fn show(&self) {
        if !self.quiet {
            eprintln!("  $ {}", self.line());
        }
    }

    /// Runs it with this terminal.
    pub(crate) fn must(mut self) -> Outcome {
        self.show();
        let status = self.command.status().map_err(|e| format!("{}: {e}", self.line()))?;
        if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", self.line())) }
    }

    /// Runs it and answers its standard output; standard error is shown only if it fails.
    pub(crate) fn output(mut self) -> Outcome<String> {
        self.show();
        let out = self.command.output().map_err(|e| format!("{}: {e}", self.line()))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&out.stderr);
        Err(format!("`{}` ended with {}\n{}", self.line(), out.status, said.trim_end()))
    }

    /// Whether it runs and succeeds, silently.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.command.status().is_ok_and(|status| status.success())
    }

    /// Runs it, hands each line of its standard output on as it comes, and answers whether it succeeded.
    pub(crate) fn lines(mut self, mut each: impl FnMut(&str)) -> Outcome<bool> {
        self.show();
        let failed = |line: String| move |e: std::io::Error| format!("{line}: {e}");
        let mut child = self.command.stdout(Stdio::piped()).spawn().map_err(failed(self.line()))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                each(&line.map_err(failed(self.line()))?);
            }
        }
        Ok(child.wait().map_err(failed(self.line()))?.success())
    }

    /// The bare command, for those who need the running child.
    pub(crate) fn spawn(mut self) -> Outcome<std::process::Child> {
        self.show();
        self.command.spawn().map_err(|e| format!("{}: {e}", self.line()))
    }

    /// Its standard error goes to a file.
    pub(crate) fn log_to(mut self, file: &Path) -> Outcome<Run> {
        let log = std::fs::File::create(file).map_err(|e| format!("{}: {e}", file.display()))?;
        self.command.stderr(log);
        Ok(self)
    }

    /// Its standard output goes to a pipe.
    pub(crate) fn piped(mut self) -> Run {
        self.command.stdout(Stdio::piped());
        self
    }
}

fn shown(word: &str) -> String {
    let root = format!("{}/", paths::root().display());
    let short = word.replace(&root, "");
    let program = Path::new(&short).file_name().and_then(OsStr::to_str).unwrap_or(&short);
    if program == "cargo" { program.to_owned() } else { short }
}

/// Whether a program of this name is on the PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
