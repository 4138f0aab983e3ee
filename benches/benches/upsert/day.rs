//! The log of a day at a cut a second: what a checkpoint of it takes, how large it is, and how long a table with it opens.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peak_rss;
use crate::rows::{Ids, inserts};
use crate::table::Lake;

/// Of a day: an hour's commits lie between two checkpoints (a host writes one every hundred).
pub(crate) const PARTS: u64 = 24;
/// One a second; each touches every file.
const COMMITS_A_PART: u64 = 3_600;
const ROWS: u64 = 100_000;
const FILES: u64 = 20;
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(1_800);

fn log(folder: &Path) -> PathBuf {
    folder.join("public/orders/_delta_log")
}

fn commits(folder: &Path) -> u64 {
    let names = fs::read_dir(log(folder)).expect("a log").flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".json")).count() as u64
}

/// How many of a log's commits are ours to count vectors by: those of the real table come before, and one with each
/// checkpoint.
fn commits_made(commits: u64) -> u64 {
    commits / COMMITS_A_PART * COMMITS_A_PART
}

/// A real table, and then a part of a day's commits in the form of ours, which take each file out and in again with another
/// vector.
pub(crate) fn make(folder: &Path) {
    if !log(folder).exists() {
        Lake::open(folder, false, false).fill(ROWS, FILES, Ids::Ascending);
    }
    let first = commits(folder);
    let texts = (0..first).map(|version| log(folder).join(format!("{version:020}.json")));
    let actions = texts.flat_map(|path| {
        let text = fs::read_to_string(path).expect("a commit");
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    });
    // Those of the real table come first.
    let (mut adds, mut info) = (Vec::new(), Value::Null);
    for mut action in actions {
        if !action["commitInfo"].is_null() {
            info = action;
        } else if !action["add"].is_null() {
            adds.push(action["add"].take());
        }
        if adds.len() as u64 == FILES {
            break;
        }
    }
    let vector = |commit: u64, place: usize| {
        let id = format!("{:020}", commit * 7_919);
        json!({ "storageType": "u", "pathOrInlineDv": id, "offset": 1 + 100 * place, "sizeInBytes": 90, "cardinality": 1 })
    };
    let now = info["commitInfo"]["timestamp"].as_i64().expect("a time");
    let made = commits_made(first);
    for commit in made..made + COMMITS_A_PART {
        let mut lines = vec![info.to_string()];
        for (place, add) in adds.iter().enumerate() {
            let mut remove = json!({
                "path": add["path"], "deletionTimestamp": now, "dataChange": true, "extendedFileMetadata": true,
                "partitionValues": add["partitionValues"], "size": add["size"],
            });
            if commit > 0 {
                remove["deletionVector"] = vector(commit - 1, place);
            }
            let mut add = add.clone();
            add["deletionVector"] = vector(commit, place);
            lines.extend([json!({ "remove": remove }).to_string(), json!({ "add": add }).to_string()]);
        }
        let name = log(folder).join(format!("{:020}.json", first + commit - made));
        let mut file = fs::File::create(name).expect("a commit");
        file.write_all((lines.join("\n") + "\n").as_bytes()).expect("written");
    }
}

/// Opens the table, commits a row that no file can have, and waits for the checkpoint of that commit.
pub(crate) fn measure(folder: &Path) -> Value {
    let start = Instant::now();
    let mut lake = Lake::open_with(folder, |config| (config.checkpoint_interval, config.vacuum) = (1, false));
    let (open, opened_rss) = (start.elapsed(), peak_rss());
    let mut order = 1 << 50;
    let batches = inserts(10 * ROWS + commits(folder), 1, Ids::Ascending, &mut order);
    let checkpoint = log(folder).join(format!("{:020}.checkpoint.parquet", commits(folder)));
    let start = Instant::now();
    lake.commit(batches);
    while !checkpoint.exists() {
        assert!(start.elapsed() < CHECKPOINT_LIMIT, "no {}", checkpoint.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    json!({
        "open_ms": open.as_secs_f64() * 1e3,
        "open_rss_mib": opened_rss,
        "checkpoint_ms": start.elapsed().as_secs_f64() * 1e3,
        "rss_mib": peak_rss(),
        "size_mib": fs::metadata(&checkpoint).expect("a checkpoint").len() as f64 / 1_048_576.0,
    })
}
