//! The conformance kit, run on the Rust SDK's plugins. `cargo xtask conformance` runs it on those of every SDK.

use std::path::PathBuf;

use millrace_wasm::conformance;

use crate::fixture::component;

async fn passes(name: &str, at_least: usize) {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache");
    let verdicts = conformance::run(&component(name), Some(cache), "").await.expect("the kit ran");
    let wrong: Vec<_> = verdicts.iter().filter_map(|v| Some((&v.case, v.wrong.as_ref()?))).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{wrong:#?}", wrong.len(), verdicts.len());
    assert!(verdicts.len() >= at_least, "{} cases", verdicts.len());
}

#[tokio::test]
async fn the_rust_sdk_passes_the_conformance_kit_for_transforms() {
    passes("conformance", 100).await;
}

#[tokio::test]
async fn the_rust_sdk_passes_the_conformance_kit_for_validators() {
    passes("conformance-validator", 10).await;
}

#[tokio::test]
async fn the_rust_sdk_passes_the_conformance_kit_for_parsers_and_converters() {
    passes("conformance-parser", 9).await;
    passes("conformance-converter", 9).await;
}

#[tokio::test]
async fn a_plugin_that_does_something_else_fails_the_kit() {
    let verdicts = conformance::run(&component("cast-rename"), None, "columns: ").await.expect("the kit ran");
    assert!(verdicts.iter().any(|v| v.wrong.is_some()), "{verdicts:?}");
    let error = conformance::run(&component("mask"), None, "no such case").await.expect_err("nothing to run");
    assert_eq!(error.code, "plugin.no_cases");
}
