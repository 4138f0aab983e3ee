//! How a table's columns follow those of its source, by the policies of the pipeline file.

use millrace_core::schema::{Column, TableSchema};
use millrace_core::{Error, Result};
use serde_json::{Value, json};

use super::layout::Misfit;
use super::types::{Convert, conversion, delta_type};
use crate::config::{DeltaConfig, Mode, SchemaChange, SchemaEvolution};
use crate::log::schema::{DeltaSchema, DeltaType, Field, TYPE_CHANGES};

/// A table's columns while the way of rows of one schema into it is planned.
pub(crate) struct Evolving<'a> {
    source: &'a TableSchema,
    config: &'a DeltaConfig,
    /// What the table's columns are to be.
    pub schema: DeltaSchema,
    /// It has no columns of a source yet: what comes first is no change.
    is_new: bool,
}

impl<'a> Evolving<'a> {
    pub(crate) fn new(source: &'a TableSchema, config: &'a DeltaConfig, table: &DeltaSchema) -> Self {
        let is_new = table.fields.iter().all(|f| f.name.starts_with(crate::META_PREFIX));
        Self { source, config, schema: table.clone(), is_new }
    }

    fn policy(&self, change: SchemaChange, column: &str) -> SchemaEvolution {
        self.config.policy(change, &self.source.name, column)
    }

    /// The table's column for one of the source, and how its cells get there; `None` where it is left out. `name`: the
    /// table's own.
    ///
    /// Errors: `sink.schema_changed` (halts the table) for a change that its policy forbids.
    pub(crate) fn column(&mut self, name: &str, column: &Column) -> Result<Result<Option<(Field, Convert)>, Misfit>> {
        let natural = delta_type(&column.ty);
        if self.schema.field(name).is_none() {
            if !self.is_new {
                match self.policy(SchemaChange::AddColumn, name) {
                    SchemaEvolution::Evolve | SchemaEvolution::TryEvolve | SchemaEvolution::Lenient => {}
                    SchemaEvolution::Ignore => return Ok(Ok(None)),
                    SchemaEvolution::Exception => return Err(self.forbidden(&format!("has a new column `{name}`"))),
                }
            }
            self.schema.fields.push(Field::new(name, natural.clone()));
        }
        let Some(field) = self.schema.fields.iter_mut().find(|f| f.name == name) else {
            return Err(Error::bug("a column that was added is gone"));
        };
        let had = field.ty.clone();
        if conversion(&column.ty, &had).is_none() {
            let policy = self.config.policy(SchemaChange::ChangeType, &self.source.name, name);
            let what = format!("column `{name}` is {had} in the table and {} here", column.ty);
            match (policy, widened(&had, &natural)) {
                (SchemaEvolution::Evolve | SchemaEvolution::TryEvolve, Some(wider)) => widen(field, wider),
                (SchemaEvolution::Evolve, None) => {
                    return Err(self.impossible(&what, "values that are there would not fit"));
                }
                (SchemaEvolution::Exception, _) => return Err(self.forbidden(&what)),
                _ => {}
            }
        }
        let field = self.schema.field(name).cloned().ok_or_else(|| Error::bug("a column is gone"))?;
        let Some(how) = conversion(&column.ty, &field.ty) else {
            return Ok(Err(Misfit {
                code: "sink.type_mismatch",
                reason: format!("column `{name}` is {} in the table and {} here", field.ty, column.ty),
                column: Some(column.name.to_string()),
            }));
        };
        Ok(Ok(Some((field, how))))
    }

    /// Looks at what the table has beside the rows' columns: columns that they do not have, and those that may not be NULL
    /// and are. `names`: the table's names of the source's columns. Answers the columns in which NULL is refused.
    ///
    /// Errors: `sink.schema_changed` (halts the table).
    pub(crate) fn rest(&mut self, names: &[String]) -> Result<Vec<String>> {
        let mut refuses_null = Vec::new();
        for place in 0..self.schema.fields.len() {
            let field = &self.schema.fields[place];
            let name = field.name.clone();
            if name.starts_with(crate::META_PREFIX) {
                continue;
            }
            let column = names.iter().position(|n| *n == name).and_then(|i| self.source.columns.get(i));
            if column.is_none() {
                let what = format!("has no column `{name}` (any more), which the table has");
                match self.policy(SchemaChange::DropColumn, &name) {
                    SchemaEvolution::Exception => return Err(self.forbidden(&what)),
                    SchemaEvolution::Evolve => {
                        return Err(self.impossible(&what, "Delta drops a column by column mapping alone"));
                    }
                    SchemaEvolution::TryEvolve | SchemaEvolution::Lenient | SchemaEvolution::Ignore => {}
                }
            }
            // Rows of deletes have their key alone.
            let has_value = column.is_some_and(|c| !c.nullable && (c.key || self.config.mode == Mode::Upsert));
            if field.nullable || has_value {
                continue;
            }
            let what = format!("may be NULL in column `{name}`, which is NOT NULL in the table");
            match self.policy(SchemaChange::Nullability, &name) {
                SchemaEvolution::Exception => return Err(self.forbidden(&what)),
                SchemaEvolution::Ignore if self.config.mode == Mode::Upsert && column.is_some() => {
                    refuses_null.push(name);
                }
                SchemaEvolution::Ignore => return Err(self.impossible(&what, "NULL is what such a row has there")),
                _ => self.schema.fields[place].nullable = true,
            }
        }
        Ok(refuses_null)
    }

    fn forbidden(&self, what: &str) -> Error {
        Error::halt_table("sink.schema_changed", format!("{}: {what}, and the policy is `exception`", self.source.name))
            .hint("change the Delta table by hand, or set another `schema_evolution` or a rule in `schema_rules`")
    }

    fn impossible(&self, what: &str, why: &str) -> Error {
        Error::halt_table(
            "sink.schema_changed",
            format!("{}: {what}, and the table can not follow: {why}", self.source.name),
        )
        .hint("set `schema_evolution: try_evolve` or `lenient`, or a rule for the column in `schema_rules`")
    }
}

/// The type that holds the values of both, where Delta's type widening goes there
/// (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#type-widening>).
pub(crate) fn widened(had: &DeltaType, wanted: &DeltaType) -> Option<DeltaType> {
    use DeltaType::{Byte, Decimal, Double, Float, Integer, Long, Short};
    match (had, wanted) {
        (Byte, Short | Integer | Long | Double)
        | (Short, Integer | Long | Double)
        | (Integer, Long | Double)
        | (Float, Double) => Some(wanted.clone()),
        (Byte | Short | Integer | Long | Decimal { .. }, Decimal { precision, scale }) => {
            let (whole, fraction) = match had {
                Long => (20, 0),
                Decimal { precision, scale } => (precision - scale, *scale),
                _ => (10, 0),
            };
            let (whole, scale) = (whole.max(precision - scale), fraction.max(*scale));
            (whole + scale <= 38).then_some(Decimal { precision: whole + scale, scale })
        }
        _ => None,
    }
}

/// Readers find the types that older files have in the column's metadata.
fn widen(field: &mut Field, wider: DeltaType) {
    let change = json!({ "fromType": field.ty.to_string(), "toType": wider.to_string() });
    match field.metadata.get_mut(TYPE_CHANGES).and_then(Value::as_array_mut) {
        Some(changes) => changes.push(change),
        None => drop(field.metadata.insert(TYPE_CHANGES.into(), json!([change]))),
    }
    field.ty = wider;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_widen_only_where_every_value_stays_what_it_was() {
        let decimal = |precision, scale| DeltaType::Decimal { precision, scale };
        for (had, wanted, wider) in [
            (DeltaType::Integer, DeltaType::Long, Some(DeltaType::Long)),
            (DeltaType::Float, DeltaType::Double, Some(DeltaType::Double)),
            (DeltaType::Long, DeltaType::Double, None),
            (DeltaType::Text, DeltaType::Long, None),
            (DeltaType::Long, DeltaType::Integer, None),
            (decimal(10, 2), decimal(12, 4), Some(decimal(12, 4))),
            (decimal(10, 2), decimal(10, 4), Some(decimal(12, 4))),
            (DeltaType::Integer, decimal(5, 2), Some(decimal(12, 2))),
            (DeltaType::Long, decimal(20, 0), Some(decimal(20, 0))),
            (decimal(30, 2), decimal(38, 18), None),
        ] {
            assert_eq!(widened(&had, &wanted), wider, "{had} and {wanted}");
        }
    }

    #[test]
    fn a_column_remembers_all_the_types_that_it_had() {
        let mut field = Field::new("c", DeltaType::Short);
        widen(&mut field, DeltaType::Integer);
        widen(&mut field, DeltaType::Long);
        let changes = json!([
            { "fromType": "short", "toType": "integer" },
            { "fromType": "integer", "toType": "long" },
        ]);
        assert_eq!((field.ty, field.metadata[TYPE_CHANGES].clone()), (DeltaType::Long, changes));
    }
}
