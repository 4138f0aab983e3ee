//! Where the rows of some keys are: the statistics of files and row groups first, then the keys of each file; a hash only
//! filters, the key itself decides.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use futures::TryStreamExt;
use millrace_core::{Error, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use roaring::RoaringTreemap;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bounds::{Facts, facts};
use super::index::{Asked, Exact, FileKeys, Home, KeyCache};
use super::keys::{Bounds, Keys, SharedForm, escape, integer, long};
use crate::file::reader::{FileReader, Rows};
use crate::log::Table;
use crate::log::actions::Add;
use crate::log::deletion_vectors;
use crate::log::schema::{DeltaType, Field};
use crate::store::Store;

/// Files whose keys are read at a time. Decoding is work for a core, and each file in work holds 28 bytes a row.
const MAX_READ_AT_ONCE: usize = 4;

/// Keys to look for, each once.
#[derive(Debug)]
pub(crate) struct Wanted {
    form: SharedForm,
    /// Sorted: those that a file's bounds admit stand together.
    keys: Vec<Box<[u8]>>,
    codes: Vec<u64>,
    /// From a code to its keys' places.
    by_code: FileKeys,
}

impl Wanted {
    pub(crate) fn new(form: &SharedForm, mut keys: Vec<Box<[u8]>>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        let codes: Vec<u64> = keys.iter().map(|key| form.code(key)).collect();
        let by_code = FileKeys::build(codes.iter().copied().zip(0..).collect());
        Self { form: Arc::clone(form), keys, codes, by_code }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn place(&self, key: &[u8]) -> Option<u32> {
        self.keys.binary_search_by(|k| (**k).cmp(key)).ok().map(|i| i as u32)
    }

    /// Places of the keys that may be within these bounds.
    fn within(&self, bounds: Option<&Bounds>) -> std::ops::Range<usize> {
        let Some(bounds) = bounds else { return 0..self.keys.len() };
        let first = self.keys.partition_point(|key| self.form.compare(key, bounds).is_lt());
        let last = self.keys.partition_point(|key| self.form.compare(key, bounds).is_le());
        first..last.max(first)
    }

    /// Rows of a file whose code is that of a wanted key.
    fn probe(&self, keys: &FileKeys, range: std::ops::Range<usize>) -> Vec<Hit> {
        let mut hits = Vec::new();
        for place in range {
            hits.extend(keys.find(self.codes[place]).map(|row| Hit { row: row as u32, key: place as u32 }));
        }
        hits
    }
}

/// A row of a file that has a wanted key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    pub row: u32,
    /// Its place in [`Wanted::keys`].
    pub key: u32,
}

/// A file with rows of wanted keys, each row once, ascending.
#[derive(Debug)]
pub(crate) struct Found {
    pub add: Arc<Add>,
    pub hits: Vec<Hit>,
}

/// What is known of a table's files, beyond the log. Everything here can be read again.
#[derive(Debug)]
pub(crate) struct Target {
    pub store: Store,
    pub form: SharedForm,
    pub keys: Home,
    /// `None` before the first look.
    exact: Option<Exact>,
    facts: HashMap<Arc<str>, Arc<Facts>>,
    /// By path: the vector's id, and the rows that are gone.
    gone: HashMap<Arc<str>, (String, Arc<RoaringTreemap>)>,
}

/// One file to look into.
struct Lookup {
    store: Store,
    form: SharedForm,
    add: Arc<Add>,
    wanted: Arc<Wanted>,
    range: std::ops::Range<usize>,
    keys: Home,
    since: u64,
}

impl Target {
    pub(crate) fn new(store: Store, form: SharedForm, cache: Arc<KeyCache>) -> Self {
        let keys = Home::new(cache, store.location().into());
        Self { store, form, keys, exact: None, facts: HashMap::new(), gone: HashMap::new() }
    }

    pub(crate) fn facts(&mut self, add: &Add) -> Arc<Facts> {
        if let Some(known) = self.facts.get(add.path.as_str()) {
            return Arc::clone(known);
        }
        let found = Arc::new(facts(add, &self.form));
        self.facts.insert(add.path.as_str().into(), Arc::clone(&found));
        found
    }

    /// Forgets files that the table no longer has.
    pub(crate) fn keep(&mut self, has: impl Fn(&str) -> bool) {
        let keys = &self.keys;
        self.facts.retain(|path, _| {
            let stays = has(path);
            if !stays {
                keys.forget(path);
            }
            stays
        });
        self.gone.retain(|path, _| has(path));
        if let Some(exact) = &mut self.exact {
            exact.keep(&self.keys, &has);
        }
    }

    /// Rows of `add` that are gone.
    pub(crate) async fn gone(
        &mut self,
        add: &Add,
        reader: &mut deletion_vectors::Reader,
    ) -> Result<Arc<RoaringTreemap>> {
        let Some(dv) = &add.deletion_vector else { return Ok(Arc::default()) };
        let id = dv.unique_id();
        if let Some((known, rows)) = self.gone.get(add.path.as_str())
            && *known == id
        {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(reader.read(&self.store, add).await?);
        self.note_gone(&add.path, id, &rows);
        Ok(rows)
    }

    pub(crate) fn note_gone(&mut self, path: &str, id: String, rows: &Arc<RoaringTreemap>) {
        self.gone.insert(path.into(), (id, Arc::clone(rows)));
    }

    /// The exact index; what is on disk is looked at once.
    async fn index(&mut self, files: &[Arc<Add>]) -> Result<&mut Exact> {
        let opened = match self.exact.take() {
            Some(known) => known,
            None => self.keys.open(self.form.shown(), files).await?,
        };
        Ok(self.exact.insert(opened))
    }

    /// Merges keys beside the stream. `turn`: held while it is done.
    pub(crate) fn merge_keys(&mut self, table: &Table, turn: &Arc<Semaphore>) {
        if let (Some(exact), Some(files)) = (&mut self.exact, table.state().and_then(|s| s.files.as_ref())) {
            let files: Vec<Arc<Add>> = files.iter().cloned().collect();
            exact.advance(&self.keys, table.environment(), &files, turn);
        }
    }

    /// The rows of `wanted` in these files, less those that are gone.
    pub(crate) async fn locate(&mut self, wanted: &Arc<Wanted>, files: &[Arc<Add>]) -> Result<Vec<Found>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let maybe = self.probe(wanted, files).await?;
        let mut reader = deletion_vectors::Reader::default();
        let mut found = Vec::with_capacity(maybe.len());
        for (add, mut hits) in maybe {
            let gone = self.gone(&add, &mut reader).await?;
            hits.retain(|hit| !gone.contains(u64::from(hit.row)));
            hits.sort_unstable();
            if !hits.is_empty() {
                found.push(Found { add, hits });
            }
        }
        if !self.form.is_exact() {
            found = verified(&self.store, wanted, found).await?;
        }
        Ok(found)
    }

    /// Rows that may have a wanted key, by code.
    async fn probe(&mut self, wanted: &Arc<Wanted>, files: &[Arc<Add>]) -> Result<Vec<(Arc<Add>, Vec<Hit>)>> {
        let mut asked = Asked::new();
        for add in files {
            let range = wanted.within(self.facts(add).bounds.as_ref());
            if !range.is_empty() {
                asked.insert(&add.path, (add, range));
            }
        }
        let since = self.keys.now();
        let found = self.index(files).await?.find(&wanted.codes, &mut asked);
        let hit = |(row, key)| Hit { row, key };
        let mut maybe: Vec<(Arc<Add>, Vec<Hit>)> =
            found.into_iter().map(|(add, rows)| (add, rows.into_iter().map(hit).collect())).collect();
        let mut unread = Vec::new();
        for (add, range) in asked.into_values() {
            match self.keys.get(&add.path) {
                Some(keys) => maybe.push((Arc::clone(add), wanted.probe(&keys, range))),
                None => unread.push(Lookup {
                    store: self.store.clone(),
                    form: Arc::clone(&self.form),
                    add: Arc::clone(add),
                    wanted: Arc::clone(wanted),
                    range,
                    keys: self.keys.clone(),
                    since,
                }),
            }
        }
        let mut unread = unread.into_iter();
        let mut reading = JoinSet::new();
        unread.by_ref().take(MAX_READ_AT_ONCE).for_each(|file| drop(reading.spawn(file.look())));
        while let Some(done) = reading.join_next().await {
            maybe.push(done.map_err(|e| Error::bug(format!("reading keys ended: {e}")))??);
            unread.by_ref().take(1).for_each(|file| drop(reading.spawn(file.look())));
        }
        maybe.retain(|(_, hits)| !hits.is_empty());
        maybe.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        Ok(maybe)
    }
}

impl Lookup {
    async fn look(self) -> Result<(Arc<Add>, Vec<Hit>)> {
        if let Some(keys) = self.keys.load(&self.add).await? {
            let hits = self.wanted.probe(&keys, self.range);
            return Ok((self.add, hits));
        }
        let reader = FileReader::open(&self.store, &self.add).await?;
        let hits = if self.keys.would_keep(reader.rows(), self.since) {
            let keys = Arc::new(file_keys(reader, &self.form).await?);
            let writing = self.keys.insert(&self.add, &keys, self.since);
            let hits = self.wanted.probe(&keys, self.range);
            if let Some(writing) = writing {
                writing.await.map_err(|e| Error::bug(format!("writing the index ended: {e}")))?;
            }
            hits
        } else {
            metrics::counter!("millrace_delta_key_scans_total").increment(1);
            scan(reader, &self.wanted).await?
        };
        Ok((self.add, hits))
    }
}

/// Reads the keys of a whole file.
pub(crate) async fn file_keys(reader: FileReader, form: &SharedForm) -> Result<FileKeys> {
    let mut pairs = Vec::with_capacity(usize::try_from(reader.rows()).unwrap_or_default());
    let mut first = 0u32;
    let mut batches = reader.read(&form.fields, Rows::All)?;
    while let Some(columns) = batches.try_next().await? {
        first = note(&mut pairs, form, &columns, first)?;
    }
    // Sorting some million pairs takes long enough to hold up others on this thread.
    tokio::task::spawn_blocking(move || FileKeys::build(pairs)).await.map_err(|e| Error::bug(e.to_string()))
}

fn note(pairs: &mut Vec<(u64, u32)>, form: &SharedForm, columns: &[ArrayRef], first: u32) -> Result<u32> {
    let keys = form.encode(columns)?;
    note_keys(pairs, form, &keys, first);
    first.checked_add(keys.len() as u32).ok_or_else(|| Error::bug("a data file of more than four billion rows"))
}

/// Codes of keys, for rows from `first` on.
pub(crate) fn note_keys(pairs: &mut Vec<(u64, u32)>, form: &SharedForm, keys: &Keys, first: u32) {
    pairs
        .extend((0..keys.len()).filter(|row| keys.has(*row)).map(|row| (form.code(keys.get(row)), first + row as u32)));
}

/// Goes through the keys of a file without keeping them.
async fn scan(reader: FileReader, wanted: &Wanted) -> Result<Vec<Hit>> {
    let form = &wanted.form;
    let mut starts = Vec::new();
    let mut groups = Vec::new();
    let mut start = 0u32;
    for (index, group) in reader.metadata().row_groups().iter().enumerate() {
        let rows = group.num_rows() as u32;
        let bounds = form.fields.first().and_then(|field| group_bounds(group, field));
        if !wanted.within(bounds.as_ref()).is_empty() {
            groups.push(index);
            starts.push((start, rows));
        }
        start += rows;
    }
    let mut hits = Vec::new();
    let mut starts = starts.into_iter();
    let mut group = starts.next();
    let mut passed = 0;
    let mut batches = reader.read(&form.fields, Rows::Groups(groups))?;
    while let Some(columns) = batches.try_next().await? {
        let keys = form.encode(&columns)?;
        for row in 0..keys.len() {
            while let Some((_, rows)) = group.filter(|(_, rows)| passed == *rows) {
                passed -= rows;
                group = starts.next();
            }
            let first = group.map_or(0, |(first, _)| first);
            if keys.has(row) {
                let places = wanted.by_code.find(form.code(keys.get(row)));
                hits.extend(places.map(|place| Hit { row: first + passed, key: place as u32 }));
            }
            passed += 1;
        }
    }
    Ok(hits)
}

/// Least and greatest value of a row group's first key column, where its type leaves no doubt.
fn group_bounds(group: &RowGroupMetaData, field: &Field) -> Option<Bounds> {
    let column = group.columns().iter().find(|c| c.column_descr().path().parts() == [field.name.as_str()])?;
    let statistics = column.statistics()?;
    let (least, greatest) = match (statistics, &field.ty) {
        (Statistics::Int32(s), DeltaType::Integer | DeltaType::Date) => {
            (integer(*s.min_opt()?).to_vec(), integer(*s.max_opt()?).to_vec())
        }
        (Statistics::Int64(s), DeltaType::Long) => (long(*s.min_opt()?).to_vec(), long(*s.max_opt()?).to_vec()),
        // Old writers compared bytes as if they were signed.
        (Statistics::ByteArray(s), DeltaType::Text) if !statistics.is_min_max_deprecated() => {
            let mut bounds = (Vec::new(), Vec::new());
            escape(s.min_bytes_opt()?, &mut bounds.0);
            escape(s.max_bytes_opt()?, &mut bounds.1);
            bounds
        }
        _ => return None,
    };
    Some(Bounds { least: least.into(), greatest: greatest.into() })
}

/// Keeps the hits whose key is the wanted one, read from the files.
async fn verified(store: &Store, wanted: &Arc<Wanted>, found: Vec<Found>) -> Result<Vec<Found>> {
    let mut waiting = found.into_iter();
    let mut reading = JoinSet::new();
    let start = |reading: &mut JoinSet<Result<Found>>, file: Found| {
        drop(reading.spawn(verify(store.clone(), Arc::clone(wanted), file)));
    };
    waiting.by_ref().take(MAX_READ_AT_ONCE).for_each(|file| start(&mut reading, file));
    let mut kept = Vec::new();
    while let Some(done) = reading.join_next().await {
        let file = done.map_err(|e| Error::bug(format!("comparing keys ended: {e}")))??;
        if !file.hits.is_empty() {
            kept.push(file);
        }
        waiting.by_ref().take(1).for_each(|file| start(&mut reading, file));
    }
    kept.sort_by(|a, b| a.add.path.cmp(&b.add.path));
    Ok(kept)
}

async fn verify(store: Store, wanted: Arc<Wanted>, file: Found) -> Result<Found> {
    let mut rows: Vec<u32> = file.hits.iter().map(|hit| hit.row).collect();
    rows.dedup();
    let mut batches = FileReader::open(&store, &file.add).await?.read(&wanted.form.fields, Rows::These(&rows))?;
    let mut kept = Vec::with_capacity(file.hits.len());
    let mut next = rows.into_iter();
    while let Some(columns) = batches.try_next().await? {
        let keys = wanted.form.encode(&columns)?;
        for place in 0..keys.len() {
            let Some(row) = next.next() else { return Err(Error::bug("more rows were read than asked for")) };
            if let Some(key) = keys.has(place).then(|| wanted.place(keys.get(place))).flatten() {
                kept.push(Hit { row, key });
            }
        }
    }
    match next.next() {
        None => Ok(Found { add: file.add, hits: kept }),
        Some(row) => Err(Error::halt(
            "table.damaged",
            format!("{}/{} has no row {row}, by its own keys", store.location(), file.add.path),
        )),
    }
}
