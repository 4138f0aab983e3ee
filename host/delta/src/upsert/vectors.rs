//! Rows that go: merged with those that are gone already, as entries of the log.

use std::sync::Arc;

use millrace_core::Result;
use roaring::RoaringTreemap;

use super::Staged;
use super::locate::Target;
use crate::file::reader::FileReader;
use crate::log::actions::{Add, Remove};
use crate::log::{Table, deletion_vectors};
use crate::mutants::{Mutant, has};

/// Marks these rows of these files as gone; a file of which nothing is left is removed.
pub(super) async fn mark(
    table: &Table,
    target: &mut Target,
    rows: Vec<(Arc<Add>, RoaringTreemap)>,
    staged: &mut Staged,
) -> Result<()> {
    let now = table.now_millis();
    let mut reader = deletion_vectors::Reader::default();
    let mut marked: Vec<(Arc<Add>, Arc<RoaringTreemap>, u64)> = Vec::new();
    for (add, new) in rows {
        let gone = target.gone(&add, &mut reader).await?;
        let all = Arc::new(if has(Mutant::OldVectorForgotten) { new } else { new | gone.as_ref() });
        let physical = match target.facts(&add).rows {
            Some(rows) => rows,
            None => FileReader::open(table.store(), &add).await?.rows(),
        };
        staged.removes.push(Remove::of(&add, now, true));
        if all.len() < physical {
            marked.push((add, all, physical));
        }
    }
    let vectors: Vec<&RoaringTreemap> = marked.iter().map(|(_, gone, _)| gone.as_ref()).collect();
    let written = deletion_vectors::write(table.store(), &table.random_id(), &vectors).await?;
    for ((add, gone, physical), descriptor) in marked.into_iter().zip(written) {
        staged.rewritten += u64::from(descriptor.size_in_bytes.unsigned_abs());
        staged.gone.push((add.path.clone(), descriptor.unique_id(), gone));
        staged.adds.push(Add {
            stats: Some(loosened(add.stats.as_deref(), physical)),
            deletion_vector: Some(descriptor),
            data_change: true,
            ..add.as_ref().clone()
        });
    }
    Ok(())
}

/// The statistics of a file of which rows are gone: its bounds hold still, but are not tight. `numRecords` is always
/// there, since readers refuse a deletion vector without it. Edited as text: numbers keep every digit.
fn loosened(stats: Option<&str>, rows: u64) -> String {
    let parsed = stats.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let (Some(text), Some(parsed)) = (stats, parsed) else {
        return format!(r#"{{"numRecords":{rows},"tightBounds":false}}"#);
    };
    let mut text = text.trim().to_owned();
    if parsed["tightBounds"].is_null() {
        text = with_member(&text, r#""tightBounds":false"#);
    } else {
        text = text.replacen(r#""tightBounds":true"#, r#""tightBounds":false"#, 1);
    }
    if parsed["numRecords"].is_null() { with_member(&text, &format!(r#""numRecords":{rows}"#)) } else { text }
}

fn with_member(object: &str, member: &str) -> String {
    match object.strip_prefix('{') {
        Some(rest) if rest.trim_start() == "}" => format!("{{{member}}}"),
        Some(rest) => format!("{{{member},{rest}"),
        None => format!("{{{member}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_keep_their_digits_and_lose_their_tightness() {
        let stats = r#"{"numRecords":3,"minValues":{"d":12345678901234567890.12345}}"#;
        assert_eq!(
            loosened(Some(stats), 3),
            r#"{"tightBounds":false,"numRecords":3,"minValues":{"d":12345678901234567890.12345}}"#
        );
        assert_eq!(
            loosened(Some(r#"{"numRecords":3,"tightBounds":true}"#), 3),
            r#"{"numRecords":3,"tightBounds":false}"#
        );
        assert_eq!(
            loosened(Some(r#"{"tightBounds":false,"numRecords":3}"#), 3),
            r#"{"tightBounds":false,"numRecords":3}"#
        );
        for absent in [None, Some("{}"), Some(""), Some("no json")] {
            let text = loosened(absent, 7);
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (parsed["numRecords"].as_u64(), parsed["tightBounds"].as_bool()),
                (Some(7), Some(false)),
                "{text}"
            );
        }
    }
}
