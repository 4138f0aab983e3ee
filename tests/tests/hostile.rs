//! Plugins that do everything wrong are contained, named, and cost their own rows alone.
//!
//! All cases run side by side in one host, each a pipeline of its own, with a healthy one among them.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_tests::component::{digest, first_party};
use millrace_tests::place::Place;
use millrace_tests::servers::delta_reader::DeltaReader;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
const EVENTS: u64 = 1_500;

/// What the plugin does, the code that says so, and words of the reason: the limit that it broke.
const CASES: [(&str, &str, &str); 15] = [
    ("loop", "plugin.timeout", "took more than"),
    ("memory", "plugin.memory", "more than 16 MiB of memory"),
    ("stack", "plugin.stack", "ran out of stack"),
    ("panic", "plugin.trap", "trapped"),
    ("huge", "plugin.answer_too_large", "handed more than 16 MiB"),
    ("offsets_descend", "plugin.bad_answer", "offset"),
    ("offsets_beyond", "plugin.bad_answer", "offset"),
    ("offsets_start", "plugin.bad_answer", "offset"),
    ("few_rows", "plugin.bad_answer", "rows"),
    ("many_rows", "plugin.bad_answer", "rows"),
    ("few_fates", "plugin.bad_answer", "fate"),
    ("odd_fate", "plugin.bad_answer", "fate"),
    ("utf8", "plugin.bad_answer", "UTF-8"),
    ("utf8_split", "plugin.bad_answer", "column note"),
    ("wrong_cells", "plugin.bad_answer", "note"),
];

/// The hostile plugin works on `note`: a column of the orders under another name.
fn pipeline(name: &str, column: &str, config: &Value, rest: &str) -> String {
    let case = config["case"].as_str().unwrap_or_default();
    // An answer that is too large needs room in the sandbox first.
    let memory = if case == "huge" { "128MiB" } else { "16MiB" };
    // Short where it is waited for; elsewhere a machine that is busy with all the cases must not meet it.
    let time = if case.starts_with("loop") { "200ms" } else { "5s" };
    // Where every row is poison there is no point in looking for them one by one.
    let poison = if config["marker"].is_string() { 8 } else { 2 };
    format!(
        "pipeline: {name}
source: {{ generator: {{ events: {EVENTS}, seed: 5 }} }}
stages:
  - plugin: cast-rename
    tables: [shop.orders]
    grant: {{ columns: [{column}, note] }}
    config: {{ rename: {{ {column}: note }} }}
  - plugin: hostile
    tables: [shop.orders]
    grant: {{ columns: [note] }}
    config: {config}
    limits: {{ memory: {memory}, batch_time: {time}, time_per_1000_rows: {time}, poison_rows: {poison} }}
    {rest}
sink: {{ delta: {{ path: './{name}/{{namespace}}/{{table}}' }} }}
"
    )
}

/// A pipeline name has no underscore in common with the case's, so that its folder is easy to read.
fn name(case: &str) -> String {
    case.replace('_', "-")
}

fn run(place: &Place, names: &[String]) -> (i32, BTreeMap<String, Value>) {
    let files: Vec<String> = names.iter().map(|name| format!("{name}.yaml")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (code, ends) = place.start_with(&files, &[], &[]).end(PATIENCE);
    (code, ends.into_iter().map(|end| (end["pipeline"].as_str().expect("a name").to_owned(), end)).collect())
}

fn count(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"))
}

fn rows(report: &Value, table: &str) -> u64 {
    let tables = report["tables"].as_array().unwrap_or_else(|| panic!("no tables: {report}"));
    tables.iter().filter(|t| t["name"] == format!("shop.{table}")).map(|t| count(t, "rows")).sum()
}

fn reconcile(report: &Value) {
    let out = count(report, "images_out")
        + count(report, "dropped")
        + count(report, "dead_letters")
        + count(report, "already_stored")
        + count(report, "held");
    assert_eq!(count(report, "images_in") + count(report, "emitted"), out, "{report}");
}

fn letters(place: &Place, name: &str, reader: &mut DeltaReader) -> Vec<Value> {
    let table = place.path().join(name).join("_dead_letters");
    reader
        .query(&format!("select code, plugin, stage, \"table\", reason, images from delta_scan('{}')", table.display()))
}

#[test]
fn every_breach_becomes_letters_that_name_plugin_and_limit_while_the_rest_goes_on() {
    let place = Place::new();
    place.write("healthy.yaml", &pipeline("healthy", "status", &json!({ "case": "none" }), ""));
    let mut names = vec!["healthy".to_owned()];
    for (case, ..) in CASES {
        place.write(&format!("{}.yaml", name(case)), &pipeline(&name(case), "status", &json!({ "case": case }), ""));
        names.push(name(case));
    }
    let (code, ends) = run(&place, &names);
    assert_eq!(code, 0, "{ends:?}");
    let healthy = &ends["healthy"];
    reconcile(healthy);
    assert_eq!(count(healthy, "dead_letters"), 0, "{healthy}");
    let orders = rows(healthy, "orders");
    assert!(orders > 100, "{healthy}");
    let plugin = format!("hostile:{}", digest(&first_party("hostile")));
    let mut reader = DeltaReader::start();
    for (case, code, says) in CASES {
        let report = &ends[&name(case)];
        reconcile(report);
        for table in ["customers", "payments"] {
            assert_eq!(rows(report, table), rows(healthy, table), "{case}: {table}");
        }
        assert_eq!(rows(report, "orders") + count(report, "dead_letters"), orders, "{case}: {report}");
        assert!(count(report, "dead_letter_changes") > 100, "{case}: {report}");
        let letters = letters(&place, &name(case), &mut reader);
        assert_eq!(letters.len() as u64, count(report, "dead_letter_changes"), "{case}");
        for letter in &letters {
            let reason = letter["reason"].as_str().expect("a reason");
            assert_eq!((&letter["code"], &letter["plugin"]), (&json!(code), &json!(plugin)), "{case}: {letter}");
            assert_eq!(
                (&letter["stage"], &letter["table"]),
                (&json!("hostile"), &json!("shop.orders")),
                "{case}: {letter}"
            );
            assert!(reason.contains("hostile@") && reason.contains(says), "{case}: `{says}` is not in: {reason}");
        }
    }
}

#[test]
fn a_pipeline_that_is_to_halt_halts_with_the_plugins_name_and_goes_on_once_it_is_mended() {
    let place = Place::new();
    let mut names = vec!["healthy".to_owned()];
    place.write("healthy.yaml", &pipeline("healthy", "status", &json!({ "case": "none" }), ""));
    for (case, ..) in CASES {
        place.write(
            &format!("{}.yaml", name(case)),
            &pipeline(&name(case), "status", &json!({ "case": case }), "on_failure: halt"),
        );
        names.push(name(case));
    }
    let (code, ends) = run(&place, &names);
    assert_eq!(code, 1, "{ends:?}");
    reconcile(&ends["healthy"]);
    for (case, code, says) in CASES {
        let error = &ends[&name(case)]["error"];
        assert_eq!((&error["code"], &error["kind"]), (&json!(code), &json!("halt")), "{case}: {error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("hostile@") && message.contains(says), "{case}: `{says}` is not in: {message}");
        assert!(error["hint"].is_string(), "{case}: {error}");
    }
    // Mended, in a table that holds nothing of it yet or a part.
    for (case, ..) in CASES {
        place.write(&format!("{}.yaml", name(case)), &pipeline(&name(case), "status", &json!({ "case": "none" }), ""));
    }
    let (code, mended) = run(&place, &names[1..]);
    assert_eq!(code, 0, "{mended:?}");
    let mut reader = DeltaReader::start();
    for (case, ..) in CASES {
        reconcile(&mended[&name(case)]);
        for table in ["customers", "orders", "payments"] {
            let at = |lake: &str| place.path().join(lake).join("shop").join(table);
            assert_eq!(reader.count(&at(&name(case))), rows(&ends["healthy"], table), "{case}: {table}");
        }
    }
}

#[test]
fn a_table_that_a_plugin_does_not_support_stands_while_the_others_go_on() {
    let place = Place::new();
    let mut names = Vec::new();
    for (name, case) in [("healthy", "none"), ("unsupported", "unsupported")] {
        place.write(&format!("{name}.yaml"), &pipeline(name, "status", &json!({ "case": case }), ""));
        names.push(name.to_owned());
    }
    let (code, ends) = run(&place, &names);
    assert_eq!(code, 1, "{ends:?}");
    let (healthy, report) = (&ends["healthy"], &ends["unsupported"]);
    reconcile(report);
    for table in ["customers", "payments"] {
        assert_eq!(rows(report, table), rows(healthy, table), "{table}");
    }
    let halted = &report["halted"][0];
    assert_eq!((&halted["table"], &halted["code"]), (&json!("shop.orders"), &json!("plugin.unsupported_schema")));
    let reason = halted["reason"].as_str().expect("a reason");
    assert!(reason.contains("hostile@") && reason.contains("not this table"), "{reason}");
    assert_eq!((rows(report, "orders"), count(report, "held")), (0, rows(healthy, "orders")), "{report}");
    // Mended: the orders are read again, the others are not stored twice.
    place.write("unsupported.yaml", &pipeline("unsupported", "status", &json!({ "case": "none" }), ""));
    let (code, mended) = run(&place, &names[1..]);
    assert_eq!(code, 0, "{mended:?}");
    let mut reader = DeltaReader::start();
    for table in ["customers", "orders", "payments"] {
        let at = place.path().join("unsupported/shop").join(table);
        assert_eq!(reader.count(&at), rows(healthy, table), "{table}");
    }
}

#[test]
fn a_poison_row_is_a_letter_and_the_rows_around_it_are_stored() {
    // The number of an order occurs in its changes alone.
    const MARKER: &str = "SO-100000042";
    let place = Place::new();
    let mut names = Vec::new();
    for (name, case) in [("healthy", "none"), ("panics", "panic_on"), ("loops", "loop_on")] {
        place.write(&format!("{name}.yaml"), &pipeline(name, "number", &json!({ "case": case, "marker": MARKER }), ""));
        names.push(name.to_owned());
    }
    let (code, ends) = run(&place, &names);
    assert_eq!(code, 0, "{ends:?}");
    let mut reader = DeltaReader::start();
    let at = |lake: &str| format!("delta_scan('{}')", place.path().join(lake).join("shop/orders").display());
    let poison = format!(
        "select count(*) as n from {} where note = '{MARKER}' and _millrace_change_type in ('insert', 'update_postimage')",
        at("healthy")
    );
    let poison = reader.query(&poison)[0]["n"].as_u64().expect("a count");
    assert!(poison > 0, "the marker occurs nowhere");
    for (name, code) in [("panics", "plugin.trap"), ("loops", "plugin.timeout")] {
        let report = &ends[name];
        reconcile(report);
        assert_eq!(count(report, "dead_letter_changes"), poison, "{name}: {report}");
        for letter in letters(&place, name, &mut reader) {
            assert_eq!(letter["code"], code, "{letter}");
        }
        let others = |lake: &str| {
            format!(
                "select * exclude (_millrace_commit_time) from {} where note is distinct from '{MARKER}' and note is not null",
                at(lake)
            )
        };
        let differ = format!(
            "select count(*) as n from (({a} except all {b}) union all ({b} except all {a}))",
            a = others("healthy"),
            b = others(name)
        );
        assert_eq!(reader.query(&differ)[0]["n"], 0, "{name}: rows without the marker differ");
    }
}
