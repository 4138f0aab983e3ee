//! Maintenance of a table by hand, beside whoever writes it: files merged, the log in a checkpoint, what is gone removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_core::schema::TableName;
use millrace_core::{Error, Result};

use super::DeltaSink;
use super::table::{check_state, options};
use crate::log::{Step, Table, TableState, unused};
use crate::upsert::index::KeyCache;
use crate::upsert::{Finished, KEY, Options, Upserts};

/// Each takes milliseconds, and a host that writes a mirror commits once a second, or ten times where nothing is slow.
const MAX_PLANS_BY_HAND: usize = 100;

/// What was done to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    pub files_before: u64,
    /// Of the data files that the table refers to, as all `bytes` here.
    pub bytes_before: u64,
    pub files: u64,
    pub bytes: u64,
    /// The version that the log has a checkpoint of.
    pub version: u64,
    /// Files in its folder that nobody refers to any more.
    pub removed_files: u64,
    pub removed_bytes: u64,
}

impl DeltaSink {
    /// Puts a table in order, whether a host writes it meanwhile or not: of mode `upsert` small files are merged and files of
    /// which much is gone are written anew; the log gets a checkpoint and loses what is older than its retention; with
    /// `vacuum` files go that no version of the table's retention refers to. `None`: the table is not created.
    ///
    /// Errors: `table.unsupported`, `table.other_mode`, `position.gap` (halt); `table.busy`, `store.*` (retry).
    pub async fn maintain(&mut self, name: &TableName, vacuum: bool) -> Result<Option<Maintained>> {
        let store = self.claim_folder(name)?;
        let mut table = Table::open_with_files(store, Arc::clone(&self.environment), 0).await?;
        let Some(state) = table.state() else { return Ok(None) };
        check_state(&table.place(), state, &self.config)?;
        let (files_before, bytes_before) = size(state);
        table.check_not_rewound(&self.pipeline).await?;
        if let Some(cache) = &self.cache {
            merge_files(&mut table, &self.pipeline, options(&self.config), cache).await?;
        }
        table.checkpoint_now().await?;
        let removal = match vacuum {
            true => unused::remove(table.store(), table.now_millis()).await?,
            false => unused::Removal::default(),
        };
        let (files, bytes) = table.state().map(size).unwrap_or_default();
        Ok(Some(Maintained {
            files_before,
            bytes_before,
            files,
            bytes,
            version: table.version().unwrap_or_default(),
            removed_files: removal.files,
            removed_bytes: removal.bytes,
        }))
    }
}

fn size(state: &TableState) -> (u64, u64) {
    let files = state.files.as_ref();
    (files.map_or(0, |f| f.len() as u64), files.map_or(0, |f| f.iter().map(|add| add.size).sum()))
}

/// Merges until nothing is worth it. Whoever writes the table sees commits that change no row.
async fn merge_files(table: &mut Table, pipeline: &str, options: Options, cache: &Arc<KeyCache>) -> Result<()> {
    let Some(state) = table.state() else { return Ok(()) };
    let key = state.metadata.property(KEY).and_then(|names| serde_json::from_str(names).ok());
    // A mirror that no row ever went to.
    let Some(key) = key else { return Ok(()) };
    let mut upserts = Upserts::new(Arc::clone(cache));
    upserts.set_key(table, &state.schema.clone(), key)?;
    // A merge leaves fewer files, and so does one that is written anew without its rows that are gone; what a host adds
    // meanwhile is its own affair.
    for _ in 0..=2 * size(state).0 {
        let Some(finished) = upserts.compact_now(table, options).await? else { break };
        commit_merge(table, pipeline, options, (&mut upserts, &finished)).await?;
    }
    Ok(())
}

async fn commit_merge(
    table: &mut Table,
    pipeline: &str,
    options: Options,
    (upserts, finished): (&mut Upserts, &Finished),
) -> Result<()> {
    for _ in 0..MAX_PLANS_BY_HAND {
        // Where the host merged the same files, there is nothing left to say.
        let Some(plan) = upserts.plan_compaction(table, finished, options.deletion_vectors).await? else {
            return Ok(());
        };
        let overtaken = AtomicBool::new(false);
        // No error: a table in doubt is read anew as a whole, and what was done on it is lost.
        let check = |state: Option<&TableState>| {
            let moved = plan.files_at != state.map(|s| s.files_changed_at);
            overtaken.store(moved, Ordering::Relaxed);
            Ok(if moved { Step::Skip } else { Step::Commit })
        };
        table.commit("OPTIMIZE", pipeline, plan.actions().collect(), &check).await?;
        if !overtaken.into_inner() {
            return upserts.compacted(table, plan);
        }
    }
    let place = table.place();
    Err(Error::retry("table.busy", format!("{place}: others changed its files {MAX_PLANS_BY_HAND} times before us")))
}
