//! A plugin that does everything wrong: each case is contained, and named with plugin, version and limit.

use millrace_core::Error;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::error::Kind;
use millrace_core::stage::{Grants, Stage};
use serde_json::{Value as Json, json};

use crate::fixture::{Note, grants, inserts, lines, load, mixed, names, notes, rejects, schema};

async fn hostile(case: &str, grants: Grants, limits: Json) -> Box<dyn Stage> {
    let config = json!({ "case": case, "marker": "poison" });
    load("hostile", config, grants, limits).await.unwrap_or_else(|e| panic!("{case}: {e}"))
}

fn note() -> Grants {
    grants(&["note"], &["note"])
}

/// Enough rows that not all of them can be the poison.
fn twenty() -> ChangeBatch {
    inserts(&["text"; 20])
}

fn check(case: &str, error: &Error, code: &str, words: &str) {
    assert_eq!(error.code, code, "{case}: {error}");
    assert!(error.message.contains("hostile@"), "{case} names the plugin and its version: {error}");
    assert!(error.message.contains(words), "{case}: {error}");
    assert!(error.hint.is_some() || error.kind == Kind::Retry, "{case} says what to do: {error}");
}

#[tokio::test]
async fn whatever_a_call_does_it_ends_in_a_named_error() {
    let cases = [
        ("loop", "plugin.timeout", "20 ms"),
        ("memory", "plugin.memory", "64 MiB"),
        ("stack", "plugin.stack", "stack"),
        ("panic", "plugin.trap", "no batch is good enough"),
        ("huge", "plugin.answer_too_large", "16 MiB"),
        ("offsets_descend", "plugin.bad_answer", "offset"),
        ("offsets_beyond", "plugin.bad_answer", "offset"),
        ("offsets_start", "plugin.bad_answer", "offset"),
        ("few_rows", "plugin.bad_answer", "offsets for 20 rows"),
        ("many_rows", "plugin.bad_answer", "offsets for 20 rows"),
        ("few_fates", "plugin.bad_answer", "19 fates"),
        ("odd_fate", "plugin.bad_answer", "fate 7"),
        ("utf8", "plugin.bad_answer", "UTF"),
        ("utf8_split", "plugin.bad_answer", "UTF"),
        ("wrong_cells", "plugin.bad_answer", "not those of text"),
        ("retype", "plugin.bad_answer", "without cells"),
        ("no_columns", "plugin.bad_answer", "0 columns"),
        ("presence_length", "plugin.bad_answer", "21 presence codes"),
        ("presence_code", "plugin.bad_answer", "presence code 9"),
        ("unsend", "plugin.bad_answer", "not sent"),
        ("plan_not_null", "plugin.bad_answer", "not nullable"),
        ("reject_row", "plugin.bad_answer", "row 25 of 20"),
        ("plan_undeclared_drop", "plugin.bad_answer", "does not say so"),
        ("route_index", "plugin.bad_answer", "route 3 of 1"),
        ("route_rows", "plugin.bad_answer", "0 routes"),
        ("route_many", "plugin.bad_answer", "60000 tables"),
        ("crypto", "plugin.bug", "not-granted"),
        ("unsupported", "plugin.unsupported_schema", "not this table"),
        ("bug", "plugin.bug", "found one"),
        ("retry", "plugin.retry_later", "not now"),
    ];
    for (case, code, words) in cases {
        let patience = if case == "loop" { 20 } else { 5_000 };
        let mut stage = hostile(case, note(), json!({ "batch_ms": patience, "per_thousand_rows_ms": 0 })).await;
        // The second call meets the same host as the first: nothing is left over.
        for _ in 0..2 {
            let error = stage.apply(&twenty()).await.expect_err(case);
            check(case, &error, code, words);
            let kind = match case {
                "retry" => Kind::Retry,
                "unsupported" => Kind::HaltTable,
                _ => Kind::Halt,
            };
            assert_eq!(error.kind, kind, "{case}");
        }
    }
}

#[tokio::test]
async fn whatever_a_plan_asks_for_it_gets_what_is_granted() {
    let cases = [
        ("plan_panic", "plugin.trap", "plan for public.notes"),
        ("plan_index", "plugin.plan_refused", "999"),
        ("plan_effect", "plugin.plan_refused", "delete everything"),
        ("plan_meta", "plugin.plan_refused", "password"),
        ("plan_write_ungranted", "plugin.grant_missing", "write column other"),
        ("plan_drop_ungranted", "plugin.grant_missing", "drop column other"),
        ("plan_rename_ungranted", "plugin.grant_missing", "rename column other"),
        ("plan_write_key", "plugin.grant_missing", "write the key column id"),
        ("plan_name_collision", "plugin.name_collision", "two columns id"),
        ("plan_hidden_collision", "plugin.name_collision", "two columns secret"),
        ("plan_add", "plugin.grant_missing", "add column added"),
        ("plan_twice", "plugin.plan_refused", "twice"),
        ("plan_unsupported", "plugin.unsupported_schema", "not for me"),
    ];
    for (case, code, words) in cases {
        let granted = match case {
            "plan_write_key" => grants(&["id", "note"], &["*"]),
            _ => grants(&["note", "other"], &["note"]),
        };
        let mut stage = hostile(case, granted, Json::Null).await;
        let error = stage.plan(&schema()).await.expect_err(case);
        check(case, &error, code, words);
        assert!(stage.apply(&twenty()).await.is_err(), "{case}: a plan that was refused is not run");
    }
}

#[tokio::test]
async fn a_column_that_is_not_granted_is_not_even_named() {
    let mut stage = hostile("plan_sees", grants(&["note"], &["other"]), Json::Null).await;
    let error = stage.plan(&schema()).await.expect_err("tells what it sees");
    assert!(error.message.ends_with("note,other"), "{error}");
}

#[tokio::test]
async fn a_key_is_written_with_a_grant_of_its_own() {
    let granted = Grants { keys: names(&["id"]), ..grants(&["id", "note"], &["id", "note"]) };
    let mut stage = hostile("plan_write_key", granted, Json::Null).await;
    let plan = stage.plan(&schema()).await.expect("granted").expect("active");
    assert_eq!(plan.writes, names(&["note", "id"]));
}

#[tokio::test]
async fn setting_up_is_bounded_too() {
    for (case, code) in [
        ("loop_in_configure", "plugin.timeout"),
        ("panic_in_configure", "plugin.trap"),
        ("refuse_config", "plugin.invalid_config"),
    ] {
        let loaded = load("hostile", json!({ "case": case }), note(), json!({ "setup_ms": 50 })).await;
        let error = loaded.err().expect(case);
        check(case, &error, code, "");
    }
}

#[tokio::test]
async fn only_the_poison_rows_are_refused_and_the_rest_goes_on() {
    let mut texts = vec!["fine"; 1_000];
    for at in [0, 417, 999] {
        texts[at] = "poison";
    }
    for (case, code) in [("panic_on", "plugin.trap"), ("loop_on", "plugin.timeout")] {
        let mut stage = hostile(case, note(), json!({ "batch_ms": 20, "per_thousand_rows_ms": 0 })).await;
        let output = stage.apply(&inserts(&texts)).await.expect("the rest");
        assert_eq!(rejects(&output), [0, 417, 999].map(|c| (c, code.to_string())));
        let kept: Vec<u32> = output.batches.iter().flat_map(|b| b.changes.clone()).collect();
        assert_eq!(kept, (0..1_000).filter(|c| ![0, 417, 999].contains(c)).collect::<Vec<_>>());
        let reason = &output.rejects[0].reason;
        assert!(
            reason.contains("hostile@") && (case != "panic_on" || reason.contains("this row is poison")),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn the_images_of_a_poison_change_stay_together() {
    let batch = notes(&[
        vec![(ChangeType::Insert, 1, "fine".into())],
        vec![(ChangeType::UpdatePreimage, 2, "poison".into()), (ChangeType::UpdatePostimage, 2, "fine".into())],
        vec![(ChangeType::UpdatePreimage, 3, "fine".into()), (ChangeType::UpdatePostimage, 3, "poison".into())],
        vec![(ChangeType::Delete, 4, "poison".into())],
        vec![(ChangeType::Insert, 5, "fine".into())],
    ]);
    let mut stage = hostile("panic_on", note(), Json::Null).await;
    let output = stage.apply(&batch).await.expect("the rest");
    assert_eq!(rejects(&output), [1, 2].map(|c| (c, "plugin.trap".to_string())));
    let lines = lines(&output);
    assert_eq!(lines.len(), 3, "{lines:?}");
    // A delete is never refused: it goes on by its key, without the cells that the plugin would have written.
    assert!(lines[1].starts_with("public.notes delete 4") && lines[1].contains(r#""id":4"#), "{lines:?}");
    assert!(!lines[1].contains("poison"), "{lines:?}");
}

#[tokio::test]
async fn more_poison_than_the_budget_fails_the_batch() {
    let mut stage = hostile("panic_on", note(), json!({ "poison_rows": 2 })).await;
    let error = stage.apply(&inserts(&["poison", "fine", "poison", "poison"])).await.expect_err("three");
    check("panic_on", &error, "plugin.trap", "more than 2 changes");
    let output = stage.apply(&inserts(&["poison", "fine", "poison"])).await.expect("two");
    assert_eq!(rejects(&output).len(), 2);
}

#[tokio::test]
async fn an_instance_that_leaks_is_replaced_before_it_fails() {
    let mut stage = hostile("leak", note(), Json::Null).await;
    for _ in 0..300 {
        let output = stage.apply(&inserts(&["a"])).await.expect("a fresh instance");
        assert_eq!(output.rejects.len(), 0);
    }
}

#[tokio::test]
async fn floods_of_lines_and_metrics_are_bounded() {
    for case in ["log_flood", "metric_flood"] {
        let mut stage = hostile(case, note(), Json::Null).await;
        assert_eq!(lines(&stage.apply(&inserts(&["a", "b"])).await.expect(case)).len(), 2);
    }
}

#[tokio::test]
async fn a_batch_is_cut_to_the_memory_and_a_row_that_does_not_fit_is_refused() {
    let large = "x".repeat(100_000);
    let giant = "x".repeat(1_500_000);
    let mut texts = vec![large.as_str(); 60];
    texts[30] = &giant;
    let mut stage = hostile("none", note(), json!({ "memory_mib": 8 })).await;
    let output = stage.apply(&inserts(&texts)).await.expect("in parts");
    assert_eq!(rejects(&output), [(30, "row.too_large".to_string())]);
    let kept: Vec<u32> = output.batches.iter().flat_map(|b| b.changes.clone()).collect();
    assert_eq!(kept, (0..60).filter(|c| *c != 30).collect::<Vec<_>>());
    assert!(output.rejects[0].reason.contains("limits: { memory }"), "{:?}", output.rejects[0]);
}

#[tokio::test]
async fn not_sent_may_be_answered_where_it_was_not_sent() {
    let batch = notes(&[vec![(ChangeType::UpdatePostimage, 1, Note::NotSent)]]);
    let mut stage = hostile("unsend", note(), Json::Null).await;
    let output = stage.apply(&batch).await.expect("allowed");
    assert!(output.batches[0].is_unavailable(1, 0));
}

#[tokio::test]
async fn a_reject_on_the_postimage_refuses_the_change_and_on_a_delete_nothing() {
    let batch = notes(&[
        vec![(ChangeType::UpdatePreimage, 1, "fine".into()), (ChangeType::UpdatePostimage, 1, "poison".into())],
        vec![(ChangeType::Delete, 2, "fine".into())],
    ]);
    let mut stage = hostile("reject_marked", note(), Json::Null).await;
    let output = stage.apply(&batch).await.expect("applied");
    assert_eq!(rejects(&output), [(0, "hostile.marked".to_string())]);
    let batch = notes(&[vec![(ChangeType::Delete, 2, "poison".into())]]);
    let output = stage.apply(&batch).await.expect("applied");
    assert_eq!((rejects(&output).len(), lines(&output).len()), (0, 1));
}

#[tokio::test]
async fn a_truncate_goes_around_the_plugin() {
    let mut batch = inserts(&["x"]);
    batch.change_types[0] = ChangeType::Truncate;
    let mut stage = hostile("panic", note(), Json::Null).await;
    let output = stage.apply(&batch).await.expect("around");
    assert!(output.batches[0].is_truncate());
}

#[tokio::test]
async fn rows_of_all_kinds_come_back_as_they_went_in() {
    let batch = mixed(1_000);
    let mut stage = hostile("none", note(), Json::Null).await;
    let output = stage.apply(&batch).await.expect("applied");
    assert_eq!((output.dropped, output.rejects.len()), (0, 0));
    let before = millrace_core::stage::StageOutput { batches: vec![batch], ..Default::default() };
    assert_eq!(lines(&output), lines(&before));
}
