//! Conditions on cells, for the plugins that judge rows: ranges, lists of values, patterns.

use millrace_sdk::{Cell, ColumnDef, Value};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value as Json;

mod range;

pub use range::{Bounds, Number, Range};

/// A list of values, as a config names them.
#[derive(Debug, Clone)]
pub struct Values(pub Vec<String>);

impl Values {
    pub fn of(values: &[Json]) -> Self {
        Values(values.iter().map(plain).collect())
    }

    pub fn contains(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Text(text) => self.0.iter().any(|v| v == text),
            value => self.0.contains(&value.to_string()),
        }
    }
}

/// A JSON value as cells print.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A condition as a config has it: a range, or several of these, all of which must hold.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Written {
    Range(String),
    All(Fields),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    #[serde(rename = "in")]
    one_of: Option<Vec<Json>>,
    not_in: Option<Vec<Json>>,
    range: Option<String>,
    regex: Option<String>,
    null: Option<bool>,
}

/// A condition on one cell.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    one_of: Option<Values>,
    not_in: Option<Values>,
    range: Option<Range>,
    regex: Option<Regex>,
    null: Option<bool>,
}

impl Condition {
    /// # Errors
    /// What is wrong, without its place.
    pub fn read(written: &Written) -> Result<Self, String> {
        let fields = match written {
            Written::Range(text) => return Ok(Condition { range: Some(Range::parse(text)?), ..Condition::default() }),
            Written::All(fields) => fields,
        };
        let condition = Condition {
            one_of: fields.one_of.as_deref().map(Values::of),
            not_in: fields.not_in.as_deref().map(Values::of),
            range: fields.range.as_deref().map(Range::parse).transpose()?,
            regex: fields.regex.as_deref().map(Regex::new).transpose().map_err(|e| format!("regex: {e}"))?,
            null: fields.null,
        };
        let Condition { one_of, not_in, range, regex, null } = &condition;
        match (one_of, not_in, range, regex, null) {
            (None, None, None, None, None) => Err("says nothing: write in, not_in, range, regex or null".to_string()),
            _ => Ok(condition),
        }
    }

    /// Whether columns of this kind can be judged.
    ///
    /// # Errors
    /// A range is for numbers.
    pub fn fits(&self, column: &ColumnDef) -> Result<(), String> {
        match self.range.is_some() && !column.ty.is_number() {
            true => Err(format!("column {} is {}, a range is for numbers", column.name, column.ty)),
            false => Ok(()),
        }
    }

    /// None: the cell was not sent, so nobody knows. NULL is in no list and in no range, and matches nothing.
    pub fn holds(&self, cell: &Cell<Value<'_>>) -> Option<bool> {
        let value = match cell {
            Cell::NotSent => return None,
            Cell::Null => {
                let wants_value = self.one_of.is_some() || self.range.is_some() || self.regex.is_some();
                return Some(!wants_value && self.null != Some(false));
            }
            Cell::Value(value) => value,
        };
        let holds = self.null != Some(true)
            && self.one_of.as_ref().is_none_or(|v| v.contains(value))
            && self.not_in.as_ref().is_none_or(|v| !v.contains(value))
            && self.range.as_ref().is_none_or(|r| r.holds_value(value))
            && self.regex.as_ref().is_none_or(|r| matches(r, value));
        Some(holds)
    }
}

fn matches(regex: &Regex, value: &Value<'_>) -> bool {
    match value {
        Value::Text(text) | Value::Json(text) => regex.is_match(text),
        value => regex.is_match(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn condition(json: Json) -> Result<Condition, String> {
        Condition::read(&serde_json::from_value(json).map_err(|e| e.to_string())?)
    }

    #[test]
    fn null_holds_only_where_no_value_is_wanted() {
        for (written, on_null, on_x) in [
            (json!({ "in": ["x"] }), false, true),
            (json!({ "not_in": ["x"] }), true, false),
            (json!({ "regex": "^x" }), false, true),
            (json!({ "null": true }), true, false),
            (json!({ "null": false }), false, true),
            (json!({ "not_in": ["y"], "null": false }), false, true),
        ] {
            let condition = condition(written.clone()).expect("condition");
            assert_eq!(condition.holds(&Cell::Null), Some(on_null), "{written}");
            assert_eq!(condition.holds(&Cell::Value(Value::Text("x"))), Some(on_x), "{written}");
            assert_eq!(condition.holds(&Cell::NotSent), None, "{written}");
        }
    }

    #[test]
    fn numbers_are_compared_as_cells_print_and_ranges_without_rounding() {
        assert_eq!(condition(json!({ "in": [7] })).expect("list").holds(&Cell::Value(Value::Int(7))), Some(true));
        assert_eq!(condition(json!("> 0.1")).expect("range").holds(&Cell::Value(Value::Int(0))), Some(false));
    }

    #[test]
    fn a_condition_that_makes_no_sense_is_refused() {
        for (written, part) in
            [(json!({}), "says nothing"), (json!("most"), "is no range"), (json!({ "regex": "(" }), "regex")]
        {
            assert!(condition(written.clone()).expect_err("refused").contains(part), "{written}");
        }
    }
}
