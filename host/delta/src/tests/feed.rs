//! The change data feed is what the commits changed, as others read it.

use std::collections::BTreeMap;

use millrace_core::batch::ChangeType;
use millrace_core::position::SourceKey;
use millrace_core::sink::Sink;

use super::others::feeds;
use super::support::*;
use super::upsert::{batch_of, commit};
use ChangeType::{Delete, Insert, Truncate, UpdatePostimage as Post, UpdatePreimage as Pre};

/// The changes of each version that has some.
fn by_version(feed: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut versions: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for row in feed {
        versions.entry(row[0].parse().unwrap()).or_default().push(row[1..].join(" "));
    }
    versions.into_values().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_says_what_became_of_each_row() {
    for (partitioned, mut lake) in [false, true].into_iter().flat_map(|p| Lake::of_current_rows().map(|l| (p, l))) {
        lake.config.change_data_feed = true;
        if partitioned {
            lake.config.partition_by = vec!["note".into()];
        }
        let of =
            |source: &SourceKey, snapshot: bool, images: &[_]| batch_of(&orders_schema(), source, snapshot, images);
        let (one, two) = (source(), SourceKey::new("public.other"));
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let inserts =
            [(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b")), (3, Insert, Some(3), Some("c"))];
        commit(&mut sink, of(&one, false, &inserts)).await;
        let changes = [
            (4, Post, Some(1), Some("a2")),
            (5, Delete, Some(2), None),
            (6, Pre, Some(3), None),
            (6, Post, Some(4), None),
            (7, Insert, Some(5), Some("e")),
            (8, Insert, Some(6), Some("never seen")),
            (9, Delete, Some(6), None),
            (10, Post, Some(1), None),
            (11, Delete, Some(7), None),
        ];
        commit(&mut sink, of(&one, false, &changes)).await;
        sink.write(of(&one, false, &[(12, Truncate, None, None)])).await.unwrap();
        commit(&mut sink, of(&one, false, &[(13, Insert, Some(1), Some("x")), (14, Insert, Some(9), Some("z"))])).await;
        commit(&mut sink, of(&two, false, &[(15, Insert, Some(8), Some("theirs"))])).await;
        // Two tables feed it now: a snapshot replaces the rows of its keys alone.
        commit(&mut sink, of(&one, true, &[(16, Insert, Some(1), Some("s")), (16, Insert, Some(10), Some("t"))])).await;
        let expected: [&[&str]; 5] = [
            &["insert 1 a", "insert 2 b", "insert 3 c"],
            &["delete 2 b", "delete 3 c", "insert 4 c", "insert 5 e", "update_postimage 1 a2", "update_preimage 1 a"],
            &["delete 1 a2", "delete 4 c", "delete 5 e", "insert 1 x", "insert 9 z"],
            &["insert 8 theirs"],
            &["delete 1 x", "insert 1 s", "insert 10 t"],
        ];
        let vectors = lake.config.deletion_vectors;
        for (reader, feed) in feeds(&lake.path("public/orders"), &["id", "note"], true) {
            assert_eq!(by_version(feed), expected, "{reader}, partitioned: {partitioned}, deletion vectors: {vectors}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_gone_does_not_go_again_with_the_whole_table() {
    for mut lake in Lake::of_current_rows() {
        lake.config.change_data_feed = true;
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let batch = |snapshot, images: &[_]| batch_of(&orders_schema(), &source(), snapshot, images);
        commit(&mut sink, batch(false, &[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))])).await;
        commit(&mut sink, batch(false, &[(3, Delete, Some(2), None)])).await;
        sink.write(batch(false, &[(4, Truncate, None, None)])).await.unwrap();
        commit(&mut sink, batch(false, &[(5, Insert, Some(3), Some("c")), (6, Insert, Some(4), Some("d"))])).await;
        commit(&mut sink, batch(false, &[(7, Delete, Some(3), None)])).await;
        // A key that the snapshot has twice counts once.
        let twice =
            [(8, Insert, Some(5), Some("e")), (8, Insert, Some(6), Some("f")), (8, Insert, Some(5), Some("e2"))];
        commit(&mut sink, batch(true, &twice)).await;
        let expected: [&[&str]; 5] = [
            &["insert 1 a", "insert 2 b"],
            &["delete 2 b"],
            &["delete 1 a", "insert 3 c", "insert 4 d"],
            &["delete 3 c"],
            &["delete 4 d", "insert 5 e2", "insert 6 f"],
        ];
        let vectors = lake.config.deletion_vectors;
        for (reader, feed) in feeds(&lake.path("public/orders"), &["id", "note"], true) {
            assert_eq!(by_version(feed), expected, "{reader}, deletion vectors: {vectors}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_there_gets_a_feed_from_its_next_rows_on_and_keeps_it() {
    let mut lake = Lake::new(crate::config::Mode::Upsert);
    let mut sink = lake.sink();
    let batch = |at, note| batch_of(&orders_schema(), &source(), false, &[(at, Post, Some(1), Some(note))]);
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, batch(1, "a")).await;
    for (epoch, wanted, note) in [(2, true, "b"), (3, false, "c")] {
        lake.config.change_data_feed = wanted;
        let mut next = lake.sink();
        fenced(&mut next, epoch, &[orders()]).await;
        commit(&mut next, batch(epoch as i64, note)).await;
        let folder = lake.path("public/orders/_change_data");
        assert_eq!(count_of(&folder, ".parquet"), epoch as usize - 1);
        let log = lake.path("public/orders/_delta_log").join(format!("{:020}.json", 2 * (epoch - 1)));
        let text = std::fs::read_to_string(log).unwrap();
        assert!(text.contains(r#"{"cdc":{"path":"_change_data/"#), "{text}");
        assert_eq!(text.contains(r#""changeDataFeed""#), wanted, "{text}");
    }
}

/// Applies a feed to an empty table; answers its rows. Each row that goes must be there.
pub(super) fn replayed(reader: &str, feed: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut rows: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    let mut feed: Vec<(u64, bool, Vec<String>)> = feed
        .into_iter()
        .map(|row| {
            let comes = matches!(row[1].as_str(), "insert" | "update_postimage");
            (row[0].parse().unwrap(), comes, row[2..].to_vec())
        })
        .collect();
    feed.sort();
    for (version, comes, row) in feed {
        let count = rows.entry(row.clone()).or_default();
        *count += if comes { 1 } else { -1 };
        assert!((0..=1).contains(count), "{reader}, version {version}: {row:?} is there {count} times");
    }
    rows.into_iter().filter(|(_, count)| *count > 0).map(|(row, _)| row).collect()
}
