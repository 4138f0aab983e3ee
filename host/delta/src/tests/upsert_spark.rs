//! Spark writes the mirrored table in turn with us: the rows are those of both.

use millrace_core::position::Order;
use millrace_core::sink::Sink;

use super::mirror::{KeyKind, Row, Source, current};
use super::others::{by_others, spark};
use super::support::*;
use crate::config::Mode;
use crate::sink::DeltaSink;

struct Turns {
    lake: Lake,
    source: Source,
    sink: DeltaSink,
}

impl Turns {
    async fn ours(&mut self) {
        for batch in self.source.batches(40) {
            self.sink.write(batch).await.unwrap();
        }
        let cut = cut_of(&[(source(), self.source.mirror.commit)]);
        assert!(self.sink.prepare(&cut).await.unwrap().refused.is_empty());
        self.sink.commit(&cut).await.unwrap();
    }

    /// What Spark does, in the table and in the model.
    fn theirs(&mut self, what: &str) {
        let table = format!("delta.`{}`", self.lake.path("public/orders").display());
        let key = |id: &u64| (*id as i64 * 7 - 50).to_string();
        let rows = &mut self.source.mirror.rows;
        let statement = match what {
            "MERGE" => {
                let gone = *rows.keys().next().unwrap();
                rows.remove(&gone);
                for row in rows.values_mut().take(5) {
                    row.value = Some("merged".into());
                }
                let updated: Vec<String> = rows.keys().take(5).map(key).collect();
                let position = Order::new(self.source.mirror.commit, 1);
                let row = Row {
                    extras: Default::default(),
                    value: None,
                    wide: "theirs".into(),
                    region: "r1".into(),
                    position,
                };
                let new = (0..).find(|id| !rows.contains_key(id)).unwrap();
                rows.insert(new, row);
                format!(
                    "merge into {table} t using (select explode(array({gone}, {new}, {})) k) s on t.k = s.k \
                     when matched and s.k = {gone} then delete \
                     when matched then update set value = 'merged' \
                     when not matched then insert (k, wide, region, _millrace_position) \
                       values (s.k, 'theirs', 'r1', '{}')",
                    updated.join(", "),
                    position.to_sortable(),
                    gone = key(&gone),
                    new = key(&new),
                )
            }
            "DELETE" => {
                rows.retain(|id, _| id % 5 != 0);
                format!("delete from {table} where ((k + 50) div 7) % 5 = 0")
            }
            "OPTIMIZE" => format!("optimize {table}"),
            "REORG" => format!("reorg table {table} apply (purge)"),
            "VACUUM" => format!("vacuum {table} retain 0 hours"),
            _ => panic!("{what}"),
        };
        spark().unwrap().sql(&statement);
    }

    async fn check(&self, turn: &str) {
        let (table, names) = (self.lake.path("public/orders"), self.source.names());
        assert_eq!(current(&self.lake, &table, &names).await, self.source.expected(), "we after {turn}");
        for (reader, rows) in by_others(&table, &names).await {
            assert_eq!(rows, self.source.expected(), "{reader} after {turn}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spark_writes_in_turn_with_us_and_every_reader_finds_the_rows_of_both() {
    if spark().is_none() {
        return;
    }
    let turns_of_spark: [(&[&str], &[&str]); 2] = [
        (&[], &["MERGE", "DELETE", "OPTIMIZE", "VACUUM"]),
        (&["region"], &["MERGE", "REORG", "DELETE", "OPTIMIZE", "VACUUM"]),
    ];
    for (partition_by, statements) in turns_of_spark {
        let mut lake = Lake::new(Mode::Upsert);
        lake.config.partition_by = partition_by.iter().map(|name| (*name).to_owned()).collect();
        lake.config.checkpoint_interval = 4;
        let sink = lake.sink();
        let mut turns = Turns { lake, source: Source::new(KeyKind::Long, 77).with_keys(1_001), sink };
        fenced(&mut turns.sink, 1, &[]).await;
        for _ in 0..4 {
            turns.ours().await;
        }
        for (turn, what) in statements.iter().enumerate() {
            turns.theirs(what);
            if turn % 2 == 1 {
                // Another host takes over what Spark left.
                turns.sink = turns.lake.sink();
                fenced(&mut turns.sink, 2 + turn as u64, &[orders()]).await;
            }
            turns.ours().await;
            turns.check(&format!("{what} and a cut of ours")).await;
        }
    }
}
