//! Reading the dead letters back: a stored letter is the verdict (I5).

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use deltalake_core::DeltaTableBuilder;
use millrace_core::environment::Environment;
use millrace_core::letters::KEYS;
use millrace_core::position::{Order, SourceKey};
use millrace_core::sink::{StoredKeys, StoredLetter};
use millrace_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::config::DeltaConfig;
use crate::file::layout::POSITION;
use crate::log::{Table, kernel};
use crate::sink::Owner;
use crate::store::{Store, store_error};

/// The columns of `millrace_core::letters::schema` that say whose change a letter is.
const COLUMNS: [&str; 4] = ["pipeline", "incarnation", "source", POSITION];

/// The letters of this pipeline and incarnation beyond `after`.
///
/// Deletion vectors are not looked at: a letter that a person removed was a verdict all the same.
pub(crate) async fn read(table: &Table, owner: &Owner, after: Option<Order>) -> Result<Vec<StoredLetter>> {
    let mut letters: Vec<StoredLetter> = scan_all(table, owner, after).await?.into_iter().map(|l| l.letter).collect();
    letters.sort();
    letters.dedup();
    Ok(letters)
}

/// Every letter of this pipeline and incarnation that names keys.
pub(crate) async fn read_keys(table: &Table, owner: &Owner) -> Result<Vec<StoredKeys>> {
    let mut letters = scan_all(table, owner, None).await?;
    letters.retain(|letter| !letter.keys.is_empty());
    Ok(letters)
}

async fn scan_all(table: &Table, owner: &Owner, after: Option<Order>) -> Result<Vec<StoredKeys>> {
    let mut letters = Vec::new();
    let columns: Vec<&str> = COLUMNS.into_iter().chain([KEYS]).collect();
    scan(table, after, &columns, |batch| collect(batch, owner, after, &mut letters)).await?;
    Ok(letters)
}

/// Reads these columns of the table, as far as its files have them, file by file; `after`: as [`files_beyond`].
async fn scan(
    table: &Table,
    after: Option<Order>,
    columns: &[&str],
    mut take: impl FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<()> {
    let place = table.place();
    for path in files_beyond(table, after).await? {
        let at = |e| store_error(&format!("{place}/{path}"), e);
        let bytes = table.store().objects().get(&path).await.map_err(at)?.bytes().await.map_err(at)?;
        batches(bytes, columns, &mut take)
            .map_err(|why| Error::halt("letters.damaged", format!("{place}/{path}: {why}")))?;
    }
    Ok(())
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

fn batches(
    bytes: Bytes,
    columns: &[&str],
    mut take: impl FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let fields = builder.parquet_schema().root_schema().get_fields();
    let roots: Vec<usize> = (0..fields.len()).filter(|i| columns.contains(&fields[*i].name())).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder.with_projection(mask).build().map_err(|e| e.to_string())?;
    for batch in reader {
        take(&batch.map_err(|e| e.to_string())?)?;
    }
    Ok(())
}

fn collect(batch: &RecordBatch, owner: &Owner, after: Option<Order>, into: &mut Vec<StoredKeys>) -> Result<(), String> {
    // Others may have compacted the file, with texts in another of Arrow's forms.
    let column = |name: &str| {
        let cells = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
        arrow_cast::cast(cells, &DataType::Utf8).map_err(|e| e.to_string())
    };
    let [pipeline, incarnation, source, position] = COLUMNS.map(column);
    let (pipeline, incarnation, source, position) = (pipeline?, incarnation?, source?, position?);
    // Letters of earlier versions have none.
    let keys = batch.column_by_name(KEYS).map(|_| column(KEYS)).transpose()?;
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
            let keys = keys.as_ref().filter(|keys| keys.is_valid(row)).map(|keys| keys.as_string::<i32>().value(row));
            let keys =
                keys.map(serde_json::from_str).transpose().map_err(|e| format!("keys: {e}"))?.unwrap_or_default();
            into.push(StoredKeys { letter: StoredLetter { source, order }, keys });
        }
    }
    Ok(())
}

/// One dead letter, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub source: SourceKey,
    pub order: Order,
    /// The table's name where it was refused.
    pub table: String,
    pub stage: String,
    pub code: String,
    pub reason: String,
    /// As [`millrace_core::quarantine::RowKeys::shown`] gave them.
    pub keys: Vec<String>,
}

/// What is read for it, in this order; letters of earlier versions have no keys.
const SHOWN: [&str; 8] = ["pipeline", "source", POSITION, "table", "stage", "code", "reason", KEYS];

/// The dead letters of a pipeline, of all its incarnations, in the order of their positions.
///
/// Errors: `store.*`, `letters.*`; no table is no letters.
pub async fn letters(config: &DeltaConfig, pipeline: &str, environment: Arc<dyn Environment>) -> Result<Vec<Letter>> {
    let store = Store::open(&config.path, &config.s3)?;
    let table = Table::open(store, environment, config.checkpoint_interval).await?;
    let mut letters = Vec::new();
    scan(&table, None, &SHOWN, |batch| list(batch, pipeline, &mut letters)).await?;
    letters.sort_by(|a, b| (&a.source, a.order).cmp(&(&b.source, b.order)));
    Ok(letters)
}

fn list(batch: &RecordBatch, pipeline: &str, into: &mut Vec<Letter>) -> Result<(), String> {
    let column = |name: &str| match batch.column_by_name(name) {
        Some(cells) => arrow_cast::cast(cells, &DataType::Utf8).map(Some).map_err(|e| e.to_string()),
        None => Ok(None),
    };
    let columns = SHOWN.map(column).into_iter().collect::<Result<Vec<_>, _>>()?;
    let text = |at: usize, row: usize| {
        let cells = columns[at].as_ref().map(|cells| cells.as_string::<i32>());
        cells.filter(|cells| cells.is_valid(row)).map_or("", |cells| cells.value(row))
    };
    for row in (0..batch.num_rows()).filter(|row| text(0, *row) == pipeline) {
        let keys = Some(text(7, row)).filter(|keys| !keys.is_empty()).map(serde_json::from_str);
        into.push(Letter {
            source: SourceKey::try_from(text(1, row).to_owned())?,
            order: Order::from_sortable(text(2, row)).ok_or_else(|| format!("`{}` is no position", text(2, row)))?,
            table: text(3, row).to_owned(),
            stage: text(4, row).to_owned(),
            code: text(5, row).to_owned(),
            reason: text(6, row).to_owned(),
            keys: keys.transpose().map_err(|e| format!("keys: {e}"))?.unwrap_or_default(),
        });
    }
    Ok(())
}
