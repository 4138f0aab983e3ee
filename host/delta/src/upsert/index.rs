//! The keys of data files in memory. A data file never changes, so neither do its keys: they are dropped when memory is
//! short and read again from the file when they are wanted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rows a bucket: the directory costs a quarter of a byte a row, and a bucket is two cache lines of codes.
const ROWS_A_BUCKET: usize = 16;

/// The codes of one file's keys and the rows that have them: 12.25 bytes a row.
#[derive(Debug)]
pub(crate) struct FileKeys {
    /// Ascending.
    codes: Vec<u64>,
    /// Row in the file, by place in `codes`.
    ordinals: Vec<u32>,
    /// Where the codes of each bucket begin, by their highest bits; one more at the end.
    directory: Vec<u32>,
    shift: u32,
}

impl FileKeys {
    /// `codes`: with the row of each, which is not in order where a row has no key.
    pub(crate) fn build(mut pairs: Vec<(u64, u32)>) -> Self {
        pairs.sort_unstable();
        let bits = (pairs.len() / ROWS_A_BUCKET).max(1).ilog2() + 1;
        let shift = u64::BITS - bits;
        let mut directory = Vec::with_capacity((1 << bits) + 1);
        for (place, (code, _)) in pairs.iter().enumerate() {
            while directory.len() <= (code >> shift) as usize {
                directory.push(place as u32);
            }
        }
        directory.resize((1 << bits) + 1, pairs.len() as u32);
        let (codes, ordinals) = pairs.into_iter().unzip();
        Self { codes, ordinals, directory, shift }
    }

    /// Rows whose key has this code.
    pub(crate) fn find(&self, code: u64) -> &[u32] {
        let bucket = (code >> self.shift) as usize;
        let (start, end) = (self.directory[bucket] as usize, self.directory[bucket + 1] as usize);
        let codes = &self.codes[start..end];
        let first = codes.partition_point(|c| *c < code);
        let last = first + codes[first..].iter().take_while(|c| **c == code).count();
        &self.ordinals[start + first..start + last]
    }

    /// Codes that more than one row has, with those rows.
    pub(crate) fn repeated(&self) -> impl Iterator<Item = (u64, &[u32])> {
        let mut start = 0;
        std::iter::from_fn(move || {
            while start < self.codes.len() {
                let first = start;
                let code = self.codes[first];
                while start < self.codes.len() && self.codes[start] == code {
                    start += 1;
                }
                if start - first > 1 {
                    return Some((code, &self.ordinals[first..start]));
                }
            }
            None
        })
    }

    /// Rows of this file and of another whose codes are equal.
    pub(crate) fn common(&self, other: &FileKeys) -> Vec<(u32, u32)> {
        let mut pairs = Vec::new();
        let (mut here, mut there) = (0, 0);
        while here < self.codes.len() && there < other.codes.len() {
            match self.codes[here].cmp(&other.codes[there]) {
                std::cmp::Ordering::Less => here += 1,
                std::cmp::Ordering::Greater => there += 1,
                std::cmp::Ordering::Equal => {
                    let code = self.codes[here];
                    let same = other.codes[there..].iter().take_while(|c| **c == code).count();
                    let rows = &other.ordinals[there..there + same];
                    pairs.extend(rows.iter().map(|row| (self.ordinals[here], *row)));
                    // The next row of ours may have the same code.
                    here += 1;
                }
            }
        }
        pairs
    }

    pub(crate) fn bytes(&self) -> usize {
        self.codes.len() * 12 + self.directory.len() * 4
    }
}

#[derive(Debug)]
struct Slot {
    keys: Arc<FileKeys>,
    used: u64,
}

/// A file: its table's place, and its path.
type FileId = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<FileId, Slot>,
    /// By when they were used last.
    ages: BTreeMap<u64, FileId>,
    bytes: usize,
    clock: u64,
}

impl Inner {
    fn remove(&mut self, id: &FileId) {
        if let Some(slot) = self.slots.remove(id) {
            self.ages.remove(&slot.used);
            self.bytes -= slot.keys.bytes();
        }
    }
}

/// The keys of the files of all tables, within a bound.
#[derive(Debug)]
pub(crate) struct KeyCache {
    bound: usize,
    inner: Mutex<Inner>,
}

impl KeyCache {
    /// `bound`: bytes.
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics between two changes that belong together, and what it holds can be read again.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment: what was used after it is not evicted for what comes after it.
    pub(crate) fn now(&self) -> u64 {
        self.lock().clock
    }

    pub(crate) fn get(&self, table: &Arc<str>, path: &Arc<str>) -> Option<Arc<FileKeys>> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let id = (Arc::clone(table), Arc::clone(path));
        let slot = inner.slots.get_mut(&id)?;
        let before = std::mem::replace(&mut slot.used, now);
        let keys = Arc::clone(&slot.keys);
        inner.ages.remove(&before);
        inner.ages.insert(now, id);
        Some(keys)
    }

    /// Whether keys of `rows` rows would be kept if they were built now. A cut that looks at more files than fit would
    /// otherwise throw out each just before it is wanted again: what was used since `since` stays.
    pub(crate) fn would_keep(&self, rows: u64, since: u64) -> bool {
        let wanted = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(13);
        let inner = self.lock();
        let old: usize =
            inner.ages.range(..=since).filter_map(|(_, id)| inner.slots.get(id)).map(|s| s.keys.bytes()).sum();
        (inner.bytes - old).saturating_add(wanted) <= self.bound
    }

    /// Keeps them where there is room, or where what is older than `since` makes room.
    pub(crate) fn insert(&self, table: &Arc<str>, path: &Arc<str>, keys: &Arc<FileKeys>, since: u64) {
        let mut inner = self.lock();
        let id = (Arc::clone(table), Arc::clone(path));
        inner.remove(&id);
        while inner.bytes + keys.bytes() > self.bound {
            let oldest = inner.ages.first_key_value().filter(|(used, _)| **used <= since).map(|(_, id)| id.clone());
            let Some(oldest) = oldest else { return };
            inner.remove(&oldest);
            metrics::counter!("millrace_delta_index_evictions_total").increment(1);
        }
        inner.clock += 1;
        let used = inner.clock;
        inner.bytes += keys.bytes();
        inner.ages.insert(used, id.clone());
        inner.slots.insert(id, Slot { keys: Arc::clone(keys), used });
        metrics::gauge!("millrace_delta_index_bytes").set(inner.bytes as f64);
    }

    /// The file is gone from its table.
    pub(crate) fn forget(&self, table: &Arc<str>, path: &Arc<str>) {
        self.lock().remove(&(Arc::clone(table), Arc::clone(path)));
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_found_by_its_code_and_no_other(codes in proptest::collection::vec(0u64..200, 0..400), spread in any::<bool>()) {
            let codes: Vec<u64> = codes.into_iter().map(|c| if spread { c.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { c }).collect();
            let keys = FileKeys::build(codes.iter().copied().zip(0..).collect());
            let wanted: Vec<u64> = codes.iter().copied().chain([7, u64::MAX, 0]).collect();
            for code in wanted {
                let rows: Vec<u32> = (0..codes.len()).filter(|i| codes[*i] == code).map(|i| i as u32).collect();
                prop_assert_eq!(keys.find(code), &rows[..]);
                let repeated = keys.repeated().find(|(c, _)| *c == code).map(|(_, rows)| rows.to_vec());
                prop_assert_eq!(repeated, (rows.len() > 1).then_some(rows));
            }
        }

        #[test]
        fn rows_of_two_files_with_equal_codes_are_paired(a in proptest::collection::vec(0u64..20, 0..30), b in proptest::collection::vec(0u64..20, 0..30)) {
            let keys = |codes: &[u64]| FileKeys::build(codes.iter().copied().zip(0..).collect());
            let mut found = keys(&a).common(&keys(&b));
            found.sort_unstable();
            let all = (0..a.len()).flat_map(|i| (0..b.len()).map(move |j| (i, j)));
            let expected: Vec<(u32, u32)> = all.filter(|(i, j)| a[*i] == b[*j]).map(|(i, j)| (i as u32, j as u32)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    fn keys(rows: u64) -> Arc<FileKeys> {
        Arc::new(FileKeys::build((0..rows).map(|r| (r << 40, r as u32)).collect()))
    }

    #[test]
    fn the_bound_holds_and_what_a_cut_uses_is_not_evicted_for_what_it_uses_next() {
        let one = keys(1_000);
        let cache = KeyCache::new(one.bytes() * 2);
        let table: Arc<str> = "t".into();
        let paths: Vec<Arc<str>> = (0..4).map(|i| format!("{i}").into()).collect();
        let since = cache.now();
        for path in &paths {
            cache.insert(&table, path, &keys(1_000), since);
        }
        assert!(cache.get(&table, &paths[0]).is_some() && cache.get(&table, &paths[1]).is_some());
        assert!(cache.get(&table, &paths[2]).is_none() && !cache.would_keep(1_000, since));
        let later = cache.now();
        assert!(cache.would_keep(1_000, later));
        cache.insert(&table, &paths[2], &keys(1_000), later);
        assert!(cache.get(&table, &paths[0]).is_none() && cache.get(&table, &paths[2]).is_some());
        assert!(cache.bytes() <= one.bytes() * 2);
        cache.forget(&table, &paths[2]);
        assert_eq!(cache.bytes(), one.bytes());
    }

    #[test]
    fn a_row_costs_about_twelve_bytes() {
        let rows = 1_000_000;
        let per_row = keys(rows).bytes() as f64 / rows as f64;
        assert!((12.0..12.6).contains(&per_row), "{per_row}");
    }
}
