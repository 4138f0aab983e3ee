//! Codes of keys and the rows that have them: sorted, packed to the bit, the same in memory and on disk.
//!
//! A code's highest bits are its bucket, which the directory finds; only the others are stored, with the row behind them.
//! Ten million rows take 68 bits each, and the directory a quarter to half a byte.

use bytes::Bytes;

/// Rows a bucket at most, on average: what a look-up compares lies in two or three cache lines.
const ROWS_A_BUCKET: u64 = 16;
/// Behind the entries: each is read as 16 bytes.
const PADDING: usize = 16;

/// How wide things are; it follows from two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    entries: u64,
    /// Of a code: its bucket.
    directory_bits: u32,
    row_bits: u32,
}

impl Shape {
    /// `rows`: all row numbers are below. At most 2^32 entries and 2^48 rows.
    pub(super) fn new(entries: u64, rows: u64) -> Self {
        let directory_bits = (entries / ROWS_A_BUCKET).max(1).ilog2() + 1;
        Self { entries, directory_bits, row_bits: u64::BITS - rows.leading_zeros() }
    }

    fn shift(self) -> u32 {
        u64::BITS - self.directory_bits
    }

    /// Bits of an entry: at most 63 + 49, so that one at any bit lies within 16 bytes.
    fn width(self) -> u32 {
        self.shift() + self.row_bits
    }

    fn directory_at(self) -> usize {
        (self.entries * u64::from(self.width())).div_ceil(8) as usize + PADDING
    }

    fn bytes(self) -> usize {
        self.directory_at() + ((1 << self.directory_bits) + 1) * 4
    }
}

/// The codes of the keys of a file, or of a set of files whose rows are numbered one file after the other.
#[derive(Clone, Debug)]
pub(crate) struct FileKeys {
    shape: Shape,
    packed: Bytes,
    /// The bytes are the file system's, not ours.
    mapped: bool,
}

impl FileKeys {
    /// `codes`: with the row of each, which is not in order where a row has no key.
    pub(crate) fn build(mut pairs: Vec<(u64, u32)>) -> Self {
        pairs.sort_unstable();
        let rows = pairs.iter().map(|(_, row)| u64::from(*row) + 1).max().unwrap_or(0);
        let shape = Shape::new(pairs.len() as u64, rows);
        let mut packer = Packer::new(shape);
        packer.packed.reserve_exact(shape.bytes());
        for (code, row) in pairs {
            packer.push(code, u64::from(row));
        }
        packer.finish();
        Self { shape, packed: packer.packed.into(), mapped: false }
    }

    /// What a [`Packer`] made, on disk; `None` where the length is another one.
    pub(super) fn mapped(shape: Shape, packed: Bytes) -> Option<Self> {
        (packed.len() == shape.bytes()).then_some(Self { shape, packed, mapped: true })
    }

    fn directory(&self, bucket: usize) -> u64 {
        let at = self.shape.directory_at() + bucket * 4;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.packed[at..at + 4]);
        u64::from(u32::from_le_bytes(bytes))
    }

    fn entry(&self, place: u64) -> u128 {
        let bit = place * u64::from(self.shape.width());
        let at = (bit / 8) as usize;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.packed[at..at + 16]);
        u128::from_le_bytes(bytes) >> (bit % 8) & ((1 << self.shape.width()) - 1)
    }

    fn row(&self, entry: u128) -> u64 {
        entry as u64 & ((1 << self.shape.row_bits) - 1)
    }

    /// Rows whose key has this code, ascending.
    pub(crate) fn find(&self, code: u64) -> impl Iterator<Item = u64> + '_ {
        let bucket = (code >> self.shape.shift()) as usize;
        let (start, end) = (self.directory(bucket), self.directory(bucket + 1));
        let wanted = u128::from(code & ((1 << self.shape.shift()) - 1));
        let entries = (start..end).map(|place| self.entry(place));
        let before = move |entry: &u128| entry >> self.shape.row_bits < wanted;
        let same = move |entry: &u128| entry >> self.shape.row_bits == wanted;
        entries.skip_while(before).take_while(same).map(|entry| self.row(entry))
    }

    /// Codes and rows, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let shape = self.shape;
        (0..1usize << shape.directory_bits).flat_map(move |bucket| {
            (self.directory(bucket)..self.directory(bucket + 1)).map(move |place| {
                let entry = self.entry(place);
                ((bucket as u64) << shape.shift() | (entry >> shape.row_bits) as u64, self.row(entry))
            })
        })
    }

    /// Rows that have their code in common with another one, by code.
    pub(crate) fn repeated(&self) -> Vec<(u64, Vec<u32>)> {
        let mut groups: Vec<(u64, Vec<u32>)> = Vec::new();
        let mut before: Option<(u64, u64)> = None;
        for (code, row) in self.iter() {
            match (before, groups.last_mut()) {
                (Some((same, _)), Some((group, rows))) if same == code && *group == code => rows.push(row as u32),
                (Some((same, first)), _) if same == code => groups.push((code, vec![first as u32, row as u32])),
                _ => {}
            }
            before = Some((code, row));
        }
        groups
    }

    /// Rows of this file and of another whose codes are equal.
    pub(crate) fn common(&self, other: &FileKeys) -> Vec<(u32, u32)> {
        let mut pairs = Vec::new();
        let mut theirs = other.iter().peekable();
        let mut same: (u64, Vec<u64>) = (0, Vec::new());
        for (code, row) in self.iter() {
            if same.0 != code || same.1.is_empty() {
                while theirs.next_if(|(other, _)| *other < code).is_some() {}
                same =
                    (code, std::iter::from_fn(|| theirs.next_if(|(other, _)| *other == code)).map(|t| t.1).collect());
            }
            pairs.extend(same.1.iter().map(|other| (row as u32, *other as u32)));
        }
        pairs
    }

    pub(crate) fn len(&self) -> u64 {
        self.shape.entries
    }

    pub(super) fn packed(&self) -> &Bytes {
        &self.packed
    }

    /// Row numbers are below this.
    pub(super) fn rows(&self) -> u64 {
        (1 << self.shape.row_bits) - 1
    }

    /// Bytes of memory that are ours.
    pub(crate) fn memory(&self) -> usize {
        if self.mapped { 0 } else { self.packed.len() }
    }
}

/// Packs codes and rows that come in order.
pub(super) struct Packer {
    shape: Shape,
    directory: Vec<u32>,
    pushed: u32,
    /// Bits that make no byte yet.
    pending: u128,
    bits: u32,
    packed: Vec<u8>,
}

impl Packer {
    pub(super) fn new(shape: Shape) -> Self {
        let directory = Vec::with_capacity((1 << shape.directory_bits) + 1);
        Self { shape, directory, pushed: 0, pending: 0, bits: 0, packed: Vec::new() }
    }

    pub(super) fn push(&mut self, code: u64, row: u64) {
        let shift = self.shape.shift();
        while self.directory.len() <= (code >> shift) as usize {
            self.directory.push(self.pushed);
        }
        let entry = u128::from(code & ((1 << shift) - 1)) << self.shape.row_bits | u128::from(row);
        self.pending |= entry << self.bits;
        self.bits += self.shape.width();
        let whole = self.bits / 8;
        self.packed.extend_from_slice(&self.pending.to_le_bytes()[..whole as usize]);
        self.pending >>= whole * 8;
        self.bits %= 8;
        self.pushed += 1;
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        if self.bits > 0 {
            self.packed.push(self.pending as u8);
        }
        self.packed.extend_from_slice(&[0; PADDING]);
        self.directory.resize((1 << self.shape.directory_bits) + 1, self.pushed);
        self.packed.extend(self.directory.iter().flat_map(|place| place.to_le_bytes()));
    }

    /// What was packed since this was called last.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spread(code: u64) -> u64 {
        code.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    proptest! {
        #[test]
        fn every_row_is_found_by_its_code_and_no_other(codes in proptest::collection::vec(0u64..200, 0..400), far in any::<bool>()) {
            let codes: Vec<u64> = codes.into_iter().map(|c| if far { spread(c) } else { c }).collect();
            let keys = FileKeys::build(codes.iter().copied().zip(0..).collect());
            let wanted: Vec<u64> = codes.iter().copied().chain([7, u64::MAX, 0]).collect();
            for code in wanted {
                let rows: Vec<u64> = (0..codes.len()).filter(|i| codes[*i] == code).map(|i| i as u64).collect();
                prop_assert_eq!(keys.find(code).collect::<Vec<_>>(), rows.clone());
                let repeated = keys.repeated().into_iter().find(|(c, _)| *c == code).map(|(_, rows)| rows);
                let rows: Vec<u32> = rows.into_iter().map(|r| r as u32).collect();
                prop_assert_eq!(repeated, (rows.len() > 1).then_some(rows));
            }
        }

        #[test]
        fn what_is_packed_comes_out_again(rows in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..300)) {
            let mut expected: Vec<(u64, u64)> = rows.iter().map(|(code, row)| (*code, u64::from(*row))).collect();
            expected.sort_unstable();
            let keys = FileKeys::build(rows);
            prop_assert_eq!(keys.iter().collect::<Vec<_>>(), expected);
            prop_assert_eq!(keys.packed().len(), keys.shape.bytes());
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

    #[test]
    fn a_row_costs_less_than_nine_and_a_half_bytes() {
        for rows in [500_000u64, 1_000_000, 10_000_000] {
            let per_row = Shape::new(rows, rows).bytes() as f64 / rows as f64;
            assert!((8.0..9.5).contains(&per_row), "{per_row}");
        }
    }
}
