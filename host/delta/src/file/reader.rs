//! Rows of data files, ours and others': columns by name, in the table's types, of all rows or of some.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, StringArray, new_null_array};
use arrow_schema::{DataType, Field as ArrowField, Schema, TimeUnit};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use millrace_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type as Physical;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::log::actions::Add;
use crate::log::schema::Field;
use crate::store::{Store, store_error};

/// Rows of a batch: large enough that its fixed cost does not count, small enough for wide rows.
const BATCH_ROWS: usize = 8_192;
/// Read at a file's end in the hope that its footer is in it.
const FOOTER_BYTES: usize = 64 << 10;

/// An object as Parquet's reader sees it.
pub(crate) struct Object {
    pub objects: Arc<dyn ObjectStore>,
    pub path: Path,
    pub size: u64,
}

fn outside(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Object {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.objects.get_range(&self.path, range).await.map_err(outside) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.objects.get_ranges(&self.path, &ranges).await.map_err(outside) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(FOOTER_BYTES.min(usize::try_from(size).unwrap_or(FOOTER_BYTES))));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

/// A data file whose footer was read.
pub(crate) struct FileReader {
    object: Object,
    metadata: ArrowReaderMetadata,
    add: Arc<Add>,
    place: String,
}

/// What the file is called in the store. Errors: `table.unsupported` (halt) for a file outside of the table's folder.
pub(crate) fn location(store: &Store, add: &Add) -> Result<Path> {
    let place = store.location();
    if add.path.starts_with('/') || add.path.contains("://") {
        return Err(Error::halt(
            "table.unsupported",
            format!("{place} refers to a file of another table: {}", add.path),
        )
        .hint("shallow clones are read by their own engine; copy the table"));
    }
    Path::from_url_path(&add.path).map_err(|e| Error::halt("log.damaged", format!("{place}: `{}`: {e}", add.path)))
}

fn fails(place: &str, error: ParquetError) -> Error {
    of_store(place, error).unwrap_or_else(|why| {
        Error::halt("table.damaged", format!("{place}: {why}"))
            .hint("a data file of the table can not be read; restore it")
    })
}

/// What the store said, or else what is wrong with the bytes.
pub(crate) fn of_store(place: &str, error: ParquetError) -> Result<Error, String> {
    let why = error.to_string();
    let ParquetError::External(cause) = error else { return Err(why) };
    cause.downcast::<object_store::Error>().map(|cause| store_error(place, *cause)).map_err(|_other| why)
}

/// Spark still writes timestamps as INT96 by default; read as nanoseconds they wrap outside of 1677 to 2262.
fn with_micros(
    metadata: ArrowReaderMetadata,
    options: ArrowReaderOptions,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let schema = metadata.parquet_schema();
    let is_int96 = |root: usize| {
        (0..schema.num_columns()).any(|leaf| {
            schema.get_column_root_idx(leaf) == root && schema.column(leaf).physical_type() == Physical::INT96
        })
    };
    let fields = metadata.schema().fields();
    if !(0..fields.len()).any(is_int96) {
        return Ok(metadata);
    }
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let hinted = fields.iter().enumerate().map(|(root, field)| match field.data_type() {
        DataType::Timestamp(..) if is_int96(root) => ArrowField::new(field.name(), micros.clone(), field.is_nullable()),
        _ => field.as_ref().clone(),
    });
    let options = options.with_schema(Arc::new(Schema::new(hinted.collect::<Vec<_>>())));
    ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
}

impl FileReader {
    /// Errors: `store.not_found` (halt) where the file is gone, `table.damaged` (halt), `store.*`.
    pub(crate) async fn open(store: &Store, add: &Arc<Add>) -> Result<Self> {
        let place = format!("{}/{}", store.location(), add.path);
        let mut object = Object { objects: Arc::clone(store.objects()), path: location(store, add)?, size: add.size };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let options = options.with_offset_index_policy(PageIndexPolicy::Optional);
        let loaded = ArrowReaderMetadata::load_async(&mut object, options.clone()).await;
        let metadata = loaded.and_then(|m| with_micros(m, options)).map_err(|e| fails(&place, e))?;
        Ok(Self { object, metadata, add: Arc::clone(add), place })
    }

    pub(crate) fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// Physical rows, the deleted ones included.
    pub(crate) fn rows(&self) -> u64 {
        self.metadata().row_groups().iter().map(|g| g.num_rows().unsigned_abs()).sum()
    }

    /// Batches of the columns `fields`, each in the type of its field; a column that the file does not have is NULL,
    /// one by which the table is partitioned is the file's value of it.
    pub(crate) fn read(self, fields: &[Field], rows: Rows<'_>) -> Result<BoxStream<'static, Result<Vec<ArrayRef>>>> {
        let place = self.place;
        let schema = self.metadata.parquet_schema();
        let roots: Vec<usize> = schema
            .root_schema()
            .get_fields()
            .iter()
            .enumerate()
            .filter(|(_, f)| fields.iter().any(|wanted| wanted.name == f.name()))
            .map(|(root, _)| root)
            .collect();
        let mask = ProjectionMask::roots(schema, roots);
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.object, self.metadata)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS);
        match rows {
            Rows::All => {}
            Rows::Groups(groups) => builder = builder.with_row_groups(groups),
            Rows::These(rows) => builder = builder.with_row_selection(selection(rows)),
        }
        let stream = builder.build().map_err(|e| fails(&place, e))?;
        let (fields, add) = (fields.to_vec(), self.add);
        let convert = move |batch: arrow_array::RecordBatch| {
            fields
                .iter()
                .map(|field| {
                    let cells = match batch.column_by_name(&field.name) {
                        Some(cells) => Arc::clone(cells),
                        None => constant(&add, field, batch.num_rows()),
                    };
                    in_type(&cells, &field.ty.arrow())
                        .map_err(|why| Error::halt("table.damaged", format!("`{}` of {}: {why}", field.name, add.path)))
                })
                .collect::<Result<Vec<ArrayRef>>>()
        };
        Ok(stream.map_err(move |e| fails(&place, e)).map(move |batch| batch.and_then(&convert)).boxed())
    }
}

/// Which rows of a file.
#[derive(Debug)]
pub(crate) enum Rows<'a> {
    All,
    /// Those of these row groups, ascending.
    Groups(Vec<usize>),
    /// These, ascending, each once.
    These(&'a [u32]),
}

fn selection(rows: &[u32]) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut next = 0;
    for row in rows.iter().map(|r| *r as usize) {
        if row > next || selectors.is_empty() {
            if row > next {
                selectors.push(RowSelector::skip(row - next));
            }
            selectors.push(RowSelector::select(1));
        } else if let Some(last) = selectors.last_mut() {
            last.row_count += 1;
        }
        next = row + 1;
    }
    selectors.into()
}

/// The value of a partition column, or NULL.
fn constant(add: &Add, field: &Field, rows: usize) -> ArrayRef {
    match add.partition_values.get(&field.name) {
        Some(Some(value)) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))),
        _ => new_null_array(&field.ty.arrow(), rows),
    }
}

/// The same values in another type of Arrow.
pub(crate) fn in_type(cells: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    if cells.data_type() == wanted {
        return Ok(Arc::clone(cells));
    }
    let cast = arrow_cast::cast(cells, wanted).map_err(|e| e.to_string())?;
    if cast.null_count() == cells.null_count() {
        Ok(cast)
    } else {
        Err(format!("a value of type {} is no {wanted}", cells.data_type()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::schema::DeltaType;
    use arrow_array::cast::AsArray;
    use arrow_array::types::TimestampMicrosecondType;
    use parquet::data_type::{Int96, Int96Type};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    /// A file as Spark writes it by default: microseconds of days since 1970, in INT96.
    fn int96(days: &[i64], micros: i64) -> Vec<u8> {
        let schema = Arc::new(parse_message_type("message m { optional int96 t; }").unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<Int96> = days
            .iter()
            .map(|day| {
                let (nanos, julian) = (micros * 1_000, day + 2_440_588);
                let mut value = Int96::new();
                value.set_data(nanos as u32, (nanos >> 32) as u32, julian as u32);
                value
            })
            .collect();
        column.typed::<Int96Type>().write_batch(&values, Some(&vec![1; days.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.into_inner().unwrap()
    }

    #[tokio::test]
    async fn timestamps_of_any_year_are_read_from_int96() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string(), &Default::default()).unwrap();
        let days = [-171_664, 0, 120_530];
        let bytes = int96(&days, 5);
        std::fs::write(folder.path().join("t.parquet"), &bytes).unwrap();
        let add = Arc::new(Add {
            path: "t.parquet".into(),
            partition_values: Default::default(),
            size: bytes.len() as u64,
            modification_time: 0,
            data_change: true,
            stats: None,
            tags: None,
            deletion_vector: None,
        });
        let reader = FileReader::open(&store, &add).await.unwrap();
        let fields = [Field::new("t", DeltaType::Timestamp)];
        let batches: Vec<Vec<ArrayRef>> = reader.read(&fields, Rows::All).unwrap().try_collect().await.unwrap();
        let found = batches[0][0].as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(found, days.map(|day| day * 86_400_000_000 + 5));
    }

    #[test]
    fn neighbouring_rows_are_selected_together() {
        let selectors: Vec<RowSelector> = selection(&[0, 1, 5, 6, 9]).into();
        let expected = [
            RowSelector::select(2),
            RowSelector::skip(3),
            RowSelector::select(2),
            RowSelector::skip(2),
            RowSelector::select(1),
        ];
        assert_eq!(selectors, expected);
    }
}
