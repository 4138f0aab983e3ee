//! Upserts into Delta tables of several sizes: wall, CPU and memory of a cut, beside delta-rs MERGE of the same changes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

#[path = "upsert/rows.rs"]
mod rows;
#[path = "upsert/table.rs"]
mod table;

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use millrace_benches::{Measured, median};

use self::rows::{Changes, Ids};
use self::table::Lake;

/// Cuts that are measured after the first, which reads what later ones find in memory.
const WARM: u64 = 9;

struct Took {
    wall: f64,
    cpu: f64,
}

fn timed(work: impl FnOnce()) -> Took {
    let (wall, cpu) = (Instant::now(), ProcessTime::now());
    work();
    Took { wall: millis(wall.elapsed()), cpu: millis(cpu.elapsed()) }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn report(metric: &str, unit: &'static str, value: f64, baseline: Option<f64>) {
    let metric: &'static str = Box::leak(metric.to_owned().into_boxed_str());
    Measured { bench: "upsert", metric, unit, value, baseline, aa: None }.report();
}

/// The most memory that the process held since it was asked to forget, MiB.
fn peak_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|l| l.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1024.0
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is reset");
}

/// One size and form of table.
struct Case {
    name: &'static str,
    rows: u64,
    files: u64,
    changes: u64,
    ids: Ids,
    /// Every second update leaves out its wide text.
    unsent: bool,
}

struct Found {
    warm: Took,
    cold: Took,
    peak: f64,
}

fn run(case: &Case) -> Found {
    let mut lake = Lake::new();
    lake.fill(case.rows, case.files, case.ids);
    // Only what the changes need counts, not what made the table.
    lake.restart();
    forget_peak();
    let mut changes = Changes::new(case.rows, case.ids, case.unsent);
    let mut cuts = Vec::new();
    for _ in 0..=WARM {
        let batches = changes.next(case.changes);
        cuts.push(timed(|| lake.commit(batches)));
    }
    let cold = cuts.remove(0);
    let of = |f: fn(&Took) -> f64| median(cuts.iter().map(f).collect());
    let warm = Took { wall: of(|t| t.wall), cpu: of(|t| t.cpu) };
    let (name, peak) = (case.name, peak_rss());
    report(&format!("{name}_ms"), "ms", warm.wall, None);
    report(&format!("{name}_cpu_ms"), "cpu ms", warm.cpu, None);
    report(&format!("{name}_cold_ms"), "ms", cold.wall, None);
    report(&format!("{name}_peak_rss_mib"), "MiB", peak, None);
    Found { warm, cold, peak }
}

fn main() {
    let case = |name, rows, files, changes, ids, unsent| Case { name, rows, files, changes, ids, unsent };
    let small = [
        case("1k_into_100k", 100_000, 20, 1_000, Ids::Ascending, false),
        case("10k_into_100k", 100_000, 20, 10_000, Ids::Ascending, false),
        case("1k_into_1m", 1_000_000, 20, 1_000, Ids::Ascending, false),
    ];
    small.iter().for_each(|case| drop(run(case)));
    let million = run(&case("10k_into_1m", 1_000_000, 20, 10_000, Ids::Ascending, false));
    run(&case("1k_into_10m", 10_000_000, 20, 1_000, Ids::Ascending, false));
    let ten = run(&case("10k_into_10m", 10_000_000, 20, 10_000, Ids::Ascending, false));
    run(&case("10k_into_10m_shuffled", 10_000_000, 20, 10_000, Ids::Shuffled, false));
    run(&case("10k_into_10m_1000_files", 10_000_000, 1_000, 10_000, Ids::Ascending, false));
    run(&case("10k_into_10m_unsent", 10_000_000, 20, 10_000, Ids::Ascending, true));
    report("upsert_10k_into_10m_ms", "ms", ten.warm.wall, None);
    report("peak_rss_mib_10m", "MiB", ten.peak, None);
    report("cold_start_10m_ms", "ms", ten.cold.wall, None);
    report("cost_per_row_10m_vs_1m", "ratio", ten.warm.cpu / million.warm.cpu, None);
}
