//! Millrace's own columns.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::types::Int8Type;
use arrow_array::{ArrayRef, DictionaryArray, Int8Array, StringArray, TimestampMicrosecondArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field as ArrowField};
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::position::Order;

use crate::log::schema::{DeltaType, Field};

/// Text that sorts as the position does ([`Order::to_sortable`]).
pub(crate) const POSITION: &str = "_millrace_position";
/// When the change was committed at its source.
pub(crate) const COMMIT_TIME: &str = "_millrace_commit_time";
/// Names of columns whose value the source did not send; NULL where all are there.
pub(crate) const UNAVAILABLE: &str = "_millrace_unavailable";
/// `insert`, `update_preimage`, `update_postimage`, `delete`, `truncate`.
pub(crate) const CHANGE_TYPE: &str = "_millrace_change_type";

/// Which of our columns a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetaColumns {
    pub change_type: bool,
    /// The names of values that were not sent; a table of current rows has them all.
    pub unavailable: bool,
}

impl MetaColumns {
    /// The flat ones first: statistics count leaves.
    pub(crate) fn fields(self) -> Vec<Field> {
        let mut fields = vec![Field::new(POSITION, DeltaType::Text), Field::new(COMMIT_TIME, DeltaType::Timestamp)];
        if self.change_type {
            fields.push(Field::new(CHANGE_TYPE, DeltaType::Text));
        }
        if self.unavailable {
            fields.push(Field::new(UNAVAILABLE, DeltaType::TextList));
        }
        fields
    }

    /// `names`: the table's names of the batch's columns.
    pub(crate) fn append(self, batch: &ChangeBatch, names: &[String], arrays: &mut Vec<ArrayRef>) {
        arrays.push(Arc::new(positions(batch)));
        let times = batch.changes.iter().map(|change| batch.origin.commit_times[*change as usize]);
        arrays.push(Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")));
        if self.change_type {
            arrays.push(change_types(&batch.change_types));
        }
        if self.unavailable {
            arrays.push(unavailable(batch, names));
        }
    }
}

/// [`Order::to_sortable`] of every row, written into one buffer.
fn positions(batch: &ChangeBatch) -> StringArray {
    let mut bytes: Vec<u8> = Vec::with_capacity(batch.rows() * 33);
    let mut offsets: Vec<i32> = Vec::with_capacity(batch.rows() + 1);
    offsets.push(0);
    let mut previous = None;
    let mut last = 0..0;
    for change in &batch.changes {
        if previous == Some(*change) {
            bytes.extend_from_within(last.clone());
        } else {
            let start = bytes.len();
            sortable(batch.origin.orders[*change as usize], &mut bytes);
            last = start..bytes.len();
            previous = Some(*change);
        }
        // A batch holds 1,000 rows or some MiB: its positions stay far below 2 GiB.
        offsets.push(bytes.len() as i32);
    }
    StringArray::new(OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(bytes), None)
}

/// Appends what [`Order::to_sortable`] answers, without a string of its own.
fn sortable(order: Order, into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let used = if order.0[2] == 0 && order.0[3] == 0 { 2 } else { 4 };
    for (i, component) in order.0[..used].iter().enumerate() {
        if i > 0 {
            into.push(b'-');
        }
        let bytes = ((*component as u64) ^ (1 << 63)).to_be_bytes();
        let mut digits = [0; 16];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        into.extend_from_slice(&digits);
    }
}

/// Five words, by their place in [`ChangeType`]'s numbers.
fn change_types(types: &[ChangeType]) -> ArrayRef {
    let keys = Int8Array::from_iter_values(types.iter().map(|t| *t as i8 - 1));
    let words: ArrayRef =
        Arc::new(StringArray::from_iter_values((1..=5).filter_map(ChangeType::from_code).map(ChangeType::name)));
    let dictionary = DictionaryArray::<Int8Type>::try_new(keys, words);
    match dictionary.map(|d| arrow_cast::cast(&d, &DataType::Utf8)) {
        Ok(Ok(texts)) => texts,
        _ => Arc::new(StringArray::from_iter_values(types.iter().map(|t| t.name()))),
    }
}

fn unavailable(batch: &ChangeBatch, names: &[String]) -> ArrayRef {
    let element = ArrowField::new("element", DataType::Utf8, false);
    let mut lists = ListBuilder::with_capacity(StringBuilder::new(), batch.rows()).with_field(element);
    if batch.unavailable.iter().all(Option::is_none) {
        for _ in 0..batch.rows() {
            lists.append_null();
        }
        return Arc::new(lists.finish());
    }
    for row in 0..batch.rows() {
        let mut any = false;
        for (column, name) in names.iter().enumerate() {
            if batch.is_unavailable(column, row) {
                lists.values().append_value(name);
                any = true;
            }
        }
        lists.append(any);
    }
    Arc::new(lists.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_are_the_orders_sortable_text(components in any::<[i64; 4]>(), short in any::<bool>()) {
            let order = if short { Order::new(components[0], components[1]) } else { Order(components) };
            let mut bytes = Vec::new();
            sortable(order, &mut bytes);
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), order.to_sortable());
        }
    }

    #[test]
    fn change_types_become_their_words() {
        use arrow_array::cast::AsArray;
        let all = [
            ChangeType::Insert,
            ChangeType::UpdatePreimage,
            ChangeType::UpdatePostimage,
            ChangeType::Delete,
            ChangeType::Truncate,
        ];
        let texts = change_types(&all);
        for (i, ty) in all.iter().enumerate() {
            assert_eq!(texts.as_string::<i32>().value(i), ty.name());
        }
    }
}
