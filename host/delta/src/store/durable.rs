//! The local file system as an object store whose writes are durable when they return.
//!
//! `object_store`'s own local store never calls fsync, so an acknowledged commit could vanish with
//! the power. Here every object is written to a hidden file beside its place, synced, published by
//! an atomic link or rename, and its directory synced (design, section 3, rule 7).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// A sync that the operating system refused: whether the bytes will survive is unknown, and asking
/// again would not tell (Linux reports such an error once).
#[derive(Debug, thiserror::Error)]
#[error("{path}: sync: {source}")]
pub(crate) struct NotDurable {
    path: String,
    source: io::Error,
}

/// `object_store`'s local store, with durable writes.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    inner: LocalFileSystem,
}

impl DurableLocal {
    /// The whole file system: locations are absolute paths without their first slash.
    pub(crate) fn new() -> Self {
        Self { inner: LocalFileSystem::new() }
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable {}", self.inner)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn io_error(path: &FsPath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: "local", source: source.into() },
    }
}

fn not_durable(path: &FsPath, source: io::Error) -> Error {
    let cause = NotDurable { path: path.display().to_string(), source };
    Error::Generic { store: "local", source: Box::new(cause) }
}

fn parent(path: &FsPath) -> &FsPath {
    path.parent().unwrap_or(FsPath::new("/"))
}

/// Makes what was published in `directory` durable.
pub(crate) fn sync_directory(directory: &FsPath) -> Result<()> {
    let handle = File::open(directory).map_err(|e| io_error(directory, e))?;
    handle.sync_all().map_err(|e| not_durable(directory, e))
}

/// Syncs a file that another process may have published just before it died.
pub(crate) fn sync_published(path: &FsPath) -> Result<()> {
    let handle = File::open(path).map_err(|e| io_error(path, e))?;
    handle.sync_all().map_err(|e| not_durable(path, e))?;
    sync_directory(parent(path))
}

fn create_directories(directory: &FsPath) -> Result<()> {
    let mut missing: Vec<&FsPath> = Vec::new();
    let mut ancestor = directory;
    while !ancestor.exists() {
        missing.push(ancestor);
        ancestor = parent(ancestor);
    }
    for made in missing.into_iter().rev() {
        match fs::create_dir(made) {
            Ok(()) => sync_directory(parent(made))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io_error(made, e)),
        }
    }
    Ok(())
}

/// A hidden file beside `path`: listings of the local store leave out names that end in `#digits`.
fn stage(path: &FsPath) -> Result<(File, PathBuf)> {
    for attempt in 1u64.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{attempt}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == ErrorKind::NotFound => create_directories(parent(path))?,
            Err(e) => return Err(io_error(&staged, e)),
        }
    }
    unreachable!("the numbers of staged files do not run out")
}

/// Syncs and publishes a staged file. `create` refuses an existing object, atomically.
fn publish(file: &File, staged: &FsPath, path: &FsPath, create: bool) -> Result<()> {
    file.sync_all().map_err(|e| match e.kind() {
        // Delayed allocation reports a full disk at the sync; nothing was published yet.
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => io_error(staged, e),
        _ => not_durable(staged, e),
    })?;
    if create {
        fs::hard_link(staged, path).map_err(|e| io_error(path, e))?;
        remove_staged(staged);
    } else {
        fs::rename(staged, path).map_err(|e| io_error(path, e))?;
    }
    sync_directory(parent(path))
}

fn remove_staged(staged: &FsPath) {
    if let Err(error) = fs::remove_file(staged) {
        tracing::debug!(path = %staged.display(), %error, "a staged file stays behind");
    }
}

fn put(path: &FsPath, payload: &PutPayload, create: bool) -> Result<()> {
    let (mut file, staged) = stage(path)?;
    let written = payload
        .iter()
        .try_for_each(|chunk| file.write_all(chunk))
        .map_err(|e| io_error(&staged, e))
        .and_then(|()| publish(&file, &staged, path, create));
    if written.is_err() && staged.exists() {
        remove_staged(&staged);
    }
    written
}

/// Parts are written at their offset as they come; completion syncs and publishes.
#[derive(Debug)]
struct DurableUpload {
    file: Arc<File>,
    staged: PathBuf,
    path: PathBuf,
    offset: u64,
    published: bool,
}

/// An upload that nobody completes leaves nothing behind.
impl Drop for DurableUpload {
    fn drop(&mut self) {
        if !self.published {
            remove_staged(&self.staged);
        }
    }
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, staged, mut offset) = (Arc::clone(&self.file), self.staged.clone(), self.offset);
        self.offset += data.content_length() as u64;
        blocking(move || {
            for chunk in data.iter() {
                file.write_all_at(chunk, offset).map_err(|e| io_error(&staged, e))?;
                offset += chunk.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (file, staged, path) = (Arc::clone(&self.file), self.staged.clone(), self.path.clone());
        blocking(move || publish(&file, &staged, &path, false)).await?;
        self.published = true;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.published = true;
        let staged = self.staged.clone();
        blocking(move || fs::remove_file(&staged).map_err(|e| io_error(&staged, e))).await
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put of a known version".into(),
                    implementer: self.to_string(),
                });
            }
        };
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || put(&path, &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || {
            let (file, staged) = stage(&path)?;
            let upload = DurableUpload { file: Arc::new(file), staged, path, offset: 0, published: false };
            Ok(Box::new(upload) as Box<dyn MultipartUpload>)
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let create = matches!(options.mode, CopyMode::Create);
        let (from, to) = (self.inner.path_to_filesystem(from)?, self.inner.path_to_filesystem(to)?);
        blocking(move || {
            let bytes = fs::read(&from).map_err(|e| io_error(&from, e))?;
            put(&to, &PutPayload::from(bytes), create)
        })
        .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let target = self.inner.path_to_filesystem(to)?;
        self.inner.rename_opts(from, to, options).await?;
        blocking(move || sync_published(&target)).await
    }
}
