//! Builds the first-party plugins as WebAssembly components.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::Run;
use crate::{Outcome, paths};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
/// What many users of Rust know; its standard library reaches for WASI, which the host links empty.
pub(crate) const WASI_TARGET: &str = "wasm32-wasip2";
/// Built for [`WASI_TARGET`], as plugins/dist/NAME-wasip2.wasm, for the tests of the host's WASI.
const WITH_WASI: [&str; 2] = ["wasi-probe", "cast-rename"];

/// Builds every plugin of plugins/ into plugins/dist/NAME.wasm and answers that folder.
pub(crate) fn build() -> Outcome<PathBuf> {
    let workspace = paths::root().join("plugins");
    let target = paths::guest_target();
    cargo(&workspace, &target, &[])?;
    let dist = workspace.join("dist");
    fs::create_dir_all(&dist).map_err(|e| format!("{}: {e}", dist.display()))?;
    let plugins = components(&workspace)?;
    for (plugin, file) in &plugins {
        publish(&target.join(TARGET).join("release").join(file), &dist.join(format!("{plugin}.wasm")))?;
    }
    if plugins.is_empty() { Err("plugins/ holds no crate of type cdylib".to_owned()) } else { Ok(dist) }
}

/// As [`build`], and those that import WASI; what the tests need.
pub(crate) fn build_all() -> Outcome<PathBuf> {
    let dist = build()?;
    let (workspace, target) = (paths::root().join("plugins"), paths::guest_target());
    let packages = WITH_WASI.iter().flat_map(|name| ["--package", *name]);
    let build = Run::cargo().args(["build", "--release", "--locked", "--target", WASI_TARGET]).args(packages);
    build.dir(&workspace).env("CARGO_TARGET_DIR", &target).must()?;
    for name in WITH_WASI {
        let file = format!("{}.wasm", name.replace('-', "_"));
        let component = target.join(WASI_TARGET).join("release").join(file);
        publish(&component, &dist.join(format!("{name}-wasip2.wasm")))?;
    }
    Ok(dist)
}

/// Builds one plugin with a setting of cargo's own, apart from the others, and answers the component's file.
pub(crate) fn build_variant(package: &str, setting: &str) -> Outcome<PathBuf> {
    let target = paths::guest_target().join("variant");
    cargo(&paths::root().join("plugins"), &target, &["--package", package, "--config", setting])?;
    let file = target.join(TARGET).join("release").join(format!("{}.wasm", package.replace('-', "_")));
    if file.is_file() { Ok(file) } else { Err(format!("the build left no {}", file.display())) }
}

/// rustup's own linker for components turns the core module into one; no WASI gets in.
fn cargo(workspace: &Path, target: &Path, args: &[&str]) -> Outcome {
    let build = Run::cargo().args(["build", "--release", "--locked", "--target", TARGET]).args(args);
    let linker = component_linker()?;
    build
        .dir(workspace)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .must()
}

/// The target of programs that run here.
pub(crate) fn host() -> Outcome<String> {
    let version = Run::new("rustc").arg("-vV").quiet().output()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc names no host")?.to_owned())
}

fn component_linker() -> Outcome<PathBuf> {
    let sysroot = Run::new("rustc").args(["--print", "sysroot"]).quiet().output()?;
    let host = host()?;
    let linker = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/wasm-component-ld");
    if linker.is_file() {
        Ok(linker)
    } else {
        Err(format!("{} is absent: use rustup's toolchain, which brings it", linker.display()))
    }
}

/// The workspace's components: each one's name, and that of the file that cargo builds.
fn components(workspace: &Path) -> Outcome<Vec<(String, String)>> {
    let ask = Run::cargo().args(["metadata", "--no-deps", "--format-version", "1"]).dir(workspace).quiet();
    let metadata: Value = serde_json::from_str(&ask.output()?).map_err(|e| format!("cargo metadata: {e}"))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        let plugin = package["name"].as_str().unwrap_or_default().to_owned();
        let targets = list(&package["targets"]);
        let component = targets.iter().find(|target| list(&target["crate_types"]).contains(&"cdylib".into()));
        if let Some(name) = component.and_then(|target| target["name"].as_str()) {
            found.push((plugin, format!("{}.wasm", name.replace('-', "_"))));
        }
    }
    Ok(found)
}

/// Replaces the file in one step, and only if it differs: a running pipeline may watch it.
pub(crate) fn publish(file: &Path, target: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("{} -> {}: {e}", file.display(), target.display());
    let bytes = fs::read(file).map_err(failed)?;
    if fs::read(target).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let staged = target.with_extension("new");
    fs::write(&staged, &bytes).and_then(|()| fs::rename(&staged, target)).map_err(failed)?;
    println!("plugins: {} ({} kB)", paths::shown(target), bytes.len() / 1000);
    Ok(())
}
