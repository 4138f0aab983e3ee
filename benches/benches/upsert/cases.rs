//! What is measured.

use crate::rows::Ids;

/// One size and form of table.
pub(crate) struct Case {
    pub name: &'static str,
    pub rows: u64,
    pub files: u64,
    /// Of a cut.
    pub changes: u64,
    pub ids: Ids,
    /// Every second update leaves out its wide text.
    pub unsent: bool,
    /// Rows are found by an exact index.
    pub exact: bool,
    /// delta-rs merges the same changes into a copy of the table.
    pub merge: bool,
    /// With compaction beside the cuts, as is the default: over more of them, so that it gets to the large files.
    pub compaction: bool,
}

impl Case {
    /// Cuts that are measured after the first, which reads what later ones find in memory.
    pub(crate) fn warm(&self) -> u64 {
        if self.compaction { 60 } else { 9 }
    }
}

const fn case(name: &'static str, rows: u64, files: u64, changes: u64) -> Case {
    Case {
        name,
        rows,
        files,
        changes,
        ids: Ids::Ascending,
        unsent: false,
        exact: false,
        merge: false,
        compaction: false,
    }
}

pub(crate) const CASES: [Case; 17] = [
    case("1k_into_100k", 100_000, 20, 1_000),
    case("10k_into_100k", 100_000, 20, 10_000),
    case("1k_into_100k_1000_files", 100_000, 1_000, 1_000),
    case("10k_into_100k_1000_files", 100_000, 1_000, 10_000),
    case("1k_into_1m", 1_000_000, 20, 1_000),
    Case { merge: true, ..case("10k_into_1m", 1_000_000, 20, 10_000) },
    case("1k_into_1m_1000_files", 1_000_000, 1_000, 1_000),
    case("10k_into_1m_1000_files", 1_000_000, 1_000, 10_000),
    case("1k_into_10m", 10_000_000, 20, 1_000),
    Case { merge: true, ..case("10k_into_10m", 10_000_000, 20, 10_000) },
    Case { ids: Ids::Shuffled, ..case("10k_into_10m_shuffled", 10_000_000, 20, 10_000) },
    case("1k_into_10m_1000_files", 10_000_000, 1_000, 1_000),
    case("10k_into_10m_1000_files", 10_000_000, 1_000, 10_000),
    Case { ids: Ids::Shuffled, exact: true, ..case("10k_into_10m_shuffled_exact", 10_000_000, 20, 10_000) },
    Case { exact: true, ..case("10k_into_10m_1000_files_exact", 10_000_000, 1_000, 10_000) },
    Case { unsent: true, ..case("10k_into_10m_unsent", 10_000_000, 20, 10_000) },
    Case { unsent: true, compaction: true, ..case("10k_into_10m_compacted", 10_000_000, 20, 10_000) },
];
