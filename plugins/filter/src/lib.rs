//! Keeps or drops rows by conditions on their columns. Config:
//!
//! ```yaml
//! config:
//!   keep: { status: { in: [paid, shipped] }, total: ">= 10" }   # rows for which all of these hold
//!   drop: [{ email: { regex: "@example\\.com$" } }, { deleted_at: { null: false } }]   # of those, for which one item holds
//! ```
//! Each of the two is a condition a column, all of which must hold, or a list of such, one of which must hold. A row of which
//! nobody knows, since a cell was not sent, stays.

use std::collections::BTreeMap;

use conditions::{Condition, Written};
use millrace_sdk::prelude::*;
use millrace_sdk::{Input, Row};

const CONFIG_SCHEMA: &str = include_str!("../config.schema.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    keep: Option<Items>,
    drop: Option<Items>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Items {
    One(BTreeMap<String, Written>),
    AnyOf(Vec<BTreeMap<String, Written>>),
}

/// Of one item all must hold, of the items one.
type AnyOf<C> = Vec<Vec<(C, Condition)>>;

struct Filter {
    keep: Option<AnyOf<String>>,
    drop: Option<AnyOf<String>>,
}

impl Transform for Filter {
    const CONFIG_SCHEMA: &'static str = CONFIG_SCHEMA;

    fn configure(config: &Config) -> Result<Self, Error> {
        let fields: Fields = config.parse()?;
        let keep = fields.keep.map(|items| read("keep", items)).transpose()?;
        let drop = fields.drop.map(|items| read("drop", items)).transpose()?;
        match (&keep, &drop) {
            (None, None) => Err(Error::config("config: write `keep`, `drop` or both: without them no row is filtered")),
            _ => Ok(Filter { keep, drop }),
        }
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        let keep = self.keep.as_ref().map(|any| bind(any, plan)).transpose()?;
        let drop = self.drop.as_ref().map(|any| bind(any, plan)).transpose()?;
        plan.filter_rows(move |row| {
            keep.as_ref().is_none_or(|any| holds(any, row) != Some(false))
                && drop.as_ref().is_none_or(|any| holds(any, row) != Some(true))
        });
        Ok(())
    }
}

fn read(key: &str, items: Items) -> Result<AnyOf<String>, Error> {
    let items = match items {
        Items::One(item) => vec![item],
        Items::AnyOf(items) => items,
    };
    if items.is_empty() || items.iter().any(BTreeMap::is_empty) {
        return Err(Error::config(format!("{key}: it names no column")));
    }
    let condition = |(column, written): (String, Written)| {
        let condition = Condition::read(&written).map_err(|e| Error::config(format!("{key}.{column}: {e}")))?;
        Ok((column, condition))
    };
    items.into_iter().map(|item| item.into_iter().map(condition).collect()).collect()
}

/// A filter that knows one column less would let rows through: so each must be there.
fn bind(any: &AnyOf<String>, plan: &mut TransformPlan) -> Result<AnyOf<Input>, Error> {
    let mut bind = |(name, condition): &(String, Condition)| {
        let missing = || Error::schema(format!("there is no column {name} that the filter may read"));
        let column = plan.column(name).ok_or_else(missing)?;
        condition.fits(plan.definition(column)).map_err(Error::schema)?;
        Ok((plan.read(column), condition.clone()))
    };
    any.iter().map(|all| all.iter().map(&mut bind).collect()).collect()
}

/// None: a cell that decides was not sent.
fn holds(any: &AnyOf<Input>, row: &Row<'_, '_>) -> Option<bool> {
    let all = |all: &Vec<(Input, Condition)>| {
        let judged = all.iter().map(|(input, condition)| condition.holds(&row.get(*input)));
        decided(judged, false)
    };
    decided(any.iter().map(all), true)
}

/// `end` as soon as one is it; unknown if one is unknown; else the other.
fn decided(judged: impl Iterator<Item = Option<bool>>, end: bool) -> Option<bool> {
    let mut so_far = Some(!end);
    for one in judged {
        match one {
            Some(known) if known == end => return Some(end),
            None => so_far = None,
            Some(_) => {}
        }
    }
    so_far
}

millrace_sdk::transform!(Filter);

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_sdk::testing::{Case, Fate};
    use serde_json::{Value as Json, json};

    fn orders(config: Json) -> Case {
        Case::table("orders")
            .key("id", DataType::Int64)
            .column("status", DataType::Text)
            .column("total", DataType::Decimal { precision: 20, scale: 2 })
            .config(config)
    }

    fn kept(case: &Case) -> Vec<bool> {
        let answer = case.transform::<Filter>().expect("filtered");
        assert_eq!(case.transform_cut::<Filter>(1).as_ref(), Ok(&answer));
        answer.fates.iter().map(|fate| matches!(fate, Fate::Kept(_))).collect()
    }

    fn rows(config: Json) -> Vec<bool> {
        let case = orders(config)
            .insert(json!({ "id": 1, "status": "paid", "total": "10.00" }))
            .insert(json!({ "id": 2, "status": "paid", "total": "9.99" }))
            .insert(json!({ "id": 3, "status": "new", "total": "10.00" }))
            .insert(json!({ "id": 4, "status": null, "total": "10.00" }))
            .insert(json!({ "id": 5, "total": "10.00" }))
            .insert(json!({ "id": 6, "total": "1.00" }));
        kept(&case)
    }

    #[test]
    fn all_conditions_of_an_item_must_hold_and_one_item_of_a_list() {
        let paid = json!({ "status": { "in": ["paid"] }, "total": ">= 10" });
        assert_eq!(rows(json!({ "keep": paid })), [true, false, false, false, true, false]);
        let either = json!([{ "status": { "in": ["paid"] } }, { "total": ">= 10" }]);
        assert_eq!(rows(json!({ "keep": either })), [true, true, true, true, true, true]);
        assert_eq!(rows(json!({ "drop": either })), [false, false, false, false, false, true]);
    }

    #[test]
    fn what_was_not_sent_is_neither_kept_nor_dropped_by_its_condition() {
        assert_eq!(rows(json!({ "drop": { "status": { "null": true } } })), [true, true, true, false, true, true]);
        assert_eq!(rows(json!({ "keep": { "status": { "null": true } } })), [false, false, false, true, true, true]);
    }

    #[test]
    fn a_plan_drops_and_does_nothing_else() {
        let case = orders(json!({ "keep": { "id": "1..2" } })).insert(json!({ "id": 3 }));
        assert_eq!(case.transform::<Filter>().expect("filtered").fates, [Fate::Dropped]);
    }

    #[test]
    fn a_column_that_is_not_there_is_named_instead_of_letting_rows_through() {
        let error = orders(json!({ "keep": { "stauts": { "in": ["paid"] } } })).transform::<Filter>();
        assert!(error.as_ref().is_err_and(|e| e.contains("there is no column stauts")), "{error:?}");
    }

    #[test]
    fn configs_that_make_no_sense_are_refused_with_their_place() {
        for (config, part) in [
            (json!({}), "write `keep`, `drop` or both"),
            (json!({ "keep": [] }), "keep: it names no column"),
            (json!({ "keep": { "total": "much" } }), "keep.total: \"much\" is no range"),
            (json!({ "drop": { "status": {} } }), "drop.status: says nothing"),
            (json!({ "keep": { "status": "> 1" } }), "column status is text, a range is for numbers"),
        ] {
            let error = orders(config.clone()).transform::<Filter>().expect_err("refused");
            assert!(error.contains(part), "{config}: {error}");
        }
    }
}
