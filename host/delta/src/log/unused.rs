//! Files in a table's folder that no entry of its log refers to any more, and their removal.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::TryStreamExt;
use millrace_core::{Error, Result};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::actions::{Add, Remove};
use super::checkpoint::file_retention_millis;
use super::deletion_vectors;
use super::load::{self, LOG};
use crate::file::reader::location;
use crate::file::writer::CHANGE_DATA;
use crate::store::{Store, store_error};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    pub files: u64,
    pub bytes: u64,
}

/// Removes files of the table that nobody can want: not the table as it is, nor a reader of a version of the last
/// `delta.deletedFileRetentionDuration` (a week, where the table does not say), nor a writer that has not committed yet.
///
/// A file whose deletion vector grew was removed under its old vector and added under the new one: it goes by its last
/// removal, which deltalake's own vacuum does not heed. `now`: milliseconds since 1970-01-01 UTC.
///
/// Errors: `store.*`, `log.damaged`; a table that is not there has nothing to remove.
pub(crate) async fn remove(store: &Store, now: i64) -> Result<Removal> {
    let Some(state) = load::newest(store, true).await? else { return Ok(Removal::default()) };
    let keep_since = now.saturating_sub(file_retention_millis(&state.metadata));
    let mut wanted: HashSet<Path> = HashSet::new();
    for add in state.files.iter().flat_map(|files| files.iter()) {
        wanted.extend(paths_of(store, add)?);
    }
    let mut removed: HashMap<Path, i64> = HashMap::new();
    load::removes(store, |remove| {
        // Without a time it is treated as of now.
        let at = remove.deletion_timestamp.unwrap_or(now);
        for path in paths_of(store, &entry_of(remove))? {
            let last = removed.entry(path).or_insert(at);
            *last = (*last).max(at);
        }
        Ok(())
    })
    .await?;
    let mut unused = Vec::new();
    let mut removal = Removal::default();
    let at = |e| store_error(&store.location(), e);
    let mut missing = wanted.clone();
    let mut found = store.objects().list(None);
    while let Some(object) = found.try_next().await.map_err(at)? {
        missing.remove(&object.location);
        // A file that no commit names may be about to be named by one.
        let last =
            removed.get(&object.location).copied().unwrap_or(i64::MIN).max(object.last_modified.timestamp_millis());
        if is_hidden(&object.location) || wanted.contains(&object.location) || last >= keep_since {
            continue;
        }
        removal.files += 1;
        removal.bytes += object.size;
        unused.push(object.location);
    }
    // Names that do not come out of the listing as the log has them could be those of files that are wanted.
    if let Some(file) = missing.into_iter().next() {
        return Err(Error::halt(
            "vacuum.missing_file",
            format!("{} refers to {file}, which its store does not list", store.location()),
        )
        .hint("nothing was removed; restore the file or an earlier version of the table"));
    }
    for path in unused {
        match store.objects().delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(at(error)),
        }
    }
    Ok(removal)
}

/// The log, and what readers skip: folders and files that begin with `_` or `.`, less partitions and the change data feed,
/// which is kept as long as files that were removed.
fn is_hidden(path: &Path) -> bool {
    let feed = usize::from(path.as_ref().starts_with(CHANGE_DATA));
    path.as_ref().starts_with(LOG)
        || path.parts().skip(feed).any(|part| {
            let name = part.as_ref();
            (name.starts_with('_') && !name.contains('=')) || name.starts_with('.')
        })
}

/// A data file and the file of its deletion vector.
fn paths_of(store: &Store, add: &Add) -> Result<BTreeSet<Path>> {
    let mut paths = BTreeSet::from([location(store, add)?]);
    paths.extend(deletion_vectors::location(store, add)?);
    Ok(paths)
}

/// The entry that a removal took out, as far as its files go.
fn entry_of(remove: Remove) -> Add {
    Add {
        path: remove.path,
        partition_values: Default::default(),
        size: 0,
        modification_time: 0,
        data_change: false,
        stats: None,
        tags: None,
        deletion_vector: remove.deletion_vector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_skip_is_left_alone() {
        for (path, hidden) in [
            ("_delta_log/00000000000000000000.json", true),
            ("_change_data/a.parquet", false),
            ("_change_data/region=a/.part.crc", true),
            ("_changes/a.parquet", true),
            ("region=a/.part.crc", true),
            ("_region=a/part.parquet", false),
            ("region=a/part.parquet", false),
            ("deletion_vector_1.bin", false),
        ] {
            assert_eq!(is_hidden(&Path::from(path)), hidden, "{path}");
        }
    }
}
