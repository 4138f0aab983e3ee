//! A component: what it is, checked before anything of it runs.

use std::fmt::Write;

use millrace_core::{Error, Result};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::{InstancePre, Linker};

use crate::bindings::{converter, lifecycle, parser, transform, validator};
use crate::cache::Cache;
use crate::host::HostState;

/// A JavaScript or Python plugin is 2 to 19 MB; ten times a usual one is a mistake.
const MAX_BYTES: usize = 64 << 20;
const PACKAGE: &str = "millrace:plugin/";
/// Host interfaces of this version of the contract.
const OFFERED: [&str; 4] = ["types", "log", "metrics", "crypto"];
/// In the contract, but not in this host.
const NOT_YET: [&str; 2] = ["state", "lookup"];
/// Parts of WASI 0.2 that language runtimes import; linked empty.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:io/", "wasi:clocks/", "wasi:random/", "wasi:filesystem/", "wasi:sockets/"];

/// What a component does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Parser,
    Converter,
    Validator,
    Transform,
}

impl Role {
    const ALL: [Role; 4] = [Role::Parser, Role::Converter, Role::Validator, Role::Transform];

    pub fn name(self) -> &'static str {
        match self {
            Role::Parser => "parser",
            Role::Converter => "converter",
            Role::Validator => "validator",
            Role::Transform => "transform",
        }
    }
}

/// Compiled, linked, and of a known role: instances are made of it.
pub(crate) struct Prepared {
    pub(crate) digest: String,
    pub(crate) bytes: usize,
    pub(crate) role: Role,
    pub(crate) wit_version: String,
    pub(crate) imports: Vec<String>,
    pub(crate) pre: InstancePre<HostState>,
    pub(crate) lifecycle: lifecycle::GuestIndices,
    pub(crate) stage: StageIndices,
}

/// Where the functions of its role are.
pub(crate) enum StageIndices {
    Parser(parser::GuestIndices),
    Converter(converter::GuestIndices),
    Transform(transform::GuestIndices),
    Validator(validator::GuestIndices),
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("digest", &self.digest).field("role", &self.role).finish_non_exhaustive()
    }
}

/// SHA-256 in lower-case hexadecimal: the identity of an artefact.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Compiles and links a component. Takes seconds for large ones: not for a thread that serves others.
///
/// # Errors
/// `plugin.not_a_component`, `plugin.too_large`, `plugin.import_unsupported`, `plugin.role_unsupported`,
/// `plugin.contract`: what is wrong, and what would be right.
pub(crate) fn prepare(engine: &Engine, linker: &Linker<HostState>, cache: &Cache, bytes: &[u8]) -> Result<Prepared> {
    check_bytes(bytes)?;
    let digest = digest(bytes);
    let component = cache.component(engine, &digest, bytes).map_err(|e| {
        Error::config("plugin.not_a_component", format!("it does not compile: {}", first_line(&e)))
            .hint("build it with `millrace plugin build`, or against the WIT package millrace:plugin")
    })?;
    let ty = component.component_type();
    let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_string()).collect();
    imports.iter().try_for_each(|import| check_import(import))?;
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_string()).collect();
    let (role, wit_version) = role(&exports)?;
    let mismatch = |e: wasmtime::Error| {
        Error::config("plugin.contract", format!("it does not fit the contract {PACKAGE}@0.1: {e:#}"))
            .hint("build it against wit/0.1.0")
    };
    let pre = linker.instantiate_pre(&component).map_err(mismatch)?;
    let lifecycle = lifecycle::GuestIndices::new(&pre).map_err(mismatch)?;
    let stage = match role {
        Role::Transform => StageIndices::Transform(transform::GuestIndices::new(&pre).map_err(mismatch)?),
        Role::Validator => StageIndices::Validator(validator::GuestIndices::new(&pre).map_err(mismatch)?),
        Role::Parser => StageIndices::Parser(parser::GuestIndices::new(&pre).map_err(mismatch)?),
        Role::Converter => StageIndices::Converter(converter::GuestIndices::new(&pre).map_err(mismatch)?),
    };
    Ok(Prepared { digest, bytes: bytes.len(), role, wit_version, imports, pre, lifecycle, stage })
}

fn first_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_string()
}

fn check_bytes(bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_BYTES {
        let message = format!("it has {} MiB, more than {}", bytes.len() >> 20, MAX_BYTES >> 20);
        return Err(Error::config("plugin.too_large", message).hint("strip it, and build it with optimisation"));
    }
    // The fifth byte is the version: 1 for core modules, 13 for components.
    match bytes {
        [0, b'a', b's', b'm', 13, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, ..] => {
            Err(Error::config("plugin.not_a_component", "it is a core module, no component")
                .hint("make a component of it: `millrace plugin build FILE -o plugin.wasm`"))
        }
        [0x7f, b'E', b'L', b'F', ..] => Err(Error::config(
            "plugin.not_a_component",
            "it is a compiled image; those are native code and never taken from outside",
        )
        .hint("give the component itself")),
        _ => Err(Error::config("plugin.not_a_component", "it is no WebAssembly component")
            .hint("give a file that `millrace plugin build` wrote")),
    }
}

fn check_import(import: &str) -> Result<()> {
    let known = |names: &[&str]| {
        let interface = import.strip_prefix(PACKAGE).map(|i| i.split('@').next().unwrap_or_default());
        interface.is_some_and(|i| names.contains(&i))
    };
    if known(&OFFERED) || WASI.iter().any(|prefix| import.starts_with(prefix) && import.contains("@0.2")) {
        return Ok(());
    }
    let hint = if known(&NOT_YET) {
        "this version of the host does not offer it yet: do without, or use a later host"
    } else {
        "a plugin may import log, metrics and crypto of millrace:plugin, and WASI 0.2 (empty): nothing else is in its sandbox"
    };
    Err(Error::config("plugin.import_unsupported", format!("it imports {import}")).hint(hint))
}

fn role(exports: &[String]) -> Result<(Role, String)> {
    let exported = |role: Role| {
        exports.iter().find_map(|export| {
            let (interface, version) = export.strip_prefix(PACKAGE)?.split_once('@')?;
            (interface == role.name()).then(|| (role, version.to_string()))
        })
    };
    let found: Vec<(Role, String)> = Role::ALL.into_iter().filter_map(exported).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::config(
            "plugin.contract",
            format!("it exports none of {PACKAGE}{{parser,converter,validator,transform}}"),
        )
        .hint(format!("it exports {}", if exports.is_empty() { "nothing".to_string() } else { exports.join(", ") }))),
        several => {
            let names: Vec<&str> = several.iter().map(|(role, _)| role.name()).collect();
            let message = format!("it is a {} at once", names.join(" and a "));
            Err(Error::config("plugin.role_unsupported", message)
                .hint("a stage has one role: make a component of each"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_component_is_refused_with_what_it_is() {
        for (bytes, what) in [
            (&b"\0asm\x01\0\0\0"[..], "core module"),
            (b"\x7fELF....", "compiled image"),
            (b"#!/bin/sh", "no WebAssembly"),
            (b"", "no WebAssembly"),
        ] {
            let error = check_bytes(bytes).expect_err("refused");
            assert!(error.message.contains(what) && error.code == "plugin.not_a_component", "{error}");
        }
    }

    #[test]
    fn imports_that_the_sandbox_does_not_have_are_refused_by_name() {
        for fine in ["millrace:plugin/log@0.1.0", "millrace:plugin/crypto@0.1.9", "wasi:io/streams@0.2.6"] {
            check_import(fine).expect(fine);
        }
        for refused in ["millrace:plugin/state@0.1.0", "wasi:http/types@0.2.0", "wasi:io/streams@0.3.0", "evil"] {
            let error = check_import(refused).expect_err(refused);
            assert!(error.message.contains(refused) && error.code == "plugin.import_unsupported");
        }
    }
}
