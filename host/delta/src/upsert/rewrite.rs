//! Files written anew without the rows that are gone: for compaction, and for every file that a cut hits where a table has
//! no deletion vectors (copy-on-write).

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use arrow_select::filter::FilterBuilder;
use futures::TryStreamExt;
use futures::stream::{BoxStream, StreamExt};
use millrace_core::{Error, Result};
use roaring::RoaringTreemap;

use super::keys::{Keys, SharedForm};
use super::locate::{Target, note_keys};
use super::rows::Writing;
use super::{Form, Staged};
use crate::file::layout::Layout;
use crate::file::partition::Key;
use crate::file::reader::{FileReader, Rows};
use crate::log::actions::{Add, Remove};
use crate::log::schema::Field;
use crate::log::{Table, deletion_vectors};
use crate::store::Store;

/// A file that becomes part of another, and what is gone of it.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub add: Arc<Add>,
    pub gone: Arc<RoaringTreemap>,
}

impl Input {
    /// The partition that it is of, as `layout` has them.
    pub(super) fn partition(&self, layout: &Layout) -> Key {
        layout.partition.iter().map(|(f, ..)| self.add.partition_values.get(&f.name).cloned().flatten()).collect()
    }

    /// Its rows that are not gone, as files of `layout` have them, and their keys.
    pub(super) async fn rest(
        &self,
        store: &Store,
        form: &SharedForm,
        layout: &Layout,
    ) -> Result<BoxStream<'static, Result<(RecordBatch, Keys)>>> {
        let wanted: Vec<Field> = layout.columns.iter().chain(&form.fields).cloned().collect();
        let batches = FileReader::open(store, &self.add).await?.read(&wanted, Rows::All)?;
        let (form, gone, arrow) = (Arc::clone(form), Arc::clone(&self.gone), Arc::clone(&layout.arrow));
        let mut read = 0u64;
        let mut rest = move |columns: Vec<ArrayRef>| {
            let first = read;
            read += columns.first().map_or(0, |c| c.len() as u64);
            rows_left(columns, &gone, first, &form, &arrow)
        };
        let batches = batches.map(move |columns| columns.and_then(&mut rest));
        Ok(batches.try_filter(|(rows, _)| std::future::ready(rows.num_rows() > 0)).boxed())
    }
}

/// Rows of a batch that are not gone. `first`: the file's row that it begins with. `columns`: those of the new file, then
/// those of the key.
fn rows_left(
    columns: Vec<ArrayRef>,
    gone: &RoaringTreemap,
    first: u64,
    form: &SharedForm,
    arrow: &SchemaRef,
) -> Result<(RecordBatch, Keys)> {
    let mut columns = left(columns, gone, first)?;
    let rows = columns.first().map_or(0, |c| c.len());
    let of_key = columns.split_off(arrow.fields().len());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(arrow), columns, &options);
    Ok((batch.map_err(|e| Error::bug(e.to_string()))?, form.encode(&of_key)?))
}

fn left(columns: Vec<ArrayRef>, gone: &RoaringTreemap, first: u64) -> Result<Vec<ArrayRef>> {
    let rows = columns.first().map_or(0, |c| c.len() as u64);
    if gone.range_cardinality(first..first + rows) == 0 {
        return Ok(columns);
    }
    let mask: BooleanArray = (first..first + rows).map(|row| Some(!gone.contains(row))).collect();
    let filter = FilterBuilder::new(&mask).optimize().build();
    columns.iter().map(|c| filter.filter(c).map_err(|e| Error::bug(e.to_string()))).collect()
}

/// Writes these files anew without these rows. What is left of several of one partition goes into one file up to the
/// target size: so small files become few without work of their own.
pub(super) async fn rewrite(
    table: &Table,
    target: &mut Target,
    form: Form<'_>,
    rows: Vec<(Arc<Add>, RoaringTreemap)>,
    staged: &mut Staged,
) -> Result<()> {
    let now = table.now_millis();
    let mut reader = deletion_vectors::Reader::default();
    let mut inputs = Vec::with_capacity(rows.len());
    for (add, new) in rows {
        let gone = target.gone(&add, &mut reader).await?;
        staged.removes.push(Remove::of(&add, now, true));
        inputs.push(Input { gone: Arc::new(new | gone.as_ref()), add });
    }
    inputs.sort_by(|a, b| a.add.partition_values.cmp(&b.add.partition_values));
    let layout = Arc::new(Layout::whole(&form.schema.fields, form.partition_by));
    let mut files = Vec::new();
    for group in inputs.chunk_by(|a, b| a.add.partition_values == b.add.partition_values) {
        let mut writing = Writing::new(table, &layout, group[0].partition(&layout), &mut files);
        for input in group {
            let mut rest = input.rest(table.store(), &target.form, &layout).await?;
            while let Some((batch, keys)) = rest.try_next().await? {
                let mut codes = Vec::with_capacity(keys.len());
                note_keys(&mut codes, &target.form, &keys, 0);
                writing.write(&batch, codes.into_iter(), form.options.target_size).await?;
            }
        }
        writing.finish().await?;
    }
    metrics::counter!("millrace_delta_files_rewritten_total", "table" => table.place()).increment(inputs.len() as u64);
    staged.adds.extend(files.iter().map(|file| file.add.clone()));
    staged.new_files.extend(files);
    Ok(())
}
