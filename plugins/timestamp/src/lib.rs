//! Reads, writes, converts and truncates points in time, in UTC. Config, a column each, for every table that has it:
//!
//! ```yaml
//! config:
//!   created_at: { from: unix_ms }                          # an integer becomes a timestamp_tz
//!   born: { from: "%d.%m.%Y", to: date }                   # text of that form becomes a date
//!   seen: { to: iso8601 }                                  # a timestamp becomes text; or unix_s, unix_ms, unix_us, unix_ns, "%Y%m%d"
//!   updated_at: { truncate: hour }                         # second, minute, hour, day, week (from Monday), month, year
//! ```

use std::collections::BTreeMap;

use millrace_sdk::prelude::*;
use millrace_sdk::{Moment, Out};

mod form;

use form::{Form, Unit};

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    from: Option<String>,
    to: Option<String>,
    truncate: Option<Unit>,
}

struct Timestamp(BTreeMap<String, Conversion>);

struct Conversion {
    from: Option<Form>,
    to: Option<Form>,
    truncate: Option<Unit>,
}

impl Transform for Timestamp {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let fields: BTreeMap<String, Fields> = config.parse()?;
        let read = |(column, fields): (String, Fields)| {
            let at = |key: &str, e: String| Error::config(format!("{column}.{key}: {e}"));
            let from = fields.from.as_deref().map(Form::parse).transpose().map_err(|e| at("from", e))?;
            let to = fields.to.as_deref().map(Form::parse).transpose().map_err(|e| at("to", e))?;
            match (&from, &to, fields.truncate) {
                (Some(Form::Column(_)), ..) => Err(at("from", "a column's own type needs no `from`".to_string())),
                (None, None, None) => Err(Error::config(format!("{column}: write `from`, `to` or `truncate`"))),
                _ => Ok((column, Conversion { from, to, truncate: fields.truncate })),
            }
        };
        fields.into_iter().map(read).collect::<Result<_, _>>().map(Timestamp)
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        for (name, conversion) in &self.0 {
            let Some(column) = plan.column(name) else { continue };
            let ty = plan.definition(column).ty.clone();
            let (from, to) = conversion.forms(&ty).map_err(|e| Error::schema(format!("column {name} is {ty}{e}")))?;
            let truncate = conversion.truncate;
            plan.convert::<Any>(column, to.data_type(), move |value, out| {
                let moment = from
                    .read(&value)
                    .ok_or_else(|| Reject::new("timestamp.invalid", format!("{value} is no {from}")))?;
                put(moment, truncate, &to, out)
            });
        }
        Ok(())
    }
}

impl Conversion {
    /// How the column's cells are read and written.
    fn forms(&self, ty: &DataType) -> Result<(Form, Form), String> {
        use DataType as T;
        let from = match (ty, &self.from) {
            (T::Date | T::Timestamp | T::TimestampTz, None) => Form::Column(ty.clone()),
            (T::Date | T::Timestamp | T::TimestampTz, Some(_)) => return Err(", so leave `from` out".to_string()),
            (T::Text, None) => Form::Iso8601,
            (T::Text, Some(from)) => from.clone(),
            (_, Some(from @ Form::Unix(_))) if ty.is_number() => from.clone(),
            _ if ty.is_number() => return Err(": write `from: unix_s`, unix_ms, unix_us or unix_ns".to_string()),
            _ => return Err(", which holds no point in time".to_string()),
        };
        let to = match (&self.to, &from) {
            (Some(Form::Iso8601), Form::Column(ty)) => Form::iso8601_of(ty),
            (Some(to), _) => to.clone(),
            (None, Form::Column(ty)) => Form::Column(ty.clone()),
            (None, _) => Form::Column(T::TimestampTz),
        };
        Ok((from, to))
    }
}

fn put(moment: Moment, truncate: Option<Unit>, to: &Form, out: &mut Out) -> Result<(), Reject> {
    let moment = match (moment, truncate) {
        (Moment::At(micros), Some(unit)) => unit.start(micros).map(Moment::At),
        (moment, _) => Some(moment),
    };
    moment
        .and_then(|moment| to.write(moment, out))
        .ok_or_else(|| Reject::new("timestamp.range", format!("the point in time does not fit into {to}")))
}

millrace_sdk::transform!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Case, Fate};
    use serde_json::{Value as Json, json};

    /// 2024-02-29T13:14:15.123456Z, a Thursday.
    const MICROS: i64 = 1_709_212_455_123_456;
    const DAY: i64 = 86_400_000_000;

    fn fate(ty: DataType, config: Json, cell: Json) -> Result<Fate, String> {
        let case = Case::table("t").column("c", ty).config(json!({ "c": config })).insert(json!({ "c": cell }));
        Ok(case.transform::<Timestamp>()?.fates.remove(0))
    }

    fn cell(ty: DataType, config: Json, cell: Json) -> Json {
        match fate(ty, config.clone(), cell.clone()) {
            Ok(Fate::Kept(mut row)) => row.remove("c").unwrap_or_default(),
            other => panic!("{config} {cell}: {other:?}"),
        }
    }

    #[test]
    fn numbers_of_each_unit_become_timestamps_and_back() {
        for (unit, number, back) in [
            ("unix_s", 1_709_212_455, 1_709_212_455_000_000),
            ("unix_ms", 1_709_212_455_123, 1_709_212_455_123_000),
            ("unix_us", MICROS, MICROS),
            ("unix_ns", MICROS * 1_000, MICROS),
            ("unix_ms", -1, -1_000),
        ] {
            assert_eq!(cell(DataType::Int64, json!({ "from": unit }), json!(number)), back, "{unit}");
            assert_eq!(cell(DataType::TimestampTz, json!({ "to": unit }), json!(back)), number, "{unit}");
        }
        let decimal = DataType::Decimal { precision: 20, scale: 6 };
        assert_eq!(cell(decimal, json!({ "from": "unix_s" }), json!("1709212455.123456")), MICROS);
        assert_eq!(cell(DataType::Text, json!({ "from": "unix_s", "to": "date" }), json!("86400")), 1);
    }

    #[test]
    fn text_is_read_by_iso8601_or_by_its_form() {
        for (config, text, micros) in [
            (json!({ "to": "timestamp" }), "2024-02-29T13:14:15.123456Z", MICROS),
            (json!({ "to": "timestamp" }), "2024-02-29 14:14:15.123456+01:00", MICROS),
            (json!({ "to": "timestamp" }), "2024-02-29 13:14:15.123456", MICROS),
            (json!({ "to": "timestamp" }), "1970-01-02", DAY),
            (json!({ "from": "%d.%m.%Y %H:%M" }), "02.01.1970 00:01", DAY + 60_000_000),
            (json!({ "from": "%d/%b/%Y:%T %z" }), "02/Jan/1970:01:00:00 +0100", DAY),
            (json!({ "from": "%Y%m%d" }), "19700102", DAY),
        ] {
            assert_eq!(cell(DataType::Text, config.clone(), json!(text)), micros, "{config} {text}");
        }
        assert_eq!(cell(DataType::Text, json!({ "from": "%Y%m%d", "to": "date" }), json!("19700103")), 2);
    }

    #[test]
    fn points_in_time_are_written_as_text() {
        for (ty, to, text) in [
            (DataType::TimestampTz, "iso8601", "2024-02-29T13:14:15.123456Z"),
            (DataType::Timestamp, "iso8601", "2024-02-29T13:14:15.123456"),
            (DataType::TimestampTz, "%d.%m.%Y", "29.02.2024"),
        ] {
            assert_eq!(cell(ty, json!({ "to": to }), json!(MICROS)), text, "{to}");
        }
        assert_eq!(cell(DataType::Date, json!({ "to": "iso8601" }), json!(1)), "1970-01-02");
        assert_eq!(cell(DataType::TimestampTz, json!({ "to": "date" }), json!(-1)), -1);
        assert_eq!(cell(DataType::Timestamp, json!({ "to": "iso8601" }), json!(i64::MAX)), "infinity");
    }

    #[test]
    fn points_in_time_are_cut_to_the_start_of_their_unit() {
        for (unit, text) in [
            ("second", "2024-02-29T13:14:15"),
            ("minute", "2024-02-29T13:14:00"),
            ("hour", "2024-02-29T13:00:00"),
            ("day", "2024-02-29T00:00:00"),
            ("week", "2024-02-26T00:00:00"),
            ("month", "2024-02-01T00:00:00"),
            ("year", "2024-01-01T00:00:00"),
        ] {
            let config = json!({ "truncate": unit, "to": "%Y-%m-%dT%H:%M:%S" });
            assert_eq!(cell(DataType::Timestamp, config, json!(MICROS)), text, "{unit}");
        }
        assert_eq!(cell(DataType::Date, json!({ "truncate": "week" }), json!(-1)), -3);
        assert_eq!(cell(DataType::Timestamp, json!({ "truncate": "day" }), json!(i64::MIN)), i64::MIN);
    }

    #[test]
    fn what_is_no_point_in_time_or_does_not_fit_is_refused() {
        for (ty, config, cell, code) in [
            (DataType::Text, json!({ "to": "date" }), json!("yesterday"), "timestamp.invalid"),
            (DataType::Text, json!({ "from": "%Y" }), json!("2024"), "timestamp.invalid"),
            (DataType::Float64, json!({ "from": "unix_s" }), json!(1e300), "timestamp.invalid"),
            (DataType::Timestamp, json!({ "to": "unix_s" }), json!(i64::MAX), "timestamp.range"),
            (DataType::Timestamp, json!({ "to": "unix_ns" }), json!(i64::MAX - 1), "timestamp.range"),
            (DataType::Timestamp, json!({ "to": "iso8601" }), json!(i64::MAX - 1), "timestamp.range"),
        ] {
            let fate = fate(ty, config.clone(), cell).expect("ran");
            assert!(matches!(&fate, Fate::Rejected { code: c, .. } if c == code), "{config}: {fate:?}");
        }
    }

    #[test]
    fn configs_that_make_no_sense_are_refused_with_their_place() {
        for (ty, config, part) in [
            (DataType::Text, json!({}), "c: write `from`, `to` or `truncate`"),
            (DataType::Text, json!({ "from": "unix" }), "c.from: \"unix\" is no form"),
            (DataType::Text, json!({ "to": "%Q" }), "c.to: \"%Q\" has a part that nobody knows"),
            (DataType::Text, json!({ "from": "date" }), "c.from: a column's own type"),
            (DataType::Int64, json!({ "to": "date" }), "column c is int64: write `from: unix_s`"),
            (DataType::Date, json!({ "from": "unix_s" }), "column c is date, so leave `from` out"),
            (DataType::Uuid, json!({ "to": "date" }), "column c is uuid, which holds no point in time"),
        ] {
            let error = fate(ty, config.clone(), Json::Null).expect_err("refused");
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
