//! Builds the conformance kit's plugins of every SDK and runs the kit on them: a line for each language.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::Run;
use crate::{Outcome, kits, paths, plugins};

/// Builds the kit's components with an SDK, where it needs to by the binary `millrace`.
type Build = fn(&Path) -> Outcome<Vec<PathBuf>>;

const LANGUAGES: &[(&str, Build)] =
    &[("rust", rust), ("python", kits::python), ("javascript", kits::javascript), ("go", kits::go), ("c", kits::c)];

/// All languages, or those named.
pub(crate) fn run(only: &[&str]) -> Outcome {
    if let Some(unknown) = only.iter().find(|name| LANGUAGES.iter().all(|(known, _)| known != *name)) {
        let known: Vec<&str> = LANGUAGES.iter().map(|(name, _)| *name).collect();
        return Err(format!("`conformance {unknown}`: there are {}", known.join(", ")));
    }
    let chosen: Vec<_> = LANGUAGES.iter().filter(|(name, _)| only.is_empty() || only.contains(name)).collect();
    let millrace = paths::build_millrace()?;
    let mut lines = Vec::new();
    let mut wrong = false;
    for (name, build) in chosen {
        match counts(&millrace, *build) {
            Ok((passed, failed)) => {
                wrong |= failed > 0 || passed == 0;
                lines.push(format!("{name}: {passed} passed, {failed} failed"));
            }
            Err(message) => {
                wrong = true;
                lines.push(format!("{name}: not run: {message}"));
            }
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    if wrong { Err("an SDK does not conform".to_owned()) } else { Ok(()) }
}

fn counts(millrace: &Path, build: Build) -> Outcome<(u64, u64)> {
    let mut sum = (0, 0);
    for component in build(millrace)? {
        let (passed, failed) = test(millrace, &component)?;
        sum = (sum.0 + passed, sum.1 + failed);
    }
    Ok(sum)
}

fn rust(_: &Path) -> Outcome<Vec<PathBuf>> {
    let dist = plugins::build()?;
    let roles = ["conformance", "conformance-validator", "conformance-parser", "conformance-converter"];
    Ok(roles.map(|role| dist.join(format!("{role}.wasm"))).to_vec())
}

/// Cases passed and failed; shows those that failed.
fn test(millrace: &Path, component: &Path) -> Outcome<(u64, u64)> {
    let mut answer = String::new();
    let run = Run::new(millrace).args(["plugin", "test", "--json", "--conformance"]).arg(component);
    run.lines(|line| answer.push_str(line))?;
    let answer: Value = serde_json::from_str(&answer).map_err(|e| format!("{}: {e}: {answer}", component.display()))?;
    let count = |what: &str| answer[what].as_u64().ok_or_else(|| format!("{}: {answer}", component.display()));
    for case in answer["cases"].as_array().into_iter().flatten().filter(|case| !case["wrong"].is_null()) {
        println!("FAIL  {}\n      {}", case["case"], case["wrong"].as_str().unwrap_or_default());
    }
    Ok((count("passed")?, count("failed")?))
}
