//! Ten thousand changes a second into a mirror over a long time, with compaction: lag, memory, files and log stay bounded,
//! and the mirror is its source in the end.
//!
//! `MILLRACE_UPSERT_SECONDS` says for how long (600 in the soak).

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace_tests::bank::{Bank, PATIENCE};
use millrace_tests::chance::amount;
use millrace_tests::slot;
use serde_json::Value;

/// Transactions a second. Of the hundred keys that each names some are not there, or there already: about 75 changes.
const RATE: u32 = 140;
const ACCOUNTS: u64 = 200_000;
/// What is promised of tables of ten million rows.
const MEMORY_LIMIT: u64 = 512 << 20;
/// How far the mirror may be behind the last commit: a cut of a second, its commit and a record, with a machine that is
/// busy with the writer as well.
const LAG_LIMIT: Duration = Duration::from_secs(30);
/// Eight files of a size become one; a table of this size has a handful of sizes.
const FILES_LIMIT: usize = 80;
/// Of a commit, with its share of checkpoints: half a kilobyte for each file that it touches, twice.
const LOG_LIMIT: u64 = 128 << 10;

/// Follows the table's log.
struct Log {
    folder: PathBuf,
    next: u64,
    files: BTreeSet<String>,
    compactions: u32,
}

impl Log {
    fn read_on(&mut self) {
        while let Ok(text) = fs::read_to_string(self.folder.join(format!("{:020}.json", self.next))) {
            self.next += 1;
            self.compactions += u32::from(text.contains("OPTIMIZE"));
            let actions: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("an action")).collect();
            let paths =
                |of: &str| actions.iter().filter_map(|a| a[of]["path"].as_str()).map(str::to_owned).collect::<Vec<_>>();
            self.files.retain(|path| !paths("remove").contains(path));
            self.files.extend(paths("add"));
        }
    }

    fn bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
    }
}

#[test]
fn a_mirror_keeps_up_with_ten_thousand_changes_a_second_in_bounded_memory_files_and_log() {
    let seconds = amount("MILLRACE_UPSERT_SECONDS", 8);
    let mut bank = Bank::open(ACCOUNTS, "{}");
    let host = bank.start();
    host.says("changes flow", 1, PATIENCE);
    let mut log = Log { folder: bank.table().join("_delta_log"), next: 0, files: BTreeSet::new(), compactions: 0 };
    let writers = bank.write_at(RATE);
    let started = Instant::now();
    let (mut most, mut files, mut lags) = (0, 0, Vec::new());
    while started.elapsed() < Duration::from_secs(seconds) {
        lags.push((started.elapsed(), slot::lag(&bank.server, &host, &bank.lake, LAG_LIMIT)));
        most = most.max(host.resident());
        log.read_on();
        files = files.max(log.files.len());
        assert!(most < MEMORY_LIMIT, "{most} bytes resident after {:?}", started.elapsed());
        assert!(files < FILES_LIMIT, "{files} files after {:?}", started.elapsed());
        host.work(Duration::from_millis(200));
    }
    let took = started.elapsed();
    writers.stop(&bank.server);
    bank.catch_up(&host);
    let report = host.stop(PATIENCE);
    log.read_on();
    let rows = bank.check_equal();
    let a_commit = log.bytes() / log.next;
    let changes = (report["images_in"].as_u64().expect("a number") - ACCOUNTS) as f64;
    let longest = |half: fn(Duration, Duration) -> bool| {
        let times = lags.iter().filter(|(at, _)| half(*at, took / 2)).map(|(_, lag)| lag.as_millis());
        times.max().unwrap_or_default()
    };
    println!(
        "result: {seconds} s, {:.0} images a second; at most {} MiB resident, {files} files, {a_commit} bytes of log a commit \
         in {} commits with {} compactions; a marker arrives within {} ms at the latest in the first half, {} ms in the second",
        changes / took.as_secs_f64(),
        most >> 20,
        log.next,
        log.compactions,
        longest(|at, half| at < half),
        longest(|at, half| at >= half),
    );
    println!("result: {rows} rows are those of the source; {report}");
    assert!(a_commit < LOG_LIMIT, "{a_commit} bytes of log a commit");
}
