//! The host of a mirror is killed while it writes data, deletion vectors and commits, and while it compacts: every change is
//! there exactly once, and what half-written files are left counts for nothing (I1, I4, I5, I9).
//!
//! `MILLRACE_UPSERT_KILLS` says how often (200 in the soak), `MILLRACE_SEED` brings back a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use millrace_tests::bank::{Bank, PATIENCE};
use millrace_tests::chance::{Chance, amount};
use millrace_tests::host::Host;
use serde_json::Value;

/// Small cuts, so that the files of eight are merged all the time.
const SETTINGS: &str = "{ cut: { interval: 50ms }, record: { interval: 200ms } }";

/// What the host is at when it is killed, by the file that appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Data,
    Vectors,
    /// A commit is being written or was a moment ago: what follows it is the index.
    Commit,
    /// The commit of a compaction, which marks what went meanwhile.
    Compaction,
    /// Any time, the snapshot as well.
    Random,
}

const POINTS: [Point; 5] = [Point::Data, Point::Vectors, Point::Commit, Point::Compaction, Point::Random];

impl Point {
    fn is_begun_by(self, folder: &Path, name: &str) -> bool {
        match self {
            Point::Data => name.contains(".parquet"),
            Point::Vectors => name.contains("deletion_vector"),
            Point::Commit => name.contains(".json"),
            Point::Compaction => {
                name.contains(".json")
                    && fs::read_to_string(folder.join(name)).is_ok_and(|text| text.contains("OPTIMIZE"))
            }
            Point::Random => false,
        }
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Waits until the host begins what the point is; answers whether it did so in time.
fn await_point(table: &Path, host: &Host, point: Point) -> bool {
    let folder =
        if matches!(point, Point::Data | Point::Vectors) { table.to_owned() } else { table.join("_delta_log") };
    let mut seen = names(&folder);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        assert!(host.is_running(), "the host ended by itself:\n{}", host.log());
        let now = names(&folder);
        if now.difference(&seen).any(|name| point.is_begun_by(&folder, name)) {
            return true;
        }
        seen = now;
        std::thread::yield_now();
    }
    false
}

/// Data files and files of vectors to which no commit refers: what kills left.
fn orphans(table: &Path) -> usize {
    let mut known = String::new();
    let log = table.join("_delta_log");
    for name in names(&log).iter().filter(|name| name.ends_with(".json")) {
        known += &fs::read_to_string(log.join(name)).unwrap_or_default();
    }
    let mut vectors = BTreeSet::new();
    let mut paths = BTreeSet::new();
    for line in known.lines() {
        let action: Value = serde_json::from_str(line).unwrap_or_default();
        for file in [&action["add"], &action["remove"]] {
            paths.extend(file["path"].as_str().map(str::to_owned));
            vectors.extend(file["deletionVector"]["pathOrInlineDv"].as_str().map(str::to_owned));
        }
    }
    let files = names(table);
    let data = files.iter().filter(|name| name.contains(".parquet") && !paths.contains(*name)).count();
    let of_vectors = files.iter().filter(|name| name.contains("deletion_vector")).count();
    data + of_vectors.saturating_sub(vectors.len())
}

#[test]
fn a_mirror_is_its_source_however_often_its_host_is_killed_while_it_writes() {
    let kills = amount("MILLRACE_UPSERT_KILLS", 10);
    let mut chance = Chance::announced("upsert-kills");
    let mut bank = Bank::open(3_000, SETTINGS);
    let started = Instant::now();
    let mut writers = bank.write(2);
    let mut hit: BTreeMap<Point, u32> = BTreeMap::new();
    let mut rows = 0;
    for kill in 1..=kills {
        let host = bank.start();
        let point = POINTS[kill as usize % POINTS.len()];
        if point == Point::Random || kill == 1 {
            host.says("reading PostgreSQL", 1, PATIENCE);
            host.work(chance.millis(0, 1_500));
        } else {
            host.says("changes flow", 1, PATIENCE);
            host.work(chance.millis(0, 500));
            if await_point(&bank.table(), &host, point) {
                *hit.entry(point).or_default() += 1;
            }
        }
        host.kill();
        println!("kill {kill} at {point:?} after {:?}", started.elapsed());
        bank.check_moment();
        if kill % 20 == 0 || kill == kills {
            writers.stop(&bank.server);
            let host = bank.start();
            bank.catch_up(&host);
            host.stop(PATIENCE);
            rows = bank.check_equal();
            writers = bank.write(2);
        }
    }
    writers.stop(&bank.server);
    println!(
        "result: killed {kills} times in {} s, of these {hit:?} within milliseconds of what is named; {rows} rows are \
         those of the source; {} files are left to which nothing refers",
        started.elapsed().as_secs(),
        orphans(&bank.table())
    );
    for point in POINTS.into_iter().filter(|point| *point != Point::Random) {
        assert!(kills < 10 || hit.contains_key(&point), "no kill at {point:?}: {hit:?}");
    }
}
