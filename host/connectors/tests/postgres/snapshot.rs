//! The snapshot and the stream together hold every row once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_core::batch::ChangeType;
use millrace_core::cut::Boundary;
use millrace_core::position::SourceKey;
use serde_json::json;

use crate::feed::{Feed, Session};
use crate::servers::postgres::{Postgres, VERSIONS};

/// Writes from several sessions at once until told to stop; answers how many statements were committed. Each changes rows
/// of its own, so that no two wait for each other.
fn writers(server: &Postgres, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<u32>> {
    (0..3u32)
        .map(|writer| {
            let stop = stop.clone();
            let mut session = Session::of(server);
            std::thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = writer * 1_000_000 + 100_000 + done;
                    session.run(&format!(
                        "begin; insert into a values ({id}, 'new'); update a set v = 'u{done}' where id < 100000 and id % 4 = {writer} and id % 97 = {done} % 97; \
                         delete from a where id = {id} - 3; insert into b values ({id}, 'new'); \
                         update b set id = -id where id = {id} - 1; commit;"
                    ));
                    done += 1;
                }
                done
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_under_concurrent_writes_loses_and_repeats_nothing() {
    for version in VERSIONS {
        let server = Postgres::options(version).setting("logical_decoding_work_mem", "64kB").start();
        server.sql("create table a (id int primary key, v text); create table b (id int primary key, v text); \
            insert into a select i, 'old' from generate_series(1, 20000) i; insert into b select i, 'old' from generate_series(1, 5000) i");
        let stop = Arc::new(AtomicBool::new(false));
        let writing = writers(&server, &stop);
        let mut feed = Feed::open(&server, &["public.a", "public.b"], json!({})).await;
        feed.until_snapshots(2).await;
        // As long as the snapshots took, and beyond them.
        let snapshot = feed.images.len();
        feed.until_images(snapshot + 2_000).await;
        stop.store(true, Ordering::Relaxed);
        let written: u32 = writing.into_iter().map(|w| w.join().unwrap()).sum();
        assert!(written > 10, "the writers did not get on: {written}");
        server.sql("insert into b values (0, 'end')");
        feed.until(|feed| feed.images.iter().any(|i| i.get("v") == "end")).await;
        for table in ["a", "b"] {
            let rows = server.sql(&format!("select id || '=' || v from {table} order by id"));
            let mut expected: Vec<&str> = rows.lines().collect();
            let folded = feed.folded();
            let mut found: Vec<String> = folded
                .iter()
                .filter(|((t, _), _)| *t == format!("public.{table}"))
                .map(|((_, id), cells)| format!("{id}={}", cells[1].1))
                .collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "{version}: table {table} after {written} transactions");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_between_the_slot_and_the_snapshot_is_read_once() {
    let server = Postgres::start(15);
    server.sql("create table t (id int primary key); insert into t values (1)");
    // Opening creates the slot; the snapshot begins with the first read.
    let mut feed = Feed::open(&server, &["public.t"], json!({})).await;
    server.sql("insert into t values (2)");
    feed.until_snapshots(1).await;
    server.sql("insert into t values (3)");
    feed.until_images(3).await;
    assert_eq!(feed.lines(), ["insert id=1", "insert id=2", "insert id=3"]);
    assert_eq!(feed.images.iter().map(|i| i.snapshot).collect::<Vec<_>>(), [true, true, false]);
    let (snapshot, streamed) = (feed.images[1].order, feed.images[2].order);
    assert!(snapshot < streamed && snapshot.0[1] == 2);
    // The temporary slot is gone, ours is in use.
    feed.until_idle().await;
    assert_eq!(server.sql("select slot_name, active from pg_replication_slots"), "millrace_test|t");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_has_a_snapshot_too_and_a_recorded_one_is_not_read_again() {
    let server = Postgres::start(15);
    server.sql("create table a (id int primary key); create table b (id int primary key)");
    let mut feed = Feed::open(&server, &["public.*"], json!({})).await;
    feed.until_snapshots(2).await;
    assert!(feed.images.is_empty());
    let kinds: Vec<bool> = feed.boundaries.iter().map(|b| matches!(b, Boundary::Snapshot { .. })).collect();
    assert_eq!(kinds, [true, true]);
    server.sql("insert into a values (1)");
    feed.until_images(1).await;
    feed.restart().await;
    server.sql("insert into b values (2)");
    feed.until_images(2).await;
    assert!(feed.images.iter().all(|i| !i.snapshot && i.kind == ChangeType::Insert));
    assert_eq!(
        feed.resume.snapshots.keys().collect::<Vec<_>>(),
        [&SourceKey::new("public.a"), &SourceKey::new("public.b")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_later_gets_its_own_snapshot_at_the_next_start() {
    let server = Postgres::start(15);
    server.sql("create table a (id int primary key); insert into a values (1)");
    let mut feed = Feed::open(&server, &["public.*"], json!({})).await;
    feed.until_snapshots(1).await;
    server.sql("create table b (id int primary key); insert into b values (10); insert into a values (2)");
    feed.until_images(2).await;
    feed.acknowledge().await;
    feed.restart().await;
    server.sql("insert into b values (11); insert into a values (3)");
    feed.until(|feed| feed.distinct().len() >= 5).await;
    let mut found: Vec<(String, bool)> =
        feed.distinct().iter().map(|i| (format!("{} {}", i.table, i.get("id")), i.snapshot)).collect();
    found.sort_unstable();
    let expected = [
        ("public.a 1", true),
        ("public.a 2", false),
        ("public.a 3", false),
        ("public.b 10", true),
        ("public.b 11", true),
    ];
    assert_eq!(found, expected.map(|(line, snapshot)| (line.to_owned(), snapshot)));
}
