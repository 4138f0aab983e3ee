//! Columns: evolution, conflicts, names, partitions.

use std::sync::Arc;

use millrace_core::error::Kind;
use millrace_core::position::SourceKey;
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::sink::Sink;

use super::support::*;
use crate::config::{DeltaConfig, Mode, SchemaEvolution};
use crate::sink::DeltaSink;

fn schema(columns: Vec<Column>) -> Arc<TableSchema> {
    Arc::new(TableSchema::new(orders(), columns, Images::Full))
}

fn wider() -> Arc<TableSchema> {
    schema(vec![
        Column::new("id", ColumnType::Int64).key(),
        Column::new("note", ColumnType::Text),
        Column::new("seen", ColumnType::Timestamp),
        Column::new("more", ColumnType::Text),
    ])
}

async fn put_as(
    sink: &mut DeltaSink,
    schema: &Arc<TableSchema>,
    at: i64,
) -> millrace_core::Result<millrace_core::sink::Prepared> {
    sink.write(inserts(schema, source(), at..=at)).await?;
    let cut = cut_of(&[(source(), at)]);
    let prepared = sink.prepare(&cut).await?;
    sink.commit(&cut).await?;
    Ok(prepared)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_columns_come_with_their_first_rows_in_one_commit_and_upgrade_the_protocol() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    put_as(&mut sink, &wider(), 2).await.unwrap();
    put(&mut sink, 3..=3).await.unwrap();
    let table = lake.path("public/orders");
    assert_eq!(column(&table, "more").await, ["(absent)", "(absent)", "n 2"]);
    let commit = std::fs::read_to_string(table.join("_delta_log/00000000000000000001.json")).unwrap();
    for action in ["\"metaData\"", "\"protocol\"", "\"add\"", "\"txn\"", "timestampNtz"] {
        assert!(commit.contains(action), "{action} in {commit}");
    }
    assert_eq!(count_of(&table.join("_delta_log"), ".json"), 3);
    // A new host reads the grown table and goes on.
    let mut again = lake.sink();
    fenced(&mut again, 2, &[orders()]).await;
    put_as(&mut again, &wider(), 4).await.unwrap();
    assert_eq!(ids(&table).await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policies_leave_new_columns_out_or_stop() {
    let mut lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    lake.config.schema_evolution = SchemaEvolution::Ignore;
    let mut sink = lake.sink();
    fenced(&mut sink, 2, &[orders()]).await;
    put_as(&mut sink, &wider(), 2).await.unwrap();
    assert_eq!(column(&lake.path("public/orders"), "more").await, ["(absent)", "(absent)"]);
    lake.config.schema_evolution = SchemaEvolution::Exception;
    let mut sink = lake.sink();
    fenced(&mut sink, 3, &[orders()]).await;
    let error = put_as(&mut sink, &wider(), 3).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::HaltTable, "sink.schema_changed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_does_not_fit_is_refused_with_its_changes_in_every_table() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let clashing = schema(vec![Column::new("id", ColumnType::Text), Column::new("note", ColumnType::Text)]);
    let batch = inserts(&clashing, source(), 2..=4);
    // The same changes also go to a table that would take them.
    let mut sister = batch.clone();
    sister.schema =
        Arc::new(TableSchema::new(TableName::new("public", "copies"), clashing.columns.clone(), Images::Full));
    sink.write(sister.clone()).await.unwrap();
    sink.write(batch).await.unwrap();
    sister = inserts(&sister.schema, source(), 5..=5);
    sink.write(sister).await.unwrap();
    let cut = cut_of(&[(source(), 5)]);
    let prepared = sink.prepare(&cut).await.unwrap();
    assert_eq!(prepared.refused.len(), 1);
    let refusal = &prepared.refused[0];
    assert_eq!((refusal.code, refusal.column.as_deref(), refusal.batch.rows()), ("sink.type_mismatch", Some("id"), 3));
    sink.commit(&cut).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await, [1]);
    assert_eq!(column(&lake.path("public/copies"), "id").await, ["n 5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrower_numbers_go_into_wider_columns() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let narrow = schema(vec![Column::new("id", ColumnType::Int32).key(), Column::new("note", ColumnType::Text)]);
    assert!(put_as(&mut sink, &narrow, 2).await.unwrap().refused.is_empty());
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tables_of_one_folder_are_refused() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.path = lake.path("{table}").display().to_string();
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    for name in ["orders", "ORDERS"] {
        let other =
            Arc::new(TableSchema::new(TableName::new("billing", name), orders_schema().columns.clone(), Images::Full));
        let error = sink.write(inserts(&other, SourceKey::new("b"), 2..=2)).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Halt, "sink.path_collision"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_folders_and_odd_values_survive() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.partition_by = vec!["note".into()];
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=3).await.unwrap();
    let table = lake.path("public/orders");
    assert!(table.join("note=n 2").is_dir());
    assert_eq!(ids(&table).await, [1, 2, 3]);
    let without = schema(vec![Column::new("id", ColumnType::Int64).key()]);
    let prepared = put_as(&mut sink, &without, 4).await.unwrap();
    assert_eq!(prepared.refused[0].code, "sink.partition_column");
}

#[test]
fn what_can_not_work_is_said_before_anything_starts() {
    for (change, code) in [
        ((|c: &mut DeltaConfig| c.index_memory = 1) as fn(&mut DeltaConfig), "delta.index_memory"),
        (|c| c.key = [("t".to_owned(), vec!["id".to_owned()])].into(), "delta.key"),
        (|c| (c.mode, c.key) = (Mode::Upsert, [("t".to_owned(), vec![])].into()), "delta.key"),
        (|c| c.order_by = [("t".to_owned(), "at".to_owned())].into(), "delta.order_by"),
        (|c| (c.mode, c.order_by) = (Mode::Upsert, [("t".to_owned(), " ".to_owned())].into()), "delta.order_by"),
        (|c| (c.mode, c.key) = (Mode::Upsert, [("t".to_owned(), vec!["a".into(), "a".into()])].into()), "delta.key"),
        (|c| c.path = "/l/{schema}".into(), "delta.path"),
        (|c| c.path = String::new(), "store.path"),
        (|c| c.target_file_size = 1, "delta.target_file_size"),
        (|c| c.log_retention_hours = 0, "delta.retention"),
        (|c| c.partition_by = vec!["a".into(), "a".into()], "delta.partition_by"),
    ] {
        let mut config = DeltaConfig::new("/lake");
        change(&mut config);
        let error = DeltaSink::new(config, PIPELINE, Machine::new()).unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Config, code));
    }
}

#[test]
fn the_configuration_refuses_unknown_keys_and_hides_secrets() {
    let config: DeltaConfig =
        serde_json::from_str(r#"{"path": "s3://b/x", "mode": "append", "s3": {"secret_access_key": "hunter2"}}"#)
            .unwrap();
    assert_eq!(config.mode, Mode::Append);
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(serde_json::from_str::<DeltaConfig>(r#"{"path": "x", "mod": "append"}"#).is_err());
}
