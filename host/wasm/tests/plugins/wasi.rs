//! Components that import WASI, as most toolchains make them: it is empty, and answers the same at every run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_core::stage::Stage;
use serde_json::{Value as Json, json};

use crate::fixture::{component, grants, inserts, lines, load, mixed, rejects, runtime};

const PROBE: &str = "wasi-probe-wasip2";

/// Each thing that the standard library can ask of WASI, and the only answer there is to it.
const ANSWERS: [(&str, &str); 13] = [
    ("wall-clock", "Ok(0ns)"),
    ("monotonic-clock", "0ns true"),
    ("sleep", "slept"),
    ("environment", "[]"),
    ("arguments", "[]"),
    ("folder", "Err(NotFound)"),
    ("read", "Err(NotFound)"),
    ("write", "Err(NotFound)"),
    ("tcp", "connected: false"),
    ("udp", "bound: false"),
    ("name", "resolved: false"),
    ("stdout", "written"),
    ("stdin", "Ok(0)"),
];

async fn probe() -> Box<dyn Stage> {
    load(PROBE, Json::Null, grants(&["note"], &["note"]), Json::Null).await.expect("loaded")
}

async fn ask(stage: &mut dyn Stage, asked: &[&str]) -> Vec<String> {
    let output = stage.apply(&inserts(asked)).await.expect("applied");
    let note = |line: &String| {
        let cells: BTreeMap<String, Json> =
            serde_json::from_str(&line[line.find('{').expect("cells")..]).expect("JSON");
        cells["note"].as_str().expect("text").to_string()
    };
    lines(&output).iter().map(note).collect()
}

#[tokio::test]
async fn a_component_with_wasi_sees_no_clock_no_files_no_network_and_no_environment() {
    let seen = runtime().inspect(&component(PROBE)).await.expect("inspected");
    let wasi: Vec<&String> = seen.imports.iter().filter(|i| i.starts_with("wasi:")).collect();
    for interface in ["wasi:clocks/wall-clock@", "wasi:filesystem/types@", "wasi:sockets/tcp@", "wasi:cli/environment@"]
    {
        assert!(wasi.iter().any(|i| i.starts_with(interface)), "the probe does not ask: {wasi:?}");
    }
    let asked = ANSWERS.map(|(what, _)| what);
    let answered = ask(probe().await.as_mut(), &asked).await;
    let pairs: Vec<(&str, &str)> = asked.into_iter().zip(answered.iter().map(String::as_str)).collect();
    assert_eq!(pairs, ANSWERS);
}

#[tokio::test]
async fn chance_is_the_same_on_every_instance() {
    let asked = ["entropy", "hash-map", "entropy"];
    let first = ask(probe().await.as_mut(), &asked).await;
    let second = ask(probe().await.as_mut(), &asked).await;
    assert_eq!(first, second);
    assert_eq!(first[1].split(',').count(), 20);
}

#[tokio::test]
async fn a_plugin_that_sleeps_for_a_day_wakes_at_once() {
    let start = Instant::now();
    assert_eq!(ask(probe().await.as_mut(), &["sleep-for-a-day"]).await, ["slept"]);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_plugin_that_exits_loses_the_row_and_nothing_else() {
    let mut stage = probe().await;
    let output = stage.apply(&inserts(&["arguments", "exit", "panic", "environment"])).await.expect("applied");
    assert_eq!(rejects(&output), [1, 2].map(|change| (change, "plugin.trap".to_string())));
    // WASI 0.2 knows success and failure, no number.
    assert!(output.rejects[0].reason.contains("exit status 1"), "{}", output.rejects[0].reason);
    assert_eq!(lines(&output).len(), 2);
}

#[tokio::test]
async fn the_same_plugin_answers_the_same_with_wasi_and_without() {
    let config = json!({
        "cast": { "note": "int64" }, "keep": { "note": { "not_in": ["test"] } }, "rename": { "other": "more" },
    });
    let batch = mixed(1_000);
    let mut answers = Vec::new();
    for name in ["cast-rename", "cast-rename-wasip2"] {
        let granted = grants(&["note", "other"], &["note", "other", "more"]);
        let mut stage = load(name, config.clone(), granted, Json::Null).await.expect("loaded");
        let output = stage.apply(&batch).await.expect("applied");
        answers.push((lines(&output), rejects(&output)));
    }
    assert!(answers[0].0.len() > 100 && answers[0].1.len() > 100, "{} {}", answers[0].0.len(), answers[0].1.len());
    assert_eq!(answers[0], answers[1]);
    let imports = runtime().inspect(&component("cast-rename-wasip2")).await.expect("inspected").imports;
    assert!(imports.iter().any(|i| i.starts_with("wasi:")), "{imports:?}");
}
