//! The beginning of a start: who owns the tables, what they hold, and what waits.

use std::collections::BTreeMap;

use super::Pipeline;
use super::chain::SharedQuarantine;
use super::keeper::Keeper;
use super::replay::Replay;
use super::settings::Mutant;
use crate::error::{Error, Result};
use crate::position::{Order, SourceKey};
use crate::quarantine::Quarantine;
use crate::record::Record;
use crate::sink::{Sink, Stored, StoredKeys, StoredLetter};

/// Commits the new epoch to letters and tables, and only then reads positions and letters (I13). What a snapshot
/// staged before a crash is finished first (I9).
pub(super) async fn fence(
    keeper: &mut Keeper,
    sink: &mut dyn Sink,
    letters: &mut dyn Sink,
    mutant: Option<Mutant>,
) -> Result<Replay> {
    let letters_claim = keeper.claimed_letters();
    let claim = keeper.claimed();
    let mut letter_positions = letters.fence(&letters_claim).await?;
    let mut stored = sink.fence(&claim).await?;
    if let Some(pending) = keeper.record().pending.clone() {
        if let Some(manifest) = &pending.letters {
            letters.recommit(manifest).await?;
        }
        if let Some(manifest) = &pending.data {
            sink.recommit(manifest).await?;
        }
        keeper.complete_snapshot(&pending.snapshot);
        keeper.write().await?;
        letter_positions = letters.fence(&letters_claim).await?;
        stored = sink.fence(&claim).await?;
    }
    keeper.check_stored(&stored)?;
    keeper.check_stored(&letter_positions)?;
    if !keeper.was_found() && stored.values().any(|p| !p.is_empty()) {
        return Err(Error::halt(
            "record.missing",
            "the sink's tables hold positions of this pipeline, but its resume record is gone",
        )
        .hint("restore the objects under `_millrace/` beside the tables, or start under a new pipeline name"));
    }
    replay_of(keeper.record(), stored, letter_positions, letters, mutant).await
}

async fn replay_of(
    record: &Record,
    stored: Stored,
    letter_positions: Stored,
    letters: &mut dyn Sink,
    mutant: Option<Mutant>,
) -> Result<Replay> {
    let positions: BTreeMap<SourceKey, Order> = letter_positions.into_values().flatten().collect();
    // Letters of a snapshot lie beyond the stream's record; all that a replay can meet is beyond the record's commit.
    let after = record.resume_position().map(|p| Order::new(p.order.commit(), i64::MIN));
    let stored_letters = letters.stored_letters(after).await?;
    Ok(Replay::new(stored, &positions, stored_letters, record, mutant))
}

/// The keys that wait, as the stored letters say (I15). A letter from before its table's snapshot holds nothing back: the
/// snapshot has the row as it was then.
pub(super) async fn recall_quarantine(
    pipeline: &Pipeline,
    keeper: &Keeper,
    letters: &mut dyn Sink,
) -> Result<SharedQuarantine> {
    let mut quarantine = Quarantine::default();
    if pipeline.settings.quarantine.is_none() || pipeline.settings.mutant == Some(Mutant::QuarantineForgotten) {
        return Ok(SharedQuarantine::new(quarantine));
    }
    let incarnation = keeper.claimed().incarnation;
    let snapshots = &keeper.record().snapshots;
    for StoredKeys { letter: StoredLetter { source, order }, keys } in letters.stored_keys().await? {
        if snapshots.get(&source).is_none_or(|snapshot| order.commit() >= snapshot.commit()) {
            quarantine.recall(&incarnation, &source, order, &keys);
        }
    }
    Ok(SharedQuarantine::new(quarantine))
}
