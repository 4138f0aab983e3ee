//! Mode `upsert`: what is refused, what halts, truncates, snapshots, duplicates.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::cut::Cut;
use millrace_core::error::Kind;
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::sink::{Prepared, Sink};

use super::mirror::current;
use super::support::*;
use crate::config::Mode;
use crate::sink::DeltaSink;
use ChangeType::{Delete, Insert, Truncate, UpdatePostimage as Post, UpdatePreimage as Pre};

/// Commit, image, id and note; a note that is `None` was not sent, an id that is `None` is NULL.
pub(super) type Image = (i64, ChangeType, Option<i64>, Option<&'static str>);

pub(super) fn batch_of(schema: &Arc<TableSchema>, source: &SourceKey, snapshot: bool, images: &[Image]) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source.clone(), Arc::clone(schema), snapshot, images.len()).unwrap();
    let mut commit = None;
    for (at, kind, id, note) in images {
        if commit.replace(*at) != Some(*at) {
            rows.begin_change(Order::new(*at, 1), at * 1_000);
        }
        rows.begin_row(*kind);
        match (id, &mut rows.column(0).cells) {
            (Some(id), Cells::Int64(cells)) => cells.append_value(*id),
            (_, cells) => cells.append_null(),
        }
        for column in &mut rows.columns()[1..] {
            match (note, &mut column.cells) {
                (Some(note), Cells::Text(cells)) => cells.append_value(note),
                _ => column.append_unavailable(),
            }
        }
    }
    rows.finish().unwrap().unwrap()
}

pub(super) fn images(images: &[Image]) -> ChangeBatch {
    batch_of(&orders_schema(), &source(), false, images)
}

pub(super) fn end_of(batch: &ChangeBatch) -> Cut {
    let last = batch.origin.orders.last().unwrap().commit();
    if batch.origin.snapshot {
        let order = Order::new(last, 1);
        return Cut {
            snapshot: BTreeMap::from([(batch.origin.source.clone(), order)]),
            last: BTreeMap::new(),
            position: None,
            ..cut_of(&[])
        };
    }
    cut_of(&[(batch.origin.source.clone(), last)])
}

pub(super) async fn commit(sink: &mut DeltaSink, batch: ChangeBatch) -> Prepared {
    let cut = end_of(&batch);
    sink.write(batch).await.unwrap();
    let prepared = sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
    prepared
}

async fn rows_of(lake: &Lake) -> Vec<(String, String)> {
    let rows = current(lake, &lake.path("public/orders"), &["id", "note"]).await;
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

#[track_caller]
fn assert_rows(found: &[(String, String)], expected: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = found.iter().map(|(id, note)| (id.as_str(), note.as_str())).collect();
    assert_eq!(found, expected);
}

fn codes(prepared: &Prepared) -> Vec<&'static str> {
    prepared.refused.iter().map(|r| r.code).collect()
}

async fn a_value_without_a_row_to_take_it_from_is_a_letter_and_never_null(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let batch = [
        (1, Insert, Some(1), Some("a")),
        (2, Post, Some(2), None),
        (3, Post, Some(2), None),
        (4, Post, Some(3), None),
        (5, Post, Some(3), Some("whole")),
        (6, Post, Some(1), None),
    ];
    let prepared = commit(&mut sink, images(&batch)).await;
    assert_eq!(codes(&prepared), ["sink.no_current_row"]);
    let refusal = &prepared.refused[0];
    assert!(refusal.reason.contains("`note`") && refusal.reason.contains("id=2"), "{}", refusal.reason);
    assert_eq!((refusal.column.as_deref(), refusal.batch.rows()), (Some("note"), 2));
    assert_rows(&rows_of(&lake).await, &[("1", "a"), ("3", "whole")]);
    // The row is there now: what was not sent is found.
    commit(&mut sink, images(&[(7, Insert, Some(2), Some("b")), (8, Delete, Some(3), None)])).await;
    let prepared = commit(&mut sink, images(&[(9, Post, Some(2), None), (10, Post, Some(3), None)])).await;
    assert_eq!(codes(&prepared), ["sink.no_current_row"]);
    assert_rows(&rows_of(&lake).await, &[("1", "a"), ("2", "b")]);
}

async fn the_refused_half_of_a_key_change_leaves_both_rows_as_they_were(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, images(&[(1, Insert, Some(2), Some("old"))])).await;
    // Of a row that the table never had: nothing to take the note from, and the row with the new key stays.
    let prepared = commit(&mut sink, images(&[(2, Pre, Some(1), None), (2, Post, Some(2), None)])).await;
    assert_eq!(codes(&prepared), ["sink.no_current_row"]);
    assert_rows(&rows_of(&lake).await, &[("2", "old")]);
    let again = lake.sink().fence(&claim(2, &[orders()])).await.unwrap();
    assert_eq!(again[&orders()][&source()].commit(), 1, "a cut of which nothing goes in does not commit");
}

async fn a_refused_change_leaves_every_table(lake: Lake) {
    let mut sink = lake.sink();
    let copy = TableName::new("public", "copies");
    let columns = orders_schema().columns.clone();
    let copies = Arc::new(TableSchema::new(copy.clone(), columns, Images::Full));
    fenced(&mut sink, 1, &[]).await;
    let one = images(&[(1, Post, Some(1), None), (2, Insert, Some(2), Some("b"))]);
    let whole =
        batch_of(&copies, &source(), false, &[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))]);
    let two = ChangeBatch { origin: Arc::clone(&one.origin), ..whole };
    sink.write(two).await.unwrap();
    let prepared = commit(&mut sink, one).await;
    assert_eq!(codes(&prepared), ["sink.no_current_row"]);
    assert_rows(&rows_of(&lake).await, &[("2", "b")]);
    let copied = current(&lake, &lake.path("public/copies"), &["id"]).await;
    assert_eq!(copied, [["2"]]);
}

async fn a_row_without_a_key_is_a_letter(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let stream = [(1, Insert, Some(1), Some("a")), (2, Insert, None, Some("b")), (3, Delete, None, None)];
    let prepared = commit(&mut sink, images(&stream)).await;
    assert_eq!(codes(&prepared), ["sink.key_missing"]);
    assert_eq!(prepared.refused[0].batch.rows(), 2);
    assert_eq!(prepared.refused[0].column.as_deref(), Some("id"));
    let snapshot = [(4, Insert, Some(1), Some("c")), (5, Insert, None, Some("d"))];
    let prepared = commit(&mut sink, batch_of(&orders_schema(), &source(), true, &snapshot)).await;
    assert_eq!(codes(&prepared), ["sink.key_missing"]);
    assert_rows(&rows_of(&lake).await, &[("1", "c")]);
}

async fn a_table_without_a_key_halts_until_the_pipeline_names_one(mut lake: Lake) {
    let columns = vec![Column::new("id", ColumnType::Int64), Column::new("note", ColumnType::Text)];
    let keyless = Arc::new(TableSchema::new(orders(), columns, Images::Full));
    let batch = |at, note| batch_of(&keyless, &source(), false, &[(at, Insert, Some(1), Some(note))]);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let error = sink.write(batch(1, "a")).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::HaltTable, "upsert.no_key"));
    lake.config.key = [("public.orders".to_owned(), vec!["id".to_owned()])].into();
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, batch(1, "a")).await;
    commit(&mut sink, batch(2, "b")).await;
    assert_rows(&rows_of(&lake).await, &[("1", "b")]);

    // Another key would leave the rows under the old one.
    lake.config.key = [("public.orders".to_owned(), vec!["note".to_owned()])].into();
    let mut other = lake.sink();
    fenced(&mut other, 2, &[orders()]).await;
    let error = other.write(batch(3, "c")).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::HaltTable, "upsert.key_changed"));
    lake.config.key = [("public.orders".to_owned(), vec!["absent".to_owned()])].into();
    let mut other = Lake { folder: tempfile::tempdir().unwrap(), ..lake };
    other.config.path = other.path("{namespace}/{table}").display().to_string();
    let mut sink = other.sink();
    fenced(&mut sink, 1, &[]).await;
    assert_eq!(sink.write(batch(1, "a")).await.unwrap_err().code, "upsert.key_column");

    // What an update does not say of the row before can not tell where that is.
    let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("note", ColumnType::Text)];
    let form = Arc::new(TableSchema::new(orders(), columns, Images::Key));
    other.config.key = [("public.orders".to_owned(), vec!["note".to_owned()])].into();
    let mut sink = other.sink();
    fenced(&mut sink, 1, &[]).await;
    let unsent = batch_of(&form, &source(), false, &[(1, Insert, Some(1), Some("a"))]);
    let error = sink.write(unsent).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::HaltTable, "upsert.key_unsent"));
}

/// Each of these with deletion vectors, and with files that are written anew.
macro_rules! both_ways {
    ($($test:ident)*) => {
        mod merge_on_read {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let [lake, _] = super::Lake::of_current_rows();
                super::$test(lake).await;
            })*
        }
        mod copy_on_write {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let [_, lake] = super::Lake::of_current_rows();
                super::$test(lake).await;
            })*
        }
    };
}

both_ways! {
    a_value_without_a_row_to_take_it_from_is_a_letter_and_never_null
    the_refused_half_of_a_key_change_leaves_both_rows_as_they_were
    a_refused_change_leaves_every_table
    a_row_without_a_key_is_a_letter
    a_table_without_a_key_halts_until_the_pipeline_names_one
    a_truncate_empties_a_table_that_one_source_feeds_and_is_a_letter_where_several_do
    a_staged_snapshot_is_committed_after_a_crash
    columns_come_and_go_and_rows_keep_what_they_had
    a_key_that_no_partition_can_have_is_a_letter
    rows_whose_keys_move_onto_one_another_all_stay
}

/// Transaction, key before and after; of a row that a change makes or removes one of them.
type Move = (i64, Option<i64>, Option<i64>, &'static str);

fn moves(all: &[Move]) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source(), orders_schema(), false, 2 * all.len()).unwrap();
    for (ordinal, (commit, before, after, note)) in (1..).zip(all) {
        rows.begin_change(Order::new(*commit, ordinal), commit * 1_000);
        let kinds = if before.is_none() { [Insert; 2] } else { [Pre, Post] };
        let kinds = if after.is_none() { [Delete; 2] } else { kinds };
        for (id, kind) in [before, after].into_iter().zip(kinds) {
            let Some(id) = id else { continue };
            rows.begin_row(kind);
            if let Cells::Int64(cells) = &mut rows.column(0).cells {
                cells.append_value(*id);
            }
            if let Cells::Text(cells) = &mut rows.column(1).cells {
                cells.append_value(note);
            }
        }
    }
    rows.finish().unwrap().unwrap()
}

async fn rows_whose_keys_move_onto_one_another_all_stay(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let row = |id, note| (1, None, Some(id), note);
    commit(&mut sink, moves(&[row(1, "a"), row(2, "b"), row(3, "c")])).await;
    let moved = |commit, from, to, note| (commit, Some(from), Some(to), note);
    commit(&mut sink, moves(&[moved(2, 1, 2, "a"), moved(2, 2, 3, "b"), moved(2, 3, 4, "c")])).await;
    assert_rows(&rows_of(&lake).await, &[("2", "a"), ("3", "b"), ("4", "c")]);
    commit(&mut sink, moves(&[moved(3, 2, 3, "a"), moved(3, 3, 2, "b")])).await;
    assert_rows(&rows_of(&lake).await, &[("2", "b"), ("3", "a"), ("4", "c")]);
    // Rows of the cut itself, and a row that moves on and is deleted by a later transaction.
    let made = [(4, None, Some(7), "d"), (4, None, Some(8), "e"), moved(5, 7, 8, "d"), moved(5, 8, 7, "e")];
    let gone = [moved(6, 4, 5, "c"), (7, Some(5), None, "c"), moved(8, 2, 9, "b"), moved(8, 9, 10, "b")];
    commit(&mut sink, moves(&[made, gone].concat())).await;
    assert_rows(&rows_of(&lake).await, &[("10", "b"), ("3", "a"), ("7", "e"), ("8", "d")]);
    // An old row gives way to one that moves onto its key, and goes itself.
    commit(&mut sink, moves(&[moved(9, 10, 3, "b"), (9, Some(3), None, "a")])).await;
    assert_rows(&rows_of(&lake).await, &[("3", "b"), ("7", "e"), ("8", "d")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_changes_and_of_rows_are_not_mixed() {
    for (before, after) in
        [(Mode::Changelog, Mode::Upsert), (Mode::Upsert, Mode::Changelog), (Mode::Upsert, Mode::Append)]
    {
        let mut lake = Lake::new(before);
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        commit(&mut sink, images(&[(1, Insert, Some(1), Some("a"))])).await;
        lake.config.mode = after;
        let error = lake.sink().fence(&claim(2, &[orders()])).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::Halt, "table.other_mode"), "{before:?} to {after:?}");
    }
}

async fn a_truncate_empties_a_table_that_one_source_feeds_and_is_a_letter_where_several_do(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, images(&[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))])).await;
    let truncate = |at| images(&[(at, Truncate, None, None)]);
    sink.write(images(&[(3, Insert, Some(3), Some("c"))])).await.unwrap();
    sink.write(truncate(4)).await.unwrap();
    commit(&mut sink, images(&[(5, Insert, Some(2), Some("after"))])).await;
    assert_rows(&rows_of(&lake).await, &[("2", "after")]);
    commit(&mut sink, truncate(6)).await;
    assert_rows(&rows_of(&lake).await, &[]);
    commit(&mut sink, images(&[(7, Insert, Some(1), Some("again"))])).await;

    let other = batch_of(&orders_schema(), &SourceKey::new("public.other"), false, &[(8, Insert, Some(9), Some("z"))]);
    commit(&mut sink, other).await;
    let prepared = commit(&mut sink, truncate(9)).await;
    assert_eq!(codes(&prepared), ["sink.truncate_shared"]);
    assert_rows(&rows_of(&lake).await, &[("1", "again"), ("9", "z")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_replaces_the_table_of_its_source_and_only_its_keys_where_others_feed_it() {
    let both = |key: ColumnType| Lake::of_current_rows().map(|lake| (key.clone(), lake));
    for (key, lake) in [ColumnType::Int64, ColumnType::Text].into_iter().flat_map(both) {
        let columns = vec![Column::new("id", key.clone()).key(), Column::new("note", ColumnType::Text)];
        let schema = Arc::new(TableSchema::new(orders(), columns, Images::Full));
        let of = |source: &SourceKey, snapshot: bool, rows: &[(i64, &'static str, &'static str)]| {
            let mut builder = RowsBuilder::new(source.clone(), Arc::clone(&schema), snapshot, 8).unwrap();
            for (at, id, note) in rows {
                builder.begin_change(Order::new(*at, 1), 0);
                builder.begin_row(Insert);
                match &mut builder.column(0).cells {
                    Cells::Int64(cells) => cells.append_value(id.parse().unwrap()),
                    Cells::Text(cells) => cells.append_value(id),
                    _ => unreachable!(),
                }
                if let Cells::Text(cells) = &mut builder.column(1).cells {
                    cells.append_value(note);
                }
            }
            builder.finish().unwrap().unwrap()
        };
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        commit(&mut sink, of(&source(), true, &[(1, "1", "a"), (1, "2", "b"), (1, "2", "twice"), (1, "3", "c")])).await;
        assert_rows(&rows_of(&lake).await, &[("1", "a"), ("2", "twice"), ("3", "c")]);
        // What is not in it any more goes.
        commit(&mut sink, of(&source(), true, &[(2, "2", "new"), (2, "4", "d")])).await;
        assert_rows(&rows_of(&lake).await, &[("2", "new"), ("4", "d")]);
        let other = SourceKey::new("public.other");
        commit(&mut sink, of(&other, false, &[(3, "8", "h")])).await;
        commit(&mut sink, of(&source(), true, &[(4, "2", "newer"), (4, "5", "e")])).await;
        assert_rows(&rows_of(&lake).await, &[("2", "newer"), ("4", "d"), ("5", "e"), ("8", "h")]);
    }
}

async fn a_staged_snapshot_is_committed_after_a_crash(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, images(&[(1, Insert, Some(1), Some("old")), (2, Insert, Some(9), Some("gone"))])).await;
    let snapshot = batch_of(
        &orders_schema(),
        &source(),
        true,
        &[(3, Insert, Some(1), Some("new")), (3, Insert, Some(2), Some("b"))],
    );
    let cut = end_of(&snapshot);
    sink.write(snapshot).await.unwrap();
    let manifest = sink.prepare(&cut).await.unwrap().manifest.unwrap();
    drop(sink);
    let mut next = lake.sink();
    fenced(&mut next, 2, &[orders()]).await;
    assert_rows(&rows_of(&lake).await, &[("1", "old"), ("9", "gone")]);
    for _ in 0..2 {
        next.recommit(&manifest).await.unwrap();
        assert_rows(&rows_of(&lake).await, &[("1", "new"), ("2", "b")]);
    }
    commit(&mut next, images(&[(4, Post, Some(1), Some("newest"))])).await;
    assert_rows(&rows_of(&lake).await, &[("1", "newest"), ("2", "b")]);
}

async fn columns_come_and_go_and_rows_keep_what_they_had(lake: Lake) {
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, images(&[(1, Insert, Some(1), Some("a")), (2, Insert, Some(2), Some("b"))])).await;
    let mut columns = orders_schema().columns.clone();
    columns.push(Column::new("more", ColumnType::Text));
    let grown = Arc::new(TableSchema::new(orders(), columns, Images::Full));
    // In one cut: an image of the old form, then of the new one which lacks its note.
    sink.write(images(&[(3, Post, Some(2), Some("b2"))])).await.unwrap();
    let mut rows = RowsBuilder::new(source(), Arc::clone(&grown), false, 4).unwrap();
    for (at, id) in [(4, 2), (5, 1)] {
        rows.begin_change(Order::new(at, 1), 0);
        rows.begin_row(Post);
        if let Cells::Int64(cells) = &mut rows.column(0).cells {
            cells.append_value(id);
        }
        rows.column(1).append_unavailable();
        if let Cells::Text(cells) = &mut rows.column(2).cells {
            cells.append_value("m");
        }
    }
    commit(&mut sink, rows.finish().unwrap().unwrap()).await;
    let found = current(&lake, &lake.path("public/orders"), &["id", "note", "more"]).await;
    assert_eq!(found, [["1", "a", "m"], ["2", "b2", "m"]]);
    // The old form again, of which rows have no such column.
    commit(&mut sink, images(&[(6, Post, Some(1), None)])).await;
    let found = current(&lake, &lake.path("public/orders"), &["id", "note", "more"]).await;
    assert_eq!(found, [["1", "a", "NULL"], ["2", "b2", "m"]]);
}

async fn a_key_that_no_partition_can_have_is_a_letter(mut lake: Lake) {
    lake.config.partition_by = vec!["note".into()];
    lake.config.key = [("public.orders".to_owned(), vec!["id".to_owned(), "note".to_owned()])].into();
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let batch = [(1, Insert, Some(1), Some("a")), (2, Insert, Some(1), Some("")), (3, Insert, Some(1), Some("b"))];
    let prepared = commit(&mut sink, images(&batch)).await;
    assert_eq!(codes(&prepared), ["sink.key_missing"]);
    assert_rows(&rows_of(&lake).await, &[("1", "a"), ("1", "b")]);
    // After a restart the key is that of the partition's folder and of the file.
    let mut next = lake.sink();
    fenced(&mut next, 2, &[orders()]).await;
    commit(&mut next, images(&[(4, Delete, Some(1), Some("a")), (5, Post, Some(1), Some("b"))])).await;
    assert_rows(&rows_of(&lake).await, &[("1", "b")]);
}
