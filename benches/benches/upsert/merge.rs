//! delta-rs MERGE of changes like ours, by the Python wheel that `cargo xtask setup test` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cases::Case;

/// Merges into a copy of the table: the same mix of changes, as random. The wheel makes its change sets as we do before
/// the clock starts.
const MERGE: &str = r#"
import json, random, resource, shutil, sys, time
import polars as pl
from deltalake import DeltaTable
path, rows, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
copy = path + ".merge"
shutil.copytree(path, copy)
random.seed(7)
took = []
for turn in range(4):
    ids, gone, seen = [], [], set()
    for place in range(count):
        number = 2 * random.randrange(rows)
        kind = place % 10
        if kind in (7, 8): number += 1
        if number in seen: continue
        seen.add(number)
        ids.append(number); gone.append(kind == 9)
    n = len(ids)
    source = pl.DataFrame({
        "id": ids, "gone": gone, "customer": [f"cust-{i:08x}" for i in ids], "email": [f"user{i:08x}@example.com" for i in ids],
        "status": ["paid"] * n, "qty": pl.Series([i % 100 for i in ids], dtype=pl.Int32), "active": [True] * n,
        "note": [f"note {i:016x} {i:016x} abc" for i in ids],
    })
    values = {c: f"s.{c}" for c in source.columns if c != "gone"}
    wall, cpu = time.perf_counter(), time.process_time()
    (DeltaTable(copy).merge(source, predicate="t.id = s.id", source_alias="s", target_alias="t")
        .when_matched_delete(predicate="s.gone").when_matched_update(updates=values)
        .when_not_matched_insert(updates=values, predicate="not s.gone").execute())
    took.append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
warm = took[1:]
middle = lambda i: sorted(t[i] for t in warm)[len(warm) // 2]
print(json.dumps({"ms": middle(0), "cpu_ms": middle(1), "cold_ms": took[0][0],
                  "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
shutil.rmtree(copy)
"#;

pub(crate) fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("millrace/venv/bin/python")).filter(|python| python.exists())
}

/// Wall, CPU and memory of MERGE; `None` where the wheel is not installed.
pub(crate) fn merge(case: &Case, folder: &Path) -> Option<Value> {
    let table = folder.join("public/orders");
    let output = Command::new(python()?)
        .args(["-c", MERGE])
        .arg(table)
        .args([case.rows.to_string(), case.changes.to_string()])
        .output()
        .expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).ok()
}
