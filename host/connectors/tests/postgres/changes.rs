//! Inserts, updates, deletes and truncates as the stream carries them.

use millrace_core::cut::Boundary;
use millrace_core::schema::Images;
use serde_json::json;

use crate::feed::Feed;
use crate::servers::postgres::{Postgres, VERSIONS};

#[tokio::test(flavor = "multi_thread")]
async fn updates_key_changes_deletes_and_truncates_carry_what_the_server_sends() {
    for version in VERSIONS {
        let server = Postgres::start(version);
        server.sql("create table t (id int primary key, a text, b int)");
        let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
        server.sql("insert into t values (1, 'x', 1), (2, 'y', null)");
        server.sql("update t set b = 7 where id = 1");
        server.sql("update t set id = 3 where id = 2");
        server.sql("delete from t where id = 1");
        server.sql("truncate t");
        server.sql("insert into t values (9, 'z', 9)");
        feed.until_images(8).await;
        assert_eq!(
            feed.lines(),
            [
                "insert id=1 a=x b=1",
                "insert id=2 a=y b=NULL",
                "update_postimage id=1 a=x b=7",
                "update_preimage id=2 a=? b=?",
                "update_postimage id=3 a=y b=NULL",
                "delete id=1 a=? b=?",
                "truncate id=? a=? b=?",
                "insert id=9 a=z b=9",
            ],
            "{version}"
        );
        let schema = &feed.images[0].schema;
        assert_eq!(schema.images, Images::Key);
        assert!(schema.columns[0].key && !schema.columns[0].nullable && !schema.columns[1].key);
        // The images of a change share their position; positions ascend; a commit counts from 1.
        assert_eq!(feed.images[3].order, feed.images[4].order);
        assert_eq!((feed.images[0].order.0[1], feed.images[1].order.0[1], feed.images[2].order.0[1]), (1, 2, 1));
        assert!(feed.images.windows(2).all(|w| w[0].order <= w[1].order));
        assert!(feed.images.iter().all(|i| i.commit_time > 1_700_000_000_000_000), "commit times are of this century");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_toast_is_unavailable_and_comes_from_a_full_old_row() {
    let server = Postgres::start(15);
    server.sql("create table t (id int primary key, big text, n int); alter table t alter big set storage external");
    let mut feed = Feed::open(&server, &["public.t"], json!({ "snapshot": "never" })).await;
    server.sql("insert into t values (1, repeat('x', 9000), 1)");
    server.sql("update t set n = 2");
    server.sql("alter table t replica identity full");
    server.sql("update t set n = 3");
    server.sql("delete from t");
    feed.until_images(5).await;
    let big = "x".repeat(9000);
    let shown: Vec<(&str, &str, bool)> = feed
        .images
        .iter()
        .map(|i| (i.get("n"), if i.get("big") == big { "big" } else { i.get("big") }, i.schema.images == Images::Full))
        .collect();
    assert_eq!(
        shown,
        [("1", "big", false), ("2", "?", false), ("2", "big", true), ("3", "big", true), ("3", "big", true)]
    );
    // Under full identity the primary key alone identifies a row.
    let schema = &feed.images[4].schema;
    assert_eq!(schema.columns.iter().map(|c| c.key).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_several_tables_counts_each_table_for_itself() {
    let server = Postgres::start(15);
    server.sql("create schema billing; create table billing.a (id int primary key); create table billing.b (id int primary key); \
        create table public.other (id int primary key)");
    let mut feed = Feed::open(&server, &["billing.*"], json!({ "snapshot": "never" })).await;
    server.sql(
        "begin; insert into billing.a values (1); insert into billing.b values (1), (2); insert into other values (1); \
        insert into billing.a values (2); commit",
    );
    feed.until_images(4).await;
    let mut places: Vec<(&str, i64, &str)> =
        feed.images.iter().map(|i| (i.table.as_str(), i.order.0[1], i.get("id"))).collect();
    places.sort_unstable();
    assert_eq!(places, [("billing.a", 1, "1"), ("billing.a", 2, "2"), ("billing.b", 1, "1"), ("billing.b", 2, "2")]);
    let commit = feed.images[0].order.0[0];
    assert!(feed.images.iter().all(|i| i.order.0[0] == commit));
    assert!(matches!(feed.boundaries.last(), Some(Boundary::Commit(p)) if p.order.0[0] > commit));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_has_a_new_schema_from_its_next_change_on() {
    for version in VERSIONS {
        let server = Postgres::start(version);
        server.sql("create table t (id int primary key, a text, g int generated always as (id * 2) stored)");
        server.sql("insert into t values (0, 'snapshot')");
        let mut feed = Feed::open(&server, &["public.t"], json!({})).await;
        feed.until_snapshots(1).await;
        server.sql("insert into t values (1, 'x')");
        server.sql("alter table t add column b numeric(6,2) default 1.5");
        server.sql("insert into t values (2, 'y', default, 2.25)");
        server.sql("begin; alter table t drop column a; insert into t values (3, default, 3); commit");
        server.sql("begin; alter table t add c int; insert into t values (5, default, 5, 5); rollback");
        server.sql("insert into t values (4, default, 4)");
        feed.until_images(5).await;
        assert_eq!(
            feed.lines(),
            [
                "insert id=0 a=snapshot",
                "insert id=1 a=x",
                "insert id=2 a=y b=225e-2",
                "insert id=3 b=300e-2",
                "insert id=4 b=400e-2"
            ],
            "{version}"
        );
        let same = |a: usize, b: usize| std::sync::Arc::ptr_eq(&feed.images[a].schema, &feed.images[b].schema);
        assert!(same(0, 1) && !same(1, 2) && !same(2, 3) && same(3, 4), "{version}: a version is one Arc");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_read_as_their_table() {
    let server = Postgres::start(15);
    server.sql("create table p (id int primary key, v text) partition by range (id); \
        create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20)");
    server.sql("insert into p values (1, 'a'), (11, 'b')");
    let mut feed = Feed::open(&server, &["public.*"], json!({})).await;
    feed.until_snapshots(1).await;
    server.sql("update p set id = 12 where id = 1");
    server.sql("delete from p where id = 11");
    feed.until_images(5).await;
    assert!(feed.images.iter().all(|i| i.table == "public.p"), "{:?}", feed.images);
    // PostgreSQL moves a row between partitions by a delete and an insert.
    assert_eq!(feed.lines()[2..], ["delete id=1 v=?", "insert id=12 v=a", "delete id=11 v=?"]);
}
