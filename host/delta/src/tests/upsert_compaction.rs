//! Compaction beside the stream, where its timing matters.

use std::time::{Duration, Instant};

use millrace_core::batch::ChangeType;
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::Order;
use millrace_core::sink::Sink;

use super::mirror::current;
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
