use super::*;
use crate::log::schema::DeltaType;
use crate::upsert::keys::KeyForm;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_buffer::BooleanBuffer;
use millrace_core::batch::Changes;
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};

/// Change, type, key, value; `None` for a value that was not sent.
type Row = (u32, ChangeType, i64, Option<&'static str>);

fn part(origin: &Arc<Changes>, rows: &[Row]) -> Part {
    let columns = vec![Column::new("id", ColumnType::Int64).key(), Column::new("v", ColumnType::Text)];
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
    let values: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3)));
    let bits: BooleanBuffer = rows.iter().map(|r| r.3.is_none()).collect();
    let form = KeyForm { fields: fields()[..1].to_vec() };
    let column =
        |name: &str, cells: &ArrayRef, unavailable| Given { name: name.into(), cells: Arc::clone(cells), unavailable };
    Part {
        keys: form.encode(std::slice::from_ref(&ids)).unwrap(),
        columns: vec![column("id", &ids, None), column("v", &values, Some(bits.clone()))],
        ages: None,
        batch: ChangeBatch {
            schema: Arc::new(TableSchema::new(TableName::new("s", "t"), columns, Images::Full)),
            origin: Arc::clone(origin),
            change_types: rows.iter().map(|r| r.1).collect(),
            changes: rows.iter().map(|r| r.0).collect(),
            columns: vec![ids, values],
            unavailable: vec![None, Some(bits)],
        },
    }
}

fn fields() -> Vec<Field> {
    vec![Field::new("id", DeltaType::Long), Field::new("v", DeltaType::Text)]
}

fn origin() -> Arc<Changes> {
    Arc::new(Changes {
        source: SourceKey::new("s.t"),
        snapshot: false,
        orders: (1..=20).map(|n| Order::new(n, 1)).collect(),
        commit_times: vec![0; 20],
        rejects: Vec::new(),
        keys: Default::default(),
    })
}

/// For each key: what its value is, as text.
fn outcome(parts: &[Part], refused: &Refused) -> Vec<(i64, String)> {
    let folded = fold(parts, &fields(), refused, None, &BTreeSet::new());
    let value = |source: Source| match source {
        Source::Cell(at) => {
            let cells = parts[at.part as usize].columns[1].cells.as_any().downcast_ref::<StringArray>().unwrap();
            cells.value(at.row as usize).to_owned()
        }
        Source::Stored(key) => format!("stored of {}", id(&folded.keys[key as usize])),
        Source::Lost => "lost".into(),
    };
    fn id(key: &[u8]) -> i64 {
        (u64::from_be_bytes(key.try_into().unwrap()) ^ 1 << 63) as i64
    }
    let mut all: Vec<(i64, String)> = folded
        .keys
        .iter()
        .zip(&folded.fates)
        .map(|(key, fate)| {
            let text = match fate {
                Fate::Untouched => "untouched".to_owned(),
                Fate::Gone => "gone".to_owned(),
                Fate::Row(image) => value(image.source(1)),
            };
            (id(key), text)
        })
        .collect();
    all.sort();
    all
}

#[track_caller]
fn check(rows: &[Row], expected: &[(i64, &str)]) {
    let found = outcome(&[part(&origin(), rows)], &Refused::new());
    let found: Vec<(i64, &str)> = found.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(found, expected);
}

use ChangeType::{Delete, Insert, Truncate, UpdatePostimage as Post, UpdatePreimage as Pre};

#[test]
fn the_last_image_of_a_key_counts() {
    check(&[(0, Insert, 1, Some("a")), (1, Pre, 1, Some("a")), (1, Post, 1, Some("b"))], &[(1, "b")]);
    check(&[(0, Post, 1, Some("a")), (1, Post, 1, Some("b")), (2, Delete, 1, None)], &[(1, "gone")]);
    check(&[(0, Delete, 1, None), (1, Insert, 1, Some("c"))], &[(1, "c")]);
}

#[test]
fn what_was_not_sent_comes_from_the_image_before_then_from_the_table() {
    check(&[(0, Post, 1, None)], &[(1, "stored of 1")]);
    check(&[(0, Post, 1, Some("a")), (1, Post, 1, None), (2, Post, 1, None)], &[(1, "a")]);
    check(&[(0, Pre, 1, Some("full")), (0, Post, 1, None)], &[(1, "full")]);
    check(&[(0, Delete, 1, None), (1, Post, 1, None)], &[(1, "lost")]);
}

#[test]
fn a_key_change_takes_along_what_was_not_sent() {
    check(&[(0, Pre, 1, None), (0, Post, 2, None)], &[(1, "gone"), (2, "stored of 1")]);
    check(
        &[(0, Post, 1, Some("a")), (1, Pre, 1, None), (1, Post, 2, None), (2, Pre, 2, None), (2, Post, 3, None)],
        &[(1, "gone"), (2, "gone"), (3, "a")],
    );
    // There and back, and swapped in one change.
    check(
        &[(0, Pre, 1, None), (0, Post, 2, None), (1, Pre, 2, None), (1, Post, 1, None)],
        &[(1, "stored of 1"), (2, "gone")],
    );
    check(
        &[(0, Pre, 1, None), (0, Pre, 2, None), (0, Post, 2, None), (0, Post, 1, None)],
        &[(1, "stored of 1"), (2, "stored of 2")],
    );
}

#[test]
fn a_lone_preimage_retracts_its_key() {
    check(&[(0, Pre, 1, Some("a"))], &[(1, "gone")]);
}

#[test]
fn a_truncate_ends_everything_before_it() {
    check(&[(0, Insert, 1, Some("a")), (1, Truncate, 0, None), (2, Insert, 2, Some("b"))], &[(2, "b")]);
    check(&[(0, Truncate, 0, None), (1, Post, 1, None)], &[(1, "lost")]);
    let folded =
        fold(&[part(&origin(), &[(0, Truncate, 0, None)])], &fields(), &Refused::new(), None, &BTreeSet::new());
    assert!(folded.truncated && folded.keys.is_empty());
}

#[test]
fn letters_are_left_out_with_all_their_images() {
    let rows: &[Row] =
        &[(0, Insert, 1, Some("a")), (1, Pre, 1, Some("a")), (1, Post, 2, Some("b")), (2, Post, 3, Some("c"))];
    let refused = Refused::from([(SourceKey::new("s.t"), Order::new(2, 1))]);
    let found = outcome(&[part(&origin(), rows)], &refused);
    assert_eq!(found, [(1, "a".to_owned()), (3, "c".to_owned())]);
}

#[test]
fn batches_of_the_same_changes_are_folded_in_the_order_of_the_changes() {
    let origin = origin();
    let one = part(&origin, &[(0, Insert, 1, Some("a")), (3, Delete, 1, None)]);
    let two = part(&origin, &[(1, Post, 1, Some("b")), (4, Post, 2, Some("d"))]);
    assert_eq!(outcome(&[one, two], &Refused::new()), [(1, "gone".to_owned()), (2, "d".to_owned())]);
}

#[test]
fn an_image_knows_the_changes_that_it_leans_on() {
    let rows: &[Row] = &[(0, Post, 1, None), (1, Post, 1, None), (2, Post, 2, None), (3, Post, 2, Some("whole"))];
    let folded = fold(&[part(&origin(), rows)], &fields(), &Refused::new(), None, &BTreeSet::new());
    let chains: Vec<&[(u32, u32)]> = folded
        .fates
        .iter()
        .map(|fate| match fate {
            Fate::Row(image) => &image.chain[..],
            Fate::Untouched | Fate::Gone => &[],
        })
        .collect();
    assert_eq!(chains, [&[(0, 0), (0, 1)][..], &[(0, 3)][..]]);
}
