//! Sends rows to tables. Config, one of:
//!
//! ```yaml
//! config: { column: region, to: { eu: orders_eu, us: orders_us }, default: orders_other }   # by a value
//! config: { column: code, regex: "^([a-z]+)-", to: "orders_$1" }                            # by a pattern in a value
//! config: { to: "{table}_{region}" }                                                        # by a template of columns
//! config: { regex: "^orders_\\d+$", to: orders }                                            # by the table's own name
//! ```
//! Rows for which nothing is said take the usual way; so do those whose cell is NULL or was not sent.

use std::collections::BTreeMap;

use millrace_sdk::prelude::*;
use millrace_sdk::{Input, Row};
use regex::Regex;

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    column: Option<String>,
    regex: Option<String>,
    to: To,
    default: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum To {
    Values(BTreeMap<String, String>),
    Text(String),
}

enum Route {
    Values { column: String, to: BTreeMap<String, String>, default: Option<String> },
    Pattern { column: String, regex: Regex, to: String, default: Option<String> },
    Template(Vec<Piece<String>>),
    Table { regex: Regex, to: String },
}

#[derive(Clone)]
enum Piece<C> {
    Text(String),
    Column(C),
}

impl Transform for Route {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let Fields { column, regex, to, default } = config.parse()?;
        let regex = regex.map(|r| Regex::new(&r)).transpose().map_err(|e| Error::config(format!("regex: {e}")))?;
        match (column, regex, to, default) {
            (Some(column), None, To::Values(to), default) => Ok(Route::Values { column, to, default }),
            (Some(column), Some(regex), To::Text(to), default) => Ok(Route::Pattern { column, regex, to, default }),
            (None, None, To::Text(to), None) => template(&to).map(Route::Template).map_err(Error::config),
            (None, Some(regex), To::Text(to), None) => Ok(Route::Table { regex, to }),
            _ => Err(Error::config(
                "config: write `column` and `to` as a map of values; or `column`, `regex` and `to`; or `to` as a template; \
                 or `regex` and `to`. `default` goes with `column` alone",
            )),
        }
    }

    fn plan(&self, schema: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        match self {
            Route::Values { column, to, default } => {
                let (to, default) = (to.clone(), default.clone());
                by_row(plan, &[column], move |row, inputs| {
                    let text = row.get(inputs[0]).value()?.to_string();
                    to.get(&text).or(default.as_ref()).cloned()
                })
            }
            Route::Pattern { column, regex, to, default } => {
                let (regex, to, default) = (regex.clone(), to.clone(), default.clone());
                by_row(plan, &[column], move |row, inputs| {
                    let text = row.get(inputs[0]).value()?.to_string();
                    expand(&regex, &text, &to).or_else(|| default.clone())
                })
            }
            Route::Template(pieces) => by_template(pieces, schema, plan),
            Route::Table { regex, to } => {
                if let Some(name) = expand(regex, &schema.table, to) {
                    checked(&name).map_err(Error::config)?;
                    plan.rename_table(name);
                }
                Ok(())
            }
        }
    }
}

/// `{column}` stands for the row's cell, `{table}` for the table's own name.
fn template(text: &str) -> Result<Vec<Piece<String>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').ok_or_else(|| format!("to: {text:?}: a {{ is never closed"))?;
        pieces.extend([Piece::Text(before.to_string()), Piece::Column(name.to_string())]);
        rest = tail;
    }
    match pieces.is_empty() {
        true => Err(format!("to: {text:?} names no column: write {{column}}, or use `rename_table` of cast-rename")),
        false => {
            pieces.push(Piece::Text(rest.to_string()));
            Ok(pieces)
        }
    }
}

fn by_template(pieces: &[Piece<String>], schema: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
    let mut columns: Vec<&String> = Vec::new();
    let mut bound = Vec::new();
    for piece in pieces {
        bound.push(match piece {
            Piece::Text(text) => Piece::Text(text.clone()),
            Piece::Column(name) if name == "table" => Piece::Text(schema.table.clone()),
            Piece::Column(name) => {
                columns.push(name);
                Piece::Column(columns.len() - 1)
            }
        });
    }
    by_row(plan, &columns, move |row, inputs| {
        let mut name = String::new();
        for piece in &bound {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Column(at) => name.push_str(&row.get(inputs[*at]).value()?.to_string()),
            }
        }
        Some(name)
    })
}

/// The match of the whole pattern, put into `to`; none: it does not match.
fn expand(regex: &Regex, text: &str, to: &str) -> Option<String> {
    let mut name = String::new();
    regex.captures(text)?.expand(to, &mut name);
    Some(name)
}

fn by_row(
    plan: &mut TransformPlan,
    columns: &[&String],
    name: impl Fn(&Row<'_, '_>, &[Input]) -> Option<String> + 'static,
) -> Result<(), Error> {
    let read = |column: &&String| {
        let found = plan.column(column).map(|column| plan.read(column));
        found.ok_or_else(|| Error::schema(format!("there is no column {column} that the route may read")))
    };
    let inputs = columns.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    plan.may_route();
    plan.each_row(move |row, out| {
        if let Some(name) = name(row, &inputs) {
            checked(&name).map_err(|e| Reject::new("route.name", e))?;
            out.route(name);
        }
        Ok(())
    });
    Ok(())
}

/// A value becomes the name of a table, and that a folder: nothing that leads elsewhere.
fn checked(name: &str) -> Result<(), String> {
    let good = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) && part.len() <= 128
    };
    match name.split('.').count() <= 2 && name.split('.').all(good) {
        true => Ok(()),
        false => {
            Err(format!("{name:?} is no name of a table: letters, digits, _ and -, and one dot after a namespace"))
        }
    }
}

millrace_sdk::transform!(Route);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Answer, Case, Fate};
    use serde_json::{Value as Json, json};

    fn orders(config: Json) -> Result<Answer, String> {
        let case = Case::table("orders_7")
            .key("id", DataType::Int64)
            .column("region", DataType::Text)
            .config(config)
            .insert(json!({ "id": 1, "region": "eu" }))
            .insert(json!({ "id": 2, "region": "asia-1" }))
            .insert(json!({ "id": 3, "region": null }))
            .insert(json!({ "id": 4 }));
        let answer = case.transform::<Route>()?;
        assert_eq!(case.transform_cut::<Route>(1).as_ref(), Ok(&answer));
        Ok(answer)
    }

    fn tables(config: Json) -> Vec<String> {
        orders(config).expect("routed").tables
    }

    #[test]
    fn rows_go_by_a_value_a_pattern_or_a_template() {
        let by_value = json!({ "column": "region", "to": { "eu": "orders_eu" }, "default": "others.orders" });
        assert_eq!(tables(by_value), ["orders_eu", "others.orders", "orders_7", "orders_7"]);
        let by_pattern = json!({ "column": "region", "regex": "^([a-z]+)-", "to": "in_$1" });
        assert_eq!(tables(by_pattern), ["orders_7", "in_asia", "orders_7", "orders_7"]);
        let by_template = json!({ "to": "{table}_{region}" });
        assert_eq!(tables(by_template), ["orders_7_eu", "orders_7_asia-1", "orders_7", "orders_7"]);
    }

    #[test]
    fn numbered_tables_become_one_by_their_name() {
        assert_eq!(tables(json!({ "regex": "^orders_\\d+$", "to": "orders" })), ["orders"; 4]);
        assert_eq!(tables(json!({ "regex": "^customers_\\d+$", "to": "customers" })), ["orders_7"; 4]);
    }

    #[test]
    fn a_value_that_makes_no_name_is_refused() {
        let case = Case::table("orders").column("region", DataType::Text).config(json!({ "to": "orders_{region}" }));
        for region in ["/../etc", "a.b.c", "x y", "."] {
            let answer = case.clone().insert(json!({ "region": region })).transform::<Route>();
            let fate = answer.expect("routed").fates.remove(0);
            assert!(matches!(&fate, Fate::Rejected { code, .. } if code == "route.name"), "{fate:?}");
        }
    }

    #[test]
    fn configs_that_make_no_sense_are_refused() {
        for (config, part) in [
            (json!({ "to": "orders" }), "names no column"),
            (json!({ "to": "orders_{region" }), "never closed"),
            (json!({ "column": "region", "to": "orders" }), "as a map of values"),
            (json!({ "column": "region", "regex": "(", "to": "x" }), "regex:"),
            (json!({ "column": "regoin", "to": { "eu": "x" } }), "no column regoin"),
            (json!({ "regex": "^(.*)$", "to": "../$1" }), "is no name of a table"),
        ] {
            let error = orders(config.clone()).expect_err("refused");
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
