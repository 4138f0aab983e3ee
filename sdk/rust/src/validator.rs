//! The role `validator`: named rules, and verdicts. It cannot change data.

use crate::batch::{Batch, Input, Row, Rows};
use crate::bindings::exports_validator as wit;
use crate::bindings::types;
use crate::cell::Cell;
use crate::column::{Read, Reader};
use crate::config::Config;
use crate::error::Error;
use crate::schema::{ColumnDef, DataType, Schema};

/// A plugin that judges rows.
pub trait Validator: Sized + 'static {
    /// JSON Schema of the config document, which the host checks; empty: anything.
    const CONFIG_SCHEMA: &'static str = "";

    /// Reads the config.
    ///
    /// # Errors
    /// Usually [`Error::InvalidConfig`].
    fn configure(config: &Config) -> Result<Self, Error>;

    /// Names the rules of a table. A plan without rules lets its rows pass by the plugin.
    ///
    /// # Errors
    /// [`Error::UnsupportedSchema`] quarantines the table.
    fn plan(&self, schema: &Schema, plan: &mut CheckPlan) -> Result<(), Error>;
}

/// What a violation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// it is counted and shown
    Warn,
    /// the change goes to the dead letters
    #[default]
    Reject,
    /// the table is quarantined
    Quarantine,
}

type Check = Box<dyn Fn(&Batch, &mut Vec<wit::Violation>) -> Result<(), Error>>;

/// The rules of one table. Cells that were not sent are never judged.
pub struct CheckPlan {
    columns: Vec<ColumnDef>,
    reads: Vec<u16>,
    rules: Vec<wit::Rule>,
    checks: Vec<Check>,
    error: Option<Error>,
}

impl std::fmt::Debug for CheckPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckPlan").field("reads", &self.reads).field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl CheckPlan {
    pub(crate) fn new(schema: &Schema) -> Self {
        let columns = schema.columns.clone();
        CheckPlan { columns, reads: Vec::new(), rules: Vec::new(), checks: Vec::new(), error: None }
    }

    /// A rule on the column of this name. None: the table has no such column, or it is not granted.
    pub fn rule(&mut self, name: impl Into<String>, column: &str, severity: Severity) -> Option<RuleBuilder<'_>> {
        let index = self.columns.iter().position(|c| c.name == column)?;
        let rule = self.add(name.into(), severity, vec![index as u16]);
        let input = self.read(index as u16);
        Some(RuleBuilder { plan: self, rule, column: index, input })
    }

    /// A rule on several columns, judged row by row: `judge` answers what is wrong. It is not asked about rows in which
    /// one of the columns was not sent. False: a column is missing, and nothing was added.
    pub fn rule_on_rows(
        &mut self,
        name: impl Into<String>,
        columns: &[&str],
        severity: Severity,
        judge: impl Fn(&Row<'_, '_>, &[Input]) -> Result<(), String> + 'static,
    ) -> bool {
        let position = |name: &&str| self.columns.iter().position(|c| c.name == **name).map(|i| i as u16);
        let Some(indices) = columns.iter().map(position).collect::<Option<Vec<u16>>>() else { return false };
        let inputs: Vec<Input> = indices.iter().map(|&i| self.read(i)).collect();
        let rule = self.add(name.into(), severity, indices);
        let types: Vec<DataType> = self.reads.iter().map(|&i| self.columns[usize::from(i)].ty.clone()).collect();
        self.checks.push(Box::new(move |batch, violations| {
            let rows = Rows::new(batch, &types, &[])?;
            for index in 0..batch.rows {
                let row = rows.row(index);
                if inputs.iter().any(|i| matches!(row.get(*i), Cell::NotSent)) {
                    continue;
                }
                if let Err(message) = judge(&row, &inputs) {
                    violations.push(wit::Violation { row: index as u32, rule, message });
                }
            }
            Ok(())
        }));
        true
    }

    fn add(&mut self, name: String, severity: Severity, columns: Vec<u16>) -> u16 {
        let severity = match severity {
            Severity::Warn => 0,
            Severity::Reject => 1,
            Severity::Quarantine => 2,
        };
        self.rules.push(wit::Rule { name, severity, columns, ext: Vec::new() });
        (self.rules.len() - 1) as u16
    }

    fn read(&mut self, column: u16) -> Input {
        let known = self.reads.iter().position(|r| *r == column);
        Input(known.unwrap_or_else(|| {
            self.reads.push(column);
            self.reads.len() - 1
        }))
    }

    /// Splits the plan into what the host is told and what runs on each batch. None: no rules.
    pub(crate) fn finish(self) -> Result<Option<(wit::CheckPlan, Checks)>, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.rules.is_empty() {
            return Ok(None);
        }
        let plan = wit::CheckPlan { reads: self.reads, meta: Vec::new(), rules: self.rules, ext: Vec::new() };
        Ok(Some((plan, Checks(self.checks))))
    }
}

/// The checks of a plan.
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    pub(crate) fn run(&self, batch: types::Batch) -> Result<Vec<wit::Violation>, Error> {
        let batch = Batch::from(batch);
        let mut violations = Vec::new();
        for check in &self.0 {
            check(&batch, &mut violations)?;
        }
        // The first violation of a row gives the reason: rows in order, rules in the order of the plan.
        violations.sort_by_key(|v| (v.row, v.rule));
        Ok(violations)
    }
}

/// A rule on one column.
#[derive(Debug)]
pub struct RuleBuilder<'p> {
    plan: &'p mut CheckPlan,
    rule: u16,
    column: usize,
    input: Input,
}

impl RuleBuilder<'_> {
    /// What the column is.
    pub fn definition(&self) -> &ColumnDef {
        &self.plan.columns[self.column]
    }

    /// Every row must have a value.
    pub fn required(self) {
        self.check_cells::<crate::column::Any>(|cell| match cell {
            Cell::Null => Err("is NULL".to_string()),
            Cell::Value(_) | Cell::NotSent => Ok(()),
        });
    }

    /// `judge` answers what is wrong with a value; NULL and not sent are not judged.
    pub fn check<R: Read>(self, judge: impl for<'a> Fn(R::Item<'a>) -> Result<(), String> + 'static) {
        self.check_cells::<R>(move |cell| cell.value().map_or(Ok(()), &judge));
    }

    /// `judge` answers what is wrong with a cell, NULL included; not sent is not judged.
    pub fn check_cells<R: Read>(self, judge: impl for<'a> Fn(Cell<R::Item<'a>>) -> Result<(), String> + 'static) {
        let RuleBuilder { plan, rule, column, input } = self;
        let ColumnDef { name, ty, .. } = plan.columns[column].clone();
        if !R::fits(&ty) && plan.error.is_none() {
            plan.error = Some(Error::schema(format!(
                "rule {:?}: column {name} is {ty:?}, which the rule cannot read",
                plan.rules[usize::from(rule)].name
            )));
        }
        plan.checks.push(Box::new(move |batch, violations| {
            let cells = Reader::<R>::new(&batch.columns[input.0], &ty)?;
            for row in 0..batch.rows {
                let cell = cells.get(row);
                if matches!(cell, Cell::NotSent) {
                    continue;
                }
                if let Err(what) = judge(cell) {
                    violations.push(wit::Violation { row: row as u32, rule, message: format!("{name} {what}") });
                }
            }
            Ok(())
        }));
    }
}
