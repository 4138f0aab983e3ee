//! Cutting a batch so that a call fits into the plugin's memory. The images of a change stay together.

use std::ops::Range;

use millrace_core::batch::ChangeBatch;

use crate::limits::Limits;
use crate::plan::{Planned, Target, Work};
use crate::project::{column_bytes, row_bytes};

/// Bytes of a new cell, whose size nobody knows before: a number, or a short text.
const NEW_CELL: usize = 32;

/// Rows that one call takes, or one change that no call can take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Run(Range<usize>),
    TooLarge(Range<usize>),
}

/// Cuts a batch into parts whose input and output stay under [`Limits::slice_bytes`].
pub(crate) fn parts(batch: &ChangeBatch, planned: &Planned, limits: &Limits) -> Vec<Part> {
    let columns = columns(planned);
    let total: usize = columns.iter().map(|at| column_bytes(&batch.schema.columns[*at].ty, &batch.columns[*at])).sum();
    let fresh = NEW_CELL * new_cells(planned);
    let budget = limits.slice_bytes();
    if total + fresh * batch.rows() <= budget {
        return vec![Part::Run(0..batch.rows())];
    }
    let row = |row: usize| -> usize {
        let cells = columns.iter().map(|at| row_bytes(&batch.schema.columns[*at].ty, &batch.columns[*at], row));
        cells.sum::<usize>() + fresh
    };
    let (mut parts, mut from, mut bytes) = (Vec::new(), 0, 0);
    for change in changes(batch, 0..batch.rows()) {
        let of_change: usize = change.clone().map(row).sum();
        if bytes > 0 && bytes + of_change > budget {
            parts.push(Part::Run(from..change.start));
            (from, bytes) = (change.start, 0);
        }
        if of_change > budget {
            parts.push(Part::TooLarge(change.clone()));
            from = change.end;
            continue;
        }
        bytes += of_change;
    }
    if from < batch.rows() {
        parts.push(Part::Run(from..batch.rows()));
    }
    parts
}

/// The changes of some rows, each with the range of its images.
pub(crate) fn changes(batch: &ChangeBatch, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = rows.start;
    batch.changes[rows].chunk_by(|a, b| a == b).map(move |images| {
        let change = from..from + images.len();
        from = change.end;
        change
    })
}

/// The middle of some rows, between two changes. None: they are one change.
pub(crate) fn middle(batch: &ChangeBatch, rows: Range<usize>) -> Option<usize> {
    let half = rows.start + rows.len() / 2;
    let starts = |row: &usize| batch.changes[*row] != batch.changes[row - 1];
    let after = (half.max(rows.start + 1)..rows.end).find(starts);
    after.or_else(|| (rows.start + 1..half).rev().find(starts))
}

/// Columns that go in, and those whose like comes out.
fn columns(planned: &Planned) -> Vec<usize> {
    let mut columns = planned.reads.clone();
    columns.extend(writes(planned).iter().filter_map(|w| w.replaces));
    if let Work::Parse { .. } = planned.work {
        // What comes out of a message is about as long as the message.
        columns.extend(&planned.reads);
    }
    columns
}

fn new_cells(planned: &Planned) -> usize {
    writes(planned).iter().filter(|w| w.replaces.is_none() || !w.same_type).count()
}

fn writes(planned: &Planned) -> &[Target] {
    match &planned.work {
        Work::Transform { writes, .. } => writes,
        Work::Check { .. } | Work::Parse { .. } => &[],
    }
}
