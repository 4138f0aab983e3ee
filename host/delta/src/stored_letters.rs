//! Reading the dead letters back: a stored letter is the verdict (I5).

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use deltalake_core::DeltaTableBuilder;
use millrace_core::position::{Order, SourceKey};
use millrace_core::sink::StoredLetter;
use millrace_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::file::layout::POSITION;
use crate::log::{Table, kernel};
use crate::sink::Owner;
use crate::store::store_error;

/// The columns of `millrace_core::letters::schema` that say whose change a letter is.
const COLUMNS: [&str; 4] = ["pipeline", "incarnation", "source", POSITION];

/// The letters of this pipeline and incarnation beyond `after`.
///
/// Deletion vectors are not looked at: a letter that a person removed was a verdict all the same.
pub(crate) async fn read(table: &Table, owner: &Owner, after: Option<Order>) -> Result<Vec<StoredLetter>> {
    let place = table.place();
    let mut letters = Vec::new();
    for path in files_beyond(table, after).await? {
        let at = |e| store_error(&format!("{place}/{path}"), e);
        let bytes = table.store().objects().get(&path).await.map_err(at)?.bytes().await.map_err(at)?;
        scan(bytes, owner, after, &mut letters)
            .map_err(|why| Error::halt("letters.damaged", format!("{place}/{path}: {why}")))?;
    }
    letters.sort();
    letters.dedup();
    Ok(letters)
}

/// The table's files, less those whose statistics say that no letter in them is beyond `after`.
async fn files_beyond(table: &Table, after: Option<Order>) -> Result<Vec<Path>> {
    let place = table.place();
    let fails = |e: deltalake_core::DeltaTableError| Error::retry("letters.unreadable", format!("{place}: {e}"));
    let Some(state) = table.state() else { return Ok(Vec::new()) };
    let store = table.store();
    let table = DeltaTableBuilder::from_url(store.url().clone())
        .map_err(fails)?
        .with_storage_backend(store.root(), store.url().clone())
        .with_version(state.version);
    let loaded = kernel::apart(table.load()).await?.map_err(fails)?;
    let after = after.map(|order| order.to_sortable());
    let snapshot = loaded.snapshot().map_err(fails)?;
    let mut files = Vec::new();
    for file in snapshot.log_data().iter() {
        let greatest = file.stats().and_then(|stats| greatest_position(&stats));
        let behind = matches!((&after, &greatest), (Some(after), Some(greatest)) if greatest <= after);
        if !behind {
            files.push(file.object_store_path());
        }
    }
    Ok(files)
}

/// `stats`: an add action's, as JSON. A bound that was cut sorts after what it bounds, so it is one still.
fn greatest_position(stats: &str) -> Option<String> {
    let stats: serde_json::Value = serde_json::from_str(stats).ok()?;
    stats["maxValues"][POSITION].as_str().map(str::to_owned)
}

fn scan(bytes: Bytes, owner: &Owner, after: Option<Order>, into: &mut Vec<StoredLetter>) -> Result<(), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let fields = builder.parquet_schema().root_schema().get_fields();
    let roots: Vec<usize> = (0..fields.len()).filter(|i| COLUMNS.contains(&fields[*i].name())).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder.with_projection(mask).build().map_err(|e| e.to_string())?;
    for batch in reader {
        collect(&batch.map_err(|e| e.to_string())?, owner, after, into)?;
    }
    Ok(())
}

fn collect(
    batch: &RecordBatch,
    owner: &Owner,
    after: Option<Order>,
    into: &mut Vec<StoredLetter>,
) -> Result<(), String> {
    // Others may have compacted the file, with texts in another of Arrow's forms.
    let column = |name: &str| {
        let cells = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
        arrow_cast::cast(cells, &DataType::Utf8).map_err(|e| e.to_string())
    };
    let [pipeline, incarnation, source, position] = COLUMNS.map(column);
    let (pipeline, incarnation, source, position) = (pipeline?, incarnation?, source?, position?);
    let (pipeline, incarnation) = (pipeline.as_string::<i32>(), incarnation.as_string::<i32>());
    let (source, position) = (source.as_string::<i32>(), position.as_string::<i32>());
    for row in 0..batch.num_rows() {
        let ours = pipeline.is_valid(row)
            && pipeline.value(row) == owner.pipeline
            && incarnation.value(row) == owner.incarnation;
        if !ours {
            continue;
        }
        let order = Order::from_sortable(position.value(row))
            .ok_or_else(|| format!("`{}` is no position", position.value(row)))?;
        if after.is_none_or(|after| order > after) {
            let source = SourceKey::try_from(source.value(row).to_owned())?;
            into.push(StoredLetter { source, order });
        }
    }
    Ok(())
}
