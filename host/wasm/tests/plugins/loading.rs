//! From a file to a stage: what is refused, and what `inspect` shows.

use millrace_core::error::Kind;
use millrace_core::stage::{Grants, StageLoader, StageSpec};
use millrace_wasm::{RuntimeOptions, WasmRuntime};
use serde_json::{Value as Json, json};

use crate::fixture::{component, grants, inserts, lines, load, names, runtime, spec};

#[tokio::test]
async fn what_a_plugin_is_can_be_seen_without_running_it() {
    let artifact = component("mask");
    let seen = runtime().inspect(&artifact).await.expect("inspected");
    assert_eq!((seen.role, seen.name.as_str(), seen.version.as_str()), ("transform", "mask", "0.1.0"));
    assert_eq!((seen.wit_version.as_str(), seen.bytes), ("0.1.0", artifact.len()));
    assert_eq!(seen.digest, millrace_wasm::digest(&artifact));
    assert!(seen.imports.contains(&"millrace:plugin/crypto@0.1.0".to_string()), "{:?}", seen.imports);
    assert!(seen.imports.iter().all(|i| !i.starts_with("wasi:")), "{:?}", seen.imports);
    assert_eq!(seen.config_schema["type"], "object");
    assert_eq!(runtime().inspect(&component("rules")).await.expect("inspected").role, "validator");
}

#[tokio::test]
async fn a_component_that_needs_what_this_host_lacks_is_refused_by_name() {
    let error = runtime().inspect(&component("needs-state")).await.expect_err("state");
    assert_eq!((error.code, error.kind), ("plugin.import_unsupported", Kind::Config));
    assert!(error.message.contains("millrace:plugin/state@0.1.0"), "{error}");
}

#[tokio::test]
async fn files_that_are_no_components_are_refused() {
    let half = component("mask");
    for bytes in [&b"\0asm\x01\0\0\0"[..], b"", b"#!/bin/sh", &half[..half.len() / 2], b"\0asm\x0d\0\x01\0\0"] {
        let error = runtime().inspect(bytes).await.expect_err("no component");
        assert_eq!(error.code, "plugin.not_a_component", "{error}");
    }
    // An empty component is one, but no plugin.
    let error = runtime().inspect(b"\0asm\x0d\0\x01\0").await.expect_err("no plugin");
    assert_eq!(error.code, "plugin.contract", "{error}");
}

#[tokio::test]
async fn a_spec_that_does_not_fit_is_refused_with_the_place() {
    let artifact = component("mask");
    let good = spec("mask", &artifact, json!({ "note": "hash" }), Grants::default());
    let wrong = [
        (StageSpec { digest: "0".repeat(64), ..good.clone() }, "plugin.digest", "digest"),
        (StageSpec { limits: r#"{"memory_gib":1}"#.into(), ..good.clone() }, "plugin.limits", "memory_gib"),
        (StageSpec { config: r#"{"note":"scramble"}"#.into(), ..good.clone() }, "plugin.invalid_config", ".note"),
        (
            StageSpec { grants: Grants { crypto: names(&["other"]), ..Grants::default() }, ..good.clone() },
            "plugin.unknown_key",
            "other",
        ),
    ];
    for (spec, code, place) in wrong {
        let error = runtime().load(&spec, &artifact).await.err().expect("refused");
        assert_eq!((error.code, error.kind), (code, Kind::Config), "{error}");
        assert!(error.message.contains(place) && error.message.contains("plugin mask@"), "{error}");
        assert!(error.hint.is_some(), "{error}");
    }
}

#[tokio::test]
async fn a_compiled_component_is_kept_and_used_again() {
    let folder = tempfile::tempdir().expect("folder");
    let cache = folder.path().join("cache");
    let artifact = component("bench-noop");
    let spec = spec("noop", &artifact, Json::Null, grants(&["*"], &[]));
    let options = RuntimeOptions { cache: Some(cache.clone()), ..RuntimeOptions::default() };
    for _ in 0..2 {
        let mut stage =
            WasmRuntime::new(options.clone()).expect("runtime").load(&spec, &artifact).await.expect("loaded");
        assert_eq!(lines(&stage.apply(&inserts(&["a"])).await.expect("applied")).len(), 1);
    }
    let kept: Vec<_> = std::fs::read_dir(&cache).expect("cache").map(|f| f.expect("file").file_name()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].to_string_lossy().starts_with(&spec.digest), "{kept:?}");
}

#[tokio::test]
async fn a_plan_shows_what_the_plugin_will_do() {
    let config = json!({ "cast": { "note": "int64" }, "rename": { "note": "amount" } });
    let mut stage = load("cast-rename", config, grants(&["note"], &["note"]), Json::Null).await.expect("loaded");
    let plan = stage.plan(&crate::fixture::schema()).await.expect("plan").expect("active");
    assert_eq!((plan.reads, plan.writes, plan.effects), (names(&["note"]), names(&["amount"]), names(&["reject"])));
    let columns: Vec<String> = plan.output.columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect();
    assert_eq!(columns, ["id int64", "amount int64", "other text", "secret text"]);
}
