//! The forms in which a point in time is read and written. Between them: microseconds since 1970-01-01 UTC.

use std::fmt;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use millrace_sdk::prelude::Deserialize;
use millrace_sdk::{DataType, Moment, Out, Value, scaled_text};

const DAY: i64 = 86_400_000_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A number, with so many digits between its unit and microseconds; -3: nanoseconds.
    Unix(i8),
    Iso8601,
    /// Text, as strftime has it.
    Text(String),
    /// `date`, `timestamp` or `timestamp_tz`.
    Column(DataType),
}

/// What a point in time is cut to.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Form {
    /// # Errors
    /// What is wrong, and what there is.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "unix_s" => Form::Unix(6),
            "unix_ms" => Form::Unix(3),
            "unix_us" => Form::Unix(0),
            "unix_ns" => Form::Unix(-3),
            "iso8601" => Form::Iso8601,
            "date" => Form::Column(DataType::Date),
            "timestamp" => Form::Column(DataType::Timestamp),
            "timestamp_tz" => Form::Column(DataType::TimestampTz),
            format if format.contains('%') => match StrftimeItems::new(format).any(|item| item == Item::Error) {
                true => return Err(format!("{format:?} has a part that nobody knows: %Y, %m, %d, %H, %M, %S, %z …")),
                false => Form::Text(format.to_string()),
            },
            _ => {
                return Err(format!(
                    "{text:?} is no form: write unix_s, unix_ms, unix_us, unix_ns, iso8601, date, timestamp, timestamp_tz \
                     or text such as \"%Y-%m-%d\""
                ));
            }
        })
    }

    /// Of the column that is written.
    pub fn data_type(&self) -> DataType {
        match self {
            Form::Unix(_) => DataType::Int64,
            Form::Iso8601 | Form::Text(_) => DataType::Text,
            Form::Column(ty) => ty.clone(),
        }
    }

    /// None: the value is not of this form, or beyond what microseconds can say.
    pub fn read(&self, value: &Value<'_>) -> Option<Moment> {
        match (self, value) {
            (_, Value::Timestamp(moment) | Value::TimestampTz(moment)) => Some(*moment),
            (_, Value::Date(Moment::At(days))) => days.checked_mul(DAY).map(Moment::At),
            (_, Value::Date(infinite)) => Some(*infinite),
            (_, Value::Text("infinity")) => Some(Moment::Infinity),
            (_, Value::Text("-infinity")) => Some(Moment::NegInfinity),
            (Form::Unix(digits), value) => number(value, *digits).map(Moment::At),
            (Form::Iso8601, Value::Text(text)) => iso8601(text).map(Moment::At),
            (Form::Text(format), Value::Text(text)) => by_format(text, format).map(Moment::At),
            _ => None,
        }
    }

    /// None: it does not fit.
    pub fn write(&self, moment: Moment, out: &mut Out) -> Option<()> {
        match (self, moment) {
            (Form::Column(DataType::Date), Moment::At(micros)) => {
                out.set(Value::Date(Moment::At(i32::try_from(micros.div_euclid(DAY)).ok()?.into()))).ok()
            }
            (Form::Column(DataType::Date), infinite) => out.set(Value::Date(infinite)).ok(),
            (Form::Column(_), moment) => out.set_int(moment.to_i64()).ok(),
            (Form::Unix(digits), Moment::At(micros)) => {
                let power = 10i64.pow(u32::from(digits.unsigned_abs()));
                let number = if *digits < 0 { micros.checked_mul(power)? } else { micros.div_euclid(power) };
                out.set_int(number).ok()
            }
            (Form::Unix(_), _) => None,
            (Form::Iso8601 | Form::Text(_), Moment::At(micros)) => {
                let time = DateTime::from_timestamp_micros(micros).filter(|time| (0..=9999).contains(&time.year()))?;
                let format = if let Form::Text(format) = self { format } else { "%Y-%m-%dT%H:%M:%S%.f" };
                out.push_str(&time.format(format).to_string());
                Some(())
            }
            (_, infinite) => {
                out.push_str(&infinite.to_string());
                Some(())
            }
        }
    }

    /// The form in which a column of this type is written as ISO 8601.
    pub fn iso8601_of(ty: &DataType) -> Form {
        match ty {
            DataType::Date => Form::Text("%Y-%m-%d".to_string()),
            DataType::TimestampTz => Form::Text("%Y-%m-%dT%H:%M:%S%.fZ".to_string()),
            _ => Form::Iso8601,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Unix(6) => f.write_str("unix_s"),
            Form::Unix(3) => f.write_str("unix_ms"),
            Form::Unix(0) => f.write_str("unix_us"),
            Form::Unix(_) => f.write_str("unix_ns"),
            Form::Iso8601 => f.write_str("iso8601"),
            Form::Text(format) => write!(f, "{format:?}"),
            Form::Column(ty) => write!(f, "{ty}"),
        }
    }
}

fn number(value: &Value<'_>, digits: i8) -> Option<i64> {
    let scale = u8::try_from(digits).unwrap_or(0);
    let scaled = match value {
        Value::Float(v) => {
            let scaled = (v * 10f64.powi(scale.into())).round();
            (scaled.abs() < 9e18).then_some(scaled as i64)?
        }
        Value::Decimal(v) => v.scaled(scale)?,
        value => scaled_text(value.to_string().as_bytes(), scale)?,
    };
    Some(if digits < 0 { scaled.div_euclid(1_000) } else { scaled })
}

fn iso8601(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let spaced = text.replacen(' ', "T", 1);
    let zoneless = NaiveDateTime::parse_from_str(&spaced, "%Y-%m-%dT%H:%M:%S%.f").ok();
    zoneless.or_else(|| midnight(text, "%Y-%m-%d")).map(|time| time.and_utc().timestamp_micros())
}

fn by_format(text: &str, format: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_str(text, format) {
        return Some(time.timestamp_micros());
    }
    let zoneless = NaiveDateTime::parse_from_str(text, format).ok();
    zoneless.or_else(|| midnight(text, format)).map(|time| time.and_utc().timestamp_micros())
}

fn midnight(text: &str, format: &str) -> Option<NaiveDateTime> {
    NaiveDate::parse_from_str(text, format).ok()?.and_hms_opt(0, 0, 0)
}

impl Unit {
    /// The start of the unit that holds this point. None: beyond the calendar.
    pub fn start(self, micros: i64) -> Option<i64> {
        let whole = |length: i64| micros.checked_sub(micros.rem_euclid(length));
        let first_of = |month: fn(&DateTime<chrono::Utc>) -> u32| {
            let time = DateTime::from_timestamp_micros(micros)?;
            let first = NaiveDate::from_ymd_opt(time.year(), month(&time), 1)?.and_hms_opt(0, 0, 0)?;
            Some(first.and_utc().timestamp_micros())
        };
        match self {
            Unit::Second => whole(1_000_000),
            Unit::Minute => whole(60_000_000),
            Unit::Hour => whole(3_600_000_000),
            Unit::Day => whole(DAY),
            // 1970-01-01 was a Thursday.
            Unit::Week => micros.checked_sub((micros.checked_add(3 * DAY)?).rem_euclid(7 * DAY)),
            Unit::Month => first_of(Datelike::month),
            Unit::Year => first_of(|_| 1),
        }
    }
}
