//! Random changes, cuts and restarts: after every commit the table is the source.

use std::collections::BTreeMap;

use millrace_core::cut::Cut;
use millrace_core::position::Order;
use millrace_core::sink::Sink;

use super::mirror::*;
use super::support::*;
use crate::config::Mode;
use crate::sink::DeltaSink;

fn cut(last: Order) -> Cut {
    cut_of(&[(source(), last.commit())])
}

fn snapshot_cut(order: Order) -> Cut {
    Cut { snapshot: BTreeMap::from([(source(), order)]), last: BTreeMap::new(), position: None, ..cut(order) }
}

async fn write_all(sink: &mut DeltaSink, batches: &[millrace_core::batch::ChangeBatch]) {
    for batch in batches {
        sink.write(batch.clone()).await.unwrap();
    }
}

struct Run {
    lake: Lake,
    source: Source,
    epoch: u64,
}

impl Run {
    fn new(kind: KeyKind, seed: u64) -> Self {
        let mut lake = Lake::new(Mode::Upsert);
        let mut source = Source::new(kind, seed);
        if source.dice.one_in(3) {
            lake.config.partition_by = vec!["region".into()];
        }
        lake.config.checkpoint_interval = 1 + source.dice.below(6);
        // In some runs no key fits in memory: every cut reads them from the files.
        if source.dice.one_in(3) {
            lake.config.index_memory = 1 << 20;
        }
        Self { lake, source, epoch: 0 }
    }

    async fn start(&mut self) -> DeltaSink {
        self.epoch += 1;
        let mut sink = self.lake.sink();
        let stored = sink.fence(&claim(self.epoch, &[orders()])).await.unwrap();
        if self.source.mirror.commit > 0 {
            let position = stored[&orders()].get(&source()).map(Order::commit);
            assert_eq!(position, Some(self.source.mirror.commit), "the position is that of the last commit");
        }
        sink
    }

    async fn check(&self) {
        let found = current(&self.lake, &self.lake.path("public/orders"), &self.source.names()).await;
        assert_eq!(found, self.source.expected());
    }

    fn check_by_others(&self) {
        let Some(readers) = by_others(&self.lake.path("public/orders"), &self.source.names()) else {
            eprintln!("skipped: `cargo xtask setup test` installs the readers");
            return;
        };
        for (reader, rows) in readers {
            assert_eq!(rows, self.source.expected(), "{reader}");
        }
    }
}

async fn sequence(kind: KeyKind, seed: u64, cuts: u64) {
    let mut run = Run::new(kind, seed);
    let mut sink = run.start().await;
    if run.source.dice.one_in(2) {
        // Rows that were there before: they come by a snapshot.
        let batches = run.source.batches(30);
        drop(batches);
        if let Some(batch) = run.source.snapshot() {
            sink.write(batch).await.unwrap();
            let cut = snapshot_cut(Order::new(run.source.mirror.commit, 1));
            assert!(sink.prepare(&cut).await.unwrap().manifest.is_some());
            sink.commit(&cut).await.unwrap();
            run.check().await;
        } else {
            run.source.mirror.commit = 0;
        }
    }
    for _ in 0..cuts {
        let before = run.source.mirror.clone();
        let changes = 1 + run.source.dice.below(60);
        let batches = run.source.batches(changes);
        write_all(&mut sink, &batches).await;
        let cut = cut(Order::new(run.source.mirror.commit, 1));
        match run.source.dice.below(8) {
            0 => {
                // The host dies before its commit; another one reads the same changes again, cut differently perhaps.
                if run.source.dice.one_in(2) {
                    assert!(sink.prepare(&cut).await.unwrap().refused.is_empty());
                }
                drop(sink);
                let after = std::mem::replace(&mut run.source.mirror, before);
                sink = run.start().await;
                run.source.mirror = after;
                write_all(&mut sink, &batches).await;
            }
            1 => {
                // It dies after its commit.
                assert!(sink.prepare(&cut).await.unwrap().refused.is_empty());
                sink.commit(&cut).await.unwrap();
                sink = run.start().await;
                run.check().await;
                continue;
            }
            _ => {}
        }
        assert!(sink.prepare(&cut).await.unwrap().refused.is_empty());
        sink.commit(&cut).await.unwrap();
        run.check().await;
    }
    run.check_by_others();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_the_source_after_every_commit_whatever_its_key() {
    for (place, kind) in KEY_KINDS.into_iter().enumerate() {
        for round in 0..4 {
            let seed = place as u64 * 1_000 + round;
            eprintln!("{kind:?}, seed {seed}");
            sequence(kind, seed, 12).await;
        }
    }
}
