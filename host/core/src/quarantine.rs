//! Keys that wait (I15): once a change of a key is a dead letter, later changes of that key become letters too, so that a
//! table of current rows is never wrong without a word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::batch::{ChangeBatch, Changes, Reject};
use crate::error::Result;
use crate::json;
use crate::position::{Order, SourceKey};
use crate::schema::ColumnType;

/// The code of a letter that waits behind another.
pub const WAITS: &str = "key.quarantined";

/// Why, without the position of the letter that is waited behind.
pub const BEHIND: &str = "an earlier change of its key is a dead letter, and it waits behind that";

/// Whose later changes wait; only where a table holds the current row of each key.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Key columns by source table, where they are not its primary key.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Letters of a source table at which it is halted.
    pub max_letters: u64,
}

impl Policy {
    /// 100,000 letters: some 10 MB, and more than a person looks through.
    pub const MAX_LETTERS: u64 = 100_000;
}

type KeyDigest = [u8; 16];

/// What a letter shows instead of a key that a stage may be there to mask.
const HIDDEN: &str = "sha256:";

/// The keys of the rows that a batch was decoded from, whatever the stages make of them.
#[derive(Clone, Debug)]
pub struct RowKeys {
    columns: Vec<(ColumnType, ArrayRef)>,
    /// One a row, ascending: index into [`Changes`].
    changes: Vec<u32>,
    /// A letter shows a digest, since a stage may be there to mask the key.
    hidden: bool,
    /// Mixed into digests: `INCARNATION/SOURCE TABLE`.
    salt: String,
}

impl RowKeys {
    /// Of a batch as it came from its source. `None`: its table has no key, so that nothing waits there.
    pub fn of(
        batch: &ChangeBatch,
        policy: &Policy,
        incarnation: &str,
        may_mask: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let named = policy.keys.get(&batch.schema.name.to_string());
        let is_key = |name: &str, primary: bool| named.map_or(primary, |n| n.iter().any(|k| k == name));
        let mut columns = Vec::new();
        let mut hidden = false;
        for (column, cells) in batch.schema.columns.iter().zip(&batch.columns) {
            if is_key(&column.name, column.key) {
                columns.push((column.ty.clone(), cells.clone()));
                hidden |= may_mask(&column.name);
            }
        }
        if columns.is_empty() || named.is_some_and(|n| n.len() != columns.len()) {
            return None;
        }
        let salt = salt(incarnation, &batch.origin.source);
        Some(Self { columns, changes: batch.changes.clone(), hidden, salt })
    }

    /// The keys that a change has or had, as JSON lists of their columns' values.
    fn texts(&self, change: u32) -> BTreeSet<String> {
        let first = self.changes.partition_point(|c| *c < change);
        let end = self.changes.partition_point(|c| *c <= change);
        let is_whole = |row: &usize| self.columns.iter().all(|(_, cells)| cells.is_valid(*row));
        let text = |row| Value::Array(self.columns.iter().map(|(ty, cells)| json::cell(ty, cells, row)).collect());
        (first..end).filter(is_whole).map(|row| text(row).to_string()).collect()
    }

    /// What a letter shows of them.
    pub fn shown(&self, change: u32) -> BTreeSet<String> {
        let texts = self.texts(change);
        if !self.hidden {
            return texts;
        }
        let hide = |text: &String| {
            let hex: String = digest(&self.salt, text).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{HIDDEN}{hex}")
        };
        texts.iter().map(hide).collect()
    }
}

fn salt(incarnation: &str, source: &SourceKey) -> String {
    format!("{incarnation}/{source}")
}

fn digest(salt: &str, text: &str) -> KeyDigest {
    let full = Sha256::new().chain_update(salt).chain_update([0]).chain_update(text).finalize();
    let mut digest = KeyDigest::default();
    digest.copy_from_slice(&full[..16]);
    digest
}

/// Keys by source table, each with the order of its first letter.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    tables: BTreeMap<SourceKey, Waiting>,
}

#[derive(Clone, Debug, Default)]
struct Waiting {
    since: HashMap<KeyDigest, Order>,
    letters: u64,
    /// The commit of the snapshot that these are letters of or came after.
    snapshot: Option<i64>,
}

impl Quarantine {
    /// Takes in a letter that is stored; `shown`: as [`RowKeys::shown`] gave it.
    pub fn recall(&mut self, incarnation: &str, source: &SourceKey, order: Order, shown: &[String]) {
        let salt = salt(incarnation, source);
        let table = self.tables.entry(source.clone()).or_default();
        table.letters += 1;
        for text in shown {
            let known = text.strip_prefix(HIDDEN).and_then(from_hex);
            table.enter(known.unwrap_or_else(|| digest(&salt, text)), order);
        }
    }

    /// Letters of a source table that wait, and those that they wait behind.
    pub fn letters(&self, source: &SourceKey) -> u64 {
        self.tables.get(source).map_or(0, |table| table.letters)
    }

    /// The changes of a batch that wait, each with the order of the letter that it waits behind. `refused`: those that are
    /// letters for a reason of their own; what comes after them waits from here on.
    pub fn pass(&mut self, batch: &ChangeBatch, refused: &BTreeSet<u32>) -> BTreeMap<u32, Order> {
        let origin: &Changes = &batch.origin;
        let Some(keys) = origin.keys.get() else { return BTreeMap::new() };
        if origin.snapshot {
            // It has every row as it is now: what waited before waits no more.
            let table = self.tables.entry(origin.source.clone()).or_default();
            table.begin_snapshot(origin.orders.first().map(Order::commit));
        }
        if refused.is_empty() && self.tables.get(&origin.source).is_none_or(|table| table.since.is_empty()) {
            return BTreeMap::new();
        }
        let table = self.tables.entry(origin.source.clone()).or_default();
        let mut changes = batch.changes.clone();
        changes.dedup();
        let mut waits = BTreeMap::new();
        for change in changes {
            let order = origin.orders[change as usize];
            let digests: Vec<KeyDigest> = keys.texts(change).iter().map(|text| digest(&keys.salt, text)).collect();
            let before = digests.iter().filter_map(|key| table.since.get(key)).filter(|since| **since < order).min();
            match (refused.contains(&change), before.copied()) {
                (false, None) => continue,
                (false, Some(before)) => waits.insert(change, before),
                (true, _) => None,
            };
            table.letters += 1;
            // The other key of a change that moves a row waits as well.
            digests.into_iter().for_each(|key| table.enter(key, order));
        }
        waits
    }
}

impl Waiting {
    fn begin_snapshot(&mut self, commit: Option<i64>) {
        if self.snapshot != commit {
            *self = Waiting { snapshot: commit, ..Waiting::default() };
        }
    }

    fn enter(&mut self, key: KeyDigest, order: Order) {
        let since = self.since.entry(key).or_insert(order);
        *since = (*since).min(order);
    }
}

/// Of the batches of a cut, the rows whose change comes after one that the sink refuses, of the same key: the sink refuses
/// them too, with the code [`WAITS`].
pub fn behind(refused: &[&ChangeBatch], written: &[&ChangeBatch]) -> Result<Vec<ChangeBatch>> {
    let mut quarantine = Quarantine::default();
    for batch in refused {
        quarantine.pass(batch, &batch.changes.iter().copied().collect());
    }
    // A row that moves on from key to key may stand in several tables: until no further key waits.
    let mut before = 0;
    loop {
        let waits: Vec<_> = written.iter().map(|batch| quarantine.pass(batch, &BTreeSet::new())).collect();
        let found = waits.iter().map(BTreeMap::len).sum();
        if found == before {
            let rows = written.iter().zip(&waits).filter(|(_, waits)| !waits.is_empty());
            return rows.map(|(batch, waits)| Ok(batch.partition(|c| waits.contains_key(&c))?.0)).collect();
        }
        before = found;
    }
}

/// Why a change that waits is a letter.
pub fn reject((change, before): (&u32, &Order)) -> Reject {
    let reason = format!("{BEHIND}: {before}");
    Reject { change: *change, code: Arc::from(WAITS), reason, column: None }
}

fn from_hex(text: &str) -> Option<KeyDigest> {
    let mut digest = KeyDigest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ChangeType;
    use crate::builder::{Cells, RowsBuilder};
    use crate::schema::{Column, Images, TableName, TableSchema};

    /// Updates, each of the row under the first key to the second.
    fn updates(from: i64, keys: &[(&str, &str)], hidden: bool) -> ChangeBatch {
        let columns = vec![Column::new("id", ColumnType::Text).key()];
        let schema = Arc::new(TableSchema::new(TableName::new("s", "t"), columns, Images::Full));
        let mut rows = RowsBuilder::new(SourceKey::new("s.t"), schema, false, 8).expect("a builder");
        for (number, (before, after)) in keys.iter().enumerate() {
            rows.begin_change(Order::new(from + number as i64, 1), 0);
            for (ty, key) in [(ChangeType::UpdatePreimage, before), (ChangeType::UpdatePostimage, after)] {
                rows.begin_row(ty);
                if let Cells::Text(cells) = &mut rows.columns()[0].cells {
                    cells.append_value(key);
                }
            }
        }
        let batch = rows.finish().expect("a batch").expect("rows");
        let policy = Policy { keys: BTreeMap::new(), max_letters: 9 };
        let keys = RowKeys::of(&batch, &policy, "i", |_| hidden).expect("a key");
        batch.origin.keys.set(keys).expect("no keys yet");
        batch
    }

    fn waiting(waits: BTreeMap<u32, Order>) -> Vec<u32> {
        waits.into_keys().collect()
    }

    #[test]
    fn later_changes_of_a_refused_key_wait_and_others_do_not() {
        let mut quarantine = Quarantine::default();
        let batch = updates(1, &[("a", "a"), ("a", "a"), ("b", "b"), ("a", "a")], false);
        assert_eq!(waiting(quarantine.pass(&batch, &[1].into())), [3]);
        assert_eq!(waiting(quarantine.pass(&updates(9, &[("b", "b"), ("a", "a")], false), &BTreeSet::new())), [1]);
        assert_eq!(quarantine.letters(&SourceKey::new("s.t")), 3);
    }

    #[test]
    fn a_change_that_moves_a_waiting_row_makes_its_new_key_wait() {
        let mut quarantine = Quarantine::default();
        let batch = updates(1, &[("a", "a"), ("a", "b"), ("b", "b"), ("c", "c")], false);
        assert_eq!(waiting(quarantine.pass(&batch, &[0].into())), [1, 2]);
    }

    #[test]
    fn stored_letters_make_their_keys_wait_again_whether_shown_or_hidden() {
        for (then, now) in [(false, false), (true, true), (false, true), (true, false)] {
            let mut quarantine = Quarantine::default();
            let letter = updates(1, &[("a", "a")], then);
            let shown: Vec<String> = letter.origin.keys.get().expect("keys").shown(0).into_iter().collect();
            assert_eq!(shown[0] == r#"["a"]"#, !then, "{shown:?}");
            quarantine.recall("i", &letter.origin.source, Order::new(1, 1), &shown);
            let batch = updates(2, &[("b", "b"), ("a", "a")], now);
            assert_eq!(waiting(quarantine.pass(&batch, &BTreeSet::new())), [1], "{then} {now}");
        }
    }
}
