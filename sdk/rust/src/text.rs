//! Cells from their usual text.

use crate::cell::{Uuid, Value, scaled_text};
use crate::error::Reject;
use crate::out::Out;
use crate::schema::DataType;

const DAY: i64 = 86_400_000_000;

impl Out {
    /// Sets a cell of any type from its usual text: plain decimals, `true` and `false`, ISO 8601 for dates and times, `\x…` for
    /// bytes, one JSON document.
    ///
    /// # Errors
    /// The text is none of that type, or does not fit: `text.invalid`.
    pub fn set_text(&mut self, text: &str) -> Result<(), Reject> {
        let ty = self.data_type().clone();
        self.put_text(text, &ty).ok_or_else(|| Reject::new("text.invalid", format!("{text:?} is no {ty}")))
    }

    fn put_text(&mut self, text: &str, ty: &DataType) -> Option<()> {
        match ty {
            DataType::Text => self.push_str(text),
            DataType::Boolean => self.set_bool(match text {
                "true" | "t" | "1" => true,
                "false" | "f" | "0" => false,
                _ => return None,
            }),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                self.set_int(scaled_text(text.as_bytes(), 0)?).ok()?;
            }
            DataType::UInt64 => self.set(Value::UInt(text.parse().ok()?)).ok()?,
            DataType::Float32 | DataType::Float64 => self.set_float(text.parse().ok()?),
            DataType::Decimal64 { precision, scale } => {
                let unscaled = scaled_text(text.as_bytes(), u8::try_from(*scale).ok()?)?;
                (unscaled.unsigned_abs() < 10u64.pow((*precision).into())).then_some(())?;
                self.set_int(unscaled).ok()?;
            }
            DataType::Decimal { precision, scale } => self.push_str(&decimal(text, *precision, *scale)?),
            DataType::Uuid => self.push_bytes(&text.parse::<Uuid>().ok()?.0),
            DataType::Binary => self.push_bytes(&hex(text.strip_prefix("\\x")?)?),
            DataType::Json => {
                serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
                self.push_str(text);
            }
            DataType::Date => {
                self.set_int(infinite(text, i32::MIN.into(), i32::MAX.into()).or_else(|| days(text))?).ok()?
            }
            DataType::Time => self.set_int(time(text)?).ok()?,
            DataType::Timestamp | DataType::TimestampTz => {
                self.set_int(infinite(text, i64::MIN, i64::MAX).or_else(|| micros(text))?).ok()?;
            }
            DataType::Other(_) => return None,
        }
        Some(())
    }
}

fn infinite(text: &str, least: i64, most: i64) -> Option<i64> {
    match text {
        "infinity" => Some(most),
        "-infinity" => Some(least),
        _ => None,
    }
}

/// As the contract has it: exactly `scale` digits after the point; of an unconstrained one those that are there.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let shown = if whole.is_empty() { "0" } else { whole };
    if precision == 0 {
        let point = if fraction.is_empty() { "" } else { "." };
        return Some(format!("{sign}{shown}{point}{fraction}"));
    }
    let width = usize::try_from(scale).ok()?;
    let kept = fraction.trim_end_matches('0');
    if kept.len() > width || whole.len() + width > usize::from(precision) {
        return None;
    }
    let point = if width == 0 { "" } else { "." };
    Some(format!("{sign}{shown}{point}{kept:0<width$}"))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, which repeats after 400 years.
fn days(text: &str) -> Option<i64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=length).contains(&day).then_some(())?;
    // Counted from March, so that the leap day is a year's last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// Microseconds since midnight.
fn time(text: &str) -> Option<i64> {
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':').unwrap_or((rest, "00"));
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let (hours, minutes, seconds) = (number(hours, 2)?, number(minutes, 2)?, number(seconds, 2)?);
    let fits = hours < 24 && minutes < 60 && seconds < 60 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction: i64 = format!("{:0<6}", fraction.get(..6).unwrap_or(fraction)).parse().ok()?;
    fits.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction)
}

/// Microseconds since 1970-01-01, at UTC where the text names an offset.
fn micros(text: &str) -> Option<i64> {
    let Some((date, rest)) = text.split_once(['T', ' ']) else { return days(text)?.checked_mul(DAY) };
    let (clock, offset) = match rest.find(['Z', '+', '-']) {
        None => (rest, 0),
        Some(at) if &rest[at..] == "Z" => (&rest[..at], 0),
        Some(at) => {
            let (sign, offset) = rest[at..].split_at(1);
            let digits = offset.replace(':', "");
            let (hours, minutes) = digits.split_at_checked(2)?;
            let minutes = if minutes.is_empty() { 0 } else { number(minutes, 2)? };
            let offset = (number(hours, 2)? * 60 + minutes) * 60_000_000;
            (&rest[..at], if sign == "-" { -offset } else { offset })
        }
    };
    Some(days(date)? * DAY + time(clock)? - offset)
}

fn number(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_count_from_1970() {
        for (text, expected) in
            [("1970-01-01", 0), ("2024-02-29", 19_782), ("1969-12-31", -1), ("0001-01-01", -719_162)]
        {
            assert_eq!(days(text), Some(expected), "{text}");
        }
        for text in ["2023-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "24-1-1", "2024-01"] {
            assert_eq!(days(text), None, "{text}");
        }
        let noon = 12 * 3_600_000_000;
        for text in
            ["1970-01-01T12:00:00Z", "1970-01-01 12:00", "1970-01-01T14:30:00+02:30", "1970-01-01 07:00:00.000-05"]
        {
            assert_eq!(micros(text), Some(noon), "{text}");
        }
        assert_eq!(micros("1970-01-01T00:00:00.1234567"), Some(123_456));
        assert_eq!(
            (micros("1970-01-01T25:00:00"), micros("1970-01-01T00:00:00+x"), micros("soon")),
            (None, None, None)
        );
    }

    #[test]
    fn a_cell_of_each_type_is_set_by_its_text() {
        for (ty, good, bad) in [
            ("boolean", "true", "yes"),
            ("int8", "-128", "128"),
            ("uint64", "18446744073709551615", "-1"),
            ("float64", "1e3", "x"),
            ("decimal(4,2)", "12.5", "123.4"),
            ("decimal(20,2)", "-0012.50", "1.234"),
            ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0"),
            ("binary", "\\x00ff", "00ff"),
            ("json", "[1]", "[1"),
            ("date", "infinity", "1.1.1970"),
            ("time", "23:59:59.5", "24:00:00"),
            ("timestamp_tz", "-infinity", "now"),
        ] {
            let parsed = DataType::parse(ty).expect(ty);
            let mut out = Out::new(&parsed, 1, None);
            assert_eq!(out.set_text(good), Ok(()), "{ty}");
            assert_eq!(out.set_text(bad).map_err(|r| r.code), Err("text.invalid".to_string()), "{ty}");
        }
        assert_eq!(decimal("-0012.50", 20, 2).as_deref(), Some("-12.50"));
        assert_eq!(decimal(".5", 20, 2), None);
        assert_eq!(decimal("7", 0, 0).as_deref(), Some("7"));
    }
}
