//! The change data feed is what the commits changed, as delta-rs reads it.

use std::collections::BTreeMap;
use std::path::Path;

use millrace_core::batch::ChangeType;
use millrace_core::position::SourceKey;
use millrace_core::sink::Sink;

use super::support::*;
use super::upsert::{batch_of, commit};
use ChangeType::{Delete, Insert, Truncate, UpdatePostimage as Post, UpdatePreimage as Pre};

const FEED: &str = r#"
import json, sys
from deltalake import DeltaTable
path, names = sys.argv[1], ["_commit_version", "_change_type"] + sys.argv[2:]
feed = DeltaTable(path).load_cdf(starting_version=0).read_all()
text = lambda v: "NULL" if v is None else str(v)
print(json.dumps(sorted([text(v) for v in row] for row in zip(*(feed[n].to_pylist() for n in names)))))
"#;

/// Version, change type and these columns of each row of the feed, sorted; `None` where delta-rs is not installed.
fn feed_of(path: &Path, names: &[&str]) -> Option<Vec<Vec<String>>> {
    let python = python()?;
    let path = path.display().to_string();
    let args: Vec<&str> = std::iter::once(path.as_str()).chain(names.iter().copied()).collect();
    Some(serde_json::from_str(&run_python(&python, FEED, &args)).unwrap())
}

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
        let Some(feed) = feed_of(&lake.path("public/orders"), &["id", "note"]) else { return };
        let expected: [&[&str]; 5] = [
            &["insert 1 a", "insert 2 b", "insert 3 c"],
            &["delete 2 b", "delete 3 c", "insert 4 c", "insert 5 e", "update_postimage 1 a2", "update_preimage 1 a"],
            &["delete 1 a2", "delete 4 c", "delete 5 e", "insert 1 x", "insert 9 z"],
            &["insert 8 theirs"],
            &["delete 1 x", "insert 1 s", "insert 10 t"],
        ];
        let vectors = lake.config.deletion_vectors;
        assert_eq!(by_version(feed), expected, "partitioned: {partitioned}, deletion vectors: {vectors}");
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
