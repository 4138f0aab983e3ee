//! Runs the real binary.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with pipeline files, gone afterwards.
pub(crate) struct Place {
    folder: TempDir,
}

/// What the binary said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(args).current_dir(self.path());
        command.env("MILLRACE_PLUGINS", plugins()).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        for name in ["MILLRACE_LOG", "MILLRACE_INSTANCE", "SHOP_DB", "PII_KEY"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.said(self.command(args).output().unwrap())
    }

    pub(crate) fn said(&self, output: Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&*self.path().to_string_lossy(), "[HERE]");
        Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// Where `cargo xtask plugins` puts the first-party plugins.
pub(crate) fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins/dist")
        .canonicalize()
        .expect("plugins/dist is there: cargo xtask plugins")
}

impl Said {
    /// Standard error without log lines, which hold times.
    pub(crate) fn problems(&self) -> String {
        self.stderr.lines().filter(|line| !line.starts_with("{\"timestamp\"")).map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }
}
