//! Which stages made which rows: a small Delta table beside the lake, one row a swap. The commit info of the data's
//! own commits says it too, and is lost with the log's retention.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::builder::{Cells, RowsBuilder};
use millrace_core::environment::Environment;
use millrace_core::position::{Order, SourceKey};
use millrace_core::schema::{Column, ColumnType, Images, TableName, TableSchema};
use millrace_core::sink::Provenance;
use millrace_core::{Error, Result};

use crate::file::layout::Layout;
use crate::file::writer::DataFile;
use crate::log::actions::{Action, Format, Metadata, Txn};
use crate::log::schema::DeltaSchema;
use crate::log::{Step, Table, TableState, features};
use crate::sink::uuid_text;
use crate::store::Store;

/// A line comes at most once a swap: a checkpoint every few lines keeps the reading short.
const CHECKPOINT_EVERY: u64 = 10;

pub(crate) struct ProvenanceTable {
    table: Table,
}

fn schema() -> Arc<TableSchema> {
    let text = |name: &str| Column::new(name, ColumnType::Text);
    let number = |name: &str| Column::new(name, ColumnType::Int64);
    let columns = vec![
        text("pipeline"),
        text("incarnation"),
        number("epoch"),
        number("record"),
        text("after"),
        text("stages"),
        Column::new("at", ColumnType::TimestampTz),
    ];
    Arc::new(TableSchema::new(TableName::new("", "provenance"), columns, Images::Full))
}

fn row(schema: &Arc<TableSchema>, line: &Provenance) -> Result<ChangeBatch> {
    let mut rows = RowsBuilder::new(SourceKey::new("provenance"), Arc::clone(schema), false, 1)?;
    rows.begin_change(Order::new(0, 1), line.at);
    rows.begin_row(ChangeType::Insert);
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let texts = [(0, &line.pipeline), (1, &line.incarnation), (4, &line.after), (5, &line.stages)];
    for (index, text) in texts {
        if let Cells::Text(cells) = &mut rows.column(index).cells {
            cells.append_value(text);
        }
    }
    for (index, number) in [(2, signed(line.epoch)), (3, signed(line.record))] {
        if let Cells::Int64(cells) = &mut rows.column(index).cells {
            cells.append_value(number);
        }
    }
    if let Cells::Timestamp(cells) = &mut rows.column(6).cells {
        cells.append_value(line.at);
    }
    rows.finish()?.ok_or_else(|| Error::bug("a provenance row is empty"))
}

impl ProvenanceTable {
    pub(crate) async fn open(store: Store, environment: Arc<dyn Environment>) -> Result<Self> {
        Ok(Self { table: Table::open(store, environment, CHECKPOINT_EVERY).await? })
    }

    /// Adds the line unless the table has one of this record already.
    pub(crate) async fn append(&mut self, line: &Provenance) -> Result<()> {
        let app_id = format!("millrace/{}/provenance", line.pipeline);
        let record = i64::try_from(line.record).map_err(|_| Error::bug("a record number is too high"))?;
        let has =
            |state: Option<&TableState>| state.and_then(|s| s.txns.get(&app_id)).is_some_and(|t| t.version >= record);
        if has(self.table.state()) {
            return Ok(());
        }
        let schema = schema();
        let layout = Arc::new(Layout::plain(&schema));
        let now = self.table.now_millis();
        let mut file = DataFile::create(self.table.store(), Arc::clone(&layout), Vec::new(), &self.table.random_id())?;
        file.write(&layout.convert(&row(&schema, line)?)?).await?;
        let mut actions = Vec::new();
        if self.table.state().is_none() {
            let schema = DeltaSchema { fields: layout.columns.clone() };
            let metadata = Metadata {
                id: uuid_text(&self.table.random_id()),
                name: None,
                description: None,
                format: Format::default(),
                schema_string: schema.to_text(),
                partition_columns: Vec::new(),
                created_time: Some(now),
                configuration: BTreeMap::new(),
            };
            actions.push(Action::Protocol(features::new_protocol(&metadata, &schema)));
            actions.push(Action::MetaData(metadata));
        }
        actions.push(Action::Txn(Txn { app_id: app_id.clone(), version: record, last_updated: Some(now) }));
        actions.push(Action::Add(file.finish(now).await?));
        let existed = self.table.state().is_some();
        let check = |state: Option<&TableState>| {
            if has(state) {
                return Ok(Step::Skip);
            }
            if state.is_some() != existed {
                return Err(Error::reload(
                    "table.changed",
                    "the provenance table was created by another host meanwhile",
                ));
            }
            Ok(Step::Commit)
        };
        self.table.commit("WRITE", &line.pipeline, actions, &check).await
    }
}
