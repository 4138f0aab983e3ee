//! From the core module that a compiler writes to the component that a host loads.

use millrace_core::{Error, Result};

/// Makes a component of a core module that was built against the WIT package (by wit-bindgen or the SDK), and checks that it is
/// one. A component comes back as it is.
///
/// # Errors
/// `plugin.not_a_component`: it is neither, or imports what no component can.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>> {
    if core_module.get(4) == Some(&13) {
        return Ok(core_module.to_vec());
    }
    let encode = || {
        let mut encoder = wit_component::ComponentEncoder::default().module(core_module)?.validate(true);
        encoder.encode()
    };
    encode().map_err(|e| {
        Error::config("plugin.not_a_component", format!("no component can be made of it: {e:#}")).hint(
            "build it for wasm32-unknown-unknown with crate-type cdylib, and export a plugin with the SDK's macro",
        )
    })
}
