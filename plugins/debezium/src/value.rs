//! One JSON value into one cell.

use millrace_sdk::prelude::*;
use millrace_sdk::{Moment, Out};
use serde_json::value::RawValue;

const UNAVAILABLE: &str = "__debezium_unavailable_value";
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
/// The first and last day that PostgreSQL has (4714-11-24 BC, 5874897-12-31). Debezium writes infinite dates as days outside.
const DAYS: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_042_905;
/// Bytes of a decimal: more than any server's has.
const DECIMAL_BYTES: usize = 128;

/// How the values of a column stand in the JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    /// A number or boolean as it is, anything else as its usual text; times in microseconds, dates in days.
    Plain,
    Millis,
    Nanos,
    Base64,
    /// An unscaled integer as base64, or a plain number, alone or in a string with a point; with so many digits after the point.
    Decimal(i32),
    /// `{"scale": 2, "value": base64}`.
    VariableDecimal,
    /// Any value as its JSON text.
    Nested,
}

/// How Debezium writes decimals where no schema says so.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Decimals {
    String,
    Base64,
}

/// Sets the cell. `unsent`: a null stands for what the source did not send.
pub fn put(
    cell: &mut Out,
    column: &ColumnDef,
    encoding: Encoding,
    raw: Option<&str>,
    unsent: bool,
) -> Result<(), Reject> {
    match raw.filter(|raw| *raw != "null") {
        Some(raw) if is_unavailable(raw) && !column.key => cell.set_not_sent(),
        Some(raw) => {
            let shown = || raw.chars().take(40).collect::<String>();
            value(cell, encoding, raw).ok_or_else(|| {
                Reject::new("debezium.value", format!("{}: {} is no {}", column.name, shown(), column.ty))
            })?;
        }
        None if unsent => cell.set_not_sent(),
        None if column.nullable => cell.set_null(),
        None => return Err(Reject::new("debezium.null", format!("{} is null, and it may not be", column.name))),
    }
    Ok(())
}

/// Debezium's placeholder, in one of the forms it has for text, bytes and arrays.
fn is_unavailable(raw: &str) -> bool {
    let inner = raw.strip_prefix('[').and_then(|r| r.strip_suffix(']')).map_or(raw, str::trim);
    let text = inner.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    text.is_some_and(|t| t == UNAVAILABLE || t == UNAVAILABLE_BASE64)
}

fn value(cell: &mut Out, encoding: Encoding, raw: &str) -> Option<()> {
    let unquoted;
    let text = match raw.starts_with('"') {
        true => {
            unquoted = serde_json::from_str::<String>(raw).ok()?;
            unquoted.as_str()
        }
        false => raw,
    };
    match encoding {
        Encoding::Nested => cell.push_str(raw),
        Encoding::Base64 => cell.push_bytes(&base64(text)?),
        Encoding::Millis => cell.set_int(number(text)?.saturating_mul(1_000)).ok()?,
        Encoding::Nanos => {
            let nanos = number(text)?;
            let infinite = matches!(nanos, i64::MIN | i64::MAX);
            cell.set_int(if infinite { nanos } else { nanos.div_euclid(1_000) }).ok()?;
        }
        Encoding::Decimal(scale) if raw.starts_with('"') && !text.contains('.') => {
            cell.set_text(&decimal(&base64(text)?, scale)?).ok()?;
        }
        Encoding::VariableDecimal => {
            #[derive(Deserialize)]
            struct Variable {
                scale: i32,
                value: String,
            }
            let Variable { scale, value } = serde_json::from_str(raw).ok()?;
            cell.set_text(&decimal(&base64(&value)?, scale)?).ok()?;
        }
        Encoding::Plain | Encoding::Decimal(_) => return plain(cell, raw, text),
    }
    Some(())
}

fn plain(cell: &mut Out, raw: &str, text: &str) -> Option<()> {
    let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match cell.data_type() {
        DataType::Date if is_number => {
            let days = number(raw)?;
            let moment = match days {
                _ if days > *DAYS.end() => Moment::Infinity,
                _ if days < *DAYS.start() => Moment::NegInfinity,
                _ => Moment::At(days),
            };
            cell.set(Value::Date(moment)).ok()?;
        }
        DataType::Time | DataType::Timestamp | DataType::TimestampTz if is_number => cell.set_int(number(raw)?).ok()?,
        // As Debezium writes times of day and dates in ISO 8601.
        DataType::Time | DataType::Date => cell.set_text(text.trim_end_matches('Z')).ok()?,
        // A document that stands there as it is, and one in a string.
        DataType::Json => cell.set_text(serde_json::from_str::<&RawValue>(text).ok()?.get()).ok()?,
        _ => cell.set_text(text).ok()?,
    }
    Some(())
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.as_bytes().chunks(4) {
        let bits = group.iter().try_fold(0u32, |bits, byte| Some(bits << 6 | u32::from(digit(*byte)?)))?;
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend(bits.to_be_bytes().iter().skip(1).take(group.len() - 1));
    }
    Some(bytes)
}

/// An unscaled big-endian integer in two's complement, as plain text with `scale` digits after the point.
fn decimal(bytes: &[u8], scale: i32) -> Option<String> {
    if bytes.is_empty() || bytes.len() > DECIMAL_BYTES || scale.unsigned_abs() > 20_000 {
        return None;
    }
    let negative = bytes[0] >= 0x80;
    let mut size: Vec<u8> = bytes.iter().map(|b| if negative { !b } else { *b }).collect();
    if negative {
        for byte in size.iter_mut().rev() {
            let (next, carried) = byte.overflowing_add(1);
            *byte = next;
            if !carried {
                break;
            }
        }
        // The least number of its width has no positive counterpart in it: the carry went through.
        if size.iter().all(|b| *b == 0) {
            size.insert(0, 1);
        }
    }
    // Decimal digits, the last one first.
    let mut digits: Vec<u8> = vec![0];
    for byte in size {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            let sum = u32::from(*digit) * 256 + carry;
            *digit = (sum % 10) as u8;
            carry = sum / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    let width = usize::try_from(scale.max(0)).ok()?;
    let mut text: String = digits.iter().rev().map(|d| char::from(b'0' + d)).collect();
    text.extend(std::iter::repeat_n('0', usize::try_from((-scale).max(0)).ok()?));
    let text = format!("{text:0>least$}", least = width + 1);
    let (whole, fraction) = text.split_at(text.len() - width);
    let point = if width == 0 { "" } else { "." };
    Some(format!("{}{whole}{point}{fraction}", if negative { "-" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_and_decimals_are_what_connect_writes() {
        assert_eq!(base64("SGk=").as_deref(), Some(&b"Hi"[..]));
        assert_eq!(base64("AP8Q").as_deref(), Some(&[0, 255, 16][..]));
        assert_eq!((base64("SGk"), base64("S*k=")), (None, None));
        for (bytes, scale, text) in [
            (&[0x04, 0xe2][..], 2, "12.50"),
            (&[0xfb, 0x1e], 2, "-12.50"),
            (&[0x80], 0, "-128"),
            (&[0x05], 3, "0.005"),
            (&[0xff], 1, "-0.1"),
            (&[0x0c], -2, "1200"),
            (&[0x00], 2, "0.00"),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, "340282366920938463463374607431768211456"),
        ] {
            assert_eq!(decimal(bytes, scale).as_deref(), Some(text));
        }
    }
}
