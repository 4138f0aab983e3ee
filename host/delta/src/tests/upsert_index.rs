//! Keys on disk: from run to run, merged, damaged.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace_core::sink::Sink;

use super::mirror::{KeyKind, Source, current};
use super::support::*;
use crate::config::{IndexKind, Mode};
use crate::sink::DeltaSink;

/// Files of keys, each with how many data files it is of.
pub(super) fn stored(lake: &Lake) -> Vec<(PathBuf, usize)> {
    let Ok(tables) = std::fs::read_dir(lake.path("index")) else { return Vec::new() };
    let files = tables.flat_map(|t| std::fs::read_dir(t.unwrap().path()).unwrap().map(|f| f.unwrap().path()));
    let files = files.filter(|f| f.extension().is_some_and(|e| e == "keys"));
    let count = |file: &PathBuf| {
        let bytes = std::fs::read(file).unwrap_or_default();
        bytes.windows(7).filter(|w| w == br#""path":"#).count()
    };
    files.map(|file| (file.clone(), count(&file))).collect()
}

struct Run {
    lake: Lake,
    source: Source,
    epoch: u64,
}

impl Run {
    fn new(index: IndexKind, kind: KeyKind) -> Self {
        let mut lake = Lake::new(Mode::Upsert);
        lake.config.index_dir = Some(lake.path("index"));
        lake.config.index = index;
        lake.config.compaction = false;
        lake.index_memory = Some(4 << 10);
        Self { lake, source: Source::new(kind, 11).with_keys(500), epoch: 0 }
    }

    async fn start(&mut self) -> DeltaSink {
        self.epoch += 1;
        let mut sink = self.lake.sink();
        fenced(&mut sink, self.epoch, &[orders()]).await;
        sink
    }

    async fn cut(&mut self, sink: &mut DeltaSink) {
        for batch in self.source.batches(100) {
            sink.write(batch).await.unwrap();
        }
        let cut = cut_of(&[(source(), self.source.mirror.commit)]);
        assert!(sink.prepare(&cut).await.unwrap().refused.is_empty());
        sink.commit(&cut).await.unwrap();
        let found = current(&self.lake, &self.lake.path("public/orders"), &self.source.names()).await;
        assert_eq!(found, self.source.expected());
    }

    /// Cuts until `there` holds of what is on disk.
    async fn until(&mut self, sink: &mut DeltaSink, there: impl Fn(&[(PathBuf, usize)]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !there(&stored(&self.lake)) {
            assert!(Instant::now() < deadline, "{:?}", stored(&self.lake));
            self.cut(sink).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_damaged_between_two_runs_is_made_anew_and_no_row_is_lost() {
    for index in [IndexKind::Files, IndexKind::Exact] {
        for kind in [KeyKind::Long, KeyKind::Text] {
            let mut run = Run::new(index, kind);
            let mut sink = run.start().await;
            let is_merged = |file: &(PathBuf, usize)| file.1 > 1;
            run.until(&mut sink, |files| files.len() > 1 && (index == IndexKind::Files || files.iter().any(is_merged)))
                .await;
            drop(sink);
            // The next run finds what is there.
            let mut sink = run.start().await;
            run.cut(&mut sink).await;
            drop(sink);
            let damaged = stored(&run.lake);
            assert!(!damaged.is_empty());
            for (file, _) in &damaged {
                let mut bytes = std::fs::read(file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                // Another file, so that nobody who has the old one mapped sees this.
                std::fs::remove_file(file).unwrap();
                std::fs::write(file, bytes).unwrap();
            }
            let mut sink = run.start().await;
            for _ in 0..3 {
                run.cut(&mut sink).await;
            }
            run.until(&mut sink, |files| !files.is_empty()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_says_how_many_bytes_of_deletion_vectors_a_cut_wrote() {
    let mut run = Run::new(IndexKind::Files, KeyKind::Long);
    let mut sink = run.start().await;
    run.cut(&mut sink).await;
    assert_eq!(sink.rewritten(), 0, "nothing was there before");
    for _ in 0..3 {
        run.cut(&mut sink).await;
        assert!(sink.rewritten() > 0);
    }
}
