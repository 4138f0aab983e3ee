//! What a reader pays for merging on read: DuckDB scans the table as it stands, and the same table compacted.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::merge::python;

/// Sums over every column, so that every page is decoded; the median of five, after one that warms the page cache. The
/// other table is what delta-rs' OPTIMIZE makes of a copy.
const SCAN: &str = r#"
import glob, json, shutil, sys, sysconfig, time
import duckdb
from deltalake import DeltaTable
path = sys.argv[1]
copy = path + ".compacted"
shutil.copytree(path, copy)
DeltaTable(copy).optimize.compact()
(extension,) = glob.glob(sysconfig.get_paths()["purelib"] + "/duckdb_extension_delta/extensions/*/delta.duckdb_extension")
c = duckdb.connect()
c.execute("set threads = 1")
c.execute(f"load '{extension}'")
query = "select count(*), sum(id), sum(length(customer)), sum(length(email)), sum(length(status)), sum(qty), sum(length(note)), sum(amount) from delta_scan('{}')"
def scan(table):
    took, answer = [], None
    for _ in range(6):
        start = time.process_time()
        answer = c.execute(query.format(table)).fetchall()
        took.append((time.process_time() - start) * 1e3)
    return sorted(took[1:])[2], answer
ours, one = scan(path)
compacted, two = scan(copy)
assert one == two, (one, two)
shutil.rmtree(copy)
print(json.dumps({"ms": ours, "compacted_ms": compacted, "files": len(DeltaTable(path).file_uris())}))
"#;

/// CPU milliseconds of a scan; `None` where the readers are not installed.
pub(crate) fn scan(folder: &Path) -> Option<Value> {
    let output = Command::new(python()?).args(["-c", SCAN]).arg(folder.join("public/orders")).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).ok()
}
