//! Chance, and keys of every kind that its numbers become.

use millrace_core::builder::Cells;
use millrace_core::schema::{Column, ColumnType};

/// SplitMix64.
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What tells the rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Long,
    Text,
    /// Text and integer.
    Composite,
    Uuid,
    Decimal,
    Date,
    Timestamp,
    Binary,
    Boolean,
}

pub(super) const KEY_KINDS: [KeyKind; 9] = [
    KeyKind::Long,
    KeyKind::Text,
    KeyKind::Composite,
    KeyKind::Uuid,
    KeyKind::Decimal,
    KeyKind::Date,
    KeyKind::Timestamp,
    KeyKind::Binary,
    KeyKind::Boolean,
];

impl KeyKind {
    pub(super) fn columns(self) -> Vec<Column> {
        let one = |ty| vec![Column::new("k", ty).key()];
        match self {
            KeyKind::Long => one(ColumnType::Int64),
            KeyKind::Text => one(ColumnType::Text),
            KeyKind::Composite => {
                vec![Column::new("k", ColumnType::Text).key(), Column::new("k2", ColumnType::Int32).key()]
            }
            KeyKind::Uuid => one(ColumnType::Uuid),
            KeyKind::Decimal => one(ColumnType::Decimal { precision: 30, scale: 2 }),
            KeyKind::Date => one(ColumnType::Date),
            KeyKind::Timestamp => one(ColumnType::TimestampTz),
            KeyKind::Binary => one(ColumnType::Binary),
            KeyKind::Boolean => one(ColumnType::Boolean),
        }
    }

    pub(super) fn append(self, id: u64, column: usize, cells: &mut Cells) {
        let spread = id as i64 * 7 - 50;
        match cells {
            Cells::Int64(c) => c.append_value(spread),
            Cells::Int32(c) => c.append_value((id / 3) as i32),
            Cells::Text(c) if self == KeyKind::Composite && column == 0 => c.append_value(format!("é{}", id % 3)),
            Cells::Text(c) => c.append_value(format!("key {id}")),
            Cells::Uuid(c) => c.append_value([id.to_be_bytes(), id.to_le_bytes()].concat()).unwrap(),
            Cells::Decimal(c) => c.append_value(i128::from(spread) * 10_000_000_000_000_000_000),
            Cells::Date(c) => c.append_value(spread as i32),
            Cells::Timestamp(c) => c.append_value(spread * 1_000_001),
            Cells::Binary(c) => c.append_value([0, (id >> 8) as u8, id as u8, 0]),
            Cells::Boolean(c) => c.append_value(id.is_multiple_of(2)),
            other => panic!("no key of {other:?}"),
        }
    }
}
