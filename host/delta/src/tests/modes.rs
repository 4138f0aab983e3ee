//! What the modes keep, and tables of many or large files.

use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::Order;
use millrace_core::schema::{Column, ColumnType, Images, TableSchema};
use millrace_core::sink::Sink;

use super::support::*;
use crate::config::Mode;
use crate::sink::DeltaSink;

async fn commit(sink: &mut DeltaSink, batch: ChangeBatch) {
    let last = batch.origin.orders.last().unwrap().commit();
    sink.write(batch).await.unwrap();
    let cut = cut_of(&[(source(), last)]);
    sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
}

/// An insert, an update with both images, a key-only delete, a truncate.
fn all_images() -> ChangeBatch {
    use ChangeType::*;
    let mut rows = RowsBuilder::new(source(), orders_schema(), false, 8).unwrap();
    let changes: [&[ChangeType]; 4] = [&[Insert], &[UpdatePreimage, UpdatePostimage], &[Delete], &[Truncate]];
    for (n, images) in changes.iter().enumerate() {
        rows.begin_change(Order::new(n as i64 + 1, 1), 0);
        for image in *images {
            rows.begin_row(*image);
            if let Cells::Int64(cells) = &mut rows.column(0).cells {
                cells.append_value(n as i64 + 1);
            }
            rows.column(1).append_unavailable();
        }
    }
    rows.finish().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changelog_keeps_all_images_and_an_append_table_one_row_a_change() {
    for (mode, kept) in [
        (Mode::Changelog, &["delete", "insert", "truncate", "update_postimage", "update_preimage"][..]),
        (Mode::Append, &["delete", "insert", "truncate", "update_postimage"][..]),
    ] {
        let lake = Lake::new(mode);
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        commit(&mut sink, all_images()).await;
        let table = lake.path("public/orders");
        assert_eq!(column(&table, "_millrace_change_type").await, kept);
        assert_eq!(sink.committed()[&orders()], kept.len() as u64);
        let positions = column(&table, "_millrace_position").await;
        assert_eq!(positions.last().unwrap(), &Order::new(4, 1).to_sortable());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preimages_alone_commit_nothing_to_an_append_table() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let batch = all_images().filter(&[false, true, false, false, false].into_iter().collect()).unwrap();
    commit(&mut sink, batch).await;
    assert!(!lake.path("public/orders").exists());
}

/// Rows of 64 KiB that do not compress.
fn heavy(schema: &Arc<TableSchema>, first: i64, rows: i64) -> ChangeBatch {
    let mut builder = RowsBuilder::new(source(), Arc::clone(schema), false, rows as usize).unwrap();
    let mut state = first as u64;
    for n in first..first + rows {
        builder.begin_change(Order::new(n, 1), 0);
        builder.begin_row(ChangeType::Insert);
        let noise: Vec<u8> = (0..8_192)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state ^ (state >> 29)).to_le_bytes()
            })
            .collect();
        for column in builder.columns() {
            match &mut column.cells {
                Cells::Int64(cells) => cells.append_value(n),
                Cells::Binary(cells) => cells.append_value(&noise),
                other => other.append_null(),
            }
        }
    }
    builder.finish().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_uploaded_in_parts_and_end_at_the_target_size() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.target_file_size = 48 << 20;
    let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("blob", ColumnType::Binary)];
    let schema = Arc::new(TableSchema::new(orders(), columns, Images::Full));
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    // 80 MiB: a file of 48 that was flushed on the way, and the rest.
    for part in 0..40 {
        sink.write(heavy(&schema, part * 32 + 1, 32)).await.unwrap();
    }
    let cut = cut_of(&[(source(), 40 * 32)]);
    sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
    let table = lake.path("public/orders");
    assert_eq!(count_of(&table, ".parquet"), 2);
    assert_eq!(ids(&table).await, (1..=40 * 32).collect::<Vec<_>>());
    let staged =
        std::fs::read_dir(&table).unwrap().filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains('#'));
    assert_eq!(staged.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_over_more_partitions_than_files_are_open_loses_no_row() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.partition_by = vec!["note".into()];
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    sink.write(inserts(&orders_schema(), source(), 1..=100)).await.unwrap();
    // The same partitions once more, by another batch of the same cut.
    let again = inserts(&orders_schema(), source(), 1..=100);
    let mut origin = (*again.origin).clone();
    origin.orders.iter_mut().for_each(|o| o.0[0] += 100);
    sink.write(ChangeBatch { origin: Arc::new(origin), ..again }).await.unwrap();
    let cut = cut_of(&[(source(), 200)]);
    sink.prepare(&cut).await.unwrap();
    sink.commit(&cut).await.unwrap();
    let mut expected: Vec<i64> = (1..=100).chain(1..=100).collect();
    expected.sort_unstable();
    assert_eq!(ids(&lake.path("public/orders")).await, expected);
}
