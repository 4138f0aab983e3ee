//! The exact index: the keys of many data files in one, on disk. A look-up is one for all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::packed::{FileKeys, Packer};
use super::shelf::{Covered, Shelf, shape_of};

/// Sets or files of about one size that become one set. Sixteen: compaction merges eight data files, and their keys need
/// not be merged before that. Tests have few files.
const PARTS_A_SET: usize = if cfg!(test) { 2 } else { 16 };
/// Sets grow by this factor: how often a row is written again, and how many sets there are of each size.
const GROWTH: u64 = 8;
/// Below this all are of one size.
const LEAST_ROWS: u64 = 64 << 10;
/// Entries of a set at most: places are 32 bits.
const MAX_ENTRIES: u64 = u32::MAX as u64;
/// Entries that are sorted at a time when sets are merged: what stands in memory, besides the directory.
const SLICE: u64 = 64 << 10;

/// The keys of some data files, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct KeySet {
    /// On disk.
    name: String,
    files: Arc<[Covered]>,
    /// The first row number of each.
    firsts: Arc<[u64]>,
    keys: FileKeys,
}

/// What a set is made of.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Of a set.
    name: Option<String>,
    files: Arc<[Covered]>,
    firsts: Arc<[u64]>,
    keys: FileKeys,
}

/// Sets to merge, with those data files that still are the table's.
#[derive(Debug)]
pub(crate) struct Merge {
    parts: Vec<Part>,
    files: Vec<Covered>,
}

fn firsts(files: &[Covered]) -> Arc<[u64]> {
    let rows = files.iter().scan(0, |next, file| Some(std::mem::replace(next, *next + file.rows)));
    rows.collect()
}

impl Part {
    /// Of one data file.
    pub(super) fn of(path: &str, size: u64, keys: &FileKeys) -> Self {
        let files: Arc<[Covered]> = [covered(path.into(), size, keys)].into();
        Self { name: None, firsts: firsts(&files), files, keys: keys.clone() }
    }
}

pub(super) fn covered(path: Arc<str>, size: u64, keys: &FileKeys) -> Covered {
    Covered { path, size, rows: keys.rows(), entries: keys.len() }
}

impl KeySet {
    pub(super) fn new(name: String, files: Vec<Covered>, keys: FileKeys) -> Self {
        Self { name, firsts: firsts(&files), files: files.into(), keys }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn keys(&self) -> &FileKeys {
        &self.keys
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.iter().map(|f| &f.path)
    }

    /// Rows that have these codes, by data file, an index into [`KeySet::paths`]. `codes`: with their places.
    pub(crate) fn find(&self, codes: &[u64], range: Range<usize>) -> HashMap<usize, Vec<(u32, u32)>> {
        let mut found: HashMap<usize, Vec<(u32, u32)>> = HashMap::new();
        for place in range {
            for row in self.keys.find(codes[place]) {
                let (file, row) = place_of(&self.firsts, row);
                found.entry(file).or_default().push((row, place as u32));
            }
        }
        found
    }

    /// Entries of files that still are the table's.
    fn alive(&self, has: &impl Fn(&str) -> bool) -> u64 {
        self.files.iter().filter(|f| has(&f.path)).map(|f| f.entries).sum()
    }

    /// A set of one file is none: its keys are read again.
    pub(super) fn is_dead(&self, has: &impl Fn(&str) -> bool) -> bool {
        self.files.iter().filter(|f| has(&f.path)).count() < 2
    }

    fn part(&self) -> Part {
        let (files, firsts) = (Arc::clone(&self.files), Arc::clone(&self.firsts));
        Part { name: Some(self.name.clone()), files, firsts, keys: self.keys.clone() }
    }
}

/// File and row in it.
fn place_of(firsts: &[u64], row: u64) -> (usize, u32) {
    let file = firsts.partition_point(|first| *first <= row) - 1;
    (file, (row - firsts[file]) as u32)
}

/// What is worth merging: many of about one size, or a set of which half is gone. `singles`: files whose keys are in no set.
pub(super) fn choose(sets: &[KeySet], singles: Vec<Part>, has: impl Fn(&str) -> bool) -> Option<Merge> {
    let tier = |entries: u64| (entries / LEAST_ROWS).max(1).ilog(GROWTH);
    let mut tiers: BTreeMap<u32, Vec<Part>> = BTreeMap::new();
    for part in singles {
        tiers.entry(tier(part.keys.len())).or_default().push(part);
    }
    for set in sets {
        let alive = set.alive(&has);
        if alive * 2 < set.keys.len() {
            return Some(Merge::of(vec![set.part()], &has));
        }
        tiers.entry(tier(alive)).or_default().push(set.part());
    }
    let parts = tiers.into_values().find(|parts| parts.len() >= PARTS_A_SET)?;
    let mut entries = 0;
    let fits = parts.into_iter().take_while(|part| {
        entries += part.keys.len();
        entries <= MAX_ENTRIES
    });
    Some(Merge::of(fits.collect(), &has)).filter(|merge| merge.parts.len() > 1)
}

impl Merge {
    pub(super) fn of(parts: Vec<Part>, has: &impl Fn(&str) -> bool) -> Self {
        let mut seen = HashSet::new();
        let all = parts.iter().flat_map(|part| part.files.iter());
        let files = all.filter(|f| has(&f.path) && seen.insert(&f.path)).cloned().collect();
        Self { parts, files }
    }

    /// Names of the sets that are in it.
    pub(super) fn replaces(&self) -> Vec<String> {
        self.parts.iter().filter_map(|part| part.name.clone()).collect()
    }

    pub(super) fn entries(&self) -> u64 {
        self.files.iter().map(|f| f.entries).sum()
    }

    /// Writes the set; `None` where the disk does not take it. Work for a core, and for a disk.
    pub(super) fn run(&self, shelf: &Shelf) -> Option<KeySet> {
        let (name, keys) = shelf.write(&self.files, |put| self.pack(put))?;
        Some(KeySet::new(name, self.files.clone(), keys))
    }

    /// Takes all parts slice by slice of the codes' range: what lies in a slice is a few sorted runs.
    pub(super) fn pack(&self, put: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut next = 0;
        let mut first_of: HashMap<&str, u64> = HashMap::new();
        for file in &self.files {
            first_of.insert(&file.path, next);
            next += file.rows;
        }
        // Where the rows of each file of each part go; `None`: the file is gone, or of a part before.
        let to: Vec<Vec<Option<u64>>> =
            self.parts.iter().map(|p| p.files.iter().map(|f| first_of.remove(&*f.path)).collect()).collect();
        let mut runs: Vec<_> = self.parts.iter().map(|part| part.keys.iter().peekable()).collect();
        let mut packer = Packer::new(shape_of(&self.files));
        let slices = (self.entries() / SLICE).max(1).next_power_of_two();
        let mut slice: Vec<(u64, u64)> = Vec::with_capacity(SLICE as usize * 2);
        for number in 1..=slices {
            // The last slice ends with the codes.
            let end = u64::try_from((u128::from(number) << 64) / u128::from(slices) - 1).unwrap_or(u64::MAX);
            for ((run, part), to) in runs.iter_mut().zip(&self.parts).zip(&to) {
                while let Some((code, row)) = run.next_if(|(code, _)| *code <= end) {
                    let (file, row) = place_of(&part.firsts, row);
                    slice.extend(to[file].map(|first| (code, first + u64::from(row))));
                }
            }
            // Stable: it makes use of runs.
            slice.sort();
            slice.drain(..).for_each(|(code, row)| packer.push(code, row));
            put(&packer.take())?;
        }
        packer.finish();
        put(&packer.take())
    }
}
