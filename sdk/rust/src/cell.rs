//! What one cell holds.

use std::fmt;

/// A cell as the source sent it: *not sent* is neither NULL nor a value.
///
/// PostgreSQL leaves out large columns that an update did not change, and the columns beside the key in a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<T> {
    /// SQL NULL.
    Null,
    /// A value.
    Value(T),
    /// The source did not send this cell.
    NotSent,
}

impl<T> Cell<T> {
    /// The value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Cell::Value(value) => Some(value),
            Cell::Null | Cell::NotSent => None,
        }
    }

    /// Applies `f` to the value; NULL and not sent stay what they are.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Cell<U> {
        match self {
            Cell::Null => Cell::Null,
            Cell::Value(value) => Cell::Value(f(value)),
            Cell::NotSent => Cell::NotSent,
        }
    }

    /// Applies `f`, which may fail, to the value; NULL and not sent stay what they are.
    ///
    /// # Errors
    /// The error of `f`.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Cell<U>, E> {
        Ok(match self {
            Cell::Null => Cell::Null,
            Cell::Value(value) => Cell::Value(f(value)?),
            Cell::NotSent => Cell::NotSent,
        })
    }
}

/// A value of any type, borrowed from the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `boolean`
    Bool(bool),
    /// `int8`, `int16`, `int32`, `int64`
    Int(i64),
    /// `uint64`
    UInt(u64),
    /// `float32`, `float64`
    Float(f64),
    /// `decimal64`, `decimal`
    Decimal(Decimal<'a>),
    /// `text`
    Text(&'a str),
    /// `binary`
    Binary(&'a [u8]),
    /// `uuid`
    Uuid(Uuid),
    /// `date`: days since 1970-01-01
    Date(Moment),
    /// `time`: microseconds since midnight
    Time(i64),
    /// `timestamp`: microseconds since 1970-01-01 in an unknown zone
    Timestamp(Moment),
    /// `timestamp-tz`: microseconds since 1970-01-01 UTC
    TimestampTz(Moment),
    /// `json`: one JSON document
    Json(&'a str),
    /// A type that this SDK does not know: its bytes, to be passed on.
    Other(&'a [u8]),
}

impl Value<'_> {
    /// As a float, for comparisons of numbers of whatever type. None for what is no number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(v) => Some(*v as f64),
            Value::UInt(v) => Some(*v as f64),
            Value::Float(v) => Some(*v),
            Value::Decimal(v) => v.to_string().parse().ok(),
            _ => None,
        }
    }
}

/// As text, the way the console and the dead letters show it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int(v) | Value::Time(v) => write!(f, "{v}"),
            Value::UInt(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v}"),
            Value::Decimal(v) => write!(f, "{v}"),
            Value::Text(v) | Value::Json(v) => f.write_str(v),
            Value::Binary(v) | Value::Other(v) => v.iter().try_for_each(|b| write!(f, "{b:02x}")),
            Value::Uuid(v) => write!(f, "{v}"),
            Value::Date(v) | Value::Timestamp(v) | Value::TimestampTz(v) => write!(f, "{v}"),
        }
    }
}

/// A point in time, or one of the two infinities that PostgreSQL knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Before everything.
    NegInfinity,
    /// Days or microseconds since 1970-01-01, as the type says.
    At(i64),
    /// After everything.
    Infinity,
}

impl Moment {
    pub(crate) fn from_days(days: i32) -> Self {
        match days {
            i32::MIN => Moment::NegInfinity,
            i32::MAX => Moment::Infinity,
            days => Moment::At(i64::from(days)),
        }
    }

    pub(crate) fn from_micros(micros: i64) -> Self {
        match micros {
            i64::MIN => Moment::NegInfinity,
            i64::MAX => Moment::Infinity,
            micros => Moment::At(micros),
        }
    }

    /// As it travels in an `i64s` column.
    pub fn to_i64(self) -> i64 {
        match self {
            Moment::NegInfinity => i64::MIN,
            Moment::At(value) => value,
            Moment::Infinity => i64::MAX,
        }
    }

    /// As it travels in an `i32s` column. None: out of range.
    pub fn to_i32(self) -> Option<i32> {
        match self {
            Moment::NegInfinity => Some(i32::MIN),
            Moment::At(value) => i32::try_from(value).ok(),
            Moment::Infinity => Some(i32::MAX),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::NegInfinity => f.write_str("-infinity"),
            Moment::At(value) => write!(f, "{value}"),
            Moment::Infinity => f.write_str("infinity"),
        }
    }
}

/// A decimal number, never by way of a float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimal<'a> {
    /// `decimal64`: `unscaled` / 10^`scale`
    Unscaled {
        /// -12.50 with scale 2 is -1250
        unscaled: i64,
        /// digits after the point; may be negative
        scale: i8,
    },
    /// `decimal`: canonical text such as "-12.50"; unconstrained ones also "NaN" and "Infinity"
    Text(&'a str),
}

impl Decimal<'_> {
    /// The number times 10^`digits` as an integer, if it is one that fits: `-12.5` with 2 digits is -1250.
    pub fn scaled(&self, digits: u8) -> Option<i64> {
        match *self {
            Decimal::Unscaled { unscaled, scale } => shift(unscaled, i32::from(digits) - i32::from(scale)),
            Decimal::Text(text) => scaled_text(text.as_bytes(), digits),
        }
    }
}

fn shift(value: i64, by: i32) -> Option<i64> {
    let power = 10i64.checked_pow(by.unsigned_abs());
    if by >= 0 {
        return if value == 0 { Some(0) } else { value.checked_mul(power?) };
    }
    match power {
        Some(power) => (value % power == 0).then(|| value / power),
        None => (value == 0).then_some(0),
    }
}

/// Parses a decimal such as `-12.50` to an integer of `digits` digits after the point: -1250 for 2.
///
/// None: not a plain decimal, more digits than `digits` that are not zero, or out of the range of an i64.
pub fn scaled_text(text: &[u8], digits: u8) -> Option<i64> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    // Wherever nothing can overflow, without looking: WebAssembly has no instruction that tells, so that each checked
    // multiplication of 64 bits is a call.
    if unsigned.len() + usize::from(digits) <= 18 {
        return scaled_short(negative, unsigned, digits);
    }
    // Summed as a negative number: i64::MIN has no positive counterpart.
    let (mut sum, mut after_point, mut seen_digit, mut seen_point) = (0i64, 0u8, false, false);
    for &byte in unsigned {
        match byte {
            b'0'..=b'9' if seen_point && after_point == digits => {
                if byte != b'0' {
                    return None;
                }
            }
            b'0'..=b'9' => {
                sum = sum.checked_mul(10)?.checked_sub(i64::from(byte - b'0'))?;
                after_point += u8::from(seen_point);
                seen_digit = true;
            }
            b'.' if !seen_point => seen_point = true,
            _ => return None,
        }
    }
    if !seen_digit {
        return None;
    }
    for _ in after_point..digits {
        sum = sum.checked_mul(10)?;
    }
    if negative { Some(sum) } else { sum.checked_neg() }
}

/// As [`scaled_text`], for text that can not come to more than 18 digits.
fn scaled_short(negative: bool, unsigned: &[u8], digits: u8) -> Option<i64> {
    let point = unsigned.iter().position(|b| *b == b'.').unwrap_or(unsigned.len());
    let (whole, fraction) = (&unsigned[..point], unsigned.get(point + 1..).unwrap_or_default());
    let (kept, rest) = fraction.split_at(fraction.len().min(usize::from(digits)));
    let digit = |byte: &u8| byte.wrapping_sub(b'0');
    let plain = whole.len() + fraction.len() > 0 && whole.iter().chain(kept).all(|b| digit(b) < 10);
    if !plain || rest.iter().any(|b| *b != b'0') {
        return None;
    }
    let sum = whole.iter().chain(kept).fold(0i64, |sum, b| sum * 10 + i64::from(digit(b)));
    let sum = (kept.len()..usize::from(digits)).fold(sum, |sum, _| sum * 10);
    Some(if negative { -sum } else { sum })
}

impl fmt::Display for Decimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Decimal::Text(text) => f.write_str(text),
            Decimal::Unscaled { unscaled: 0, scale } if scale <= 0 => f.write_str("0"),
            Decimal::Unscaled { unscaled, scale } if scale <= 0 => {
                write!(f, "{unscaled}{:0<width$}", "", width = usize::from(scale.unsigned_abs()))
            }
            Decimal::Unscaled { unscaled, scale } => {
                let width = usize::from(scale.unsigned_abs());
                let digits = format!("{:0>1$}", unscaled.unsigned_abs(), width + 1);
                let (whole, fraction) = digits.split_at(digits.len() - width);
                let sign = if unscaled < 0 { "-" } else { "" };
                write!(f, "{sign}{whole}.{fraction}")
            }
        }
    }
}

/// The 16 bytes of a UUID; displayed in the usual form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Uuid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a UUID");
        let mut bytes = [0; 16];
        let mut digits = text.bytes().filter(|b| *b != b'-').map(|b| (b as char).to_digit(16));
        for byte in &mut bytes {
            let mut nibble = || digits.next().flatten().ok_or_else(bad);
            *byte = (nibble()? * 16 + nibble()?) as u8;
        }
        if digits.next().is_some() { Err(bad()) } else { Ok(Uuid(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_text_become_scaled_integers_exactly() {
        for (text, digits, expected) in [
            ("-12.50", 2, Some(-1250)),
            ("12", 2, Some(1200)),
            ("12.500", 2, Some(1250)),
            ("12.501", 2, None),
            (".5", 2, Some(50)),
            ("-92233720368547758.08", 2, Some(i64::MIN)),
            ("92233720368547758.08", 2, None),
            ("NaN", 2, None),
            ("", 2, None),
            ("-", 2, None),
            ("1.2.3", 2, None),
            ("1.", 2, Some(100)),
            (".", 2, None),
            ("1.2x", 1, None),
            ("1,20", 2, None),
            ("7", 0, Some(7)),
        ] {
            assert_eq!(scaled_text(text.as_bytes(), digits), expected, "{text}");
            // The same number in more digits than the short way takes.
            if text.starts_with(|c: char| c.is_ascii_digit()) {
                let long = format!("{}{text}", "0".repeat(18));
                assert_eq!(scaled_text(long.as_bytes(), digits), expected, "{long}");
            }
        }
    }

    #[test]
    fn decimals_print_with_their_scale() {
        for (unscaled, scale, expected) in
            [(-1250, 2, "-12.50"), (5, 2, "0.05"), (-5, 1, "-0.5"), (12, 0, "12"), (12, -3, "12000")]
        {
            assert_eq!(Decimal::Unscaled { unscaled, scale }.to_string(), expected);
        }
        assert_eq!(Decimal::Unscaled { unscaled: 1250, scale: 3 }.scaled(2), Some(125));
        assert_eq!(Decimal::Unscaled { unscaled: 1255, scale: 3 }.scaled(2), None);
    }

    #[test]
    fn a_uuid_reads_what_it_prints() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(text.parse::<Uuid>().map(|u| u.to_string()).as_deref(), Ok(text));
        assert!("a0eebc99".parse::<Uuid>().is_err());
    }
}
