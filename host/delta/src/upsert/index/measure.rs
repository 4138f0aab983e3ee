//! What the bench `upsert` asks of the index alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use millrace_core::{Error, Result};

use super::packed::FileKeys;
use super::sets::{Merge, Part};
use super::shelf::{Disk, Shelf};
use crate::upsert::keys::hash;

/// One way of finding rows.
#[derive(Clone, Copy, Debug)]
pub struct IndexCost {
    /// From codes in memory.
    pub build_ms: f64,
    pub bytes_a_row: f64,
    /// Of a key that may be in any file.
    pub look_up_ns: f64,
}

/// By the keys of each file, in memory; and by those of all of them in one, mapped from a file in `folder`.
pub fn index_costs(folder: &Path, rows: u64, files: u64) -> Result<[IndexCost; 2]> {
    let each = rows / files;
    let code = |number: u64| hash(&number.to_be_bytes());
    let pairs: Vec<Vec<(u64, u32)>> =
        (0..files).map(|file| (0..each).map(|row| (code(file * each + row), row as u32)).collect()).collect();
    let started = Instant::now();
    let keys: Vec<FileKeys> = pairs.into_iter().map(FileKeys::build).collect();
    let build_ms = millis(started);
    let bytes: usize = keys.iter().map(FileKeys::memory).sum();
    // Any order but that of the codes.
    let wanted: Vec<u64> = (0..100_000u64).map(|n| code(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % rows)).collect();
    let ns = |started: Instant| millis(started) * 1e6 / wanted.len() as f64;
    let started = Instant::now();
    let found: usize = wanted.iter().map(|code| keys.iter().map(|k| k.find(*code).count()).sum::<usize>()).sum();
    let by_file = IndexCost { build_ms, bytes_a_row: bytes as f64 / rows as f64, look_up_ns: ns(started) };

    let (shelf, _) = Shelf::open(Arc::new(Disk::new(folder.to_owned(), u64::MAX)), &"measured".into(), String::new());
    let parts: Vec<Part> = keys.iter().enumerate().map(|(file, keys)| Part::of(&format!("{file}"), 0, keys)).collect();
    let started = Instant::now();
    let set = Merge::of(parts, &|_| true).run(&shelf).ok_or_else(|| Error::bug("the set was not written"))?;
    let build_ms = build_ms + millis(started);
    let started = Instant::now();
    let in_set: usize = wanted.iter().map(|code| set.keys().find(*code).count()).sum();
    if found != in_set {
        return Err(Error::bug(format!("{found} rows by file, {in_set} by the set")));
    }
    let bytes_a_row = set.keys().packed().len() as f64 / rows as f64;
    Ok([by_file, IndexCost { build_ms, bytes_a_row, look_up_ns: ns(started) }])
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
