//! Data files under construction: Parquet, encoded as rows come, uploaded in parts as they grow.

use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use millrace_core::{Error, Result};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::layout::{Layout, POSITION};
use super::partition::{self, Key};
use super::stats::{Indexed, stats};
use crate::log::actions::Add;
use crate::store::{Store, store_error};

/// Encoded bytes of a row group: readers parallelise and skip by it; the writer holds that much in memory.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Of an upload. S3 takes 10,000 parts of at least 5 MiB: files up to 80 GB.
const PART_BYTES: usize = 8 << 20;

/// The folder of the change data feed.
pub(crate) const CHANGE_DATA: &str = "_change_data/";

/// A data file of one partition with the columns of one layout.
pub(crate) struct DataFile {
    store: Store,
    layout: Arc<Layout>,
    key: Key,
    /// Relative to the table.
    path: String,
    writer: ArrowWriter<Vec<u8>>,
    upload: Option<Box<dyn MultipartUpload>>,
    uploaded: usize,
    nans: Vec<bool>,
    rows: u64,
}

impl std::fmt::Debug for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataFile").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

fn properties() -> Result<WriterProperties> {
    let zstd = ZstdLevel::try_new(1).map_err(parquet_bug)?;
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(zstd))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // Every position is another one: a dictionary of them is built in vain.
        .set_column_dictionary_enabled(ColumnPath::from(POSITION), false)
        .set_max_row_group_row_count(Some(1 << 20))
        .set_created_by(format!("millrace version {}", env!("CARGO_PKG_VERSION")))
        .build())
}

fn parquet_bug(error: ParquetError) -> Error {
    Error::bug(format!("a data file does not encode: {error}"))
}

impl DataFile {
    /// `id`: unique, 32 hexadecimal digits.
    pub(crate) fn create(store: &Store, layout: Arc<Layout>, key: Key, id: &str) -> Result<Self> {
        let path = format!("{}part-00000-{id}.c000.zstd.parquet", partition::folder(&layout, &key));
        Self::at(store, layout, key, path)
    }

    /// A file of the change data feed. `id`: as of [`DataFile::create`].
    pub(crate) fn of_changes(store: &Store, layout: Arc<Layout>, key: Key, id: &str) -> Result<Self> {
        let path = format!("{CHANGE_DATA}{}cdc-00000-{id}.c000.zstd.parquet", partition::folder(&layout, &key));
        Self::at(store, layout, key, path)
    }

    fn at(store: &Store, layout: Arc<Layout>, key: Key, path: String) -> Result<Self> {
        let options = ArrowWriterOptions::new().with_properties(properties()?).with_skip_arrow_metadata(true);
        let writer =
            ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&layout.arrow), options).map_err(parquet_bug)?;
        let nans = vec![false; layout.columns.len()];
        Ok(Self { store: store.clone(), layout, key, path, writer, upload: None, uploaded: 0, nans, rows: 0 })
    }

    /// Encoded so far, in the store or not.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Written so far. A file ends at its size, long before four billion.
    pub(crate) fn rows(&self) -> u32 {
        self.rows as u32
    }

    /// Held in memory.
    pub(crate) fn memory(&self) -> usize {
        self.writer.memory_size() + self.writer.inner().len()
    }

    /// `batch` has been converted by this file's layout.
    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.layout.note_nans(batch, &mut self.nans);
        self.writer.write(batch).map_err(parquet_bug)?;
        self.rows += batch.num_rows() as u64;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends the row group and hands full parts to the store.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(parquet_bug)?;
        while self.writer.inner().len() >= PART_BYTES {
            let buffer = self.writer.inner_mut();
            let rest = buffer.split_off(PART_BYTES);
            let part = std::mem::replace(buffer, rest);
            self.put_part(part).await?;
        }
        Ok(())
    }

    async fn put_part(&mut self, part: Vec<u8>) -> Result<()> {
        let at = |e| store_error(&format!("{}/{}", self.store.location(), self.path), e);
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let path = Path::parse(&self.path).map_err(|e| Error::bug(e.to_string()))?;
                none.insert(self.store.objects().put_multipart(&path).await.map_err(at)?)
            }
        };
        self.uploaded += part.len();
        upload.put_part(Bytes::from(part).into()).await.map_err(at)
    }

    /// Ends the file; it is durable and unreferenced when this answers. `now`: milliseconds since 1970-01-01 UTC.
    pub(crate) async fn finish(mut self, now: i64) -> Result<Add> {
        let metadata = self.writer.finish().map_err(parquet_bug)?;
        let rest = std::mem::take(self.writer.inner_mut());
        let size = self.uploaded + rest.len();
        if self.upload.is_some() {
            self.put_part(rest).await?;
            if let Some(mut upload) = self.upload.take() {
                upload.complete().await.map_err(|e| store_error(&self.place(), e))?;
            }
        } else {
            let path = Path::parse(&self.path).map_err(|e| Error::bug(e.to_string()))?;
            self.store
                .objects()
                .put(&path, Bytes::from(rest).into())
                .await
                .map_err(|e| store_error(&self.place(), e))?;
        }
        let columns: Vec<Indexed<'_>> = self
            .layout
            .columns
            .iter()
            .zip(&self.nans)
            .map(|(field, nan)| Indexed { name: &field.name, ty: &field.ty, has_nan: *nan })
            .collect();
        Ok(Add {
            path: partition::encode_path(&self.path),
            partition_values: partition::values(&self.layout, &self.key),
            size: size as u64,
            modification_time: now,
            data_change: true,
            stats: Some(stats(&metadata, &columns)),
            tags: None,
            deletion_vector: None,
        })
    }

    fn place(&self) -> String {
        format!("{}/{}", self.store.location(), self.path)
    }
}
