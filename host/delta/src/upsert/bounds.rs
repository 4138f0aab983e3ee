//! What the statistics of a file say of its rows and of its first key column.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{Array, StringArray};
use arrow_schema::{DataType, TimeUnit};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::keys::{Bounds, KeyForm, escape, integer, long};
use crate::log::actions::Add;
use crate::log::schema::DeltaType;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    num_records: Option<u64>,
    #[serde(borrow, default)]
    min_values: HashMap<Cow<'a, str>, &'a RawValue>,
    #[serde(borrow, default)]
    max_values: HashMap<Cow<'a, str>, &'a RawValue>,
}

/// Known of a file without reading it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Physical rows, the deleted ones included.
    pub rows: Option<u64>,
    /// `None`: its keys may be anywhere.
    pub bounds: Option<Bounds>,
}

/// Readers truncate timestamps to milliseconds, some writers also the greatest one.
const MILLISECOND: i64 = 1_000;

pub(crate) fn facts(add: &Add, form: &KeyForm) -> Facts {
    let Some(text) = &add.stats else { return Facts::default() };
    let Ok(stats) = serde_json::from_str::<Stats<'_>>(text) else { return Facts::default() };
    let bounds = form.fields.first().and_then(|field| {
        if let Some(value) = add.partition_values.get(&field.name) {
            let text = value.as_deref()?;
            return partition_bounds(text, &field.ty);
        }
        let least = stats.min_values.get(field.name.as_str())?.get();
        let greatest = stats.max_values.get(field.name.as_str())?.get();
        Some(Bounds {
            least: bound(least, &field.ty, false)?.into(),
            greatest: bound(greatest, &field.ty, true)?.into(),
        })
    });
    Facts { rows: stats.num_records, bounds }
}

/// All rows of a file of a partition have one value.
fn partition_bounds(text: &str, ty: &DeltaType) -> Option<Bounds> {
    let json = match ty {
        DeltaType::Byte | DeltaType::Short | DeltaType::Integer | DeltaType::Long => text.to_owned(),
        DeltaType::Text => serde_json::Value::from(text).to_string(),
        _ => return None,
    };
    let value = bound(&json, ty, false)?;
    Some(Bounds { least: value.clone().into(), greatest: value.into() })
}

/// A bound as the first key column is encoded; `None` for types whose bounds readers and writers do not agree on to the
/// last digit.
fn bound(json: &str, ty: &DeltaType, is_greatest: bool) -> Option<Vec<u8>> {
    Some(match ty {
        DeltaType::Byte => vec![json.parse::<i8>().ok()? as u8 ^ 0x80],
        DeltaType::Short => (json.parse::<i16>().ok()? as u16 ^ 1 << 15).to_be_bytes().to_vec(),
        DeltaType::Integer => integer(json.parse().ok()?).to_vec(),
        DeltaType::Long => long(json.parse().ok()?).to_vec(),
        DeltaType::Date => {
            let text: String = serde_json::from_str(json).ok()?;
            let days = arrow_cast::cast(&StringArray::from(vec![text]), &DataType::Date32).ok()?;
            let days = days.as_primitive::<Date32Type>();
            integer(days.is_valid(0).then(|| days.value(0))?).to_vec()
        }
        DeltaType::Timestamp | DeltaType::TimestampNtz => {
            let text: String = serde_json::from_str(json).ok()?;
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
            let micros = arrow_cast::cast(&StringArray::from(vec![text]), &utc).ok()?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>();
            let micros = micros.is_valid(0).then(|| micros.value(0))?;
            long(if is_greatest { micros.checked_add(MILLISECOND)? } else { micros.checked_sub(MILLISECOND)? }).to_vec()
        }
        DeltaType::Text => {
            let text: String = serde_json::from_str(json).ok()?;
            let mut bytes = Vec::with_capacity(text.len() + 2);
            escape(text.as_bytes(), &mut bytes);
            bytes
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::sync::Arc;

    use super::*;
    use crate::log::schema::Field;
    use arrow_array::{ArrayRef, Int64Array, TimestampMicrosecondArray};

    fn add(stats: &str) -> Add {
        Add {
            path: "a".into(),
            partition_values: Default::default(),
            size: 1,
            modification_time: 0,
            data_change: true,
            stats: Some(stats.into()),
            tags: None,
            deletion_vector: None,
        }
    }

    fn place(ty: DeltaType, stats: &str, key: ArrayRef) -> Option<Ordering> {
        let form = KeyForm { fields: vec![Field::new("k", ty)] };
        let bounds = facts(&add(stats), &form).bounds?;
        Some(form.compare(form.encode(&[key]).unwrap().get(0), &bounds))
    }

    #[test]
    fn keys_are_placed_by_the_statistics_of_their_file() {
        let long = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
        let stats = r#"{"numRecords":3,"minValues":{"k":-5},"maxValues":{"k":7},"nullCount":{"k":0}}"#;
        for (key, order) in [(-6, Ordering::Less), (-5, Ordering::Equal), (7, Ordering::Equal), (8, Ordering::Greater)]
        {
            assert_eq!(place(DeltaType::Long, stats, long(key)), Some(order), "{key}");
        }
        let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
        let stats = r#"{"numRecords":3,"minValues":{"k":"b\u0000"},"maxValues":{"k":"dé"}}"#;
        for (key, order) in
            [("b", Ordering::Less), ("b\0a", Ordering::Equal), ("dé", Ordering::Equal), ("dée", Ordering::Greater)]
        {
            assert_eq!(place(DeltaType::Text, stats, text(key)), Some(order), "{key}");
        }
        let at = |v: i64| Arc::new(TimestampMicrosecondArray::from(vec![v]).with_timezone("UTC")) as ArrayRef;
        let stats = r#"{"numRecords":3,"minValues":{"k":"1970-01-01T00:00:01.000Z"},"maxValues":{"k":"1970-01-01T00:00:02.000Z"}}"#;
        for (key, order) in [(998_000, Ordering::Less), (2_000_999, Ordering::Equal), (2_001_001, Ordering::Greater)] {
            assert_eq!(place(DeltaType::Timestamp, stats, at(key)), Some(order), "{key}");
        }
    }

    #[test]
    fn a_file_without_usable_statistics_may_hold_any_key() {
        let form = KeyForm { fields: vec![Field::new("k", DeltaType::Long)] };
        for stats in [
            "",
            "{}",
            r#"{"numRecords":3}"#,
            r#"{"numRecords":3,"minValues":{"k":1}}"#,
            r#"{"minValues":{"k":"x"},"maxValues":{"k":"y"}}"#,
        ] {
            assert_eq!(facts(&add(stats), &form).bounds, None, "{stats}");
        }
        assert_eq!(facts(&add(r#"{"numRecords":3}"#), &form).rows, Some(3));
    }
}
