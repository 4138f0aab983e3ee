//! Where things are.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::{Outcome, command::Run};

/// The project's root: the folder above this crate's. Asked of cargo as the program runs, since checkouts that share a
/// target folder share this binary.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let here =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        here.parent().map(Path::to_owned).unwrap_or(here)
    });
    &ROOT
}

/// `$XDG_CACHE_HOME/millrace`, else `$HOME/.cache/millrace`: what `setup` fetched.
pub(crate) fn cache() -> Outcome<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = base.or_else(home).ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("millrace"))
}

/// Cargo's target folder of the main workspace.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The target folder of the workspaces of their own (plugins, SDK), apart so that no build waits for another's lock.
pub(crate) fn guest_target() -> PathBuf {
    target().join("guest")
}

/// The binary under test.
pub(crate) fn millrace() -> PathBuf {
    target().join("release").join(format!("millrace{}", std::env::consts::EXE_SUFFIX))
}

/// Builds the binary `millrace`.
pub(crate) fn build_millrace() -> Outcome<PathBuf> {
    Run::cargo().args(["build", "--release", "--locked", "--package", "millrace-server"]).must()?;
    let binary = millrace();
    if binary.is_file() { Ok(binary) } else { Err(format!("the build left no {}", binary.display())) }
}

/// A path for people: relative to the project where it is inside.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
