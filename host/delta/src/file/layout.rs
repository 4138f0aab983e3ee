//! How batches of one schema go into one table: which column goes where, as what.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field as ArrowField, Schema, SchemaRef};
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::schema::{Images, TableName, TableSchema};
use millrace_core::{Error, Result};

use super::evolution::Evolving;
use super::meta::{self, MetaColumns};
use super::types::{Convert, conversion, convert, delta_type};
use crate::config::DeltaConfig;
use crate::log::schema::{DeltaSchema, DeltaType, Field};
use crate::upsert::feed::RESERVED;

/// Why rows of a schema can not go into the table: the changes become dead letters.
#[derive(Clone, Debug)]
pub(crate) struct Misfit {
    pub code: &'static str,
    pub reason: String,
    pub column: Option<String>,
}

/// One column on its way.
#[derive(Clone, Debug)]
struct Way {
    /// Index into the batch.
    input: usize,
    how: Convert,
}

/// A column that a batch gives the table.
#[derive(Debug)]
pub(crate) struct Given {
    /// The table's.
    pub name: String,
    pub cells: ArrayRef,
    /// Set where the value was not sent.
    pub unavailable: Option<BooleanBuffer>,
}

/// The way of the batches of one schema.
#[derive(Debug)]
pub(crate) struct Layout {
    pub source: Arc<TableSchema>,
    /// Columns of the file, those of the table that the batch fills; ours last.
    pub columns: Vec<Field>,
    pub arrow: SchemaRef,
    ways: Vec<Way>,
    /// Columns by which the table is partitioned: they are in the path, not in the file.
    pub partition: Vec<(Field, usize, Convert)>,
    /// Indices into `columns` of floats.
    pub floats: Vec<usize>,
    /// The table's names of the batch's columns.
    names: Vec<String>,
    /// Columns of the table whose rows may not be NULL, by the policy.
    refuses_null: Vec<String>,
    meta: Option<MetaColumns>,
}

/// Spark refuses these in the names of Parquet columns.
const REFUSED_IN_NAMES: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// A column's name in the table.
pub(crate) fn table_name_of(column: &str) -> String {
    column.replace(REFUSED_IN_NAMES, "_")
}

impl Layout {
    /// Plans the way of `source`'s batches into a table of columns `table`, which change as the policies say.
    ///
    /// Errors: `sink.schema_changed` (halts the table) for a change that its policy forbids.
    pub(crate) fn plan(
        source: &Arc<TableSchema>,
        table: &mut DeltaSchema,
        partition_by: &[String],
        config: &DeltaConfig,
        meta: MetaColumns,
    ) -> Result<Result<Self, Misfit>> {
        let mut evolving = Evolving::new(source, config, table);
        let mut columns = Vec::new();
        let mut ways = Vec::new();
        let mut partition = Vec::new();
        let mut names = Vec::with_capacity(source.columns.len());
        for (input, column) in source.columns.iter().enumerate() {
            let name = table_name_of(&column.name);
            let reserved = config.change_data_feed && RESERVED.iter().any(|r| r.eq_ignore_ascii_case(&name));
            if let Some(misfit) = misnamed(&name, &column.name, reserved, &names, &evolving.schema) {
                return Ok(Err(misfit));
            }
            match evolving.column(&name, column)? {
                Ok(Some((field, how))) if partition_by.contains(&name) => partition.push((field, input, how)),
                Ok(Some((field, how))) => {
                    columns.push(field);
                    ways.push(Way { input, how });
                }
                Ok(None) => {}
                Err(misfit) => return Ok(Err(misfit)),
            }
            names.push(name);
        }
        let refuses_null = evolving.rest(&names)?;
        let mut grown = evolving.schema;
        partition.sort_by_key(|(field, ..)| partition_by.iter().position(|p| *p == field.name));
        if let Some(misfit) = unpartitioned(partition_by, &partition) {
            return Ok(Err(misfit));
        }
        for field in meta.fields() {
            if let Err(misfit) = add_meta(&mut grown, &field) {
                return Ok(Err(misfit));
            }
            columns.push(field);
        }
        *table = grown;
        let source = Arc::clone(source);
        let arrow = Arc::new(Schema::new(columns.iter().map(arrow_field).collect::<Vec<_>>()));
        let floats = floats(&columns);
        Ok(Ok(Self { source, columns, arrow, ways, partition, floats, names, refuses_null, meta: Some(meta) }))
    }

    /// A table of our own whose rows are not changes: the columns as they are.
    pub(crate) fn plain(source: &Arc<TableSchema>) -> Self {
        let columns: Vec<Field> = source.columns.iter().map(|c| Field::new(&*c.name, delta_type(&c.ty))).collect();
        let ways = source
            .columns
            .iter()
            .enumerate()
            .filter_map(|(input, column)| Some(Way { input, how: conversion(&column.ty, &columns[input].ty)? }));
        Self {
            ways: ways.collect(),
            arrow: Arc::new(Schema::new(columns.iter().map(arrow_field).collect::<Vec<_>>())),
            source: Arc::clone(source),
            columns,
            partition: Vec::new(),
            floats: Vec::new(),
            names: Vec::new(),
            refuses_null: Vec::new(),
            meta: None,
        }
    }

    /// Rows that are in the table's types already. `partition_by`: columns that are in the path, not in the file.
    pub(crate) fn whole(fields: &[Field], partition_by: &[String]) -> Self {
        let (inside, outside): (Vec<Field>, Vec<Field>) =
            fields.iter().cloned().partition(|f| !partition_by.contains(&f.name));
        let mut partition: Vec<_> = outside.into_iter().map(|f| (f, 0, Convert::Same)).collect();
        partition.sort_by_key(|(field, ..)| partition_by.iter().position(|p| *p == field.name));
        Self {
            source: Arc::new(TableSchema::new(TableName::new("", ""), Vec::new(), Images::None)),
            arrow: Arc::new(Schema::new(inside.iter().map(arrow_field).collect::<Vec<_>>())),
            floats: floats(&inside),
            columns: inside,
            ways: Vec::new(),
            partition,
            names: Vec::new(),
            refuses_null: Vec::new(),
            meta: None,
        }
    }

    /// Every column that the batch gives the table, converted, with the bits of values that were not sent; those by
    /// which the table is partitioned among them.
    pub(crate) fn cells(&self, batch: &ChangeBatch) -> Result<Vec<Given>> {
        let ways = self.ways.iter().zip(&self.columns).map(|(way, field)| (field, way.input, &way.how));
        let partition = self.partition.iter().map(|(field, input, how)| (field, *input, how));
        let mut given = Vec::with_capacity(self.columns.len() + self.partition.len());
        for (field, input, how) in ways.chain(partition) {
            let cells = convert(&batch.columns[input], how)?;
            given.push(Given { name: field.name.clone(), cells, unavailable: batch.unavailable[input].clone() });
        }
        if let Some(meta) = self.meta {
            let mut arrays = Vec::new();
            meta.append(batch, &self.names, &mut arrays);
            let named = meta.fields().into_iter().zip(arrays);
            given.extend(named.map(|(field, cells)| Given { name: field.name, cells, unavailable: None }));
        }
        Ok(given)
    }

    /// Changes of which a row has no value where the table wants one; what was not sent is taken from a row that has it.
    pub(crate) fn nulls(&self, given: &[Given], batch: &ChangeBatch) -> Option<(Vec<u32>, Misfit)> {
        let is_null = |column: &Given, row: usize| {
            column.cells.is_null(row) && !column.unavailable.as_ref().is_some_and(|bits| bits.value(row))
        };
        let mut changes = Vec::new();
        let mut named = None;
        for column in given.iter().filter(|g| self.refuses_null.contains(&g.name)) {
            let rows = (0..batch.rows()).filter(|row| {
                let is_row = matches!(batch.change_types[*row], ChangeType::Insert | ChangeType::UpdatePostimage);
                is_row && is_null(column, *row)
            });
            let before = changes.len();
            changes.extend(rows.map(|row| batch.changes[row]));
            if changes.len() > before {
                named.get_or_insert_with(|| column.name.clone());
            }
        }
        changes.sort_unstable();
        changes.dedup();
        let column = named?;
        let reason = format!("the row has no value for `{column}`, which is NOT NULL in the table");
        Some((changes, Misfit { code: "sink.null", reason, column: Some(column) }))
    }

    /// The batch as the file has it. `rows` of it stay the same in number and order.
    pub(crate) fn convert(&self, batch: &ChangeBatch) -> Result<RecordBatch> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for way in &self.ways {
            arrays.push(convert(&batch.columns[way.input], &way.how)?);
        }
        if let Some(meta) = self.meta {
            meta.append(batch, &self.names, &mut arrays);
        }
        RecordBatch::try_new(Arc::clone(&self.arrow), arrays).map_err(|e| Error::bug(e.to_string()))
    }

    /// Which float columns of a converted batch hold a NaN: sets their place in `seen`.
    pub(crate) fn note_nans(&self, batch: &RecordBatch, seen: &mut [bool]) {
        for column in &self.floats {
            if !seen[*column] {
                seen[*column] = has_nan(batch.column(*column));
            }
        }
    }
}

fn floats(columns: &[Field]) -> Vec<usize> {
    (0..columns.len()).filter(|i| matches!(columns[*i].ty, DeltaType::Float | DeltaType::Double)).collect()
}

fn has_nan(cells: &ArrayRef) -> bool {
    // Values under nulls are looked at as well: a NaN there costs a bound and nothing else.
    match cells.data_type() {
        DataType::Float32 => cells.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan()),
        _ => cells.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan()),
    }
}

fn arrow_field(field: &Field) -> ArrowField {
    ArrowField::new(&field.name, field.ty.arrow(), true)
}

fn misnamed(name: &str, column: &str, reserved: bool, taken: &[String], table: &DeltaSchema) -> Option<Misfit> {
    let reason = if name.starts_with(crate::META_PREFIX) {
        format!("column `{column}` has a name that is kept for millrace's own columns")
    } else if reserved {
        format!("column `{column}` has a name that is kept for the change data feed")
    } else if taken.iter().any(|t| t.to_lowercase() == name.to_lowercase()) {
        format!("column `{column}` and another one of the row are both `{name}` in the table")
    } else if let Some(other) = table.field_of_any_case(name).filter(|f| f.name != name) {
        format!("column `{column}` differs from the table's `{}` by case alone", other.name)
    } else {
        return None;
    };
    Some(Misfit { code: "sink.column_name", reason, column: Some(column.to_owned()) })
}

fn unpartitioned(partition_by: &[String], found: &[(Field, usize, Convert)]) -> Option<Misfit> {
    if let Some(missing) = partition_by.iter().find(|p| found.iter().all(|(f, ..)| f.name != **p)) {
        return Some(Misfit {
            code: "sink.partition_column",
            reason: format!("the row has no column `{missing}`, by which the table is partitioned"),
            column: Some(missing.clone()),
        });
    }
    let unfit = found.iter().find(|(f, ..)| {
        matches!(
            f.ty,
            DeltaType::Float | DeltaType::Double | DeltaType::Binary | DeltaType::TextList | DeltaType::Foreign(_)
        )
    })?;
    Some(Misfit {
        code: "sink.partition_column",
        reason: format!("a table can not be partitioned by `{}`, a {}", unfit.0.name, unfit.0.ty),
        column: Some(unfit.0.name.clone()),
    })
}

fn add_meta(table: &mut DeltaSchema, field: &Field) -> Result<(), Misfit> {
    match table.field(&field.name) {
        None => table.fields.push(field.clone()),
        Some(present) if present.ty == field.ty => {}
        Some(present) => {
            return Err(Misfit {
                code: "sink.type_mismatch",
                reason: format!("the table's `{}` is {} and not {}", field.name, present.ty, field.ty),
                column: Some(field.name.clone()),
            });
        }
    }
    Ok(())
}

pub(crate) use meta::POSITION;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SchemaEvolution;
    use millrace_core::error::Kind;
    use millrace_core::schema::{Column, ColumnType};

    fn source(columns: Vec<Column>) -> Arc<TableSchema> {
        Arc::new(TableSchema::new(TableName::new("public", "t"), columns, Images::Full))
    }

    fn plan(
        table: &mut DeltaSchema,
        columns: Vec<Column>,
        evolution: SchemaEvolution,
    ) -> Result<Result<Layout, Misfit>> {
        let config = DeltaConfig { schema_evolution: evolution, ..DeltaConfig::new("/l") };
        Layout::plan(&source(columns), table, &[], &config, MetaColumns { change_type: true, unavailable: true })
    }

    #[test]
    fn a_second_source_adds_its_columns_and_a_conflicting_one_is_refused_without_a_trace() {
        let mut table = DeltaSchema::default();
        let a = vec![Column::new("id", ColumnType::Int64), Column::new("a", ColumnType::Text)];
        plan(&mut table, a, SchemaEvolution::Exception).unwrap().unwrap();
        table.fields.retain(|f| f.name != "a");
        let names = |t: &DeltaSchema| t.fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&table)[..2], ["id", "_millrace_position"]);
        let b = || vec![Column::new("id", ColumnType::Int32), Column::new("b", ColumnType::Date)];
        let error = plan(&mut table, b(), SchemaEvolution::Exception).unwrap_err();
        assert_eq!((error.kind, error.code), (Kind::HaltTable, "sink.schema_changed"));
        let before = table.clone();
        plan(&mut table, b(), SchemaEvolution::Ignore).unwrap().unwrap();
        assert_eq!(table, before);
        plan(&mut table, b(), SchemaEvolution::Evolve).unwrap().unwrap();
        assert_eq!(names(&table).last().unwrap(), "b");
        let grown = table.clone();
        let c = vec![Column::new("c", ColumnType::Text), Column::new("id", ColumnType::Text)];
        let misfit = plan(&mut table, c, SchemaEvolution::Lenient).unwrap().unwrap_err();
        assert_eq!((misfit.code, misfit.column.as_deref()), ("sink.type_mismatch", Some("id")));
        assert_eq!(table, grown);
    }

    #[test]
    fn names_that_readers_refuse_are_replaced_and_clashes_are_refused() {
        let mut table = DeltaSchema::default();
        let spaced = vec![Column::new("a b", ColumnType::Text)];
        plan(&mut table, spaced, SchemaEvolution::Evolve).unwrap().unwrap();
        assert!(table.field("a_b").is_some());
        for names in [["a b", "a_b"], ["x", "X"]] {
            let columns = names.iter().map(|n| Column::new(*n, ColumnType::Text)).collect();
            let misfit = plan(&mut DeltaSchema::default(), columns, SchemaEvolution::Evolve).unwrap().unwrap_err();
            assert_eq!(misfit.code, "sink.column_name");
        }
        let ours = vec![Column::new("_millrace_x", ColumnType::Text)];
        let misfit = plan(&mut DeltaSchema::default(), ours, SchemaEvolution::Evolve).unwrap().unwrap_err();
        assert_eq!(misfit.code, "sink.column_name");
    }
}
