//! Random changes, cuts and restarts: after every commit the table is the source.

use std::collections::BTreeMap;

use millrace_core::cut::Cut;
use millrace_core::position::Order;
use millrace_core::sink::Sink;

use super::feed::replayed;
use super::mirror::*;
use super::others::{by_all_but_spark, by_duckdb, by_others, by_quick_ones, feeds};
use super::support::*;
use crate::config::{IndexKind, SchemaChange, SchemaEvolution, SchemaRule};
use crate::file::layout::Layout;
use crate::file::meta::MetaColumns;
use crate::file::types::conversion;
use crate::log::schema::DeltaSchema;
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
    fn new(kind: KeyKind, seed: u64, keys: u64, lake: Lake) -> Self {
        let mut lake = lake;
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
        if source.dice.one_in(2) {
            let types = source.dice.one_in(2);
            source = source.evolving(Evolves { columns: true, types });
            let evolve = |change| SchemaRule {
                changes: vec![change],
                columns: vec!["public.orders.n*".into()],
                policy: SchemaEvolution::Evolve,
            };
            lake.config.schema_rules.extend(types.then(|| evolve(SchemaChange::ChangeType)));
        }
        let mut run = Self { lake, source, epoch: 0 };
        if run.source.dice.one_in(2) {
            run.lake.config.change_data_feed = true;
        } else if run.source.evolves.columns {
            run.lake.config.upgrade_protocol = true;
            run.make_by_others();
        }
        run
    }

    /// The table is there before us, and `n0` is NOT NULL in it.
    fn make_by_others(&self) {
        let meta = MetaColumns { change_type: false, unavailable: false };
        let mut schema = DeltaSchema::default();
        let partition_by = &self.lake.config.partition_by;
        Layout::plan(&self.source.schema, &mut schema, partition_by, &self.lake.config, meta).unwrap().unwrap();
        schema.fields.retain(|f| !f.name.starts_with(crate::META_PREFIX));
        schema.fields.iter_mut().filter(|f| f.name == "n0").for_each(|f| f.nullable = false);
        let metadata = serde_json::json!({ "metaData": {
            "id": "5b0dd3b2-7d6b-4f1c-8d5e-0c9d6b1f6b1e",
            "format": { "provider": "parquet", "options": {} },
            "schemaString": schema.to_text(),
            "partitionColumns": partition_by,
            "configuration": {},
        }});
        let protocol = serde_json::json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 }});
        let log = self.lake.path("public/orders/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join(format!("{:020}.json", 0)), format!("{protocol}\n{metadata}\n")).unwrap();
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
        let (table, names) = (self.lake.path("public/orders"), self.source.names());
        assert_eq!(current(&self.lake, &table, &names).await, self.source.expected());
        // Others refuse tables of which a type was widened.
        let duckdb = || by_duckdb(&table, &names).map(|rows| ("DuckDB", rows)).into_iter().collect();
        let found = if self.source.evolves.types { duckdb() } else { by_quick_ones(&table, &names).await };
        for (reader, rows) in found {
            assert_eq!(rows, self.source.expected(), "{reader}");
        }
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
        let (mut protocol, mut metadata) = (serde_json::Value::Null, serde_json::Value::Null);
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
                assert!(vector.is_null() || self.lake.config.deletion_vectors);
                assert!(vector.is_null() || stats["tightBounds"] == false);
                assert!(
                    vector.is_null() || vector["cardinality"].as_i64().unwrap() < stats["numRecords"].as_i64().unwrap()
                );
                assert!(present.insert(path, vector.clone()).is_none(), "an entry replaces another one");
            }
            for line in lines {
                for (name, newest) in [("protocol", &mut protocol), ("metaData", &mut metadata)] {
                    if !line[name].is_null() {
                        newest.clone_from(&line[name]);
                    }
                }
            }
        }
        self.check_form(&protocol, &metadata);
    }

    /// The table asks of its readers what it needs and nothing more, and its columns followed those of the source.
    fn check_form(&self, protocol: &serde_json::Value, metadata: &serde_json::Value) {
        let schema = DeltaSchema::parse("t", metadata["schemaString"].as_str().unwrap()).unwrap();
        let features: Vec<&str> =
            [(self.lake.config.deletion_vectors, "deletionVectors"), (schema.has_widened(), "typeWidening")]
                .into_iter()
                .filter_map(|(is_needed, name)| is_needed.then_some(name))
                .collect();
        let listed: Vec<&str> =
            protocol["readerFeatures"].as_array().into_iter().flatten().filter_map(|f| f.as_str()).collect();
        assert_eq!(listed, features);
        let versions = (protocol["minReaderVersion"].as_i64(), protocol["minWriterVersion"].as_i64());
        let reader = if features.is_empty() { 1 } else { 3 };
        let writer = if features.is_empty() && !self.lake.config.change_data_feed { 2 } else { 7 };
        assert_eq!(versions, (Some(reader), Some(writer)));
        for field in schema.fields.iter().filter(|f| !f.nullable) {
            let column = self.source.schema.columns.iter().find(|c| *c.name == *field.name);
            assert!(column.is_some_and(|c| !c.nullable), "`{}` may be NULL", field.name);
        }
        for column in &self.source.table.columns {
            let field = schema.field(&column.name).unwrap();
            assert!(conversion(&column.ty, &field.ty).is_some(), "`{}` is {}", field.name, field.ty);
        }
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

    async fn check_by_others(&self, with_spark: bool) {
        if self.source.evolves.types {
            return;
        }
        let (table, names) = (self.lake.path("public/orders"), self.source.names());
        let found = if with_spark { by_others(&table, &names).await } else { by_all_but_spark(&table, &names).await };
        for (reader, rows) in found {
            assert_eq!(rows, self.source.expected(), "{reader}");
        }
        if self.lake.config.change_data_feed {
            for (reader, feed) in feeds(&table, &names, with_spark) {
                assert_eq!(replayed(reader, feed), self.source.expected(), "the feed by {reader}");
            }
        }
    }
}

async fn sequence(kind: KeyKind, seed: u64, (keys, cuts): (u64, u64), lake: Lake) -> [usize; 3] {
    let mut run = Run::new(kind, seed, keys, lake);
    let mut sink = run.start().await;
    if run.source.dice.one_in(2) {
        // Rows that were there before: they come by a snapshot.
        let batches = run.source.batches(30);
        drop(batches);
        run.source.table = std::sync::Arc::clone(&run.source.schema);
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
    // One sequence of each kind of key.
    run.check_by_others(seed.is_multiple_of(1_000)).await;
    run.met()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_the_source_after_every_commit_whatever_its_key() {
    for (place, kind) in KEY_KINDS.into_iter().enumerate() {
        for round in 0..2 {
            for lake in Lake::of_current_rows() {
                let seed = place as u64 * 1_000 + round;
                eprintln!("{kind:?}, seed {seed}, deletion vectors: {}", lake.config.deletion_vectors);
                sequence(kind, seed, (40, 12), lake).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_the_source_while_it_is_compacted() {
    let mut met = [0; 3];
    for (place, kind) in KEY_KINDS.into_iter().enumerate() {
        let seed = 500_000 + place as u64;
        for lake in Lake::of_current_rows() {
            eprintln!("{kind:?}, seed {seed}, deletion vectors: {}", lake.config.deletion_vectors);
            let one = sequence(kind, seed, (1_000, 50), lake).await;
            met.iter_mut().zip(one).for_each(|(all, one)| *all += one);
        }
    }
    let [compactions, overtaken, sets] = met;
    assert!(compactions > 5 && overtaken > 2, "{compactions} compactions, {overtaken} of them beside changes");
    assert!(sets > 0, "keys were merged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_read_right_wherever_their_keys_are() {
    for kind in [KeyKind::Long, KeyKind::Text] {
        let [vectors, rewriting] = Lake::of_current_rows();
        let [exact, _] = Lake::of_current_rows();
        let ways = [
            (1 << 20, false, IndexKind::Files, vectors),
            (64 << 20, false, IndexKind::Files, rewriting),
            (3 << 20, true, IndexKind::Exact, exact),
        ];
        for (index_memory, index_dir, index, lake) in ways {
            let mut run = Run::new(kind, 900, 150_000, lake);
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
