//! Keys on local disk: files that never change, named by the data files whose keys they hold.
//!
//! Nothing here is the only copy of anything, so a file that is not whole is said, counted, removed and made anew from the
//! table. Layout, numbers in little endian: `MILLKEYS`, version (4), length of the header (4), the header (JSON), what
//! [`super::packed`] packs, CRC-32 of all before it (4).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::mapped::map;
use super::packed::{FileKeys, Shape};
use crate::upsert::keys::hash;

const MAGIC: &[u8; 8] = b"MILLKEYS";
/// Of the layout and of the codes: another one is made anew.
const VERSION: u32 = 1;
const PREFIX: usize = MAGIC.len() + 8;
const SUFFIX: &str = "keys";

/// A folder for the keys of all tables, and how much may be in it.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// Bytes.
    limit: u64,
    used: AtomicU64,
    /// A file could not be written, and it was said.
    said: AtomicBool,
}

/// A data file whose keys are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    /// As the log has it.
    pub path: Arc<str>,
    pub size: u64,
    /// Row numbers are below.
    pub rows: u64,
    /// Rows that have a key.
    pub entries: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    table: Arc<str>,
    /// Names and types of the key columns.
    key: String,
    files: Vec<Covered>,
}

/// The part of the folder that one table has.
#[derive(Debug)]
pub(crate) struct Shelf {
    disk: Arc<Disk>,
    folder: PathBuf,
    table: Arc<str>,
    key: String,
    /// Bytes of each file, by name.
    stored: Mutex<HashMap<String, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// `limit`: bytes of all files together.
    pub(crate) fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit, used: AtomicU64::new(0), said: AtomicBool::new(false) }
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit
    }

    fn note(&self, more: u64, less: u64) {
        let before = self.used.fetch_add(more.wrapping_sub(less), Ordering::Relaxed);
        metrics::gauge!("millrace_delta_index_disk_bytes").set((before + more).saturating_sub(less) as f64);
    }
}

/// Where the keys of these data files lie.
fn name_of<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = paths.collect();
    let digest = hash(all.join("\n").as_bytes());
    format!("{digest:016x}.{SUFFIX}")
}

impl Shelf {
    /// Looks at what is there: answers it with the data files that each covers. `key`: of which form the codes are.
    pub(crate) fn open(disk: Arc<Disk>, table: &Arc<str>, key: String) -> (Self, Vec<(String, Vec<Covered>)>) {
        let folder = disk.root.join(format!("{:016x}", hash(table.as_bytes())));
        let shelf = Self { disk, folder, table: Arc::clone(table), key, stored: Mutex::default() };
        let mut found = Vec::new();
        for entry in fs::read_dir(&shelf.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = entry.metadata().map_or(0, |m| m.len());
            if !name.ends_with(SUFFIX) {
                // What a killed host was writing.
                remove(&entry.path());
                continue;
            }
            lock(&shelf.stored).insert(name.clone(), bytes);
            shelf.disk.note(bytes, 0);
            match File::open(entry.path()).map_err(|e| e.to_string()).and_then(|file| shelf.header(&file)) {
                Ok((header, _)) => found.push((name, header.files)),
                Err(why) => shelf.reject(&name, &why),
            }
        }
        (shelf, found)
    }

    /// Whether the keys of this data file, alone, are here.
    pub(crate) fn has(&self, path: &str) -> bool {
        lock(&self.stored).contains_key(&name_of([path].into_iter()))
    }

    /// Whether so many entries may be written.
    pub(crate) fn has_room(&self, entries: u64) -> bool {
        self.disk.has_room(entries.saturating_mul(super::BYTES_A_ROW))
    }

    /// The keys of one data file; `None` where they are not here or not whole.
    pub(crate) fn read(&self, path: &str, size: u64) -> Option<FileKeys> {
        let name = name_of([path].into_iter());
        let (files, keys) = self.open_file(&name)?;
        match files.as_slice() {
            [file] if *file.path == *path && file.size == size => Some(keys),
            _ => {
                self.reject(&name, "it is of another data file");
                None
            }
        }
    }

    /// What is in a file; `None` where it is not here or not whole.
    pub(super) fn open_file(&self, name: &str) -> Option<(Vec<Covered>, FileKeys)> {
        if !lock(&self.stored).contains_key(name) {
            return None;
        }
        match self.whole(name) {
            Ok(found) => Some(found),
            Err(why) => {
                self.reject(name, &why);
                None
            }
        }
    }

    fn whole(&self, name: &str) -> Result<(Vec<Covered>, FileKeys), String> {
        let file = File::open(self.folder.join(name)).map_err(|e| e.to_string())?;
        let (header, start) = self.header(&file)?;
        let all = map(&file).map_err(|e| e.to_string())?;
        let end = all.len().checked_sub(4).filter(|end| *end >= start).ok_or("it is cut short")?;
        if crc32fast::hash(&all[..end]).to_le_bytes() != all[end..] {
            return Err("its checksum is not that of its bytes".into());
        }
        let shape = shape_of(&header.files);
        let keys = FileKeys::mapped(shape, all.slice(start..end)).ok_or("its length is another one")?;
        Ok((header.files, keys))
    }

    /// Answers where the keys begin, too.
    fn header(&self, mut file: &File) -> Result<(Header, usize), String> {
        let short = |e: io::Error| match e.kind() {
            ErrorKind::UnexpectedEof => "it is cut short".to_owned(),
            _ => e.to_string(),
        };
        let mut prefix = [0; PREFIX];
        file.read_exact(&mut prefix).map_err(short)?;
        let number = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        if &prefix[..MAGIC.len()] != MAGIC {
            return Err("it is no file of keys".into());
        }
        if number(MAGIC.len()) != VERSION {
            return Err(format!("it is of version {}, and this host writes {VERSION}", number(MAGIC.len())));
        }
        let length = u64::from(number(MAGIC.len() + 4));
        let mut text = Vec::new();
        file.take(length).read_to_end(&mut text).map_err(short)?;
        let header: Header = serde_json::from_slice(&text).map_err(|e| format!("its header: {e}"))?;
        if header.table != self.table || header.key != self.key {
            return Err(format!("it is of ({}) of {}", header.key, header.table));
        }
        Ok((header, PREFIX + text.len()))
    }

    /// Writes the keys of these data files; they are there, and mapped, when this answers. `fill` hands over what
    /// [`super::packed::Packer`] makes, piece by piece.
    pub(crate) fn write(
        &self,
        files: &[Covered],
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> Option<(String, FileKeys)> {
        let name = name_of(files.iter().map(|f| &*f.path));
        match self.try_write(&name, files, fill) {
            Ok(keys) => Some((name, keys)),
            Err(error) => {
                metrics::counter!("millrace_delta_index_write_failures_total").increment(1);
                if !self.disk.said.swap(true, Ordering::Relaxed) {
                    let folder = self.folder.display();
                    tracing::warn!(%folder, %error, "keys can not be kept on disk; those that do not fit in memory are read from the table");
                }
                None
            }
        }
    }

    fn try_write(
        &self,
        name: &str,
        files: &[Covered],
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<FileKeys> {
        let header = Header { table: Arc::clone(&self.table), key: self.key.clone(), files: files.to_vec() };
        let header = serde_json::to_vec(&header)?;
        // Of this user alone: codes of short keys are keys.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join(name);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let staged = path.with_extension(format!("{}-{number}.new", std::process::id()));
        let written = write_file(&staged, &header, fill).and_then(|bytes| fs::rename(&staged, &path).map(|()| bytes));
        let bytes = written.inspect_err(|_| remove(&staged))?;
        let before = lock(&self.stored).insert(name.to_owned(), bytes);
        self.disk.note(bytes, before.unwrap_or(0));
        let start = PREFIX + header.len();
        let all = map(&File::open(&path)?)?;
        let keys = FileKeys::mapped(shape_of(files), all.slice(start..all.len() - 4));
        keys.ok_or_else(|| io::Error::other("the length of packed keys is another one"))
    }

    /// The keys of one data file are of no more use.
    pub(crate) fn forget(&self, path: &str) {
        self.remove(&name_of([path].into_iter()));
    }

    pub(super) fn remove(&self, name: &str) {
        if let Some(bytes) = lock(&self.stored).remove(name) {
            self.disk.note(0, bytes);
            remove(&self.folder.join(name));
        }
    }

    fn reject(&self, name: &str, why: &str) {
        let file = self.folder.join(name);
        let file = file.display();
        tracing::warn!(table = %self.table, %file, why, "a file of keys is not used; it is made anew from the table");
        metrics::counter!("millrace_delta_index_rejected_total", "table" => self.table.to_string()).increment(1);
        self.remove(name);
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.disk.note(0, lock(&self.stored).values().sum());
    }
}

/// How the keys of these files are packed.
pub(super) fn shape_of(files: &[Covered]) -> Shape {
    Shape::new(files.iter().map(|f| f.entries).sum(), files.iter().map(|f| f.rows).sum())
}

fn write_file(
    path: &Path,
    header: &[u8],
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 4);
    let mut put = |piece: &[u8]| {
        crc.update(piece);
        bytes += piece.len() as u64;
        file.write_all(piece)
    };
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    put(MAGIC)?;
    put(&VERSION.to_le_bytes())?;
    put(&length.to_le_bytes())?;
    put(header)?;
    fill(&mut put)?;
    file.write_all(&crc.finalize().to_le_bytes())?;
    // Before it has its name: after a power cut it is whole or not there.
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(bytes)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a file of keys stays behind");
    }
}
