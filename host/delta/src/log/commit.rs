//! One commit: a conditional put of our own entry, and what to do when it is not simply answered with yes.

use std::time::Duration;

use bytes::Bytes;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::logstore::CommitOrBytes;
use millrace_core::error::Kind;
use millrace_core::{Error, Result};
use uuid::Uuid;

use super::actions::{Action, CommitInfo, ENGINE, Entry, write_lines};
use super::load;
use super::{Table, TableState, another_table};
use crate::store::{is_not_durable, store_error};

/// What a commit's owner says to the table as it is now: before the first put, and after each foreign commit.
pub(crate) enum Step {
    Commit,
    /// The table has it already.
    Skip,
}

/// What became of a put.
enum Put {
    Done,
    Taken,
    Unknown(Error),
}

/// A host that a foreign writer overtakes this often in one commit has other trouble.
const MAX_OVERTAKEN: usize = 1_000;
/// Puts without an answer in a row, and reads of what became of them.
const MAX_UNANSWERED: u32 = 5;
/// A log keeps its commits for hours at least. A host that slept longer than this looks at the newest version first:
/// had its next number been cleaned up meanwhile, a put there would be accepted and seen by nobody.
const MAX_UNSEEN: Duration = Duration::from_secs(300);

/// Decides on the table's present state, `None` where it does not exist.
pub(crate) type Check<'a> = &'a (dyn Fn(Option<&TableState>) -> Result<Step> + Sync);

impl Table {
    /// Commits `actions` (less the commit info, which is added) as the next version.
    ///
    /// Errors: whatever `check` says; `position.gap`; `commit.unknown`, `store.*`.
    pub(crate) async fn commit(
        &mut self,
        operation: &str,
        pipeline: &str,
        actions: Vec<Action>,
        check: Check<'_>,
    ) -> Result<()> {
        let id = self.random_id();
        let result = self.try_commit(&id, operation, pipeline, actions, check).await;
        // After an error a put of ours may still land: nothing is committed on top of what we believe now.
        self.doubtful |= result.is_err();
        result
    }

    async fn try_commit(
        &mut self,
        id: &str,
        operation: &str,
        pipeline: &str,
        actions: Vec<Action>,
        check: Check<'_>,
    ) -> Result<()> {
        self.see_newest(pipeline).await?;
        let body = self.body(id, operation, pipeline, actions)?;
        let mut unanswered = 0;
        for _ in 0..MAX_OVERTAKEN {
            if let Step::Skip = check(self.state.as_ref())? {
                return Ok(());
            }
            let version = self.version().map_or(0, |v| v + 1);
            let put = self.put(version, &body).await?;
            let found = match &put {
                Put::Done => Some(Entry::parse(&self.place(), &body)?),
                Put::Taken | Put::Unknown(_) => self.read_back(version).await?,
            };
            match (found, put) {
                (Some(entry), _) => {
                    let ours = entry.has_id(id);
                    self.follow(version, entry, ours).await?;
                    if ours {
                        self.checkpoints.after_commit(&self.store, self.environment.as_ref(), version);
                        return Ok(());
                    }
                    metrics::counter!("millrace_delta_overtaken_total", "table" => self.place()).increment(1);
                }
                (None, Put::Unknown(error)) => {
                    unanswered += 1;
                    if unanswered >= MAX_UNANSWERED || error.kind != Kind::Retry {
                        return Err(error);
                    }
                    self.environment.sleep(Duration::from_millis(100) * 2u32.pow(unanswered)).await;
                }
                (None, _) => return Err(vanished(&self.place(), version)),
            }
        }
        Err(Error::retry(
            "commit.overtaken",
            format!("{}: others committed {MAX_OVERTAKEN} times before us", self.place()),
        ))
    }

    pub(crate) fn random_id(&self) -> String {
        format!("{:016x}{:016x}", self.environment.random(), self.environment.random())
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) fn now_millis(&self) -> i64 {
        self.environment.now() / 1_000
    }

    fn body(&self, id: &str, operation: &str, pipeline: &str, actions: Vec<Action>) -> Result<Bytes> {
        let blind = !actions.iter().any(|a| matches!(a, Action::Remove(_)));
        let info = CommitInfo {
            timestamp: self.now_millis(),
            operation: operation.to_owned(),
            engine_info: Some(format!("{ENGINE}/{}", env!("CARGO_PKG_VERSION"))),
            txn_id: Some(id.to_owned()),
            millrace_pipeline: Some(pipeline.to_owned()),
            is_blind_append: Some(blind),
        };
        let mut lines = Vec::with_capacity(actions.len() + 1);
        lines.push(Action::CommitInfo(info));
        lines.extend(actions);
        Ok(write_lines(&lines)?.into())
    }

    async fn put(&self, version: u64, body: &Bytes) -> Result<Put> {
        let bytes = CommitOrBytes::LogBytes(body.clone());
        match self.store.log_store().write_commit_entry(version, bytes, Uuid::nil()).await {
            Ok(()) => Ok(Put::Done),
            Err(TransactionError::VersionAlreadyExists(_)) => Ok(Put::Taken),
            Err(TransactionError::ObjectStore { source }) if is_not_durable(&source) => {
                Err(store_error(&self.place(), source))
            }
            Err(TransactionError::ObjectStore { source }) => Ok(Put::Unknown(store_error(&self.place(), source))),
            Err(other) => Ok(Put::Unknown(Error::retry("commit.unknown", format!("{}: {other}", self.place())))),
        }
    }

    /// The commit that is at `version` now, asked until the store answers.
    async fn read_back(&self, version: u64) -> Result<Option<Entry>> {
        let mut attempt = 0;
        loop {
            match load::entry(&self.store, version).await {
                Ok(entry) => {
                    if entry.is_some() {
                        // Another process may have published it just now and died: it is not durable before it is synced.
                        self.store.settle(&load::entry_name(version)).await?;
                    }
                    return Ok(entry);
                }
                Err(error) if attempt >= MAX_UNANSWERED || error.code == "log.damaged" => return Err(error),
                Err(_) => {
                    attempt += 1;
                    self.environment.sleep(Duration::from_millis(100) * 2u32.pow(attempt)).await;
                }
            }
        }
    }

    /// Takes a commit, ours or another's, into the state.
    async fn follow(&mut self, version: u64, entry: Entry, ours: bool) -> Result<()> {
        let place = self.place();
        match &mut self.state {
            Some(state) => state.apply(&place, version, entry, ours)?,
            None => self.state = load::newest(&self.store, self.with_files).await?,
        }
        self.known_at = self.environment.monotonic();
        Ok(())
    }

    /// Makes sure that the next number is the log's next, before something is planned on what we believe.
    pub(crate) async fn see_newest(&mut self, pipeline: &str) -> Result<()> {
        if self.doubtful {
            return self.reload(pipeline).await;
        }
        let unseen = self.environment.monotonic().saturating_sub(self.known_at);
        let Some(mut version) = self.version().filter(|_| unseen > MAX_UNSEEN) else { return Ok(()) };
        let newest = load::newest_version(&self.store, version).await?.unwrap_or(version);
        while version < newest {
            version += 1;
            let entry = load::entry(&self.store, version).await?.ok_or_else(|| vanished(&self.place(), version))?;
            self.follow(version, entry, false).await?;
        }
        self.known_at = self.environment.monotonic();
        Ok(())
    }

    async fn reload(&mut self, pipeline: &str) -> Result<()> {
        let known = self.state.take().map(|state| state.metadata.id);
        self.state = load::newest(&self.store, self.with_files).await?;
        if let (Some(known), Some(found)) = (known, self.state())
            && known != found.metadata.id
        {
            return Err(another_table(&self.place(), &known, &found.metadata.id));
        }
        self.check_not_rewound(pipeline).await?;
        self.doubtful = false;
        self.known_at = self.environment.monotonic();
        Ok(())
    }
}

fn vanished(place: &str, version: u64) -> Error {
    Error::reload("log.moved_on", format!("{place}: commit {version} was removed while this host did not look"))
}
