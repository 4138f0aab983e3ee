//! A plugin's answer for a batch, checked as a whole and put into the core's words.

use std::sync::Arc;

use arrow_array::new_null_array;
use arrow_buffer::BooleanBuffer;
use millrace_core::batch::{ChangeBatch, ChangeType};
use millrace_core::outcome::{Emission, Outcome, Routing, RowReject, TransformPlan, Written};

use crate::answer::{self, Expected};
use crate::bindings::types::Reject;
use crate::bindings::{transform, validator};
use crate::plan::{Planned, Rule, Severity, Target, Work};

/// Rows that a plugin may add for each row of a batch. More is no split but an explosion.
const EMITTED_PER_ROW: usize = 10;
/// Tables that one batch may be routed to. Each becomes a batch of its own.
const ROUTES: usize = 1_000;
/// Of a reject or a violation; longer texts are cut.
pub(crate) const REASON_BYTES: usize = 2_048;
pub(crate) const CODE_BYTES: usize = 128;

/// What is wrong with an answer.
pub(crate) type Wrong = String;

/// Puts a transform's answer into the core's words.
pub(crate) fn of_transform(
    batch: &ChangeBatch,
    planned: &Planned,
    answer: transform::Outcome,
) -> Result<Outcome, Wrong> {
    let Work::Transform { writes, shapes, .. } = &planned.work else { return Err("it is no transform".to_string()) };
    let rows = batch.rows();
    let keep = keep(answer.fates, rows, planned)?;
    let rejects = rejects(answer.rejects, rows, planned)?;
    let mut counts: Vec<bool> = keep.as_ref().map_or_else(|| vec![true; rows], |k| k.iter().collect());
    rejects.iter().for_each(|r| counts[r.row as usize] = false);
    if answer.columns.len() != writes.len() {
        return Err(format!("{} columns, its plan has {} writes", answer.columns.len(), writes.len()));
    }
    let mut columns = Vec::with_capacity(writes.len());
    for (target, column) in writes.iter().zip(answer.columns) {
        columns.push(written(batch, planned, target, column, &counts)?);
    }
    let emissions = answer.emissions.into_iter().map(|e| emission(batch, planned, shapes, e));
    let emissions = emissions.collect::<Result<Vec<_>, _>>()?;
    let emitted: usize = emissions.iter().map(|e| e.parent.len()).sum();
    if emitted > EMITTED_PER_ROW * rows {
        return Err(format!("{emitted} emitted rows for {rows}, {EMITTED_PER_ROW} a row are the limit"));
    }
    let routing = answer.routing.map(|r| routing(r, rows, planned)).transpose()?;
    Ok(Outcome { keep, columns, rejects, emissions, routing })
}

fn keep(fates: Option<Vec<u8>>, rows: usize, planned: &Planned) -> Result<Option<BooleanBuffer>, Wrong> {
    let Some(fates) = fates else { return Ok(None) };
    if fates.len() != rows {
        return Err(format!("{} fates for {rows} rows", fates.len()));
    }
    if let Some(row) = fates.iter().position(|f| *f > 1) {
        return Err(format!("row {row} has the fate {}; there are 0 and 1", fates[row]));
    }
    if fates.contains(&1) && !planned.effects.drop {
        return Err("it drops rows, but its plan does not say so".to_string());
    }
    Ok(Some(fates.iter().map(|f| *f == 0).collect()))
}

fn rejects(rejects: Vec<Reject>, rows: usize, planned: &Planned) -> Result<Vec<RowReject>, Wrong> {
    if !rejects.is_empty() && !planned.effects.reject {
        return Err("it rejects rows, but its plan does not say so".to_string());
    }
    let mut checked = Vec::with_capacity(rejects.len());
    for reject in rejects {
        if reject.row as usize >= rows {
            return Err(format!("it rejects row {} of {rows}", reject.row));
        }
        let code = if reject.code.is_empty() { "plugin.rejected".to_string() } else { cut(reject.code, CODE_BYTES) };
        checked.push(RowReject {
            row: reject.row,
            code,
            reason: cut(reject.reason, REASON_BYTES),
            column: reject.column,
        });
    }
    Ok(checked)
}

pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

fn written(
    batch: &ChangeBatch,
    planned: &Planned,
    target: &Target,
    column: Option<transform::Column>,
    counts: &[bool],
) -> Result<Option<Written>, Wrong> {
    let name = &target.column.name;
    let Some(column) = column else {
        if target.same_type {
            return Ok(None);
        }
        if counts.contains(&true) {
            return Err(format!("column {name} of another type than the input's came without cells"));
        }
        return Ok(Some(blank(target, batch.rows())));
    };
    let may_be_unsent = |row: usize| match target.replaces {
        Some(at) => batch.is_unavailable(at, row),
        None => planned.reads.iter().any(|at| batch.is_unavailable(*at, row)),
    };
    let expected = Expected {
        name,
        ty: &target.column.ty,
        nullable: target.column.nullable,
        rows: batch.rows(),
        counts: &|row| counts[row],
        may_be_unsent: &may_be_unsent,
    };
    answer::column(column, &expected).map(Some)
}

/// Cells that nobody reads, or that count as not sent.
fn blank(target: &Target, rows: usize) -> Written {
    let cells = new_null_array(&target.column.ty.arrow(), rows);
    Written { cells, unavailable: Some(BooleanBuffer::new_set(rows)) }
}

fn emission(
    batch: &ChangeBatch,
    planned: &Planned,
    shapes: &[Vec<Target>],
    emission: transform::Emission,
) -> Result<Emission, Wrong> {
    let transform::Emission { shape, parent, change_types, columns } = emission;
    let shape = shape as usize;
    let targets =
        shapes.get(shape).ok_or_else(|| format!("it emits rows of shape {shape}, its plan has {}", shapes.len()))?;
    let rows = parent.len();
    let parents_fit = parent.is_sorted() && parent.last().is_none_or(|p| (*p as usize) < batch.rows());
    if !parents_fit || change_types.len() != rows || columns.len() != targets.len() {
        return Err(format!("its emission of shape {shape} does not fit together"));
    }
    let known = |code: &u8| ChangeType::from_code(*code).filter(|t| *t != ChangeType::Truncate);
    let change_types = change_types.iter().map(known).collect::<Option<Vec<_>>>();
    let change_types = change_types.ok_or("an emitted row is of no known change type")?;
    let mut checked = Vec::with_capacity(columns.len());
    for (target, column) in targets.iter().zip(columns) {
        let expected = Expected {
            name: &target.column.name,
            ty: &target.column.ty,
            nullable: target.column.nullable,
            rows,
            counts: &|_| true,
            may_be_unsent: &|row| planned.reads.iter().any(|at| batch.is_unavailable(*at, parent[row] as usize)),
        };
        checked.push(answer::column(column, &expected)?);
    }
    Ok(Emission { shape, parent, change_types, columns: checked })
}

fn routing(routing: transform::Routing, rows: usize, planned: &Planned) -> Result<Routing, Wrong> {
    if !planned.effects.route {
        return Err("it routes rows, but its plan does not say so".to_string());
    }
    let transform::Routing { names, by_row } = routing;
    if names.len() > ROUTES {
        return Err(format!("it names {} tables for {rows} rows, {ROUTES} are the limit", names.len()));
    }
    if by_row.len() != rows {
        return Err(format!("{} routes for {rows} rows", by_row.len()));
    }
    if let Some(row) = by_row.iter().position(|r| usize::from(*r) >= names.len()) {
        return Err(format!("row {row} takes route {} of {}", by_row[row], names.len()));
    }
    Ok(Routing { names, by_row })
}

/// What a validator's violations come to.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    /// Rule and row of the first that quarantines the table.
    pub(crate) quarantine: Option<String>,
    /// How often each rule was violated.
    pub(crate) counts: Vec<u64>,
}

/// Puts a validator's answer into the core's words. What it says of a preimage or a delete is counted, and refuses nothing.
pub(crate) fn of_check(
    batch: &ChangeBatch,
    rules: &[Rule],
    violations: Vec<validator::Violation>,
) -> Result<Judged, Wrong> {
    let mut judged = Judged { outcome: Outcome::default(), quarantine: None, counts: vec![0; rules.len()] };
    for violation in violations {
        let row = violation.row as usize;
        let rule = rules
            .get(usize::from(violation.rule))
            .ok_or_else(|| format!("it names rule {} of {}", violation.rule, rules.len()))?;
        let change_type =
            *batch.change_types.get(row).ok_or_else(|| format!("it names row {row} of {}", batch.rows()))?;
        judged.counts[usize::from(violation.rule)] += 1;
        let refuses = matches!(change_type, ChangeType::Insert | ChangeType::UpdatePostimage);
        let reason = cut(format!("{}: {}", rule.name, violation.message), REASON_BYTES);
        match rule.severity {
            Severity::Reject if refuses => judged.outcome.rejects.push(RowReject {
                row: violation.row,
                code: "rule.violated".to_string(),
                reason,
                column: rule.column.as_deref().map(str::to_string),
            }),
            Severity::Quarantine if refuses => judged.quarantine = judged.quarantine.or(Some(reason)),
            _ => {}
        }
    }
    Ok(judged)
}

/// The answer for one change that the plugin can not stand: refused, or, for what is never refused, on by its key.
pub(crate) fn poison(batch: &ChangeBatch, planned: &Planned, code: &str, reason: &str) -> Outcome {
    let rows = batch.rows();
    let columns = match &planned.work {
        Work::Transform { writes, .. } => writes.iter().map(|target| Some(blank(target, rows))).collect(),
        Work::Check { .. } | Work::Parse { .. } => Vec::new(),
    };
    let reject = |row: u32| RowReject { row, code: code.to_string(), reason: reason.to_string(), column: None };
    Outcome { columns, rejects: (0..rows as u32).map(reject).collect(), ..Outcome::default() }
}

/// The core's plan of what the plugin planned.
pub(crate) fn core_plan(planned: &Planned) -> &TransformPlan {
    match &planned.work {
        Work::Transform { plan, .. } | Work::Check { plan, .. } | Work::Parse { plan, .. } => plan,
    }
}

/// A truncate under the plan's output name: one row without values.
pub(crate) fn truncate(batch: &ChangeBatch, plan: &TransformPlan) -> ChangeBatch {
    let rows = batch.rows();
    ChangeBatch {
        schema: Arc::clone(&plan.output),
        origin: Arc::clone(&batch.origin),
        change_types: batch.change_types.clone(),
        changes: batch.changes.clone(),
        columns: plan.output.columns.iter().map(|c| new_null_array(&c.ty.arrow(), rows)).collect(),
        unavailable: vec![None; plan.output.columns.len()],
    }
}
