//! Which rows of the table a cut replaces and takes values from, and the changes for which there are none.

use std::collections::HashMap;
use std::sync::Arc;

use super::fold::{Fate, Folded, Image, Source};
use super::locate::{Found, Wanted};
use super::rows::{Present, PresentRows};
use crate::log::schema::DeltaSchema;

/// Why a change can not be applied.
pub(super) struct Unresolved {
    pub code: &'static str,
    pub reason: String,
    pub column: Option<String>,
}

pub(super) fn truncate_of_a_shared_table() -> Unresolved {
    Unresolved {
        code: "sink.truncate_shared",
        reason: "one of several source tables was truncated, and whose rows are whose is not known here".into(),
        column: None,
    }
}

/// The row that the table has under each key; of several the newest. And how many there are beyond one a key.
pub(super) fn present(folded: &Folded, wanted: &Wanted, found: &[Found]) -> (PresentRows, u64) {
    let mut by_place: HashMap<u32, Present> = HashMap::new();
    let mut duplicates = 0;
    for file in found {
        for hit in &file.hits {
            let this = Present { add: Arc::clone(&file.add), row: hit.row };
            let age = |p: &Present| (p.add.modification_time, p.row);
            match by_place.get_mut(&hit.key) {
                None => {
                    by_place.insert(hit.key, this);
                }
                Some(other) => {
                    duplicates += 1;
                    if age(&this) > age(other) {
                        *other = this;
                    }
                }
            }
        }
    }
    let of_key = |id: usize| Some((id as u32, by_place.get(&wanted.place(&folded.keys[id])?)?.clone()));
    ((0..folded.keys.len()).filter_map(of_key).collect(), duplicates)
}

/// Leaves rows in the table whose key is as it was; answers how many there are of them beyond one a key.
pub(super) fn leave(folded: &Folded, wanted: &Wanted, found: &mut Vec<Found>) -> u64 {
    let untouched = folded.keys.iter().zip(&folded.fates).filter(|(_, fate)| matches!(fate, Fate::Untouched));
    let mut rows: HashMap<u32, u64> = untouched.filter_map(|(key, _)| Some((wanted.place(key)?, 0))).collect();
    for file in found.iter_mut() {
        file.hits.retain(|hit| match rows.get_mut(&hit.key) {
            Some(count) => {
                *count += 1;
                false
            }
            None => true,
        });
    }
    found.retain(|file| !file.hits.is_empty());
    rows.into_values().map(|count| count.saturating_sub(1)).sum()
}

/// Images that lack a value and have no row to take it from, with the changes that they are made of, by part.
pub(super) fn unresolved(
    folded: &Folded,
    present: &PresentRows,
    schema: &DeltaSchema,
) -> Vec<(u32, Vec<u32>, Unresolved)> {
    let lacks = |image: &Image| {
        let missing = image.patches.iter().find(|(_, source)| match source {
            Source::Cell(_) => false,
            Source::Stored(key) => !present.contains_key(key),
            Source::Lost => true,
        });
        missing.map(|(column, _)| schema.fields[*column as usize].name.clone())
    };
    let mut refused = Vec::new();
    for fate in &folded.fates {
        let Fate::Row(image) = fate else { continue };
        let Some(column) = lacks(image) else { continue };
        let mut chain = image.chain.clone();
        chain.sort_unstable();
        for changes in chain.chunk_by(|a, b| a.0 == b.0) {
            let why = Unresolved {
                code: "sink.no_current_row",
                reason: format!("the source did not send `{column}`, and the table has no row to take it from"),
                column: Some(column.clone()),
            };
            refused.push((changes[0].0, changes.iter().map(|(_, change)| *change).collect(), why));
        }
    }
    refused
}
