//! From the core module that a compiler writes to the component that a host loads.

use millrace_core::{Error, Result};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve, SourceMap};

/// The contract, for modules whose SDK carries no description of it (C, Go).
const CONTRACT: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../wit/0.1.0/types.wit")),
    ("stages.wit", include_str!("../../../wit/0.1.0/stages.wit")),
    ("host.wit", include_str!("../../../wit/0.1.0/host.wit")),
    ("worlds.wit", include_str!("../../../wit/0.1.0/worlds.wit")),
];
/// What Go's runtime and C's standard library import.
const WASI: &str = "wasi_snapshot_preview1";

/// Makes a component of a core module that was built against the WIT package (by wit-bindgen or an SDK), and checks that it is
/// one. A component comes back as it is. What the module imports of WASI is answered inside the component: an empty world, in which
/// a clock counts its readings and chance is the same at every run.
///
/// # Errors
/// `plugin.not_a_component`: it is neither, or imports what no component can.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>> {
    if core_module.get(4) == Some(&13) {
        return Ok(core_module.to_vec());
    }
    encode(core_module).map_err(|e| {
        Error::config("plugin.not_a_component", format!("no component can be made of it: {e:#}")).hint(
            "build it with an SDK: in Rust for wasm32-unknown-unknown with crate-type cdylib, and export a plugin with the SDK's macro",
        )
    })
}

type Encoded<T> = std::result::Result<T, String>;

fn encode(core_module: &[u8]) -> Encoded<Vec<u8>> {
    let module = Module::read(core_module)?;
    let mut bytes = core_module.to_vec();
    if !module.described {
        let role = module.role.ok_or("it exports nothing of millrace:plugin")?;
        let (resolve, package) = contract()?;
        let world = resolve.select_world(&[package], Some(&format!("{role}-full"))).map_err(shown)?;
        embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).map_err(shown)?;
    }
    let mut encoder = ComponentEncoder::default().module(&bytes).map_err(shown)?.validate(true);
    if module.wasi {
        let adapter = wat::parse_str(include_str!("wasip1.wat")).map_err(|e| e.to_string())?;
        encoder = encoder.adapter(WASI, &adapter).map_err(shown)?;
    }
    encoder.encode().map_err(shown)
}

/// With its causes, on one line.
fn shown(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}

fn contract() -> Encoded<(Resolve, PackageId)> {
    let mut files = SourceMap::default();
    CONTRACT.iter().for_each(|(name, text)| files.push_str(name, *text));
    let package = files.parse().map_err(|(files, error)| error.render(&files))?;
    let mut resolve = Resolve::default();
    let package = resolve.push_group(package).map_err(shown)?;
    Ok((resolve, package))
}

/// What is to be known of a core module before it is encoded.
#[derive(Default)]
struct Module {
    /// It says itself which world it was built against.
    described: bool,
    wasi: bool,
    role: Option<&'static str>,
}

impl Module {
    fn read(bytes: &[u8]) -> Encoded<Module> {
        let mut module = Module::default();
        for part in Parser::new(0).parse_all(bytes) {
            match part.map_err(shown)? {
                Payload::CustomSection(section) => module.described |= section.name().starts_with("component-type"),
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        module.wasi |= import.map_err(shown)?.module == WASI;
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let role = role(export.map_err(shown)?.name);
                        module.role = module.role.or(role);
                    }
                }
                _ => {}
            }
        }
        Ok(module)
    }
}

/// `millrace:plugin/transform@0.1.0#apply` is of a transform.
fn role(export: &str) -> Option<&'static str> {
    let interface = export.strip_prefix("millrace:plugin/")?.split('@').next()?;
    ["parser", "converter", "validator", "transform"].into_iter().find(|role| *role == interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a C or Go compiler leaves of a transform, with one import of WASI.
    const CORE: &str = r#"(module
        (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "millrace:plugin/lifecycle@0.1.0#describe") (result i32) unreachable)
        (func (export "millrace:plugin/lifecycle@0.1.0#configure") (param i32 i32 i32 i32 i32 i32) (result i32) unreachable)
        (func (export "millrace:plugin/transform@0.1.0#plan") (param i32) (result i32) unreachable)
        (func (export "millrace:plugin/transform@0.1.0#apply")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"#;

    #[test]
    fn a_module_without_a_description_becomes_what_it_exports_and_brings_its_own_wasi() {
        let component = componentize(&wat::parse_str(CORE).expect("a module")).expect("a component");
        let engine = crate::engine::engine().expect("engine");
        let ty = wasmtime::component::Component::new(&engine, &component).expect("compiled").component_type();
        let imports: Vec<String> = ty.imports(&engine).map(|(name, _)| name.to_string()).collect();
        assert_eq!(imports, ["millrace:plugin/types@0.1.0"]);
        assert!(ty.exports(&engine).any(|(name, _)| name == "millrace:plugin/transform@0.1.0"));
    }

    #[test]
    fn a_module_that_exports_no_plugin_is_refused() {
        let empty = wat::parse_str("(module)").expect("a module");
        let error = componentize(&empty).expect_err("refused");
        assert!(error.code == "plugin.not_a_component" && error.message.contains("exports nothing"), "{error}");
    }

    #[test]
    fn every_role_has_a_world_with_all_that_the_host_may_offer() {
        let (resolve, package) = contract().expect("the contract");
        for role in ["parser", "converter", "validator", "transform"] {
            resolve.select_world(&[package], Some(&format!("{role}-full"))).expect(role);
        }
    }
}
