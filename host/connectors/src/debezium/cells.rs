//! One JSON value into one cell.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use millrace_core::builder::{Cells, ColumnBuilder};
use serde::{Deserialize, Serialize};

use super::envelope::Fields;
use super::{UNAVAILABLE, bigint};

/// How the values of a column stand in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Encoding {
    Boolean,
    Integer,
    /// A number, or `NaN`, `Infinity`, `-Infinity` as a string.
    Float,
    /// A string; anything else as the JSON text it is.
    Text,
    /// Any value as its JSON text.
    Nested,
    Base64,
    /// An unscaled integer as base64, or a plain number, alone or in a string.
    Decimal {
        scale: i32,
    },
    /// `{"scale": 2, "value": base64}`.
    VariableDecimal,
    Days,
    IsoDate,
    TimeMillis,
    TimeMicros,
    TimeNanos,
    IsoTime,
    Millis,
    Micros,
    Nanos,
    IsoTimestamp,
    ZonedTimestamp,
    Uuid,
}

/// The first and last day that PostgreSQL has (4714-11-24 BC, 5874897-12-31). Debezium writes infinite dates as days
/// outside of them.
const DAYS: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_042_905;

/// Whether the value is Debezium's placeholder, in one of the forms it has for text, bytes and arrays.
pub(super) fn is_unavailable(raw: &str) -> bool {
    let inner = raw.strip_prefix('[').and_then(|r| r.strip_suffix(']')).map_or(raw, str::trim);
    let text = inner.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    text.is_some_and(|t| t == UNAVAILABLE || t == "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")
}

/// Appends exactly one cell: the value, or NULL with the reason why it is none of the column's type.
pub(super) fn append(column: &mut ColumnBuilder, encoding: Encoding, raw: Option<&str>) -> Result<(), String> {
    let raw = match raw {
        None | Some("null") => {
            column.append_null();
            return Ok(());
        }
        Some(raw) if is_unavailable(raw) => {
            column.append_unavailable();
            return Ok(());
        }
        Some(raw) => raw,
    };
    let appended = value(&mut column.cells, encoding, raw);
    if appended.is_err() {
        column.append_null();
    }
    appended
}

/// Appends nothing where it fails. One arm for each type of cell.
fn value(cells: &mut Cells, encoding: Encoding, raw: &str) -> Result<(), String> {
    match cells {
        Cells::Boolean(b) => b.append_value(match raw {
            "true" => true,
            "false" => false,
            _ => return Err(not("a boolean", raw)),
        }),
        Cells::Int16(b) => b.append_value(number(raw)?),
        Cells::Int32(b) => b.append_value(number(raw)?),
        Cells::Int64(b) => b.append_value(number(raw)?),
        Cells::UInt64(b) => b.append_value(number(raw)?),
        Cells::Float32(b) => b.append_value(float(raw)? as f32),
        Cells::Float64(b) => b.append_value(float(raw)?),
        Cells::Decimal(b) => b.append_value(decimal(encoding, raw)?),
        Cells::Text(b) => match encoding {
            Encoding::Nested => b.append_value(raw),
            Encoding::Decimal { .. } | Encoding::VariableDecimal => b.append_value(decimal_text(encoding, raw)?),
            _ if raw.starts_with('"') => b.append_value(text(raw)?),
            _ => b.append_value(raw),
        },
        Cells::Binary(b) => b.append_value(bytes(raw)?),
        Cells::Uuid(b) => b.append_value(uuid(raw)?).map_err(|e| e.to_string())?,
        Cells::Date(b) => b.append_value(date(encoding, raw)?),
        Cells::Time(b) => b.append_value(time(encoding, raw)?),
        Cells::Timestamp(b) => b.append_value(timestamp(encoding, raw)?),
    }
    Ok(())
}

/// A value that a person can find again, without the whole of a long one.
fn not(what: &str, raw: &str) -> String {
    let mut shown: String = raw.chars().take(40).collect();
    if shown.len() < raw.len() {
        shown.push('…');
    }
    format!("{shown} is not {what}")
}

fn text(raw: &str) -> Result<Cow<'_, str>, String> {
    let inner = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).ok_or_else(|| not("a string", raw))?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).map(Cow::Owned).map_err(|e| not(&format!("a string ({e})"), raw))
}

/// The number itself, or in a string, as some converters write 64-bit ones.
fn number<T: std::str::FromStr>(raw: &str) -> Result<T, String> {
    raw.trim_matches('"').parse().map_err(|_| not("a whole number of the column's size", raw))
}

fn float(raw: &str) -> Result<f64, String> {
    match raw {
        "\"NaN\"" => Ok(f64::NAN),
        "\"Infinity\"" => Ok(f64::INFINITY),
        "\"-Infinity\"" => Ok(f64::NEG_INFINITY),
        _ if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => raw.parse().map_err(|_| not("a number", raw)),
        _ => Err(not("a number", raw)),
    }
}

fn bytes(raw: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(&*text(raw)?).map_err(|_| not("base64", raw))
}

fn decimal(encoding: Encoding, raw: &str) -> Result<i128, String> {
    let Encoding::Decimal { scale } = encoding else { return Err(not("a decimal", raw)) };
    let value = match raw.strip_prefix('"') {
        None => bigint::unscaled(raw, scale),
        // A string is base64 unless it can only be a number: base64 of a Connect decimal has no point.
        Some(inner) if inner.contains('.') => bigint::unscaled(inner.trim_end_matches('"'), scale),
        Some(_) => bigint::to_i128(&bytes(raw)?),
    };
    // 38 digits are what the widest column has.
    value
        .filter(|v| v.unsigned_abs() < 10u128.pow(38))
        .ok_or_else(|| not(&format!("a decimal of scale {scale} and 38 digits"), raw))
}

fn decimal_text(encoding: Encoding, raw: &str) -> Result<String, String> {
    let (bytes, scale) = match encoding {
        Encoding::Decimal { .. } if !raw.starts_with('"') => return Ok(raw.to_owned()),
        Encoding::Decimal { scale } => (bytes(raw)?, scale),
        _ => {
            let fields = Fields::parse(raw).map_err(|e| not(&format!("a decimal ({e})"), raw))?;
            let scale = fields.get("scale").ok_or_else(|| not("a decimal with a scale", raw))?;
            (bytes(fields.get("value").unwrap_or_default())?, number(scale)?)
        }
    };
    bigint::to_text(&bytes, scale).ok_or_else(|| not("a decimal of a size that any server has", raw))
}

fn uuid(raw: &str) -> Result<[u8; 16], String> {
    let text = text(raw)?;
    let mut out = [0; 16];
    let mut digits = 0;
    for byte in text.bytes().filter(|b| *b != b'-') {
        let value = char::from(byte).to_digit(16).filter(|_| digits < 32).ok_or_else(|| not("a uuid", raw))?;
        out[digits / 2] = out[digits / 2] << 4 | value as u8;
        digits += 1;
    }
    if digits == 32 { Ok(out) } else { Err(not("a uuid", raw)) }
}

/// Days; the least and the greatest are the infinities.
fn date(encoding: Encoding, raw: &str) -> Result<i32, String> {
    let days = match encoding {
        Encoding::Days => number::<i64>(raw)?,
        _ => {
            let text = text(raw)?;
            match infinity(&text) {
                Some(infinity) => infinity,
                None => {
                    let day: NaiveDate = text.trim_end_matches('Z').parse().map_err(|_| not("a date", raw))?;
                    i64::from(day.to_epoch_days())
                }
            }
        }
    };
    Ok(match days {
        _ if days > *DAYS.end() => i32::MAX,
        _ if days < *DAYS.start() => i32::MIN,
        _ => days as i32,
    })
}

/// Microseconds since midnight; 24:00 is one, as in PostgreSQL.
fn time(encoding: Encoding, raw: &str) -> Result<i64, String> {
    let micros = match encoding {
        Encoding::TimeMillis => number::<i64>(raw)?.saturating_mul(1_000),
        Encoding::TimeMicros => number(raw)?,
        Encoding::TimeNanos => number::<i64>(raw)? / 1_000,
        _ => {
            let time: NaiveTime = text(raw)?.trim_end_matches('Z').parse().map_err(|_| not("a time", raw))?;
            i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1_000)
        }
    };
    if (0..=86_400_000_000).contains(&micros) { Ok(micros) } else { Err(not("a time of day", raw)) }
}

/// Microseconds; the least and the greatest are the infinities. A moment that microseconds cannot hold is one.
fn timestamp(encoding: Encoding, raw: &str) -> Result<i64, String> {
    match encoding {
        Encoding::Millis => Ok(number::<i64>(raw)?.saturating_mul(1_000)),
        Encoding::Micros => number(raw),
        Encoding::Nanos => {
            let nanos = number::<i64>(raw)?;
            Ok(if matches!(nanos, i64::MIN | i64::MAX) { nanos } else { nanos.div_euclid(1_000) })
        }
        _ => {
            let text = text(raw)?;
            if let Some(infinity) = infinity(&text) {
                return Ok(infinity);
            }
            let zoned = DateTime::parse_from_rfc3339(&text).or_else(|_| text.parse::<DateTime<FixedOffset>>());
            match zoned {
                Ok(moment) => Ok(moment.timestamp_micros()),
                Err(_) if encoding == Encoding::IsoTimestamp => {
                    let moment: NaiveDateTime = text.parse().map_err(|_| not("a timestamp", raw))?;
                    Ok(moment.and_utc().timestamp_micros())
                }
                Err(_) => Err(not("a timestamp with a zone", raw)),
            }
        }
    }
}

fn infinity(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}
