//! Reading a table's log: once at the start, and whenever what we believe may be out of date.

use std::collections::HashMap;

use deltalake_core::kernel::Snapshot;
use futures::TryStreamExt;
use millrace_core::{Error, Result};
use object_store::path::Path;
use serde::de::DeserializeOwned;

use super::TableState;
use super::actions::{Entry, Remove, Txn};
use super::checkpoint_files::{self, Checkpointed, Wanted};
use super::features;
use super::files::Files;
use super::kernel;
use super::schema::DeltaSchema;
use crate::store::{Store, said_by_store, store_cause, store_error};

pub(super) const LOG: &str = "_delta_log";

pub(crate) fn entry_name(version: u64) -> String {
    format!("{LOG}/{version:020}.json")
}

/// Reads one commit; `None` where it is not there.
pub(crate) async fn entry(store: &Store, version: u64) -> Result<Option<Entry>> {
    let name = entry_name(version);
    let place = format!("{}/{name}", store.location());
    let body = store.read(&name).await.map_err(|e| store_error(&place, e))?;
    body.map(|body| Entry::parse(&place, &body)).transpose()
}

/// The files of a log, by what they are.
#[derive(Debug, Default)]
struct Listing {
    commits: Vec<u64>,
    /// Parts by version: (number of parts, names).
    checkpoints: HashMap<u64, HashMap<usize, Vec<String>>>,
}

impl Listing {
    fn add(&mut self, name: &str) {
        let mut words = name.split('.');
        let Some(version) = words.next().filter(|v| v.len() == 20).and_then(|v| v.parse().ok()) else { return };
        match words.collect::<Vec<_>>().as_slice() {
            ["json"] => self.commits.push(version),
            ["checkpoint", "parquet"] => self.checkpoint(version, 1, name),
            // A UUID: the V2 form, whole in itself, as Parquet or JSON.
            ["checkpoint", id, "parquet" | "json"] if id.len() == 36 => self.checkpoint(version, 1, name),
            ["checkpoint", _, parts, "parquet"] => {
                if let Ok(parts) = parts.parse() {
                    self.checkpoint(version, parts, name);
                }
            }
            _ => {}
        }
    }

    fn checkpoint(&mut self, version: u64, parts: usize, name: &str) {
        self.checkpoints.entry(version).or_default().entry(parts).or_default().push(name.to_owned());
    }

    fn newest_version(&self) -> Option<u64> {
        self.commits.iter().chain(self.checkpoints.keys()).max().copied()
    }

    /// Version and files of the newest checkpoint of which no part is missing.
    fn newest_checkpoint(&self) -> Option<(u64, Vec<String>)> {
        let mut versions: Vec<&u64> = self.checkpoints.keys().collect();
        versions.sort_unstable();
        versions.into_iter().rev().find_map(|version| {
            let (parts, names) =
                self.checkpoints[version].iter().find(|(parts, names)| **parts == 1 || names.len() == **parts)?;
            let taken = if *parts == 1 { 1 } else { names.len() };
            Some((*version, names[..taken].to_vec()))
        })
    }
}

async fn list(store: &Store, from: u64) -> Result<Listing> {
    let folder = Path::from(LOG);
    let offset = Path::from(format!("{LOG}/{from:020}"));
    let at = |e| store_error(&format!("{}/{LOG}", store.location()), e);
    let mut found = store.objects().list_with_offset(Some(&folder), &offset);
    let mut listing = Listing::default();
    while let Some(object) = found.try_next().await.map_err(at)? {
        if let Some(name) = object.location.filename() {
            listing.add(name);
        }
    }
    Ok(listing)
}

/// The newest version that a listing from `from` on shows.
pub(crate) async fn newest_version(store: &Store, from: u64) -> Result<Option<u64>> {
    Ok(list(store, from).await?.newest_version())
}

/// Where to start listing: the checkpoint that the log itself names, which may be out of date.
async fn hint(store: &Store) -> u64 {
    let hint = store.read(&format!("{LOG}/_last_checkpoint")).await.ok().flatten();
    let parsed = hint.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    parsed.and_then(|json| json["version"].as_u64()).unwrap_or(0)
}

/// The table as of its newest version; `None` where there is no log.
pub(crate) async fn newest(store: &Store, with_files: bool) -> Result<Option<TableState>> {
    let from = hint(store).await;
    let mut listing = list(store, from).await?;
    if from > 0 && listing.newest_checkpoint().is_none() {
        listing = list(store, 0).await?;
    }
    let Some(version) = listing.newest_version() else { return Ok(None) };
    let place = store.location();
    let checkpoint = listing.newest_checkpoint();
    let first = checkpoint.as_ref().map_or(0, |(v, _)| v + 1);
    let mut found = Checkpointed::default();
    for name in checkpoint.iter().flat_map(|(_, names)| names) {
        let wanted = if with_files { Wanted::Files } else { Wanted::Txns };
        let mut take = |part: Checkpointed| {
            found.txns.extend(part.txns);
            found.adds.extend(part.adds);
            Ok(())
        };
        checkpoint_files::read(store, name, wanted, &mut take).await?;
    }
    let mut txns: HashMap<String, Txn> = by_id(found.txns).collect();
    let mut files = with_files.then(|| Files::new(found.adds));
    for commit in first..=version {
        let entry = entry(store, commit).await?.ok_or_else(|| missing(&place, commit))?;
        txns.extend(by_id(entry.txns));
        if let Some(files) = &mut files {
            files.apply(&format!("{place}, version {commit}"), entry.adds, &entry.removes)?;
        }
    }
    // A former owner may have died between publishing this commit and making it durable.
    if first <= version {
        store.settle(&entry_name(version)).await?;
    }
    let log_store = store.log_store();
    let snapshot = kernel::apart(async move { Snapshot::try_new(log_store.as_ref(), Some(version)).await }).await?;
    let snapshot = snapshot.map_err(|e| unreadable(&place, &e))?;
    let metadata: super::Metadata = translated(&place, snapshot.metadata())?;
    let schema = DeltaSchema::parse(&place, &metadata.schema_string)?;
    let protocol: super::Protocol = translated(&place, snapshot.protocol())?;
    let adds = files.iter().flat_map(|files| files.iter()).map(|add| add.as_ref());
    features::check_vectors(&place, &protocol, adds)?;
    Ok(Some(TableState {
        version,
        protocol,
        metadata,
        schema,
        changed_at: version,
        txns,
        files,
        files_changed_at: version,
    }))
}

/// Hands on the removals that the log still tells of: those of the newest checkpoint and of the commits after it.
pub(super) async fn removes(store: &Store, mut each: impl FnMut(Remove) -> Result<()> + Send) -> Result<()> {
    let listing = list(store, 0).await?;
    let checkpoint = listing.newest_checkpoint();
    for name in checkpoint.iter().flat_map(|(_, names)| names) {
        let mut take = |part: Checkpointed| part.removes.into_iter().try_for_each(&mut each);
        checkpoint_files::read(store, name, Wanted::Removes, &mut take).await?;
    }
    let first = checkpoint.as_ref().map_or(0, |(v, _)| v + 1);
    for version in listing.commits.into_iter().filter(|v| *v >= first) {
        let entry = entry(store, version).await?.ok_or_else(|| missing(&store.location(), version))?;
        entry.removes.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

fn by_id(txns: Vec<Txn>) -> impl Iterator<Item = (String, Txn)> {
    txns.into_iter().map(|t| (t.app_id.clone(), t))
}

fn missing(place: &str, version: u64) -> Error {
    Error::halt("log.damaged", format!("{place}: commit {version} is missing from the log"))
        .hint("a file of _delta_log was removed by hand; restore it")
}

fn unreadable(place: &str, error: &deltalake_core::DeltaTableError) -> Error {
    if let Some(cause) = store_cause(error) {
        return said_by_store(place, cause);
    }
    Error::halt("table.unreadable", format!("{place}: {error}"))
        .hint("the table uses what the Delta kernel does not read, or its log is damaged")
}

/// The kernel's action in our own form: both are the protocol's JSON.
fn translated<T: DeserializeOwned>(place: &str, action: &impl serde::Serialize) -> Result<T> {
    serde_json::to_value(action)
        .and_then(serde_json::from_value)
        .map_err(|e| Error::halt("log.damaged", format!("{place}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_checkpoint_is_found_among_the_files_of_a_log() {
        let mut listing = Listing::default();
        for name in [
            "_last_checkpoint",
            "00000000000000000003.json",
            "00000000000000000004.json",
            "00000000000000000004.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000002.checkpoint.parquet",
            "00000000000000000001.00000000000000000002.compacted.json",
            ".00000000000000000009.json.tmp",
            "00000000000000000003.crc",
        ] {
            listing.add(name);
        }
        assert_eq!(listing.newest_version(), Some(4));
        let (version, names) = listing.newest_checkpoint().unwrap();
        assert_eq!((version, names.len()), (2, 1));
        listing.add("00000000000000000004.checkpoint.0000000002.0000000002.parquet");
        assert_eq!(listing.newest_checkpoint().unwrap().1.len(), 2);
    }
}
