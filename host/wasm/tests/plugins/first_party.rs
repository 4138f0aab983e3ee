//! The plugins that come with Millrace, in the sandbox.

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::stage::{Grants, StageOutput};
use serde_json::{Value as Json, json};

use crate::fixture::{Note, grants, inserts, lines, load, mixed, names, notes, rejects};

async fn apply(name: &str, config: Json, grants: Grants, batch: &ChangeBatch) -> StageOutput {
    let mut stage = load(name, config, grants, Json::Null).await.expect("loaded");
    stage.apply(batch).await.expect("applied")
}

fn crypto(grants: Grants) -> Grants {
    Grants { crypto: names(&["pii"]), ..grants }
}

#[tokio::test]
async fn mask_hashes_in_the_host_and_cuts_in_the_sandbox() {
    let granted = crypto(grants(&["note", "other"], &["note", "other"]));
    let batch = inserts(&["+49 170 1234567", "x"]);
    let output = apply("mask", json!({ "note": "last4", "other": "hash" }), granted, &batch).await;
    // printf 'other 1' | openssl dgst -sha256 -hmac secret
    let lines = lines(&output);
    assert!(lines[0].contains(r#""note":"4567""#) && lines[1].contains(r#""note":"""#), "{lines:?}");
    let hashes: Vec<&str> = lines.iter().map(|l| l.split(r#""other":""#).nth(1).expect("other")).collect();
    assert_eq!(&hashes[0][..64], "ffa1c2573cac6408b8a52190ce58666ab51e334c61f34b7fc31e9546b773abc3", "{hashes:?}");
}

#[tokio::test]
async fn a_key_that_is_not_granted_can_not_be_used() {
    let granted = grants(&["note"], &["note"]);
    let mut stage = load("mask", json!({ "note": "hash" }), granted, Json::Null).await.expect("loaded");
    let error = stage.apply(&inserts(&["a"])).await.expect_err("not granted");
    assert_eq!(error.code, "plugin.invalid_config");
    assert!(error.message.contains("pii") && error.message.contains("plugin mask@"), "{error}");
}

#[tokio::test]
async fn rules_refuse_changes_and_nothing_else() {
    let batch = notes(&[
        vec![(ChangeType::Insert, 1, "good".into())],
        vec![(ChangeType::Insert, 2, "bad".into())],
        vec![(ChangeType::UpdatePreimage, 3, "bad".into()), (ChangeType::UpdatePostimage, 3, "good".into())],
        vec![(ChangeType::UpdatePreimage, 4, "good".into()), (ChangeType::UpdatePostimage, 4, "bad".into())],
        vec![(ChangeType::Delete, 5, "bad".into())],
        vec![(ChangeType::UpdatePostimage, 6, Note::NotSent)],
        vec![(ChangeType::Insert, 7, Note::Null)],
    ]);
    let config = json!({ "notes": { "note": { "enum": ["good"], "required": true } } });
    let output = apply("rules", config, grants(&["note"], &[]), &batch).await;
    assert_eq!(rejects(&output), [1, 3, 6].map(|c| (c, "rule.violated".to_string())));
    let kept: Vec<_> = output.batches.iter().flat_map(|b| b.changes.clone()).collect();
    assert_eq!(kept, [0, 2, 2, 4, 5]);
    assert!(output.rejects[0].reason.contains("must be one of good"), "{:?}", output.rejects[0]);
}

#[tokio::test]
async fn a_filter_is_a_predicate_on_images() {
    let batch = notes(&[
        vec![(ChangeType::UpdatePreimage, 1, "test".into()), (ChangeType::UpdatePostimage, 1, "real".into())],
        vec![(ChangeType::UpdatePreimage, 2, "real".into()), (ChangeType::UpdatePostimage, 2, "test".into())],
        vec![(ChangeType::UpdatePostimage, 3, "test".into())],
        vec![(ChangeType::Delete, 4, Note::NotSent)],
        vec![(ChangeType::Insert, 5, "test".into())],
    ]);
    let keep = json!({ "note": { "not_in": ["test"] } });
    let config = json!({ "keep": keep, "rename": { "other": "more" }, "rename_table": "kept" });
    let output = apply("cast-rename", config, grants(&["note"], &["other"]), &batch).await;
    assert_eq!(
        short(&output),
        ["public.kept insert 1", "public.kept delete 2", "public.kept delete 3", "public.kept delete 4"]
    );
    assert!(lines(&output)[0].contains(r#""more":"other 1""#));
    assert_eq!(output.dropped, 3);
    for config in [json!({ "keep": keep }), json!({ "drop": { "note": { "regex": "^t" } } })] {
        let output = apply("filter", config, grants(&["note"], &[]), &batch).await;
        let kept = ["insert 1", "delete 2", "delete 3", "delete 4"].map(|line| format!("public.notes {line}"));
        assert_eq!(short(&output), kept);
        assert_eq!(output.dropped, 3);
    }
}

/// Table, change type and number of each line.
fn short(output: &StageOutput) -> Vec<String> {
    lines(output).iter().map(|l| l.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn an_update_that_changes_its_route_leaves_one_table_and_enters_the_other() {
    let batch = notes(&[
        vec![(ChangeType::UpdatePreimage, 1, "eu".into()), (ChangeType::UpdatePostimage, 1, "us".into())],
        vec![(ChangeType::Insert, 2, "../eu".into())],
        vec![(ChangeType::Insert, 3, Note::Null)],
    ]);
    let output = apply("route", json!({ "to": "{table}_{note}" }), grants(&["note"], &[]), &batch).await;
    let mut lines = short(&output);
    lines.sort();
    assert_eq!(lines, ["public.notes insert 3", "public.notes_eu delete 1", "public.notes_us insert 1"]);
    assert_eq!(rejects(&output), [(1, "route.name".to_string())]);
}

#[tokio::test]
async fn json_becomes_columns() {
    let batch = notes(&[
        vec![(ChangeType::Insert, 1, r#"{"a":{"b":"x"},"n":7}"#.into())],
        vec![(ChangeType::UpdatePostimage, 2, Note::NotSent)],
        vec![(ChangeType::Insert, 3, r#"{"n":"seven"}"#.into())],
    ]);
    let config = json!({ "columns": { "note": { "a.b": "text", "n": "int32" } }, "drop": true });
    let output = apply("flatten", config, grants(&["note"], &["note", "a_b", "n"]), &batch).await;
    let lines = lines(&output);
    assert!(lines[0].contains(r#""a_b":"x""#) && lines[0].contains(r#""n":7"#) && !lines[0].contains(r#""note":"#));
    assert!(!lines[1].contains("a_b"), "not sent stays so: {lines:?}");
    assert_eq!(rejects(&output), [(2, "flatten.type".to_string())]);
}

#[tokio::test]
async fn rows_get_what_the_event_offers() {
    let config = json!({ "op": "op", "at": "commit_time", "place": "position", "shop": { "value": "eu" } });
    let batch = notes(&[vec![(ChangeType::Insert, 1, "a".into())], vec![(ChangeType::Delete, 2, Note::NotSent)]]);
    let output = apply("insert-field", config, grants(&[], &["op", "at", "place", "shop"]), &batch).await;
    let lines = lines(&output);
    assert!(lines[0].contains(r#""op":"insert""#) && lines[1].contains(r#""op":"delete""#), "{lines:?}");
    assert!(
        lines[0].contains(r#""at":"1970-01-01T00:00:00.001000Z""#) && lines[0].contains(r#""shop":"eu""#),
        "{lines:?}"
    );
    assert!(lines[1].contains(&format!(r#""place":"{}""#, batch.order(1).to_sortable())), "{lines:?}");
}

#[tokio::test]
async fn text_becomes_a_point_in_time() {
    let config = json!({ "note": { "from": "unix_s", "truncate": "day" } });
    let output = apply("timestamp", config, grants(&["note"], &["note"]), &inserts(&["86401", "soon"])).await;
    assert!(lines(&output)[0].contains(r#""note":"1970-01-02T00:00:00Z""#), "{:?}", lines(&output));
    assert_eq!(rejects(&output), [(1, "timestamp.invalid".to_string())]);
}

#[tokio::test]
async fn rows_are_routed_and_cast_by_value() {
    let config = json!({
        "route": { "column": "other", "to": { "other 2": "elsewhere" } },
        "cast": { "note": { "to": "int64", "scale": 2 } },
    });
    let output =
        apply("cast-rename", config, grants(&["note", "other"], &["note"]), &inserts(&["1.5", "-2", "x"])).await;
    let lines = lines(&output);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("public.notes insert 1") && lines[0].contains(r#""note":150"#), "{lines:?}");
    assert!(lines[1].starts_with("public.elsewhere insert 2") && lines[1].contains(r#""note":-200"#), "{lines:?}");
    assert_eq!(rejects(&output), [(2, "cast.invalid".to_string())]);
}

#[tokio::test]
async fn a_table_that_no_rule_is_about_passes_by_as_it_is() {
    let batch = inserts(&["a"]);
    let mut stage = load("mask", json!({ "email": "hash" }), grants(&["*"], &["*"]), Json::Null).await.expect("loaded");
    assert_eq!(stage.plan(&batch.schema).await.expect("plan"), None);
    assert_eq!(lines(&stage.apply(&batch).await.expect("applied")).len(), 1);
}

/// However rows are cut, and on whatever instance.
#[tokio::test]
async fn cuts_at_1_7_and_1000_and_fresh_instances_give_the_same_rows() {
    let cases = [
        ("mask", json!({ "note": "last4", "other": "hash" })),
        ("mask", json!({ "note": { "first": 3 }, "other": { "redact": "-" } })),
        ("rules", json!({ "*": { "note": { "length": "<= 5", "required": true } } })),
        (
            "cast-rename",
            json!({ "keep": { "note": { "not_in": ["test"] } }, "cast": { "note": { "to": "int64", "scale": 2 } } }),
        ),
        ("cast-rename", json!({ "route": { "column": "note", "to": { "test": "tests" } }, "rename_table": "all" })),
        ("filter", json!({ "keep": [{ "note": { "regex": "^[0-9]" } }, { "note": { "null": true } }] })),
        ("route", json!({ "column": "note", "regex": "^([0-9])", "to": "notes_$1" })),
        ("flatten", json!({ "columns": { "note": { "a": "text" } }, "on_mismatch": "null" })),
        ("insert-field", json!({ "what": "op", "when": "commit_time", "where": "position" })),
        ("timestamp", json!({ "note": { "from": "unix_s" } })),
    ];
    let batch = mixed(1_000);
    for (name, config) in cases {
        let granted = crypto(grants(&["note", "other"], &["note", "other", "a", "what", "when", "where"]));
        let mut seen = Vec::new();
        for (size, limits) in
            [(1_000, Json::Null), (7, Json::Null), (1, Json::Null), (7, json!({ "calls_per_instance": 1 }))]
        {
            let mut stage = load(name, config.clone(), granted.clone(), limits).await.expect("loaded");
            let (mut rows, mut refused) = (Vec::new(), Vec::new());
            for part in cut(&batch, size) {
                let output = stage.apply(&part).await.expect("applied");
                rows.extend(lines(&output));
                refused.extend(output.rejects.iter().map(|r| format!("{} {} {}", r.change, r.code, r.reason)));
            }
            // Routed tables come one after the other in a batch: order holds within each.
            rows.sort_by_key(|line| line.split(' ').next().map(str::to_string));
            seen.push((rows, refused));
        }
        assert!(seen.windows(2).all(|w| w[0] == w[1]), "{name} {config}");
        assert!(seen[0].0.len() > 100, "{name} {config}: {}", seen[0].0.len());
    }
}

/// Parts of at most `size` rows, the images of a change together.
fn cut(batch: &ChangeBatch, size: usize) -> Vec<ChangeBatch> {
    let (mut parts, mut from, mut to) = (Vec::new(), 0, 0);
    for images in batch.changes.chunk_by(|a, b| a == b) {
        if to > from && to + images.len() - from > size {
            parts.push(batch.slice(from, to - from));
            from = to;
        }
        to += images.len();
    }
    parts.push(batch.slice(from, to - from));
    parts
}
