//! Checkpoints and the cleaning of the log, beside the stream: they save readers time and never decide anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delta_kernel::Snapshot;
use deltalake_core::logstore::LogStore;
use deltalake_core::protocol::checkpoints::cleanup_expired_logs_for;
use futures::FutureExt;
use millrace_core::environment::{Environment, Task};
use millrace_core::{Error, Result};
use tokio::sync::Semaphore;

use super::actions::Metadata;
use super::{kernel, load, unused};
use crate::store::{Store, store_error};

/// Listing the log to clean it costs more than a checkpoint.
const CHECKPOINTS_A_CLEANING: u64 = 10;

/// Checkpoints at once in this process: each holds its table's state in memory, and none is urgent.
static ROOM: Semaphore = Semaphore::const_new(2);

/// When the next checkpoint is due, and the one under way.
pub(super) struct Checkpoints {
    every: u64,
    /// Files that no version of the table's retention refers to are removed.
    vacuums: bool,
    /// The version of the last one of ours, or at which we began.
    last: u64,
    running: Option<(Task, Arc<AtomicBool>)>,
}

impl Checkpoints {
    /// `every`: commits; 0 = never.
    pub(super) fn new(every: u64, opened_at: u64) -> Self {
        Self { every, vacuums: false, last: opened_at, running: None }
    }

    pub(super) fn vacuum(&mut self) {
        self.vacuums = true;
    }

    pub(super) fn after_commit(&mut self, store: &Store, environment: &dyn Environment, version: u64) {
        let due = self.every > 0 && version / self.every > self.last / self.every;
        let busy = self.running.as_ref().is_some_and(|(_, done)| !done.load(Ordering::Acquire));
        if !due || busy {
            return;
        }
        self.last = version;
        let done = Arc::new(AtomicBool::new(false));
        let finished = Arc::clone(&done);
        let store = store.clone();
        let clean = (version / self.every).is_multiple_of(CHECKPOINTS_A_CLEANING);
        let vacuum = clean && self.vacuums;
        let now_millis = environment.now() / 1_000;
        let work = async move {
            report(&store, version, checkpoint(&store, version).await);
            if clean {
                report(&store, version, clean_log(&store, version, now_millis).await);
            }
            if vacuum {
                let removed = unused::remove(&store, now_millis).await;
                if let Ok(removal) = &removed {
                    let table = store.location();
                    tracing::debug!(%table, files = removal.files, bytes = removal.bytes, "unused files removed");
                    metrics::counter!("millrace_delta_files_removed_total", "table" => table).increment(removal.files);
                }
                report_cleaning(&store, removed.map(|_removal| ()));
            }
            finished.store(true, Ordering::Release);
        };
        self.running = Some((environment.spawn("delta checkpoint", work.boxed()), done));
    }
}

fn report(store: &Store, version: u64, result: Result<()>) {
    let table = store.location();
    match result {
        Ok(()) => metrics::counter!("millrace_delta_checkpoints_total", "table" => table).increment(1),
        Err(error) => {
            tracing::warn!(%table, version, %error, "no checkpoint; the next one is tried in time");
            metrics::counter!("millrace_delta_checkpoint_failures_total", "table" => table).increment(1);
        }
    }
}

fn report_cleaning(store: &Store, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(table = %store.location(), %error, "unused files stay; the next removal is tried in time");
    }
}

/// Writes the checkpoint of a version that is committed.
pub(super) async fn checkpoint(store: &Store, version: u64) -> Result<()> {
    let place = store.location();
    let fails = |why: String| Error::retry("table.checkpoint", format!("{place}: {why}"));
    let log_store = store.log_store();
    let _room = ROOM.acquire().await.map_err(|e| fails(e.to_string()))?;
    let work = kernel::apart(async move {
        let engine = log_store.engine(None);
        let url = log_store.config().location().clone();
        let work = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::builder_for(url).at_version(version).build(engine.as_ref())?;
            snapshot.checkpoint(engine.as_ref(), None).map(|_written| ())
        });
        work.await
    });
    work.await?.map_err(|e| fails(e.to_string()))?.map_err(|e| fails(e.to_string()))?;
    // Hadoop's checksum of a file that we replaced in place: Spark would log it as damage and list the log instead.
    store.delete("_delta_log/._last_checkpoint.crc").await.map_err(|e| store_error(&place, e))
}

/// Removes commits and checkpoints that are older than the table's own retention.
pub(super) async fn clean_log(store: &Store, version: u64, now_millis: i64) -> Result<()> {
    let Some(state) = load::newest(store, false).await? else { return Ok(()) };
    if state.metadata.property("delta.enableExpiredLogCleanup") == Some("false") {
        return Ok(());
    }
    let retention =
        state.metadata.property("delta.logRetentionDuration").and_then(parse_interval).unwrap_or(DEFAULT_RETENTION);
    let cutoff = now_millis - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let log_store = store.log_store();
    kernel::apart(async move { cleanup_expired_logs_for(version, log_store.as_ref(), cutoff, None).await })
        .await?
        .map(|_removed| ())
        .map_err(|e| Error::retry("table.cleaning", format!("{}: {e}", store.location())))
}

/// How long files that the table no longer refers to are kept, milliseconds.
pub(super) fn file_retention_millis(metadata: &Metadata) -> i64 {
    let stated = metadata.property("delta.deletedFileRetentionDuration").and_then(parse_interval);
    i64::try_from(stated.unwrap_or(DEFAULT_FILE_RETENTION).as_millis()).unwrap_or(i64::MAX)
}

/// Delta's own.
const DEFAULT_FILE_RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// Delta's own.
const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// `interval 2 hours` and `interval 1 day`, as Delta spells durations.
fn parse_interval(text: &str) -> Option<Duration> {
    let text = text.to_ascii_lowercase();
    let mut words = text.split_whitespace().peekable();
    words.next_if(|w| *w == "interval");
    let (number, unit) = (words.next()?.parse::<u64>().ok()?, words.next()?);
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 7 * 86_400,
        _ => return None,
    };
    words.next().is_none().then_some(Duration::from_secs(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_delta_spells_them() {
        assert_eq!(parse_interval("interval 2 hours"), Some(Duration::from_secs(7_200)));
        assert_eq!(parse_interval("INTERVAL 1 day"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_interval("interval 1 month"), None);
    }
}
