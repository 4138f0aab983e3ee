//! Tables, batches and stages for the tests of this folder.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::stage::{Grants, OnFailure, Stage, StageLoader, StageOutput, StageSpec};
use millrace_core::{Error, json};
use millrace_wasm::{Keys, RuntimeOptions, WasmRuntime};
use serde_json::Value as Json;

/// The component of a plugin of `plugins/`.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/dist");
    let dist = std::env::var_os("MILLRACE_PLUGINS_DIR").map_or_else(|| PathBuf::from(dist), PathBuf::from);
    let path = dist.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run `cargo xtask plugins` before", path.display()))
}

pub(crate) fn runtime() -> WasmRuntime {
    let keys = Keys::new([("pii".to_string(), b"secret".to_vec())]);
    // Kept between runs: a test then takes what it takes to run, not to compile.
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plugin-cache");
    WasmRuntime::new(RuntimeOptions { pipeline: "test".to_string(), cache: Some(cache), keys }).expect("runtime")
}

pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_string()).collect()
}

pub(crate) fn grants(read: &[&str], write: &[&str]) -> Grants {
    Grants { read: names(read), write: names(write), keys: Vec::new(), crypto: Vec::new() }
}

pub(crate) fn spec(name: &str, artifact: &[u8], config: Json, grants: Grants) -> StageSpec {
    StageSpec {
        name: name.to_string(),
        digest: millrace_wasm::digest(artifact),
        config: config.to_string(),
        grants,
        tables: Vec::new(),
        on_failure: OnFailure::DeadLetter,
        limits: String::new(),
    }
}

pub(crate) async fn load(name: &str, config: Json, grants: Grants, limits: Json) -> Result<Box<dyn Stage>, Error> {
    let artifact = component(name);
    let limits = if limits.is_null() { String::new() } else { limits.to_string() };
    runtime().load(&StageSpec { limits, ..spec(name, &artifact, config, grants) }, &artifact).await
}

/// A cell of the column `note`.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Text(String),
    Null,
    NotSent,
}

impl From<&str> for Note {
    fn from(text: &str) -> Self {
        Note::Text(text.to_string())
    }
}

/// `public.notes (id bigint primary key, note text, other text, secret text)`.
pub(crate) fn schema() -> Arc<TableSchema> {
    let text = |name: &str| Column::new(name, ColumnType::Text);
    let columns = vec![Column::new("id", ColumnType::Int64).key(), text("note"), text("other"), text("secret")];
    Arc::new(TableSchema::new(TableName::new("public", "notes"), columns, Images::Full))
}

/// Each inner list is one change: its images.
pub(crate) fn notes(changes: &[Vec<(ChangeType, i64, Note)>]) -> ChangeBatch {
    let mut rows = RowsBuilder::new(SourceKey::new("public.notes"), schema(), false, 16).expect("builder");
    for (ordinal, images) in changes.iter().enumerate() {
        rows.begin_change(Order::new(7, ordinal as i64 + 1), 1_000);
        for (change_type, id, note) in images {
            rows.begin_row(*change_type);
            append(rows.column(0), &(*id).into());
            match note {
                Note::Text(text) => append(rows.column(1), &text.as_str().into()),
                Note::Null => rows.column(1).append_null(),
                Note::NotSent => rows.column(1).append_unavailable(),
            }
            append(rows.column(2), &format!("other {id}").into());
            append(rows.column(3), &format!("secret {id}").into());
        }
    }
    rows.finish().expect("batch").expect("rows")
}

fn append(column: &mut millrace_core::builder::ColumnBuilder, value: &Json) {
    match (&mut column.cells, value) {
        (Cells::Int64(cells), value) => cells.append_value(value.as_i64().expect("integer")),
        (Cells::Text(cells), value) => cells.append_value(value.as_str().expect("text")),
        (other, value) => panic!("{value} into {other:?}"),
    }
}

/// Inserted rows with ids from 1.
pub(crate) fn inserts(notes_of: &[&str]) -> ChangeBatch {
    let changes: Vec<_> =
        (1..).zip(notes_of).map(|(id, note)| vec![(ChangeType::Insert, id, (*note).into())]).collect();
    notes(&changes)
}

/// A thousand images: inserts, updates with and without a before image, deletes; text, NULL and not sent in every place.
pub(crate) fn mixed(rows: usize) -> ChangeBatch {
    let mut state = 42u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut changes = Vec::new();
    let mut made = 0;
    while made < rows {
        let id = made as i64;
        let mut note = || match random(7) {
            0 => Note::Null,
            1 => Note::NotSent,
            2 => "test".into(),
            3 => "ä€😀 long enough to be cut".into(),
            4 => "-12.50".into(),
            n => Note::Text(format!("{}", n * id as u64)),
        };
        let images = match made % 4 {
            0 => vec![(ChangeType::Insert, id, note())],
            1 => vec![(ChangeType::UpdatePreimage, id, note()), (ChangeType::UpdatePostimage, id, note())],
            2 => vec![(ChangeType::UpdatePostimage, id, note())],
            _ => vec![(ChangeType::Delete, id, note())],
        };
        made += images.len();
        changes.push(images);
    }
    notes(&changes)
}

/// What goes on, an image a line: table, change type, position, cells.
pub(crate) fn lines(output: &StageOutput) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in &output.batches {
        for row in 0..batch.rows() {
            let (name, change) = (&batch.schema.name, batch.change_types[row].name());
            let cells = Json::Object(json::row(batch, row, |_| false));
            lines.push(format!("{name} {change} {} {cells}", batch.order(row).0[1]));
        }
    }
    lines
}

pub(crate) fn rejects(output: &StageOutput) -> Vec<(u32, String)> {
    output.rejects.iter().map(|r| (r.change, r.code.to_string())).collect()
}
