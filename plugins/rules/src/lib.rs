//! Rules on columns. Config: table (with or without its namespace, `*` for all), column, rule.
//!
//! ```yaml
//! config:
//!   orders:
//!     total: ">= 0"                                  # also >, <=, <, and "0..100"
//!     status: { enum: [new, paid, shipped], required: true }
//!     email: { regex: "^[^@]+@[^@]+$", length: "3..254", severity: warn }
//! ```

use std::collections::BTreeMap;

use conditions::{Bounds, Range, Values};
use millrace_sdk::prelude::*;
use regex::Regex;
use serde_json::Value as Json;

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");
const ALL: &str = "*";

struct Rules(BTreeMap<String, BTreeMap<String, Rule>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Comparison(String),
    Rule(RuleFields),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    #[serde(default)]
    required: bool,
    range: Option<String>,
    regex: Option<String>,
    #[serde(rename = "enum")]
    one_of: Option<Vec<Json>>,
    length: Option<String>,
    #[serde(default)]
    severity: Level,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Level {
    Warn,
    #[default]
    Reject,
    Quarantine,
}

/// A rule that was read and makes sense.
struct Rule {
    required: bool,
    range: Option<(String, Range)>,
    regex: Option<(String, Regex)>,
    one_of: Option<Values>,
    length: Option<(String, Bounds<usize>)>,
    severity: Severity,
}

impl Validator for Rules {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let written: BTreeMap<String, BTreeMap<String, Written>> = config.parse()?;
        let mut tables = BTreeMap::new();
        for (table, columns) in written {
            let mut rules = BTreeMap::new();
            for (column, rule) in columns {
                let rule = Rule::read(rule).map_err(|e| Error::config(format!("{table}.{column}: {e}")))?;
                rules.insert(column, rule);
            }
            tables.insert(table, rules);
        }
        Ok(Rules(tables))
    }

    fn plan(&self, schema: &Schema, plan: &mut CheckPlan) -> Result<(), Error> {
        let full = schema.full_name();
        let names = [schema.table.as_str(), full.as_str(), ALL];
        for (_, columns) in self.0.iter().filter(|(table, _)| names.contains(&table.as_str())) {
            for (column, rule) in columns {
                rule.plan(column, schema, plan)?;
            }
        }
        Ok(())
    }
}

impl Rule {
    fn read(written: Written) -> Result<Self, String> {
        let fields = match written {
            Written::Rule(fields) => fields,
            Written::Comparison(range) => RuleFields {
                required: false,
                range: Some(range),
                regex: None,
                one_of: None,
                length: None,
                severity: Level::Reject,
            },
        };
        let read = |text: String, regex: Result<Regex, regex::Error>| match regex {
            Ok(regex) => Ok((text, regex)),
            Err(e) => Err(format!("regex: {e}")),
        };
        Ok(Rule {
            required: fields.required,
            range: fields.range.map(|text| Range::parse(&text).map(|range| (text, range))).transpose()?,
            regex: fields.regex.map(|text| read(text.clone(), Regex::new(&text))).transpose()?,
            one_of: fields.one_of.as_deref().map(Values::of),
            length: fields.length.map(|text| Bounds::parse(&text).map(|bounds| (text, bounds))).transpose()?,
            severity: match fields.severity {
                Level::Warn => Severity::Warn,
                Level::Reject => Severity::Reject,
                Level::Quarantine => Severity::Quarantine,
            },
        })
    }

    fn plan(&self, column: &str, schema: &Schema, plan: &mut CheckPlan) -> Result<(), Error> {
        let Some(definition) = schema.column(column) else { return Ok(()) };
        let number = definition.ty.is_number();
        if self.required
            && let Some(rule) = plan.rule(format!("{column} required"), column, self.severity)
        {
            rule.required();
        }
        if let Some((text, range)) = self.range.clone() {
            if !number {
                return Err(Error::schema(format!("{column} {text}: the column is {:?}, no number", definition.ty)));
            }
            if let Some(rule) = plan.rule(format!("{column} {text}"), column, self.severity) {
                rule.check::<Any>(move |value| match range.holds_value(&value) {
                    true => Ok(()),
                    false => Err(format!("is {value}, must be {text}")),
                });
            }
        }
        if let Some((text, regex)) = self.regex.clone()
            && let Some(rule) = plan.rule(format!("{column} matches {text}"), column, self.severity)
        {
            rule.check::<Text>(move |value| match regex.is_match(value) {
                true => Ok(()),
                false => Err(format!("does not match {text}")),
            });
        }
        if let Some(allowed) = self.one_of.clone()
            && let Some(rule) = plan.rule(format!("{column} one of {}", allowed.0.join(", ")), column, self.severity)
        {
            rule.check::<Any>(move |value| match allowed.contains(&value) {
                true => Ok(()),
                false => Err(format!("is {value}, must be one of {}", allowed.0.join(", "))),
            });
        }
        if let Some((text, bounds)) = self.length.clone()
            && let Some(rule) = plan.rule(format!("{column} length {text}"), column, self.severity)
        {
            rule.check::<Text>(move |value| match bounds.holds(&value.chars().count()) {
                true => Ok(()),
                false => Err(format!("has {} characters, must have {text}", value.chars().count())),
            });
        }
        Ok(())
    }
}

millrace_sdk::validator!(Rules);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::Case;
    use serde_json::json;

    fn orders() -> Case {
        Case::table("orders")
            .key("id", DataType::Int64)
            .column("total", DataType::Decimal { precision: 0, scale: 0 })
            .column("status", DataType::Text)
            .column("email", DataType::Text)
    }

    fn messages(case: &Case) -> Vec<String> {
        let found = case.validate::<Rules>().expect("judged");
        found.into_iter().map(|v| format!("{}: {}", v.row, v.message)).collect()
    }

    #[test]
    fn a_comparison_judges_decimals_exactly() {
        let case = orders()
            .config(json!({ "orders": { "total": ">= 0" } }))
            .insert(json!({ "id": 1, "total": "0.00" }))
            .insert(json!({ "id": 2, "total": "-0.01" }))
            .insert(json!({ "id": 3, "total": null }))
            .insert(json!({ "id": 4 }))
            .insert(json!({ "id": 5, "total": "NaN" }));
        assert_eq!(messages(&case), ["1: total is -0.01, must be >= 0", "4: total is NaN, must be >= 0"]);
    }

    #[test]
    fn each_kind_of_rule_judges() {
        let rules = json!({ "public.orders": {
            "status": { "enum": ["new", "paid"], "required": true },
            "email": { "regex": "^[^@]+@[^@]+$", "length": "3..5" },
        } });
        let case = orders()
            .config(rules)
            .insert(json!({ "id": 1, "status": "new", "email": "a@b" }))
            .insert(json!({ "id": 2, "status": null, "email": "ab" }))
            .insert(json!({ "id": 3, "status": "lost", "email": "someone@b" }));
        assert_eq!(
            messages(&case),
            [
                "1: email does not match ^[^@]+@[^@]+$",
                "1: email has 2 characters, must have 3..5",
                "1: status is NULL",
                "2: email has 9 characters, must have 3..5",
                "2: status is lost, must be one of new, paid",
            ]
        );
    }

    #[test]
    fn a_table_without_rules_passes_by() {
        let case = orders().config(json!({ "customers": { "id": "> 0" } })).insert(json!({ "id": -1 }));
        assert_eq!(messages(&case), Vec::<String>::new());
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_with_its_place() {
        for (rules, place) in [
            (json!({ "orders": { "total": "about 5" } }), "orders.total"),
            (json!({ "orders": { "email": { "regex": "(" } } }), "orders.email"),
        ] {
            let error = orders().config(rules).validate::<Rules>().expect_err("no sense");
            assert!(error.contains(place), "{error}");
        }
        let case = orders().config(json!({ "orders": { "status": ">= 0" } }));
        let error = case.validate::<Rules>().expect_err("no number");
        assert!(error.starts_with("unsupported schema"), "{error}");
    }
}
