//! The resume record beside the data: numbered objects that are only ever created (I3), and components by digest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use millrace_core::environment::Environment;
use millrace_core::record::{Create, RecordStore};
use millrace_core::{Error, Result};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::store::{Created, S3Config, Store, store_error};

const RECORDS: &str = "records";
const ARTIFACTS: &str = "artifacts";
const REQUESTS: &str = "resnapshot";

/// A host that was suspended for less than this finds its next number taken, and so learns that it is not the owner.
const KEPT: Duration = Duration::from_secs(3_600);

/// Records in a folder of an object store.
pub struct ObjectRecords {
    store: Store,
    environment: Arc<dyn Environment>,
}

impl std::fmt::Debug for ObjectRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectRecords").field("at", &self.store.location()).finish_non_exhaustive()
    }
}

impl ObjectRecords {
    pub(crate) fn new(store: Store, environment: Arc<dyn Environment>) -> Self {
        Self { store, environment }
    }

    /// Records in a local folder, for sinks without a store: the `state_dir` of `stdout` and `null`.
    ///
    /// Errors: of kind `Config`.
    pub fn in_folder(folder: &str, pipeline: &str, environment: Arc<dyn Environment>) -> Result<Self> {
        let store = Store::open(folder, &S3Config::default())?.at(&crate::store::safe_name(pipeline))?;
        Ok(Self::new(store, environment))
    }

    fn failed(&self, name: &str) -> impl Fn(object_store::Error) -> Error + use<> {
        let place = format!("{}/{name}", self.store.location());
        move |e| store_error(&place, e)
    }

    /// By number.
    async fn list(&self) -> Result<BTreeMap<u64, ObjectMeta>> {
        let folder = Path::from(RECORDS);
        let mut found = self.store.objects().list(Some(&folder));
        let mut records = BTreeMap::new();
        while let Some(object) = found.try_next().await.map_err(self.failed(RECORDS))? {
            let number = object.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            if let Some(number) = number {
                records.insert(number, object);
            }
        }
        Ok(records)
    }
}

fn record_name(number: u64) -> String {
    format!("{RECORDS}/{number:020}.json")
}

/// Digests are hexadecimal; anything else would leave the folder.
fn artifact_name(digest: &str) -> Result<String> {
    if digest.is_empty() || !digest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Error::bug(format!("`{digest}` is no digest")));
    }
    Ok(format!("{ARTIFACTS}/{digest}"))
}

#[async_trait]
impl RecordStore for ObjectRecords {
    async fn latest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        // A record may be pruned between the listing and the reading: then there is a newer one.
        loop {
            let Some((number, _)) = self.list().await?.pop_last() else { return Ok(None) };
            if let Some(record) = self.read(number).await? {
                return Ok(Some((number, record)));
            }
        }
    }

    async fn read(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let name = record_name(number);
        let found = self.store.read(&name).await.map_err(self.failed(&name))?;
        if found.is_some() {
            // Its writer may have died before it was durable.
            self.store.settle(&name).await?;
        }
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    async fn create(&self, number: u64, record: &[u8]) -> Result<Create> {
        let name = record_name(number);
        match self.store.create(&name, Bytes::copy_from_slice(record)).await.map_err(self.failed(&name))? {
            Created::Yes => Ok(Create::Created),
            Created::Taken => Ok(Create::Taken),
        }
    }

    async fn prune(&self, below: u64) -> Result<()> {
        let before = self.environment.now() - i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
        for (number, object) in self.list().await?.range(..below) {
            if object.last_modified.timestamp_micros() < before {
                let name = record_name(*number);
                self.store.delete(&name).await.map_err(self.failed(&name))?;
            }
        }
        Ok(())
    }

    async fn put_artifact(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let name = artifact_name(digest)?;
        // Taken: the same bytes, by the digest; perhaps by a host that died before they were durable.
        self.store.create(&name, Bytes::copy_from_slice(bytes)).await.map_err(self.failed(&name))?;
        self.store.settle(&name).await
    }

    async fn artifact(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let name = artifact_name(digest)?;
        let found = self.store.read(&name).await.map_err(self.failed(&name))?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    async fn snapshot_requests(&self) -> Result<Vec<String>> {
        let folder = Path::from(REQUESTS);
        let mut found = self.store.objects().list(Some(&folder));
        let mut tables = Vec::new();
        while let Some(object) = found.try_next().await.map_err(self.failed(REQUESTS))? {
            let name = format!("{REQUESTS}/{}", object.location.filename().unwrap_or_default());
            let request = self.store.read(&name).await.map_err(self.failed(&name))?;
            // Withdrawn meanwhile by another host.
            tables.extend(request.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(tables)
    }

    async fn request_snapshot(&self, table: &str) -> Result<()> {
        let name = request_name(table);
        self.store.create(&name, Bytes::copy_from_slice(table.as_bytes())).await.map_err(self.failed(&name))?;
        self.store.settle(&name).await
    }

    async fn withdraw_snapshot_request(&self, table: &str) -> Result<()> {
        let name = request_name(table);
        self.store.delete(&name).await.map_err(self.failed(&name))
    }
}

/// The table's own name is what is in it.
fn request_name(table: &str) -> String {
    format!("{REQUESTS}/{}", crate::store::safe_name(table))
}
