//! Where tables, records and plugin artefacts live: a place in an object store.

mod durable;
mod errors;
mod s3;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use millrace_core::{Error, Result};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use url::Url;

pub use s3::S3Config;

pub(crate) use errors::{is_not_durable, said_by_store, store_cause, store_error};

/// What becomes of a create-only put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    /// Another object has that name.
    Taken,
}

/// A folder of an object store. Cloning shares the connection.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The store with `/` at its root: a bucket, or the whole local file system.
    root: Arc<dyn ObjectStore>,
    /// This folder; ends without a slash.
    url: Url,
    /// The store rooted at this folder.
    objects: Arc<dyn ObjectStore>,
}

impl Store {
    /// `location`: a path, a `file://` or an `s3://BUCKET/PREFIX` URL.
    pub(crate) fn open(location: &str, s3: &S3Config) -> Result<Self> {
        match Url::parse(location) {
            Ok(url) if url.scheme() == "s3" => Self::new(s3::open(&url, s3)?, url),
            Ok(url) if url.scheme() == "file" => Self::new(Arc::new(durable::DurableLocal::new()), url),
            // A one-letter scheme would be a drive; everything else with `://` is a store that we do not know.
            Ok(url) if location.contains("://") => Err(Error::config(
                "store.unknown",
                format!("`{}://` is not a store that millrace writes to", url.scheme()),
            )
            .hint("use a path, file:// or s3://")),
            Ok(_) | Err(_) => Self::local(location),
        }
    }

    fn local(location: &str) -> Result<Self> {
        let bad = |why: String| Error::config("store.path", format!("`{location}`: {why}"));
        let path = std::path::absolute(location).map_err(|e| bad(e.to_string()))?;
        let url = Url::from_file_path(&path).map_err(|()| bad("not a path".into()))?;
        Self::new(Arc::new(durable::DurableLocal::new()), url)
    }

    /// A folder of any store; `root` has `/` at the root of the store.
    pub(crate) fn new(root: Arc<dyn ObjectStore>, mut url: Url) -> Result<Self> {
        let trimmed = url.path().trim_end_matches('/').to_owned();
        url.set_path(&trimmed);
        let prefix =
            Path::from_url_path(url.path()).map_err(|e| Error::config("store.path", format!("`{url}`: {e}")))?;
        let objects: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            Arc::clone(&root)
        } else {
            Arc::new(PrefixStore::new(Arc::clone(&root), prefix))
        };
        Ok(Self { root, url, objects })
    }

    /// A folder inside this one; `relative` has its parts joined by `/`.
    pub(crate) fn at(&self, relative: &str) -> Result<Self> {
        let mut url = self.url.clone();
        {
            let mut parts = url
                .path_segments_mut()
                .map_err(|()| Error::config("store.path", format!("`{}` has no folders", self.url)))?;
            parts.pop_if_empty().extend(relative.split('/').filter(|part| !part.is_empty()));
        }
        Self::new(Arc::clone(&self.root), url)
    }

    /// For logs and errors.
    pub(crate) fn location(&self) -> String {
        match self.local_path() {
            Some(path) => path.display().to_string(),
            None => self.url.to_string(),
        }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn local_path(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten()
    }

    /// The store with `/` at its root.
    pub(crate) fn root(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.root)
    }

    /// The store rooted at this folder.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The seam by which deltalake and its kernel see this folder as a table.
    pub(crate) fn log_store(&self) -> LogStoreRef {
        default_logstore(Arc::clone(&self.objects), Arc::clone(&self.root), &self.url, &StorageConfig::default())
    }

    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> object_store::Result<Created> {
        match self.objects.put_opts(&Path::from(name), bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Created::Yes),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Taken),
            Err(e) => Err(e),
        }
    }

    /// `None` where there is no such object.
    pub(crate) async fn read(&self, name: &str) -> object_store::Result<Option<Bytes>> {
        match self.objects.get(&Path::from(name)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn delete(&self, name: &str) -> object_store::Result<()> {
        match self.objects.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// An object that another process may have published just before it died is not durable on a local disk until it
    /// is synced; on an object store it always is.
    pub(crate) async fn settle(&self, name: &str) -> Result<()> {
        let Some(folder) = self.local_path() else { return Ok(()) };
        let path = folder.join(name);
        let synced = tokio::task::spawn_blocking(move || durable::sync_published(&path)).await;
        synced
            .map_err(|e| Error::bug(e.to_string()))?
            .map_err(|e| store_error(&format!("{}/{name}", self.location()), e))
    }

    /// I6 rests on a put that refuses to overwrite; some stores accept the header and ignore it. Writes one probe object
    /// twice and removes it. `name` must be unique.
    pub(crate) async fn probe_conditional_put(&self, name: &str) -> Result<()> {
        let at = |e| store_error(&self.location(), e);
        // Not asked for its answer: a put that the client itself repeated finds its own first try.
        self.create(name, Bytes::from_static(b"first")).await.map_err(at)?;
        let second = self.create(name, Bytes::from_static(b"second")).await.map_err(at)?;
        self.delete(name).await.map_err(at)?;
        if second == Created::Taken {
            return Ok(());
        }
        Err(Error::config(
            "store.no_conditional_put",
            format!("{} lets a second writer overwrite an object that must be created once", self.location()),
        )
        .hint("two hosts could overwrite each other's commits there; use a store with If-None-Match (AWS S3, SeaweedFS, recent MinIO)"))
    }
}

/// A part of a path that means the same to every file system, object store and URL: everything but letters, digits and
/// `_ - .` becomes `=XX` (hexadecimal UTF-8), and so does a leading dot or underscore, which readers skip as hidden.
pub(crate) fn safe_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (i, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'-' || (i > 0 && (byte == b'_' || byte == b'.'));
        if plain {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("={byte:02X}"));
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().display().to_string(), &S3Config::default()).unwrap()
    }

    #[tokio::test]
    async fn a_second_create_is_refused_and_the_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = local(&folder).at("a b/ü").unwrap();
        assert_eq!(store.create("x/1", Bytes::from_static(b"one")).await.unwrap(), Created::Yes);
        assert_eq!(store.create("x/1", Bytes::from_static(b"two")).await.unwrap(), Created::Taken);
        assert_eq!(store.read("x/1").await.unwrap().unwrap(), Bytes::from_static(b"one"));
        assert!(folder.path().join("a b/ü/x/1").exists());
        assert_eq!(std::fs::read_dir(folder.path().join("a b/ü/x")).unwrap().count(), 1, "nothing staged stays");
        store.probe_conditional_put("probe").await.unwrap();
        store.settle("x/1").await.unwrap();
    }

    #[tokio::test]
    async fn a_multipart_upload_appears_whole_when_it_completes() {
        let folder = tempfile::tempdir().unwrap();
        let store = local(&folder);
        let mut upload = store.objects().put_multipart(&Path::from("big")).await.unwrap();
        upload.put_part(Bytes::from_static(b"hello ").into()).await.unwrap();
        upload.put_part(Bytes::from_static(b"world").into()).await.unwrap();
        assert_eq!(store.read("big").await.unwrap(), None);
        upload.complete().await.unwrap();
        assert_eq!(store.read("big").await.unwrap().unwrap(), Bytes::from_static(b"hello world"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_refused() {
        #[derive(Debug)]
        struct Careless(object_store::memory::InMemory);
        impl std::fmt::Display for Careless {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("careless")
            }
        }
        #[async_trait::async_trait]
        impl ObjectStore for Careless {
            async fn put_opts(
                &self,
                location: &Path,
                payload: object_store::PutPayload,
                _: object_store::PutOptions,
            ) -> object_store::Result<object_store::PutResult> {
                self.0.put(location, payload).await
            }
            async fn put_multipart_opts(
                &self,
                location: &Path,
                opts: object_store::PutMultipartOptions,
            ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
                self.0.put_multipart_opts(location, opts).await
            }
            async fn get_opts(
                &self,
                location: &Path,
                options: object_store::GetOptions,
            ) -> object_store::Result<object_store::GetResult> {
                self.0.get_opts(location, options).await
            }
            fn delete_stream(
                &self,
                locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
            ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
                self.0.delete_stream(locations)
            }
            fn list(
                &self,
                prefix: Option<&Path>,
            ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
                self.0.list(prefix)
            }
            async fn list_with_delimiter(
                &self,
                prefix: Option<&Path>,
            ) -> object_store::Result<object_store::ListResult> {
                self.0.list_with_delimiter(prefix).await
            }
            async fn copy_opts(
                &self,
                from: &Path,
                to: &Path,
                options: object_store::CopyOptions,
            ) -> object_store::Result<()> {
                self.0.copy_opts(from, to, options).await
            }
        }
        let root = Arc::new(Careless(object_store::memory::InMemory::new()));
        let store = Store::new(root, Url::parse("memory:///lake").unwrap()).unwrap();
        let error = store.probe_conditional_put("probe").await.unwrap_err();
        assert_eq!(error.code, "store.no_conditional_put");
    }

    #[test]
    fn unknown_schemes_are_refused() {
        let error = Store::open("ftp://x/y", &S3Config::default()).unwrap_err();
        assert_eq!(error.code, "store.unknown");
    }

    #[test]
    fn names_become_safe_and_stay_apart() {
        assert_eq!(safe_name("orders_2.x"), "orders_2.x");
        assert_eq!(safe_name("_a/b ü"), "=5Fa=2Fb=20=C3=BC");
        assert_ne!(safe_name("a=20b"), safe_name("a b"));
    }
}
