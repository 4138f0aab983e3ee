//! What must hold of the world, told without the engine's own code.

use std::collections::{BTreeMap, BTreeSet};

use super::sink::REFUSED;
use super::stage::{drops, rejects, table};
use super::world::{Change, Row, SOURCES, STEP, World, commit_of};
use crate::batch::ChangeType;
use crate::letters;
use crate::position::{Order, SourceKey};
use crate::record::Record;

/// What one version makes of a change: rows with their table, or a letter.
enum Made {
    Rows(Vec<(String, Row)>),
    Letter,
}

fn made(change: &Change, order: Order, version: i64) -> Made {
    if change.after.is_some_and(|v| rejects(version, v)) {
        return Made::Letter;
    }
    let keep = |v: Option<char>| v.filter(|v| !drops(version, *v));
    let (before, after) = (keep(change.before), keep(change.after));
    if after == Some(REFUSED) {
        return Made::Letter;
    }
    let place = |v: char| table(version, change.source, v).to_string();
    let row = |change_type: ChangeType, value: char| {
        let source = change.source.to_string();
        (
            place(value),
            Row { source, order, change_type: change_type as u8, id: change.id, value: value.to_string(), version },
        )
    };
    Made::Rows(match (before, after) {
        (Some(old), Some(new)) if place(old) == place(new) => {
            vec![row(ChangeType::UpdatePreimage, old), row(ChangeType::UpdatePostimage, new)]
        }
        (Some(old), Some(new)) => vec![row(ChangeType::Delete, old), row(ChangeType::Insert, new)],
        (None, Some(new)) => vec![row(ChangeType::Insert, new)],
        (Some(old), None) => vec![row(ChangeType::Delete, old)],
        (None, None) => Vec::new(),
    })
}

/// Every row and letter, by source table and order.
struct Found {
    rows: BTreeMap<(String, Order), Vec<(String, Row)>>,
    letters: BTreeMap<(String, Order), usize>,
}

fn found(world: &World) -> Found {
    let mut found = Found { rows: BTreeMap::new(), letters: BTreeMap::new() };
    for (name, commits) in &world.tables {
        for row in commits.iter().flat_map(|c| &c.rows) {
            let key = (row.source.clone(), row.order);
            if name == letters::TABLE {
                *found.letters.entry(key).or_default() += 1;
            } else {
                found.rows.entry(key).or_default().push((name.clone(), row.clone()));
            }
        }
    }
    found
}

/// The changes that the tables are to hold: those beyond each table's snapshot, up to a place at the source.
fn due(world: &World, up_to: i64) -> Vec<(Change, Order)> {
    let Some(record) = world.latest_record() else { return Vec::new() };
    let mut due = Vec::new();
    for (index, transaction) in world.transactions.iter().enumerate().filter(|(i, _)| commit_of(*i) <= up_to) {
        for change in transaction {
            let order = Order::new(commit_of(index), change.ordinal);
            let snapshot = record.snapshots.get(&SourceKey::new(change.source));
            if snapshot.is_some_and(|s| order > *s) {
                due.push((change.clone(), order));
            }
        }
    }
    for source in SOURCES {
        let Some(snapshot) = record.snapshots.get(&SourceKey::new(source)) else { continue };
        let count = (snapshot.commit() / STEP) as usize;
        for (ordinal, (id, value)) in world.state(source, count).into_iter().enumerate() {
            let change = Change { source, ordinal: ordinal as i64 + 1, id, before: None, after: Some(value) };
            due.push((change, Order::new(snapshot.commit(), ordinal as i64 + 1)));
        }
    }
    due
}

/// The first letter of each key, where later changes of it wait (I15).
fn first_letters(world: &World, found: &Found, due: &[(Change, Order)]) -> BTreeMap<(String, i64), Order> {
    let mut first = BTreeMap::new();
    for (change, order) in due.iter().filter(|_| world.quarantine) {
        if found.letters.contains_key(&(change.source.to_string(), *order)) {
            let since = first.entry((change.source.to_string(), change.id)).or_insert(*order);
            *since = (*since).min(*order);
        }
    }
    first
}

/// A change up to this place that is neither row nor letter, though it must be one.
pub(super) fn not_durable(world: &World, place: i64) -> Option<String> {
    let (found, due) = (found(world), due(world, place));
    let waiting = first_letters(world, &found, &due);
    due.iter().find_map(|(change, order)| wrong(&found, &waiting, change, *order))
}

/// What is wrong with one change, if anything.
fn wrong(found: &Found, waiting: &BTreeMap<(String, i64), Order>, change: &Change, order: Order) -> Option<String> {
    let waits = waiting.get(&(change.source.to_string(), change.id)).is_some_and(|since| *since < order);
    let key = (change.source.to_string(), order);
    let letters = found.letters.get(&key).copied().unwrap_or(0);
    let mut rows = found.rows.get(&key).cloned().unwrap_or_default();
    rows.sort();
    if letters > 0 {
        let may = change.after == Some('?') || [1, 2].iter().any(|v| matches!(made(change, order, *v), Made::Letter));
        let right = letters == 1 && rows.is_empty() && (may || waits);
        return (!right).then(|| format!("change {order} of {}: {letters} letters and rows {rows:?}", change.source));
    }
    // What the stages dropped before the sink refused an earlier change of its key has nothing that could wait.
    let dropped = |version: &i64| matches!(made(change, order, *version), Made::Rows(rows) if rows.is_empty());
    if waits && !(rows.is_empty() && [1, 2].iter().any(dropped)) {
        return Some(format!("change {order} of {}: its key waits, and its rows are {rows:?}", change.source));
    }
    let versions: Vec<i64> = match rows.first() {
        Some((_, row)) => vec![row.version],
        None => vec![1, 2],
    };
    let right = versions.iter().any(|version| match made(change, order, *version) {
        Made::Rows(mut expected) => {
            expected.sort();
            expected == rows
        }
        Made::Letter => false,
    });
    (!right).then(|| {
        format!("change {order} of {} ({:?} -> {:?}): rows {rows:?}", change.source, change.before, change.after)
    })
}

/// Everything at the end: each change once, nothing else, in order, versions never going back.
pub(super) fn complete(world: &World) -> Result<(), String> {
    let (found, due) = (found(world), due(world, i64::MAX));
    let waiting = first_letters(world, &found, &due);
    for (change, order) in &due {
        if let Some(wrong) = wrong(&found, &waiting, change, *order) {
            return Err(wrong);
        }
    }
    let record = world.latest_record().ok_or("there is no record")?;
    let known = |key: &(String, Order)| {
        let source = SourceKey::new(key.0.as_str());
        let replaced =
            record.snapshots.get(&source).is_some_and(|s| key.1 < *s) && needed_a_new_snapshot(world, &source);
        replaced || due.iter().any(|(c, o)| c.source == key.0 && *o == key.1)
    };
    if let Some(key) = found.rows.keys().chain(found.letters.keys()).find(|key| !known(key)) {
        return Err(format!("{} of {} is there, and is not due", key.1, key.0));
    }
    if record.snapshots.len() != SOURCES.len() || record.pending.is_some() {
        return Err("a snapshot is not complete".into());
    }
    in_order(world)
}

fn records(world: &World) -> impl Iterator<Item = Record> {
    world.records.values().filter_map(|bytes| serde_json::from_slice(bytes).ok())
}

/// How many snapshots were taken beside the stream.
pub(super) fn resnapshots(world: &World) -> u64 {
    let records: Vec<Record> = records(world).collect();
    let taken = |pair: &[Record]| {
        let stood = pair[0].behind.iter().filter(|(_, behind)| behind.resnapshot);
        stood.filter(|(source, _)| pair[0].snapshots.get(source) != pair[1].snapshots.get(source)).count() as u64
    };
    records.windows(2).map(taken).sum()
}

/// What the table held before was of no more use.
fn needed_a_new_snapshot(world: &World, source: &SourceKey) -> bool {
    records(world).any(|record| record.behind.get(source).is_some_and(|b| b.from.is_none() || b.resnapshot))
}

/// Orders ascend in each table for each source table, and so do versions over all tables.
fn in_order(world: &World) -> Result<(), String> {
    for (name, commits) in &world.tables {
        let mut last: BTreeMap<&str, Order> = BTreeMap::new();
        // Within a cut, letters of the sink come after those of the stages.
        let rows = commits.iter().filter(|_| name != letters::TABLE).flat_map(|c| &c.rows);
        for row in rows {
            let at = last.entry(&row.source).or_insert(row.order);
            if row.order < *at {
                return Err(format!("{name}: {} of {} comes after {at}", row.order, row.source));
            }
            *at = row.order;
        }
        let mut positions: BTreeMap<&SourceKey, Order> = BTreeMap::new();
        for (source, order) in commits.iter().flat_map(|c| &c.positions) {
            let at = positions.entry(source).or_insert(*order);
            if order < at {
                return Err(format!("{name}: the position of {source} goes back from {at} to {order}"));
            }
            *at = *order;
        }
    }
    by_the_recorded_version(world)
}

/// Every row of the stream was made by the code that the records say was in force at its place.
fn by_the_recorded_version(world: &World) -> Result<(), String> {
    let mut in_force: Vec<(i64, i64)> = Vec::new();
    let mut stood = BTreeSet::new();
    for record in records(world) {
        stood.extend(record.behind.keys().map(|source| source.table.to_string()));
        let version = record.stages.first().and_then(|s| s.digest.parse().ok()).unwrap_or(0);
        let from = record.position.as_ref().map_or(i64::MIN, |p| p.order.commit());
        if in_force.last().is_none_or(|(_, v)| *v != version) {
            in_force.push((from, version));
        }
    }
    for (name, commits) in world.tables.iter().filter(|(n, _)| *n != letters::TABLE) {
        // Snapshots are taken before the stream, whatever their orders.
        for row in commits.iter().flat_map(|c| &c.rows).filter(|r| r.order.commit() % STEP == 0) {
            let at = in_force.iter().rposition(|(from, _)| *from < row.order.commit());
            let expected = at.map(|at| in_force[at].1);
            // A table that stood goes on with the code that it was mended by.
            let mended = || in_force[at.unwrap_or(0)..].iter().any(|(_, version)| *version == row.version);
            if expected != Some(row.version) && !(stood.contains(&row.source) && mended()) {
                return Err(format!(
                    "{name}: version {} made {} of {}, the records say {expected:?}",
                    row.version, row.order, row.source
                ));
            }
        }
    }
    Ok(())
}
