//! What a checkpoint says of transactions and files, in the log's own words: deltalake decodes paths, by which entries
//! are told apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::DataType;
use futures::TryStreamExt;
use millrace_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;

use super::actions::{Add, DvDescriptor, Entry, Remove, Txn};
use super::load::LOG;
use crate::file::reader::{Object, of_store};
use crate::store::{Store, store_error};

/// What is asked of a checkpoint: the rest is not even read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Txns,
    /// And the files that the table refers to.
    Files,
    /// What it no longer refers to: after a day of cuts a million entries.
    Removes,
}

impl Wanted {
    fn roots(self) -> &'static [&'static str] {
        match self {
            Wanted::Txns => &["txn"],
            Wanted::Files => &["txn", "add", "sidecar"],
            Wanted::Removes => &["remove", "sidecar"],
        }
    }
}

/// A part of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Checkpointed {
    pub txns: Vec<Txn>,
    pub adds: Vec<Add>,
    pub removes: Vec<Remove>,
}

/// Takes in a part of a checkpoint.
pub(super) type Take<'a> = dyn FnMut(Checkpointed) -> Result<()> + Send + 'a;

/// Reads one file of a checkpoint, and its sidecars where it has some and they are wanted: part by part, so that no
/// checkpoint is in memory as a whole.
pub(super) async fn read(store: &Store, name: &str, wanted: Wanted, take: &mut Take<'_>) -> Result<()> {
    let sidecars = read_one(store, &format!("{LOG}/{name}"), wanted, take).await?;
    for sidecar in sidecars {
        read_one(store, &format!("{LOG}/_sidecars/{sidecar}"), wanted, take).await?;
    }
    Ok(())
}

async fn read_one(store: &Store, name: &str, wanted: Wanted, take: &mut Take<'_>) -> Result<Vec<String>> {
    let place = format!("{}/{name}", store.location());
    let gone = || Error::retry("log.changed", format!("{place} went away while it was read"));
    if name.ends_with(".json") {
        let bytes = store.read(name).await.map_err(|e| store_error(&place, e))?.ok_or_else(gone)?;
        let Entry { txns, adds, removes, sidecars, .. } = Entry::parse(&place, &bytes)?;
        take(match wanted {
            Wanted::Txns => Checkpointed { txns, ..Checkpointed::default() },
            Wanted::Files => Checkpointed { txns, adds, ..Checkpointed::default() },
            Wanted::Removes => Checkpointed { removes, ..Checkpointed::default() },
        })?;
        let sidecars = sidecars.into_iter().map(|s| s.path).collect();
        return Ok(if wanted == Wanted::Txns { Vec::new() } else { sidecars });
    }
    let path = Path::from(name);
    let object = match store.objects().head(&path).await {
        Ok(meta) => Object { objects: Arc::clone(store.objects()), path, size: meta.size },
        Err(object_store::Error::NotFound { .. }) => return Err(gone()),
        Err(error) => return Err(store_error(&place, error)),
    };
    let damaged = |why: String| Error::halt("log.damaged", format!("{place}: {why}"));
    let builder = ParquetRecordBatchStreamBuilder::new(object).await.map_err(|e| fails(&place, e))?;
    let fields = builder.parquet_schema().root_schema().get_fields();
    let roots: Vec<usize> = (0..fields.len()).filter(|i| wanted.roots().contains(&fields[*i].name())).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut batches = builder.with_projection(mask).build().map_err(|e| fails(&place, e))?;
    let mut sidecars = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(|e| fails(&place, e))? {
        take(part(&batch, &mut sidecars).map_err(damaged)?)?;
    }
    Ok(sidecars)
}

fn fails(place: &str, error: ParquetError) -> Error {
    of_store(place, error).unwrap_or_else(|why| Error::halt("log.damaged", format!("{place}: {why}")))
}

fn part(batch: &RecordBatch, sidecars: &mut Vec<String>) -> Result<Checkpointed, String> {
    let mut found = Checkpointed::default();
    if let Some(txn) = root(batch, "txn") {
        collect_txns(txn, &mut found.txns);
    }
    if let Some(add) = root(batch, "add") {
        collect_adds(add, &mut found.adds)?;
    }
    if let Some(remove) = root(batch, "remove") {
        collect_removes(remove, &mut found.removes)?;
    }
    if let Some(sidecar) = root(batch, "sidecar") {
        let paths = Texts::of(sidecar, "path");
        sidecars.extend((0..sidecar.len()).filter(|row| sidecar.is_valid(*row)).filter_map(|row| paths.get(row)));
    }
    Ok(found)
}

fn root<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StructArray> {
    batch.column_by_name(name)?.as_struct_opt()
}

/// A text column of a struct, in whichever of Arrow's forms it came.
struct Texts(Option<ArrayRef>);

impl Texts {
    fn of(parent: &StructArray, name: &str) -> Self {
        Self(parent.column_by_name(name).and_then(|c| arrow_cast::cast(c, &DataType::Utf8).ok()))
    }

    fn get(&self, row: usize) -> Option<String> {
        let cells = self.0.as_ref()?.as_string_opt::<i32>()?;
        cells.is_valid(row).then(|| cells.value(row).to_owned())
    }
}

fn long(parent: &StructArray, name: &str, row: usize) -> Option<i64> {
    let cells = parent.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
    cells.is_valid(row).then(|| cells.value(row))
}

fn integer(parent: &StructArray, name: &str, row: usize) -> Option<i32> {
    let cells = parent.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
    cells.is_valid(row).then(|| cells.value(row))
}

fn collect_txns(txn: &StructArray, into: &mut Vec<Txn>) {
    let ids = Texts::of(txn, "appId");
    for row in (0..txn.len()).filter(|row| txn.is_valid(*row)) {
        if let (Some(app_id), Some(version)) = (ids.get(row), long(txn, "version", row)) {
            into.push(Txn { app_id, version, last_updated: long(txn, "lastUpdated", row) });
        }
    }
}

fn collect_adds(add: &StructArray, into: &mut Vec<Add>) -> Result<(), String> {
    let (paths, stats) = (Texts::of(add, "path"), Texts::of(add, "stats"));
    let dvs = add.column_by_name("deletionVector").and_then(|c| c.as_struct_opt()).map(Vectors::of);
    for row in (0..add.len()).filter(|row| add.is_valid(*row)) {
        let path = paths.get(row).ok_or("a file without a path")?;
        let size = long(add, "size", row).and_then(|size| u64::try_from(size).ok());
        into.push(Add {
            size: size.ok_or_else(|| format!("`{path}` has no size"))?,
            path,
            partition_values: map(add, "partitionValues", row).unwrap_or_default(),
            modification_time: long(add, "modificationTime", row).unwrap_or_default(),
            data_change: false,
            stats: stats.get(row),
            tags: map(add, "tags", row).filter(|tags| !tags.is_empty()),
            deletion_vector: dvs.as_ref().and_then(|dvs| dvs.get(row)),
        });
    }
    Ok(())
}

fn collect_removes(remove: &StructArray, into: &mut Vec<Remove>) -> Result<(), String> {
    let paths = Texts::of(remove, "path");
    let dvs = remove.column_by_name("deletionVector").and_then(|c| c.as_struct_opt()).map(Vectors::of);
    for row in (0..remove.len()).filter(|row| remove.is_valid(*row)) {
        into.push(Remove {
            path: paths.get(row).ok_or("a removal without a path")?,
            deletion_timestamp: long(remove, "deletionTimestamp", row),
            data_change: false,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            deletion_vector: dvs.as_ref().and_then(|dvs| dvs.get(row)),
        });
    }
    Ok(())
}

/// The descriptors of deletion vectors of all rows.
struct Vectors<'a> {
    cells: &'a StructArray,
    storage: Texts,
    paths: Texts,
}

impl<'a> Vectors<'a> {
    fn of(cells: &'a StructArray) -> Self {
        Self { cells, storage: Texts::of(cells, "storageType"), paths: Texts::of(cells, "pathOrInlineDv") }
    }

    fn get(&self, row: usize) -> Option<DvDescriptor> {
        if self.cells.is_null(row) {
            return None;
        }
        Some(DvDescriptor {
            storage_type: self.storage.get(row)?,
            path_or_inline_dv: self.paths.get(row)?,
            offset: integer(self.cells, "offset", row),
            size_in_bytes: integer(self.cells, "sizeInBytes", row)?,
            cardinality: long(self.cells, "cardinality", row)?,
        })
    }
}

fn map(parent: &StructArray, name: &str, row: usize) -> Option<BTreeMap<String, Option<String>>> {
    let cells = parent.column_by_name(name)?.as_map_opt()?;
    if cells.is_null(row) {
        return None;
    }
    let entries = cells.value(row);
    let keys = arrow_cast::cast(entries.column(0), &DataType::Utf8).ok()?;
    let values = arrow_cast::cast(entries.column(1), &DataType::Utf8).ok()?;
    let (keys, values) = (keys.as_string::<i32>(), values.as_string::<i32>());
    let value = |i: usize| values.is_valid(i).then(|| values.value(i).to_owned());
    Some((0..keys.len()).map(|i| (keys.value(i).to_owned(), value(i))).collect())
}
