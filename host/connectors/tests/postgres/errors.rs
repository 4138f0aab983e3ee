//! What a person gets to read when something is wrong: each has its code, and a hint.

use millrace_core::error::{Error, Kind};
use serde_json::json;

use crate::feed::{Feed, config};
use crate::servers::free_port;
use crate::servers::postgres::Postgres;

async fn refusal(server: &Postgres, tables: &[&str], extra: serde_json::Value) -> Error {
    let mut feed = Feed::new(config(server, tables, extra));
    feed.reopen().await.expect_err("a refusal")
}

fn check(error: &Error, kind: Kind, code: &str, says: &str) {
    assert_eq!((error.kind, error.code), (kind, code), "{error}");
    assert!(error.to_string().contains(says), "`{says}` is not in: {error}");
    assert!(error.hint.is_some(), "no hint: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let server = Postgres::start(15);
    server.sql("create table orders (id int primary key); create unlogged table fast (id int primary key); create table bare (id int)");
    let nowhere = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
    let error = refusal(&server, &["public.orders"], json!({ "url": nowhere })).await;
    check(&error, Kind::Retry, "postgres.unreachable", "127.0.0.1");
    let error =
        refusal(&server, &["public.orders"], json!({ "url": "postgres://postgres@no-such-host.invalid/d" })).await;
    check(&error, Kind::Retry, "postgres.unreachable", "no-such-host.invalid:5432/d");
    let database = server.url_as("postgres", None, "nowhere");
    let error = refusal(&server, &["public.orders"], json!({ "url": database })).await;
    check(&error, Kind::Config, "postgres.database_missing", "nowhere");
    let error = refusal(&server, &["public.order"], json!({})).await;
    check(&error, Kind::Config, "postgres.table_missing", "did you mean public.orders?");
    let error = refusal(&server, &["billing.*"], json!({})).await;
    check(&error, Kind::Config, "postgres.table_missing", "billing.*");
    let error = refusal(&server, &["public.fast"], json!({})).await;
    check(&error, Kind::Config, "postgres.table_unlogged", "public.fast");
    let error = refusal(&server, &["public.bare"], json!({})).await;
    check(&error, Kind::Config, "postgres.replica_identity_missing", "REPLICA IDENTITY FULL");
    assert_eq!(server.sql("select count(*) from pg_publication"), "0", "a refusal leaves nothing behind");
    assert_eq!(server.sql("select count(*) from pg_replication_slots"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_told_with_what_grants_them() {
    let server = Postgres::start(16);
    server.sql(
        "create table t (id int primary key); create role plain login; create role reader login replication; \
        create role writer login replication; grant select on t to writer",
    );
    let with = |user: &str| json!({ "url": server.url_as(user, None, "postgres") });
    let error = refusal(&server, &["public.t"], with("plain")).await;
    check(&error, Kind::Config, "postgres.privilege_missing", "REPLICATION");
    let error = refusal(&server, &["public.t"], with("reader")).await;
    check(&error, Kind::Config, "postgres.privilege_missing", "GRANT SELECT ON t");
    let error = refusal(&server, &["public.t"], with("writer")).await;
    check(&error, Kind::Config, "postgres.privilege_missing", "CREATE PUBLICATION");
    // With the owner's publication it may.
    server.sql("create publication millrace_test for table t");
    let mut feed = Feed::open(&server, &["public.t"], with("writer")).await;
    server.sql("insert into t values (1)");
    feed.until_images(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_set_up_for_it_is_told_by_setting() {
    let server = Postgres::options(15).setting("wal_level", "replica").start();
    server.sql("create table t (id int primary key)");
    let error = refusal(&server, &["public.t"], json!({})).await;
    check(&error, Kind::Config, "postgres.wal_level", "replica");
    let full = Postgres::options(15).setting("max_replication_slots", "1").start();
    full.sql("create table t (id int primary key); select pg_create_physical_replication_slot('other')");
    let error = refusal(&full, &["public.t"], json!({})).await;
    check(&error, Kind::Retry, "postgres.slots_exhausted", "max_replication_slots");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_lets_one_reader_in() {
    let server = Postgres::start(15);
    server.sql("create table t (id int primary key)");
    let first = Feed::open(&server, &["public.t"], json!({})).await;
    let error = refusal(&server, &["public.t"], json!({})).await;
    check(&error, Kind::Retry, "postgres.slot_in_use", "millrace_test");
    drop(first);
    server.sql("select pg_create_logical_replication_slot('foreign', 'test_decoding')");
    let error = refusal(&server, &["public.t"], json!({ "slot": "foreign" })).await;
    check(&error, Kind::Config, "postgres.slot_mismatch", "foreign");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_would_leave_changes_out_is_refused_and_one_that_lacks_a_table_is_extended() {
    let server = Postgres::start(17);
    server.sql("create table t (id int primary key, v int); create table u (id int primary key); \
        create publication narrow for table t with (publish = 'insert'); create publication filtered for table t where (id > 5); \
        create publication columns for table t (id); create publication short for table t; create publication all_of_it for all tables");
    let with = |name: &str| json!({ "publication": name, "snapshot": "never" });
    let error = refusal(&server, &["public.t"], with("narrow")).await;
    check(&error, Kind::Config, "postgres.publication_narrow", "ALTER PUBLICATION");
    for name in ["filtered", "columns"] {
        let error = refusal(&server, &["public.t"], with(name)).await;
        check(&error, Kind::Config, "postgres.publication_filtered", name);
    }
    let mut feed = Feed::open(&server, &["public.t", "public.u"], with("short")).await;
    server.sql("insert into t values (1, 1); insert into u values (2)");
    feed.until_images(2).await;
    let mut feed =
        Feed::open(&server, &["public.u"], json!({ "publication": "all_of_it", "slot": "s2", "snapshot": "never" }))
            .await;
    server.sql("insert into t values (3, 1); insert into u values (4)");
    feed.until_images(1).await;
    assert_eq!(feed.lines(), ["insert id=4"], "what is published beyond our tables is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_halts_before_its_changes_are_lost() {
    let server = Postgres::start(15);
    server.sql("create table t (id int primary key)");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    server.sql("insert into t values (1)");
    feed.until_images(1).await;
    server.sql("alter table t rename to t2; insert into t2 values (2)");
    let error = feed.fails().await;
    check(&error, Kind::Halt, "postgres.table_renamed", "public.t2");
}
