//! Makes columns of what JSON columns hold. Config:
//!
//! ```yaml
//! config:
//!   columns:
//!     payload:                                            # a column of JSON, or of text that is JSON
//!       customer.name: text                               # becomes `customer_name`
//!       "items[0].sku": { type: text, as: first_sku }
//!       total: decimal(10,2)
//!       'tags["a.b"]': json                               # a key with a dot in it
//!   drop: true                                            # leave the JSON columns out
//!   on_mismatch: "null"                                   # instead of refusing the row
//! ```
//! A path that leads nowhere is NULL.

use std::collections::BTreeMap;

use millrace_sdk::prelude::*;
use millrace_sdk::{Decimal, Out, scaled_text};

mod path;

use path::Path;

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    columns: BTreeMap<String, BTreeMap<String, Target>>,
    #[serde(default)]
    drop: bool,
    #[serde(default)]
    on_mismatch: OnMismatch,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Target {
    Type(String),
    Named {
        #[serde(rename = "type")]
        ty: String,
        #[serde(rename = "as")]
        name: Option<String>,
    },
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum OnMismatch {
    #[default]
    Reject,
    Null,
}

struct Flatten {
    columns: BTreeMap<String, Vec<Field>>,
    drop: bool,
    on_mismatch: OnMismatch,
}

/// A new column.
#[derive(Clone)]
struct Field {
    path: Path,
    name: String,
    ty: DataType,
}

impl Transform for Flatten {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let Fields { columns, drop, on_mismatch } = config.parse()?;
        let read = |(column, paths): (String, BTreeMap<String, Target>)| {
            let field = |(path, target): (String, Target)| {
                Field::read(&path, target).map_err(|e| Error::config(format!("columns.{column}.{path}: {e}")))
            };
            Ok((column.clone(), paths.into_iter().map(field).collect::<Result<Vec<_>, _>>()?))
        };
        let columns = columns.into_iter().map(read).collect::<Result<_, Error>>()?;
        Ok(Flatten { columns, drop, on_mismatch })
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        let mut sources = Vec::new();
        for (name, fields) in &self.columns {
            let Some(column) = plan.column(name) else { continue };
            let ty = &plan.definition(column).ty;
            if !matches!(ty, DataType::Json | DataType::Text) {
                return Err(Error::schema(format!("column {name} is {ty}, no JSON")));
            }
            let input = plan.read(column);
            let outputs = fields
                .iter()
                .map(|field| (plan.add_column(ColumnDef::new(field.name.clone(), field.ty.clone())), field.clone()));
            let outputs: Vec<_> = outputs.collect();
            sources.push((input, outputs));
            if self.drop {
                plan.drop_column(column);
            }
        }
        if sources.is_empty() {
            return Ok(());
        }
        let lenient = self.on_mismatch == OnMismatch::Null;
        plan.each_row(move |row, out| {
            for (input, outputs) in &sources {
                let cell = row.text(*input);
                for (output, field) in outputs {
                    let out = out.cell(*output);
                    match cell {
                        Cell::Value(document) => match field.put(document, out) {
                            Err(_) if lenient => out.set_null(),
                            put => put?,
                        },
                        Cell::Null => out.set_null(),
                        Cell::NotSent => out.set_not_sent(),
                    }
                }
            }
            Ok(())
        });
        Ok(())
    }
}

impl Field {
    fn read(path: &str, target: Target) -> Result<Self, String> {
        let (ty, name) = match target {
            Target::Type(ty) => (ty, None),
            Target::Named { ty, name } => (ty, name),
        };
        let path = Path::parse(path)?;
        let parsed = DataType::parse(&ty).ok_or_else(|| format!("there is no type {ty:?}"))?;
        use DataType as T;
        match parsed {
            T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Text | T::Json => {}
            T::Decimal64 { scale, .. } | T::Decimal { scale, .. } if scale >= 0 => {}
            _ => return Err(format!("no {ty}: take text, and `timestamp` or `cast-rename` behind it")),
        }
        Ok(Field { name: name.unwrap_or_else(|| path.name()), path, ty: parsed })
    }

    fn put(&self, document: &str, out: &mut Out) -> Result<(), Reject> {
        let found = self.path.find(document).map_err(|e| Reject::new("flatten.json", format!("it is no JSON: {e}")))?;
        let Some(json) = found.filter(|json| *json != "null") else {
            out.set_null();
            return Ok(());
        };
        let unquoted;
        let text = match json.starts_with('"') {
            true => {
                unquoted = serde_json::from_str::<String>(json)
                    .map_err(|e| Reject::new("flatten.json", format!("it is no JSON: {e}")))?;
                &unquoted
            }
            false => json,
        };
        let misfit = || Reject::new("flatten.type", format!("{} is {json}, no {}", self.path, self.ty));
        match &self.ty {
            DataType::Json => out.push_str(json),
            DataType::Text => out.push_str(text),
            DataType::Boolean => out.set_bool(text.parse().map_err(|_| misfit())?),
            DataType::Float32 | DataType::Float64 => out.set_float(text.parse().map_err(|_| misfit())?),
            DataType::Decimal64 { scale, .. } => return out.set_int(scaled(text, *scale).ok_or_else(misfit)?),
            DataType::Decimal { scale, .. } => {
                let unscaled = scaled(text, *scale).ok_or_else(misfit)?;
                out.push_str(&Decimal::Unscaled { unscaled, scale: *scale }.to_string());
            }
            _ => return out.set_int(scaled(text, 0).ok_or_else(misfit)?).map_err(|_| misfit()),
        }
        Ok(())
    }
}

fn scaled(text: &str, scale: i8) -> Option<i64> {
    scaled_text(text.as_bytes(), u8::try_from(scale).ok()?)
}

millrace_sdk::transform!(Flatten);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Answer, Case, Fate};
    use serde_json::{Value as Json, json};

    fn events(config: Json, payloads: &[Json]) -> Result<Answer, String> {
        let mut case = Case::table("events")
            .key("id", DataType::Int64)
            .column("payload", DataType::Json)
            .column("raw", DataType::Text)
            .config(config);
        for (id, payload) in payloads.iter().enumerate() {
            case = case.insert(json!({ "id": id, "payload": payload, "raw": "{" }));
        }
        case = case.insert(json!({ "id": 100 }));
        let answer = case.transform::<Flatten>()?;
        assert_eq!(case.transform_cut::<Flatten>(1).as_ref(), Ok(&answer));
        Ok(answer)
    }

    #[test]
    fn paths_become_columns_and_lead_nowhere_as_null() {
        let config = json!({ "columns": { "payload": {
            "customer.name": "text", "items[0].sku": { "type": "text", "as": "sku" }, "total": "decimal(10,2)",
            "n": "int32", "items": "json", "ok": "boolean",
        } }, "drop": true });
        let full =
            json!({ "customer": { "name": "Ada" }, "items": [{ "sku": "x-1" }], "total": 12.5, "n": 7, "ok": true });
        let answer = events(config, &[full, json!({ "items": [] }), json!([1]), Json::Null]).expect("flattened");
        let row = |at: usize| {
            let mut row = answer.kept(at).clone();
            row.remove("raw");
            Json::from(row)
        };
        assert_eq!(
            row(0),
            json!({ "id": 0, "customer_name": "Ada", "sku": "x-1", "total": "12.50", "n": 7, "items": [{ "sku": "x-1" }], "ok": true })
        );
        let nothing =
            json!({ "id": 2, "customer_name": null, "sku": null, "total": null, "n": null, "items": null, "ok": null });
        assert_eq!(row(2), nothing);
        assert_eq!(row(3)["sku"], Json::Null);
        assert_eq!(row(4), json!({ "id": 100 }), "what was not sent stays so");
    }

    #[test]
    fn what_does_not_fit_is_refused_or_null() {
        let config = json!({ "columns": { "payload": { "n": "int8" } } });
        for wrong in [json!({ "n": 300 }), json!({ "n": "x" }), json!({ "n": 1.5 }), json!({ "n": {} })] {
            let fates = events(config.clone(), std::slice::from_ref(&wrong)).expect("flattened").fates;
            assert!(
                matches!(&fates[0], Fate::Rejected { code, .. } if code == "flatten.type"),
                "{wrong}: {:?}",
                fates[0]
            );
        }
        let lenient = json!({ "columns": { "payload": { "n": "int8" } }, "on_mismatch": "null" });
        assert_eq!(events(lenient, &[json!({ "n": 300 })]).expect("flattened").kept(0)["n"], Json::Null);
    }

    #[test]
    fn text_that_is_no_json_is_refused() {
        let answer = events(json!({ "columns": { "raw": { "n": "int8" } } }), &[json!({})]).expect("flattened");
        assert!(
            matches!(&answer.fates[0], Fate::Rejected { code, .. } if code == "flatten.json"),
            "{:?}",
            answer.fates
        );
    }

    #[test]
    fn configs_that_make_no_sense_are_refused_with_their_place() {
        for (config, part) in [
            (json!({ "columns": { "payload": { "a": "money" } } }), "columns.payload.a: there is no type \"money\""),
            (json!({ "columns": { "payload": { "a": "date" } } }), "columns.payload.a: no date: take text"),
            (json!({ "columns": { "payload": { "a[x]": "text" } } }), "columns.payload.a[x]:"),
            (json!({ "columns": { "id": { "a": "text" } } }), "column id is int64, no JSON"),
        ] {
            let error = events(config.clone(), &[]).expect_err("refused");
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
