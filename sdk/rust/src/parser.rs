//! The role `parser`: raw messages in, rows of the schemas that the plugin declares out.

use std::collections::HashMap;

use crate::batch::ChangeType;
use crate::bindings::exports_parser as wit;
use crate::bindings::types;
use crate::cell::{Cell, Value};
use crate::column::{Any, Bytes, Column, Reader};
use crate::config::Config;
use crate::error::{Error, Reject};
use crate::out::Out;
use crate::schema::{DataType, Schema};

/// A plugin that makes rows of raw messages.
///
/// What it answers for a message must depend on the message and the config alone: the host cuts batches as it likes, and
/// replaces instances at any time. So no schema may be guessed from the messages before.
pub trait Parser: Sized + 'static {
    /// JSON Schema of the config document, which the host checks; empty: anything.
    const CONFIG_SCHEMA: &'static str = "";
    /// What is wanted of each message besides key and value: `timestamp`, `topic`, `offset`, `headers`, `position`,
    /// `commit-time`. The host refuses a name that its source does not offer.
    const META: &'static [&'static str] = &[];

    /// Reads the config.
    ///
    /// # Errors
    /// Usually [`Error::InvalidConfig`].
    fn configure(config: &Config) -> Result<Self, Error>;

    /// Makes rows of one message. A message without rows is ignored (a heartbeat).
    ///
    /// # Errors
    /// The message is refused: it goes to the dead letters, and what was made of it is forgotten.
    fn parse(&mut self, message: &Message<'_>, rows: &mut Parsed) -> Result<(), Reject>;
}

/// One raw message.
#[derive(Debug)]
pub struct Message<'a> {
    /// The raw table that it came by: "file.lines".
    pub source: &'a str,
    /// Of the topic, where there are such.
    pub partition: u32,
    /// None: it has no key.
    pub key: Option<&'a [u8]>,
    /// None: a tombstone, which is not an empty value.
    pub value: Option<&'a [u8]>,
    meta: Vec<Cell<Value<'a>>>,
}

impl<'a> Message<'a> {
    /// The `at`-th of [`Parser::META`]; texts are [`Value::Text`], times and offsets [`Value::Int`], the position
    /// [`Value::Binary`].
    pub fn meta(&self, at: usize) -> Cell<Value<'a>> {
        self.meta[at]
    }
}

/// A schema that was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form(usize);

/// The rows that are made of the messages of a batch.
#[derive(Debug, Default)]
pub struct Parsed {
    forms: Vec<Schema>,
    /// By the table's full name: the forms that it has had.
    by_table: HashMap<String, Vec<usize>>,
    /// Forms that the host knows by their index.
    told: usize,
    runs: Vec<Run>,
    /// By the table's full name: the run that its next row may join.
    open: HashMap<String, usize>,
    message: u32,
}

#[derive(Debug)]
struct Run {
    form: usize,
    source_row: Vec<u32>,
    change_types: Vec<u8>,
    outs: Vec<Out>,
}

impl Parsed {
    /// Declares a schema; the same one is declared once. `connector` is the host's to fill.
    pub fn declare(&mut self, schema: Schema) -> Form {
        let of_table = self.by_table.entry(schema.full_name()).or_default();
        if let Some(known) = of_table.iter().find(|at| self.forms[**at] == schema) {
            return Form(*known);
        }
        of_table.push(self.forms.len());
        self.forms.push(schema);
        Form(self.forms.len() - 1)
    }

    /// The schema as it was declared.
    pub fn schema(&self, form: Form) -> &Schema {
        &self.forms[form.0]
    }

    /// Adds a row image; `fill` sets its cells, in the order of the schema's columns. A cell that it does not set is NULL.
    /// An update with its before image is an [`ChangeType::UpdatePreimage`] and an [`ChangeType::UpdatePostimage`] right after it.
    ///
    /// # Errors
    /// That of `fill`.
    pub fn row(
        &mut self,
        form: Form,
        change: ChangeType,
        fill: impl FnOnce(&mut [Out]) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let message = self.message;
        let run = self.run(form);
        run.source_row.push(message);
        run.change_types.push(change.code());
        let filled = fill(&mut run.outs);
        run.outs.iter_mut().for_each(Out::end_row);
        filled
    }

    /// The run that the table's last row is in, if it has this form; else a new one: a table's rows stay in order.
    fn run(&mut self, form: Form) -> &mut Run {
        let schema = &self.forms[form.0];
        let name = schema.full_name();
        let at = match self.open.get(&name) {
            Some(at) if self.runs[*at].form == form.0 => *at,
            _ => {
                let outs = schema.columns.iter().map(|c| Out::new(&c.ty, 0, None)).collect();
                let run = Run { form: form.0, source_row: Vec::new(), change_types: Vec::new(), outs };
                self.runs.push(run);
                self.open.insert(name, self.runs.len() - 1);
                self.runs.len() - 1
            }
        };
        &mut self.runs[at]
    }

    fn has_rows(&self) -> bool {
        self.runs.iter().any(|run| run.source_row.last() == Some(&self.message))
    }

    /// Forgets what was made of the message under way.
    fn withdraw(&mut self) {
        for run in &mut self.runs {
            let rows = run.source_row.partition_point(|row| *row < self.message);
            run.source_row.truncate(rows);
            run.change_types.truncate(rows);
            run.outs.iter_mut().for_each(|out| out.truncate(rows));
        }
    }

    pub(crate) fn parse<P: Parser>(&mut self, plugin: &mut P, batch: wit::RawBatch) -> Result<wit::Parsed, Error> {
        let (mut ignored, mut rejects) = (Vec::new(), Vec::new());
        let meta: Vec<Column> = batch.meta.into_iter().map(Column).collect();
        let (keys, values) = (Column(batch.keys), Column(batch.values));
        let meta = meta.iter().map(|c| Reader::<Any>::new(c, &meta_type(c))).collect::<Result<Vec<_>, _>>()?;
        let keys = Reader::<Bytes>::new(&keys, &DataType::Binary)?;
        let values = Reader::<Bytes>::new(&values, &DataType::Binary)?;
        for row in 0..batch.rows {
            self.message = row;
            let at = row as usize;
            let message = Message {
                source: &batch.source,
                partition: batch.partition,
                key: keys.get(at).value(),
                value: values.get(at).value(),
                meta: meta.iter().map(|m| m.get(at)).collect(),
            };
            match plugin.parse(&message, self) {
                Ok(()) if self.has_rows() => {}
                Ok(()) => ignored.push(row),
                Err(Reject { code, reason, retryable }) => {
                    self.withdraw();
                    rejects.push(types::Reject { row, code, reason, column: None, retryable, ext: Vec::new() });
                }
            }
        }
        Ok(self.answer(ignored, rejects))
    }

    fn answer(&mut self, ignored: Vec<u32>, rejects: Vec<types::Reject>) -> wit::Parsed {
        let fresh = self.forms.iter().enumerate().skip(self.told);
        let schemas = fresh.map(|(id, schema)| wit::DeclaredSchema { id: id as u32, table: schema.clone().into() });
        let schemas = schemas.collect();
        self.told = self.forms.len();
        self.open.clear();
        let runs = std::mem::take(&mut self.runs).into_iter().filter(|run| !run.source_row.is_empty());
        let runs = runs.map(|run| wit::ParsedRun {
            schema: run.form as u32,
            source_row: run.source_row,
            change_types: run.change_types,
            changes: None,
            columns: run.outs.into_iter().map(|out| out.finish().0).collect(),
        });
        wit::Parsed { schemas, runs: runs.collect(), ignored, rejects }
    }
}

/// Meta columns come without their type: numbers as they are, and bytes that are text where they are UTF-8.
fn meta_type(column: &Column) -> DataType {
    match &column.0.cells {
        types::Cells::Vars(vars) if std::str::from_utf8(&vars.data).is_ok() => DataType::Text,
        types::Cells::Vars(_) => DataType::Binary,
        _ => DataType::Int64,
    }
}
