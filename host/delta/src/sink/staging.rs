//! What a table gets in the cut under way: files under construction and files that are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use millrace_core::Result;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::position::{Order, SourceKey};

use crate::config::Mode;
use crate::file::layout::Layout;
use crate::file::partition::{self, Key};
use crate::file::writer::DataFile;
use crate::log::Table;
use crate::log::actions::Add;

/// Files of one table that are open at once. Rows of more partitions than that close the one that waited longest: a
/// Parquet writer of 20 columns holds a few MiB.
const MAX_OPEN: usize = 32;
/// Uploads of one table at a time.
const MAX_UPLOADS: usize = 8;

#[derive(Debug)]
struct Open {
    layout: Arc<Layout>,
    key: Key,
    file: DataFile,
    /// When it was written to last.
    used: u64,
}

/// One table's share of a cut.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    open: Vec<Open>,
    clock: u64,
    pub adds: Vec<Add>,
    pub rows: u64,
    /// Source tables that have rows here, and the last change of each that was encoded.
    pub sources: BTreeMap<SourceKey, Order>,
}

impl Staging {
    pub(crate) fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.open.is_empty()
    }

    /// Held in memory by files under construction.
    pub(crate) fn memory(&self) -> usize {
        self.open.iter().map(|o| o.file.memory()).sum()
    }

    pub(crate) fn source_keys(&self) -> BTreeSet<SourceKey> {
        self.sources.keys().cloned().collect()
    }

    /// Encodes the rows of `batch` that the mode keeps. `target`: bytes at which a file ends.
    pub(crate) async fn encode(
        &mut self,
        table: &Table,
        layout: &Arc<Layout>,
        batch: &ChangeBatch,
        target: u64,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if layout.partition.is_empty() {
            self.encode_part(table, layout, Vec::new(), batch, target).await?;
        } else {
            for (key, rows) in partition::split(layout, batch)? {
                let part = if rows.len() == batch.rows() { batch.clone() } else { batch.take(&rows)? };
                self.encode_part(table, layout, key, &part, target).await?;
            }
        }
        if let Some(order) = batch.changes.last().map(|c| batch.origin.orders[*c as usize]) {
            self.sources.insert(batch.origin.source.clone(), order);
        }
        Ok(())
    }

    async fn encode_part(
        &mut self,
        table: &Table,
        layout: &Arc<Layout>,
        key: Key,
        batch: &ChangeBatch,
        target: u64,
    ) -> Result<()> {
        let rows = layout.convert(batch)?;
        let index = self.file_for(table, layout, key).await?;
        let open = &mut self.open[index];
        self.clock += 1;
        open.used = self.clock;
        open.file.write(&rows).await?;
        self.rows += rows.num_rows() as u64;
        if open.file.bytes() as u64 >= target {
            let full = self.open.swap_remove(index);
            self.adds.push(full.file.finish(table.now_millis()).await?);
        }
        Ok(())
    }

    async fn file_for(&mut self, table: &Table, layout: &Arc<Layout>, key: Key) -> Result<usize> {
        let found = self.open.iter().position(|o| Arc::ptr_eq(&o.layout, layout) && o.key == key);
        if let Some(index) = found {
            return Ok(index);
        }
        if self.open.len() >= MAX_OPEN {
            let oldest = self.open.iter().enumerate().min_by_key(|(_, o)| o.used).map_or(0, |(index, _)| index);
            let oldest = self.open.swap_remove(oldest);
            self.adds.push(oldest.file.finish(table.now_millis()).await?);
        }
        let file = DataFile::create(table.store(), Arc::clone(layout), key.clone(), &table.random_id())?;
        self.open.push(Open { layout: Arc::clone(layout), key, file, used: self.clock });
        Ok(self.open.len() - 1)
    }

    /// Ends the row groups of files that hold much.
    pub(crate) async fn relieve(&mut self) -> Result<()> {
        for open in &mut self.open {
            open.file.flush().await?;
        }
        Ok(())
    }

    /// Completes every file; they are durable then, and no reader sees them.
    pub(crate) async fn finish(&mut self, table: &Table) -> Result<()> {
        let now = table.now_millis();
        let files = std::mem::take(&mut self.open).into_iter().map(|open| open.file.finish(now));
        let adds: Vec<Add> = stream::iter(files).buffered(MAX_UPLOADS).try_collect().await?;
        self.adds.extend(adds);
        Ok(())
    }
}

/// The rows that a table of this mode takes; a preimage is no row of an `append` table.
pub(crate) fn kept(mode: Mode, batch: ChangeBatch) -> Result<ChangeBatch> {
    if mode != Mode::Append || !batch.change_types.contains(&ChangeType::UpdatePreimage) {
        return Ok(batch);
    }
    batch.filter(&batch.change_types.iter().map(|t| *t != ChangeType::UpdatePreimage).collect())
}
