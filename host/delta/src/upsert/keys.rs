//! Keys of rows as bytes: equal keys are equal bytes, and bytes sort as the first key column does.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use millrace_core::{Error, Result};

use crate::log::schema::{DeltaType, Field};

/// The key columns of a table, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyForm {
    pub fields: Vec<Field>,
}

/// The keys of some rows, in the order of the rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    /// Where each key ends.
    ends: Vec<u32>,
    /// Rows of which a key column is NULL: they have no key. Ascending.
    pub without: Vec<u32>,
}

/// Keys of up to this many bytes are their own code: nothing needs to be read to compare them.
const EXACT_BYTES: usize = 8;
/// Digits of a decimal that fit in 8 bytes.
const LONG_DIGITS: u8 = 18;

impl Keys {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Meaningless for a row without a key.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..self.ends[row] as usize]
    }

    pub(crate) fn has(&self, row: usize) -> bool {
        self.without.binary_search(&(row as u32)).is_err()
    }
}

impl KeyForm {
    /// Bytes of every key; `None` where they differ in length.
    fn width(&self) -> Option<usize> {
        self.fields.iter().map(|f| width(&f.ty)).sum()
    }

    /// Names and types, in order.
    pub(crate) fn shown(&self) -> String {
        let columns: Vec<String> = self.fields.iter().map(|f| format!("{} {}", f.name, f.ty)).collect();
        columns.join(", ")
    }

    /// Whether a key's code says it all.
    pub(crate) fn is_exact(&self) -> bool {
        self.width().is_some_and(|w| w <= EXACT_BYTES)
    }

    /// What the index holds of a key: of an exact form the key itself, shuffled; else a hash, which only filters.
    pub(crate) fn code(&self, key: &[u8]) -> u64 {
        if self.is_exact() { shuffled(padded(key)) } else { hash(key) }
    }

    /// `columns`: one for each key column, in the table's types. Errors: `internal.bug` for a type that is no key.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<Keys> {
        let rows = columns.first().map_or(0, |c| c.len());
        let mut keys = Keys::default();
        let encoders = columns.iter().zip(&self.fields).map(|(c, f)| encoder(c, &f.ty)).collect::<Result<Vec<_>>>()?;
        keys.bytes.reserve(rows * self.width().unwrap_or(16));
        keys.ends.reserve(rows);
        let nullable = columns.iter().any(|c| c.null_count() > 0);
        for row in 0..rows {
            if nullable && columns.iter().any(|c| c.is_null(row)) {
                keys.without.push(row as u32);
            } else {
                encoders.iter().for_each(|encode| encode(row, &mut keys.bytes));
            }
            let end = u32::try_from(keys.bytes.len());
            keys.ends.push(end.map_err(|_| Error::bug("the keys of one batch take more than 4 GiB"))?);
        }
        Ok(keys)
    }

    /// The first column's part of a key.
    pub(crate) fn first<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        match self.fields.first().map(|f| width(&f.ty)) {
            Some(Some(width)) => &key[..width.min(key.len())],
            _ => match key.windows(2).position(|w| w == TERMINATOR) {
                // An escaped zero is followed by 0xff, so the first pair of zeros ends the text.
                Some(end) => &key[..end + 2],
                None => key,
            },
        }
    }

    /// Whether `key`'s first column lies in `bounds`.
    pub(crate) fn compare(&self, key: &[u8], bounds: &Bounds) -> Ordering {
        let first = self.first(key);
        if first < &bounds.least[..] {
            Ordering::Less
        } else if first > &bounds.greatest[..] {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    }
}

/// Least and greatest value of the first key column in a file, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub least: Box<[u8]>,
    pub greatest: Box<[u8]>,
}

/// Whether rows can be found by a column of this type.
pub(crate) fn can_be_key(ty: &DeltaType) -> bool {
    !matches!(ty, DeltaType::TextList | DeltaType::Foreign(_))
}

fn width(ty: &DeltaType) -> Option<usize> {
    Some(match ty {
        DeltaType::Boolean | DeltaType::Byte => 1,
        DeltaType::Short => 2,
        DeltaType::Integer | DeltaType::Date | DeltaType::Float => 4,
        DeltaType::Long | DeltaType::Timestamp | DeltaType::TimestampNtz | DeltaType::Double => 8,
        DeltaType::Decimal { precision, .. } if *precision <= LONG_DIGITS => 8,
        DeltaType::Decimal { .. } => 16,
        DeltaType::Text | DeltaType::Binary | DeltaType::TextList | DeltaType::Foreign(_) => return None,
    })
}

type Encoder<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + Send + Sync + 'a>;

fn primitive<'a, T: ArrowPrimitiveType, const N: usize>(
    cells: &'a ArrayRef,
    bytes: impl Fn(T::Native) -> [u8; N] + Send + Sync + 'a,
) -> Encoder<'a> {
    let cells = cells.as_primitive::<T>();
    Box::new(move |row, into| into.extend_from_slice(&bytes(cells.value(row))))
}

/// Numbers become big-endian with the sign flipped, texts are escaped: both sort as their values do.
fn encoder<'a>(cells: &'a ArrayRef, ty: &DeltaType) -> Result<Encoder<'a>> {
    Ok(match ty {
        DeltaType::Boolean => {
            let cells = cells.as_boolean();
            Box::new(move |row, into| into.push(u8::from(cells.value(row))))
        }
        DeltaType::Byte => primitive::<Int8Type, 1>(cells, |v| [v as u8 ^ 0x80]),
        DeltaType::Short => primitive::<Int16Type, 2>(cells, |v| (v as u16 ^ 1 << 15).to_be_bytes()),
        DeltaType::Integer => primitive::<Int32Type, 4>(cells, integer),
        DeltaType::Date => primitive::<Date32Type, 4>(cells, integer),
        DeltaType::Long => primitive::<Int64Type, 8>(cells, long),
        DeltaType::Timestamp | DeltaType::TimestampNtz => primitive::<TimestampMicrosecondType, 8>(cells, long),
        DeltaType::Float => primitive::<Float32Type, 4>(cells, float),
        DeltaType::Double => primitive::<Float64Type, 8>(cells, double),
        DeltaType::Decimal { precision, .. } if *precision <= LONG_DIGITS => {
            primitive::<Decimal128Type, 8>(cells, |v| long(v as i64))
        }
        DeltaType::Decimal { .. } => primitive::<Decimal128Type, 16>(cells, wide),
        DeltaType::Text => {
            let cells = cells.as_string::<i32>();
            Box::new(move |row, into| escape(cells.value(row).as_bytes(), into))
        }
        DeltaType::Binary => {
            let cells = cells.as_binary::<i32>();
            Box::new(move |row, into| escape(cells.value(row), into))
        }
        DeltaType::TextList | DeltaType::Foreign(_) => return Err(Error::bug(format!("a key of type {ty}"))),
    })
}

pub(super) fn integer(value: i32) -> [u8; 4] {
    (value as u32 ^ 1 << 31).to_be_bytes()
}

pub(super) fn long(value: i64) -> [u8; 8] {
    (value as u64 ^ 1 << 63).to_be_bytes()
}

pub(super) fn wide(value: i128) -> [u8; 16] {
    (value as u128 ^ 1 << 127).to_be_bytes()
}

/// As databases compare them: both zeros are one, every NaN is one and above all others.
fn float(value: f32) -> [u8; 4] {
    let value = if value.is_nan() { f32::NAN } else { value + 0.0 };
    let bits = value.to_bits();
    (if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }).to_be_bytes()
}

fn double(value: f64) -> [u8; 8] {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = value.to_bits();
    (if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }).to_be_bytes()
}

const TERMINATOR: [u8; 2] = [0, 0];

/// A zero byte becomes `00 ff`, the end `00 00`: no key is another's beginning, and order is kept.
pub(super) fn escape(text: &[u8], into: &mut Vec<u8>) {
    if text.contains(&0) {
        for byte in text {
            into.push(*byte);
            if *byte == 0 {
                into.push(0xff);
            }
        }
    } else {
        into.extend_from_slice(text);
    }
    into.extend_from_slice(&TERMINATOR);
}

fn padded(key: &[u8]) -> u64 {
    let mut bytes = [0; EXACT_BYTES];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

/// One to one (the finaliser of SplitMix64), so that neighbours are spread over the whole range.
fn shuffled(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn hash(key: &[u8]) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ key.len() as u64;
    for chunk in key.chunks(8) {
        state = shuffled(state.rotate_left(23) ^ padded(chunk));
    }
    state
}

/// The columns of a key, by name, out of columns of a table.
pub(crate) fn form(names: &[String], fields: &[Field]) -> Option<KeyForm> {
    let found = names.iter().map(|name| fields.iter().find(|f| f.name == *name).cloned());
    Some(KeyForm { fields: found.collect::<Option<_>>()? })
}

/// A key for people: `id=7, region=eu`.
pub(crate) fn shown(form: &KeyForm, columns: &[ArrayRef], row: usize) -> String {
    let cell = |column: &ArrayRef| {
        let one = column.slice(row, 1);
        match arrow_cast::cast(&one, &arrow_schema::DataType::Utf8) {
            Ok(text) => text.as_string::<i32>().value(0).to_owned(),
            Err(_) => "?".to_owned(),
        }
    };
    let parts: Vec<String> =
        form.fields.iter().zip(columns).map(|(field, column)| format!("{}={}", field.name, cell(column))).collect();
    parts.join(", ")
}

/// Shared by whoever looks at one table.
pub(crate) type SharedForm = Arc<KeyForm>;

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Float64Array, Int64Array, StringArray};
    use proptest::prelude::*;

    fn form_of(types: &[DeltaType]) -> KeyForm {
        KeyForm { fields: types.iter().enumerate().map(|(i, ty)| Field::new(format!("k{i}"), ty.clone())).collect() }
    }

    proptest! {
        #[test]
        fn texts_are_equal_where_their_bytes_are_and_sort_alike(a in ".{0,6}", b in ".{0,6}", zero in any::<bool>()) {
            let (a, b) = if zero { (format!("{a}\0"), b) } else { (a, b) };
            let form = form_of(&[DeltaType::Text, DeltaType::Text]);
            let encode = |one: &str, two: &str| -> Vec<u8> {
                let columns: [ArrayRef; 2] = [Arc::new(StringArray::from(vec![one])), Arc::new(StringArray::from(vec![two]))];
                form.encode(&columns).unwrap().get(0).to_vec()
            };
            prop_assert_eq!(encode(&a, &b) == encode(&b, &a), a == b);
            prop_assert_eq!(form.first(&encode(&a, "x")).cmp(form.first(&encode(&b, "x"))), a.as_bytes().cmp(b.as_bytes()));
        }

        #[test]
        fn numbers_sort_as_their_keys_do(a in any::<i64>(), b in any::<i64>(), x in any::<f64>(), y in any::<f64>()) {
            let longs = form_of(&[DeltaType::Long]).encode(&[Arc::new(Int64Array::from(vec![a, b]))]).unwrap();
            prop_assert_eq!(longs.get(0).cmp(longs.get(1)), a.cmp(&b));
            let doubles = form_of(&[DeltaType::Double]).encode(&[Arc::new(Float64Array::from(vec![x, y]))]).unwrap();
            if let Some(order) = x.partial_cmp(&y) {
                prop_assert_eq!(doubles.get(0).cmp(doubles.get(1)), order);
            }
        }

        #[test]
        fn exact_codes_are_one_to_one(a in any::<i64>(), b in any::<i64>()) {
            let form = form_of(&[DeltaType::Long]);
            let keys = form.encode(&[Arc::new(Int64Array::from(vec![a, b]))]).unwrap();
            prop_assert_eq!(form.code(keys.get(0)) == form.code(keys.get(1)), a == b);
        }
    }

    #[test]
    fn rows_of_which_a_key_column_is_null_have_no_key() {
        let form = form_of(&[DeltaType::Long, DeltaType::Text]);
        let columns: [ArrayRef; 2] = [
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec![Some("a"), Some("b"), None])),
        ];
        let keys = form.encode(&columns).unwrap();
        assert_eq!((keys.len(), keys.without.clone()), (3, vec![1, 2]));
        assert!(keys.has(0) && !keys.has(1));
        assert!(!form.is_exact());
        assert_eq!(shown(&form, &columns, 0), "k0=1, k1=a");
    }

    #[test]
    fn zeros_and_nans_are_one_key_each() {
        let cells: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let keys = form_of(&[DeltaType::Double]).encode(&[cells]).unwrap();
        assert_eq!(keys.get(0), keys.get(1));
        assert_eq!(keys.get(2), keys.get(3));
    }
}
