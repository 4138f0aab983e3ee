//! Where a change stands at its source.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The place of one change among those of its partition: up to four numbers, compared one after the
/// other. The first is the commit's place at the source (LSN, offset, cluster time, ...), the second the
/// ordinal of the change within its source table at that commit, counted from 1 in the server's order
/// before any stage sees it. Unused components are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order(pub [i64; Order::COMPONENTS]);

impl Order {
    pub const COMPONENTS: usize = 4;
    /// Before every change.
    pub const START: Order = Order([i64::MIN; Self::COMPONENTS]);
    /// After every change.
    pub const END: Order = Order([i64::MAX; Self::COMPONENTS]);

    pub const fn new(commit: i64, ordinal: i64) -> Self {
        Order([commit, ordinal, 0, 0])
    }

    /// The commit's place.
    pub const fn commit(&self) -> i64 {
        self.0[0]
    }

    /// Text that sorts as the order does: 16 hexadecimal digits a component (the sign bit flipped, so
    /// that negative numbers come first), joined by `-`; the two last components only where they are used.
    pub fn to_sortable(&self) -> String {
        let used = if self.0[2] == 0 && self.0[3] == 0 { 2 } else { 4 };
        let mut text = String::with_capacity(used * 17);
        for (i, component) in self.0[..used].iter().enumerate() {
            if i > 0 {
                text.push('-');
            }
            let bits = (*component as u64) ^ (1 << 63);
            for nibble in (0..16).rev() {
                text.push(char::from(b"0123456789abcdef"[((bits >> (nibble * 4)) & 15) as usize]));
            }
        }
        text
    }

    /// The inverse of [`Order::to_sortable`].
    pub fn from_sortable(text: &str) -> Option<Self> {
        let mut components = [0; Self::COMPONENTS];
        let mut parts = 0;
        for (i, part) in text.split('-').enumerate() {
            if i >= Self::COMPONENTS || part.len() != 16 {
                return None;
            }
            components[i] = (u64::from_str_radix(part, 16).ok()? ^ (1 << 63)) as i64;
            parts = i + 1;
        }
        (parts == 2 || parts == 4).then_some(Order(components))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0[0])?;
        let used = self.0.iter().rposition(|c| *c != 0).unwrap_or(0);
        for component in &self.0[1..=used.max(1)] {
            write!(f, "/{component}")?;
        }
        Ok(())
    }
}

/// A boundary at which the source can start again: the order of its commit, and the opaque bytes that
/// the source needs to find it (LSN, resume token, offsets).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub order: Order,
    pub token: Bytes,
}

/// What a stored position belongs to: a source table in one partition of the source. Sources without
/// partitions use partition 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SourceKey {
    pub table: Arc<str>,
    pub partition: u32,
}

impl SourceKey {
    pub fn new(table: impl Into<Arc<str>>) -> Self {
        Self { table: table.into(), partition: 0 }
    }
}

/// `TABLE@PARTITION`, which is also how it stands in app ids and resume records.
impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.table, self.partition)
    }
}

impl From<SourceKey> for String {
    fn from(key: SourceKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for SourceKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (table, partition) = text.rsplit_once('@').ok_or_else(|| format!("`{text}` is not TABLE@PARTITION"))?;
        let partition = partition.parse().map_err(|_| format!("`{partition}` is not a partition number"))?;
        Ok(Self { table: table.into(), partition })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sortable_text_sorts_as_the_order_does(a in any::<[i64; 2]>(), b in any::<[i64; 2]>()) {
            let (a, b) = (Order::new(a[0], a[1]), Order::new(b[0], b[1]));
            prop_assert_eq!(a.cmp(&b), a.to_sortable().cmp(&b.to_sortable()));
            prop_assert_eq!(Order::from_sortable(&a.to_sortable()), Some(a));
        }

        #[test]
        fn four_components_survive_the_text(order in any::<[i64; 4]>()) {
            prop_assert_eq!(Order::from_sortable(&Order(order).to_sortable()), Some(Order(order)));
        }
    }

    #[test]
    fn a_source_key_survives_its_text_even_with_an_at_sign_in_the_name() {
        let key = SourceKey { table: "public.a@b".into(), partition: 7 };
        assert_eq!(SourceKey::try_from(key.to_string()), Ok(key));
    }
}
