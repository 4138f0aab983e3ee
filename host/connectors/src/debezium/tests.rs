use std::collections::BTreeMap;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::cut::{BatchLimits, CutBuilder};
use millrace_core::json;
use millrace_core::position::Order;
use millrace_core::schema::{ColumnType, Images};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Decodes messages, each (key, value), at the orders 1, 2, ...
fn decode(messages: &[(Option<&str>, &str)]) -> Vec<ChangeBatch> {
    let mut decoder = Decoder::default();
    let mut cut = CutBuilder::new(BatchLimits::default());
    for (order, (key, value)) in (1..).zip(messages) {
        let Message::Change(envelope) = parse(*key, Some(value)).expect("an envelope") else {
            panic!("no change: {value}")
        };
        decoder.append(&envelope, Order::new(order, 1), &mut cut).expect("is appended");
    }
    cut.finish().expect("finishes").0
}

fn envelope(op: &str, before: &Value, after: &Value) -> String {
    let source = json!({ "connector": "postgresql", "schema": "public", "table": "t", "ts_us": 7 });
    json!({ "op": op, "before": before, "after": after, "source": source }).to_string()
}

fn types(batch: &ChangeBatch) -> Vec<(&str, ColumnType)> {
    batch.schema.columns.iter().map(|c| (&*c.name, c.ty.clone())).collect()
}

fn row(batch: &ChangeBatch, row: usize) -> Value {
    json::row(batch, row, |_| false).into()
}

/// One column of this Connect type, decoded from each of the values.
fn with_schema(field: &Value, values: &[Value]) -> Vec<ChangeBatch> {
    let mut field = field.clone();
    field["field"] = "x".into();
    field["optional"] = true.into();
    let after = json!({ "type": "struct", "optional": true, "field": "after", "fields": [field] });
    let schema = json!({ "type": "struct", "fields": [after] });
    let texts: Vec<String> = values
        .iter()
        .map(|v| {
            let payload: Value = serde_json::from_str(&envelope("c", &Value::Null, &json!({ "x": v }))).expect("JSON");
            json!({ "schema": schema, "payload": payload }).to_string()
        })
        .collect();
    decode(&texts.iter().map(|t| (None, t.as_str())).collect::<Vec<_>>())
}

#[test]
fn each_logical_type_becomes_its_column_type_and_value() {
    let debezium = |ty: &str, name: &str| json!({ "type": ty, "name": format!("io.debezium.{name}") });
    let connect = |ty: &str, name: &str| json!({ "type": ty, "name": format!("org.apache.kafka.connect.data.{name}") });
    let decimal = |scale: &str, precision: &str| {
        let parameters = json!({ "scale": scale, "connect.decimal.precision": precision });
        json!({ "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": parameters })
    };
    let small_decimal = ColumnType::Decimal { precision: 10, scale: 2 };
    for (field, ty, value, shown) in [
        (json!({ "type": "int8" }), ColumnType::Int8, json!(-5), json!(-5)),
        (json!({ "type": "int16" }), ColumnType::Int16, json!(300), json!(300)),
        (json!({ "type": "int64" }), ColumnType::Int64, json!("42"), json!(42)),
        (json!({ "type": "float" }), ColumnType::Float32, json!(0.5), json!(0.5)),
        (json!({ "type": "double" }), ColumnType::Float64, json!("-Infinity"), json!("-Infinity")),
        (json!({ "type": "bytes" }), ColumnType::Binary, json!("AP8="), json!("\\x00ff")),
        (json!({ "type": "map" }), ColumnType::Json, json!({ "a": 1 }), json!({ "a": 1 })),
        (decimal("2", "10"), small_decimal.clone(), json!("AJY="), json!("1.50")),
        (decimal("2", "10"), small_decimal.clone(), json!(-1.5), json!("-1.50")),
        (decimal("2", "10"), small_decimal, json!("12.5"), json!("12.50")),
        (decimal("3", "60"), ColumnType::BigDecimal, json!("AQ=="), json!("0.001")),
        (
            debezium("struct", "data.VariableScaleDecimal"),
            ColumnType::BigDecimal,
            json!({ "scale": 1, "value": "/w==" }),
            json!("-0.1"),
        ),
        (debezium("int32", "time.Date"), ColumnType::Date, json!(-2_440_589), json!("-infinity")),
        (connect("int32", "Date"), ColumnType::Date, json!(20_455), json!("2026-01-02")),
        (debezium("string", "time.IsoDate"), ColumnType::Date, json!("2026-01-02Z"), json!("2026-01-02")),
        (debezium("int32", "time.Time"), ColumnType::Time, json!(1_500), json!("00:00:01.500000")),
        (debezium("int64", "time.MicroTime"), ColumnType::Time, json!(86_400_000_000_i64), json!("24:00:00")),
        (debezium("int64", "time.NanoTime"), ColumnType::Time, json!(1_999), json!("00:00:00.000001")),
        (debezium("string", "time.IsoTime"), ColumnType::Time, json!("12:34:56.5Z"), json!("12:34:56.500000")),
        (connect("int64", "Timestamp"), ColumnType::Timestamp, json!(-1), json!("1969-12-31T23:59:59.999000")),
        (
            debezium("int64", "time.NanoTimestamp"),
            ColumnType::Timestamp,
            json!(-1),
            json!("1969-12-31T23:59:59.999999"),
        ),
        (debezium("int64", "time.MicroTimestamp"), ColumnType::Timestamp, json!(i64::MIN), json!("-infinity")),
        (
            debezium("string", "time.IsoTimestamp"),
            ColumnType::Timestamp,
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:05"),
        ),
        (
            debezium("string", "time.ZonedTimestamp"),
            ColumnType::TimestampTz,
            json!("2026-01-02T03:04:05+01:00"),
            json!("2026-01-02T02:04:05Z"),
        ),
        (debezium("string", "time.ZonedTimestamp"), ColumnType::TimestampTz, json!("infinity"), json!("infinity")),
        (debezium("string", "time.Interval"), ColumnType::Other("interval".into()), json!("P1D"), json!("P1D")),
        (debezium("string", "data.Json"), ColumnType::Json, json!("{\"a\": 1}"), json!({ "a": 1 })),
        (debezium("string", "data.Enum"), ColumnType::Text, json!("red"), json!("red")),
        (
            debezium("string", "data.Uuid"),
            ColumnType::Uuid,
            json!("0123456789abcdef0123456789ABCDEF"),
            json!("01234567-89ab-cdef-0123-456789abcdef"),
        ),
    ] {
        let batches = with_schema(&field, &[value]);
        assert_eq!(types(&batches[0]), [("x", ty)], "{field}");
        assert_eq!(row(&batches[0], 0), json!({ "x": shown }), "{field}");
        assert!(batches[0].origin.rejects.is_empty(), "{field}: {:?}", batches[0].origin.rejects);
    }
}

#[test]
fn a_value_that_is_none_of_its_type_is_null_and_rejects_its_change() {
    let debezium = |ty: &str, name: &str| json!({ "type": ty, "name": format!("io.debezium.{name}") });
    for (field, value) in [
        (json!({ "type": "int16" }), json!(40_000)),
        (json!({ "type": "boolean" }), json!("yes")),
        (json!({ "type": "bytes" }), json!("%%")),
        (debezium("string", "data.Uuid"), json!("1234")),
        (debezium("string", "time.ZonedTimestamp"), json!("yesterday")),
        (debezium("int64", "time.MicroTime"), json!(-1)),
        (
            json!({ "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": { "scale": "0", "connect.decimal.precision": "5" } }),
            json!("AQAAAAAAAAAAAAAAAAAAAAA="),
        ),
    ] {
        let batches = with_schema(&field, &[json!(null), value]);
        let [batch] = &batches[..] else { panic!("{field}: one batch") };
        let reject = &batch.origin.rejects[0];
        assert_eq!(
            (reject.change, &*reject.code, reject.column.as_deref()),
            (1, "debezium.bad_value", Some("x")),
            "{field}"
        );
        assert_eq!(row(batch, 1), json!({ "x": null }));
    }
}

#[test]
fn inferred_types_widen_to_what_holds_every_value() {
    for (values, ty, shown) in [
        (vec![json!(1), json!(2.5)], ColumnType::Float64, json!(2.5)),
        (vec![json!(1.5), json!(2)], ColumnType::Float64, json!(2.0)),
        (vec![json!(1.5), json!(9_007_199_254_740_993_i64)], ColumnType::Text, json!("9007199254740993")),
        (vec![json!(1.5), json!("NaN")], ColumnType::Float64, json!("NaN")),
        (vec![json!(1), json!("a")], ColumnType::Text, json!("a")),
        (vec![json!("a"), json!(true)], ColumnType::Text, json!("true")),
        (vec![json!("a"), json!([1])], ColumnType::Json, json!([1])),
        (vec![json!({ "a": 1 }), json!("a")], ColumnType::Json, json!("a")),
        (vec![json!(1), json!(18_446_744_073_709_551_615_u64)], ColumnType::Text, json!("18446744073709551615")),
        (vec![json!(true), json!(null)], ColumnType::Boolean, json!(null)),
    ] {
        let texts: Vec<String> = values.iter().map(|v| envelope("c", &Value::Null, &json!({ "x": v }))).collect();
        let batches = decode(&texts.iter().map(|t| (None, t.as_str())).collect::<Vec<_>>());
        let last = batches.last().expect("a batch");
        assert_eq!(types(last), [("x", ty)], "{values:?}");
        assert_eq!(row(last, last.rows() - 1), json!({ "x": shown }), "{values:?}");
    }
}

#[test]
fn a_placeholder_says_nothing_of_a_columns_type() {
    let first = envelope("c", &Value::Null, &json!({ "id": 1, "x": UNAVAILABLE }));
    let second = envelope("u", &Value::Null, &json!({ "id": 1, "x": 5 }));
    let third = envelope("u", &Value::Null, &json!({ "id": 1, "x": UNAVAILABLE }));
    let batches =
        decode(&[(Some(r#"{"id":1}"#), &first), (Some(r#"{"id":1}"#), &second), (Some(r#"{"id":1}"#), &third)]);
    assert_eq!(types(&batches[0]), [("id", ColumnType::Int64)]);
    assert_eq!(types(&batches[1]), [("id", ColumnType::Int64), ("x", ColumnType::Int64)]);
    assert_eq!(json::unavailable(&batches[1], 1), ["x"]);
}

#[test]
fn a_delete_is_key_only_until_the_table_shows_a_whole_preimage() {
    let key = Some(r#"{"id":1}"#);
    let insert = envelope("c", &Value::Null, &json!({ "id": 1, "x": "a" }));
    let bare = envelope("d", &json!({ "id": 1, "x": null }), &Value::Null);
    let whole = envelope("d", &json!({ "id": 1, "x": "a" }), &Value::Null);
    let batches = decode(&[(key, &insert), (key, &bare), (key, &whole), (key, &bare)]);
    assert_eq!((batches.len(), batches[0].schema.images, batches[1].schema.images), (2, Images::Key, Images::Full));
    assert_eq!(json::unavailable(&batches[0], 1), ["x"]);
    assert_eq!(row(&batches[1], 0), json!({ "id": 1, "x": "a" }));
    assert_eq!(row(&batches[1], 1), json!({ "id": 1, "x": null }), "a NULL, in a table with whole preimages");
}

#[test]
fn what_is_known_of_the_tables_survives_as_text() {
    let mut decoder = Decoder::default();
    let mut cut = CutBuilder::new(BatchLimits::default());
    let texts = [json!({ "x": 1 }), json!({ "x": "a", "y": 2.5 })].map(|after| envelope("c", &Value::Null, &after));
    for (order, text) in (1..).zip(&texts) {
        let Ok(Message::Change(envelope)) = parse(None, Some(text)) else { panic!("a change") };
        decoder.append(&envelope, Order::new(order, 1), &mut cut).expect("is appended");
    }
    let state = decoder.state().expect("a state");
    assert!(std::sync::Arc::ptr_eq(&state, &decoder.state().expect("a state")), "nothing is written anew");
    let mut other = Decoder::default();
    other.restore(&state).expect("is restored");
    assert_eq!(other.state().expect("a state"), state);
    let text = envelope("c", &Value::Null, &json!({ "x": 7 }));
    let Ok(Message::Change(envelope)) = parse(None, Some(&text)) else { panic!("a change") };
    let mut cut = CutBuilder::new(BatchLimits::default());
    other.append(&envelope, Order::new(3, 1), &mut cut).expect("is appended");
    let batches = cut.finish().expect("finishes").0;
    assert_eq!(types(&batches[0]), [("x", ColumnType::Text), ("y", ColumnType::Float64)]);
    assert_eq!(Decoder::default().restore("[").unwrap_err().code, "position.token");
}

#[test]
fn mysql_rows_are_of_their_database_and_keep_their_nulls() {
    let source = json!({ "connector": "mysql", "db": "shop", "table": "t", "ts_ms": 5 });
    let text =
        json!({ "op": "d", "before": { "id": 1, "x": null, "y": 1 }, "after": null, "source": source }).to_string();
    let batches = decode(&[(Some(r#"{"id":1}"#), &text)]);
    assert_eq!(batches[0].schema.name.to_string(), "shop.t");
    assert_eq!(batches[0].commit_time(0), 5_000);
    assert_eq!(row(&batches[0], 0), json!({ "id": 1, "y": 1 }));
    assert_eq!(json::unavailable(&batches[0], 0), Vec::<&str>::new());
}

#[test]
fn mongodb_documents_stay_whole() {
    let source = json!({ "connector": "mongodb", "db": "shop", "collection": "carts", "ts_ms": 5 });
    let document = r#"{"_id": {"$oid": "64"}, "total": 5}"#;
    let message = |op: &str, before: Value, after: Value| {
        json!({ "op": op, "before": before, "after": after, "source": source }).to_string()
    };
    let key = Some(r#"{"id": "{\"$oid\": \"64\"}"}"#);
    let insert = message("c", Value::Null, document.into());
    let update = message("u", Value::Null, Value::Null);
    let delete = message("d", Value::Null, Value::Null);
    let replace = message("u", document.into(), document.into());
    let batches = decode(&[(key, &insert), (key, &update), (key, &delete), (key, &replace)]);
    let id = json!({ "$oid": "64" });
    assert_eq!(types(&batches[0]), [("_id", ColumnType::Json), ("document", ColumnType::Json)]);
    assert_eq!(row(&batches[0], 0), json!({ "_id": id, "document": { "_id": id, "total": 5 } }));
    for image in [1, 2] {
        assert_eq!(row(&batches[0], image), json!({ "_id": id }));
        assert_eq!(json::unavailable(&batches[0], image), ["document"]);
    }
    assert_eq!(batches[1].change_types, [ChangeType::UpdatePreimage, ChangeType::UpdatePostimage]);
}

#[test]
fn messages_without_a_row_are_told_apart() {
    for (value, ignored) in [
        ("null", Ignored::Tombstone),
        (r#"{"schema":null,"payload":null}"#, Ignored::Heartbeat),
        (r#"{"ts_ms":5}"#, Ignored::Heartbeat),
        (r#"{"status":"BEGIN","id":"1","ts_ms":5}"#, Ignored::Transaction),
        (r#"{"source":{},"ddl":"create table","databaseName":"d","ts_ms":5}"#, Ignored::SchemaChange),
        (r#"{"op":"m","source":{"schema":"","table":""}}"#, Ignored::LogicalMessage),
    ] {
        match parse(None, Some(value)) {
            Ok(Message::Ignored(found)) if found == ignored => {}
            Err(_) if value.contains("payload") => {}
            other => panic!("{value}: {other:?}"),
        }
    }
    assert!(matches!(parse(None, None), Ok(Message::Ignored(Ignored::Tombstone))));
    for wrong in [
        "",
        "{",
        "[]",
        "5",
        "{}",
        r#"{"op":"c"}"#,
        r#"{"op":"z","source":{"table":"t"}}"#,
        r#"{"op":"c","source":{"schema":"s"}}"#,
    ] {
        assert!(parse(None, Some(wrong)).is_err(), "{wrong}");
    }
    let source = json!({ "connector": "postgresql", "schema": "s", "table": "t" });
    for wrong in [
        json!({ "op": "c", "source": source }),
        json!({ "op": "u", "before": {}, "source": source }),
        json!({ "op": "d", "source": source }),
        json!({ "op": "c", "after": [1], "source": source }),
    ] {
        let text = wrong.to_string();
        let Ok(Message::Change(envelope)) = parse(None, Some(&text)) else { panic!("{text}") };
        let mut cut = CutBuilder::new(BatchLimits::default());
        let failed = Decoder::new(BTreeMap::new()).append(&envelope, Order::new(1, 1), &mut cut);
        assert!(matches!(failed, Err(Failure::Message(_))), "{text}");
        assert_eq!(cut.rows(), 0, "nothing was appended");
    }
}

#[test]
fn rows_whose_field_names_are_data_do_not_grow_a_table_without_end() {
    let mut decoder = Decoder::default();
    let mut cut = CutBuilder::new(BatchLimits::default());
    let fields =
        |from: usize| (from..from + 2_000).map(|i| (format!("c{i}"), json!(1))).collect::<serde_json::Map<_, _>>();
    let texts = [0, 2_000, 4_000, 100].map(|from| envelope("c", &Value::Null, &fields(from).into()));
    let fits: Vec<bool> = (1..)
        .zip(&texts)
        .map(|(order, text)| {
            let Ok(Message::Change(envelope)) = parse(None, Some(text)) else { panic!("a change") };
            decoder.append(&envelope, Order::new(order, 1), &mut cut).is_ok()
        })
        .collect();
    assert_eq!(fits, [true, true, false, true]);
}

/// JSON values as they may come, placeholders and odd strings among them.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[A-Za-z0-9+/]{0,24}={0,2}".prop_map(Value::from),
        Just(UNAVAILABLE.into()),
        Just("infinity".into()),
        Just("2026-02-30T25:00:00Z".into()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-e]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_field() -> impl Strategy<Value = Value> {
    let types = [
        "int8", "int16", "int32", "int64", "float", "double", "boolean", "string", "bytes", "struct", "array", "map",
        "odd",
    ];
    let names = [
        "io.debezium.time.Date",
        "io.debezium.time.MicroTime",
        "io.debezium.time.Timestamp",
        "io.debezium.time.NanoTimestamp",
        "io.debezium.time.ZonedTimestamp",
        "io.debezium.time.IsoDate",
        "io.debezium.data.Uuid",
        "io.debezium.data.Json",
        "io.debezium.data.VariableScaleDecimal",
        "org.apache.kafka.connect.data.Decimal",
        "org.apache.kafka.connect.data.Time",
        "other",
    ];
    (
        prop::sample::select(types.to_vec()),
        prop::option::of(prop::sample::select(names.to_vec())),
        any::<i16>(),
        any::<u8>(),
    )
        .prop_map(|(ty, name, scale, precision)| {
            let parameters = json!({ "scale": scale.to_string(), "connect.decimal.precision": precision.to_string() });
            json!({ "type": ty, "name": name, "field": "x", "optional": true, "parameters": parameters })
        })
}

fn feed(decoder: &mut Decoder, messages: &[String]) {
    let mut cut = CutBuilder::new(BatchLimits { rows: 3, bytes: 1 << 20 });
    for (order, text) in (1..).zip(messages) {
        if let Ok(Message::Change(envelope)) = parse(Some(text), Some(text)) {
            match decoder.append(&envelope, Order::new(order, 1), &mut cut) {
                Ok(()) | Err(Failure::Message(_)) => {}
                Err(Failure::Engine(error)) => panic!("{error}"),
            }
        }
    }
    for batch in cut.finish().expect("finishes").0 {
        batch.check().expect("fits its schema");
    }
    let state = decoder.state().expect("a state");
    decoder.restore(&state).expect("its own state");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}", key in prop::option::of(".{0,40}")) {
        // Whatever the answer is: it is one.
        let answer = parse(key.as_deref(), Some(&text));
        prop_assert!(answer.is_ok() || answer.is_err());
    }

    #[test]
    fn arbitrary_rows_never_panic_and_always_fit_their_schema(
        rows in prop::collection::vec((prop::sample::select(vec!["c", "u", "d", "r", "t"]), any_json(), any_json(), any::<bool>()), 0..12),
    ) {
        let connector = |mongo: bool| if mongo { "mongodb" } else { "postgresql" };
        let messages: Vec<String> = rows
            .iter()
            .map(|(op, before, after, mongo)| {
                let source = json!({ "connector": connector(*mongo), "schema": "s", "table": if *mongo { "m" } else { "t" } });
                json!({ "op": op, "before": before, "after": after, "source": source }).to_string()
            })
            .collect();
        feed(&mut Decoder::default(), &messages);
    }

    #[test]
    fn arbitrary_values_under_arbitrary_schemas_never_panic(
        rows in prop::collection::vec((any_field(), any_json()), 1..8),
    ) {
        let source = json!({ "connector": "postgresql", "schema": "s", "table": "t" });
        let messages: Vec<String> = rows
            .iter()
            .map(|(field, value)| {
                let after = json!({ "type": "struct", "field": "after", "fields": [field] });
                let payload = json!({ "op": "c", "after": { "x": value }, "source": source });
                json!({ "schema": { "type": "struct", "fields": [after] }, "payload": payload }).to_string()
            })
            .collect();
        feed(&mut Decoder::default(), &messages);
    }
}
