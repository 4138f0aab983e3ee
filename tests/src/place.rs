//! A folder for one pipeline: its file, the host's logs, the lake that it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use millrace_core::position::Order;
use serde_json::Value;

use crate::host::Host;

/// A temporary folder with a pipeline file `p.yaml` that writes below `lake/`. Dropping it removes it, unless
/// `MILLRACE_KEEP` is set: then what a test left can be looked at.
#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
    hosts: AtomicU32,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    pub fn new() -> Place {
        let keep = std::env::var_os("MILLRACE_KEEP").is_some();
        let dir =
            tempfile::Builder::new().prefix("mr-place-").disable_cleanup(keep).tempdir().expect("a temporary folder");
        Place { dir, hosts: AtomicU32::new(0) }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of this folder in one step.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        crate::component::replace(&path, text.as_bytes());
        path
    }

    /// A host on `p.yaml`, with a log of its own.
    pub fn start(&self, variables: &[(&str, &str)]) -> Host {
        self.start_with(&["p.yaml"], &[], variables)
    }

    /// A host on these files of the folder, with further arguments.
    pub fn start_with(&self, files: &[&str], args: &[&str], variables: &[(&str, &str)]) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        let files: Vec<PathBuf> = files.iter().map(|file| self.dir.path().join(file)).collect();
        // Apart from the files that the host watches.
        let logs = self.dir.path().join("logs");
        fs::create_dir_all(&logs).expect("a folder for logs");
        Host::start_on(&files, &logs.join(format!("host-{number}.log")), args, variables)
    }

    /// The lake of `p.yaml`.
    pub fn lake(&self, pipeline: &str) -> Lake {
        Lake { root: self.dir.path().join("lake"), pipeline: pipeline.to_owned() }
    }
}

/// What a pipeline keeps beside its tables.
#[derive(Debug, Clone)]
pub struct Lake {
    pub root: PathBuf,
    pub pipeline: String,
}

/// The latest resume record.
#[derive(Debug, Clone)]
pub struct Record {
    pub number: u64,
    pub json: Value,
}

impl Lake {
    pub fn table(&self, namespace: &str, table: &str) -> PathBuf {
        self.root.join(namespace).join(table)
    }

    pub fn letters(&self) -> PathBuf {
        self.root.join("_dead_letters")
    }

    pub fn provenance(&self) -> PathBuf {
        self.root.join("_millrace").join(&self.pipeline).join("provenance")
    }

    /// The resume record with the highest number.
    pub fn record(&self) -> Option<Record> {
        let folder = self.root.join("_millrace").join(&self.pipeline).join("records");
        let names = fs::read_dir(&folder).into_iter().flatten().flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse::<u64>().ok());
        let number = numbers.max()?;
        let file = folder.join(format!("{number:020}.json"));
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Some(Record { number, json: serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display())) })
    }
}

impl Record {
    /// The order of the recorded position.
    pub fn order(&self) -> Option<Order> {
        serde_json::from_value(self.json["position"]["order"].clone()).ok()
    }

    /// The recorded position's token as text.
    pub fn token(&self) -> Option<String> {
        let bytes: Vec<u8> = serde_json::from_value(self.json["position"]["token"].clone()).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// Source tables whose snapshot is complete.
    pub fn snapshots(&self) -> usize {
        self.json["snapshots"].as_object().map_or(0, serde_json::Map::len)
    }
}
