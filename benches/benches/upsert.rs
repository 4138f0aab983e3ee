//! Upserts into Delta tables of several sizes: wall, CPU and memory of a cut, beside delta-rs MERGE of the same changes.
//!
//! Each table is made in one process and measured in another, so that memory is that of the cuts alone. Which cases run
//! can be named: `cargo bench -p millrace-benches --bench upsert -- 10k_into_10m`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

#[path = "upsert/cases.rs"]
mod cases;
#[path = "upsert/day.rs"]
mod day;
#[path = "upsert/merge.rs"]
mod merge;
#[path = "upsert/rows.rs"]
mod rows;
#[path = "upsert/scan.rs"]
mod scan;
#[path = "upsert/table.rs"]
mod table;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use millrace_benches::{Measured, median};
use serde_json::{Value, json};

use self::cases::{CASES, Case};
use self::rows::Changes;
use self::table::Lake;

/// Begins the arguments of a process of ours.
const CHILD: &str = "child";

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

/// The most memory that this process ever held, MiB.
fn peak_rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|l| l.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1024.0
}

/// Runs this program for one case; what it prints last is its answer.
fn child(what: &str, case: &str, folder: &Path) -> Value {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args([CHILD, what, case]).arg(folder).output().expect("a process");
    assert!(output.status.success(), "{what} {case}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
}

fn fill(case: &Case, folder: &Path) {
    Lake::open(folder, false, case.exact).fill(case.rows, case.files, case.ids);
}

/// Most cases without compaction: the table is to keep its files, and the CPU is to be that of the cuts.
fn measure(case: &Case, folder: &Path) -> Value {
    let metrics = millrace_server::telemetry::start_metrics().expect("metrics");
    let mut lake = Lake::open(folder, case.compaction, case.exact);
    let mut changes = Changes::new(case);
    let mut cuts: Vec<Took> = (0..=case.warm())
        .map(|_| {
            let batches = changes.next(case.changes);
            timed(|| lake.commit(batches))
        })
        .collect();
    let cold = cuts.remove(0);
    let of = |f: fn(&Took) -> f64| median(cuts.iter().map(f).collect());
    let text = metrics.render();
    let of_metric = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next());
        line.and_then(|value| value.parse::<f64>().ok())
    };
    json!({
        "ms": of(|t| t.wall),
        "cpu_ms": of(|t| t.cpu),
        "cold_ms": cold.wall,
        "peak_rss_mib": peak_rss(),
        "index_bytes": of_metric("millrace_delta_index_bytes"),
        "compactions": of_metric("millrace_delta_compactions_total"),
    })
}

/// A table after a hundred cuts, as a reader finds it.
fn scanned() {
    let case = CASES.iter().find(|c| c.name == "10k_into_1m").expect("a case");
    let folder = tempfile::tempdir().expect("a folder");
    child("fill", case.name, folder.path());
    child("hundred", case.name, folder.path());
    let Some(found) = scan::scan(folder.path()) else { return };
    let get = |name: &str| found[name].as_f64().expect("a number");
    report("scan_after_100_cuts_cpu_ms", "cpu ms", get("ms"), Some(get("compacted_ms")));
    report("scan_after_100_cuts_files", "files", get("files"), None);
    report("scan_vs_compacted", "ratio", get("ms") / get("compacted_ms"), None);
}

/// The index alone: what a row takes, ten million of them to build, and a key that may be in any of twenty files.
fn indexed() {
    let folder = tempfile::tempdir().expect("a folder");
    let [files, exact] = millrace_delta::index_costs(folder.path(), 10_000_000, 20).expect("an index");
    for (way, cost) in [("files", files), ("exact", exact)] {
        report(&format!("index_{way}_bytes_per_row"), "bytes", cost.bytes_a_row, None);
        report(&format!("index_{way}_build_10m_ms"), "ms", cost.build_ms, None);
        report(&format!("index_{way}_look_up_ns"), "ns", cost.look_up_ns, None);
    }
    report("index_bytes_per_row", "bytes", exact.bytes_a_row.max(files.bytes_a_row), None);
}

fn hundred(case: &Case, folder: &Path) {
    let mut lake = Lake::open(folder, true, case.exact);
    let mut changes = Changes::new(case);
    for _ in 0..100 {
        let batches = changes.next(case.changes);
        lake.commit(batches);
    }
}

/// The log grows by an hour and its checkpoint 24 times; the last checkpoint comes right after another, as a host's do.
fn day() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut most: f64 = 0.0;
    for _ in 0..day::PARTS {
        child("make", "day", folder.path());
        let hour = child("measure", "day", folder.path());
        most = most.max(hour["rss_mib"].as_f64().expect("a number"));
    }
    let next = child("measure", "day", folder.path());
    let of = |found: &Value, name: &str| found[name].as_f64().expect("a number");
    report("checkpoint_day_rss_mib", "MiB", of(&next, "rss_mib"), None);
    report("checkpoint_day_ms", "ms", of(&next, "checkpoint_ms"), None);
    report("checkpoint_day_size_mib", "MiB", of(&next, "size_mib"), None);
    report("checkpoint_day_open_ms", "ms", of(&next, "open_ms"), None);
    report("checkpoint_day_open_rss_mib", "MiB", of(&next, "open_rss_mib"), None);
    report("checkpoint_day_of_an_hour_rss_mib", "MiB", most, None);
}

fn run(case: &Case) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    child("fill", case.name, folder.path());
    let merge = case.merge.then(|| merge::merge(case, folder.path())).flatten();
    let found = child("measure", case.name, folder.path());
    let of = |name: &str| merge.as_ref().and_then(|m| m[name].as_f64());
    for (name, unit) in [("ms", "ms"), ("cpu_ms", "cpu ms"), ("cold_ms", "ms"), ("peak_rss_mib", "MiB")] {
        report(&format!("{}_{name}", case.name), unit, found[name].as_f64().expect("a number"), of(name));
    }
    json!({ "ours": found, "merge": merge })
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [child, what, name, folder] = args.as_slice()
        && child == CHILD
    {
        if name == "day" {
            match what.as_str() {
                "make" => day::make(Path::new(folder)),
                _ => println!("{}", day::measure(Path::new(folder))),
            }
            return;
        }
        let case = CASES.iter().find(|c| c.name == name).expect("a case");
        match what.as_str() {
            "fill" => fill(case, Path::new(folder)),
            "hundred" => hundred(case, Path::new(folder)),
            _ => println!("{}", measure(case, Path::new(folder))),
        }
        return;
    }
    let wanted = |case: &&Case| args.is_empty() || args.iter().any(|a| a == case.name);
    let found: Vec<(&str, Value)> = CASES.iter().filter(wanted).map(|case| (case.name, run(case))).collect();
    if args.is_empty() || args.iter().any(|a| a == "scan") {
        scanned();
    }
    if args.is_empty() || args.iter().any(|a| a == "day") {
        day();
    }
    if args.is_empty() || args.iter().any(|a| a == "index") {
        indexed();
    }
    let get = |case: &str, whose: &str, name: &str| {
        found.iter().find(|(n, _)| *n == case).and_then(|(_, v)| v[whose][name].as_f64())
    };
    let ours = |name| get("10k_into_10m", "ours", name);
    if let Some(peak) = get("10k_into_10m_compacted", "ours", "peak_rss_mib") {
        report("peak_rss_mib_10m", "MiB", peak, get("10k_into_10m", "merge", "peak_rss_mib"));
    }
    if let Some(compactions) = get("10k_into_10m_compacted", "ours", "compactions") {
        report("10k_into_10m_compacted_compactions", "compactions", compactions, None);
    }
    if let Some(bytes) = ours("index_bytes") {
        report("index_in_memory_10m_mib", "MiB", bytes / 1_048_576.0, None);
    }
    if let (Some(wall), Some(cpu)) = (ours("ms"), ours("cpu_ms")) {
        report("upsert_10k_into_10m_ms", "ms", wall, get("10k_into_10m", "merge", "ms"));
        if let Some(merge) = get("10k_into_10m", "merge", "cpu_ms") {
            report("cpu_vs_merge_10m", "ratio", cpu / merge, None);
        }
        if let Some(million) = get("10k_into_1m", "ours", "cpu_ms") {
            report("cost_per_row_10m_vs_1m", "ratio", cpu / million, None);
        }
    }
}
