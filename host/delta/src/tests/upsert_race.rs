//! Two hosts take one mirrored table from each other all the time: every update lands once, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::error::Kind;
use millrace_core::position::{Order, SourceKey};
use millrace_core::sink::Sink;

use super::mirror::current;
use super::support::*;
use super::upsert::{self, batch_of, end_of, images};
use crate::config::Mode;
use crate::sink::DeltaSink;

const KEYS: i64 = 7;

/// The change of this number: one of a few rows gets the number as its note; of every third the row before is needed.
fn change(number: i64) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source(), orders_schema(), false, 1).unwrap();
    rows.begin_change(Order::new(number, 1), 0);
    rows.begin_row(ChangeType::UpdatePostimage);
    if let Cells::Int64(cells) = &mut rows.column(0).cells {
        cells.append_value(number % KEYS);
    }
    if number > KEYS && number % 3 == 0 {
        rows.column(1).append_unavailable();
    } else if let Cells::Text(cells) = &mut rows.column(1).cells {
        cells.append_value(number.to_string());
    }
    rows.finish().unwrap().unwrap()
}

async fn commit(sink: &mut DeltaSink, number: i64) -> millrace_core::Result<()> {
    sink.write(change(number)).await?;
    let cut = cut_of(&[(source(), number)]);
    assert!(sink.prepare(&cut).await?.refused.is_empty());
    sink.commit(&cut).await
}

/// Runs two hosts until `changes` changes are in the table.
pub(super) async fn contend(lake: Arc<Lake>, changes: i64) {
    let (epochs, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let host = |patience: u64| {
        let (lake, epochs, lost) = (Arc::clone(&lake), Arc::clone(&epochs), Arc::clone(&lost));
        async move {
            loop {
                let mut sink = lake.sink();
                let epoch = epochs.fetch_add(1, Ordering::SeqCst) + 1;
                let stored = match sink.fence(&claim(epoch, &[orders()])).await {
                    Ok(stored) => stored,
                    Err(error) => {
                        // Overtaken, or the table was created by the other one meanwhile.
                        assert!(matches!(error.kind, Kind::LetGo | Kind::Reload), "{error}");
                        continue;
                    }
                };
                let mut at = stored[&orders()].get(&source()).map_or(0, Order::commit);
                // The other host may take over at any time; it does so after a while.
                while at < changes {
                    match commit(&mut sink, at + 1).await {
                        Ok(()) => at += 1,
                        Err(error) => {
                            assert_eq!((error.kind, error.code), (Kind::LetGo, "epoch.superseded"), "{error}");
                            lost.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                    }
                }
                if at >= changes {
                    return;
                }
                for _ in 0..patience {
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let (one, two) = (tokio::spawn(host(3)), tokio::spawn(host(7)));
    one.await.unwrap();
    two.await.unwrap();
    assert!(lost.load(Ordering::SeqCst) > 1, "they did contend");
}

/// What the table holds then.
pub(super) fn contended(changes: i64) -> Vec<Vec<String>> {
    let note = |id: i64| (1..=changes).rev().find(|n| n % KEYS == id && !(*n > KEYS && n % 3 == 0));
    let mut rows: Vec<Vec<String>> = (0..KEYS).map(|id| vec![id.to_string(), note(id).unwrap().to_string()]).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_that_take_a_table_from_each_other_lose_no_update() {
    let lake = Arc::new(Lake::new(Mode::Upsert));
    contend(Arc::clone(&lake), 300).await;
    assert_eq!(current(&lake, &lake.path("public/orders"), &["id", "note"]).await, contended(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_planned_on_a_table_that_another_host_has() {
    let lake = Lake::new(Mode::Upsert);
    let mut former = lake.sink();
    fenced(&mut former, 1, &[]).await;
    upsert::commit(&mut former, images(&[(1, ChangeType::Insert, Some(1), Some("a"))])).await;
    let mut owner = lake.sink();
    fenced(&mut owner, 2, &[orders()]).await;
    upsert::commit(&mut owner, images(&[(2, ChangeType::Delete, Some(1), None)])).await;
    // So late that the table is looked at anew. Without its row the change would be a letter.
    lake.machine.skip(3_600);
    let change = images(&[(3, ChangeType::UpdatePostimage, Some(1), None)]);
    former.write(change.clone()).await.unwrap();
    let error = former.prepare(&end_of(&change)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::LetGo, "epoch.superseded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_staged_while_the_stream_moves_on() {
    let lake = Lake::new(Mode::Upsert);
    let other = |at, note| {
        let source = SourceKey::new("public.other");
        batch_of(&orders_schema(), &source, false, &[(at, ChangeType::Insert, Some(at), Some(note))])
    };
    let mut stream = lake.sink();
    fenced(&mut stream, 1, &[]).await;
    upsert::commit(&mut stream, images(&[(1, ChangeType::Insert, Some(1), Some("a"))])).await;
    upsert::commit(&mut stream, other(2, "b")).await;
    let mut beside = lake.sink();
    fenced(&mut beside, 1, &[orders()]).await;
    upsert::commit(&mut stream, other(3, "c")).await;
    lake.machine.skip(3_600);
    let rows = [(4, ChangeType::Insert, Some(1), Some("s"))];
    let snapshot = batch_of(&orders_schema(), &source(), true, &rows);
    beside.write(snapshot.clone()).await.unwrap();
    let staged = beside.prepare(&end_of(&snapshot)).await.unwrap().manifest.unwrap();
    drop((stream, beside));
    let mut next = lake.sink();
    fenced(&mut next, 2, &[orders()]).await;
    next.recommit(&staged).await.unwrap();
    let found = current(&lake, &lake.path("public/orders"), &["id", "note"]).await;
    assert_eq!(found, [["1", "s"], ["2", "b"], ["3", "c"]]);
}
