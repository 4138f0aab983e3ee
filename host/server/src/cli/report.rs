//! What a run did, for people and for programs.

use millrace_core::pipeline::{HaltedTable, Summary};
use serde_json::{Value, json};

use super::table::{table, thousands};

/// The line that `run --json` ends with. All counts are row images, `dead_letter_changes` excepted.
pub(super) fn as_json(pipeline: &str, summary: &Summary) -> Value {
    let counts = &summary.counts;
    let tables: Vec<Value> = summary
        .tables
        .iter()
        .map(|(name, rows)| json!({ "name": name, "path": summary.locations.get(name), "rows": rows }))
        .collect();
    let halted: Vec<Value> = summary
        .halted
        .iter()
        .map(|(table, halted)| {
            let HaltedTable { code, reason, needs_snapshot } = halted;
            json!({ "table": table.table, "code": code, "reason": reason, "needs_snapshot": needs_snapshot })
        })
        .collect();
    json!({
        "pipeline": pipeline,
        "images_in": counts.images_in,
        "images_out": counts.images_out,
        "dropped": counts.dropped,
        "dead_letters": counts.letter_images,
        "dead_letter_changes": counts.letters,
        "emitted": counts.emitted,
        "already_stored": counts.already_stored,
        "held": counts.held,
        "swaps": summary.swaps,
        "restarts": summary.restarts,
        "tables": tables,
        "halted": halted,
    })
}

/// The same as tables.
pub(super) fn for_people(pipeline: &str, summary: &Summary) -> String {
    let counts = &summary.counts;
    let mut text = format!("{pipeline}: done\n\n");
    let mut facts = vec![
        ("row images in", counts.images_in),
        ("row images out", counts.images_out),
        ("dropped by stages", counts.dropped),
        ("in dead letters", counts.letter_images),
        ("added by stages", counts.emitted),
        ("stored before", counts.already_stored),
        ("left at the source", counts.held),
        ("versions swapped", summary.swaps),
        ("restarts", summary.restarts),
    ];
    let always = ["row images in", "row images out"];
    facts.retain(|(what, count)| *count > 0 || always.contains(what));
    let rows: Vec<Vec<String>> =
        facts.iter().map(|(what, count)| vec![(*what).to_owned(), thousands(*count)]).collect();
    text += &table(&["what", "count"], &rows);
    if !summary.tables.is_empty() {
        let place = |name| summary.locations.get(name).cloned().unwrap_or_default();
        let rows: Vec<Vec<String>> =
            summary.tables.iter().map(|(name, rows)| vec![name.to_string(), thousands(*rows), place(name)]).collect();
        text.push('\n');
        text += &table(&["table", "rows", "where"], &rows);
    }
    for (source, halted) in &summary.halted {
        let how = if halted.needs_snapshot { "by a new snapshot" } else { "from where it stopped" };
        text += &format!(
            "\n{} is halted: {}\n  the next start, or other code for it, tries it again {how}\n",
            source.table, halted.reason
        );
    }
    text
}
