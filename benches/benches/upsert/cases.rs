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
}

const fn case(name: &'static str, rows: u64, files: u64, changes: u64) -> Case {
    Case { name, rows, files, changes, ids: Ids::Ascending, unsent: false, exact: false, merge: false }
}

pub(crate) const CASES: [Case; 11] = [
    case("1k_into_100k", 100_000, 20, 1_000),
    case("10k_into_100k", 100_000, 20, 10_000),
    case("1k_into_1m", 1_000_000, 20, 1_000),
    Case { merge: true, ..case("10k_into_1m", 1_000_000, 20, 10_000) },
    case("1k_into_10m", 10_000_000, 20, 1_000),
    Case { merge: true, ..case("10k_into_10m", 10_000_000, 20, 10_000) },
    Case { ids: Ids::Shuffled, ..case("10k_into_10m_shuffled", 10_000_000, 20, 10_000) },
    case("10k_into_10m_1000_files", 10_000_000, 1_000, 10_000),
    Case { ids: Ids::Shuffled, exact: true, ..case("10k_into_10m_shuffled_exact", 10_000_000, 20, 10_000) },
    Case { exact: true, ..case("10k_into_10m_1000_files_exact", 10_000_000, 1_000, 10_000) },
    Case { unsent: true, ..case("10k_into_10m_unsent", 10_000_000, 20, 10_000) },
];
