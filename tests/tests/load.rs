//! Load from PostgreSQL over a long time: memory and lag stay bounded, and nothing is missing in the end.
//!
//! `MILLRACE_LOAD_SECONDS` says for how long (600 in the soak).

use std::time::{Duration, Instant};

use millrace_tests::chance::amount;
use millrace_tests::shop::{PATIENCE, Shop};
use millrace_tests::slot;

/// What the host may take: its queues, a cut and the compiled plugins are far below.
const MEMORY_LIMIT: u64 = 1 << 30;
/// How far the lake may be behind the last commit while writers run: a cut, its commit and a record, with a machine
/// that is busy with the writers as well.
const LAG_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn memory_and_lag_stay_bounded_under_load() {
    let seconds = amount("MILLRACE_LOAD_SECONDS", 8);
    let shop = Shop::open(16, 2_000);
    let host = shop.start();
    host.says("changes flow", 1, PATIENCE);
    let writers = shop.write(2);
    let started = Instant::now();
    let (mut most, mut longest) = (0, Duration::ZERO);
    while started.elapsed() < Duration::from_secs(seconds) {
        let lag = slot::lag(&shop.server, &host, &shop.lake, LAG_LIMIT);
        longest = longest.max(lag);
        most = most.max(host.resident());
        assert!(most < MEMORY_LIMIT, "{most} bytes resident after {:?}", started.elapsed());
        host.work(Duration::from_millis(200));
    }
    writers.stop(&shop.server);
    shop.catch_up(&host);
    let report = host.stop(PATIENCE);
    println!(
        "result: {seconds} s of load: at most {} MiB resident, a marker arrives within {} ms at the latest; {report}",
        most >> 20,
        longest.as_millis()
    );
    println!("result: {}", shop.verify());
}
