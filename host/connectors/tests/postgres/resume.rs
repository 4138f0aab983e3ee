//! Lost connections, restarts, acknowledgements, and records that the server can not continue.

use std::collections::BTreeMap;

use millrace_core::cut::Boundary;
use millrace_core::error::Kind;
use serde_json::json;

use crate::feed::{Feed, Session, config};
use crate::servers::postgres::{Postgres, VERSIONS};
use crate::servers::wait_for;

const CONFIRMED: &str = "select confirmed_flush_lsn from pg_replication_slots where slot_name = 'millrace_test'";
const KILL: &str =
    "select count(pg_terminate_backend(active_pid)) from pg_replication_slots where active_pid is not null";

/// What `test_decoding` says of the same transactions: table, operation, id, in commit order.
fn oracle(server: &Postgres) -> Vec<String> {
    let line = |line: &String| {
        let rest = line.strip_prefix("table ")?;
        let (table, rest) = rest.split_once(": ")?;
        let (operation, rest) = rest.split_once(": ")?;
        let id = rest.split("id[integer]:").last()?.split(' ').next()?;
        Some(format!("{table} {} {id}", operation.to_lowercase()))
    };
    server.decoded("oracle").iter().filter_map(line).collect()
}

fn decoded(feed: &Feed) -> Vec<String> {
    let mut places: BTreeMap<(i64, String, i64), String> = BTreeMap::new();
    for image in feed.distinct() {
        let operation = match image.kind.name() {
            "update_postimage" => "update",
            "update_preimage" => continue,
            other => other,
        };
        let [commit, ordinal, ..] = image.order.0;
        places
            .insert((commit, image.table.clone(), ordinal), format!("{} {operation} {}", image.table, image.get("id")));
    }
    places.into_values().collect()
}

/// Sixty transactions with rolled back parts, the readers' sessions killed between and during them; answers how many.
fn write_and_kill(server: &Postgres) -> u32 {
    let mut session = Session::of(server);
    let mut killed = 0;
    for round in 0..60 {
        let base = round * 1000;
        session.run(&format!(
            "begin; insert into a select i, repeat('x', 50) from generate_series({base}, {base} + 300) i; savepoint s; \
             insert into b values ({base}, 'lost'); rollback to s; insert into b select i, 'y' from generate_series({base}, {base} + 20) i; \
             update a set v = 'u' where id between {base} and {base} + 50;"
        ));
        if round % 4 == 3 {
            killed += server.sql(KILL).parse::<u32>().unwrap();
        }
        session.run(&format!(
            "delete from a where id = {base} + 7; update b set id = -id - 1 where id = {base} + 3; commit;"
        ));
        if round % 5 == 4 {
            killed += server.sql(KILL).parse::<u32>().unwrap();
        }
    }
    session.run("insert into b values (-100000, 'end');");
    killed
}

/// Reads until the last change, opening again after each lost connection and acknowledging some of the commits.
async fn read_to_the_end(feed: &mut Feed) {
    let mut commits = 0;
    while !feed.images.iter().any(|i| i.get("v") == "end") {
        match feed.step().await {
            Ok(Boundary::Commit(_)) => {
                commits += 1;
                if commits % 4 == 0 {
                    feed.acknowledge().await;
                }
            }
            Ok(_) => {}
            Err(e) => {
                assert_eq!(e.kind, Kind::Retry, "{e}");
                feed.reopen_when_free().await;
            }
        }
    }
}

/// Per commit the tables' changes are compared one table after the other: across tables there is no order.
fn by_table(lines: Vec<String>) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let table = line.split(' ').next().unwrap_or_default().to_owned();
        tables.entry(table).or_default().push(line);
    }
    tables
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_connections_lose_and_repeat_nothing_by_the_oracle_of_test_decoding() {
    for version in VERSIONS {
        let server = Postgres::options(version).setting("logical_decoding_work_mem", "64kB").start();
        server.sql("create table a (id int primary key, v text); create table b (id int primary key, v text)");
        server.sql("select pg_create_logical_replication_slot('oracle', 'test_decoding')");
        let mut feed = Feed::open(&server, &["public.a", "public.b"], json!({ "snapshot": "never" })).await;
        let killed = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_and_kill(&server));
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(read_to_the_end(&mut feed)));
            writer.join().unwrap()
        });
        assert!(killed >= 5, "{version}: killed {killed}");
        let (found, expected) = (by_table(decoded(&feed)), by_table(oracle(&server)));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["public.a", "public.b"]);
        for (table, lines) in &expected {
            assert_eq!(lines.len(), found[table].len(), "{version}: {table}");
            for (found, expected) in found[table].iter().zip(lines) {
                assert_eq!(found, expected, "{version}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_begins_at_the_record_and_a_server_crash_loses_nothing() {
    let mut server = Postgres::options(15).setting("fsync", "on").start();
    server.sql("create table t (id int primary key)");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    server.sql("insert into t values (1)");
    feed.until_images(1).await;
    feed.acknowledge().await;
    server.sql("insert into t values (2)");
    feed.until_images(2).await;
    let recorded = feed.resume.position.clone();
    server.stop();
    let error = feed.fails().await;
    assert_eq!(error.kind, Kind::Retry, "{error}");
    assert_eq!(feed.reopen().await.unwrap_err().code, "postgres.unreachable");
    server.start_again();
    server.sql("insert into t values (3)");
    let opened = feed.restart().await;
    assert_eq!(Some(opened.start), recorded);
    feed.until(|feed| feed.images.iter().any(|i| i.get("id") == "3")).await;
    assert_eq!(feed.lines(), ["insert id=1", "insert id=2", "insert id=3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_acknowledged_is_told_to_the_server() {
    let server = Postgres::options(15).setting("wal_sender_timeout", "1500ms").start();
    server.sql("create table t (id int primary key)");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    let before = server.sql(CONFIRMED);
    server.sql("insert into t values (1)");
    feed.until_images(1).await;
    // Three status intervals later the server still knows no more, and has not hung up either.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
    wait_for("the time", std::time::Duration::from_secs(30), String::new, || {
        (std::time::Instant::now() > end).then_some(())
    });
    assert_eq!(server.sql(CONFIRMED), before);
    feed.acknowledge().await;
    let token = String::from_utf8(feed.resume.position.clone().unwrap().token.to_vec()).unwrap();
    wait_for(
        "the acknowledgement",
        std::time::Duration::from_secs(30),
        || server.sql(CONFIRMED),
        || (server.sql(CONFIRMED) == token).then_some(()),
    );
    server.sql("insert into t values (2)");
    feed.until_images(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_table_does_not_hold_the_log_of_a_busy_database() {
    let server = Postgres::options(15).setting("wal_sender_timeout", "3s").start();
    server.sql("create table t (id int primary key); create table busy (id int, v text)");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    server.sql("insert into busy select i, repeat('x', 500) from generate_series(1, 20000) i");
    let target = server.sql("select pg_current_wal_lsn()");
    let behind = |lsn: &str| server.sql(&format!("select '{lsn}'::pg_lsn < '{target}'::pg_lsn")) == "t";
    loop {
        let boundary = feed.step().await.unwrap();
        assert!(matches!(boundary, Boundary::Idle(_)), "{boundary:?}");
        feed.acknowledge().await;
        let token = feed.resume.position.clone().unwrap().token;
        if !behind(std::str::from_utf8(&token).unwrap()) {
            break;
        }
    }
    wait_for(
        "the slot",
        std::time::Duration::from_secs(30),
        || server.sql(CONFIRMED),
        || (!behind(&server.sql(CONFIRMED))).then_some(()),
    );
    // Nothing was skipped by it.
    server.sql("insert into t values (1)");
    feed.until_images(1).await;
    feed.acknowledge().await;
    feed.restart().await;
    server.sql("insert into t values (2)");
    feed.until_images(2).await;
    assert_eq!(feed.lines(), ["insert id=1", "insert id=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_server_can_not_continue_halts_with_a_gap() {
    let server = Postgres::start(15);
    server.sql("create table t (id int primary key)");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    server.sql("insert into t values (1)");
    feed.until_images(1).await;
    let early = feed.resume.clone();
    server.sql("insert into t values (2)");
    feed.until_images(2).await;
    feed.acknowledge().await;
    feed.restart().await;

    // The slot is ahead of the record.
    let now = std::mem::replace(&mut feed.resume, early);
    let gap = |e: millrace_core::error::Error| assert_eq!((e.kind, e.code), (Kind::Halt, "position.gap"), "{e}");
    gap(feed.reopen().await.unwrap_err());

    // Another server with the same tables.
    feed.resume = now.clone();
    feed.resume.incarnation = Some("7000000000000000000/1".into());
    gap(feed.reopen().await.unwrap_err());

    // The slot is gone.
    feed.resume = now.clone();
    server.sql("select pg_drop_replication_slot('millrace_test')");
    gap(feed.reopen().await.unwrap_err());

    // One of the same name that begins later.
    server.sql("select pg_create_logical_replication_slot('millrace_test', 'pgoutput')");
    gap(feed.reopen().await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_given_up_at_any_await_loses_nothing() {
    let server = Postgres::options(15).setting("logical_decoding_work_mem", "64kB").start();
    server.sql(
        "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 5000) i",
    );
    let mut feed = Feed::new(config(&server, &["public.t"], json!({})));
    feed.impatient = true;
    feed.reopen().await.unwrap();
    feed.until_snapshots(1).await;
    assert_eq!(feed.images.len(), 5000);
    for column in 0..3 {
        let (first, last) = (10_000 * (column + 1), 10_000 * (column + 1) + 3_000);
        server.sql(&format!("insert into t (id, v) select i, repeat('s', 99) from generate_series({first}, {last}) i"));
        server.sql(&format!("alter table t add column c{column} int"));
        server
            .sql(&format!("insert into t (id, v) values ({}, 'new'); update t set v = 'u' where id <= 100", last + 1));
    }
    server.sql("insert into t (id, v) values (0, 'end')");
    feed.until(|feed| feed.images.iter().any(|i| i.get("v") == "end")).await;
    let ids: Vec<i64> = feed.images[5000..].iter().map(|i| i.get("id").parse().unwrap()).collect();
    let round = |c: i64| (10_000 * (c + 1)..=10_000 * (c + 1) + 3_001).chain(1..=100);
    let mut expected: Vec<i64> = (0..3).flat_map(round).chain([0]).collect();
    assert_eq!(ids.len(), expected.len());
    // The order in which an UPDATE meets its rows is the server's.
    let (mut found, _) = (ids.clone(), expected.sort_unstable());
    found.sort_unstable();
    assert_eq!(found, expected);
    assert!(feed.images[5000..].windows(2).all(|w| w[0].order < w[1].order));
}
