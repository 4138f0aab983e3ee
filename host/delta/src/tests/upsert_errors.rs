//! What a mirror can not go on with: each is named, and nothing is lost or half written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_core::batch::ChangeType;
use millrace_core::error::Kind;
use millrace_core::schema::{Column, ColumnType, Images, TableSchema};
use millrace_core::sink::Sink;

use super::faults::Small;
use super::mirror::current;
use super::others::spark;
use super::support::*;
use super::upsert::{Image, batch_of, images};
use crate::config::Mode;
use crate::sink::DeltaSink;
use ChangeType::{Insert, UpdatePostimage as Post};

async fn commit(sink: &mut DeltaSink, changes: &[Image]) -> millrace_core::Result<()> {
    let batch = images(changes);
    let cut = cut_of(&[(source(), batch.origin.orders.last().unwrap().commit())]);
    sink.write(batch).await?;
    assert!(sink.prepare(&cut).await?.refused.is_empty());
    sink.commit(&cut).await
}

async fn notes(lake: &Lake, table: &Path) -> Vec<String> {
    current(lake, table, &["id", "note"]).await.into_iter().map(|row| row.join(" ")).collect()
}

fn files(table: &Path, part: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().contains(part)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_of_spark_that_a_mirror_can_not_honour_are_refused_by_name() {
    if spark().is_none() {
        return;
    }
    for (columns, properties, named) in [
        ("id bigint, note string", "'delta.enableRowTracking' = 'true'", "enableRowTracking"),
        ("id bigint, note string", "'delta.enableInCommitTimestamps' = 'true'", "enableInCommitTimestamps"),
        ("id bigint, note string", "'delta.columnMapping.mode' = 'name'", "columnMapping"),
        ("id bigint, note string", "'delta.appendOnly' = 'true'", "appendOnly"),
        ("id bigint, note string generated always as ('n')", "'x' = '1'", "`note` has a generation expression"),
        ("id bigint, note string, more array<int>", "'x' = '1'", "`more` is"),
    ] {
        let lake = Lake::new(Mode::Upsert);
        let table = lake.path("public/orders");
        spark().unwrap().sql(&format!(
            "create table delta.`{}` ({columns}) using delta tblproperties ('delta.enableDeletionVectors' = 'true', {properties})",
            table.display()
        ));
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let error = sink.write(images(&[(1, Insert, Some(1), Some("a"))])).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Halt, "table.unsupported"), "{named}");
        assert!(error.message.contains(named), "{named}: {error}");
        assert_eq!(count_of(&table.join("_delta_log"), ".json"), 1, "{named}");
        assert!(files(&table, "part").is_empty(), "{named}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_of_spark_that_a_mirror_honours_stay_readable_by_spark() {
    if spark().is_none() {
        return;
    }
    for properties in [
        "'delta.checkpointPolicy' = 'v2'",
        "'delta.feature.vacuumProtocolCheck' = 'supported'",
        "'delta.enableTypeWidening' = 'true'",
    ] {
        let mut lake = Lake::new(Mode::Upsert);
        lake.config.checkpoint_interval = 2;
        let table = lake.path("public/orders");
        let name = format!("delta.`{}`", table.display());
        spark().unwrap().sql(&format!(
            "create table {name} (id bigint, note string) using delta \
             tblproperties ('delta.enableDeletionVectors' = 'true', {properties})"
        ));
        spark().unwrap().sql(&format!("insert into {name} values (1, 'theirs'), (2, 'theirs')"));
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        for at in 1..=4 {
            commit(&mut sink, &[(at, Post, Some(at), Some("ours"))]).await.unwrap();
        }
        spark().unwrap().sql(&format!("delete from {name} where id = 3"));
        commit(&mut sink, &[(5, Post, Some(1), Some("again"))]).await.unwrap();
        let expected = ["1 again", "2 ours", "4 ours"];
        assert_eq!(notes(&lake, &table).await, expected, "{properties}");
        let found = spark().unwrap().sql(&format!("select id, note from {name} order by id"));
        assert_eq!(found.iter().map(|row| row.join(" ")).collect::<Vec<_>>(), expected, "{properties}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_the_mirror_goes_on_once_there_is_space() {
    let mut lake = Lake::new(Mode::Upsert);
    let Some(small) = Small::mount(&lake.path("small"), "256k") else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    lake.config.path = small.0.join("{namespace}/{table}").display().to_string();
    let table = small.0.join("public/orders");
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, &[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))]).await.unwrap();
    let ballast = small.0.join("ballast");
    let written = std::fs::write(&ballast, vec![7; 1 << 20]);
    assert!(written.is_err(), "the disk is full now");
    let change = [(3, Post, Some(2), Some("c"))];
    let error = commit(&mut sink, &change).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Retry, "store.full"), "{error}");
    assert_eq!(notes(&lake, &table).await, ["1 a", "2 b"]);
    std::fs::remove_file(&ballast).unwrap();
    fenced(&mut sink, 2, &[orders()]).await;
    commit(&mut sink, &change).await.unwrap();
    assert_eq!(notes(&lake, &table).await, ["1 a", "2 c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_deletion_vectors_that_is_gone_is_named_and_no_row_comes_back() {
    let lake = Lake::new(Mode::Upsert);
    let table = lake.path("public/orders");
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, &[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))]).await.unwrap();
    commit(&mut sink, &[(3, Post, Some(1), Some("c"))]).await.unwrap();
    let vectors = files(&table, "deletion_vector").pop().unwrap();
    std::fs::remove_file(&vectors).unwrap();
    let commits = count_of(&table.join("_delta_log"), ".json");
    let mut next = lake.sink();
    fenced(&mut next, 2, &[orders()]).await;
    let error = commit(&mut next, &[(4, Post, Some(2), Some("d"))]).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "store.not_found"), "{error}");
    assert!(error.message.contains(vectors.file_name().unwrap().to_str().unwrap()), "{error}");
    // The fence alone has committed.
    assert_eq!(count_of(&table.join("_delta_log"), ".json"), commits + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_does_not_fit_is_a_letter_and_the_row_stays() {
    let lake = Lake::new(Mode::Upsert);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, &[(1, Insert, Some(1), Some("a"))]).await.unwrap();
    let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("note", ColumnType::Date)];
    let clashing = Arc::new(TableSchema::new(orders(), columns, Images::Full));
    sink.write(batch_of(&clashing, &source(), false, &[(2, Post, Some(1), None)])).await.unwrap();
    let cut = cut_of(&[(source(), 2)]);
    let prepared = sink.prepare(&cut).await.unwrap();
    let refusal = &prepared.refused[0];
    assert_eq!((refusal.code, refusal.column.as_deref()), ("sink.type_mismatch", Some("note")));
    sink.commit(&cut).await.unwrap();
    commit(&mut sink, &[(3, Insert, Some(2), Some("b"))]).await.unwrap();
    assert_eq!(notes(&lake, &lake.path("public/orders")).await, ["1 a", "2 b"]);
}
