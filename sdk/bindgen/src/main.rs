//! Writes `sdk/rust/src/bindings/ROLE.rs` from `wit/`.
//!
//! The bindings are committed so that a plugin's build needs neither the generator nor its thirty crates. The generator is
//! wit-bindgen's own; one thing is changed: every role exports `lifecycle`, and a crate cannot hold two macros of one name.

use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_rust::{Opts, WithOption};

const ROLES: [&str; 4] = ["transform", "validator", "parser", "converter"];
/// What the roles after the first take from it.
const SHARED: [&str; 6] = ["types", "log", "metrics", "state", "lookup", "crypto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rust");
    let out = sdk.join("src/bindings");
    std::fs::create_dir_all(&out)?;
    for role in ROLES {
        let source = generate(&sdk.join("wit"), role)?;
        std::fs::write(out.join(format!("{role}.rs")), source)?;
        println!("wrote src/bindings/{role}.rs");
    }
    Ok(())
}

fn generate(wit: &Path, role: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(&format!("{role}-full")))?;
    let with = match role == ROLES[0] {
        true => Vec::new(),
        false => SHARED
            .iter()
            .map(|name| {
                let path = format!("crate::bindings::{}::millrace::plugin::{name}", ROLES[0]);
                (format!("millrace:plugin/{name}@0.1.0"), WithOption::Path(path))
            })
            .collect(),
    };
    let options = Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some(format!("export_{role}")),
        default_bindings_module: Some(format!("millrace_sdk::bindings::{role}")),
        with,
        ..Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    let (_, source) = files.iter().next().ok_or("the generator wrote nothing")?;
    let source = String::from_utf8(source.to_vec())?;
    Ok(source.replace("__export_millrace_plugin_", &format!("__export_{role}_")))
}
