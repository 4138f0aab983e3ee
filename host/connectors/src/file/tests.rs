use std::io::Write;

use futures::FutureExt;
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::BatchLimits;
use millrace_core::json;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::generator::{GeneratorConfig, generate_ndjson};

fn insert(id: i64) -> String {
    let source = json!({ "connector": "postgresql", "schema": "public", "table": "t", "ts_us": id });
    json!({ "op": "c", "before": null, "after": { "id": id }, "source": source }).to_string()
}

fn rows(batches: &[ChangeBatch]) -> Vec<Value> {
    batches.iter().flat_map(|b| (0..b.rows()).map(move |r| json::row(b, r, |_| false).into())).collect()
}

fn read_to_end(config: &FileConfig) -> Vec<ChangeBatch> {
    let mut source = config.build().expect("a good configuration");
    source.open(&Resume::default()).now_or_never().expect("at once").expect("opens");
    let mut cut = CutBuilder::new(BatchLimits::default());
    loop {
        let boundary = source.read(&mut cut).now_or_never().expect("at once").expect("reads");
        if matches!(boundary, Boundary::End(_)) {
            return cut.finish().expect("finishes").0;
        }
    }
}

#[test]
fn a_bad_line_is_a_reject_with_its_text_and_its_neighbours_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.ndjson");
    let text = [insert(1).as_bytes(), b"{\"op\": \"c\"", b"\xffx", insert(2).as_bytes()].join(&b"\n"[..]);
    std::fs::write(&path, text).expect("a file");
    let batches = read_to_end(&FileConfig::new(&path));
    let [good, bad] = &batches[..] else { panic!("two tables: {batches:?}") };
    assert_eq!(rows(std::slice::from_ref(good)), [json!({ "id": 1 }), json!({ "id": 2 })]);
    let file = path.to_string_lossy();
    assert_eq!(
        rows(std::slice::from_ref(bad)),
        [
            json!({ "file": file, "line": 2, "raw": "{\"op\": \"c\"", "bytes": null }),
            json!({ "file": file, "line": 3, "raw": null, "bytes": "\\xff78" }),
        ]
    );
    assert_eq!(bad.origin.source, SourceKey::new("file.bad_lines"));
    let reject = |i: usize| (bad.origin.rejects[i].change, &*bad.origin.rejects[i].code);
    assert_eq!([reject(0), reject(1)], [(0, "file.bad_line"), (1, "file.bad_line")]);
    assert!(bad.origin.rejects[0].reason.contains("t.ndjson, line 2: "), "{}", bad.origin.rejects[0].reason);
}

#[test]
fn records_and_envelopes_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.ndjson");
    let quoted = |text: &str| serde_json::to_string(text).expect("JSON");
    let envelope = insert(1);
    let with_schema = json!({ "type": "struct", "fields": [{ "type": "struct", "field": "after", "fields": [
        { "type": "int32", "field": "id", "optional": false }
    ] }] });
    let key = r#"{"id":1}"#;
    for (line, ty, is_key) in [
        (envelope.clone(), "int64", false),
        (format!(r#"{{"schema":{with_schema},"payload":{envelope}}}"#), "int32", false),
        (format!(r#"{{"topic":"t","key":{key},"value":{envelope}}}"#), "int64", true),
        (
            format!(
                r#"{{"key":{{"schema":{{}},"payload":{key}}},"value":{{"schema":{with_schema},"payload":{envelope}}}}}"#
            ),
            "int32",
            true,
        ),
        (format!(r#"{{"topic":"t","key":{},"value":{envelope}}}"#, quoted(key)), "int64", true),
        // As `kcat -J` prints it.
        (format!(r#"{{"topic":"t","offset":1,"key":{},"payload":{}}}"#, quoted(key), quoted(&envelope)), "int64", true),
    ] {
        std::fs::write(&path, &line).expect("a file");
        let batches = read_to_end(&FileConfig::new(&path));
        assert_eq!(rows(&batches), [json!({ "id": 1 })], "{line}");
        let column = &batches[0].schema.columns[0];
        assert_eq!((column.ty.to_string().as_str(), column.key), (ty, is_key), "{line}");
    }
    for nothing in [
        r#"{"topic":"t","key":{"id":1},"value":null}"#,
        r#"{"topic":"t","key":"k","payload":null}"#,
        r#"{"schema":{},"payload":null}"#,
    ] {
        std::fs::write(&path, nothing).expect("a file");
        assert!(read_to_end(&FileConfig::new(&path)).is_empty(), "{nothing}");
    }
    for bad in [
        "[1]",
        "5",
        r#"{"topic":"t","value":5}"#,
        r#"{"value":[{}]}"#,
        r#"{"topic":"t","payload":"no"}"#,
        r#"{"payload":"x"}"#,
    ] {
        std::fs::write(&path, bad).expect("a file");
        assert_eq!(&*read_to_end(&FileConfig::new(&path))[0].schema.name.table, "bad_lines", "{bad}");
    }
}

#[test]
fn key_columns_can_be_named_for_lines_without_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.ndjson");
    std::fs::write(&path, insert(1)).expect("a file");
    let keys = BTreeMap::from([("public.t".to_owned(), vec!["id".to_owned()])]);
    let batches = read_to_end(&FileConfig { keys, ..FileConfig::new(&path) });
    assert!(batches[0].schema.columns[0].key);
    assert!(!read_to_end(&FileConfig::new(&path))[0].schema.columns[0].key);
}

/// What the generator makes is read back the same: values, types where the lines have them, order within a table.
#[test]
fn generated_lines_are_read_back_as_they_were_generated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shop.ndjson");
    let config = GeneratorConfig { events: Some(3_000), customers: 160, ..GeneratorConfig::default() };
    let mut source = config.build().expect("a good configuration");
    let mut cut = CutBuilder::new(BatchLimits::default());
    while !matches!(source.read(&mut cut).now_or_never().expect("at once").expect("reads"), Boundary::End(_)) {}
    let made = cut.finish().expect("finishes").0;
    for lines in [crate::generator::Lines::Plain, crate::generator::Lines::WithSchemas] {
        let mut text = Vec::new();
        assert_eq!(generate_ndjson(&config, lines, &mut text).expect("is written"), 3_000);
        assert_eq!(text.iter().filter(|b| **b == b'\n').count(), 3_000);
        std::fs::write(&path, text).expect("a file");
        let read = read_to_end(&FileConfig::new(&path));
        for schema in source.schemas() {
            let of = |batches: &[ChangeBatch]| -> Vec<ChangeBatch> {
                batches.iter().filter(|b| b.schema.name == schema.name).cloned().collect()
            };
            let (made, read) = (of(&made), of(&read));
            let images = |batches: &[ChangeBatch]| -> Vec<&'static str> {
                batches.iter().flat_map(|b| b.change_types.iter().map(|t| t.name())).collect()
            };
            assert_eq!(images(&made), images(&read));
            if lines == crate::generator::Lines::WithSchemas {
                assert_eq!(rows(&made), rows(&read));
                let form = |s: &TableSchema| {
                    s.columns.iter().map(|c| (c.name.clone(), c.ty.clone(), c.nullable, c.key)).collect::<Vec<_>>()
                };
                assert_eq!((form(&schema), schema.images), (form(&read[0].schema), read[0].schema.images));
            } else {
                let ids = |batches: &[ChangeBatch]| {
                    rows(batches)
                        .iter()
                        .map(|r| (r["id"].clone(), r.get("status").cloned(), r.get("email").cloned()))
                        .collect::<Vec<_>>()
                };
                assert_eq!(ids(&made), ids(&read));
                assert!(read.iter().all(|b| b.schema.columns.iter().any(|c| &*c.name == "id" && c.key)));
            }
        }
    }
}

#[tokio::test]
async fn a_followed_file_gives_lines_as_they_are_completed_and_then_the_next_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut file = std::fs::File::create(folder.path().join("1.ndjson")).expect("a file");
    let config = FileConfig { follow: true, ..FileConfig::new(folder.path().join("*.ndjson")) };
    let mut source = config.build().expect("a good configuration");
    assert_eq!(source.open(&Resume::default()).await.expect_err("no line yet").code, "file.empty");
    let first = insert(1);
    write!(file, "{first}\n{}", &first[..10]).expect("is written");
    source.open(&Resume::default()).await.expect("opens");
    let mut cut = CutBuilder::new(BatchLimits::default());
    assert!(matches!(source.read(&mut cut).await.expect("reads"), Boundary::Commit(_)));
    assert_eq!(cut.rows(), 1);
    assert!(source.read(&mut cut).now_or_never().is_none(), "half a line is none");
    writeln!(file, "{}", &first[10..]).expect("is written");
    assert!(matches!(source.read(&mut cut).await.expect("reads"), Boundary::Commit(_)));
    assert_eq!(cut.rows(), 2);
    std::fs::write(folder.path().join("2.ndjson"), insert(3) + "\n").expect("a file");
    assert!(matches!(source.read(&mut cut).await.expect("reads"), Boundary::Commit(_)));
    let batches = cut.finish().expect("finishes").0;
    assert_eq!(rows(&batches), [json!({ "id": 1 }), json!({ "id": 1 }), json!({ "id": 3 })]);
    std::fs::write(folder.path().join("2.ndjson"), "").expect("a file");
    assert_eq!(source.read(&mut cut).await.expect_err("is shorter").code, "position.gap");
}

#[test]
fn what_is_not_there_or_not_the_same_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |config: FileConfig, resume: &Resume| {
        config.build().and_then(|mut s| s.open(resume).now_or_never().expect("at once")).map_err(|e| e.code)
    };
    let path = folder.path().join("t.ndjson");
    assert_eq!(open(FileConfig::new(&path), &Resume::default()).unwrap_err(), "file.not_found");
    assert_eq!(open(FileConfig::new(folder.path().join("*.x")), &Resume::default()).unwrap_err(), "file.not_found");
    std::fs::write(&path, format!("{}\n{}\n", insert(1), insert(2))).expect("a file");
    let opened = open(FileConfig::new(&path), &Resume::default()).expect("opens");
    let mut source = FileConfig::new(&path).build().expect("a good configuration");
    source.open(&Resume::default()).now_or_never().expect("at once").expect("opens");
    let mut cut = CutBuilder::new(BatchLimits::default());
    let Boundary::End(end) = source.read(&mut cut).now_or_never().expect("at once").expect("reads") else {
        panic!("an end")
    };
    let resume = Resume { position: Some(end), incarnation: Some(opened.incarnation), ..Resume::default() };
    open(FileConfig::new(&path), &resume).expect("opens at its end");
    std::fs::write(&path, format!("{}\n", insert(1))).expect("a file");
    assert_eq!(open(FileConfig::new(&path), &resume).unwrap_err(), "position.gap");
    std::fs::write(&path, format!("{}\n{}\n", insert(7), insert(2))).expect("a file");
    assert_eq!(open(FileConfig::new(&path), &resume).unwrap_err(), "position.gap");
    let zstd = FileConfig { compression: Compression::Zstd, follow: true, ..FileConfig::new(&path) };
    assert_eq!(zstd.build().unwrap_err().code, "file.follow");
    assert!(serde_json::from_str::<FileConfig>(r#"{"path": "a", "folow": true}"#).is_err(), "an unknown field");
}

#[test]
fn lines_and_records_are_raw_messages_for_a_parser() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.txt");
    std::fs::write(&path, b"1,a\r\n\n2,\xff\n").expect("a file");
    let batches = read_to_end(&FileConfig { format: Format::Lines, ..FileConfig::new(&path) });
    let file = path.to_string_lossy();
    let line = |line: u64, value: &str| json!({ "file": file, "line": line, "value": value });
    assert_eq!(rows(&batches), [line(1, "\\x312c61"), line(3, "\\x322cff")]);
    assert_eq!(batches[0].origin.source, SourceKey::new("file.lines"));

    let text = [
        r#"{"topic":"a","partition":1,"offset":7,"timestamp":1000,"headers":[],"key":{"id":1},"value":"x"}"#,
        r#"{"topic":"a","key":"k","payload":null}"#,
        r#"{"key":"k"}"#,
    ];
    std::fs::write(&path, text.join("\n")).expect("a file");
    let batches = read_to_end(&FileConfig { format: Format::Records, ..FileConfig::new(&path) });
    let [records, bad] = &batches[..] else { panic!("two tables: {batches:?}") };
    assert_eq!(
        rows(std::slice::from_ref(records)),
        [
            json!({
                "topic": "a", "key": "\\x7b226964223a317d", "value": "\\x78", "partition": 1, "offset": 7,
                "timestamp": "1970-01-01T00:00:01Z", "headers": [],
            }),
            json!({
                "topic": "a", "key": "\\x6b", "value": null, "partition": null, "offset": null, "timestamp": null, "headers": null,
            }),
        ]
    );
    assert_eq!((&*records.schema.name.table, records.commit_time(0)), ("records", 1_000_000));
    assert_eq!(&*bad.schema.name.table, "bad_lines");
}

#[test]
fn an_empty_file_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.ndjson");
    std::fs::write(&path, "").expect("a file");
    assert!(read_to_end(&FileConfig::new(&path)).is_empty());
}

proptest! {
    /// Every line is a row, a message that carries none, or a bad line: none is lost, whatever bytes it has.
    #[test]
    fn no_line_is_lost_whatever_it_holds(lines in prop::collection::vec(any_line(), 0..20)) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.ndjson");
        std::fs::write(&path, lines.iter().flat_map(|l| [&l[..], b"\n"].concat()).collect::<Vec<u8>>()).expect("a file");
        let blank = |line: &&Vec<u8>| line.iter().all(u8::is_ascii_whitespace);
        let ignored = |line: &&Vec<u8>| {
            let text = std::str::from_utf8(line).unwrap_or("?");
            matches!(parse_line(text), Ok(Line::Message(Message::Ignored(_))))
        };
        let nothing = lines.iter().filter(|l| blank(l) || ignored(l)).count();
        let changes: usize = read_to_end(&FileConfig::new(&path)).iter().map(|b| b.origin.orders.len()).sum();
        prop_assert_eq!(changes + nothing, lines.len());
    }
}

/// Lines without a line feed: bytes, texts, JSON, and changes that are whole or cut short.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<i64>(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(id, at, whole)| {
        let text = insert(id).into_bytes();
        if whole { text } else { text[..at.index(text.len())].to_vec() }
    });
    prop_oneof![
        prop::collection::vec(any::<u8>().prop_filter("a line feed ends the line", |b| *b != b'\n'), 0..30),
        "[^\n]{0,30}".prop_map(String::into_bytes),
        Just(br#"{"topic":"t","key":{"id":1},"value":null}"#.to_vec()),
        Just(br#"{"ts_ms":1}"#.to_vec()),
        Just(br#"{"op":"c","after":{"a":1}}"#.to_vec()),
        change,
    ]
}

/// CPU time of this thread (Linux), which holds on a busy machine.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// Not a test but a measurement: `cargo test --release -p millrace-connectors -- --ignored --nocapture cost_of_a_line`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shop.ndjson");
    let config = GeneratorConfig { events: Some(200_000), ..GeneratorConfig::default() };
    for lines in [crate::generator::Lines::Plain, crate::generator::Lines::WithSchemas] {
        let mut text = Vec::new();
        generate_ndjson(&config, lines, &mut text).expect("is written");
        std::fs::write(&path, &text).expect("a file");
        let start = cpu_nanos();
        let images: usize = read_to_end(&FileConfig::new(&path)).iter().map(ChangeBatch::rows).sum();
        let used = cpu_nanos() - start;
        let each = |n: usize| used as f64 / n as f64;
        println!(
            "{lines:?}: {} bytes a line, {:.0} ns of CPU a line, {:.0} ns an image",
            text.len() / 200_000,
            each(200_000),
            each(images)
        );
    }
}
