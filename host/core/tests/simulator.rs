//! The deterministic simulator in its short form (1,000 schedules); `cargo xtask soak simulator` runs 100,000.
#![allow(clippy::disallowed_methods, reason = "the test itself may read its variables")]

use std::ops::Range;

use millrace_core::pipeline::Mutant;
use millrace_core::sim::{Met, replay, run};

/// `MILLRACE_SEED` replays one schedule; `MILLRACE_SCHEDULES` says how many to run.
fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    match number("MILLRACE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLRACE_SCHEDULES").unwrap_or(1_000),
    }
}

#[test]
fn every_schedule_stores_every_change_once_and_in_order() {
    let mut met = Met::default();
    let schedules = seeds().count() as u64;
    for seed in seeds() {
        match run(seed, None) {
            Ok(one) => met.add(&one),
            Err(violation) => panic!(
                "{}\nseed {seed}: {violation}\n  replay: MILLRACE_SEED={seed} cargo test --release -p millrace-core --test simulator every_schedule",
                replay(seed, None).1
            ),
        }
    }
    if let (1, seed) = (schedules, seeds().start) {
        println!("{}", replay(seed, None).1);
    }
    println!("result: {schedules} schedules hold; {met:?}");
    let faults = [met.kills, met.second_hosts, met.swaps, met.restarts, met.letters, met.let_go, met.resnapshots];
    // A fault that never occurs proves nothing.
    assert!(schedules < 1_000 || faults.iter().all(|f| *f > schedules / 20), "{met:?}");
    assert!(schedules < 1_000 || met.halted > met.need_snapshot && met.need_snapshot > 0, "{met:?}");
}

fn is_caught(mutant: Mutant) {
    let caught = (0..20_000).find_map(|seed| run(seed, Some(mutant)).err().map(|violation| (seed, violation)));
    let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutant:?} survives"));
    println!("result: {mutant:?} is caught at seed {seed}: {violation}");
}

#[test]
fn an_acknowledgement_before_the_record_is_caught() {
    is_caught(Mutant::AcknowledgeBeforeRecord);
}

#[test]
fn one_position_for_a_sink_table_is_caught() {
    is_caught(Mutant::PositionPerSinkTable);
}

#[test]
fn a_swap_inside_a_cut_is_caught() {
    is_caught(Mutant::SwapInsideCut);
}

#[test]
fn a_swap_in_the_replayed_range_is_caught() {
    is_caught(Mutant::SwapInReplay);
}

#[test]
fn a_swap_recorded_late_is_caught() {
    is_caught(Mutant::SwapRecordedLate);
}

#[test]
fn letters_after_data_are_caught() {
    is_caught(Mutant::LettersAfterData);
}

#[test]
fn a_stored_letter_that_is_judged_again_is_caught() {
    is_caught(Mutant::StoredLetterJudgedAgain);
}

#[test]
fn less_than_instead_of_compare_and_set_is_caught() {
    is_caught(Mutant::StoredLessThanMine);
}

#[test]
fn an_epoch_that_is_not_compared_is_caught() {
    is_caught(Mutant::EpochNotCompared);
}

#[test]
fn a_snapshot_without_its_manifest_is_caught() {
    is_caught(Mutant::SnapshotWithoutManifest);
}

#[test]
fn an_acknowledgement_beyond_a_table_that_stands_is_caught() {
    is_caught(Mutant::AcknowledgePastHalted);
}

#[test]
fn a_start_that_forgets_which_keys_wait_is_caught() {
    is_caught(Mutant::QuarantineForgotten);
}
