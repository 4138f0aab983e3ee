//! Raw messages through parser plugins.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::Value;
use support::{Place, Said};

const CSV: &str = r#"
stages:
  - plugin: csv
    grant: { read: [value] }
    config:
      table: shop.orders
      columns: [{ name: id, type: int64, key: true }, { name: total, type: "decimal(10,2)" }, op]
      op: op
      header: true
"#;

fn run(place: &Place, source: &str, stages: &str, sink: &str) -> Said {
    place.write("p.yaml", format!("pipeline: shop\nsource: {{ file: {source} }}\n{stages}\nsink: {sink}\n"));
    let said = place.run(&["run", "p.yaml", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said
}

#[test]
fn lines_of_csv_become_a_mirror_and_their_counts_reconcile() {
    let place = Place::new();
    place.write("in.csv", "id,total,op\n1,12.5,I\n2,7,I\n2,many,U\n1,13,U\n3,1,I\n3,1,D\n");
    let sink = "{ delta: { path: './lake/{namespace}/{table}', mode: upsert } }";
    let answer = run(&place, "{ path: ./in.csv, format: lines }", CSV, sink).json();
    let count = |name: &str| answer[name].as_u64().unwrap_or_else(|| panic!("{name}: {answer}"));
    assert_eq!((count("images_in"), count("dead_letters"), count("dropped")), (7, 1, 1), "{answer}");
    assert_eq!(count("images_in") + count("emitted"), count("images_out") + count("dropped") + count("dead_letters"));
    assert!(place.path().join("lake/shop/orders/_delta_log").is_dir());
    let again = run(&place, "{ path: ./in.csv, format: lines }", CSV, sink).json();
    assert_eq!((&again["images_out"], &again["dead_letters"]), (&0.into(), &0.into()), "{again}");
}

/// Table, operation, images and what is unavailable, without what the two ways can not know alike.
fn rows(said: &Said) -> Vec<Value> {
    let lines = said.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let changes = lines.filter(|line| line.get("table").is_some() && line["op"] != "truncate");
    let mut rows: Vec<Value> = changes
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("commit_time");
            line
        })
        .collect();
    // Across tables there is no order.
    rows.sort_by_key(|row| (row["table"].to_string(), row["position"].to_string()));
    rows
}

#[test]
fn the_debezium_parser_makes_of_real_messages_what_the_built_in_decoder_makes_of_them() {
    let place = Place::new();
    let samples =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../connectors/tests/samples/debezium-postgres-schemas-on.ndjson");
    let built_in = run(&place, &format!("{{ path: '{samples}' }}"), "", "{ stdout: }");
    std::fs::remove_dir_all(place.path().join(".millrace")).unwrap();
    let stages = "stages: [{ plugin: debezium, grant: { read: [key, value] } }]";
    let parsed = run(&place, &format!("{{ path: '{samples}', format: records }}"), stages, "{ stdout: }");
    let (built_in, parsed) = (rows(&built_in), rows(&parsed));
    assert_eq!(built_in.len(), 24);
    for (one, other) in built_in.iter().zip(&parsed) {
        assert_eq!(one, other);
    }
    assert_eq!(built_in.len(), parsed.len());
    let letters = std::fs::read_to_string(place.path().join(".millrace/shop/dead_letters.ndjson")).unwrap();
    let codes: Vec<Value> =
        letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["code"].clone()).collect();
    assert_eq!(codes, ["debezium.truncate"]);
}

#[test]
fn a_parser_behind_a_source_of_changes_is_refused_before_anything_runs() {
    let place = Place::new();
    place.write("p.yaml", format!("pipeline: shop\nsource: {{ generator: {{}} }}\n{CSV}\nsink: {{ null: }}\n"));
    let said = place.run(&["validate", "p.yaml"]);
    assert_eq!(said.code, Some(1));
    assert!(said.problems().contains("error[stage.no_raw_source]"), "{}", said.problems());
    assert!(said.problems().contains("format: lines"), "{}", said.problems());
}

#[test]
fn a_parser_is_tested_by_example() {
    let place = Place::new();
    place.write("in.csv", "");
    let tests = r#"
tests:
  - name: a line is an order
    given: [{ table: file.lines, insert: { value: "1,12.5,U" } }, { table: file.lines, insert: { value: "1" } }]
    expect:
      - { table: shop.orders, update: { after: { id: 1, total: 12.5 } } }
      - { table: file.lines, reject: { code: csv.fields, column: value } }
"#;
    let source = "source: { file: { path: ./in.csv, format: lines } }";
    place.write("p.yaml", format!("pipeline: shop\n{source}\n{CSV}\nsink: {{ null: }}\n{tests}"));
    let said = place.run(&["test", "p.yaml"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}
