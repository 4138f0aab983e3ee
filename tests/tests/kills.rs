//! The host is killed at any moment, and nothing is lost or repeated (I1, I3, I4, I5, I9, I14).
//!
//! `MILLRACE_KILLS` says how often (20 in the soak), `MILLRACE_SEED` brings back a plan.

use std::time::{Duration, Instant};

use millrace_tests::chance::{Chance, amount};
use millrace_tests::host::Host;
use millrace_tests::shop::{PATIENCE, Shop};

/// With eight times as many rows in all: reading them takes most of a second.
const CUSTOMERS: u32 = 20_000;

#[test]
fn every_committed_change_is_stored_exactly_once_however_often_the_host_is_killed() {
    let kills = amount("MILLRACE_KILLS", 5);
    let mut chance = Chance::announced("kills");
    let shop = Shop::open(18, CUSTOMERS);
    let started = Instant::now();
    let writers = shop.write(4);
    let mut in_snapshot = 0;
    let mut version = 0;
    for kill in 0..kills {
        let host = shop.start();
        if kill < kills.div_ceil(3) {
            // Without a word more: the snapshots are over soon.
            await_snapshot(&host, &mut chance, kill == 0);
        } else {
            await_stream(&host, &mut chance);
            if chance.one_in(2) {
                version += 1;
                shop.set_version(version);
                host.work(chance.millis(0, 600));
            }
        }
        host.kill();
        let snapshots = shop.lake.record().map_or(0, |record| record.snapshots());
        in_snapshot += u32::from(snapshots < 4);
        println!("kill {} after {:?}: {snapshots} of 4 snapshots complete", kill + 1, started.elapsed());
        shop.check_acknowledged();
        if chance.one_in(3) {
            version += 1;
            shop.set_version(version);
        }
    }
    let host = shop.start();
    await_stream(&host, &mut chance);
    writers.stop(&shop.server);
    shop.catch_up(&host);
    let report = host.stop(PATIENCE);
    shop.check_acknowledged();
    let verdict = shop.verify();
    println!(
        "result: killed {kills} times in {} s, {in_snapshot} times within the snapshots: {verdict}",
        started.elapsed().as_secs()
    );
    println!("result: last start: {report}");
    assert!(kills < 3 || in_snapshot > 0, "no kill hit a snapshot");
    assert!(version == 0 || verdict.version_changes > 0, "the plugin was replaced {version} times and never swapped");
    assert!(verdict.changes > 100, "hardly anything was written: {verdict}");
}

/// Until a snapshot is under way, the first of all or any, and a moment more.
fn await_snapshot(host: &Host, chance: &mut Chance, first: bool) {
    // A snapshot that is staged and recorded counts as complete at the next start: what is left is in its log.
    host.says("reading PostgreSQL", 1, PATIENCE);
    let log = host.log();
    let left =
        log.split_once("\"snapshots\":").and_then(|(_, rest)| rest.split(['}', ',']).next()?.parse::<u64>().ok());
    let left = left.unwrap_or_else(|| panic!("how many snapshots are left is not said:\n{log}"));
    if left == 0 {
        return await_stream(host, chance);
    }
    let number = if first { 1 } else { 1 + chance.below(left) as usize };
    host.says("snapshot begins", number, PATIENCE);
    host.work(chance.millis(0, 60));
}

fn await_stream(host: &Host, chance: &mut Chance) {
    host.says("changes flow", 1, PATIENCE);
    host.work(Duration::from_millis(100) + chance.millis(0, 1_500));
}
