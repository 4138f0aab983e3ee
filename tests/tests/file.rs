//! What Debezium really wrote, from its files into Delta tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_tests::place::Place;
use millrace_tests::servers::delta_reader::DeltaReader;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// The same messages that the decoder is tested with; they are kept once.
fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/connectors/tests/samples").join(name)
}

fn run(name: &str) -> (Place, Value) {
    let place = Place::new();
    place.write(
        "p.yaml",
        "pipeline: files\nsource: { file: { path: '${env:EVENTS}' } }\nsink: { delta: { path: './lake/{namespace}/{table}', mode: changelog } }\n",
    );
    let path = sample(name);
    let report = place.start(&[("EVENTS", path.to_str().expect("UTF-8"))]).finish(PATIENCE);
    (place, report)
}

/// (change type, id) of a table in the order of its positions, and how many changes became letters.
fn story(place: &Place, reader: &mut DeltaReader, table: &str) -> Vec<(String, Value)> {
    let table = place.lake("files").table("public", table);
    let rank = "case when _millrace_change_type in ('update_preimage', 'delete') then 0 else 1 end";
    let sql = format!(
        "select _millrace_change_type as ty, id from delta_scan('{}') order by _millrace_position, {rank}",
        table.display()
    );
    reader
        .query(&sql)
        .into_iter()
        .map(|row| (row["ty"].as_str().expect("a type").to_owned(), row["id"].clone()))
        .collect()
}

fn words(story: &[(String, Value)]) -> Vec<String> {
    let short = |ty: &str| {
        match ty {
            "update_preimage" => "before",
            "update_postimage" => "after",
            other => return other.to_owned(),
        }
        .to_owned()
    };
    story.iter().map(|(ty, id)| format!("{} {id}", short(ty))).collect()
}

#[test]
fn debeziums_messages_of_both_forms_become_the_same_changelogs() {
    let mut reader = DeltaReader::start();
    for name in ["debezium-postgres-schemas-on.ndjson", "debezium-postgres-schemas-off.ndjson"] {
        let (place, report) = run(name);
        assert_eq!(
            (&report["images_in"], &report["images_out"], &report["dead_letters"]),
            (&json!(27), &json!(27), &json!(0)),
            "{name}"
        );
        let samp = [
            "insert 1",
            "insert 2",
            "insert 3",
            "insert 10",
            "insert 11",
            "before 1",
            "after 1",
            "delete 2",
            "insert 20",
            "delete 3",
            "insert 30",
            "before 30",
            "after 30",
            "delete 30",
        ];
        assert_eq!(words(&story(&place, &mut reader, "samp")), samp, "{name}");
        let samp_def = [
            "insert 1",
            "insert 2",
            "insert 10",
            "after 10",
            "delete 10",
            "insert 11",
            "delete 1",
            "after 2",
            "insert 40",
            "after 40",
            "insert 41",
            "insert 42",
            "truncate null",
        ];
        assert_eq!(words(&story(&place, &mut reader, "samp_def")), samp_def, "{name}");
    }
}

#[test]
fn declared_types_unsent_values_and_new_columns_arrive_in_the_table() {
    let mut reader = DeltaReader::start();
    let (place, _) = run("debezium-postgres-schemas-on.ndjson");
    let at = |table: &str| format!("delta_scan('{}')", place.lake("files").table("public", table).display());
    // Times with a zone as text: DuckDB's Python package lacks the module that it reads them with.
    let sql = format!(
        "select id, name, amount, price, flag, d, ts, cast(tsz as text) as tsz, u, j, b, arr, big, note, \
         cast(_millrace_commit_time as text) as at from {} where id in (1, 10) and _millrace_change_type = 'insert' order by id",
        at("samp")
    );
    let rows = reader.query(&sql);
    assert_eq!(
        rows[0],
        json!({
            "id": 1, "name": "snap 1", "amount": "1.50", "price": 0.333_333_333_333_333_3, "flag": false, "d": "2026-01-02",
            "ts": "2026-01-01T13:00:00.123456", "tsz": "2026-01-01 11:00:00.123456+00", "u": "00000000-0000-0000-0000-000000000001",
            "j": "{\"k\": [1, 2]}", "b": "00ff10", "arr": "[1, 2, null]", "big": 9_223_372_036_854_775_806_i64, "note": null,
            "at": "2026-11-23 01:25:11.270121+00",
        })
    );
    assert_eq!((&rows[1]["name"], &rows[1]["amount"]), (&json!("ünïcødé \"q\" \\ 😀"), &json!("-1234567890.99")));
    assert_eq!((&rows[1]["price"], &rows[1]["b"], &rows[1]["big"]), (&json!("nan"), &json!(""), &json!(i64::MIN)));
    let sql = format!(
        "select _millrace_unavailable as gone, name, big from {} where id = 10 order by _millrace_position",
        at("samp_def")
    );
    let toast = reader.query(&sql);
    assert_eq!((&toast[0]["gone"], toast[0]["big"].as_str().map(|big| big.len() > 1_000)), (&Value::Null, Some(true)));
    assert_eq!(
        toast[1],
        json!({ "gone": ["big"], "name": "toast kept", "big": null }),
        "kept at the source is not NULL here"
    );
    assert_eq!(toast[2], json!({ "gone": ["name", "big"], "name": null, "big": null }), "of a delete by its key");
    let sql = format!("select id, extra, name2 from {} where id >= 40 order by _millrace_position", at("samp_def"));
    let grown: Vec<Value> = reader.query(&sql);
    let row = |id: i64, extra: Option<i64>, name2: Option<&str>| json!({ "id": id, "extra": extra, "name2": name2 });
    assert_eq!(
        grown,
        [
            row(40, Some(8), None),
            row(40, None, None),
            row(41, Some(9), Some("after rename")),
            row(42, None, Some("after drop"))
        ]
    );
}

#[test]
fn a_second_run_over_the_same_file_adds_nothing_and_lines_that_are_added_are_read() {
    let place = Place::new();
    place.write(
        "p.yaml",
        "pipeline: files\nsource: { file: { path: ./events.ndjson } }\nsink: { delta: { path: './lake/{namespace}/{table}', mode: changelog } }\n",
    );
    let text = std::fs::read_to_string(sample("debezium-postgres-schemas-on.ndjson")).expect("the sample");
    let lines: Vec<&str> = text.lines().collect();
    let (half, rest) = lines.split_at(lines.len() / 2);
    place.write("events.ndjson", &format!("{}\n", half.join("\n")));
    let first = place.start(&[]).finish(PATIENCE);
    let again = place.start(&[]).finish(PATIENCE);
    assert_eq!((&again["images_in"], &again["images_out"]), (&json!(0), &json!(0)), "{again}");
    place.write("events.ndjson", &format!("{}\n{}\nno event\n", half.join("\n"), rest.join("\n")));
    let last = place.start(&[]).finish(PATIENCE);
    let out = |report: &Value| report["images_out"].as_u64().expect("a count");
    assert_eq!(out(&first) + out(&last), 27, "{first} {last}");
    // The line that is no event is a letter with its text.
    assert_eq!(last["dead_letter_changes"], 1, "{last}");
    let letters = format!("select code, images from delta_scan('{}')", place.lake("files").letters().display());
    let letters = DeltaReader::start().query(&letters);
    assert_eq!((letters.len(), &letters[0]["code"]), (1, &json!("file.bad_line")));
    assert!(letters[0]["images"].as_str().is_some_and(|images| images.contains("no event")), "{letters:?}");
}
