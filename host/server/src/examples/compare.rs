//! What was expected against what came out.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Seen, Tables};
use crate::config::model::{TestCase, TestChange};

/// One place where the two differ; `None`: nothing there.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub table: String,
    pub expected: Option<Value>,
    pub got: Option<Value>,
}

impl Difference {
    pub(super) fn dropped(expected: u64, got: u64) -> Self {
        Self { table: "row images dropped".into(), expected: Some(expected.into()), got: Some(got.into()) }
    }
}

/// As a diff: `-` what was expected, `+` what came out.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(expected) = &self.expected {
            write!(f, "\n  - {expected}")?;
        }
        if let Some(got) = &self.got {
            write!(f, "\n  + {got}")?;
        }
        Ok(())
    }
}

pub(super) fn compare(case: &TestCase, got: &Tables) -> Vec<Difference> {
    let expected = expected(case);
    let tables: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
    let mut differences = Vec::new();
    for table in tables {
        let (expected, got) = (of(&expected, table), of(got, table));
        differences.extend(differences_of(table, expected, got));
    }
    differences
}

fn of<'t>(tables: &'t Tables, table: &str) -> &'t [Seen] {
    tables.get(table).map_or(&[], Vec::as_slice)
}

fn expected(case: &TestCase) -> Tables {
    let mut tables = Tables::new();
    for change in &case.expect {
        if let Some(seen) = seen(change) {
            tables.entry(change.table.clone()).or_default().push(seen);
        }
    }
    tables
}

fn seen(change: &TestChange) -> Option<Seen> {
    let insert = || change.insert.clone().map(Seen::Insert);
    let update = || change.update.clone().map(|u| Seen::Update { before: u.before, after: u.after });
    let delete = || change.delete.clone().map(Seen::Delete);
    insert().or_else(update).or_else(delete).or_else(|| change.reject.clone().map(Seen::Reject))
}

/// Both lists in step; what one has more than the other is shown alone. Refusals come after the rows.
fn differences_of(table: &str, expected: &[Seen], got: &[Seen]) -> Vec<Difference> {
    let split =
        |all: &[Seen]| -> (Vec<Seen>, Vec<Seen>) { all.iter().cloned().partition(|s| !matches!(s, Seen::Reject(_))) };
    let (expected, got) = (split(expected), split(got));
    let pairs = [(expected.0, got.0), (expected.1, got.1)];
    pairs.iter().flat_map(|(expected, got)| in_step(table, expected, got)).collect()
}

fn in_step(table: &str, expected: &[Seen], got: &[Seen]) -> Vec<Difference> {
    // A common end keeps one missing row from making every later one differ.
    let ends = expected.iter().rev().zip(got.iter().rev()).take_while(|(e, g)| same(e, g)).count();
    let ends = if expected.len() == got.len() { 0 } else { ends };
    let (expected, got) = (&expected[..expected.len() - ends], &got[..got.len() - ends]);
    (0..expected.len().max(got.len()))
        .filter(|i| !matches!((expected.get(*i), got.get(*i)), (Some(e), Some(g)) if same(e, g)))
        .map(|i| Difference {
            table: table.to_owned(),
            expected: expected.get(i).map(shown),
            got: got.get(i).map(shown),
        })
        .collect()
}

fn shown(seen: &Seen) -> Value {
    serde_json::to_value(seen).unwrap_or_default()
}

fn same(expected: &Seen, got: &Seen) -> bool {
    match (expected, got) {
        (Seen::Insert(e), Seen::Insert(g)) | (Seen::Delete(e), Seen::Delete(g)) => same_row(e, g),
        (Seen::Update { before: eb, after: ea }, Seen::Update { before: gb, after: ga }) => {
            let before = match (eb, gb) {
                (Some(e), Some(g)) => same_row(e, g),
                (e, g) => e.is_none() && g.is_none(),
            };
            before && same_row(ea, ga)
        }
        (Seen::Reject(e), Seen::Reject(g)) => e.code == g.code && (e.column.is_none() || e.column == g.column),
        _ => false,
    }
}

fn same_row(expected: &Map<String, Value>, got: &Map<String, Value>) -> bool {
    expected.len() == got.len() && expected.iter().all(|(name, e)| got.get(name).is_some_and(|g| same_value(e, g)))
}

/// Numbers by value, also where one stands as text (decimals, integers beyond 2^53).
fn same_value(expected: &Value, got: &Value) -> bool {
    let number = |v: &Value| v.as_f64().or_else(|| v.as_str()?.parse::<f64>().ok());
    match (expected, got) {
        (Value::Number(_), _) | (_, Value::Number(_)) => number(expected).is_some() && number(expected) == number(got),
        _ => expected == got,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn insert(value: &Value) -> Seen {
        Seen::Insert(value.as_object().unwrap().clone())
    }

    #[test]
    fn one_missing_row_is_one_difference() {
        let rows: Vec<Seen> = (0..4).map(|i| insert(&json!({"id": i}))).collect();
        let found = in_step("t", &rows, &[rows[0].clone(), rows[2].clone(), rows[3].clone()]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].expected, Some(json!({"insert": {"id": 1}})));
        assert_eq!(found[0].got, None);
    }

    #[test]
    fn a_decimal_equals_the_number_it_stands_for() {
        assert!(same(&insert(&json!({"t": 12.5})), &insert(&json!({"t": "12.50"}))));
        assert!(!same(&insert(&json!({"t": "12.5"})), &insert(&json!({"t": "12.50"}))));
        assert!(!same(&insert(&json!({"t": 1})), &insert(&json!({"t": 1, "u": null}))));
    }
}
