//! Deletion vectors, by the kernel's own reader and writer: there is one encoding of them, and it is not ours.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use delta_kernel::actions::deletion_vector::{DeletionVectorDescriptor, DeletionVectorStorageType};
use delta_kernel::actions::deletion_vector_writer::{DeletionVector, StreamingDeletionVectorWriter};
use delta_kernel::{DeltaResult, Error as KernelError, FileMeta, FileSlice, StorageHandler};
use millrace_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringTreemap;
use url::Url;
use uuid::Uuid;

use super::actions::{Add, DvDescriptor};
use crate::store::{Store, store_error};

/// Rows of a bitmap, as the kernel's writer takes them; serialised without a copy.
struct Rows<'a>(&'a RoaringTreemap);

impl<'a> DeletionVector for Rows<'a> {
    type IndexIterator = roaring::treemap::Iter<'a>;

    fn into_iter(self) -> Self::IndexIterator {
        self.0.iter()
    }

    fn cardinality(&self) -> u64 {
        self.0.len()
    }

    fn serialize(self) -> DeltaResult<Bytes> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0.serialize_into(&mut bytes).map_err(|e| KernelError::generic(e.to_string()))?;
        Ok(bytes.into())
    }
}

/// Several deletion vectors in one new file; durable when this answers, and nobody refers to it yet. `id`: unique, 32
/// hexadecimal digits.
pub(crate) async fn write(store: &Store, id: &str, vectors: &[&RoaringTreemap]) -> Result<Vec<DvDescriptor>> {
    if vectors.is_empty() {
        return Ok(Vec::new());
    }
    let id = Uuid::from_u128(u128::from_str_radix(id, 16).map_err(|e| Error::bug(e.to_string()))?);
    let fails = |e: KernelError| Error::bug(format!("a deletion vector does not encode: {e}"));
    let mut body = Vec::new();
    let mut writer = StreamingDeletionVectorWriter::new(&mut body);
    let mut written = Vec::with_capacity(vectors.len());
    for vector in vectors {
        written.push(writer.write_deletion_vector(Rows(vector)).map_err(fails)?);
    }
    writer.finalize().map_err(fails)?;
    let name = format!("deletion_vector_{id}.bin");
    let place = format!("{}/{name}", store.location());
    store.objects().put(&Path::from(name), Bytes::from(body).into()).await.map_err(|e| store_error(&place, e))?;
    let encoded = z85::encode(id.as_bytes());
    let descriptor = |w: delta_kernel::actions::deletion_vector_writer::DeletionVectorWriteResult| DvDescriptor {
        storage_type: "u".into(),
        path_or_inline_dv: encoded.clone(),
        offset: Some(w.offset),
        size_in_bytes: w.size_in_bytes,
        cardinality: w.cardinality,
    };
    Ok(written.into_iter().map(descriptor).collect())
}

/// The file that holds an entry's deletion vector, in the table's folder; `None` where it lies elsewhere or in the log.
pub(crate) fn location(store: &Store, add: &Add) -> Result<Option<Path>> {
    let Some(dv) = &add.deletion_vector else { return Ok(None) };
    let damaged = |e: KernelError| Error::halt("log.damaged", format!("{}/{}: {e}", store.location(), add.path));
    let folder = folder_url(store)?;
    let url = described(dv).and_then(|d| d.absolute_path(&folder)).map_err(damaged)?;
    let relative = url.as_ref().and_then(|url| url.as_str().strip_prefix(folder.as_str()));
    Ok(relative.and_then(|path| Path::from_url_path(path).ok()))
}

/// What the kernel reads is fetched before: its seam is synchronous.
struct Fetched {
    bytes: Bytes,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("bytes", &self.bytes.len()).finish()
    }
}

fn only_read<T>() -> DeltaResult<T> {
    Err(KernelError::generic("only the file of a deletion vector is read here"))
}

impl StorageHandler for Fetched {
    fn read_files(&self, files: Vec<FileSlice>) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<Bytes>>>> {
        let bytes = self.bytes.clone();
        Ok(Box::new(files.into_iter().map(move |(_, range)| match range {
            Some(range) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            None => Ok(bytes.clone()),
        })))
    }

    fn list_from(&self, _: &Url) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<FileMeta>>>> {
        only_read()
    }

    fn put(&self, _: &Url, _: Bytes, _: bool) -> DeltaResult<()> {
        only_read()
    }

    fn copy_atomic(&self, _: &Url, _: &Url) -> DeltaResult<()> {
        only_read()
    }

    fn delete(&self, _: &Url) -> DeltaResult<()> {
        only_read()
    }

    fn head(&self, _: &Url) -> DeltaResult<FileMeta> {
        only_read()
    }
}

/// Reads the deletion vectors of several files; each file of vectors once.
#[derive(Default)]
pub(crate) struct Reader {
    fetched: HashMap<Url, Bytes>,
}

impl Reader {
    /// Rows of `add` that are gone. Errors: `table.damaged` (halt) where the vector is not what the log says.
    pub(crate) async fn read(&mut self, store: &Store, add: &Add) -> Result<RoaringTreemap> {
        let Some(dv) = &add.deletion_vector else { return Ok(RoaringTreemap::new()) };
        let place = format!("{}/{}", store.location(), add.path);
        let damaged = |why: String| {
            Error::halt("table.damaged", format!("{place}: its deletion vector: {why}")).hint(
                "the rows that are gone from this file are unknown; restore the deletion vector or an earlier version",
            )
        };
        let descriptor = described(dv).map_err(|e| damaged(e.to_string()))?;
        let folder = folder_url(store)?;
        let handler = Fetched { bytes: self.fetch(store, &descriptor, &folder).await? };
        let rows = descriptor.read(std::sync::Arc::new(handler), &folder).map_err(|e| damaged(e.to_string()))?;
        if i64::try_from(rows.len()) != Ok(dv.cardinality) {
            return Err(damaged(format!("the log says {} rows and it has {}", dv.cardinality, rows.len())));
        }
        Ok(rows)
    }

    async fn fetch(&mut self, store: &Store, dv: &DeletionVectorDescriptor, folder: &Url) -> Result<Bytes> {
        let at = dv.absolute_path(folder).map_err(|e| Error::halt("table.damaged", e.to_string()))?;
        let Some(url) = at else { return Ok(Bytes::new()) };
        if let Some(bytes) = self.fetched.get(&url) {
            return Ok(bytes.clone());
        }
        let fails = |e| store_error(url.as_str(), e);
        let path = Path::from_url_path(url.path()).map_err(|e| Error::halt("table.damaged", format!("{url}: {e}")))?;
        let bytes = store.root().get(&path).await.map_err(fails)?.bytes().await.map_err(fails)?;
        self.fetched.insert(url, bytes.clone());
        Ok(bytes)
    }
}

fn described(dv: &DvDescriptor) -> DeltaResult<DeletionVectorDescriptor> {
    let storage: DeletionVectorStorageType = dv.storage_type.parse()?;
    DeletionVectorDescriptor::try_new(
        storage,
        dv.path_or_inline_dv.clone(),
        dv.offset,
        dv.size_in_bytes,
        dv.cardinality,
    )
}

/// Ends with a slash: names are joined to it.
fn folder_url(store: &Store) -> Result<Url> {
    let mut url = store.url().clone();
    url.path_segments_mut().map_err(|()| Error::bug("a store without folders"))?.pop_if_empty().push("");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::S3Config;

    fn add(dv: DvDescriptor) -> Add {
        Add {
            path: "part".into(),
            partition_values: Default::default(),
            size: 1,
            modification_time: 0,
            data_change: true,
            stats: None,
            tags: None,
            deletion_vector: Some(dv),
        }
    }

    #[tokio::test]
    async fn vectors_survive_their_file_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string(), &S3Config::default()).unwrap().at("a b").unwrap();
        let (one, two): (RoaringTreemap, RoaringTreemap) =
            ([1u64, 5, 1 << 33].into_iter().collect(), (0..10_000).collect());
        let id = "00112233445566778899aabbccddeeff";
        let written = write(&store, id, &[&one, &two]).await.unwrap();
        let mut reader = Reader::default();
        assert_eq!(reader.read(&store, &add(written[0].clone())).await.unwrap(), one);
        assert_eq!(reader.read(&store, &add(written[1].clone())).await.unwrap(), two);
        let right = written[0].clone();
        for off in [
            DvDescriptor { cardinality: 4, ..right.clone() },
            DvDescriptor { size_in_bytes: right.size_in_bytes - 1, ..right.clone() },
            DvDescriptor { size_in_bytes: right.size_in_bytes + 1, ..right.clone() },
            DvDescriptor { offset: Some(2), ..right },
        ] {
            assert_eq!(reader.read(&store, &add(off.clone())).await.unwrap_err().code, "table.damaged", "{off:?}");
        }

        let file = folder.path().join("a b/deletion_vector_00112233-4455-6677-8899-aabbccddeeff.bin");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(Reader::default().read(&store, &add(written[0].clone())).await.unwrap_err().code, "table.damaged");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(Reader::default().read(&store, &add(written[0].clone())).await.unwrap_err().code, "store.not_found");
    }
}
