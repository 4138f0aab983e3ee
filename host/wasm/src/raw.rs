//! The role `parser`: raw messages in, rows of the schemas that the plugin declares out.
//!
//! A raw message is a row of a table with a column `value` (and perhaps `key`, `topic`, `timestamp`, `offset`, `headers`), as
//! sources of raw messages give it.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType, Reject};
use millrace_core::schema::{ColumnType, TableName, TableSchema};
use millrace_core::stage::StageOutput;
use millrace_core::{Error, Result};

use crate::answer::{self, Expected};
use crate::batch::meta;
use crate::bindings::parser;
use crate::bindings::types::{ColumnParam, TableSchemaResult};
use crate::outcome::{CODE_BYTES, REASON_BYTES, Wrong, cut};
use crate::plan::{META, View, definition, distinct, not_granted, refused};
use crate::project::Projected;
use crate::schema;

/// Schemas that one instance may declare: more are a schema for every row.
const SCHEMAS: usize = 10_000;
/// Columns of a raw table that a plan may ask for by name, besides [`META`], and their type.
const OFFERED: [(&str, ColumnType); 4] = [
    ("timestamp", ColumnType::TimestampTz),
    ("topic", ColumnType::Text),
    ("offset", ColumnType::Int64),
    ("headers", ColumnType::Json),
];

/// The schemas that an instance has declared, by its own numbers.
pub(crate) type Declared = HashMap<u32, Arc<TableSchema>>;

/// Where the parts of a raw message are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raw {
    key: Option<usize>,
    value: usize,
    meta: Vec<RawMeta>,
}

#[derive(Clone, Debug, PartialEq)]
enum RawMeta {
    Column(usize),
    Batch(&'static str),
}

impl Raw {
    /// Finds the parts that the plugin is granted.
    ///
    /// Errors: `plugin.not_raw` where the table holds no raw messages.
    pub(crate) fn of(view: &View<'_>) -> Result<Self> {
        let bytes = |ty: &ColumnType| matches!(ty, ColumnType::Binary | ColumnType::Text | ColumnType::Json);
        let find = |name: &str| view.schema.columns.iter().position(|c| &*c.name == name && bytes(&c.ty));
        let value = find("value").ok_or_else(|| {
            let message = format!("{} holds no raw messages: it has no column `value` of bytes or text", view.schema.name);
            Error::config("plugin.not_raw", message).hint(
                "a parser stands behind a source of raw messages (`file: { format: lines }`); name their tables with `tables:`",
            )
        })?;
        if !view.grants.may_read("value") {
            return Err(not_granted("read", "value", "read"));
        }
        let key = find("key").filter(|_| view.grants.may_read("key"));
        Ok(Self { key, value, meta: Vec::new() })
    }

    /// Names that a plan may ask for.
    pub(crate) fn offers(view: &View<'_>) -> Vec<&'static str> {
        let columns = OFFERED.iter().filter(|(name, ty)| offered(view, name, ty).is_some()).map(|(name, _)| *name);
        META.into_iter().chain(columns).collect()
    }

    pub(crate) fn with_meta(mut self, view: &View<'_>, wanted: &[String]) -> Result<Self> {
        for name in wanted {
            let column = OFFERED.iter().find(|(known, _)| known == name);
            let found = match (column, META.into_iter().find(|m| m == name)) {
                (Some((name, ty)), _) => offered(view, name, ty).map(RawMeta::Column),
                (None, meta) => meta.map(RawMeta::Batch),
            };
            let missing = || {
                let offers = Raw::offers(view).join(", ");
                refused(format!("it asks for {name:?} of each message; there are {offers}"))
            };
            self.meta.push(found.ok_or_else(missing)?);
        }
        Ok(self)
    }

    /// Columns that are shipped.
    pub(crate) fn reads(&self) -> Vec<usize> {
        let meta = self.meta.iter().filter_map(|m| if let RawMeta::Column(at) = m { Some(*at) } else { None });
        self.key.into_iter().chain([self.value]).chain(meta).collect()
    }
}

fn offered(view: &View<'_>, name: &str, ty: &ColumnType) -> Option<usize> {
    let columns = &view.schema.columns;
    columns.iter().position(|c| &*c.name == name && c.ty == *ty).filter(|_| view.grants.may_read(name))
}

/// Everything that a call borrows.
#[derive(Debug)]
pub(crate) struct RawShipment {
    source: String,
    partition: u32,
    rows: u32,
    keys: Projected,
    values: Projected,
    meta: Vec<Projected>,
}

impl RawShipment {
    pub(crate) fn new(batch: &ChangeBatch, raw: &Raw) -> Result<Self> {
        let column = |at: usize| {
            Projected::new(&batch.schema.columns[at].ty, &batch.columns[at], batch.unavailable[at].as_ref())
        };
        let meta = |wanted: &RawMeta| match wanted {
            RawMeta::Column(at) => column(*at),
            RawMeta::Batch(name) => Ok(meta(batch, name)),
        };
        Ok(Self {
            source: batch.schema.name.to_string(),
            partition: batch.origin.source.partition,
            rows: batch.rows() as u32,
            keys: raw.key.map_or_else(|| Ok(Projected::absent(batch.rows())), column)?,
            values: column(raw.value)?,
            meta: raw.meta.iter().map(meta).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn meta(&self) -> Vec<ColumnParam<'_>> {
        self.meta.iter().map(Projected::param).collect()
    }

    pub(crate) fn batch<'a>(&'a self, meta: &'a [ColumnParam<'a>]) -> parser::RawBatch<'a> {
        parser::RawBatch {
            source: &self.source,
            partition: self.partition,
            rows: self.rows,
            keys: self.keys.param(),
            values: self.values.param(),
            meta,
        }
    }
}

/// Puts a parser's answer into the core's words: each message in exactly one of the runs, the ignored and the rejects.
pub(crate) fn of_parse(
    batch: &ChangeBatch,
    parsed: parser::Parsed,
    declared: &mut Declared,
) -> Result<StageOutput, Wrong> {
    for schema in parsed.schemas {
        declare(schema, declared)?;
    }
    let mut ends = Ends(vec![None; batch.rows()]);
    let mut output = StageOutput::default();
    let mut last_of: HashMap<TableName, u32> = HashMap::new();
    for run in parsed.runs {
        ends.run(&run)?;
        let Some((first, last)) = run.source_row.first().copied().zip(run.source_row.last().copied()) else { continue };
        let schema = declared.get(&run.schema).ok_or_else(|| format!("it never declared the schema {}", run.schema))?;
        if last_of.insert(schema.name.clone(), last).is_some_and(|before| before > first) {
            return Err(format!("its runs of {} are not in the order of the messages", schema.name));
        }
        output.batches.push(rows_of(batch, run, schema)?);
    }
    let messages = ends.0.iter().filter(|end| end.is_some()).count() as u64;
    let rows: u64 = output.batches.iter().map(|b| b.rows() as u64).sum();
    output.emitted = rows - messages.min(rows);
    for row in &parsed.ignored {
        ends.once(*row, "ignored")?;
    }
    output.dropped = parsed.ignored.len() as u64;
    let mut rejects = parsed.rejects;
    rejects.sort_by_key(|reject| reject.row);
    for reject in rejects {
        ends.once(reject.row, "rejected")?;
        let code = if reject.code.is_empty() { "plugin.rejected".to_string() } else { cut(reject.code, CODE_BYTES) };
        output.rejects.push(Reject {
            change: batch.changes[reject.row as usize],
            code: code.as_str().into(),
            reason: cut(reject.reason, REASON_BYTES),
            column: Some("value".into()),
        });
    }
    match ends.0.iter().position(Option::is_none) {
        Some(row) => Err(format!("message {row} is in none of its runs, ignored and rejects")),
        None => Ok(output),
    }
}

/// How each message ended.
struct Ends(Vec<Option<&'static str>>);

impl Ends {
    fn run(&mut self, run: &parser::ParsedRun) -> Result<(), Wrong> {
        if !run.source_row.is_sorted() {
            return Err("the messages of a run are not in order".to_string());
        }
        for row in &run.source_row {
            *self.end(*row)? = Some("rows");
        }
        Ok(())
    }

    fn once(&mut self, row: u32, how: &'static str) -> Result<(), Wrong> {
        match self.end(row)?.replace(how) {
            None => Ok(()),
            Some(other) => Err(format!("message {row} ends twice: {other} and {how}")),
        }
    }

    fn end(&mut self, row: u32) -> Result<&mut Option<&'static str>, Wrong> {
        let rows = self.0.len();
        self.0.get_mut(row as usize).ok_or_else(|| format!("it names message {row} of {rows}"))
    }
}

fn declare(schema: parser::DeclaredSchema, declared: &mut Declared) -> Result<(), Wrong> {
    let parser::DeclaredSchema { id, table } = schema;
    let table = Arc::new(table_schema(&table).map_err(|e| format!("the schema {id}: {}", e.message))?);
    match declared.get(&id) {
        Some(known) if **known == *table => Ok(()),
        Some(known) => Err(format!("it declares the schema {id} anew, of {} and of {}", known.name, table.name)),
        None if declared.len() >= SCHEMAS => Err(format!("it declares more than {SCHEMAS} schemas")),
        None => {
            declared.insert(id, table);
            Ok(())
        }
    }
}

fn table_schema(table: &TableSchemaResult) -> Result<TableSchema> {
    if table.table.is_empty() {
        return Err(refused("it declares a table without a name"));
    }
    let name = TableName::new(table.namespace.as_str(), table.table.as_str());
    let columns = table.columns.iter().map(definition).collect::<Result<Vec<_>>>()?;
    distinct(&columns, &name.to_string())?;
    let images = schema::images_of(table.images)
        .ok_or_else(|| refused(format!("{name} has images {}; there are 0, 1 and 2", table.images)))?;
    Ok(TableSchema::new(name, columns, images))
}

/// The rows of one run, each at the place of its message.
fn rows_of(batch: &ChangeBatch, run: parser::ParsedRun, schema: &Arc<TableSchema>) -> Result<ChangeBatch, Wrong> {
    let rows = run.source_row.len();
    let fits = run.change_types.len() == rows && run.changes.as_ref().is_none_or(|c| c.len() == rows);
    if !fits || run.columns.len() != schema.columns.len() {
        return Err(format!("its run of {} does not fit together", schema.name));
    }
    let known = |code: &u8| ChangeType::from_code(*code).filter(|t| *t != ChangeType::Truncate);
    let change_types = run.change_types.iter().map(known).collect::<Option<Vec<_>>>();
    let change_types = change_types.ok_or_else(|| format!("a row of {} is of no known change type", schema.name))?;
    let has_post = |row: usize| {
        change_types.get(row + 1).is_some_and(|t| matches!(t, ChangeType::UpdatePreimage | ChangeType::UpdatePostimage))
            && run.source_row[row] == run.source_row[row + 1]
    };
    if let Some(row) = (0..rows).find(|row| change_types[*row] == ChangeType::UpdatePreimage && !has_post(*row)) {
        return Err(format!("row {row} of {} is a preimage without its postimage", schema.name));
    }
    let (mut columns, mut unavailable) = (Vec::new(), Vec::new());
    for (column, cells) in schema.columns.iter().zip(run.columns) {
        let expected = Expected {
            name: &column.name,
            ty: &column.ty,
            nullable: column.nullable,
            rows,
            counts: &|_| true,
            may_be_unsent: &|_| !column.key,
        };
        let written = answer::column(cells, &expected)?;
        columns.push(written.cells);
        unavailable.push(written.unavailable);
    }
    Ok(ChangeBatch {
        schema: Arc::clone(schema),
        origin: Arc::clone(&batch.origin),
        changes: run.source_row.iter().map(|row| batch.changes[*row as usize]).collect(),
        change_types,
        columns,
        unavailable,
    })
}

#[cfg(test)]
mod tests {
    use millrace_core::builder::{Cells, RowsBuilder};
    use millrace_core::position::{Order, SourceKey};
    use millrace_core::schema::{Column, Images};

    use super::*;
    use crate::bindings::parser::{DeclaredSchema, Parsed, ParsedRun};
    use crate::bindings::types::{CellsResult, ColumnDefResult, ColumnResult, DataTypeResult, Reject as Refused};

    /// Two messages.
    fn messages() -> ChangeBatch {
        let columns = vec![Column::new("value", ColumnType::Text)];
        let schema = Arc::new(TableSchema::new(TableName::new("file", "lines"), columns, Images::None));
        let mut rows = RowsBuilder::new(SourceKey::new("file.lines"), schema, false, 2).expect("builder");
        for n in 1..=2 {
            rows.begin_change(Order::new(n, 1), 0);
            rows.begin_row(ChangeType::Insert);
            let Cells::Text(cells) = &mut rows.column(0).cells else { panic!("text") };
            cells.append_value("m");
        }
        rows.finish().expect("batch").expect("rows")
    }

    fn table(columns: &[&str]) -> DeclaredSchema {
        let column = |name: &&str| ColumnDefResult {
            name: (*name).to_string(),
            ty: DataTypeResult::Int64,
            nullable: false,
            key: true,
            source_type: String::new(),
            ext: Vec::new(),
        };
        let columns = columns.iter().map(column).collect();
        let (connector, namespace, table) = (String::new(), String::new(), "t".to_string());
        let table =
            TableSchemaResult { connector, namespace, table, registry_ref: None, images: 1, ext: Vec::new(), columns };
        DeclaredSchema { id: 7, table }
    }

    fn run(source_row: &[u32], change_types: &[u8]) -> ParsedRun {
        let cells = CellsResult::I64s(vec![1; source_row.len()]);
        ParsedRun {
            schema: 7,
            source_row: source_row.to_vec(),
            change_types: change_types.to_vec(),
            changes: None,
            columns: vec![ColumnResult { presence: None, cells }],
        }
    }

    fn answer(runs: Vec<ParsedRun>, ignored: &[u32], rejects: &[u32]) -> Parsed {
        let reject = |row: &u32| Refused {
            row: *row,
            code: String::new(),
            reason: "x".to_string(),
            column: None,
            retryable: false,
            ext: Vec::new(),
        };
        let rejects = rejects.iter().map(reject).collect();
        Parsed { schemas: vec![table(&["id"])], runs, ignored: ignored.to_vec(), rejects }
    }

    fn judged(parsed: Parsed) -> Result<StageOutput, Wrong> {
        of_parse(&messages(), parsed, &mut Declared::new())
    }

    #[test]
    fn rows_stand_at_the_place_of_their_message() {
        let output = judged(answer(vec![run(&[1, 1], &[1, 4])], &[0], &[])).expect("right");
        assert_eq!((output.batches[0].changes.as_slice(), output.emitted, output.dropped), (&[1, 1][..], 1, 1));
        let output = judged(answer(Vec::new(), &[1], &[0])).expect("right");
        assert_eq!((output.rejects[0].change, &*output.rejects[0].code), (0, "plugin.rejected"));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused_with_what_is_wrong() {
        let mut unknown = run(&[0, 1], &[1, 1]);
        unknown.schema = 8;
        for (parsed, wrong) in [
            (answer(vec![run(&[0], &[1])], &[], &[]), "message 1 is in none"),
            (answer(vec![run(&[0, 1], &[1, 1])], &[1], &[]), "message 1 ends twice: rows and ignored"),
            (answer(Vec::new(), &[0, 0], &[1]), "message 0 ends twice: ignored and ignored"),
            (answer(Vec::new(), &[0], &[0]), "message 0 ends twice: ignored and rejected"),
            (answer(Vec::new(), &[0, 1], &[2]), "it names message 2 of 2"),
            (answer(vec![run(&[1, 0], &[1, 1])], &[], &[]), "not in order"),
            (answer(vec![run(&[1], &[1]), run(&[0], &[1])], &[], &[]), "its runs of t are not in the order"),
            (answer(vec![run(&[0, 1], &[1])], &[], &[]), "does not fit together"),
            (answer(vec![run(&[0, 1], &[1, 5])], &[], &[]), "no known change type"),
            (answer(vec![run(&[0, 1], &[2, 3])], &[], &[]), "a preimage without its postimage"),
            (answer(vec![unknown], &[], &[]), "never declared the schema 8"),
        ] {
            let error = judged(parsed).expect_err(wrong);
            assert!(error.contains(wrong), "{error}");
        }
        let twice =
            Parsed { schemas: vec![table(&["id"]), table(&["id", "more"])], ..answer(Vec::new(), &[0, 1], &[]) };
        assert!(judged(twice).expect_err("twice").contains("declares the schema 7 anew"));
        let same = Parsed { schemas: vec![table(&["id", "id"])], ..answer(Vec::new(), &[0, 1], &[]) };
        assert!(judged(same).expect_err("twice").contains("two columns id"));
    }
}
