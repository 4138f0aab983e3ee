//! What must become of a committed change, by rules written down here a second time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::stored::text;
use super::{KEY, Table};
use crate::component::hex;
use crate::oracle::{Op, Row};

type Cells = Vec<Option<String>>;

/// What a change becomes: rows in sink tables, or a letter.
pub(super) fn of_change(table: &Table, op: &Op, phone: usize) -> Vec<String> {
    let cells = |row: &Row| -> Cells { table.columns.iter().map(|c| row.get(*c).cloned().flatten()).collect() };
    let images: Vec<(&str, Cells)> = match op {
        Op::Insert { after } => vec![("insert", cells(after))],
        Op::Delete { before } => vec![("delete", cells(before))],
        Op::Update { before, after } => {
            let before = before.as_ref().expect("full before-images");
            vec![("update_preimage", cells(before)), ("update_postimage", cells(after))]
        }
        Op::Truncate => panic!("nobody truncates here"),
    };
    of_images(table, images, phone)
}

/// What a row of the snapshot becomes.
pub(super) fn of_row(table: &Table, cells: &Cells, phone: usize) -> Vec<String> {
    of_images(table, vec![("insert", cells.clone())], phone)
}

fn of_images(table: &Table, images: Vec<(&str, Cells)>, phone: usize) -> Vec<String> {
    let mut routed: Vec<(&str, String, Cells)> =
        images.into_iter().map(|(ty, cells)| (ty, sink(table, &cells), masked(table, cells, phone))).collect();
    // An image pair that parts ways is a delete here and an insert there.
    if let [(before, from, _), (after, to, _)] = routed.as_mut_slice()
        && from != to
    {
        (*before, *after) = ("delete", "insert");
    }
    let refused = routed
        .iter()
        .position(|(ty, _, cells)| matches!(*ty, "insert" | "update_postimage") && breaks_a_rule(table, cells));
    let line = |place: &str, (ty, _, cells): &(&str, String, Cells)| format!("{place} {ty} {}", text(cells));
    match refused {
        // The letter holds the images that met the rule: those of the refused one's table.
        Some(at) => {
            let place = routed[at].1.clone();
            let held = routed.into_iter().filter(|image| image.1 == place);
            held.map(|(ty, place, cells)| line("letter", &(ty, place, as_letter(table, cells)))).collect()
        }
        None => routed.iter().map(|image| line(&image.1, image)).collect(),
    }
}

/// JSON stands in a letter as JSON, without the spaces that PostgreSQL prints.
fn as_letter(table: &Table, mut cells: Cells) -> Cells {
    if let Some(payload) = table.columns.iter().position(|c| *c == "payload") {
        let plain = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON").to_string();
        cells[payload] = cells[payload].take().map(plain);
    }
    cells
}

fn column<'a>(table: &Table, cells: &'a Cells, name: &str) -> &'a Option<String> {
    &cells[table.columns.iter().position(|c| *c == name).expect("a column of the table")]
}

fn sink(table: &Table, cells: &Cells) -> String {
    match table.name {
        "customers" => "customers".to_owned(),
        "events" => format!("events_{}", column(table, cells, "kind").as_ref().expect("a kind")),
        _ => "orders".to_owned(),
    }
}

fn masked(table: &Table, mut cells: Cells, phone: usize) -> Cells {
    if table.name == "customers" {
        cells[1] = cells[1].take().map(|email| hashed(&email));
        cells[2] = cells[2].take().map(|number| number[number.len() - phone..].to_owned());
    }
    cells
}

fn hashed(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("any length is a key");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn breaks_a_rule(table: &Table, cells: &Cells) -> bool {
    let above = |name: &str, most: f64| {
        column(table, cells, name).as_ref().is_some_and(|value| value.parse::<f64>().expect("a number") > most)
    };
    match table.name {
        "customers" => false,
        "events" => above("customer", 495.0),
        _ => above("total", 990.0),
    }
}
