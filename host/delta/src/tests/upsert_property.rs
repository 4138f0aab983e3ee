//! Random changes, cuts and restarts: after every commit the table is the source.

use std::collections::BTreeMap;

use millrace_core::cut::Cut;
use millrace_core::position::Order;
use millrace_core::sink::Sink;

use super::mirror::*;
use super::support::*;
use crate::config::{IndexKind, Mode};
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
    fn new(kind: KeyKind, seed: u64, keys: u64) -> Self {
        let mut lake = Lake::new(Mode::Upsert);
        let mut source = Source::new(kind, seed).with_keys(keys);
        if source.dice.one_in(3) {
            lake.config.partition_by = vec!["region".into()];
        }
        lake.config.checkpoint_interval = 1 + source.dice.below(6);
        // In some runs hardly a key fits in memory: they go to disk, or every cut reads them from the files.
        lake.index_memory = [None, Some(0), Some(4 << 10)][source.dice.below(3) as usize];
        if !source.dice.one_in(3) {
            lake.config.index_dir = Some(lake.path("index"));
            lake.config.index = if source.dice.one_in(2) { IndexKind::Exact } else { IndexKind::Files };
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

    /// No commit of ours is one of those by which readers come to differ
    /// (`../shared/servers/spark/README.md`: what readers do not notice).
    fn check_log(&self) {
        let log = self.lake.path("public/orders/_delta_log");
        let mut names: Vec<_> = std::fs::read_dir(&log).unwrap().map(|f| f.unwrap().path()).collect();
        names.retain(|p| p.extension().is_some_and(|e| e == "json"));
        names.sort();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        let mut present: BTreeMap<String, serde_json::Value> = BTreeMap::new();
        let mut protocols = 0;
        for name in names {
            let text = std::fs::read_to_string(&name).unwrap();
            let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            let mut touched = std::collections::BTreeSet::new();
            for remove in lines.iter().map(|l| &l["remove"]).filter(|r| !r.is_null()) {
                let path = remove["path"].as_str().unwrap().to_owned();
                assert_eq!(
                    present.remove(&path).unwrap(),
                    remove["deletionVector"],
                    "{name:?}: {path} with its vector"
                );
                assert!(now - remove["deletionTimestamp"].as_i64().unwrap() < 600_000, "the real time");
                assert_eq!(remove["extendedFileMetadata"], true);
                touched.insert((path, remove["deletionVector"].to_string()));
            }
            for add in lines.iter().map(|l| &l["add"]).filter(|a| !a.is_null()) {
                let path = add["path"].as_str().unwrap().to_owned();
                let vector = &add["deletionVector"];
                assert!(!touched.contains(&(path.clone(), vector.to_string())), "added and removed at once");
                let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
                assert!(stats["numRecords"].as_u64().unwrap() > 0);
                assert!(vector.is_null() || stats["tightBounds"] == false);
                assert!(
                    vector.is_null() || vector["cardinality"].as_i64().unwrap() < stats["numRecords"].as_i64().unwrap()
                );
                assert!(present.insert(path, vector.clone()).is_none(), "an entry replaces another one");
            }
            for protocol in lines.iter().map(|l| &l["protocol"]).filter(|p| !p.is_null()) {
                protocols += 1;
                assert_eq!(
                    (protocol["minReaderVersion"].as_i64(), protocol["minWriterVersion"].as_i64()),
                    (Some(3), Some(7))
                );
                assert_eq!(protocol["readerFeatures"], serde_json::json!(["deletionVectors"]));
            }
        }
        assert_eq!(protocols, 1);
    }

    /// Compactions in the log, how many of them marked rows that went while they ran, and sets of keys on disk.
    fn met(&self) -> [usize; 3] {
        let log = self.lake.path("public/orders/_delta_log");
        let texts =
            std::fs::read_dir(&log).unwrap().map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap_or_default());
        let compactions: Vec<String> = texts.filter(|text| text.contains(r#""operation":"OPTIMIZE""#)).collect();
        let added = |text: &String| text.lines().any(|l| l.starts_with(r#"{"add""#) && l.contains("deletionVector"));
        let merged = super::upsert_index::stored(&self.lake).iter().filter(|(_, files)| *files > 1).count();
        [compactions.len(), compactions.iter().filter(|text| added(text)).count(), merged]
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

async fn sequence(kind: KeyKind, seed: u64, (keys, cuts): (u64, u64)) -> [usize; 3] {
    let mut run = Run::new(kind, seed, keys);
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
        let refused = sink.prepare(&cut).await.unwrap().refused;
        assert!(refused.is_empty(), "{}", refused[0].reason);
        sink.commit(&cut).await.unwrap();
        run.check().await;
    }
    run.check_log();
    run.check_by_others();
    run.met()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_the_source_after_every_commit_whatever_its_key() {
    for (place, kind) in KEY_KINDS.into_iter().enumerate() {
        for round in 0..3 {
            let seed = place as u64 * 1_000 + round;
            eprintln!("{kind:?}, seed {seed}");
            sequence(kind, seed, (40, 12)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_the_source_while_it_is_compacted() {
    let mut met = [0; 3];
    for (place, kind) in KEY_KINDS.into_iter().enumerate() {
        let seed = 500_000 + place as u64;
        eprintln!("{kind:?}, seed {seed}");
        let one = sequence(kind, seed, (1_000, 50)).await;
        met.iter_mut().zip(one).for_each(|(all, one)| *all += one);
    }
    let [compactions, overtaken, sets] = met;
    assert!(compactions > 5 && overtaken > 2, "{compactions} compactions, {overtaken} of them beside changes");
    assert!(sets > 0, "keys were merged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_read_right_wherever_their_keys_are() {
    for kind in [KeyKind::Long, KeyKind::Text] {
        for (index_memory, index_dir, index) in
            [(1 << 20, false, IndexKind::Files), (64 << 20, false, IndexKind::Files), (3 << 20, true, IndexKind::Exact)]
        {
            let mut run = Run::new(kind, 900, 150_000);
            run.lake.index_memory = Some(index_memory);
            run.lake.config.index_dir = index_dir.then(|| run.lake.path("index"));
            run.lake.config.index = index;
            run.lake.config.partition_by = Vec::new();
            let mut sink = run.start().await;
            for changes in [250_000, 20_000, 20_000] {
                write_all(&mut sink, &run.source.batches(changes)).await;
                let cut = cut(Order::new(run.source.mirror.commit, 1));
                assert!(sink.prepare(&cut).await.unwrap().refused.is_empty());
                sink.commit(&cut).await.unwrap();
                sink = run.start().await;
            }
            assert!(run.source.mirror.rows.len() > 80_000);
            run.check().await;
            run.check_log();
        }
    }
}
