//! The conformance kit's components and the example plugins by the SDKs beside Rust's. What was built of the same sources by the
//! same tools is taken from the cache folder: CPython and SpiderMonkey take tens of seconds to build in.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::command::Run;
use crate::setup::guests;
use crate::{Outcome, paths, plugins};

/// The example plugin in the languages beside Rust, as plugins/dist/order-cents-LANGUAGE.wasm.
pub(crate) fn examples(millrace: &Path, dist: &Path) -> Outcome {
    for component in [
        build_python(&source("order-cents-python", "plugins/examples/python/plugin.py")),
        build_javascript(&source("order-cents-javascript", "plugins/examples/javascript/plugin.js")),
        build_go(&source("order-cents-go", "plugins/examples/go"), millrace),
        build_c(&source("order-cents-c", "plugins/examples/c/plugin.c"), millrace),
    ] {
        let component = component?;
        let name = component.file_stem().unwrap_or_default().to_string_lossy();
        let name = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
        plugins::publish(&component, &dist.join(format!("{name}.wasm")))?;
    }
    Ok(())
}

/// What a component is made of, apart from its SDK.
struct Source {
    /// The component's name.
    name: &'static str,
    /// From the project's root.
    file: &'static str,
    /// For the builder.
    args: &'static [&'static str],
}

const fn source(name: &'static str, file: &'static str) -> Source {
    Source { name, file, args: &[] }
}

/// The contract, and what makes a component of a core module.
const HOST: [&str; 3] = ["wit/0.1.0", "host/wasm/src/componentize.rs", "host/wasm/src/wasip1.wat"];

/// The kit's components by the Python SDK, the validator with a WASI that is not stubbed.
pub(crate) fn python(_: &Path) -> Outcome<Vec<PathBuf>> {
    let python = guests::python()?;
    let tests = Run::new(&python).args(["-m", "unittest", "discover", "-q", "-s", "sdk/python/tests"]);
    python_environment(tests).must()?;
    let kit = [
        source("python", "sdk/conformance/python/conformance.py"),
        Source {
            args: &["--with-wasi"],
            ..source("python-validator", "sdk/conformance/python/conformance_validator.py")
        },
    ];
    kit.iter().map(build_python).collect()
}

fn python_environment(run: Run) -> Run {
    run.env("PYTHONPATH", paths::root().join("sdk/python/src")).env("PYTHONDONTWRITEBYTECODE", "1")
}

fn build_python(source: &Source) -> Outcome<PathBuf> {
    let python = guests::python()?;
    cached(source, guests::PYTHON_PACKAGES, &["sdk/python/src"], |component| {
        let run = Run::new(&python).args(["-m", "millrace.build", source.file, "-o"]).arg(component).args(source.args);
        python_environment(run).must()
    })
}

/// The kit's components by the JavaScript SDK, the validator with a WASI that is not stubbed.
pub(crate) fn javascript(_: &Path) -> Outcome<Vec<PathBuf>> {
    guests::javascript("node")?.args(["--test", "sdk/javascript/test/sdk.test.js"]).must()?;
    let kit = [
        source("javascript", "sdk/conformance/javascript/conformance.js"),
        Source {
            args: &["--with-wasi"],
            ..source("javascript-validator", "sdk/conformance/javascript/conformance-validator.js")
        },
    ];
    kit.iter().map(build_javascript).collect()
}

fn build_javascript(source: &Source) -> Outcome<PathBuf> {
    let modules = guests::node()?;
    cached(source, &guests::NODE_PACKAGES.join(" "), &["sdk/javascript/src", "sdk/javascript/bin"], |component| {
        let run =
            guests::javascript("node")?.args(["sdk/javascript/bin/millrace-plugin.js", "build", source.file, "-o"]);
        run.arg(component).args(source.args).env("MILLRACE_NODE_MODULES", &modules).must()
    })
}

/// The kit's components by the C SDK: the transform in C, the validator in C++.
pub(crate) fn c(millrace: &Path) -> Outcome<Vec<PathBuf>> {
    make_c("sdk/c/test", "sdk-test", "test", millrace)?;
    let kit = [
        source("c", "sdk/conformance/c/conformance.c"),
        source("c-validator", "sdk/conformance/c/conformance_validator.cpp"),
    ];
    kit.iter().map(|source| build_c(source, millrace)).collect()
}

fn build_c(source: &Source, millrace: &Path) -> Outcome<PathBuf> {
    cached(source, guests::ZIG_PACKAGES, &["sdk/c"], |component| {
        let built = paths::target().join("guest/c").join(source.name);
        let (folder, file) = source.file.rsplit_once('/').unwrap_or((".", source.file));
        make(folder, source.name, &built, millrace)?.arg(format!("SOURCES={file}")).must()?;
        fs::copy(built.with_extension("wasm"), component)
            .map(|_| ())
            .map_err(|e| format!("{}: {e}", component.display()))
    })
}

/// Runs a target of a Makefile that includes sdk/c/millrace.mk.
fn make_c(folder: &str, name: &str, target: &str, millrace: &Path) -> Outcome {
    make(folder, name, &paths::target().join("guest/c").join(name), millrace)?.arg(target).must()
}

fn make(folder: &str, name: &str, built: &Path, millrace: &Path) -> Outcome<Run> {
    let run = Run::new("make").args(["--silent", "-C", folder]);
    let run = run.arg(format!("NAME={}", built.display())).arg(format!("MR_BUILD={}/{name}.d", parent(built)));
    Ok(run.arg(format!("ZIG={}", guests::zig()?)).arg(format!("MILLRACE={}", millrace.display())))
}

fn parent(path: &Path) -> std::path::Display<'_> {
    path.parent().unwrap_or(path).display()
}

/// The kit's components by the Go SDK.
pub(crate) fn go(millrace: &Path) -> Outcome<Vec<PathBuf>> {
    go_command("sdk/go")?.args(["test", "."]).must()?;
    let kit = [source("go", "sdk/conformance/go/transform"), source("go-validator", "sdk/conformance/go/validator")];
    kit.iter().map(|source| build_go(source, millrace)).collect()
}

/// Go in a folder, of nothing but what is there.
fn go_command(folder: &str) -> Outcome<Run> {
    let run = Run::new(guests::go()?).dir(&paths::root().join(folder));
    let cache = guests::folder()?.join("go-build");
    Ok(run.env("GOCACHE", cache).env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-mod=mod"))
}

fn build_go(source: &Source, millrace: &Path) -> Outcome<PathBuf> {
    let version = Run::new(guests::go()?).args(["env", "GOVERSION"]).quiet().output()?;
    cached(source, &version, &["sdk/go"], |component| {
        let core = component.with_extension("core");
        let build = go_command(source.file)?.args(["build", "-buildmode=c-shared", "-ldflags=-s -w", "-o"]);
        build.arg(&core).arg(".").env("GOOS", "wasip1").env("GOARCH", "wasm").must()?;
        Run::new(millrace).args(["plugin", "build"]).arg(&core).arg("-o").arg(component).must()?;
        fs::remove_file(&core).map_err(|e| format!("{}: {e}", core.display()))
    })
}

/// The component, which `make` writes to the path that it is given, unless one of the same sources, tools and arguments is there.
fn cached(source: &Source, tools: &str, sdk: &[&str], make: impl FnOnce(&Path) -> Outcome) -> Outcome<PathBuf> {
    let mut hasher = DefaultHasher::new();
    (tools, source.args).hash(&mut hasher);
    for folder in sdk.iter().copied().chain(HOST).chain([source.file]) {
        hash(&paths::root().join(folder), &mut hasher)?;
    }
    let folder = guests::folder()?.join("components");
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    let component = folder.join(format!("{}-{:016x}.wasm", source.name, hasher.finish()));
    if !component.is_file() {
        // In one step: two checkouts may build the same.
        let staged = folder.join(format!("{}-{}.wasm", source.name, std::process::id()));
        make(&staged)?;
        fs::rename(&staged, &component).map_err(failed)?;
    }
    Ok(component)
}

/// A file, or all files of a folder: their names and what is in them.
fn hash(path: &Path, hasher: &mut impl Hasher) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if path.is_dir() {
        let mut inside = fs::read_dir(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        inside.retain(|entry| entry.file_name() != "__pycache__");
        inside.sort_by_key(std::fs::DirEntry::file_name);
        return inside.iter().try_for_each(|entry| hash(&entry.path(), hasher));
    }
    path.file_name().hash(hasher);
    fs::read(path).map_err(failed)?.hash(hasher);
    Ok(())
}
