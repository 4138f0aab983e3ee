//! The command line itself: help, usage, exit codes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Stdio;

use support::Place;

#[test]
fn every_verb_answers_help_with_an_example() {
    let place = Place::new();
    let verbs: [&[&str]; 14] = [
        &[],
        &["run"],
        &["test"],
        &["validate"],
        &["plugin", "new"],
        &["plugin", "inspect"],
        &["plugin", "build"],
        &["plugin", "test"],
        &["plugin", "bench"],
        &["dlq", "ls"],
        &["resnapshot"],
        &["maintain"],
        &["schema"],
        &["generate"],
    ];
    let mut all = String::new();
    for verb in verbs {
        let said = place.run(&[verb, &["--help"]].concat());
        assert_eq!(said.code, Some(0));
        assert!(said.stdout.contains("Example:\n  "), "{verb:?}: {}", said.stdout);
        all += &format!("$ millrace {}\n{}\n", [verb, &["--help"]].concat().join(" "), said.stdout);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_new_plugin_is_written_in_each_language_and_nothing_is_overwritten() {
    let place = Place::new();
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk");
    for (language, file) in [
        ("rust", "src/lib.rs"),
        ("python", "plugin.py"),
        ("javascript", "plugin.js"),
        ("go", "plugin.go"),
        ("c", "plugin.c"),
    ] {
        let new = ["plugin", "new", "--lang", language, "--sdk", sdk, &format!("in-{language}")];
        let said = place.run(&new);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let folder = place.path().join(format!("in-{language}"));
        assert!(folder.join(file).is_file());
        for text in [file, "README.md"].map(|file| std::fs::read_to_string(folder.join(file)).unwrap()) {
            assert!(!text.contains("{{"), "{text}");
        }
        let again = place.run(&new);
        assert_eq!(again.code, Some(1));
        assert!(again.stderr.contains("plugin.exists"), "{}", again.stderr);
    }
    for (args, code) in [(["Order", sdk], "plugin.name"), (["order", "/nowhere"], "plugin.sdk_not_found")] {
        let said = place.run(&["plugin", "new", "--lang", "rust", "--sdk", args[1], args[0]]);
        assert!(said.code == Some(1) && said.stderr.contains(code), "{}", said.stderr);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new();
    for args in [&["run"][..], &["fly"], &["run", "--speed", "x.yaml"], &["generate", "--events", "0"], &[]] {
        let said = place.run(args);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.stderr);
        assert!(!said.stderr.is_empty());
    }
}

#[test]
fn the_schema_is_json_schema_of_the_current_draft() {
    let said = Place::new().run(&["schema"]);
    assert_eq!(said.code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["required"], serde_json::json!(["pipeline", "source", "sink"]));
}

#[test]
fn the_same_seed_generates_the_same_events() {
    let place = Place::new();
    let events = |seed: &str| place.run(&["generate", "--events", "50", "--seed", seed]);
    let said = events("7");
    assert_eq!((said.code, said.stdout.lines().count()), (Some(0), 50));
    assert!(said.stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert_eq!(events("7").stdout, said.stdout);
    assert_ne!(events("8").stdout, said.stdout);
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let place = Place::new();
    let mut child = place.command(&["generate", "--events", "200000"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_plugin_says_what_it_is() {
    let place = Place::new();
    let said = place.run(&["plugin", "inspect", "mask", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let seen = said.json();
    assert_eq!(seen["name"], "mask");
    assert_eq!(seen["role"], "transform");
    assert!(seen["config_schema"].is_object());
    let table = place.run(&["plugin", "inspect", "mask"]);
    assert!(table.stdout.contains("digest") && table.stdout.contains("config:"), "{}", table.stdout);
}

#[test]
fn a_plugin_that_is_not_there_is_an_error_with_a_hint() {
    let place = Place::new();
    let said = place.run(&["plugin", "inspect", "maks"]);
    assert_eq!(said.code, Some(1));
    assert_eq!(said.problems(), "error[plugin.not_found]: there is no plugin `maks`\n  hint: did you mean `mask`?\n");
}

#[test]
fn a_pager_that_is_closed_early_is_no_failure() {
    let place = Place::new();
    let mut child = place.command(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_component_is_built_as_it_is_and_what_is_none_is_refused() {
    let place = Place::new();
    let mask = support::plugins().join("mask.wasm");
    let said = place.run(&["plugin", "build", mask.to_str().unwrap(), "-o", "built.wasm"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(std::fs::read(place.path().join("built.wasm")).unwrap(), std::fs::read(mask).unwrap());
    place.write("text.wasm", "no module");
    let said = place.run(&["plugin", "build", "text.wasm", "-o", "other.wasm"]);
    assert_eq!(said.code, Some(1));
    assert!(said.problems().starts_with("error[plugin.not_a_component]: text.wasm"), "{}", said.stderr);
    assert!(!place.path().join("other.wasm").exists());
}
