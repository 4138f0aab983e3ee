//! The log of a day at a cut a second: what a checkpoint of it takes, how large it is, and how long a table with it opens.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peak_rss;
use crate::rows::{Ids, inserts};
use crate::table::Lake;

/// Of a day, one a second; each touches every file.
const COMMITS: u64 = 86_400;
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

/// A real table, and then a day of commits in the form of ours that take each file out and in again with another vector.
pub(crate) fn make(folder: &Path) {
    Lake::open(folder, false, false).fill(ROWS, FILES, Ids::Ascending);
    let first = commits(folder);
    let texts: Vec<String> = (0..first)
        .map(|version| fs::read_to_string(log(folder).join(format!("{version:020}.json"))).expect("a commit"))
        .collect();
    let actions =
        || texts.iter().flat_map(|text| text.lines()).map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    let info = actions().rfind(|a| !a["commitInfo"].is_null()).expect("a commit with info");
    let adds: Vec<Value> = actions().filter(|a| !a["add"].is_null()).map(|mut a| a["add"].take()).collect();
    let vector = |commit: u64, place: usize| {
        let id = format!("{:020}", commit * 7_919);
        json!({ "storageType": "u", "pathOrInlineDv": id, "offset": 1 + 100 * place, "sizeInBytes": 90, "cardinality": 1 })
    };
    let now = info["commitInfo"]["timestamp"].as_i64().expect("a time");
    for commit in 0..COMMITS {
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
        let name = log(folder).join(format!("{:020}.json", first + commit));
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
