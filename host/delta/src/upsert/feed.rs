//! The change data feed: the rows that a commit changed, each with what became of it, in files beside the table's.
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-cdc-file>). Readers take a commit that has such files by
//! them alone, so they hold every change of it.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use futures::TryStreamExt;
use millrace_core::batch::ChangeType;
use millrace_core::{Error, Result};
use roaring::RoaringTreemap;

use super::fold::Fate;
use super::locate::Target;
use super::rewrite::Input;
use super::{Examined, Form};
use crate::file::layout::Layout;
use crate::file::partition::Key;
use crate::file::reader::{FileReader, Rows};
use crate::file::writer::DataFile;
use crate::log::Table;
use crate::log::actions::{Add, Cdc};
use crate::log::deletion_vectors;
use crate::log::schema::{DeltaType, Field};

/// What the feed has beside the table's columns; readers add `_commit_version` and `_commit_timestamp`.
const CHANGE_TYPE: &str = "_change_type";
/// Columns that a table with a feed can not have.
pub(crate) const RESERVED: [&str; 3] = [CHANGE_TYPE, "_commit_version", "_commit_timestamp"];
/// Files of one cut that are open at once: a Parquet writer of 20 columns holds a few MiB.
const MAX_OPEN: usize = 32;

/// The feed's files of one commit.
pub(super) struct Feed<'a> {
    table: &'a Table,
    layout: Arc<Layout>,
    /// Bytes at which a file ends.
    target: u64,
    open: Vec<(Key, DataFile)>,
    done: Vec<Cdc>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(table: &'a Table, form: Form<'_>) -> Self {
        let mut fields = form.schema.fields.clone();
        fields.push(Field::new(CHANGE_TYPE, DeltaType::Text));
        let layout = Arc::new(Layout::whole(&fields, form.partition_by));
        Self { table, layout, target: form.options.target_size, open: Vec::new(), done: Vec::new() }
    }

    /// Takes rows as the table's files have them. `kinds`: one a row.
    pub(super) async fn write(&mut self, partition: &Key, rows: &[ArrayRef], kinds: &[ChangeType]) -> Result<()> {
        let mut columns = rows.to_vec();
        columns.push(Arc::new(StringArray::from_iter_values(kinds.iter().map(|kind| kind.name()))));
        let options = RecordBatchOptions::new().with_row_count(Some(kinds.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.layout.arrow), columns, &options);
        let batch = batch.map_err(|e| Error::bug(e.to_string()))?;
        let place = self.open.iter().position(|(key, _)| key == partition);
        let place = match place {
            Some(place) => place,
            None => {
                if self.open.len() >= MAX_OPEN {
                    self.end(0).await?;
                }
                let id = self.table.random_id();
                let layout = Arc::clone(&self.layout);
                let file = DataFile::of_changes(self.table.store(), layout, partition.clone(), &id)?;
                self.open.push((partition.clone(), file));
                self.open.len() - 1
            }
        };
        let (_, file) = &mut self.open[place];
        file.write(&batch).await?;
        if file.bytes() as u64 >= self.target { self.end(place).await } else { Ok(()) }
    }

    async fn end(&mut self, place: usize) -> Result<()> {
        let (_, file) = self.open.remove(place);
        let Add { path, partition_values, size, .. } = file.finish(self.table.now_millis()).await?;
        self.done.push(Cdc { path, partition_values, size, data_change: false });
        Ok(())
    }

    /// Takes some rows of a file of the table, ascending, each with what becomes of it.
    pub(super) async fn stored(&mut self, add: &Arc<Add>, rows: &[u32], kinds: &[ChangeType]) -> Result<()> {
        let partition = Input { add: Arc::clone(add), gone: Arc::default() }.partition(&self.layout);
        let fields = self.layout.columns[..self.layout.columns.len() - 1].to_vec();
        let mut batches = FileReader::open(self.table.store(), add).await?.read(&fields, Rows::These(rows))?;
        let mut kinds = kinds;
        while let Some(columns) = batches.try_next().await? {
            let (these, rest) = kinds.split_at(columns.first().map_or(kinds.len(), |c| c.len()).min(kinds.len()));
            kinds = rest;
            self.write(&partition, &columns, these).await?;
        }
        Ok(())
    }

    /// Takes the rows of a file of the table that are not gone.
    pub(super) async fn rest(&mut self, add: &Arc<Add>, gone: &RoaringTreemap, kind: ChangeType) -> Result<()> {
        let all = FileReader::open(self.table.store(), add).await?.rows();
        let rows: Vec<u32> = (0..all).filter(|row| !gone.contains(*row)).map(|row| row as u32).collect();
        self.stored(add, &rows, &vec![kind; rows.len()]).await
    }

    pub(super) async fn finish(mut self) -> Result<Vec<Cdc>> {
        while !self.open.is_empty() {
            self.end(0).await?;
        }
        Ok(self.done)
    }
}

/// Whether readers must be told what became of the rows of a table that goes as a whole. Without files of the feed they take
/// it from the files that go and come, and delta-rs 1.6.6 then counts rows that were gone by a vector as well.
pub(super) fn is_needed<'a>(mut files: impl Iterator<Item = &'a Arc<Add>>) -> bool {
    files.any(|add| add.deletion_vector.is_some())
}

impl Examined {
    /// What becomes of the rows that the table has under the cut's keys: of several under one key the newest was changed,
    /// the others go. Answers the files of the feed, none where there is none. `all`: files of which every row goes.
    pub(super) async fn feed(&self, feed: Option<Feed<'_>>, target: &mut Target, all: &[Arc<Add>]) -> Result<Vec<Cdc>> {
        let Some(mut feed) = feed else { return Ok(Vec::new()) };
        let mut vectors = deletion_vectors::Reader::default();
        for add in all {
            let gone = target.gone(add, &mut vectors).await?;
            feed.rest(add, &gone, ChangeType::Delete).await?;
        }
        let stays = |key: &u32| matches!(self.folded.fates[*key as usize], Fate::Row(_));
        let changed: HashSet<(&str, u32)> =
            self.present.iter().filter(|(key, _)| stays(key)).map(|(_, p)| (p.add.path.as_str(), p.row)).collect();
        for found in &self.found {
            let rows: Vec<u32> = found.hits.iter().map(|hit| hit.row).collect();
            let kind = |row: &u32| match changed.contains(&(found.add.path.as_str(), *row)) {
                true => ChangeType::UpdatePreimage,
                false => ChangeType::Delete,
            };
            let kinds: Vec<ChangeType> = rows.iter().map(kind).collect();
            feed.stored(&found.add, &rows, &kinds).await?;
        }
        feed.finish().await
    }
}
