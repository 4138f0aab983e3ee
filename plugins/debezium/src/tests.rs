use millrace_sdk::testing::{Ending, Messages};
use serde_json::{Value as Json, json};

use super::*;

/// Messages that Debezium 3.7 really wrote from a PostgreSQL, with and without schemas.
const WITH: &str = include_str!("../../../host/connectors/tests/samples/debezium-postgres-schemas-on.ndjson");
const WITHOUT: &str = include_str!("../../../host/connectors/tests/samples/debezium-postgres-schemas-off.ndjson");

fn messages(samples: &str, config: Json) -> Messages {
    let records = samples.lines().map(|line| serde_json::from_str::<Json>(line).expect("a record"));
    records.fold(Messages::new(config), |messages, record| {
        let bytes = |name: &str| record[name].as_str().map(str::as_bytes);
        messages.message(bytes("raw_key"), bytes("raw_value"))
    })
}

fn without_schema() -> Json {
    let key = json!({ "name": "id", "type": "int32", "key": true });
    let samp = json!([
        key, "name", { "name": "amount", "type": "decimal(12,2)" }, { "name": "price", "type": "float64" },
        { "name": "flag", "type": "boolean" }, { "name": "d", "type": "date" }, { "name": "ts", "type": "timestamp" },
        { "name": "tsz", "type": "timestamp_tz" }, { "name": "u", "type": "uuid" }, { "name": "j", "type": "json" },
        { "name": "b", "type": "binary" }, { "name": "arr", "type": "json" }, { "name": "big", "type": "int64" }, "note",
    ]);
    json!({ "decimals": "base64", "tables": { "public.samp": samp, "public.samp_def": [key, "name", "big"] } })
}

fn rows(endings: &[Ending], table: &str) -> Vec<(String, Json)> {
    let rows = endings.iter().flat_map(|end| if let Ending::Rows(rows) = end { rows.clone() } else { Vec::new() });
    let of_table = rows.filter(|row| row["table"] == table);
    of_table.map(|row| (row["change"].as_str().expect("a change").to_string(), row["row"].clone())).collect()
}

fn story(endings: &[Ending], table: &str) -> Vec<(String, i64)> {
    rows(endings, table).into_iter().map(|(change, row)| (change, row["id"].as_i64().expect("an id"))).collect()
}

#[test]
fn every_message_of_a_real_debezium_becomes_the_rows_that_it_says() {
    for (samples, config) in [(WITH, json!({})), (WITHOUT, without_schema())] {
        let endings = messages(samples, config).parse::<Debezium>().expect("parsed");
        let (insert, pre, post, delete) = ("insert", "update_preimage", "update_postimage", "delete");
        let owned = |story: &[(&str, i64)]| story.iter().map(|(c, id)| ((*c).to_string(), *id)).collect::<Vec<_>>();
        // The key of row 2 becomes 20.
        let samp = [
            (insert, 1),
            (insert, 2),
            (insert, 3),
            (insert, 10),
            (insert, 11),
            (pre, 1),
            (post, 1),
            (delete, 2),
            (insert, 20),
            (delete, 3),
            (insert, 30),
            (pre, 30),
            (post, 30),
            (delete, 30),
        ];
        assert_eq!(story(&endings, "public.samp"), owned(&samp));
        let samp_def = [
            (insert, 1),
            (insert, 2),
            (insert, 10),
            (post, 10),
            (delete, 10),
            (insert, 11),
            (delete, 1),
            (post, 2),
            (insert, 40),
            (post, 40),
            (insert, 41),
            (insert, 42),
        ];
        assert_eq!(story(&endings, "public.samp_def"), owned(&samp_def));
        let rejected: Vec<&Ending> = endings.iter().filter(|end| matches!(end, Ending::Rejected { .. })).collect();
        assert!(
            matches!(rejected[..], [Ending::Rejected { code, .. }] if code == "debezium.truncate"),
            "the truncate alone: {rejected:?}"
        );
        // Tombstones, transactions, heartbeats and logical messages.
        assert_eq!(endings.iter().filter(|end| **end == Ending::Ignored).count(), 43);
    }
}

#[test]
fn cells_are_of_the_declared_types() {
    for (samples, config) in [(WITH, json!({})), (WITHOUT, without_schema())] {
        let endings = messages(samples, config).parse::<Debezium>().expect("parsed");
        let samp = rows(&endings, "public.samp");
        let first = json!({
            "id": 1, "name": "snap 1", "amount": "1.50", "price": 0.3333333333333333, "flag": false, "d": 20_455,
            "ts": 1_767_272_400_123_456_i64, "tsz": 1_767_265_200_123_456_i64, "u": "00000000-0000-0000-0000-000000000001",
            "j": { "k": [1, 2] }, "b": "00ff10", "arr": [1, 2, null], "big": 9_223_372_036_854_775_806_i64, "note": null,
        });
        assert_eq!(samp[0].1, first);
        let tenth = &samp[3].1;
        assert_eq!((&tenth["amount"], &tenth["d"]), (&json!("-1234567890.99"), &json!(i32::MAX)));
        assert_eq!((&tenth["ts"], &tenth["tsz"], &tenth["u"]), (&json!(i64::MAX), &json!(i64::MIN), &Json::Null));
    }
}

#[test]
fn what_was_not_sent_is_absent_and_not_null() {
    for (samples, config) in [(WITH, json!({})), (WITHOUT, without_schema())] {
        let endings = messages(samples, config).parse::<Debezium>().expect("parsed");
        let rows = rows(&endings, "public.samp_def");
        let names = |row: usize| rows[row].1.as_object().expect("a row").keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(2), ["big", "id", "name"]);
        assert_eq!(names(3), ["id", "name"], "an unchanged TOAST value");
        assert_eq!(names(4), ["id"], "a key-only delete");
        assert_eq!(names(5), ["id", "name"], "the key change's insert");
    }
    let whole = messages(WITH, json!({ "whole_before": true })).parse::<Debezium>().expect("parsed");
    assert_eq!(rows(&whole, "public.samp_def")[4].1, json!({ "id": 10, "name": null, "big": null }));
}

#[test]
fn what_is_no_change_event_is_refused_with_its_reason() {
    let envelope = |op: &str, after: &str| {
        format!(
            r#"{{"op":"{op}","before":null,"after":{after},"source":{{"connector":"mysql","db":"shop","table":"t"}}}}"#
        )
    };
    let config = json!({ "tables": { "shop.t": [{ "name": "id", "type": "int8", "key": true }] } });
    for (value, code) in [
        ("{".to_string(), "debezium.json"),
        ("[1]".to_string(), "debezium.json"),
        (r#"{"a":1}"#.to_string(), "debezium.no_envelope"),
        (r#"{"op":"c","after":{}}"#.to_string(), "debezium.no_envelope"),
        (r#"{"op":"c","after":{},"source":{"connector":"mongodb"}}"#.to_string(), "debezium.no_table"),
        (envelope("c", r#"{"id":300}"#), "debezium.value"),
        (envelope("c", r#"{"id":null}"#), "debezium.null"),
        (envelope("c", "null"), "debezium.no_image"),
        (envelope("x", r#"{"id":1}"#), "debezium.op"),
        (envelope("c", r#"{"id":1}"#).replace(r#""t""#, r#""u""#), "debezium.no_schema"),
        (r#"{"schema":{"type":"struct"},"payload":{"op":"c","source":{"table":"t"}}}"#.to_string(), "debezium.schema"),
    ] {
        let endings = Messages::new(config.clone()).value(&value).parse::<Debezium>().expect("parsed");
        assert!(matches!(&endings[0], Ending::Rejected { code: c, .. } if c == code), "{value}: {endings:?}");
    }
    let good = Messages::new(config).value(envelope("c", r#"{"id":1}"#)).parse::<Debezium>().expect("parsed");
    assert_eq!(good, [Ending::Rows(vec![json!({ "table": "shop.t", "change": "insert", "row": { "id": 1 } })])]);
}

#[test]
fn decimals_without_schema_need_to_be_said() {
    let config = json!({ "tables": { "t": [{ "name": "total", "type": "decimal(10,2)" }] } });
    let error = Messages::new(config).parse::<Debezium>().expect_err("refused");
    assert!(error.contains("tables.t: total: say `decimals: string`"), "{error}");
}
