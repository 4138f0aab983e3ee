//! What the lake holds, as DuckDB reads it.

use std::collections::BTreeMap;
use std::path::Path;

use millrace_core::position::Order;
use serde_json::Value;

use super::{Rows, Table};
use crate::place::Lake;
use crate::servers::delta_reader::DeltaReader;
use crate::servers::postgres::Postgres;

const NULL: &str = "\\N";

/// A row's cells as one text.
pub(super) fn text(cells: &[Option<String>]) -> String {
    cells.iter().map(|cell| cell.as_deref().unwrap_or(NULL)).collect::<Vec<_>>().join("|")
}

/// The same text in SQL, for PostgreSQL and DuckDB alike.
fn text_sql(table: &Table) -> String {
    let cells = table.columns.iter().map(|c| format!("coalesce(cast({c} as text), '{NULL}')"));
    format!("concat_ws('|', {})", cells.collect::<Vec<_>>().join(", "))
}

/// The rows of a source table now.
pub(super) fn first_rows(server: &Postgres, table: &Table) -> Rows {
    let lines = server.sql(&format!("select {} from {}", text_sql(table), table.name));
    let rows = lines.lines().map(|line| line.split('|').map(|cell| (cell != NULL).then(|| cell.to_owned())).collect());
    rows.map(|cells: Vec<Option<String>>| (cells[0].clone().expect("a key"), cells)).collect()
}

/// Everything that is stored of a source table, by position: lines `PLACE CHANGE_TYPE CELLS`, a preimage or delete
/// before its postimage or insert.
pub(super) fn of_table(
    lake: &Lake,
    reader: &mut DeltaReader,
    table: &Table,
    letters: &[Letter],
) -> BTreeMap<Order, Vec<String>> {
    let mut stored: BTreeMap<Order, Vec<(bool, String)>> = BTreeMap::new();
    let mut add = |position: &str, place: &str, ty: &str, cells: &str| {
        let order = Order::from_sortable(position).unwrap_or_else(|| panic!("no position: {position}"));
        let comes_last = matches!(ty, "insert" | "update_postimage");
        stored.entry(order).or_default().push((comes_last, format!("{place} {ty} {cells}")));
    };
    for sink in table.sinks {
        let sql = format!(
            "select _millrace_position || ' ' || _millrace_change_type || ' ' || {} as line from {} where {}",
            text_sql(table),
            scan(&lake.table("public", sink)),
            table.own
        );
        for row in reader.query(&sql) {
            let mut parts = row["line"].as_str().expect("a line").splitn(3, ' ');
            let mut part = || parts.next().expect("position, change type and cells");
            let (position, ty, cells) = (part(), part(), part());
            add(position, sink, ty, cells);
        }
    }
    let source = format!("public.{}@0", table.name);
    for letter in letters.iter().filter(|letter| letter.source == source) {
        for image in &letter.images {
            let cells: Vec<Option<String>> = table.columns.iter().map(|c| plain(&image["row"][*c])).collect();
            add(&letter.position, "letter", image["change_type"].as_str().expect("a change type"), &text(&cells));
        }
    }
    let sorted = |mut lines: Vec<(bool, String)>| {
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    };
    stored.into_iter().map(|(order, lines)| (order, sorted(lines))).collect()
}

fn scan(table: &Path) -> String {
    format!("delta_scan('{}')", table.display())
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    pub source: String,
    pub position: String,
    pub stage: String,
    pub plugin: String,
    pub column: String,
    pub snapshot: bool,
    pub images: Vec<Value>,
}

pub(super) fn letters(lake: &Lake, reader: &mut DeltaReader) -> Vec<Letter> {
    let sql = format!(
        "select source, _millrace_position as position, stage, plugin, \"column\", snapshot, cast(images as text) as images from {}",
        scan(&lake.letters())
    );
    let letter = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name}: {row}")).to_owned();
        Letter {
            source: text("source"),
            position: text("position"),
            stage: text("stage"),
            plugin: text("plugin"),
            column: text("column"),
            snapshot: row["snapshot"].as_bool().expect("a flag"),
            images: serde_json::from_str(&text("images")).expect("images"),
        }
    };
    reader.query(&sql).iter().map(letter).collect()
}

/// Which version of the mask made what lies beyond a position, by the provenance table.
#[derive(Debug)]
pub(super) struct Provenance {
    /// In the order of their records: beyond what they are in force, and the length of a phone number.
    lines: Vec<(Order, usize)>,
}

impl Provenance {
    pub(super) fn read(lake: &Lake, reader: &mut DeltaReader) -> Provenance {
        let sql = format!("select \"after\", stages from {} order by record", scan(&lake.provenance()));
        let line = |row: &Value| {
            let after =
                row["after"].as_str().and_then(Order::from_sortable).unwrap_or_else(|| panic!("no position: {row}"));
            let stages: Value = serde_json::from_str(row["stages"].as_str().expect("stages")).expect("stages");
            let mask = stages.as_array().and_then(|stages| stages.iter().find(|stage| stage["name"] == "mask"));
            let config = mask.and_then(|mask| mask["config"].as_str()).unwrap_or_else(|| panic!("no mask: {row}"));
            let config: Value = serde_json::from_str(config).expect("the mask's config");
            (after, config["phone"]["last"].as_u64().expect("a length") as usize)
        };
        Provenance { lines: reader.query(&sql).iter().map(line).collect() }
    }

    /// The length of phone numbers that were made at this position.
    pub(super) fn phone(&self, order: Order) -> usize {
        // Before all of them only where a snapshot is taken at the very place at which the slot was created.
        self.lines.iter().rev().find(|(after, _)| *after < order).or(self.lines.first()).expect("a version").1
    }

    /// How often the version changed from one line to the next.
    pub(super) fn changes(&self) -> usize {
        self.lines.windows(2).filter(|pair| pair[0].1 != pair[1].1).count()
    }

    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }
}
