//! What a plugin plans for a table: checked against the contract and the grants before a row flows.

use std::collections::HashSet;
use std::sync::Arc;

use millrace_core::outcome::{From, Shape, TransformPlan, renamed};
use millrace_core::schema::{Column, TableName, TableSchema};
use millrace_core::stage::{Grants, StagePlan};
use millrace_core::{Error, Result};

use crate::bindings::types::{ColumnDefParam, ColumnDefResult, TableSchemaParam};
use crate::bindings::{transform, validator};
use crate::raw::Raw;
use crate::schema;

/// Meta columns that this host can ship.
pub(crate) const META: [&str; 2] = ["position", "commit-time"];
const EFFECTS: [&str; 4] = ["drop", "reject", "emit", "route"];

/// A table as one plugin may see it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) schema: &'a Arc<TableSchema>,
    pub(crate) grants: &'a Grants,
    /// Indices of the granted columns, in table order: what the plugin's own indices count in.
    visible: Vec<usize>,
}

/// A plan that was checked.
#[derive(Debug, PartialEq)]
pub(crate) struct Planned {
    /// What the plugin knows the schema by.
    pub(crate) id: u32,
    /// Columns of the table that are shipped, in the plugin's order.
    pub(crate) reads: Vec<usize>,
    pub(crate) meta: Vec<&'static str>,
    pub(crate) effects: Effects,
    pub(crate) work: Work,
    /// For the core.
    pub(crate) stage_plan: StagePlan,
}

#[derive(Debug)]
pub(crate) enum Work {
    Transform {
        plan: TransformPlan,
        writes: Vec<Target>,
        shapes: Vec<Vec<Target>>,
    },
    Check {
        plan: TransformPlan,
        rules: Vec<Rule>,
    },
    /// `plan` lets the messages pass: it is there for those that are refused.
    Parse {
        plan: TransformPlan,
        raw: Raw,
    },
}

impl PartialEq for Work {
    /// The core's plan follows from the rest, which [`StagePlan`] shows.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Work::Transform { writes, shapes, .. }, Work::Transform { writes: w, shapes: s, .. }) => {
                writes == w && shapes == s
            }
            (Work::Check { rules, .. }, Work::Check { rules: r, .. }) => rules == r,
            (Work::Parse { raw, .. }, Work::Parse { raw: r, .. }) => raw == r,
            _ => false,
        }
    }
}

/// A column that an answer brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) column: Column,
    /// The column of the table in whose place it stands.
    pub(crate) replaces: Option<usize>,
    /// The input's cells may stand for it.
    pub(crate) same_type: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) severity: Severity,
    /// The first column that it is about.
    pub(crate) column: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Warn,
    Reject,
    Quarantine,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) drop: bool,
    pub(crate) reject: bool,
    pub(crate) emit: bool,
    pub(crate) route: bool,
}

pub(crate) fn refused(message: impl Into<String>) -> Error {
    Error::config("plugin.plan_refused", message).hint("it is a bug of the plugin: its plan does not fit the contract")
}

pub(crate) fn not_granted(what: &str, column: &str, grant: &str) -> Error {
    Error::config("plugin.grant_missing", format!("it wants to {what} column {column}, which is not granted"))
        .hint(format!("add `grant: {{ {grant}: [{column}] }}` to the stage, or change the plugin's config"))
}

impl<'a> View<'a> {
    pub(crate) fn new(schema: &'a Arc<TableSchema>, grants: &'a Grants) -> Self {
        let granted = |c: &Column| grants.may_read(&c.name) || grants.may_write(&c.name);
        let visible = (0..schema.columns.len()).filter(|i| granted(&schema.columns[*i])).collect();
        Self { schema, grants, visible }
    }

    /// What the plugin is told of the columns.
    pub(crate) fn columns(&self) -> Vec<ColumnDefParam<'a>> {
        let definition = |index: &usize| {
            let Column { name, ty, nullable, key, source_type } = &self.schema.columns[*index];
            ColumnDefParam { name, ty: schema::data_type(ty), nullable: *nullable, key: *key, source_type, ext: &[] }
        };
        self.visible.iter().map(definition).collect()
    }

    pub(crate) fn table<'b>(&'b self, connector: &'b str, columns: &'b [ColumnDefParam<'b>]) -> TableSchemaParam<'b> {
        TableSchemaParam {
            connector,
            namespace: &self.schema.name.namespace,
            table: &self.schema.name.table,
            registry_ref: None,
            images: schema::images(self.schema.images),
            ext: &[],
            columns,
        }
    }

    /// The columns that the plugin may both see and write, each with the index that it counts by.
    pub(crate) fn convertible(&self) -> impl Iterator<Item = (u16, &'a Column)> + '_ {
        let columns = self.visible.iter().enumerate().map(|(at, index)| (at as u16, &self.schema.columns[*index]));
        columns.filter(|(_, c)| self.grants.may_read(&c.name) && self.may_change(c, "write").is_ok())
    }

    fn column(&self, index: u16) -> Result<(usize, &'a Column)> {
        let at = self.visible.get(usize::from(index)).ok_or_else(|| {
            refused(format!("it names column {index} of {}, of which it sees {}", self.schema.name, self.visible.len()))
        })?;
        Ok((*at, &self.schema.columns[*at]))
    }

    fn reads(&self, indices: &[u16]) -> Result<Vec<usize>> {
        let mut reads = Vec::with_capacity(indices.len());
        for index in indices {
            let (at, column) = self.column(*index)?;
            if !self.grants.may_read(&column.name) {
                return Err(not_granted("read", &column.name, "read"));
            }
            if reads.contains(&at) {
                return Err(refused(format!("it reads column {} twice", column.name)));
            }
            reads.push(at);
        }
        Ok(reads)
    }

    fn may_change(&self, column: &Column, what: &str) -> Result<()> {
        if !self.grants.may_write(&column.name) {
            return Err(not_granted(what, &column.name, "columns"));
        }
        if column.key && !self.grants.keys.iter().any(|k| **k == *column.name) {
            return Err(not_granted(&format!("{what} the key"), &column.name, "keys"));
        }
        Ok(())
    }

    /// Checks a plan of a validator. It changes nothing.
    pub(crate) fn check(&self, id: u32, plan: validator::CheckPlan) -> Result<Planned> {
        let reads = self.reads(&plan.reads)?;
        let mut rules = Vec::with_capacity(plan.rules.len());
        for rule in plan.rules {
            let severity = match rule.severity {
                0 => Severity::Warn,
                1 => Severity::Reject,
                2 => Severity::Quarantine,
                other => {
                    return Err(refused(format!(
                        "rule {:?} has the severity {other}; there are 0, 1 and 2",
                        rule.name
                    )));
                }
            };
            let columns = rule.columns.iter().map(|i| self.column(*i)).collect::<Result<Vec<_>>>()?;
            let column = columns.first().map(|(_, c)| c.name.clone());
            rules.push(Rule { name: rule.name, severity, column });
        }
        let untouched = self.untouched(&reads);
        let effects = Effects { reject: true, ..Effects::default() };
        let stage_plan = self.stage_plan(&reads, &[], &["reject"], &untouched);
        let work = Work::Check { plan: untouched, rules };
        Ok(Planned { id, reads, meta: meta(&plan.meta)?, effects, work, stage_plan })
    }

    /// Checks a plan of a parser.
    pub(crate) fn parse(&self, id: u32, raw: Raw) -> Planned {
        let reads = raw.reads();
        let untouched = self.untouched(&reads);
        let effects = Effects { reject: true, ..Effects::default() };
        let stage_plan = StagePlan { parses: true, ..self.stage_plan(&reads, &[], &["reject"], &untouched) };
        Planned { id, reads, meta: Vec::new(), effects, work: Work::Parse { plan: untouched, raw }, stage_plan }
    }

    /// The core's plan of a stage that changes nothing.
    fn untouched(&self, reads: &[usize]) -> TransformPlan {
        TransformPlan {
            output: self.schema.clone(),
            columns: (0..self.schema.columns.len()).map(From::Input).collect(),
            reads: reads.to_vec(),
            writes_key: false,
            shapes: Vec::new(),
        }
    }

    /// Checks a plan of a transform.
    pub(crate) fn transform(&self, id: u32, plan: transform::TransformPlan) -> Result<Planned> {
        let reads = self.reads(&plan.reads)?;
        let effects = effects(&plan.effects)?;
        let changes = self.changes(&plan)?;
        let (columns, from) = self.output(&plan, &changes)?;
        let shapes = plan.shapes.iter().map(|s| self.shape(s)).collect::<Result<Vec<_>>>()?;
        if !shapes.is_empty() && !effects.emit {
            return Err(refused("it declares further shapes, but not the effect \"emit\""));
        }
        let writes = changes.writes;
        let writes_key = writes.iter().any(|w| w.column.key);
        let table = Arc::new(TableSchema { columns, ..(**self.schema).clone() });
        let output = plan.rename_table.as_deref().map_or(table.clone(), |name| renamed(&table, name));
        let (core_shapes, own): (Vec<Shape>, Vec<Vec<Target>>) = shapes.into_iter().unzip();
        let core = TransformPlan { output, columns: from, reads: reads.clone(), writes_key, shapes: core_shapes };
        let declared: Vec<&str> = plan.effects.iter().map(String::as_str).collect();
        let stage_plan = self.stage_plan(&reads, &writes, &declared, &core);
        let work = Work::Transform { plan: core, writes, shapes: own };
        Ok(Planned { id, reads, meta: meta(&plan.meta)?, effects, work, stage_plan })
    }

    fn stage_plan(&self, reads: &[usize], writes: &[Target], effects: &[&str], core: &TransformPlan) -> StagePlan {
        StagePlan {
            reads: reads.iter().map(|i| self.schema.columns[*i].name.to_string()).collect(),
            writes: writes.iter().map(|w| w.column.name.to_string()).collect(),
            effects: effects.iter().map(|e| (*e).to_string()).collect(),
            output: core.output.clone(),
            shapes: core.shapes.iter().map(|s| s.schema.clone()).collect(),
            parses: false,
        }
    }

    /// Drops, renames and writes, each granted, and each column named once.
    fn changes(&self, plan: &transform::TransformPlan) -> Result<Changes> {
        let mut changes = Changes { drops: HashSet::new(), renames: Vec::new(), writes: Vec::new() };
        let mut named = HashSet::new();
        let mut once = |at: usize, column: &Column| match named.insert(at) {
            true => Ok(()),
            false => Err(refused(format!("it names column {} twice over drops, renames and writes", column.name))),
        };
        for index in &plan.drops {
            let (at, column) = self.column(*index)?;
            self.may_change(column, "drop")?;
            once(at, column)?;
            changes.drops.insert(at);
        }
        for rename in &plan.renames {
            let (at, column) = self.column(rename.column)?;
            self.may_change(column, "rename")?;
            once(at, column)?;
            changes.renames.push((at, rename.to.as_str().into()));
        }
        for write in &plan.writes {
            let target = self.target(write)?;
            if let Some(at) = target.replaces {
                once(at, &self.schema.columns[at])?;
            }
            changes.writes.push(target);
        }
        Ok(changes)
    }

    fn target(&self, write: &transform::Write) -> Result<Target> {
        let column = definition(&write.output)?;
        let Some(index) = write.replaces else {
            self.may_change(&column, "add")?;
            return Ok(Target { column, replaces: None, same_type: false });
        };
        let (at, input) = self.column(index)?;
        self.may_change(input, "write")?;
        if column.key && !input.key {
            self.may_change(&Column { name: input.name.clone(), ..column.clone() }, "make a key of")?;
        }
        if input.key && !column.key {
            return Err(refused(format!("it writes the key column {} as one that is no key", input.name)));
        }
        let same_type = column.ty == input.ty;
        Ok(Target { column, replaces: Some(at), same_type })
    }

    /// The columns that rows leave with, and where each comes from.
    fn output(&self, plan: &transform::TransformPlan, changes: &Changes) -> Result<(Vec<Column>, Vec<From>)> {
        let (mut columns, mut from) = (Vec::new(), Vec::new());
        for (at, input) in self.schema.columns.iter().enumerate() {
            if changes.drops.contains(&at) {
                continue;
            }
            if let Some(index) = changes.writes.iter().position(|w| w.replaces == Some(at)) {
                columns.push(changes.writes[index].column.clone());
                from.push(From::Written { index, replaces: Some(at) });
                continue;
            }
            let name = changes.renames.iter().find(|(renamed, _)| *renamed == at).map(|(_, name)| name.clone());
            columns.push(Column { name: name.unwrap_or_else(|| input.name.clone()), ..input.clone() });
            from.push(From::Input(at));
        }
        for (index, write) in changes.writes.iter().enumerate().filter(|(_, w)| w.replaces.is_none()) {
            columns.push(write.column.clone());
            from.push(From::Written { index, replaces: None });
        }
        distinct(&columns, &plan.rename_table.clone().unwrap_or_else(|| self.schema.name.to_string()))?;
        Ok((columns, from))
    }

    fn shape(&self, shape: &transform::Shape) -> Result<(Shape, Vec<Target>)> {
        let (mut columns, mut inherits, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for inherit in &shape.inherits {
            let (at, column) = self.column(inherit.column)?;
            if !self.grants.may_read(&column.name) {
                return Err(not_granted("copy", &column.name, "read"));
            }
            columns.push(Column { name: inherit.as_name.as_str().into(), key: inherit.key, ..column.clone() });
            inherits.push(at);
        }
        for declared in &shape.columns {
            let column = definition(declared)?;
            columns.push(column.clone());
            own.push(Target { column, replaces: None, same_type: false });
        }
        let name = TableName::new(shape.namespace.as_str(), shape.table.as_str());
        distinct(&columns, &name.to_string())?;
        let schema = Arc::new(TableSchema::new(name, columns, self.schema.images));
        Ok((Shape { schema, inherits }, own))
    }
}

struct Changes {
    drops: HashSet<usize>,
    renames: Vec<(usize, Arc<str>)>,
    writes: Vec<Target>,
}

pub(crate) fn definition(declared: &ColumnDefResult) -> Result<Column> {
    let ColumnDefResult { name, ty, nullable, key, source_type, ext: _ } = declared;
    if name.is_empty() {
        return Err(refused("it declares a column without a name"));
    }
    let ty = schema::column_type(ty).map_err(|e| refused(format!("column {name}: {e}")))?;
    Ok(Column {
        name: name.as_str().into(),
        ty,
        nullable: *nullable,
        key: *key,
        source_type: source_type.as_str().into(),
    })
}

pub(crate) fn distinct(columns: &[Column], table: &str) -> Result<()> {
    let mut names = HashSet::new();
    match columns.iter().find(|c| !names.insert(&*c.name)) {
        None => Ok(()),
        Some(column) => {
            let message = format!("{table} would have two columns {} after it", column.name);
            Err(Error::config("plugin.name_collision", message)
                .hint("give the new column another name in the plugin's config"))
        }
    }
}

fn effects(declared: &[String]) -> Result<Effects> {
    if let Some(unknown) = declared.iter().find(|e| !EFFECTS.contains(&e.as_str())) {
        return Err(refused(format!("it declares the effect {unknown:?}; there are {}", EFFECTS.join(", "))));
    }
    let has = |effect: &str| declared.iter().any(|e| e == effect);
    Ok(Effects { drop: has("drop"), reject: has("reject"), emit: has("emit"), route: has("route") })
}

fn meta(wanted: &[String]) -> Result<Vec<&'static str>> {
    let known = |name: &String| {
        let found = META.into_iter().find(|m| m == name);
        found.ok_or_else(|| refused(format!("it asks for the meta column {name:?}; there are {}", META.join(", "))))
    };
    wanted.iter().map(known).collect()
}
