//! The plugin is replaced again and again while changes flow (I4).
//!
//! `MILLRACE_SWAP_SECONDS` says for how long (60 in the soak).

use std::time::{Duration, Instant};

use millrace_tests::chance::amount;
use millrace_tests::shop::{PATIENCE, Shop};

const EVERY: Duration = Duration::from_millis(200);

#[test]
fn every_change_is_made_once_by_the_version_that_is_in_force_while_the_plugin_is_swapped_five_times_a_second() {
    let seconds = amount("MILLRACE_SWAP_SECONDS", 5);
    let shop = Shop::open(15, 500);
    let host = shop.start();
    host.says("changes flow", 1, PATIENCE);
    let writers = shop.write(2);
    let started = Instant::now();
    let mut version = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        version += 1;
        shop.set_version(version);
        host.work(EVERY);
    }
    writers.stop(&shop.server);
    shop.catch_up(&host);
    let report = host.stop(PATIENCE);
    let swaps = report["swaps"].as_u64().expect("a number of swaps");
    let verdict = shop.verify();
    println!("result: {version} versions in {seconds} s, {swaps} swaps: {verdict}");
    // Versions that come while one is loaded overtake each other; at the least one a second gets through.
    assert!(swaps >= seconds, "{swaps} swaps in {seconds} s: {report}");
    assert_eq!(report["restarts"], 0, "{report}");
    assert_eq!(verdict.provenance as u64, 1 + swaps, "a line for the start and one for each swap");
    assert!(verdict.version_changes as u64 >= seconds / 2, "{verdict}");
    assert!(verdict.stream_letters > 0, "no change of the stream was refused: {verdict}");
}

#[test]
fn a_plugin_file_that_is_broken_leaves_the_old_version_running() {
    let shop = Shop::open(16, 500);
    let host = shop.start();
    host.says("changes flow", 1, PATIENCE);
    let writers = shop.write(1);
    millrace_tests::component::replace(&shop.place.path().join("mask.wasm"), b"\0asm no component");
    host.says("the new version is refused, the old one goes on", 1, PATIENCE);
    assert!(host.log().contains("plugin.not_a_component"), "{}", host.log());
    shop.set_build(1);
    host.says("the new version is in force", 1, PATIENCE);
    writers.stop(&shop.server);
    shop.catch_up(&host);
    let report = host.stop(PATIENCE);
    assert_eq!(report["swaps"], 1, "{report}");
    shop.verify();
}
