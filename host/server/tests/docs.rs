//! Generated pages of the book are what the code says. `UPDATE_DOCS=1 cargo test` writes them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

fn is_up_to_date(page: &str, fresh: &str, holds: impl Fn(&str) -> bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src").join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, fresh).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(holds(&page), "{} is out of date: run this test with UPDATE_DOCS=1", path.display());
}

#[test]
fn the_pipeline_reference_is_that_of_the_schema() {
    let fresh = millrace_server::config::schema::reference_markdown();
    is_up_to_date("reference.md", &fresh, |page| page == fresh);
}

#[test]
fn the_page_about_metrics_has_every_metric() {
    let table = millrace_server::metric_names::markdown();
    let page =
        format!("{}{table}{}", include_str!("support/metrics_before.md"), include_str!("support/metrics_after.md"));
    is_up_to_date("metrics.md", &page, |found| found == page);
}

/// Names in `counter!("…")` and its like, in the sources of every crate of the host.
fn emitted() -> Vec<String> {
    fn look(folder: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, names);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for part in ["counter!(", "gauge!(", "histogram!("].iter().flat_map(|m| text.split(m).skip(1)) {
                    let name = part.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                    names.extend(name.filter(|n| n.starts_with("millrace_")).map(str::to_owned));
                }
            }
        }
    }
    let mut names = Vec::new();
    for krate in ["core", "wasm", "connectors", "delta", "server"] {
        look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(krate).join("src"), &mut names);
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_metric_that_the_host_emits_is_described() {
    let known: Vec<&str> = millrace_server::metric_names::ALL.iter().map(|m| m.name).collect();
    let missing: Vec<String> = emitted().into_iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "not in metric_names.rs: {missing:?}");
}
