//! Dead letters: refused changes as rows of an ordinary table (I14).

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BooleanBuilder, StringBuilder};
use arrow_array::{ArrayRef, BooleanArray};
use serde_json::{Value, json};

use crate::batch::{ChangeBatch, ChangeType, Reject};
use crate::error::Result;
use crate::json;
use crate::schema::{Column, ColumnType, Images, TableName, TableSchema};
use crate::stage::StageSpec;

/// The table that letters go to, in the letters' own sink.
pub const TABLE: &str = "dead_letters";

/// The column that names the keys whose later changes wait.
pub const KEYS: &str = "keys";

/// Columns of the letters table; readers find stored letters by `source`, `pipeline` and `incarnation` beside
/// the position that the sink adds.
pub fn schema() -> Arc<TableSchema> {
    static SCHEMA: LazyLock<Arc<TableSchema>> = LazyLock::new(|| {
        let text = |name: &str| Column::new(name, ColumnType::Text);
        let columns = vec![
            text("pipeline"),
            text("incarnation"),
            // `SourceKey` as text: which source table and partition.
            text("source").not_null(),
            // The table's name where it was refused; a stage may have renamed it.
            text("table"),
            text("stage"),
            text("plugin"),
            text("code"),
            text("reason"),
            text("column"),
            // The row images as they entered the failing stage: [{"change_type", "row", "unavailable"}].
            Column::new("images", ColumnType::Json),
            // Columns left out, since this or a later stage may be there to mask them.
            Column::new("omitted", ColumnType::Json),
            Column::new("complete", ColumnType::Boolean),
            Column::new("schema", ColumnType::Json),
            Column::new("snapshot", ColumnType::Boolean),
            // The keys whose later changes wait behind this letter (I15): a list of texts, each the values of the key
            // columns as a JSON list, or a digest of them where a stage may be there to mask them.
            Column::new(KEYS, ColumnType::Json),
        ];
        Arc::new(TableSchema::new(TableName::new("", TABLE), columns, Images::Full))
    });
    SCHEMA.clone()
}

/// Who refuses: what the letter names.
#[derive(Clone, Debug)]
pub struct Refuser<'a> {
    pub pipeline: &'a str,
    pub incarnation: &'a str,
    /// "source", "sink", or the stage's name.
    pub stage: &'a str,
    /// The stage's spec where it is one.
    pub spec: Option<&'a StageSpec>,
    /// This stage and those after it, whose written columns are left out; empty where the user keeps originals.
    pub later: &'a [&'a StageSpec],
}

/// The letters of the refused changes of a batch, as rows for the letters table. `batch` is what entered the
/// failing stage; every change of `rejects` has rows in it.
pub fn letters(batch: &ChangeBatch, rejects: &[Reject], by: &Refuser<'_>) -> Result<ChangeBatch> {
    let table = batch.schema.name.to_string();
    let omitted = omitted(batch, by.later, &table);
    let columns =
        batch.schema.columns.iter().map(|c| json!({"name": &*c.name, "type": c.ty.to_string(), "key": c.key}));
    let schema_json = Value::Array(columns.collect()).to_string();
    // What the source could not represent is not in its row.
    let lost = |reject: &Reject| reject.column.as_deref().filter(|_| by.stage == "source").map(str::to_owned);
    let omitted_json: Vec<String> = rejects
        .iter()
        .map(|reject| json!(omitted.iter().cloned().chain(lost(reject)).collect::<BTreeSet<_>>()).to_string())
        .collect();
    let plugin = by.spec.map(|s| format!("{}:{}", s.name, s.digest));
    let source = batch.origin.source.to_string();
    let mut images = StringBuilder::new();
    let mut complete = BooleanBuilder::new();
    for reject in rejects {
        let (text, whole) = images_of(batch, reject.change, &omitted);
        images.append_value(text);
        complete.append_value(whole && omitted.is_empty() && lost(reject).is_none());
    }
    let keys_json = |reject: &Reject| batch.origin.keys.get().map(|keys| json!(keys.shown(reject.change)).to_string());
    let keys_json: Vec<Option<String>> = rejects.iter().map(keys_json).collect();
    let rows = rejects.len();
    let same = |value: Option<&str>| text_column(std::iter::repeat_n(value, rows));
    let columns: Vec<ArrayRef> = vec![
        same(Some(by.pipeline)),
        same(Some(by.incarnation)),
        same(Some(&source)),
        same(Some(&table)),
        same(Some(by.stage)),
        same(plugin.as_deref()),
        text_column(rejects.iter().map(|r| Some(&*r.code))),
        text_column(rejects.iter().map(|r| Some(&*r.reason))),
        text_column(rejects.iter().map(|r| r.column.as_deref())),
        Arc::new(images.finish()),
        text_column(omitted_json.iter().map(|text| Some(text.as_str()))),
        Arc::new(complete.finish()),
        same(Some(&schema_json)),
        Arc::new(BooleanArray::from(vec![batch.origin.snapshot; rows])),
        text_column(keys_json.iter().map(Option::as_deref)),
    ];
    let unavailable = vec![None; columns.len()];
    let letters = ChangeBatch {
        schema: schema(),
        origin: batch.origin.clone(),
        change_types: vec![ChangeType::Insert; rows],
        changes: rejects.iter().map(|r| r.change).collect(),
        columns,
        unavailable,
    };
    letters.check()?;
    Ok(letters)
}

fn text_column<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    for value in values {
        builder.append_option(value);
    }
    Arc::new(builder.finish())
}

/// Columns of the batch that this or a later stage was granted to write: they may be there to be masked.
fn omitted(batch: &ChangeBatch, later: &[&StageSpec], table: &str) -> Vec<String> {
    let masked = |column: &&Column| later.iter().any(|spec| may_mask(spec, table, &column.name, column.key));
    batch.schema.columns.iter().filter(masked).map(|c| c.name.to_string()).collect()
}

/// Whether a stage may be there to mask a column of a table: it is granted to write it.
pub fn may_mask(spec: &StageSpec, table: &str, column: &str, key: bool) -> bool {
    spec.sees(table) && spec.grants.may_write(column) && (!key || spec.grants.keys.iter().any(|k| **k == *column))
}

fn images_of(batch: &ChangeBatch, change: u32, omitted: &[String]) -> (String, bool) {
    let first = batch.changes.partition_point(|c| *c < change);
    let mut complete = true;
    let images: Vec<Value> = (first..batch.rows())
        .take_while(|row| batch.changes[*row] == change)
        .map(|row| {
            let missing = json::unavailable(batch, row);
            complete &= missing.is_empty();
            let object = json::row(batch, row, |name| omitted.iter().any(|o| o == name));
            json!({"change_type": batch.change_types[row].name(), "row": object, "unavailable": missing})
        })
        .collect();
    (Value::Array(images).to_string(), complete)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;
    use crate::builder::{Cells, RowsBuilder};
    use crate::position::{Order, SourceKey};
    use crate::stage::{Grants, OnFailure};

    fn batch() -> ChangeBatch {
        let text = |name: &str| Column::new(name, ColumnType::Text);
        let columns = vec![text("id").key(), text("email"), text("price")];
        let schema = Arc::new(TableSchema::new(TableName::new("s", "t"), columns, Images::Full));
        let mut rows = RowsBuilder::new(SourceKey::new("s.t"), schema, false, 1).expect("a builder");
        rows.begin_change(Order::new(1, 1), 0);
        rows.begin_row(ChangeType::Insert);
        for (column, value) in rows.columns().iter_mut().zip(["1", "SECRET", "9"]) {
            if let Cells::Text(cells) = &mut column.cells {
                cells.append_value(value);
            }
        }
        rows.finish().expect("a batch").expect("rows")
    }

    /// Images, omitted columns, and whether the letter is whole.
    fn letter(stage: &str, later: &[&StageSpec], column: Option<&str>) -> (String, String, bool) {
        let reject = Reject { change: 0, code: "c".into(), reason: "r".into(), column: column.map(Into::into) };
        let by = Refuser { pipeline: "p", incarnation: "i", stage, spec: None, later };
        let letters = letters(&batch(), &[reject], &by).expect("letters");
        let cell = |name: &str| {
            let at = letters.schema.columns.iter().position(|c| &*c.name == name).expect("a column");
            letters.columns[at].clone()
        };
        let text = |name: &str| cell(name).as_string::<i32>().value(0).to_owned();
        (text("images"), text("omitted"), cell("complete").as_boolean().value(0))
    }

    #[test]
    fn a_letter_lacks_what_a_later_stage_may_be_there_to_mask() {
        let mask = StageSpec {
            name: "mask".into(),
            digest: String::new(),
            config: String::new(),
            grants: Grants { write: vec!["email".into()], ..Grants::default() },
            tables: Vec::new(),
            on_failure: OnFailure::DeadLetter,
            limits: String::new(),
        };
        let (images, omitted, complete) = letter("rules", &[&mask], Some("price"));
        assert!(!images.contains("SECRET") && images.contains("9"), "{images}");
        assert_eq!((omitted.as_str(), complete), (r#"["email"]"#, false));
        let (images, omitted, complete) = letter("rules", &[], Some("price"));
        assert!(images.contains("SECRET"), "{images}");
        assert_eq!((omitted.as_str(), complete), ("[]", true));
    }

    #[test]
    fn a_letter_of_the_source_is_not_whole_where_a_value_could_not_be_represented() {
        let (_, omitted, complete) = letter("source", &[], Some("price"));
        assert_eq!((omitted.as_str(), complete), (r#"["price"]"#, false));
    }
}
