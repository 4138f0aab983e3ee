//! Others work on our tables while we do: delta-rs from Python, and commits written by hand.

use std::path::Path;

use millrace_core::error::Kind;
use millrace_core::sink::Sink;

use super::support::*;
use crate::config::Mode;

/// Writes a commit as another engine would, at the next free number.
fn foreign_commit(table: &Path, lines: &[&str]) -> u64 {
    let log = table.join("_delta_log");
    for version in 0.. {
        let path = log.join(format!("{version:020}.json"));
        if !path.exists() {
            std::fs::write(path, lines.join("\n")).unwrap();
            return version;
        }
    }
    unreachable!()
}

const SPARK: &str = r#""engineInfo":"Apache-Spark/4.2.0 Delta-Lake/4.4.0""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_commits_without_a_bearing_on_us_are_followed() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let table = lake.path("public/orders");
    foreign_commit(&table, &[&format!(r#"{{"commitInfo":{{"timestamp":1,"operation":"VACUUM START",{SPARK}}}}}"#)]);
    foreign_commit(&table, &[r#"{"txn":{"appId":"someone","version":9}}"#]);
    put(&mut sink, 2..=2).await.unwrap();
    assert_eq!(ids(&table).await, [1, 2]);
    assert_eq!(count_of(&table.join("_delta_log"), ".json"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_change_of_properties_makes_us_plan_anew() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let table = lake.path("public/orders");
    let created = std::fs::read_to_string(table.join("_delta_log/00000000000000000000.json")).unwrap();
    let metadata = created.lines().find(|l| l.starts_with("{\"metaData\"")).unwrap();
    let changed = metadata.replace("interval 48 hours", "interval 24 hours");
    assert_ne!(metadata, changed);
    foreign_commit(&table, &[&changed]);
    let error = put(&mut sink, 2..=2).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Reload, "table.changed"));
    fenced(&mut sink, 2, &[orders()]).await;
    put(&mut sink, 2..=2).await.unwrap();
    assert_eq!(ids(&table).await, [1, 2]);

    // What we can not honour is refused by name, at the next reading.
    let expiring = metadata.replace("delta.logRetentionDuration", "delta.setTransactionRetentionDuration");
    foreign_commit(&table, &[&expiring]);
    assert_eq!(put(&mut sink, 3..=3).await.unwrap_err().kind, Kind::Reload);
    let error = sink.fence(&claim(3, &[orders()])).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "table.unsupported"));
    assert!(error.message.contains("setTransactionRetentionDuration"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_restore_halts_whether_we_run_or_start_after_it() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    put(&mut sink, 2..=2).await.unwrap();
    let table = lake.path("public/orders");
    foreign_commit(&table, &[&format!(r#"{{"commitInfo":{{"timestamp":1,"operation":"RESTORE",{SPARK}}}}}"#)]);
    foreign_commit(&table, &[&format!(r#"{{"commitInfo":{{"timestamp":1,"operation":"OPTIMIZE",{SPARK}}}}}"#)]);
    let error = put(&mut sink, 3..=3).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "position.gap"));
    let error = lake.sink().fence(&claim(2, &[orders()])).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "position.gap"));
    assert!(error.message.contains("RESTORE"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_table_under_the_same_name_halts() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let table = lake.path("public/orders");
    let created = std::fs::read_to_string(table.join("_delta_log/00000000000000000000.json")).unwrap();
    let metadata = created.lines().find(|l| l.starts_with("{\"metaData\"")).unwrap();
    let at = metadata.find("\"id\":\"").unwrap() + 6;
    let mut other = metadata.to_owned();
    other.replace_range(at..at + 8, "00000000");
    foreign_commit(&table, &[&other]);
    let error = put(&mut sink, 2..=2).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "position.gap"));
}

const CREATE: &str = r"
import sys, polars
from deltalake import write_deltalake
write_deltalake(sys.argv[1], polars.DataFrame({'id': [-1], 'note': ['before']}))
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_delta_rs_made_is_taken_over_with_its_rows() {
    let Some(python) = python() else {
        eprintln!("skipped: `cargo xtask setup test` installs the readers");
        return;
    };
    let lake = Lake::new(Mode::Append);
    let table = lake.path("public/orders");
    run_python(&python, CREATE, &[&table.display().to_string()]);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=2).await.unwrap();
    assert_eq!(ids(&table).await, [-1, 1, 2]);
    let mut again = lake.sink();
    assert_eq!(fenced(&mut again, 2, &[orders()]).await[&orders()][&source()].commit(), 2);
}

const WRITE_BESIDE: &str = r"
import sys, time
import polars
from deltalake import DeltaTable, write_deltalake
path, until = sys.argv[1], time.time() + 60
appended = 0
while appended < 8 and time.time() < until:
    try:
        write_deltalake(path, polars.DataFrame({'id': [-1 - appended], 'note': ['foreign']}), mode='append', schema_mode='merge')
        appended += 1
        DeltaTable(path).optimize.compact()
    except Exception as e:
        print('again:', str(e)[:120], file=sys.stderr)
assert appended == 8
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_and_compactions_by_delta_rs_run_beside_ours() {
    let Some(python) = python() else {
        eprintln!("skipped: `cargo xtask setup test` installs the readers");
        return;
    };
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let table = lake.path("public/orders");
    let path = table.display().to_string();
    let beside = tokio::task::spawn_blocking(move || run_python(&python, WRITE_BESIDE, &[&path]));
    let mut at = 1;
    while !beside.is_finished() {
        at += 1;
        put(&mut sink, at..=at).await.unwrap();
        // The other side needs a gap between our commits to get its compaction in.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    beside.await.unwrap();
    put(&mut sink, at + 1..=at + 1).await.unwrap();
    let expected: Vec<i64> = (-8..=-1).chain(1..=at + 1).collect();
    assert_eq!(ids(&table).await, expected);
    let compacted = std::fs::read_dir(table.join("_delta_log"))
        .unwrap()
        .filter(|f| std::fs::read_to_string(f.as_ref().unwrap().path()).is_ok_and(|t| t.contains("OPTIMIZE")))
        .count();
    assert!(compacted > 0, "a compaction got in");
}
