//! Adds columns. Config, a column each:
//!
//! ```yaml
//! config:
//!   source_system: { value: shop-eu }       # a constant; with `type: int32` of another type than the value's own
//!   change: op                              # insert, update, delete, or snapshot
//!   changed_at: commit_time
//!   position: position                      # text that sorts as the source's order does
//!   from_table: table                       # also: namespace, pipeline
//! ```

use std::collections::BTreeMap;

use millrace_sdk::prelude::*;
use millrace_sdk::{ChangeType, Meta, MetaInput, Out, Output, Row, scaled_text};
use serde_json::Value as Json;

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Event(Event),
    Constant(Constant),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Event {
    Op,
    CommitTime,
    Position,
    Table,
    Namespace,
    Pipeline,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Constant {
    value: Json,
    #[serde(rename = "type")]
    ty: Option<String>,
}

/// What a column's cells come from.
#[derive(Clone)]
enum Source {
    Op,
    Meta(MetaInput),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

struct InsertField {
    fields: BTreeMap<String, Field>,
    pipeline: String,
}

impl Transform for InsertField {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let fields: BTreeMap<String, Field> = config.parse()?;
        for (name, field) in &fields {
            if let Field::Constant(constant) = field {
                constant.read().map_err(|e| Error::config(format!("{name}: {e}")))?;
            }
        }
        Ok(InsertField { fields, pipeline: config.pipeline().to_string() })
    }

    fn plan(&self, schema: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        let mut columns: Vec<(Output, Source)> = Vec::new();
        for (name, field) in &self.fields {
            if schema.column(name).is_some() {
                return Err(Error::schema(format!("there is a column {name} already: give the new one another name")));
            }
            let (ty, source) = match field {
                Field::Constant(constant) => constant.read().map_err(Error::config)?,
                Field::Event(Event::Op) => (DataType::Text, Source::Op),
                Field::Event(Event::CommitTime) => {
                    (DataType::TimestampTz, Source::Meta(plan.read_meta(Meta::CommitTime)))
                }
                Field::Event(Event::Position) => (DataType::Text, Source::Meta(plan.read_meta(Meta::Position))),
                Field::Event(Event::Table) => (DataType::Text, Source::Text(schema.table.clone())),
                Field::Event(Event::Namespace) => (DataType::Text, Source::Text(schema.namespace.clone())),
                Field::Event(Event::Pipeline) => (DataType::Text, Source::Text(self.pipeline.clone())),
            };
            let definition = ColumnDef { nullable: false, ..ColumnDef::new(name.clone(), ty) };
            columns.push((plan.add_column(definition), source));
        }
        if !columns.is_empty() {
            plan.each_row(move |row, out| columns.iter().try_for_each(|(to, from)| from.put(row, out.cell(*to))));
        }
        Ok(())
    }
}

impl Constant {
    /// The type that is written, or the value's own.
    fn read(&self) -> Result<(DataType, Source), String> {
        let ty = match (&self.ty, &self.value) {
            (Some(name), _) => DataType::parse(name).ok_or_else(|| format!("there is no type {name:?}"))?,
            (None, Json::Bool(_)) => DataType::Boolean,
            (None, Json::Number(n)) if n.is_i64() => DataType::Int64,
            (None, Json::Number(_)) => DataType::Float64,
            (None, Json::String(_)) => DataType::Text,
            (None, Json::Array(_) | Json::Object(_)) => DataType::Json,
            (None, Json::Null) => return Err("a constant has a value".to_string()),
        };
        let misfit = || format!("{} is no {ty}", self.value);
        let integer = |least: i64, most: i64| {
            let value = self.value.as_i64().filter(|v| (least..=most).contains(v));
            value.map(Source::Int).ok_or_else(misfit)
        };
        let text = || self.value.as_str().map_or_else(|| self.value.to_string(), str::to_string);
        let source = match &ty {
            DataType::Boolean => Source::Bool(self.value.as_bool().ok_or_else(misfit)?),
            DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into())?,
            DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into())?,
            DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into())?,
            DataType::Int64 => integer(i64::MIN, i64::MAX)?,
            DataType::Float32 | DataType::Float64 => Source::Float(self.value.as_f64().ok_or_else(misfit)?),
            DataType::Text => Source::Text(text()),
            DataType::Json => Source::Text(self.value.to_string()),
            DataType::Decimal64 { scale, .. } => {
                let digits = u8::try_from(*scale).map_err(|_| misfit())?;
                Source::Int(scaled_text(text().as_bytes(), digits).ok_or_else(misfit)?)
            }
            other => return Err(format!("a constant can not be {other}: use text, json, a number or a boolean")),
        };
        Ok((ty, source))
    }
}

impl Source {
    fn put(&self, row: &Row<'_, '_>, out: &mut Out) -> Result<(), Reject> {
        match self {
            Source::Op => out.push_str(op(row)),
            Source::Meta(input) => return row.meta(*input).value().map_or(Ok(()), |value| out.set(value)),
            Source::Text(text) => out.push_str(text),
            Source::Int(value) => return out.set_int(*value),
            Source::Float(value) => out.set_float(*value),
            Source::Bool(value) => out.set_bool(*value),
        }
        Ok(())
    }
}

/// The change's own word on all of its images.
fn op(row: &Row<'_, '_>) -> &'static str {
    match row.change_type() {
        _ if row.is_snapshot() => "snapshot",
        ChangeType::UpdatePreimage | ChangeType::UpdatePostimage => "update",
        other => other.name(),
    }
}

millrace_sdk::transform!(InsertField);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Answer, Case};
    use serde_json::json;

    fn run(config: Json) -> Result<Answer, String> {
        let case = Case::table("orders")
            .key("id", DataType::Int64)
            .config(config)
            .insert(json!({ "id": 1 }))
            .image(ChangeType::UpdatePreimage, json!({ "id": 1 }))
            .image(ChangeType::UpdatePostimage, json!({ "id": 2 }))
            .image(ChangeType::Delete, json!({ "id": 2 }));
        let answer = case.transform::<InsertField>()?;
        assert_eq!(case.transform_cut::<InsertField>(1).as_ref(), Ok(&answer));
        Ok(answer)
    }

    #[test]
    fn each_row_gets_what_the_event_offers() {
        let config = json!({ "op": "op", "at": "commit_time", "pos": "position", "t": "table", "n": "namespace", "p": "pipeline" });
        let answer = run(config).expect("added");
        let row = |n: i64, id: i64, op: &str| json!({ "id": id, "op": op, "at": n * 1_000_000, "pos": n.to_string(), "t": "orders", "n": "public", "p": "test" });
        let expected = [row(1, 1, "insert"), row(2, 1, "update"), row(3, 2, "update"), row(4, 2, "delete")];
        assert_eq!([0, 1, 2, 3].map(|at| Json::from(answer.kept(at).clone())), expected);
    }

    #[test]
    fn constants_are_of_their_own_type_or_the_one_that_is_written() {
        let config = json!({
            "text": { "value": "a" }, "int": { "value": 7 }, "float": { "value": 0.5 }, "yes": { "value": true },
            "json": { "value": [1] }, "small": { "value": 7, "type": "int16" }, "price": { "value": "1.5", "type": "decimal(10,2)" },
        });
        let expected = json!({ "id": 1, "text": "a", "int": 7, "float": 0.5, "yes": true, "json": [1], "small": 7, "price": "1.50" });
        assert_eq!(Json::from(run(config).expect("added").kept(0).clone()), expected);
    }

    #[test]
    fn configs_that_make_no_sense_are_refused() {
        for (config, part) in [
            (json!({ "a": { "value": null } }), "a: a constant has a value"),
            (json!({ "a": { "value": 300, "type": "int8" } }), "a: 300 is no int8"),
            (json!({ "a": { "value": 1, "type": "uuid" } }), "can not be uuid"),
            (json!({ "a": { "value": 1, "type": "number" } }), "there is no type \"number\""),
            (json!({ "id": "op" }), "there is a column id already"),
            (json!({ "a": "clock" }), "config:"),
        ] {
            let error = run(config.clone()).expect_err("refused");
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
