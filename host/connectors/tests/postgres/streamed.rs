//! Transactions that the server streams before they commit.

use millrace_core::cut::Boundary;
use serde_json::json;

use crate::feed::{Feed, Session};
use crate::servers::postgres::{Postgres, VERSIONS};

/// The smallest there is: nearly every transaction is streamed.
fn streaming_server(version: u32) -> Postgres {
    Postgres::options(version).setting("logical_decoding_work_mem", "64kB").start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_streamed_transaction_comes_whole_without_its_rolled_back_parts() {
    for version in VERSIONS {
        let server = streaming_server(version);
        server.sql("create table t (id int primary key, v text); create table u (id int primary key)");
        let mut feed = Feed::open(&server, &["public.*"], json!({ "snapshot": "never" })).await;
        let spill = feed.spill_dir();
        server.sql(
            "begin; insert into t select i, repeat('a', 100) from generate_series(1, 3000) i; \
             savepoint s; insert into t select i, repeat('b', 100) from generate_series(3001, 6000) i; insert into u values (1); \
             rollback to s; insert into u values (2); \
             savepoint s2; insert into t select i, repeat('c', 100) from generate_series(6001, 9000) i; release s2; commit",
        );
        server.sql("begin; insert into t select i, repeat('r', 100) from generate_series(20000, 24000) i; rollback");
        server.sql("insert into t values (10000, 'after')");
        feed.until(|feed| feed.images.iter().any(|i| i.get("v") == "after")).await;
        let streamed =
            server.sql("select stream_txns > 0 from pg_stat_replication_slots where slot_name = 'millrace_test'");
        assert_eq!(streamed, "t", "{version}: nothing was streamed");
        let ids: Vec<i64> =
            feed.images.iter().filter(|i| i.table == "public.t").map(|i| i.get("id").parse().unwrap()).collect();
        let expected: Vec<i64> = (1..=3000).chain(6001..=9000).chain([10_000]).collect();
        assert_eq!(ids, expected, "{version}");
        let t: Vec<i64> = feed.images.iter().filter(|i| i.table == "public.t").map(|i| i.order.0[1]).collect();
        assert_eq!(t[..6000], (1..=6000).collect::<Vec<i64>>(), "{version}: ordinals leave nothing out");
        let u: Vec<_> = feed.images.iter().filter(|i| i.table == "public.u").collect();
        assert_eq!((u.len(), u[0].get("id"), u[0].order.0[1]), (1, "2", 1), "{version}");
        assert!(
            feed.boundaries.iter().any(|b| matches!(b, Boundary::Within)),
            "{version}: full batches move on meanwhile"
        );
        let left = std::fs::read_dir(spill).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{version}: a finished transaction leaves nothing on disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_and_unstreamed_reading_give_the_same_changes_at_the_same_positions() {
    let server = streaming_server(15);
    server.sql("create table t (id int primary key, v text)");
    let streamed = json!({ "snapshot": "never", "slot": "streamed", "publication": "p" });
    let whole = json!({ "snapshot": "never", "slot": "whole", "publication": "p", "streaming": false });
    let mut streamed = Feed::open(&server, &["public.t"], streamed).await;
    let mut whole = Feed::open(&server, &["public.t"], whole).await;
    for i in 0..5 {
        server.sql(&format!(
            "begin; insert into t select i, repeat('v', 200) from generate_series({i}0000, {i}2000) i; savepoint a; \
             update t set v = 'lost'; rollback to a; delete from t where id % 3 = 0; alter table t add column c{i} int default {i}; \
             update t set c{i} = id where id % 7 = 1; commit"
        ));
    }
    server.sql("insert into t (id, v) values (-1, 'end')");
    for feed in [&mut streamed, &mut whole] {
        feed.until(|feed| feed.images.iter().any(|i| i.get("v") == "end")).await;
    }
    assert_eq!(streamed.images.len(), whole.images.len());
    for (a, b) in streamed.images.iter().zip(&whole.images) {
        assert_eq!((a.order, a.line(), a.commit_time), (b.order, b.line(), b.commit_time));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_streamed_transactions_come_in_commit_order() {
    let server = streaming_server(16);
    server.sql("create table t (id int primary key, v text)");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    let mut first = Session::of(&server);
    let mut second = Session::of(&server);
    first.run("begin; insert into t select i, repeat('a', 200) from generate_series(1, 2000) i;");
    second.run("begin; insert into t select i, repeat('b', 200) from generate_series(10001, 12000) i;");
    first.run("insert into t select i, repeat('a', 200) from generate_series(2001, 4000) i;");
    second.run("insert into t select i, repeat('b', 200) from generate_series(12001, 14000) i;");
    server.sql("insert into t values (0, 'small')");
    second.run("commit;");
    first.run("commit;");
    feed.until_images(8001).await;
    let ids: Vec<i64> = feed.images.iter().map(|i| i.get("id").parse().unwrap()).collect();
    let expected: Vec<i64> = [0].into_iter().chain(10_001..=14_000).chain(1..=4_000).collect();
    assert_eq!(ids, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_beyond_the_disk_limit_halts_by_name() {
    let server = streaming_server(15);
    server.sql("create table t (id int primary key, v text)");
    let extra = json!({ "snapshot": "never", "spill_limit_mib": 1 });
    let mut feed = Feed::open(&server, &["public.t"], extra).await;
    server.sql("insert into t select i, repeat('a', 1000) from generate_series(1, 3000) i");
    assert_eq!(feed.fails().await.code, "postgres.spill_full");
}
