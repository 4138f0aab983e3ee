//! The comparison: every committed change, once, at its position, as its version made it.

use std::collections::BTreeMap;
use std::fmt;

use millrace_core::position::Order;

use super::stored::{self, Letter, Provenance};
use super::{Rows, Shop, TABLES, Table, expect};
use crate::component::{digest, first_party};
use crate::oracle::{Change, Op, Row};
use crate::servers::delta_reader::DeltaReader;

/// Differences of a kind that a failure shows.
const SHOWN: usize = 4;

/// What was compared, and found to be right.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub transactions: usize,
    /// Committed changes in the stream's part, of all tables.
    pub changes: usize,
    pub snapshot_rows: usize,
    pub letters: usize,
    /// Of these, the ones of changes beyond the snapshots.
    pub stream_letters: usize,
    /// Lines of the provenance table, and how often one differs from the one before.
    pub provenance: usize,
    pub version_changes: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transactions, {} changes beyond the snapshots and {} rows in them, {} letters ({} of the stream), {} lines of provenance with {} changes of version",
            self.transactions,
            self.changes,
            self.snapshot_rows,
            self.letters,
            self.stream_letters,
            self.provenance,
            self.version_changes
        )
    }
}

/// A committed change, and where it has to stand.
struct Committed<'a> {
    op: &'a Op,
    /// From 1, within its table and transaction.
    ordinal: i64,
    /// Its commit record lies from here to before `ends`.
    begins: i64,
    ends: i64,
}

/// By kind: how many, and the first of them.
#[derive(Default)]
struct Differences(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Differences {
    fn note(&mut self, kind: &'static str, difference: String) {
        let (count, shown) = self.0.entry(kind).or_default();
        *count += 1;
        if shown.len() < SHOWN {
            shown.push(difference);
        }
    }

    fn describe(&self, table: &str) -> Option<String> {
        let kind = |(kind, (count, shown)): (&&str, &(usize, Vec<String>))| {
            format!("{table}: {count} {kind}:\n  {}", shown.join("\n  "))
        };
        let kinds: Vec<String> = self.0.iter().map(kind).collect();
        (!kinds.is_empty()).then(|| kinds.join("\n"))
    }
}

impl Shop {
    /// Compares everything that the lake holds with what PostgreSQL says was committed.
    ///
    /// # Panics
    /// With the first differences of each table.
    pub fn verify(&self) -> Verdict {
        let changes = self.oracle.changes(&self.server);
        let ends = self.oracle.commit_ends(&self.server);
        assert_eq!(
            changes.last().map(|change| change.transaction + 1),
            Some(ends.len()),
            "the oracle's two answers differ"
        );
        let mut reader = DeltaReader::start();
        let provenance = Provenance::read(&self.lake, &mut reader);
        let letters = stored::letters(&self.lake, &mut reader);
        let mut verdict = Verdict {
            transactions: ends.len(),
            letters: letters.len(),
            stream_letters: letters.iter().filter(|letter| !letter.snapshot).count(),
            provenance: provenance.lines(),
            version_changes: provenance.changes(),
            ..Verdict::default()
        };
        let mut failures = Vec::new();
        for table in &TABLES {
            let stored = stored::of_table(&self.lake, &mut reader, table, &letters);
            let committed = committed(table, &changes, &ends);
            let differences = compare(table, &self.first[table.name], &committed, &stored, (&provenance, &mut verdict));
            failures.extend(differences.describe(table.name));
        }
        assert!(failures.is_empty(), "{}\n{verdict}\n{provenance:?}", failures.join("\n"));
        check_letters(&letters);
        verdict
    }
}

fn committed<'a>(table: &Table, changes: &'a [Change], ends: &[u64]) -> Vec<Committed<'a>> {
    let name = format!("public.{}", table.name);
    let mut at = (usize::MAX, 0);
    let place = |transaction: usize| ends[transaction] as i64;
    let mut committed = Vec::new();
    for change in changes.iter().filter(|change| change.table == name) {
        let ordinal = if at.0 == change.transaction { at.1 + 1 } else { 1 };
        at = (change.transaction, ordinal);
        let begins = if change.transaction == 0 { 0 } else { place(change.transaction - 1) };
        committed.push(Committed { op: &change.op, ordinal, begins, ends: place(change.transaction) });
    }
    committed
}

fn compare(
    table: &Table,
    first: &Rows,
    committed: &[Committed<'_>],
    stored: &BTreeMap<Order, Vec<String>>,
    (provenance, verdict): (&Provenance, &mut Verdict),
) -> Differences {
    let mut differences = Differences::default();
    // The snapshot has one commit place, before all of the stream's.
    let point = stored.keys().next().map_or(0, Order::commit);
    let (snapshot, stream): (Vec<_>, Vec<_>) = stored.iter().partition(|(order, _)| order.commit() == point);
    let in_snapshot = committed.partition_point(|change| change.begins <= point && change.ends <= point + 1);
    verdict.changes += stream.len();
    verdict.snapshot_rows += snapshot.len();

    let phone = |order: Order| provenance.phone(order);
    let mut rows = first.clone();
    committed[..in_snapshot].iter().for_each(|change| fold(table, change.op, &mut rows));
    let made = snapshot.first().map_or(0, |(order, _)| phone(**order));
    let mut expected: Vec<String> = rows.values().map(|cells| expect::of_row(table, cells, made).join(" + ")).collect();
    let mut found: Vec<String> = snapshot.iter().map(|(_, lines)| lines.join(" + ")).collect();
    expected.sort();
    found.sort();
    both(&expected, &found, |line, kind| differences.note(kind, line.to_owned()));

    let beyond = &committed[in_snapshot..];
    if beyond.len() != stream.len() {
        differences.note(
            "totals differ",
            format!("{} changes were committed beyond the snapshot, {} are stored", beyond.len(), stream.len()),
        );
    }
    let mut stream = stream.into_iter().peekable();
    for change in beyond {
        let place = |order: &Order| {
            change.begins <= order.commit() && order.commit() < change.ends && order.0[1] == change.ordinal
        };
        // What is stored before the change's place belongs to none.
        while let Some((order, lines)) = stream.next_if(|(order, _)| order.commit() < change.begins) {
            differences.note("stored and never committed", format!("{order} {}", lines.join(" + ")));
        }
        match stream.next_if(|(order, _)| place(order)) {
            Some((order, lines)) => {
                let expected = expect::of_change(table, change.op, phone(*order)).join(" + ");
                let lines = lines.join(" + ");
                if lines != expected {
                    differences.note("stored otherwise", format!("{order} expected {expected}\n    stored {lines}"));
                }
            }
            None => {
                let place = format!("{}..{}/{}", change.begins, change.ends, change.ordinal);
                differences.note("committed and not stored", format!("{place} {:?}", change.op));
            }
        }
    }
    stream.for_each(|(order, lines)| {
        differences.note("stored and never committed", format!("{order} {}", lines.join(" + ")))
    });
    differences
}

/// Applies a change to the rows.
fn fold(table: &Table, op: &Op, rows: &mut Rows) {
    let key = |row: &Row| row["id"].clone().expect("a key");
    let (before, after) = match op {
        Op::Insert { after } => (None, Some(after)),
        Op::Delete { before } => (Some(before), None),
        Op::Update { before, after } => (before.as_ref(), Some(after)),
        Op::Truncate => panic!("nobody truncates here"),
    };
    if let Some(before) = before {
        assert!(rows.remove(&key(before)).is_some(), "a change of a row that is not there: {op:?}");
    }
    if let Some(after) = after {
        let cells = table.columns.iter().map(|c| after.get(*c).cloned().flatten()).collect();
        rows.insert(key(after), cells);
    }
}

/// Names what only one of two sorted lists has.
fn both(expected: &[String], found: &[String], mut note: impl FnMut(&str, &'static str)) {
    let (mut e, mut f) = (expected.iter().peekable(), found.iter().peekable());
    loop {
        match (e.peek(), f.peek()) {
            (None, None) => return,
            (Some(a), Some(b)) if a == b => {
                e.next();
                f.next();
            }
            (Some(a), Some(b)) if a > b => {
                note(b, "rows of the snapshot stored and not expected");
                f.next();
            }
            (Some(a), _) => {
                note(a, "rows of the snapshot expected and not stored");
                e.next();
            }
            (None, Some(b)) => {
                note(b, "rows of the snapshot stored and not expected");
                f.next();
            }
        }
    }
}

/// Each names the stage, the very build of the plugin, and the column to blame.
fn check_letters(letters: &[Letter]) {
    let plugin = format!("rules:{}", digest(&first_party("rules")));
    for letter in letters {
        let column = if letter.source.starts_with("public.orders") { "total" } else { "customer" };
        assert_eq!((&*letter.stage, &*letter.plugin, &*letter.column), ("rules", &*plugin, column), "{letter:?}");
    }
    assert!(letters.iter().any(|letter| letter.snapshot), "no row of a snapshot was refused");
}
