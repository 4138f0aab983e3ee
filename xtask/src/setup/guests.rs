//! Toolchains of the languages that plugins are written in, beside Rust's, into the cache folder; and the conformance kit's
//! components, which are built with them.

use std::fs;
use std::path::{Path, PathBuf};

use super::servers::once;
use super::system;
use crate::command::Run;
use crate::{Outcome, paths};

/// Exact versions: the components that they make are what the conformance kit has seen.
const PYTHON_PACKAGES: &str = "componentize-py==0.25.1";
/// The last but one is what componentize-js needs and does not name. componentize-qjs is smaller and quicker, but hands 64-bit
/// integers to the plugin as floats.
const NODE_PACKAGES: &[&str] =
    &["@bytecodealliance/componentize-js@0.23.0", "@bytecodealliance/preview2-shim@0.26.0", "esbuild@0.28.2"];

/// Both languages' toolchains; quick when they are there.
pub(crate) fn install() -> Outcome {
    python()?;
    node().map(|_| ())
}

/// The interpreter that has componentize-py beside it.
fn python() -> Outcome<PathBuf> {
    system::install(system::GUESTS)?;
    let venv = folder()?.join("python");
    once(&venv, PYTHON_PACKAGES, |venv| {
        Run::new("python3").args(["-m", "venv"]).arg(venv).must()?;
        let pip = Run::new(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", "--no-input"]);
        pip.args(["--disable-pip-version-check", PYTHON_PACKAGES]).must()
    })?;
    Ok(venv.join("bin/python"))
}

/// The folder `node_modules`.
fn node() -> Outcome<PathBuf> {
    system::install(system::GUESTS)?;
    let folder = folder()?.join("node");
    once(&folder, &NODE_PACKAGES.join(" "), |folder| {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let npm = Run::new("npm").args(["install", "--silent", "--no-audit", "--no-fund", "--save-exact", "--prefix"]);
        npm.arg(folder).args(NODE_PACKAGES).must()
    })?;
    Ok(folder.join("node_modules"))
}

fn folder() -> Outcome<PathBuf> {
    let folder = paths::cache()?.join("guests");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// The kit's components by the Python SDK, the transform also with a WASI that is not stubbed.
pub(crate) fn python_kit() -> Outcome<Vec<PathBuf>> {
    let (python, sdk) = (python()?, paths::root().join("sdk/python/src"));
    let build = |module: &str, component: &Path, more: &[&str]| {
        let source = paths::root().join("sdk/conformance/python").join(module);
        let run = Run::new(&python).args(["-m", "millrace.build"]).arg(source).arg("-o").arg(component).args(more);
        run.env("PYTHONPATH", &sdk).env("PYTHONDONTWRITEBYTECODE", "1").must()
    };
    let tests = Run::new(&python).args(["-m", "unittest", "discover", "-q", "-s", "sdk/python/tests"]);
    tests.env("PYTHONPATH", &sdk).env("PYTHONDONTWRITEBYTECODE", "1").must()?;
    let modules = [
        ("conformance.py", "python.wasm", &[][..]),
        ("conformance_validator.py", "python-validator.wasm", &["--with-wasi"][..]),
    ];
    components(modules.map(|(module, file, more)| (file, move |to: &Path| build(module, to, more))))
}

/// The kit's components by the JavaScript SDK, the validator with a WASI that is not stubbed.
pub(crate) fn javascript_kit() -> Outcome<Vec<PathBuf>> {
    let modules_folder = node()?;
    let build = |module: &str, component: &Path, more: &[&str]| {
        let source = paths::root().join("sdk/conformance/javascript").join(module);
        let run = Run::new("node").args(["sdk/javascript/bin/millrace-plugin.js", "build"]).arg(source);
        run.arg("-o").arg(component).args(more).env("MILLRACE_NODE_MODULES", &modules_folder).must()
    };
    Run::new("node").args(["--test", "sdk/javascript/test/"]).must()?;
    let modules = [
        ("conformance.js", "javascript.wasm", &[][..]),
        ("conformance-validator.js", "javascript-validator.wasm", &["--with-wasi"][..]),
    ];
    components(modules.map(|(module, file, more)| (file, move |to: &Path| build(module, to, more))))
}

fn components(made: [(&str, impl Fn(&Path) -> Outcome); 2]) -> Outcome<Vec<PathBuf>> {
    let folder = paths::target().join("conformance");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files = Vec::new();
    for (file, make) in made {
        let file = folder.join(file);
        make(&file)?;
        files.push(file);
    }
    Ok(files)
}
