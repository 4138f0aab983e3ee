//! The arithmetic of verdicts, filters and routes against a model that looks at one change at a time, in plain values.
//!
//! The model is the plugin contract (`wit/`, `transform.outcome` and `types.reject`) read sentence by sentence; it shares no
//! code with `outcome.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_buffer::BooleanBuffer;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::outcome::{Emission, From, Outcome, Routing, RowReject, Shape, TransformPlan, Written, resolve};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::stage::StageOutput;
use proptest::prelude::*;

// ---- what a plugin is given, and says: a change at a time ----

/// A cell, as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Null,
    Unavailable,
    Value(String),
}

/// What the plugin says of one row image.
#[derive(Clone, Debug)]
struct Answer {
    keep: bool,
    /// Number of the reject, in the order in which the plugin names them; several may be of one change.
    reject: Option<u16>,
    /// Index into [`ROUTES`].
    route: u16,
    /// Its two written cells.
    written: [Cell; 2],
    /// Change types and own cells of the rows that it adds.
    emits: Vec<(ChangeType, Cell)>,
}

#[derive(Clone, Debug)]
struct Image {
    change_type: ChangeType,
    /// `id` (the key), `a` (the plugin reads it), `b`.
    cells: [Cell; 3],
    answer: Answer,
}

/// The images of one change.
type Change = Vec<Image>;

/// How the plugin was planned.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Its first written column replaces the key; else it replaces `b`.
    writes_key: bool,
    /// Its first column comes without cells: the input's stand.
    keeps_input: bool,
    /// It answers with fates, and with a routing.
    filters: bool,
    routes: bool,
    /// It names its rejects from the last to the first.
    backwards: bool,
}

/// Names that a plugin routes to: the default, another table, one of another namespace, and other spellings of the
/// default and of the second.
const ROUTES: [&str; 5] = ["", "x", "other.y", "t", "shop.x"];
/// The tables that they are.
const TABLES: [&str; 5] = ["shop.t", "shop.x", "other.y", "shop.t", "shop.x"];

// ---- the model ----

/// A row that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Out {
    change: u32,
    change_type: ChangeType,
    cells: Vec<Cell>,
}

/// Everything that leaves, by table; emissions go to a table of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Result {
    tables: BTreeMap<String, Vec<Out>>,
    /// Change and reason.
    rejects: Vec<(u32, String)>,
    dropped: u64,
    emitted: u64,
}

impl Result {
    fn push(&mut self, table: &str, out: Out) {
        self.tables.entry(table.to_owned()).or_default().push(out);
    }
}

/// "A reject named on a preimage or a delete refuses nothing (but where the plan writes a key column)."
fn refuses(kind: Kind, image: &Image) -> bool {
    let decides = matches!(image.change_type, ChangeType::Insert | ChangeType::UpdatePostimage);
    image.answer.reject.is_some() && (decides || kind.writes_key)
}

fn model(kind: Kind, changes: &[Change]) -> Result {
    let mut result = Result::default();
    for (change, images) in (0..).zip(changes) {
        model_change(kind, change, images, &mut result);
    }
    result
}

fn model_change(kind: Kind, change: u32, images: &Change, result: &mut Result) {
    let named = |image: &&Image| {
        let number = image.answer.reject.expect("is rejected");
        if kind.backwards { -i32::from(number) } else { i32::from(number) }
    };
    // "Several may be named; the first gives the reason."
    if let Some(first) = images.iter().filter(|i| refuses(kind, i)).min_by_key(named) {
        result.rejects.push((change, format!("reason {}", first.answer.reject.expect("is rejected"))));
        return;
    }
    let table = |image: &Image| if kind.routes { TABLES[usize::from(image.answer.route)] } else { TABLES[0] };
    let out = |image: &Image, change_type| Out { change, change_type, cells: output_cells(kind, image) };
    match images.as_slice() {
        [pre, post] => match (stays(kind, pre), stays(kind, post)) {
            (true, true) if table(pre) == table(post) => {
                result.push(table(pre), out(pre, ChangeType::UpdatePreimage));
                result.push(table(post), out(post, ChangeType::UpdatePostimage));
            }
            (pre_stays, post_stays) => {
                if pre_stays {
                    result.push(table(pre), out(pre, ChangeType::Delete));
                }
                if post_stays {
                    result.push(table(post), out(post, ChangeType::Insert));
                }
                result.dropped += u64::from(!pre_stays) + u64::from(!post_stays);
            }
        },
        [one] if stays(kind, one) => result.push(table(one), out(one, one.change_type)),
        // The row may be in the table from before: it leaves by its key.
        [one] if one.change_type == ChangeType::UpdatePostimage => {
            let mut gone = out(one, ChangeType::Delete);
            gone.cells[1..].fill(Cell::Unavailable);
            result.push(table(one), gone);
        }
        _ => result.dropped += images.len() as u64,
    }
    for image in images {
        for (change_type, own) in &image.answer.emits {
            let cells = vec![image.cells[0].clone(), image.cells[2].clone(), own.clone()];
            result.push("shop.children", Out { change, change_type: *change_type, cells });
            result.emitted += 1;
        }
    }
}

/// "The fate of a row named in `rejects` is ignored." "A delete that lacks a column which the plugin read is never
/// dropped."
fn stays(kind: Kind, image: &Image) -> bool {
    !kind.filters || image.answer.keep || image.answer.reject.is_some() || is_blind_delete(image)
}

fn is_blind_delete(image: &Image) -> bool {
    image.change_type == ChangeType::Delete && image.cells[1] == Cell::Unavailable
}

/// The output's columns: `id`, `a` (renamed), `b`, and a new one.
fn output_cells(kind: Kind, image: &Image) -> Vec<Cell> {
    let [id, a, b] = image.cells.clone();
    let dropped = kind.filters && !image.answer.keep;
    // "The cells written for that image count as not sent"; cells of a row that the plugin drops are ignored.
    let unwritten = image.answer.reject.is_some() || (dropped && is_blind_delete(image));
    let [first, second] = image.answer.written.clone().map(|cell| if unwritten { Cell::Unavailable } else { cell });
    if kind.writes_key {
        let key = image.answer.written[0].clone();
        return vec![if kind.keeps_input { id } else { key }, a, b, second];
    }
    vec![id, a, if kind.keeps_input { b } else { first }, second]
}

// ---- the same in Arrow ----

fn input_schema() -> Arc<TableSchema> {
    let columns = vec![
        Column::new("id", ColumnType::Text).key(),
        Column::new("a", ColumnType::Int64),
        Column::new("b", ColumnType::Text),
    ];
    Arc::new(TableSchema::new(TableName::new("shop", "t"), columns, Images::Full))
}

fn plan(kind: Kind) -> TransformPlan {
    let columns = vec![
        Column::new("id", ColumnType::Text).key(),
        Column::new("a2", ColumnType::Int64),
        Column::new("b", ColumnType::Text),
        Column::new("new", ColumnType::Text),
    ];
    let first = |replaces| From::Written { index: 0, replaces: Some(replaces) };
    let (id, b) = if kind.writes_key { (first(0), From::Input(2)) } else { (From::Input(0), first(2)) };
    let children = vec![
        Column::new("parent", ColumnType::Text).key(),
        Column::new("b", ColumnType::Text),
        Column::new("own", ColumnType::Text),
    ];
    let schema = Arc::new(TableSchema::new(TableName::new("shop", "children"), children, Images::Full));
    TransformPlan {
        output: Arc::new(TableSchema::new(TableName::new("shop", "t"), columns, Images::Full)),
        columns: vec![id, From::Input(1), b, From::Written { index: 1, replaces: None }],
        reads: vec![1],
        writes_key: kind.writes_key,
        shapes: vec![Shape { schema, inherits: vec![0, 2] }],
    }
}

fn input(changes: &[Change]) -> ChangeBatch {
    let mut rows = RowsBuilder::new(SourceKey::new("shop.t"), input_schema(), false, 16).expect("a builder");
    for (order, images) in (1..).zip(changes) {
        rows.begin_change(Order::new(order, 1), order);
        for image in images {
            rows.begin_row(image.change_type);
            for (column, cell) in rows.columns().iter_mut().zip(&image.cells) {
                match (cell, &mut column.cells) {
                    (Cell::Unavailable, _) => column.append_unavailable(),
                    (Cell::Null, _) => column.append_null(),
                    (Cell::Value(text), Cells::Text(b)) => b.append_value(text),
                    (Cell::Value(text), Cells::Int64(b)) => b.append_value(text.parse().expect("a number")),
                    (cell, _) => panic!("{cell:?}"),
                }
            }
        }
    }
    rows.finish().expect("finishes").expect("has rows")
}

fn written(cells: &[Cell]) -> Written {
    let value = |cell: &Cell| match cell {
        Cell::Value(text) => Some(text.clone()),
        _ => None,
    };
    let array: StringArray = cells.iter().map(value).collect();
    let missing: BooleanBuffer = cells.iter().map(|c| *c == Cell::Unavailable).collect();
    Written { cells: Arc::new(array), unavailable: (missing.count_set_bits() > 0).then_some(missing) }
}

fn outcome(kind: Kind, changes: &[Change]) -> Outcome {
    let answers: Vec<&Answer> = changes.iter().flatten().map(|i| &i.answer).collect();
    let column = |index: usize| {
        let cells: Vec<Cell> = answers.iter().map(|a| a.written[index].clone()).collect();
        (index == 1 || !kind.keeps_input).then(|| written(&cells))
    };
    let mut rejects: Vec<(u16, u32)> =
        (0..).zip(&answers).filter_map(|(row, answer)| answer.reject.map(|number| (number, row))).collect();
    rejects.sort_by_key(|(number, _)| if kind.backwards { -i32::from(*number) } else { i32::from(*number) });
    let rejects = rejects.into_iter().map(|(number, row)| RowReject {
        row,
        code: "no".into(),
        reason: format!("reason {number}"),
        column: None,
    });
    let children: Vec<(u32, ChangeType, Cell)> = (0..)
        .zip(&answers)
        .flat_map(|(row, answer)| answer.emits.iter().map(move |(ty, cell)| (row, *ty, cell.clone())))
        .collect();
    let emission = Emission {
        shape: 0,
        parent: children.iter().map(|c| c.0).collect(),
        change_types: children.iter().map(|c| c.1).collect(),
        columns: vec![written(&children.iter().map(|c| c.2.clone()).collect::<Vec<_>>())],
    };
    Outcome {
        keep: kind.filters.then(|| answers.iter().map(|a| a.keep).collect()),
        columns: vec![column(0), column(1)],
        rejects: rejects.collect(),
        emissions: if children.is_empty() { Vec::new() } else { vec![emission] },
        routing: kind.routes.then(|| Routing {
            names: ROUTES.map(str::to_owned).to_vec(),
            by_row: answers.iter().map(|a| a.route).collect(),
        }),
    }
}

fn cell(batch: &ChangeBatch, column: usize, row: usize) -> Cell {
    let array: &ArrayRef = &batch.columns[column];
    if batch.is_unavailable(column, row) {
        assert!(array.is_null(row), "the cell beside an unavailable bit is null");
        return Cell::Unavailable;
    }
    if array.is_null(row) {
        return Cell::Null;
    }
    Cell::Value(match array.as_string_opt::<i32>() {
        Some(texts) => texts.value(row).to_owned(),
        None => array.as_primitive::<Int64Type>().value(row).to_string(),
    })
}

/// `first`: the change that counts as 0.
fn read(output: &StageOutput, first: u32) -> Result {
    let mut result = Result { dropped: output.dropped, emitted: output.emitted, ..Result::default() };
    for batch in &output.batches {
        batch.check().expect("the batch fits its schema");
        assert!(!batch.is_empty(), "no batch is empty");
        for row in 0..batch.rows() {
            let cells = (0..batch.columns.len()).map(|c| cell(batch, c, row)).collect();
            let change = batch.changes[row] - first;
            result.push(&batch.schema.name.to_string(), Out { change, change_type: batch.change_types[row], cells });
        }
    }
    result.rejects = output.rejects.iter().map(|r| (r.change - first, r.reason.clone())).collect();
    result
}

fn run(kind: Kind, batch: &ChangeBatch, changes: &[Change]) -> StageOutput {
    resolve(batch, &plan(kind), outcome(kind, changes)).expect("resolves")
}

// ---- arbitrary changes and answers ----

fn any_cell(text: &'static str) -> impl Strategy<Value = Cell> {
    prop_oneof![
        4 => text.prop_map(Cell::Value),
        1 => Just(Cell::Null),
        1 => Just(Cell::Unavailable),
    ]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let emitted = prop_oneof![Just(ChangeType::Insert), Just(ChangeType::Delete)];
    (
        prop::bool::weighted(0.6),
        prop::option::weighted(0.15, any::<u16>()),
        0..ROUTES.len() as u16,
        [any_cell("[a-c]"), any_cell("[x-z]")],
        prop::collection::vec((emitted, any_cell("[m-o]")), 0..3),
    )
        .prop_map(|(keep, reject, route, written, emits)| Answer { keep, reject, route, written, emits })
}

fn any_image(change_type: ChangeType, key_only: bool) -> impl Strategy<Value = Image> {
    ("[1-9]", any_cell("-?[1-9][0-9]"), any_cell("[a-z]{0,3}"), any_answer()).prop_map(move |(id, a, b, answer)| {
        let [a, b] = if key_only { [Cell::Unavailable, Cell::Unavailable] } else { [a, b] };
        Image { change_type, cells: [Cell::Value(id), a, b], answer }
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    use ChangeType::{Delete, Insert, UpdatePostimage, UpdatePreimage};
    let one = |ty, key_only| any_image(ty, key_only).prop_map(|image| vec![image]).boxed();
    let two = |key_only| {
        (any_image(UpdatePreimage, key_only), any_image(UpdatePostimage, false))
            .prop_map(|(pre, post)| vec![pre, post])
            .boxed()
    };
    prop_oneof![
        one(Insert, false),
        two(false),
        two(true),
        one(UpdatePostimage, false),
        one(Delete, false),
        one(Delete, true),
    ]
}

fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any_change(), 1..14)
}

fn any_kind() -> impl Strategy<Value = Kind> {
    any::<[bool; 5]>().prop_map(|[writes_key, keeps_input, filters, routes, backwards]| Kind {
        writes_key,
        keeps_input,
        filters,
        routes,
        backwards,
    })
}

/// One after the other, as the engine sees the output of a batch that was cut in two.
fn joined(mut first: Result, second: Result, offset: u32) -> Result {
    for (table, rows) in second.tables {
        let rows = rows.into_iter().map(|out| Out { change: out.change + offset, ..out });
        first.tables.entry(table).or_default().extend(rows);
    }
    first.rejects.extend(second.rejects.into_iter().map(|(change, reason)| (change + offset, reason)));
    first.dropped += second.dropped;
    first.emitted += second.emitted;
    first
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn every_change_leaves_as_the_contract_says(kind in any_kind(), changes in any_changes()) {
        let output = run(kind, &input(&changes), &changes);
        prop_assert_eq!(read(&output, 0), model(kind, &changes));
    }

    #[test]
    fn a_cut_between_two_changes_changes_nothing(kind in any_kind(), changes in any_changes()) {
        let batch = input(&changes);
        let whole = read(&run(kind, &batch, &changes), 0);
        for cut in 1..changes.len() {
            let rows = changes[..cut].iter().map(Vec::len).sum();
            let (left, right) = changes.split_at(cut);
            let first = run(kind, &batch.slice(0, rows), left);
            let second = run(kind, &batch.slice(rows, batch.rows() - rows), right);
            let offset = cut as u32;
            prop_assert_eq!(joined(read(&first, 0), read(&second, offset), offset), whole.clone(), "cut before change {}", cut);
        }
    }

    #[test]
    fn every_row_image_is_accounted_for(kind in any_kind(), changes in any_changes()) {
        let output = run(kind, &input(&changes), &changes);
        let refused: Vec<u32> = output.rejects.iter().map(|r| r.change).collect();
        let letters: usize = refused.iter().map(|c| changes[*c as usize].len()).sum();
        let out: usize = output.batches.iter().map(ChangeBatch::rows).sum();
        let images: usize = changes.iter().map(Vec::len).sum();
        prop_assert_eq!(images as u64 + output.emitted, out as u64 + output.dropped + letters as u64);
        prop_assert!(refused.is_sorted_by(|a, b| a < b), "letters stand in the order of their changes: {:?}", refused);
    }
}

#[test]
fn the_model_meets_every_kind_of_row() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut types, mut rejects, mut unwritten) = (std::collections::BTreeSet::new(), 0, 0);
    for _ in 0..300 {
        let kind = any_kind().new_tree(&mut runner).expect("a kind").current();
        let changes = any_changes().new_tree(&mut runner).expect("changes").current();
        let result = model(kind, &changes);
        rejects += result.rejects.len();
        for (table, out) in result.tables.iter().flat_map(|(t, rows)| rows.iter().map(move |r| (t.clone(), r))) {
            types.insert((table, out.change_type.name()));
            unwritten += usize::from(out.cells.last() == Some(&Cell::Unavailable));
        }
    }
    assert_eq!(types.len(), 3 * 4 + 2, "each table has each kind of row: {types:?}");
    assert!(rejects > 100 && unwritten > 100, "{rejects} {unwritten}");
}
