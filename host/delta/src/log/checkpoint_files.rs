//! What a checkpoint says of transactions and files, in the log's own words: deltalake decodes paths, by which entries
//! are told apart.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::DataType;
use bytes::Bytes;
use millrace_core::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::actions::{Add, DvDescriptor, Entry, Remove, Txn};
use super::load::LOG;
use crate::store::{Store, store_error};

#[derive(Debug, Default)]
pub(super) struct Checkpointed {
    pub txns: Vec<Txn>,
    pub adds: Vec<Add>,
    pub removes: Vec<Remove>,
}

/// Reads one file of a checkpoint, and its sidecars where it has some and files are wanted.
pub(super) async fn read(store: &Store, name: &str, with_files: bool, into: &mut Checkpointed) -> Result<()> {
    let sidecars = read_one(store, &format!("{LOG}/{name}"), with_files, into).await?;
    for sidecar in sidecars {
        read_one(store, &format!("{LOG}/_sidecars/{sidecar}"), true, into).await?;
    }
    Ok(())
}

async fn read_one(store: &Store, name: &str, with_files: bool, into: &mut Checkpointed) -> Result<Vec<String>> {
    let place = format!("{}/{name}", store.location());
    let bytes = store.read(name).await.map_err(|e| store_error(&place, e))?;
    let bytes = bytes.ok_or_else(|| Error::retry("log.changed", format!("{place} went away while it was read")))?;
    if name.ends_with(".json") {
        let entry = Entry::parse(&place, &bytes)?;
        into.txns.extend(entry.txns);
        into.adds.extend(entry.adds);
        into.removes.extend(entry.removes);
        let sidecars = entry.sidecars.into_iter().map(|s| s.path).collect();
        return Ok(if with_files { sidecars } else { Vec::new() });
    }
    parquet(bytes, with_files, into).map_err(|why| Error::halt("log.damaged", format!("{place}: {why}")))
}

fn parquet(bytes: Bytes, with_files: bool, into: &mut Checkpointed) -> Result<Vec<String>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let wanted: &[&str] = if with_files { &["txn", "add", "remove", "sidecar"] } else { &["txn"] };
    let fields = builder.parquet_schema().root_schema().get_fields();
    let roots: Vec<usize> = (0..fields.len()).filter(|i| wanted.contains(&fields[*i].name())).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut sidecars = Vec::new();
    for batch in builder.with_projection(mask).build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        if let Some(txn) = root(&batch, "txn") {
            collect_txns(txn, &mut into.txns);
        }
        if let Some(add) = root(&batch, "add") {
            collect_adds(add, &mut into.adds)?;
        }
        if let Some(remove) = root(&batch, "remove") {
            collect_removes(remove, &mut into.removes)?;
        }
        if let Some(sidecar) = root(&batch, "sidecar") {
            let paths = Texts::of(sidecar, "path");
            sidecars.extend((0..sidecar.len()).filter(|row| sidecar.is_valid(*row)).filter_map(|row| paths.get(row)));
        }
    }
    Ok(sidecars)
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
