//! Positions, epochs and snapshots: nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millrace_core::environment::Environment;
use millrace_core::error::Kind;
use millrace_core::position::Order;
use millrace_core::record::{Create, RecordStore};
use millrace_core::schema::TableName;
use millrace_core::sink::{Provenance, Sink, StoredLetter};

use super::support::*;
use crate::config::Mode;
use crate::records::ObjectRecords;
use crate::sink::DeltaSink;

fn stored(order: i64) -> BTreeMap<TableName, BTreeMap<millrace_core::position::SourceKey, Order>> {
    BTreeMap::from([(orders(), BTreeMap::from([(source(), Order::new(order, 1))]))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_the_position_of_the_last_commit() {
    let lake = Lake::new(Mode::Changelog);
    let mut sink = lake.sink();
    assert!(fenced(&mut sink, 1, &[]).await.is_empty());
    sink.write(inserts(&orders_schema(), source(), 1..=3)).await.unwrap();
    let cut = cut_of(&[(source(), 3)]);
    let prepared = sink.prepare(&cut).await.unwrap();
    assert_eq!(prepared.new_tables, [orders()].into());
    assert!(prepared.refused.is_empty() && prepared.manifest.is_none());
    sink.commit(&cut).await.unwrap();
    put(&mut sink, 4..=5).await.unwrap();
    assert_eq!(sink.committed(), BTreeMap::from([(orders(), 5)]));

    let mut again = lake.sink();
    assert_eq!(fenced(&mut again, 2, &[orders()]).await, stored(5));
    put(&mut again, 6..=6).await.unwrap();
    let table = lake.path("public/orders");
    assert_eq!(ids(&table).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(column(&table, "_millrace_position").await[0], Order::new(1, 1).to_sortable());
    assert_eq!(column(&table, "_millrace_change_type").await[0], "insert");
    assert_eq!(sink.location(&orders()).unwrap(), table.display().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_writer_lets_go_and_leaves_nothing() {
    let lake = Lake::new(Mode::Changelog);
    let mut old = lake.sink();
    fenced(&mut old, 1, &[]).await;
    put(&mut old, 1..=2).await.unwrap();
    let mut new = lake.sink();
    assert_eq!(fenced(&mut new, 2, &[orders()]).await, stored(2));
    let error = put(&mut old, 3..=3).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::LetGo, "epoch.superseded"));
    put(&mut new, 3..=4).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2, 3, 4]);
    let error = old.fence(&claim(1, &[orders()])).await.unwrap_err();
    assert_eq!(error.kind, Kind::LetGo);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_that_race_under_one_epoch_never_repeat_a_row() {
    // The lease prevents this; the compare-and-set must hold even so.
    let lake = Lake::new(Mode::Append);
    let mut first = lake.sink();
    fenced(&mut first, 1, &[]).await;
    put(&mut first, 1..=1).await.unwrap();
    let race = |mut sink: DeltaSink| async move {
        let mut at = fenced(&mut sink, 1, &[orders()]).await[&orders()][&source()].commit();
        let mut reloads = 0;
        while at < 40 {
            match put(&mut sink, at + 1..=at + 1).await {
                Ok(()) => at += 1,
                Err(error) => {
                    assert_eq!((error.kind, error.code), (Kind::Reload, "position.moved"));
                    reloads += 1;
                    at = fenced(&mut sink, 1, &[orders()]).await[&orders()][&source()].commit();
                }
            }
        }
        reloads
    };
    let (one, two) = (tokio::spawn(race(lake.sink())), tokio::spawn(race(lake.sink())));
    let reloads = one.await.unwrap() + two.await.unwrap();
    assert!(reloads > 0, "they did race");
    assert_eq!(ids(&lake.path("public/orders")).await, (1..=40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_position_is_refused_even_where_the_stored_one_is_lower() {
    let lake = Lake::new(Mode::Append);
    let (mut one, mut two) = (lake.sink(), lake.sink());
    fenced(&mut one, 1, &[]).await;
    put(&mut one, 1..=1).await.unwrap();
    fenced(&mut one, 1, &[orders()]).await;
    fenced(&mut two, 1, &[orders()]).await;
    put(&mut one, 2..=5).await.unwrap();
    // Beyond everything stored, and yet not from where the table is.
    let error = put(&mut two, 10..=11).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Reload, "position.moved"));
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_creates_tables_that_are_only_names() {
    let lake = Lake::new(Mode::Changelog);
    let (mut old, mut new) = (lake.sink(), lake.sink());
    fenced(&mut old, 1, &[]).await;
    // The old host is about to create the table, its name is in the record.
    old.write(inserts(&orders_schema(), source(), 1..=1)).await.unwrap();
    let cut = cut_of(&[(source(), 1)]);
    old.prepare(&cut).await.unwrap();
    assert_eq!(fenced(&mut new, 2, &[orders()]).await, BTreeMap::from([(orders(), BTreeMap::new())]));
    let error = old.commit(&cut).await.unwrap_err();
    assert_eq!(error.kind, Kind::LetGo);
    put(&mut new, 1..=2).await.unwrap();
    let table = lake.path("public/orders");
    assert_eq!(ids(&table).await, [1, 2]);
    // The shell became a table like any other, its own columns first.
    let store = crate::store::Store::open(&table.display().to_string(), &Default::default()).unwrap();
    let loaded = crate::log::Table::open(store, Arc::clone(&lake.machine) as Arc<dyn Environment>, 0).await.unwrap();
    let state = loaded.state().unwrap();
    assert_eq!((state.schema.fields[0].name.as_str(), state.metadata.property("millrace.shell")), ("id", None));
    let mut third = lake.sink();
    assert_eq!(fenced(&mut third, 3, &[orders()]).await, stored(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_positions_that_no_record_names_is_not_written() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let mut amnesiac = lake.sink();
    fenced(&mut amnesiac, 2, &[]).await;
    let error = put(&mut amnesiac, 1..=1).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "position.gap"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_staging_and_commit_leaves_an_orphan_and_no_row() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    sink.write(inserts(&orders_schema(), source(), 2..=3)).await.unwrap();
    sink.prepare(&cut_of(&[(source(), 3)])).await.unwrap();
    drop(sink);
    let table = lake.path("public/orders");
    assert_eq!(count_of(&table, ".parquet"), 2);
    let mut again = lake.sink();
    assert_eq!(fenced(&mut again, 2, &[orders()]).await, stored(1));
    put(&mut again, 2..=3).await.unwrap();
    assert_eq!(ids(&table).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_forgets_what_was_written_and_not_committed() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    sink.write(inserts(&orders_schema(), source(), 2..=3)).await.unwrap();
    fenced(&mut sink, 2, &[orders()]).await;
    put(&mut sink, 2..=2).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2]);
    assert_eq!(sink.committed()[&orders()], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_committed_from_its_manifest_after_a_crash_and_only_once() {
    let lake = Lake::new(Mode::Changelog);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    sink.write(inserts(&orders_schema(), source(), 1..=50)).await.unwrap();
    let mut cut = cut_of(&[(source(), 50)]);
    cut.position = None;
    cut.snapshot.insert(source(), Order::new(100, 0));
    let prepared = sink.prepare(&cut).await.unwrap();
    let manifest = prepared.manifest.unwrap();
    drop(sink);
    for epoch in 2..4 {
        let mut again = lake.sink();
        fenced(&mut again, epoch, &[orders()]).await;
        again.recommit(&manifest).await.unwrap();
        let stored = fenced(&mut again, epoch, &[orders()]).await;
        assert_eq!(stored[&orders()][&source()], Order::new(100, 0));
        assert_eq!(ids(&lake.path("public/orders")).await, (1..=50).collect::<Vec<_>>());
    }
    let mut again = lake.sink();
    fenced(&mut again, 5, &[orders()]).await;
    put(&mut again, 101..=101).await.unwrap();
    again.recommit(&manifest).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await.len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_source_table_of_a_merged_table_has_its_own_position() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    let other = millrace_core::position::SourceKey::new("archive.orders");
    fenced(&mut sink, 1, &[]).await;
    sink.write(inserts(&orders_schema(), source(), 1..=2)).await.unwrap();
    sink.write(inserts(&orders_schema(), other.clone(), 5..=6)).await.unwrap();
    let cut = cut_of(&[(source(), 2), (other.clone(), 6)]);
    sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
    put(&mut sink, 7..=7).await.unwrap();
    let positions = fenced(&mut sink, 2, &[orders()]).await.remove(&orders()).unwrap();
    assert_eq!(positions, BTreeMap::from([(source(), Order::new(7, 1)), (other, Order::new(6, 1))]));
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2, 5, 6, 7]);
}

/// Commits until so many checkpoints are there, which are written beside the stream. Answers how many commits that took.
async fn put_until_checkpoints(sink: &mut DeltaSink, log: &Path, checkpoints: usize) -> i64 {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut at = 0;
    while count_of(log, ".checkpoint.parquet") < checkpoints {
        assert!(std::time::Instant::now() < deadline, "no checkpoint after {at} commits");
        at += 1;
        put(sink, at..=at).await.unwrap();
        tokio::task::yield_now().await;
    }
    at
}

#[test]
fn the_kernel_takes_none_of_the_threads_that_it_needs_for_reading() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut lake = Lake::new(Mode::Append);
        lake.config.checkpoint_interval = 5;
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let log = lake.path("public/orders/_delta_log");
        let written = put_until_checkpoints(&mut sink, &log, 1);
        tokio::time::timeout(std::time::Duration::from_secs(60), written).await.expect("no thread waits for another");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_written_and_a_reload_from_one_equals_the_state_before() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.checkpoint_interval = 5;
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let log = lake.path("public/orders/_delta_log");
    let at = put_until_checkpoints(&mut sink, &log, 2).await;
    // Without the commits before the newest checkpoint only the checkpoint can tell.
    let newest = std::fs::read_dir(&log)
        .unwrap()
        .filter_map(|f| {
            f.unwrap()
                .file_name()
                .to_string_lossy()
                .strip_suffix(".checkpoint.parquet")
                .map(|v| v.parse::<u64>().unwrap())
        })
        .max()
        .unwrap();
    for version in 0..=newest {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let mut again = lake.sink();
    assert_eq!(fenced(&mut again, 2, &[orders()]).await, stored(at));
    put(&mut again, at + 1..=at + 1).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await, (1..=at + 1).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_read_back_with_the_positions_of_every_earlier_cut() {
    let lake = Lake::new(Mode::Changelog);
    let mut config = lake.config.clone();
    config.path = lake.path("_dead_letters").display().to_string();
    let open =
        || DeltaSink::single(config.clone(), PIPELINE, Arc::clone(&lake.machine) as Arc<dyn Environment>).unwrap();
    let table = TableName::new("", millrace_core::letters::TABLE);
    let mut sink = open();
    fenced(&mut sink, 1, std::slice::from_ref(&table)).await;
    assert!(sink.stored_letters(None).await.unwrap().is_empty());
    let by = millrace_core::letters::Refuser {
        pipeline: PIPELINE,
        incarnation: "sys/1",
        stage: "rules",
        spec: None,
        later: &[],
    };
    let batch = inserts(&orders_schema(), source(), 1..=9);
    for change in [2, 5] {
        let reject =
            millrace_core::batch::Reject { change, code: "rule.range".into(), reason: "too low".into(), column: None };
        sink.write(millrace_core::letters::letters(&batch, &[reject], &by).unwrap()).await.unwrap();
        // Another source table moved on without letters of its own.
        let cut =
            cut_of(&[(source(), i64::from(change) + 1), (millrace_core::position::SourceKey::new("public.items"), 4)]);
        sink.prepare(&cut).await.unwrap();
        sink.commit(&cut).await.unwrap();
    }
    let mut again = open();
    let positions = fenced(&mut again, 2, std::slice::from_ref(&table)).await.remove(&table).unwrap();
    assert_eq!(positions.len(), 2);
    let letter = |commit| StoredLetter { source: source(), order: Order::new(commit, 1) };
    assert_eq!(again.stored_letters(None).await.unwrap(), [letter(3), letter(6)]);
    assert_eq!(again.stored_letters(Some(Order::new(3, 1))).await.unwrap(), [letter(6)]);
    assert_eq!(column(&lake.path("_dead_letters"), "code").await, ["rule.range", "rule.range"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provenance_has_one_row_a_record() {
    let lake = Lake::new(Mode::Changelog);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let line = |record| Provenance {
        pipeline: PIPELINE.into(),
        incarnation: "sys/1".into(),
        epoch: 1,
        record,
        after: Order::new(1, 1).to_sortable(),
        stages: "[]".into(),
        at: 1_700_000_000_000_000,
    };
    for record in [1, 1, 4, 4] {
        sink.provenance(&line(record)).await.unwrap();
    }
    assert_eq!(column(&lake.path("_millrace/shop/provenance"), "record").await, ["1", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_created_once_and_listed_by_number() {
    let lake = Lake::new(Mode::Changelog);
    let records = lake.sink().records().unwrap();
    assert!(records.latest().await.unwrap().is_none());
    for number in [1, 2, 11] {
        assert_eq!(records.create(number, format!("r{number}").as_bytes()).await.unwrap(), Create::Created);
    }
    assert_eq!(records.create(2, b"other").await.unwrap(), Create::Taken);
    assert_eq!(records.latest().await.unwrap(), Some((11, b"r11".to_vec())));
    assert_eq!(records.read(2).await.unwrap(), Some(b"r2".to_vec()));
    records.prune(11).await.unwrap();
    assert!(records.read(1).await.unwrap().is_some(), "too young to be pruned");
    records.put_artifact("abc123", b"wasm").await.unwrap();
    records.put_artifact("abc123", b"wasm").await.unwrap();
    assert_eq!(records.artifact("abc123").await.unwrap(), Some(b"wasm".to_vec()));
    assert_eq!(records.artifact("ffff").await.unwrap(), None);
    assert_eq!(records.artifact("../x").await.unwrap_err().code, "internal.bug");

    let environment = Arc::clone(&lake.machine) as Arc<dyn Environment>;
    let local = ObjectRecords::in_folder(&lake.path("state").display().to_string(), "a b", environment).unwrap();
    assert_eq!(local.create(1, b"x").await.unwrap(), Create::Created);
    assert!(lake.path("state/a=20b/records").exists());
}
