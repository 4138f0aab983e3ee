//! The conformance kit: one set of cases that the plugins of every SDK must pass, `sdk/conformance/`.
//!
//! A case names what the kit's plugin is to do with some changes, and what must come out. It is run cut at 1, at 7 and at 1,000
//! changes, on one instance and on a fresh one for each batch, and all answers must be equal byte for byte: what a plugin
//! answers depends on the row and its config, not on how rows were cut.

mod case;
mod rows;
mod run;

use std::path::PathBuf;
use std::sync::Arc;

use millrace_core::{Error, Result};
use serde::Serialize;

use crate::keys::Keys;
use crate::log::Tap;
use crate::runtime::{RuntimeOptions, WasmRuntime};
use case::{Case, File};

/// The cases, by file: they come with the host, so that a plugin's author needs the binary alone.
const FILES: [(&str, &str); 9] = [
    ("types", include_str!("../../../../sdk/conformance/cases/types.json")),
    ("cells", include_str!("../../../../sdk/conformance/cases/cells.json")),
    ("columns", include_str!("../../../../sdk/conformance/cases/columns.json")),
    ("images", include_str!("../../../../sdk/conformance/cases/images.json")),
    ("verdicts", include_str!("../../../../sdk/conformance/cases/verdicts.json")),
    ("faults", include_str!("../../../../sdk/conformance/cases/faults.json")),
    ("validator", include_str!("../../../../sdk/conformance/cases/validator.json")),
    ("parser", include_str!("../../../../sdk/conformance/cases/parser.json")),
    ("converter", include_str!("../../../../sdk/conformance/cases/converter.json")),
];

/// How one case went.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// `file: name`
    pub case: String,
    /// What is wrong; none: it passed.
    pub wrong: Option<String>,
}

/// Runs the cases of a component's role whose name contains `only`.
///
/// # Errors
/// It is no plugin, or one of a role without cases.
pub async fn run(component: &[u8], cache: Option<PathBuf>, only: &str) -> Result<Vec<Verdict>> {
    let tap = Tap::default();
    let keys = Keys::new([("kit".to_string(), b"secret".to_vec())]);
    let options = RuntimeOptions { pipeline: "conformance".to_string(), cache, keys };
    let runtime = WasmRuntime::with_tap(options, Some(Arc::clone(&tap)))?;
    let digest = crate::digest(component);
    // Held until the last case: each would load it again.
    let prepared = runtime.prepared(digest.clone(), component).await?;
    let role = prepared.role.name();
    let kit = run::Kit { runtime, component, digest, tap };
    let mut verdicts = Vec::new();
    for (file, case) in cases()?.into_iter().filter(|(_, case)| case.role == role) {
        let name = format!("{file}: {}", case.name);
        if name.contains(only) {
            verdicts.push(Verdict { case: name, wrong: kit.run(&case).await.err() });
        }
    }
    match verdicts.is_empty() {
        false => Ok(verdicts),
        true => {
            Err(Error::config("plugin.no_cases", format!("there is no case for a {role} whose name contains `{only}`"))
                .hint("leave `--only` out to run all cases of its role"))
        }
    }
}

fn cases() -> Result<Vec<(&'static str, Case)>> {
    let mut cases = Vec::new();
    for (name, text) in FILES {
        let file: File = serde_json::from_str(text).map_err(|e| Error::bug(format!("{name}.json: {e}")))?;
        cases.extend(file.cases.into_iter().map(|case| (name, case)));
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_can_be_read_and_expects_something() {
        let cases = cases().expect("cases");
        assert!(cases.len() > 50, "{}", cases.len());
        let mut names: Vec<_> = cases.iter().map(|(file, case)| format!("{file}: {}", case.name)).collect();
        for (file, case) in &cases {
            let expect = &case.expect;
            let any =
                expect.rows.is_some() || expect.rejects.is_some() || expect.count.is_some() || expect.error.is_some();
            assert!(any, "{file}: {} expects nothing", case.name);
            assert!(
                ["transform", "validator", "parser", "converter"].contains(&case.role.as_str()),
                "{file}: {}",
                case.name
            );
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), cases.len(), "two cases of one name");
    }
}
