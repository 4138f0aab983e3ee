//! Casts, renames, drops, filters and routes. Config, for every table that the stage sees:
//!
//! ```yaml
//! config:
//!   keep: { status: { not_in: [test] } }             # rows; or { in: [...] }; what was not sent is kept
//!   cast: { total: { to: int64, scale: 2 }, zip: text }  # scale: 12.50 becomes 1250
//!   rename: { customer: customer_name }
//!   drop: [internal_note]
//!   rename_table: sales
//!   route: { column: region, to: { eu: orders_eu, us: orders_us } }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use millrace_sdk::{Decimal, prelude::*};

mod cast;

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CastRename {
    keep: BTreeMap<String, Predicate>,
    cast: BTreeMap<String, Cast>,
    rename: BTreeMap<String, String>,
    drop: Vec<String>,
    rename_table: Option<String>,
    route: Option<Route>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "snake_case")]
enum Predicate {
    In(BTreeSet<Plain>),
    NotIn(BTreeSet<Plain>),
}

/// A value of the config as cells print.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Plain(String);

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Cast {
    Type(String),
    Scaled { to: String, scale: u8 },
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Route {
    column: String,
    to: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = millrace_sdk::serde_json::Value::deserialize(deserializer)?;
        Ok(Plain(value.as_str().map_or_else(|| value.to_string(), str::to_string)))
    }
}

impl Transform for CastRename {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let parsed: CastRename = config.parse()?;
        for (column, cast) in &parsed.cast {
            cast.target().map_err(|e| Error::config(format!("cast.{column}: {e}")))?;
        }
        Ok(parsed)
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        for (name, predicate) in &self.keep {
            if let Some(column) = plan.column(name) {
                keep(plan, column, predicate.clone());
            }
        }
        for (name, cast) in &self.cast {
            if let Some(column) = plan.column(name) {
                let (to, scale) = cast.target().map_err(Error::config)?;
                cast::plan(plan, column, &to, scale)?;
            }
        }
        for (name, to) in &self.rename {
            if let Some(column) = plan.column(name) {
                plan.rename(column, to);
            }
        }
        for column in self.drop.iter().filter_map(|name| plan.column(name)).collect::<Vec<_>>() {
            plan.drop_column(column);
        }
        if let Some(table) = &self.rename_table {
            plan.rename_table(table);
        }
        if let Some(route) = self.route.clone()
            && let Some(column) = plan.column(&route.column)
        {
            plan.route::<Any>(column, move |value| route.to.get(text(&value).as_ref()).cloned());
        }
        Ok(())
    }
}

impl Cast {
    /// The type, and how many digits after the point become part of an integer.
    fn target(&self) -> Result<(DataType, u8), String> {
        let (name, scale) = match self {
            Cast::Type(name) => (name, 0),
            Cast::Scaled { to, scale } => (to, *scale),
        };
        let ty = DataType::parse(name).ok_or_else(|| format!("there is no type {name:?}"))?;
        if !cast::is_target(&ty) {
            return Err(format!("nothing can be cast to {name}"));
        }
        Ok((ty, scale))
    }
}

fn keep(plan: &mut TransformPlan, column: millrace_sdk::Col, predicate: Predicate) {
    let (values, wanted) = match predicate {
        Predicate::In(values) => (values, true),
        Predicate::NotIn(values) => (values, false),
    };
    let values: Vec<String> = values.into_iter().map(|v| v.0).collect();
    if plan.definition(column).ty == DataType::Text {
        plan.filter_cells::<Bytes>(column, move |cell| match cell {
            Cell::Value(value) => values.iter().any(|v| v.as_bytes() == value) == wanted,
            _ => !wanted,
        });
    } else {
        plan.filter_cells::<Any>(column, move |cell| match cell {
            Cell::Value(value) => values.iter().any(|v| *v == text(&value)) == wanted,
            _ => !wanted,
        });
    }
}

fn text<'a>(value: &Value<'a>) -> std::borrow::Cow<'a, str> {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(Decimal::Text(text)) => (*text).into(),
        value => value.to_string().into(),
    }
}

millrace_sdk::transform!(CastRename);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Answer, Case, Fate};
    use serde_json::{Value as Json, json};

    fn orders(config: Json) -> Case {
        Case::table("orders")
            .key("id", DataType::Int64)
            .column("status", DataType::Text)
            .column("total", DataType::Decimal { precision: 20, scale: 2 })
            .column("customer", DataType::Text)
            .config(config)
    }

    fn run(case: &Case) -> Answer {
        let whole = case.transform::<CastRename>().expect("transformed");
        for size in [1, 2] {
            assert_eq!(case.transform_cut::<CastRename>(size).as_ref(), Ok(&whole), "cut at {size}");
        }
        whole
    }

    #[test]
    fn rows_are_filtered_cast_renamed_and_dropped() {
        let case = orders(json!({
            "keep": { "status": { "not_in": ["test"] } },
            "cast": { "total": { "to": "int64", "scale": 2 } },
            "rename": { "total": "cents", "customer": "customer_name" },
            "drop": ["status"],
            "rename_table": "sales",
        }))
        .insert(json!({ "id": 1, "status": "new", "total": "12.50", "customer": "a" }))
        .insert(json!({ "id": 2, "status": "test", "total": "x", "customer": "b" }))
        .insert(json!({ "id": 3, "total": "1.005", "customer": null }))
        .insert(json!({ "id": 4, "status": null, "customer": "d" }));
        let answer = run(&case);
        assert_eq!(Json::from(answer.kept(0).clone()), json!({ "id": 1, "cents": 1250, "customer_name": "a" }));
        assert_eq!(answer.fates[1], Fate::Dropped);
        assert!(
            matches!(&answer.fates[2], Fate::Rejected { code, .. } if code == "cast.invalid"),
            "{:?}",
            answer.fates[2]
        );
        assert_eq!(Json::from(answer.kept(3).clone()), json!({ "id": 4, "customer_name": "d" }));
        assert_eq!(answer.tables, ["sales"; 4]);
    }

    #[test]
    fn rows_are_routed_by_value() {
        let case = orders(json!({ "route": { "column": "status", "to": { "paid": "paid_orders" } } }))
            .insert(json!({ "id": 1, "status": "paid" }))
            .insert(json!({ "id": 2, "status": "new" }))
            .insert(json!({ "id": 3 }));
        assert_eq!(run(&case).tables, ["paid_orders", "orders", "orders"]);
    }

    #[test]
    fn a_filter_for_some_values_drops_null_but_keeps_what_was_not_sent() {
        let case = orders(json!({ "keep": { "id": { "in": [1, 2] }, "status": { "in": ["new"] } } }))
            .insert(json!({ "id": 1, "status": "new" }))
            .insert(json!({ "id": 2 }))
            .insert(json!({ "id": 1, "status": null }))
            .insert(json!({ "id": 3, "status": "new" }));
        let kept: Vec<bool> = run(&case).fates.iter().map(|f| matches!(f, Fate::Kept(_))).collect();
        assert_eq!(kept, [true, true, false, false]);
    }

    #[test]
    fn a_type_that_does_not_exist_is_refused_with_its_place() {
        let error = orders(json!({ "cast": { "total": "money" } })).transform::<CastRename>().expect_err("no type");
        assert!(error.contains("cast.total"), "{error}");
    }
}
