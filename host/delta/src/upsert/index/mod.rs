//! The keys of data files: in memory within a bound, on local disk beyond it. A data file never changes, so neither do its
//! keys, and they can be read again from the file whenever they are wanted.

mod exact;
mod mapped;
pub(crate) mod measure;
pub(crate) mod packed;
pub(crate) mod sets;
pub(crate) mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_core::{Error, Result};
use tokio::task::JoinHandle;

pub(crate) use self::exact::{Asked, Exact};
pub(crate) use self::packed::FileKeys;
use self::sets::{KeySet, covered};
use self::shelf::{Covered, Disk, Shelf};
use crate::config::{DeltaConfig, IndexKind};
use crate::log::actions::Add;

/// What a row's key takes, rounded up; for plans.
pub(crate) const BYTES_A_ROW: u64 = 10;
/// What it takes while the keys of a file are read and sorted.
const BYTES_A_ROW_READ: u64 = 28;

#[derive(Debug)]
struct Slot {
    keys: Arc<FileKeys>,
    used: u64,
    /// Bytes of the data file.
    size: u64,
    shelf: Option<Arc<Shelf>>,
}

/// A file: its table's place, and its path.
type FileId = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<FileId, Slot>,
    /// Those that take memory, by when they were used last.
    ages: BTreeMap<u64, FileId>,
    /// Of memory, less what is being written to disk.
    bytes: usize,
    clock: u64,
}

impl Inner {
    fn remove(&mut self, id: &FileId) {
        if let Some(slot) = self.slots.remove(id)
            && self.ages.remove(&slot.used).is_some()
        {
            self.bytes -= slot.keys.memory();
        }
    }

    fn put(&mut self, id: FileId, mut slot: Slot) {
        self.remove(&id);
        self.clock += 1;
        slot.used = self.clock;
        if slot.keys.memory() > 0 {
            self.bytes += slot.keys.memory();
            self.ages.insert(slot.used, id.clone());
        }
        self.slots.insert(id, slot);
    }
}

/// Keys that had to make room: they stay in their slot until they are on disk.
#[derive(Debug)]
struct Evicted {
    id: FileId,
    keys: Arc<FileKeys>,
    size: u64,
    shelf: Arc<Shelf>,
}

/// The keys of the files of all tables, within a bound.
#[derive(Debug)]
pub(crate) struct KeyCache {
    /// Bytes.
    bound: usize,
    disk: Option<Arc<Disk>>,
    /// Whether sets are merged.
    exact: bool,
    inner: Mutex<Inner>,
}

impl KeyCache {
    pub(crate) fn new(config: &DeltaConfig) -> Self {
        let bound = usize::try_from(config.index_memory).unwrap_or(usize::MAX);
        let folder = config.index_dir.as_ref().filter(|_| config.index_disk > 0);
        let disk = folder.map(|folder| Arc::new(Disk::new(folder.clone(), config.index_disk)));
        Self { bound, disk, exact: config.index == IndexKind::Exact, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics between two changes that belong together, and what it holds can be read again.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &FileId) -> Option<Arc<FileKeys>> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let slot = inner.slots.get_mut(id)?;
        let before = std::mem::replace(&mut slot.used, now);
        let keys = Arc::clone(&slot.keys);
        if inner.ages.remove(&before).is_some() {
            inner.ages.insert(now, id.clone());
        }
        Some(keys)
    }

    /// Whether keys of `rows` rows would be kept in memory if they were built now. A cut that looks at more files than fit
    /// would otherwise throw out each just before it is wanted again: what was used since `since` stays.
    fn would_keep(&self, rows: u64, since: u64) -> bool {
        let wanted = usize::try_from(rows.saturating_mul(BYTES_A_ROW)).unwrap_or(usize::MAX);
        let inner = self.lock();
        let old = inner.ages.range(..=since).filter_map(|(_, id)| inner.slots.get(id));
        let old: usize = old.map(|slot| slot.keys.memory()).sum();
        (inner.bytes - old).saturating_add(wanted) <= self.bound
    }

    /// Keeps keys in memory where there is room, or where what is older than `since` makes room. What went is answered.
    fn insert(&self, id: FileId, slot: Slot, since: u64) -> Vec<Evicted> {
        let mut inner = self.lock();
        inner.put(id.clone(), slot);
        let mut evicted = Vec::new();
        while inner.bytes > self.bound {
            let oldest = inner.ages.first_key_value().filter(|(used, _)| **used <= since).map(|(_, id)| id.clone());
            let went = oldest.unwrap_or_else(|| id.clone());
            evicted.extend(evict(&mut inner, &went));
            if went == id {
                break;
            }
        }
        metrics::gauge!("millrace_delta_index_bytes").set(inner.bytes as f64);
        evicted
    }

    /// Keys that were evicted are on disk now, or nowhere.
    fn settle(&self, evicted: &Evicted, mapped: Option<FileKeys>) {
        let mut inner = self.lock();
        let is_there = inner.slots.get(&evicted.id).is_some_and(|slot| Arc::ptr_eq(&slot.keys, &evicted.keys));
        match (is_there, mapped) {
            (true, Some(keys)) => {
                let (size, shelf) = (evicted.size, Some(Arc::clone(&evicted.shelf)));
                inner.put(evicted.id.clone(), Slot { keys: Arc::new(keys), used: 0, size, shelf });
            }
            (true, None) => inner.remove(&evicted.id),
            // The file left its table meanwhile.
            (false, _) => evicted.shelf.forget(&evicted.id.1),
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

fn evict(inner: &mut Inner, id: &FileId) -> Option<Evicted> {
    metrics::counter!("millrace_delta_index_evictions_total").increment(1);
    let slot = inner.slots.get(id)?;
    let (keys, size, used) = (Arc::clone(&slot.keys), slot.size, slot.used);
    let Some(shelf) = slot.shelf.clone().filter(|shelf| shelf.has_room(keys.len())) else {
        inner.remove(id);
        return None;
    };
    if inner.ages.remove(&used).is_some() {
        inner.bytes -= keys.memory();
    }
    Some(Evicted { id: id.clone(), keys, size, shelf })
}

/// One table's way to the keys of its files.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    cache: Arc<KeyCache>,
    /// The table's place.
    table: Arc<str>,
    /// On disk; `None` before it was opened, and without a disk.
    shelf: Option<Arc<Shelf>>,
}

impl Home {
    pub(crate) fn new(cache: Arc<KeyCache>, table: Arc<str>) -> Self {
        Self { cache, table, shelf: None }
    }

    /// Finds what is on disk from earlier runs, and removes what is of no use any more. `key`: of which form the codes are.
    pub(crate) async fn open(&mut self, key: String, files: &[Arc<Add>]) -> Result<Exact> {
        let Some(disk) = self.cache.disk.clone() else { return Ok(Exact::default()) };
        let live: HashMap<String, u64> = files.iter().map(|add| (add.path.clone(), add.size)).collect();
        let (table, exact) = (Arc::clone(&self.table), self.cache.exact);
        let open = move || {
            let (shelf, mut stored) = Shelf::open(disk, &table, key);
            let is_live = |f: &Covered| live.get(&*f.path).is_some_and(|size| *size == f.size);
            // The largest first: a host that died before it removed what it had merged left both.
            stored.sort_by_key(|(_, files)| std::cmp::Reverse(files.iter().filter(|f| is_live(f)).count()));
            let mut sets = Vec::new();
            let mut covered: HashSet<Arc<str>> = HashSet::new();
            for (name, files) in stored {
                let is_new = |f: &Covered| is_live(f) && !covered.contains(&f.path);
                if !files.iter().any(is_new) || (files.len() > 1 && !exact) {
                    shelf.remove(&name);
                } else if files.len() > 1
                    && let Some((files, keys)) = shelf.open_file(&name)
                {
                    covered.extend(files.iter().map(|f| Arc::clone(&f.path)));
                    sets.push(KeySet::new(name, files, keys));
                }
            }
            (shelf, Exact::of(sets))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let (shelf, sets) = opened.map_err(|e| Error::bug(format!("opening the index ended: {e}")))?;
        self.shelf = Some(Arc::new(shelf));
        Ok(sets)
    }

    fn id(&self, path: &str) -> FileId {
        (Arc::clone(&self.table), path.into())
    }

    /// A moment: what was used after it is not evicted for what comes after it.
    pub(crate) fn now(&self) -> u64 {
        self.cache.lock().clock
    }

    pub(crate) fn get(&self, path: &str) -> Option<Arc<FileKeys>> {
        self.cache.get(&self.id(path))
    }

    /// As [`Home::get`], without being a use.
    fn peek(&self, path: &str) -> Option<Arc<FileKeys>> {
        self.cache.lock().slots.get(&self.id(path)).map(|slot| Arc::clone(&slot.keys))
    }

    /// Keys that an earlier run, or this one, put on disk.
    pub(crate) async fn load(&self, add: &Add) -> Result<Option<Arc<FileKeys>>> {
        let Some(shelf) = self.shelf.clone().filter(|shelf| shelf.has(&add.path)) else { return Ok(None) };
        let (path, size) = (add.path.clone(), add.size);
        let read = tokio::task::spawn_blocking(move || shelf.read(&path, size)).await;
        let read = read.map_err(|e| Error::bug(format!("reading the index ended: {e}")))?;
        Ok(read.map(|keys| self.put(add, Arc::new(keys))))
    }

    /// Whether the keys of a file of so many rows can be kept, be it on disk.
    pub(crate) fn would_keep(&self, rows: u64, since: u64) -> bool {
        let on_disk = || self.shelf.as_ref().is_some_and(|shelf| shelf.has_room(rows));
        let readable = || rows.saturating_mul(BYTES_A_ROW_READ) <= self.cache.bound as u64;
        self.cache.would_keep(rows, since) || (readable() && on_disk())
    }

    fn put(&self, add: &Add, keys: Arc<FileKeys>) -> Arc<FileKeys> {
        let slot = Slot { keys: Arc::clone(&keys), used: 0, size: add.size, shelf: self.shelf.clone() };
        self.cache.lock().put(self.id(&add.path), slot);
        keys
    }

    /// Keeps the keys of a file: in memory where what was used before `since` makes room, else on disk. Whoever need not
    /// wait for the disk drops the answer: what is being written stays where it is until it is done.
    pub(crate) fn insert(&self, add: &Add, keys: &Arc<FileKeys>, since: u64) -> Option<JoinHandle<()>> {
        let slot = Slot { keys: Arc::clone(keys), used: 0, size: add.size, shelf: self.shelf.clone() };
        let evicted = self.cache.insert(self.id(&add.path), slot, since);
        let cache = Arc::clone(&self.cache);
        (!evicted.is_empty()).then(|| tokio::task::spawn_blocking(move || spill(&cache, evicted)))
    }

    /// The file is gone from its table, or its keys are elsewhere.
    pub(crate) fn forget(&self, path: &str) {
        self.cache.lock().remove(&self.id(path));
        if let Some(shelf) = &self.shelf {
            shelf.forget(path);
        }
    }
}

fn spill(cache: &KeyCache, evicted: Vec<Evicted>) {
    for one in evicted {
        let covered = covered(Arc::clone(&one.id.1), one.size, &one.keys);
        let written = one.shelf.write(&[covered], |put| put(one.keys.packed()));
        cache.settle(&one, written.map(|(_, keys)| keys));
    }
}
