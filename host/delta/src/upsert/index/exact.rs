//! The sets of one table: looked at first, merged beside the stream.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use millrace_core::environment::{Environment, Task};
use tokio::sync::Semaphore;

use super::Home;
use super::sets::{KeySet, Merge, Part, choose};
use super::shelf::Shelf;
use crate::log::actions::Add;

type Outcome = Arc<Mutex<Option<Option<KeySet>>>>;

/// A merge under way.
struct Job {
    /// Ends the wait for its turn where the job is dropped.
    _task: Task,
    outcome: Outcome,
    /// Sets that it takes the place of.
    replaces: Vec<String>,
}

/// What a table has of an exact index.
#[derive(Default)]
pub(crate) struct Exact {
    sets: Vec<KeySet>,
    job: Option<Job>,
    /// The disk did not take a set: the files' own keys have to do until the next start.
    gave_up: bool,
}

impl std::fmt::Debug for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exact").field("sets", &self.sets.len()).finish_non_exhaustive()
    }
}

/// Files to look into, by path, each with the places of the keys that it may have.
pub(crate) type Asked<'a> = HashMap<&'a str, (&'a Arc<Add>, Range<usize>)>;

/// A file, and the rows in it with the places of their codes.
pub(crate) type InFile = (Arc<Add>, Vec<(u32, u32)>);

impl Exact {
    pub(super) fn of(sets: Vec<KeySet>) -> Self {
        Self { sets, ..Self::default() }
    }

    /// Rows that have these codes. Takes the files that it knows out of those asked for.
    pub(crate) fn find(&self, codes: &[u64], asked: &mut Asked<'_>) -> Vec<InFile> {
        let mut found = Vec::new();
        for set in &self.sets {
            let known: Vec<_> = set.paths().map(|path| asked.remove(&**path)).collect();
            let ranges = || known.iter().flatten().map(|(_, range)| range);
            let (Some(first), Some(end)) = (ranges().map(|r| r.start).min(), ranges().map(|r| r.end).max()) else {
                continue;
            };
            for (file, rows) in set.find(codes, first..end) {
                found.extend(known[file].as_ref().map(|(add, _)| (Arc::clone(add), rows)));
            }
        }
        found
    }

    /// Forgets sets of which the table has no file any more.
    pub(crate) fn keep(&mut self, home: &Home, has: &impl Fn(&str) -> bool) {
        self.sets.retain(|set| {
            let stays = !set.is_dead(has);
            if let (false, Some(shelf)) = (stays, &home.shelf) {
                shelf.remove(set.name());
            }
            stays
        });
    }

    /// Takes in a set that is finished, and starts the next. `turn`: held while it is made.
    pub(crate) fn advance(
        &mut self,
        home: &Home,
        environment: &Arc<dyn Environment>,
        files: &[Arc<Add>],
        turn: &Arc<Semaphore>,
    ) {
        let (true, Some(shelf)) = (home.cache.exact, &home.shelf) else { return };
        if let Some(job) = self.job.take() {
            let done = job.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
            match done {
                None => {
                    self.job = Some(job);
                    return;
                }
                Some(Some(set)) => self.take_in(set, &job.replaces, home, shelf),
                Some(None) => self.gave_up = true,
            }
        }
        let Some(merge) = self.next(home, files).filter(|merge| !self.gave_up && shelf.has_room(merge.entries()))
        else {
            return;
        };
        let (outcome, replaces) = (Outcome::default(), merge.replaces());
        let (answer, shelf, turn) = (Arc::clone(&outcome), Arc::clone(shelf), Arc::clone(turn));
        let run = async move {
            let Ok(_turn) = turn.acquire().await else { return };
            let set = tokio::task::spawn_blocking(move || merge.run(&shelf)).await.unwrap_or_default();
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
        };
        self.job = Some(Job { _task: environment.spawn("delta index", run.boxed()), outcome, replaces });
    }

    fn next(&self, home: &Home, files: &[Arc<Add>]) -> Option<Merge> {
        let in_sets: HashSet<&str> = self.sets.iter().flat_map(KeySet::paths).map(|path| &**path).collect();
        let singles = files.iter().filter(|add| !in_sets.contains(add.path.as_str()));
        let parts =
            singles.filter_map(|add| home.peek(&add.path).map(|keys| Part::of(&add.path, add.size, &keys))).collect();
        let live: HashSet<&str> = files.iter().map(|add| add.path.as_str()).collect();
        choose(&self.sets, parts, |path| live.contains(path))
    }

    /// A set takes the place of what it was made of.
    fn take_in(&mut self, set: KeySet, replaced: &[String], home: &Home, shelf: &Shelf) {
        metrics::counter!("millrace_delta_index_merges_total", "table" => home.table.to_string()).increment(1);
        set.paths().for_each(|path| home.forget(path));
        replaced.iter().for_each(|name| shelf.remove(name));
        self.sets.retain(|old| !replaced.iter().any(|name| name == old.name()));
        self.sets.push(set);
    }
}
