//! Compaction beside the stream, where its timing matters.

use std::time::{Duration, Instant};

use millrace_core::batch::ChangeType;
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::environment::Environment;
use millrace_core::position::Order;
use millrace_core::schema::TableName;
use millrace_core::sink::Sink;

use super::mirror::{KeyKind, Source, current};
use super::others::by_others;
use super::support::*;
use crate::config::Mode;
use crate::sink::DeltaSink;
use ChangeType::{Delete, Insert};

struct Stream {
    lake: Lake,
    sink: DeltaSink,
    commit: i64,
}

impl Stream {
    async fn new() -> Self {
        let lake = Lake::new(Mode::Upsert);
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        Self { lake, sink, commit: 0 }
    }

    /// One cut: these keys are deleted, or inserted with notes that do not compress.
    async fn cut(&mut self, kind: ChangeType, ids: impl Iterator<Item = i64>) {
        let mut rows = RowsBuilder::new(source(), orders_schema(), false, 1_000).unwrap();
        for id in ids {
            self.commit += 1;
            rows.begin_change(Order::new(self.commit, 1), 0);
            rows.begin_row(kind);
            if let Cells::Int64(cells) = &mut rows.column(0).cells {
                cells.append_value(id);
            }
            match &mut rows.column(1).cells {
                Cells::Text(cells) if kind == Insert => {
                    let noise =
                        |n: i64| format!("{:016x}", (id * 1_000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
                    cells.append_value((0..16).map(noise).collect::<String>());
                }
                _ => rows.column(1).append_unavailable(),
            }
        }
        self.sink.write(rows.finish().unwrap().unwrap()).await.unwrap();
        let cut = cut_of(&[(source(), self.commit)]);
        self.sink.prepare(&cut).await.unwrap();
        self.sink.commit(&cut).await.unwrap();
    }

    fn log(&self) -> Vec<String> {
        let log = self.lake.path("public/orders/_delta_log");
        let mut names: Vec<_> = std::fs::read_dir(log).unwrap().map(|f| f.unwrap().path()).collect();
        names.retain(|p| p.extension().is_some_and(|e| e == "json"));
        names.sort();
        names.iter().map(|name| std::fs::read_to_string(name).unwrap()).collect()
    }

    fn compactions(&self) -> usize {
        self.log().iter().filter(|text| text.contains(r#""operation":"OPTIMIZE","engineInfo":"Millrace"#)).count()
    }

    async fn ids(&self) -> Vec<i64> {
        let rows = current(&self.lake, &self.lake.path("public/orders"), &["id"]).await;
        let mut ids: Vec<i64> = rows.into_iter().map(|row| row[0].parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_which_much_is_gone_is_written_anew_while_the_stream_goes_on() {
    let mut stream = Stream::new().await;
    stream.cut(Insert, 0..4_000).await;
    stream.cut(Delete, (0..4_000).step_by(4)).await;
    let mut expected: Vec<i64> = (0..4_000).filter(|id| id % 4 != 0).collect();
    let until = Instant::now() + Duration::from_secs(30);
    // Each cut takes one more row out of the file that is being written anew.
    let mut next = 1;
    while stream.compactions() == 0 {
        assert!(Instant::now() < until, "the file is written anew");
        stream.cut(Delete, std::iter::once(next)).await;
        expected.retain(|id| *id != next);
        next += 4;
    }
    assert_eq!(stream.ids().await, expected);
    let log = stream.log();
    let compaction = log.iter().find(|text| text.contains(r#""operation":"OPTIMIZE""#)).unwrap();
    assert!(compaction.contains(r#""dataChange":false"#) && !compaction.contains(r#""dataChange":true"#));
    assert!(compaction.contains(r#""isBlindAppend":false"#));
    // The index followed: the rows are found in their new file.
    stream.cut(Delete, (0..2_000).map(|n| n * 2)).await;
    expected.retain(|id| id % 2 != 0);
    assert_eq!(stream.ids().await, expected);
}

const COMPACT: &str = "import sys; from deltalake import DeltaTable; DeltaTable(sys.argv[1]).optimize.compact()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_whose_files_others_compacted_meanwhile_is_dropped() {
    let Some(python) = python() else { return };
    let mut stream = Stream::new().await;
    for first in 0..7 {
        stream.cut(Insert, first * 10..first * 10 + 10).await;
    }
    // The eighth starts the work; it is done, and not committed, when others take its files.
    stream.cut(Insert, 70..80).await;
    let table = stream.lake.path("public/orders");
    let until = Instant::now() + Duration::from_secs(30);
    while count_of(&table, ".parquet") < 9 {
        assert!(Instant::now() < until, "the new file is written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run_python(&python, COMPACT, &[&table.display().to_string()]);
    stream.cut(Delete, (0..80).step_by(2)).await;
    assert_eq!(stream.compactions(), 0);
    assert_eq!(stream.ids().await, (0..80).filter(|id| id % 2 != 0).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_compaction_files_stay_as_they_are() {
    let mut stream = Stream::new().await;
    stream.lake.config.compaction = false;
    stream.sink = stream.lake.sink();
    fenced(&mut stream.sink, 1, &[]).await;
    for first in 0..12 {
        stream.cut(Insert, first * 10..first * 10 + 10).await;
    }
    assert_eq!((stream.compactions(), count_of(&stream.lake.path("public/orders"), ".parquet")), (0, 12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_files_go_when_no_reader_of_the_retention_can_want_them() {
    const DAY: i64 = 86_400_000;
    for checkpoints in [0, 3] {
        let mut lake = Lake::new(Mode::Upsert);
        lake.config.partition_by = vec!["region".into()];
        lake.config.checkpoint_interval = checkpoints;
        let mut rows = Source::new(KeyKind::Text, 77 + checkpoints).with_keys(300).with_odd_regions();
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        for _ in 0..25 {
            for batch in rows.batches(20) {
                sink.write(batch).await.unwrap();
            }
            let cut = cut_of(&[(source(), rows.mirror.commit)]);
            sink.prepare(&cut).await.unwrap();
            sink.commit(&cut).await.unwrap();
        }
        // Written, and not committed yet: it is nobody's file.
        for batch in rows.clone_of().batches(5) {
            sink.write(batch).await.unwrap();
        }
        sink.prepare(&cut_of(&[(source(), rows.mirror.commit + 1)])).await.unwrap();
        let table = lake.path("public/orders");
        let store = crate::store::Store::open(&table.display().to_string(), &Default::default()).unwrap();
        let now = lake.machine.now() / 1_000;
        let none = crate::log::unused::remove(&store, now + 6 * DAY).await.unwrap();
        assert_eq!(none.files, 0);
        let some = crate::log::unused::remove(&store, now + 8 * DAY).await.unwrap();
        assert!(some.files > 10, "{some:?}");
        assert_eq!(current(&lake, &table, &rows.names()).await, rows.expected());
        for (reader, found) in by_others(&table, &rows.names()).await {
            if reader == "polars" {
                // 2.1 does not find the deletion vectors of files whose path is escaped: rows that are gone come back.
                eprintln!("polars finds {} rows of {}", found.len(), rows.expected().len());
                continue;
            }
            assert_eq!(found, rows.expected(), "{reader}");
        }
        assert_eq!(crate::log::unused::remove(&store, now + 8 * DAY).await.unwrap().files, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_written_long_ago_and_removed_just_now_stays() {
    let mut stream = Stream::new().await;
    stream.lake.config.compaction = false;
    stream.sink = stream.lake.sink();
    fenced(&mut stream.sink, 1, &[]).await;
    stream.cut(Insert, 0..10).await;
    let table = stream.lake.path("public/orders");
    let file = std::fs::read_dir(&table)
        .unwrap()
        .map(|f| f.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "parquet"));
    let file = std::fs::File::options().write(true).open(file.unwrap()).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    // Its first removal, under no vector, could be long ago; the last one is not.
    stream.cut(Delete, 0..5).await;
    let log = table.join("_delta_log/00000000000000000001.json");
    let text = std::fs::read_to_string(&log).unwrap();
    let at = text.find(r#""deletionTimestamp":"#).unwrap() + 20;
    std::fs::write(&log, format!("{}1{}", &text[..at], &text[at + 13..])).unwrap();
    stream.cut(Delete, 5..10).await;
    let store = crate::store::Store::open(&table.display().to_string(), &Default::default()).unwrap();
    let now = stream.lake.machine.now() / 1_000;
    assert_eq!(crate::log::unused::remove(&store, now).await.unwrap().files, 0);
    assert!(crate::log::unused::remove(&store, now + 8 * 86_400_000).await.unwrap().files >= 2);
    std::fs::remove_dir_all(&table).unwrap();
    assert_eq!(crate::log::unused::remove(&store, now).await.unwrap().files, 0, "no table");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_by_hand_merges_files_under_a_stream_that_goes_on() {
    let mut stream = Stream::new().await;
    // Too few of one size for the stream to merge them itself.
    for part in 0..4 {
        stream.cut(Insert, part * 1_000..(part + 1) * 1_000).await;
    }
    let orders = TableName::new("public", "orders");
    let mut by_hand = stream.lake.sink();
    let working = tokio::spawn(async move { (by_hand.maintain(&orders, true).await, by_hand) });
    let mut expected: Vec<i64> = (0..4_000).collect();
    let mut gone = 0;
    // Fewer than the plans that it may make.
    while !working.is_finished() && gone < 50 {
        stream.cut(Delete, std::iter::once(gone)).await;
        gone += 1;
    }
    let (done, mut by_hand) = working.await.unwrap();
    let done = done.unwrap().expect("the table is there");
    assert_eq!((done.files_before, done.files), (4, 1), "{done:?}");
    // The stream finds its rows in the new file.
    stream.cut(Delete, std::iter::once(gone)).await;
    expected.drain(..=gone as usize);
    assert_eq!(stream.ids().await, expected);
    assert!(stream.lake.path(&format!("public/orders/_delta_log/{:020}.checkpoint.parquet", done.version)).exists());
    // Nothing is left to do, and nothing is said.
    let version = stream.log().len();
    let again = by_hand.maintain(&TableName::new("public", "orders"), true).await.unwrap().expect("the table is there");
    assert_eq!((again.files_before, again.files, stream.log().len()), (1, 1, version));
    assert_eq!(by_hand.maintain(&TableName::new("public", "nobody"), true).await.unwrap(), None);
}
