//! Plugin files: versions of a component, and how a file is replaced under a running host.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::host::plugins;

/// A first-party plugin's component.
pub fn first_party(name: &str) -> Vec<u8> {
    let file = plugins().join(format!("{name}.wasm"));
    fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}: cargo xtask plugins", file.display()))
}

/// Another build of the same plugin: a custom section at the end makes it another component, with another digest, that
/// does the same. (Component binary format: section id 0, size, name, payload; sizes in LEB128.)
pub fn build(component: &[u8], number: u8) -> Vec<u8> {
    const NAME: &[u8] = b"build";
    let mut bytes = component.to_vec();
    bytes.push(0);
    // Each size is below 128: one byte of LEB128.
    bytes.push((1 + NAME.len() + 1) as u8);
    bytes.push(NAME.len() as u8);
    bytes.extend_from_slice(NAME);
    bytes.push(number);
    bytes
}

/// SHA-256 in lower-case hexadecimal, as the host names versions.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a file in place in one step, as a release of it would be: nobody reads half of it.
pub fn replace(file: &Path, bytes: &[u8]) {
    let staged = file.with_extension("staged");
    fs::write(&staged, bytes)
        .and_then(|()| fs::rename(&staged, file))
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_differs_in_its_last_section_alone() {
        let (one, two) = (build(b"\0asm\x0d\0\x01\0", 1), build(b"\0asm\x0d\0\x01\0", 2));
        assert_eq!(&one[8..], b"\0\x07\x05build\x01");
        assert_ne!(digest(&one), digest(&two));
    }
}
