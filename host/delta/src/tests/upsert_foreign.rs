//! Others write the mirrored table while we do, or made it.

use millrace_core::batch::ChangeType;
use millrace_core::cut::Cut;
use millrace_core::error::Kind;
use millrace_core::sink::Sink;

use super::mirror::current;
use super::others::by_others;
use super::support::*;
use super::upsert::{Image, images};
use crate::config::{IndexKind, Mode};
use crate::sink::DeltaSink;
use ChangeType::{Delete, Insert, UpdatePostimage as Post};

const CHANGE: &str = r#"
import sys, polars
from deltalake import DeltaTable, write_deltalake
path, what = sys.argv[1:3]
table = DeltaTable(path)
if what == 'compact': table.optimize.compact()
elif what == 'delete': table.delete('id = 2')
elif what == 'append': write_deltalake(path, polars.DataFrame({'id': [3, 3], 'note': ['theirs', 'twice']}), mode='append', schema_mode='merge')
elif what == 'update': table.update(predicate='id = 1', updates={'note': "'theirs'"})
elif what == 'vacuum': table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
else: raise SystemExit(what)
"#;

async fn stage(sink: &mut DeltaSink, changes: &[Image]) -> Cut {
    let batch = images(changes);
    let cut = cut_of(&[(source(), batch.origin.orders.last().unwrap().commit())]);
    sink.write(batch).await.unwrap();
    assert!(sink.prepare(&cut).await.unwrap().refused.is_empty());
    cut
}

async fn rows(lake: &Lake) -> Vec<(String, String)> {
    let rows = current(lake, &lake.path("public/orders"), &["id", "note"]).await;
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_commit_between_our_plan_and_our_commit_is_heeded() {
    let Some(python) = python() else {
        eprintln!("skipped: `cargo xtask setup test` installs the readers");
        return;
    };
    let cases = [
        ("compact", [("1", "a1"), ("2", "b1"), ("3", "c1")]),
        ("vacuum", [("1", "a1"), ("2", "b1"), ("3", "c1")]),
        // Their rows of our key go, however many they are.
        ("append", [("1", "a1"), ("2", "b1"), ("3", "c1")]),
        // What we do not send is theirs.
        ("update", [("1", "theirs"), ("2", "b1"), ("3", "c1")]),
        ("delete", [("1", "a1"), ("2", "b1"), ("3", "c1")]),
    ];
    let both = |case: (&'static str, _)| Lake::of_current_rows().map(|lake| (case, lake));
    for ((what, expected), mut lake) in cases.into_iter().flat_map(both) {
        lake.config.index_dir = Some(lake.path("index"));
        lake.config.index = IndexKind::Exact;
        let table = lake.path("public/orders");
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        for (at, id, note) in [(1, 1, "a"), (2, 2, "b"), (3, 4, "d")] {
            let cut = stage(&mut sink, &[(at, Insert, Some(id), Some(note))]).await;
            sink.commit(&cut).await.unwrap();
        }
        let cut = stage(&mut sink, &[(4, Post, Some(1), Some("a1"))]).await;
        sink.commit(&cut).await.unwrap();
        let cut = stage(
            &mut sink,
            &[
                (5, Post, Some(1), None),
                (6, Post, Some(2), Some("b1")),
                (7, Delete, Some(4), None),
                (8, Insert, Some(3), Some("c1")),
            ],
        )
        .await;
        run_python(&python, CHANGE, &[&table.display().to_string(), what]);
        sink.commit(&cut).await.unwrap();
        let found = rows(&lake).await;
        let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, expected, "{what}");
        for (reader, theirs) in by_others(&table, &["id", "note"]).await {
            let ours: Vec<Vec<String>> = expected.iter().map(|(a, b)| vec![(*a).into(), (*b).into()]).collect();
            assert_eq!(theirs, ours, "{reader} after {what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_others_take_away_under_a_change_that_needs_it_starts_the_cut_anew() {
    let Some(python) = python() else { return };
    let lake = Lake::new(Mode::Upsert);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let cut = stage(&mut sink, &[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))]).await;
    sink.commit(&cut).await.unwrap();
    let cut = stage(&mut sink, &[(3, Post, Some(2), None)]).await;
    run_python(&python, CHANGE, &[&lake.path("public/orders").display().to_string(), "delete"]);
    let error = sink.commit(&cut).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Reload, "table.replanned"));
    // The next try says what is refused before anything commits.
    fenced(&mut sink, 1, &[orders()]).await;
    sink.write(images(&[(3, Post, Some(2), None)])).await.unwrap();
    assert_eq!(sink.prepare(&cut).await.unwrap().refused[0].code, "sink.no_current_row");
    sink.commit(&cut).await.unwrap();
    assert_eq!(rows(&lake).await, [("1".to_owned(), "a".to_owned())]);
}

const CREATE: &str = r"
import sys, polars
from deltalake import write_deltalake
path, vectors = sys.argv[1:3]
rows = polars.DataFrame({'id': [1, 2, 2, 2, 3], 'note': ['a', 'b', 'c', 'd', 'e']})
write_deltalake(path, rows, configuration={'delta.enableDeletionVectors': vectors})
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_others_made_is_taken_over_and_its_duplicates_go_with_their_key() {
    let Some(python) = python() else { return };
    let lake = Lake::new(Mode::Upsert);
    let table = lake.path("public/orders");
    run_python(&python, CREATE, &[&table.display().to_string(), "true"]);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let cut = stage(&mut sink, &[(1, Post, Some(2), Some("one")), (2, Delete, Some(3), None)]).await;
    sink.commit(&cut).await.unwrap();
    assert_eq!(rows(&lake).await, [("1", "a"), ("2", "one")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    for (reader, theirs) in by_others(&table, &["id", "note"]).await {
        assert_eq!(theirs, [["1", "a"], ["2", "one"]], "{reader}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_deletion_vectors_is_refused_unless_they_may_be_turned_on_or_are_not_needed() {
    let Some(python) = python() else { return };
    for (vectors, upgrade) in [(true, false), (true, true), (false, false)] {
        let mut lake = Lake::new(Mode::Upsert);
        let table = lake.path("public/orders");
        run_python(&python, CREATE, &[&table.display().to_string(), "false"]);
        lake.config.deletion_vectors = vectors;
        lake.config.upgrade_protocol = upgrade;
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        if vectors && !upgrade {
            let error = sink.write(images(&[(1, Insert, Some(2), Some("one"))])).await.unwrap_err();
            assert_eq!((error.kind, error.code), (Kind::Halt, "table.no_deletion_vectors"));
            assert!(error.hint.unwrap().contains("upgrade_protocol"));
            continue;
        }
        let cut = stage(&mut sink, &[(1, Post, Some(2), Some("one")), (2, Delete, Some(3), None)]).await;
        sink.commit(&cut).await.unwrap();
        let commit = std::fs::read_to_string(table.join("_delta_log/00000000000000000001.json")).unwrap();
        let turned_on = [r#""protocol""#, r#""deletionVectors""#, r#""delta.enableDeletionVectors":"true""#];
        assert!(turned_on.iter().all(|text| commit.contains(text) == vectors), "{commit}");
        assert_eq!(commit.contains(r#""deletionVector":"#), vectors, "{commit}");
        for (reader, theirs) in by_others(&table, &["id", "note"]).await {
            assert_eq!(theirs, [["1", "a"], ["2", "one"]], "{reader}");
        }
        // The next host finds what it asks for.
        lake.config.upgrade_protocol = false;
        let mut next = lake.sink();
        fenced(&mut next, 2, &[orders()]).await;
        let cut = stage(&mut next, &[(3, Post, Some(1), Some("two"))]).await;
        next.commit(&cut).await.unwrap();
        assert_eq!(rows(&lake).await, [("1", "two"), ("2", "one")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_file_that_is_gone_or_damaged_is_named() {
    for damage in ["gone", "cut"] {
        let lake = Lake::new(Mode::Upsert);
        let table = lake.path("public/orders");
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let cut = stage(&mut sink, &[(1, Insert, Some(1), Some("a"))]).await;
        sink.commit(&cut).await.unwrap();
        let file = std::fs::read_dir(&table)
            .unwrap()
            .map(|f| f.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "parquet"));
        let file = file.unwrap();
        if damage == "gone" {
            std::fs::remove_file(&file).unwrap();
        } else {
            let bytes = std::fs::read(&file).unwrap();
            std::fs::write(&file, [&bytes[..bytes.len() - 40], &[7; 40]].concat()).unwrap();
        }
        let mut next = lake.sink();
        fenced(&mut next, 2, &[orders()]).await;
        next.write(images(&[(2, Post, Some(1), None)])).await.unwrap();
        let error = next.prepare(&cut_of(&[(source(), 2)])).await.unwrap_err();
        let code = if damage == "gone" { "store.not_found" } else { "table.damaged" };
        assert_eq!((error.kind, error.code), (Kind::Halt, code), "{error}");
        assert!(error.message.contains(file.file_name().unwrap().to_str().unwrap()), "{error}");
    }
}

const CREATE_LARGE: &str = r"
import sys, polars
from deltalake import write_deltalake, WriterProperties
rows = polars.DataFrame({'id': range(0, 400_000, 2), 'note': [f'n {i}' for i in range(200_000)]})
write_deltalake(sys.argv[1], rows, configuration={'delta.enableDeletionVectors': 'true'},
                writer_properties=WriterProperties(max_row_group_size=10_000))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_groups_that_can_not_have_a_key_are_left_out_and_rows_are_counted_right() {
    let Some(python) = python() else { return };
    let mut lake = Lake::new(Mode::Upsert);
    // Its 200,000 keys do not fit.
    lake.config.index_memory = 1 << 20;
    let table = lake.path("public/orders");
    run_python(&python, CREATE_LARGE, &[&table.display().to_string()]);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    // In the second, the eighth, the last row group, and between two keys.
    let cut = stage(
        &mut sink,
        &[
            (1, Delete, Some(20_000), None),
            (2, Delete, Some(39_998), None),
            (3, Post, Some(150_000), None),
            (4, Delete, Some(399_998), None),
            (5, Insert, Some(150_001), Some("new")),
        ],
    )
    .await;
    sink.commit(&cut).await.unwrap();
    let found = rows(&lake).await;
    let has = |id: &str| found.iter().find(|(i, _)| i == id).map(|(_, note)| note.as_str());
    assert_eq!(found.len(), 199_998);
    assert_eq!([has("20000"), has("39998"), has("399998")], [None; 3]);
    assert_eq!([has("150000"), has("150001"), has("19998")], [Some("n 75000"), Some("new"), Some("n 9999")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_vectors_that_the_protocol_does_not_list_are_refused() {
    let mut lake = Lake::new(Mode::Upsert);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    for changes in
        [&[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))][..], &[(3, Delete, Some(1), None)]]
    {
        let cut = stage(&mut sink, changes).await;
        sink.commit(&cut).await.unwrap();
    }
    let first = lake.path("public/orders/_delta_log").join(format!("{:020}.json", 0));
    let text = std::fs::read_to_string(&first).unwrap();
    let old = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#;
    let lines: Vec<&str> = text.lines().map(|l| if l.starts_with(r#"{"protocol""#) { old } else { l }).collect();
    std::fs::write(&first, lines.join("\n")).unwrap();
    for (vectors, upgrade) in [(true, false), (true, true), (false, false)] {
        (lake.config.deletion_vectors, lake.config.upgrade_protocol) = (vectors, upgrade);
        let error = lake.sink().fence(&claim(2, &[orders()])).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Halt, "log.damaged"), "{error}");
        assert!(error.message.contains("deletionVectors"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_leaves_no_stale_checksum_beside_the_file_that_it_replaces() {
    let mut lake = Lake::new(Mode::Upsert);
    lake.config.checkpoint_interval = 1;
    let log = lake.path("public/orders/_delta_log");
    let stale = log.join("._last_checkpoint.crc");
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let cut = stage(&mut sink, &[(1, Insert, Some(1), Some("a"))]).await;
    sink.commit(&cut).await.unwrap();
    std::fs::write(&stale, "as Spark left it").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for at in 2.. {
        let cut = stage(&mut sink, &[(at, Insert, Some(at), Some("b"))]).await;
        sink.commit(&cut).await.unwrap();
        if !stale.exists() {
            break;
        }
        assert!(std::time::Instant::now() < until, "the checksum is of another file");
    }
}
