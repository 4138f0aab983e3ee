//! Messages that Debezium 3.7 really wrote from a PostgreSQL, with and without schemas, read from files.

mod reading;

use millrace_connectors::file::FileConfig;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::json;
use millrace_core::schema::{ColumnType, Images};
use reading::{all, cell, rows_of, sample};
use serde_json::{Value, json};

fn column_types(batch: &ChangeBatch) -> Vec<(String, ColumnType)> {
    batch.schema.columns.iter().map(|c| (c.name.to_string(), c.ty.clone())).collect()
}

fn typed(columns: &[(&str, ColumnType)]) -> Vec<(String, ColumnType)> {
    columns.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect()
}

/// (change type, id) of a table's rows, in order.
fn story(batches: &[ChangeBatch], table: &str) -> Vec<(ChangeType, Value)> {
    rows_of(batches, table)
        .map(|(batch, row)| {
            (batch.change_types[row], if batch.is_truncate() { Value::Null } else { cell(batch, "id", row) })
        })
        .collect()
}

fn expect_the_stories(batches: &[ChangeBatch]) {
    use ChangeType::{Delete, Insert, Truncate, UpdatePostimage, UpdatePreimage};
    let samp = [
        (Insert, json!(1)),
        (Insert, json!(2)),
        (Insert, json!(3)),
        (Insert, json!(10)),
        (Insert, json!(11)),
        (UpdatePreimage, json!(1)),
        (UpdatePostimage, json!(1)),
        // The key of row 2 becomes 20.
        (Delete, json!(2)),
        (Insert, json!(20)),
        (Delete, json!(3)),
        (Insert, json!(30)),
        (UpdatePreimage, json!(30)),
        (UpdatePostimage, json!(30)),
        (Delete, json!(30)),
    ];
    assert_eq!(story(batches, "public.samp"), samp);
    let samp_def = [
        (Insert, json!(1)),
        (Insert, json!(2)),
        (Insert, json!(10)),
        (UpdatePostimage, json!(10)),
        (Delete, json!(10)),
        (Insert, json!(11)),
        (Delete, json!(1)),
        (UpdatePostimage, json!(2)),
        (Insert, json!(40)),
        (UpdatePostimage, json!(40)),
        (Insert, json!(41)),
        (Insert, json!(42)),
        (Truncate, Value::Null),
    ];
    assert_eq!(story(batches, "public.samp_def"), samp_def);
    assert_eq!(rows_of(batches, "file.bad_lines").count(), 0);
    assert!(batches.iter().all(|b| b.origin.rejects.is_empty()));
}

#[test]
fn every_message_with_a_schema_becomes_rows_of_the_declared_types() {
    let batches = all(&FileConfig::new(sample("debezium-postgres-schemas-on.ndjson")));
    expect_the_stories(&batches);
    let (samp, _) = rows_of(&batches, "public.samp").next().expect("rows");
    let expected = typed(&[
        ("id", ColumnType::Int32),
        ("name", ColumnType::Text),
        ("amount", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("price", ColumnType::Float64),
        ("flag", ColumnType::Boolean),
        ("d", ColumnType::Date),
        ("ts", ColumnType::Timestamp),
        ("tsz", ColumnType::TimestampTz),
        ("u", ColumnType::Uuid),
        ("j", ColumnType::Json),
        ("b", ColumnType::Binary),
        ("arr", ColumnType::Json),
        ("big", ColumnType::Int64),
        ("note", ColumnType::Text),
    ]);
    assert_eq!(column_types(samp), expected);
    assert!(samp.schema.columns[0].key && !samp.schema.columns[0].nullable);
    assert!(samp.schema.columns.iter().skip(1).all(|c| !c.key && c.nullable));
    assert_eq!(&*samp.schema.columns[7].source_type, "io.debezium.time.ZonedTimestamp");

    let rows: Vec<Value> = rows_of(&batches, "public.samp").map(|(b, r)| json::row(b, r, |_| false).into()).collect();
    assert_eq!(
        rows[0],
        json!({
            "id": 1, "name": "snap 1", "amount": "1.50", "price": 0.3333333333333333, "flag": false, "d": "2026-01-02",
            "ts": "2026-01-01T13:00:00.123456", "tsz": "2026-01-01T11:00:00.123456Z",
            "u": "00000000-0000-0000-0000-000000000001", "j": {"k": [1, 2]}, "b": "\\x00ff10", "arr": [1, 2, null],
            "big": "9223372036854775806", "note": null,
        })
    );
    assert_eq!(
        rows[3],
        json!({
            "id": 10, "name": "ünïcødé \"q\" \\ 😀", "amount": "-1234567890.99", "price": "NaN", "flag": null, "d": "infinity",
            "ts": "infinity", "tsz": "-infinity", "u": null, "j": [], "b": "\\x", "arr": [],
            "big": "-9223372036854775808", "note": "tttttttttttttttttttt",
        })
    );
    // The update of row 1: both images, of a table with replica identity full.
    assert_eq!((&rows[5]["name"], &rows[5]["amount"]), (&json!("snap 1"), &json!("1.50")));
    assert_eq!((&rows[6]["name"], &rows[6]["amount"]), (&json!("upd"), &json!("99999999.99")));
    assert_eq!((&rows[12]["note"], &rows[13]["note"]), (&json!("tx b"), &json!("tx b")));
    let (last, _) = rows_of(&batches, "public.samp").last().expect("rows");
    assert_eq!(last.schema.images, Images::Full);
}

#[test]
fn what_was_not_sent_is_unavailable_and_not_null() {
    for sample_file in ["debezium-postgres-schemas-on.ndjson", "debezium-postgres-schemas-off.ndjson"] {
        let batches = all(&FileConfig::new(sample(sample_file)));
        let rows: Vec<_> = rows_of(&batches, "public.samp_def").collect();
        let missing = |row: usize| json::unavailable(rows[row].0, rows[row].1);
        assert_eq!(missing(2), Vec::<&str>::new(), "{sample_file}");
        assert_eq!(missing(3), ["big"], "an unchanged TOAST value, {sample_file}");
        assert_eq!(cell(rows[3].0, "name", rows[3].1), "toast kept");
        assert_eq!(missing(4), ["name", "big"], "a key-only delete, {sample_file}");
        assert_eq!(missing(5), ["big"], "the key change's insert, {sample_file}");
        assert_eq!(missing(6), ["name", "big"], "{sample_file}");
        assert_eq!(rows[6].0.schema.images, Images::Key);
    }
}

#[test]
fn columns_come_and_go_with_the_schema_of_each_message() {
    let batches = all(&FileConfig::new(sample("debezium-postgres-schemas-on.ndjson")));
    let names = |row: usize| -> Vec<String> {
        let (batch, _) = rows_of(&batches, "public.samp_def").nth(row).expect("a row");
        batch.schema.columns.iter().map(|c| c.name.to_string()).collect()
    };
    assert_eq!(names(7), ["id", "name", "big"]);
    assert_eq!(names(8), ["id", "name", "big", "extra"]);
    assert_eq!(names(10), ["id", "name2", "big", "extra"]);
    assert_eq!(names(11), ["id", "name2", "big"]);
    assert_eq!(names(12), ["id", "name2", "big"]);
    let (batch, row) = rows_of(&batches, "public.samp_def").nth(8).expect("a row");
    assert_eq!(cell(batch, "extra", row), 8);
}

#[test]
fn every_message_without_a_schema_becomes_rows_of_inferred_types() {
    let batches = all(&FileConfig::new(sample("debezium-postgres-schemas-off.ndjson")));
    expect_the_stories(&batches);
    let (first, _) = rows_of(&batches, "public.samp").next().expect("rows");
    let mut expected = vec![
        ("id", ColumnType::Int64),
        ("name", ColumnType::Text),
        ("amount", ColumnType::Text),
        ("price", ColumnType::Float64),
        ("flag", ColumnType::Boolean),
        ("d", ColumnType::Int64),
        ("ts", ColumnType::Int64),
        ("tsz", ColumnType::Text),
        ("u", ColumnType::Text),
        ("j", ColumnType::Text),
        ("b", ColumnType::Text),
        ("arr", ColumnType::Json),
        ("big", ColumnType::Int64),
    ];
    assert_eq!(column_types(first), typed(&expected), "a column that was always null is not there yet");
    let (batch, row) = rows_of(&batches, "public.samp").nth(3).expect("a row");
    expected.push(("note", ColumnType::Text));
    assert_eq!(column_types(batch), typed(&expected));
    assert_eq!(
        Value::from(json::row(batch, row, |_| false)),
        json!({
            "id": 10, "name": "ünïcødé \"q\" \\ 😀", "amount": "40Fm5ZU=", "price": "NaN", "flag": null, "d": 2_146_033_979,
            "ts": "9223372036854775807", "tsz": "-infinity", "u": null, "j": "[]", "b": "", "arr": [],
            "big": "-9223372036854775808", "note": "tttttttttttttttttttt",
        })
    );
}

#[test]
fn commit_times_and_places_are_those_of_the_messages() {
    let batches = all(&FileConfig::new(sample("debezium-postgres-schemas-off.ndjson")));
    let (batch, row) = rows_of(&batches, "public.samp").nth(3).expect("row 10");
    assert_eq!(batch.commit_time(row), 1_795_397_114_999_967);
    let text = std::fs::read_to_string(sample("debezium-postgres-schemas-off.ndjson")).expect("the sample");
    let line = text.lines().nth(batch.order(row).commit() as usize - 1).expect("the line");
    assert!(line.contains(r#""op": "c""#) && line.contains("tttttttttttttttttttt"));
}
