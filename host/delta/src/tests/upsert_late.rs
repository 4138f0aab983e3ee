//! `order_by`: a source that does not give the order of its changes; images that are older than their row are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::error::Kind;
use millrace_core::position::Order;
use millrace_core::schema::{Column, ColumnType, Images, TableSchema};
use millrace_core::sink::Sink;

use super::feed::replayed;
use super::mirror::{Dice, current};
use super::others::feeds;
use super::support::*;
use crate::config::Mode;
use crate::sink::DeltaSink;
use ChangeType::{Delete, Insert, Truncate, UpdatePostimage as Post, UpdatePreimage as Pre};

/// The age of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Unsent,
    Null,
    At(i64),
}
use Age::{At, Null, Unsent};

/// Image, id, age and note; a note that is `None` was not sent.
type Image = (ChangeType, i64, Age, Option<String>);

fn schema() -> Arc<TableSchema> {
    let columns = vec![
        Column::new("id", ColumnType::Int64).key(),
        Column::new("at", ColumnType::Int64),
        Column::new("note", ColumnType::Text),
    ];
    Arc::new(TableSchema::new(orders(), columns, Images::Key))
}

/// Changes, each with its images, from the commit `first` on.
fn batch(first: i64, changes: &[Vec<Image>]) -> ChangeBatch {
    let mut rows = RowsBuilder::new(source(), schema(), false, changes.len()).unwrap();
    for (commit, images) in (first..).zip(changes) {
        rows.begin_change(Order::new(commit, 1), 0);
        for (kind, id, age, note) in images {
            rows.begin_row(*kind);
            let [ids, ages, notes] = rows.columns() else { panic!("three columns") };
            match &mut ids.cells {
                Cells::Int64(cells) if *kind != Truncate => cells.append_value(*id),
                _ => ids.append_unavailable(),
            }
            match (age, &mut ages.cells) {
                (At(age), Cells::Int64(cells)) => cells.append_value(*age),
                (Null, cells) => cells.append_null(),
                _ => ages.append_unavailable(),
            }
            match (note, &mut notes.cells) {
                (Some(note), Cells::Text(cells)) => cells.append_value(note),
                _ => notes.append_unavailable(),
            }
        }
    }
    rows.finish().unwrap().unwrap()
}

fn ordered(mut lake: Lake) -> Lake {
    lake.config.order_by = [("public.orders".to_owned(), "at".to_owned())].into();
    lake
}

async fn commit(sink: &mut DeltaSink, batches: Vec<ChangeBatch>) {
    let last = batches.iter().flat_map(|b| &b.origin.orders).map(Order::commit).max().unwrap();
    for batch in batches {
        sink.write(batch).await.unwrap();
    }
    let cut = cut_of(&[(source(), last)]);
    let refused = sink.prepare(&cut).await.unwrap().refused;
    assert!(refused.is_empty(), "{}", refused[0].reason);
    sink.commit(&cut).await.unwrap();
}

async fn rows_of(lake: &Lake) -> Vec<String> {
    let rows = current(lake, &lake.path("public/orders"), &["id", "at", "note"]).await;
    rows.into_iter().map(|row| row.join(" ")).collect()
}

fn one(kind: ChangeType, id: i64, age: Age, note: &str) -> Vec<Image> {
    vec![(kind, id, age, Some(note.to_owned()))]
}

/// The same whether all of it comes in one cut, or each change in its own, from a host of its own.
async fn check(changes: &[Vec<Image>], expected: &[&str]) {
    for lake in Lake::of_current_rows().map(ordered) {
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        commit(&mut sink, vec![batch(1, changes)]).await;
        assert_eq!(rows_of(&lake).await, expected, "in one cut: {changes:?}");
    }
    for lake in Lake::of_current_rows().map(ordered) {
        for (place, change) in (1i64..).zip(changes) {
            let mut sink = lake.sink();
            let tables = [orders()];
            fenced(&mut sink, place as u64, if place == 1 { &[] } else { &tables }).await;
            commit(&mut sink, vec![batch(place, std::slice::from_ref(change))]).await;
        }
        assert_eq!(rows_of(&lake).await, expected, "in a cut each: {changes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_older_than_its_row_is_left_out() {
    check(&[one(Insert, 1, At(5), "new"), one(Insert, 1, At(4), "old")], &["1 5 new"]).await;
    check(&[one(Insert, 1, At(5), "a"), one(Post, 1, At(5), "as old, later")], &["1 5 as old, later"]).await;
    check(&[one(Post, 1, At(4), "old"), one(Post, 1, At(5), "new"), one(Post, 1, At(3), "older")], &["1 5 new"]).await;
    // Its preimage does not take the row away either.
    let update = vec![(Pre, 1, At(1), Some("z".into())), (Post, 1, At(2), Some("y".into()))];
    check(&[one(Insert, 1, At(5), "new"), update, one(Insert, 2, At(1), "b")], &["1 5 new", "2 1 b"]).await;
    // What was not sent is that of the row before.
    let update = |age| vec![(Post, 1, At(age), None)];
    check(&[one(Insert, 1, At(5), "a"), update(3), update(7), update(6)], &["1 7 a"]).await;
    // An image without an age, and one after a row without one, count as they come.
    check(&[one(Insert, 1, At(5), "a"), one(Post, 1, Null, "b"), one(Post, 1, At(1), "c")], &["1 1 c"]).await;
    let unsent = vec![(Post, 1, Unsent, Some("b".into()))];
    check(&[one(Insert, 1, At(5), "a"), unsent, one(Post, 1, At(4), "c")], &["1 5 b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_is_as_old_as_what_it_says_of_its_row() {
    let insert = || one(Insert, 1, At(5), "a");
    check(&[insert(), one(Delete, 1, At(4), "z"), one(Insert, 2, At(0), "b")], &["1 5 a", "2 0 b"]).await;
    check(&[insert(), one(Delete, 1, At(5), "a"), one(Insert, 2, At(0), "b")], &["2 0 b"]).await;
    check(&[insert(), vec![(Delete, 1, Unsent, None)], one(Insert, 2, At(0), "b")], &["2 0 b"]).await;
    check(&[insert(), vec![(Delete, 1, Null, None)], one(Insert, 2, At(0), "b")], &["2 0 b"]).await;
    // Nothing is known of a row that is gone.
    check(&[insert(), vec![(Delete, 1, Unsent, None)], one(Insert, 1, At(1), "back")], &["1 1 back"]).await;
    let truncate = vec![(Truncate, 0, Unsent, None)];
    for lake in Lake::of_current_rows().map(ordered) {
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        commit(&mut sink, vec![batch(1, &[insert()])]).await;
        let batches = vec![batch(2, std::slice::from_ref(&truncate)), batch(3, &[one(Insert, 1, At(1), "back")])];
        commit(&mut sink, batches).await;
        assert_eq!(rows_of(&lake).await, ["1 1 back"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_key_is_old_or_new_at_both_its_places() {
    let moved = |pre, post| vec![(Pre, 1, pre, None), (Post, 2, At(post), Some("moved".into()))];
    let before = || [one(Insert, 1, At(5), "a"), one(Insert, 2, At(5), "b")];
    let with = |change| before().into_iter().chain([change]).collect::<Vec<_>>();
    check(&with(moved(At(5), 6)), &["2 6 moved"]).await;
    check(&with(moved(Unsent, 6)), &["2 6 moved"]).await;
    check(&with(moved(At(3), 4)), &["1 5 a", "2 5 b"]).await;
    check(&with(moved(Unsent, 4)), &["1 5 a", "2 5 b"]).await;
    check(&with(moved(At(3), 6)), &["1 5 a", "2 6 moved"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_can_not_be_ordered_halt_their_table_by_name() {
    for (column, columns, said) in [
        ("updated", vec![], "no such column"),
        ("new", vec![Column::new("new", ColumnType::Boolean)], "a boolean tells no age"),
    ] {
        let mut lake = Lake::new(Mode::Upsert);
        lake.config.order_by = [("public.orders".to_owned(), column.to_owned())].into();
        let mut schema = orders_schema();
        Arc::make_mut(&mut schema).columns.extend(columns);
        let mut sink = lake.sink();
        fenced(&mut sink, 1, &[]).await;
        let error = sink.write(inserts(&schema, source(), 1..=1)).await.unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::HaltTable, "upsert.order_column"));
        assert!(error.message.contains(said), "{error}");
    }
    // A later form of the rows has it no more.
    let lake = ordered(Lake::new(Mode::Upsert));
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    commit(&mut sink, vec![batch(1, &[one(Insert, 1, At(1), "a")])]).await;
    let error = sink.write(inserts(&orders_schema(), source(), 2..=2)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::HaltTable, "upsert.order_column"));
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    age: Option<i64>,
    note: String,
}

type Rows = BTreeMap<i64, Row>;

fn is_late(rows: &Rows, id: i64, age: Age) -> bool {
    let now = rows.get(&id).and_then(|row| row.age);
    matches!((age, now), (At(age), Some(now)) if age < now)
}

/// What the images of a change make of the rows.
fn apply(rows: &mut Rows, images: &[Image]) {
    let before = rows.clone();
    let post = images.iter().find(|(kind, ..)| matches!(kind, Insert | Post));
    let pre = images.iter().find(|(kind, ..)| matches!(kind, Pre | Delete));
    if let Some((_, id, age, _)) = pre.filter(|pre| post.is_none_or(|post| post.1 != pre.1)) {
        let age = match (age, post) {
            (Unsent | Null, Some(post)) => post.2,
            _ => *age,
        };
        if !is_late(&before, *id, age) {
            rows.remove(id);
        }
    }
    let Some((_, id, age, note)) = post.filter(|post| !is_late(&before, post.1, post.2)) else { return };
    let earlier = before.get(&pre.map_or(*id, |pre| pre.1));
    let age = match age {
        At(age) => Some(*age),
        Null => None,
        Unsent => earlier.and_then(|row| row.age),
    };
    let note = note.clone().unwrap_or_else(|| earlier.map_or(String::new(), |row| row.note.clone()));
    rows.insert(*id, Row { age, note });
}

fn random_change(dice: &mut Dice, rows: &Rows, clock: i64) -> Vec<Image> {
    let id = dice.below(20) as i64;
    // Most come in order, some late.
    let age = match dice.below(12) {
        0 => Null,
        1..=4 => At(clock - dice.below(40) as i64),
        _ => At(clock),
    };
    let older = |dice: &mut Dice| match dice.below(3) {
        0 => Unsent,
        1 => Null,
        _ => At(clock - dice.below(40) as i64),
    };
    let note = Some(format!("note {}", dice.below(1_000)));
    if !rows.contains_key(&id) {
        return vec![(if dice.one_in(3) { Post } else { Insert }, id, age, note)];
    }
    match dice.below(8) {
        0 => vec![(Delete, id, older(dice), None)],
        1 => {
            let to = dice.below(20) as i64;
            vec![(Pre, id, older(dice), None), (Post, to, age, if dice.one_in(2) { None } else { note })]
        }
        2 => vec![(Post, id, age, None)],
        3 => vec![(Post, id, Unsent, note)],
        4 => vec![(Pre, id, older(dice), None), (Post, id, age, note)],
        _ => vec![(Post, id, age, note)],
    }
}

/// Random ages, cuts, restarts and compactions: after every commit the table is what the rule says, and so is its feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_image_of_each_key_stays_however_late_others_come() {
    let mut ignored = 0;
    for seed in 0..12u64 {
        for mut lake in Lake::of_current_rows().map(ordered) {
            let mut dice = Dice(seed);
            lake.config.checkpoint_interval = 1 + dice.below(4);
            lake.config.change_data_feed = dice.one_in(2);
            lake.index_memory = [None, Some(0)][dice.below(2) as usize];
            let (mut rows, mut at, mut epoch) = (Rows::new(), 0, 1);
            let mut sink = lake.sink();
            fenced(&mut sink, epoch, &[]).await;
            for _ in 0..15 {
                let first = at + 1;
                let mut changes = Vec::new();
                for _ in 0..1 + dice.below(12) {
                    at += 1;
                    let change = random_change(&mut dice, &rows, at);
                    ignored += u32::from(change.iter().any(|image| is_late(&rows, image.1, image.2)));
                    apply(&mut rows, &change);
                    changes.push(change);
                }
                commit(&mut sink, vec![batch(first, &changes)]).await;
                if dice.one_in(3) {
                    epoch += 1;
                    sink = lake.sink();
                    fenced(&mut sink, epoch, &[orders()]).await;
                }
                let shown_age = |row: &Row| row.age.map_or("NULL".to_owned(), |age| age.to_string());
                let shown = |(id, row): (&i64, &Row)| vec![id.to_string(), shown_age(row), row.note.clone()];
                let mut expected: Vec<Vec<String>> = rows.iter().map(shown).collect();
                expected.sort();
                let (table, names) = (lake.path("public/orders"), ["id", "at", "note"]);
                assert_eq!(current(&lake, &table, &names).await, expected, "seed {seed}, commit {at}");
                if lake.config.change_data_feed && changes.len() > 10 {
                    for (reader, feed) in feeds(&table, &names, false) {
                        assert_eq!(replayed(reader, feed), expected, "seed {seed}, the feed by {reader}");
                    }
                }
            }
        }
    }
    assert!(ignored > 100, "{ignored} changes had an image that was late");
}
