//! Compaction beside the stream: small files become one, files of which much is gone are written anew.
//!
//! The work runs beside the cuts on files as they are at its start; its commit comes between two cuts and marks what the
//! stream took out of those files meanwhile in the new one. So it waits for nobody, and nobody waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, TryStreamExt};
use millrace_core::environment::Task;
use millrace_core::{Error, Result};
use roaring::RoaringTreemap;
use tokio::sync::Semaphore;

use super::index::FileKeys;
use super::keys::SharedForm;
use super::locate::{Target, note_keys};
use super::rewrite::Input;
use super::rows::NewFile;
use super::{Options, Staged, Upserts, vectors};
use crate::file::layout::Layout;
use crate::file::partition::Key;
use crate::file::writer::DataFile;
use crate::log::actions::{Add, Remove};
use crate::log::schema::Field;
use crate::log::{Table, deletion_vectors};
use crate::mutants::{Mutant, has};
use crate::store::Store;

/// Files of about one size that become one. Eight: each row is written again once for every eightfold growth of its file.
const FILES_A_MERGE: usize = 8;
/// Files in one piece of work: its commit names them all.
const MAX_FILES: usize = 64;
/// Below this all files are of one size.
const LEAST_SIZE: u64 = 256 << 10;
/// Of a file's rows, in percent: when so many are gone, reading past them costs more than writing the rest anew.
const GONE_PERCENT: u64 = 20;

/// Files that became one; nobody refers to it yet.
#[derive(Debug)]
struct Compacted {
    inputs: Vec<Input>,
    /// Where the rows of each input begin.
    offsets: Vec<u64>,
    /// `None`: no row was left.
    file: Option<NewFile>,
}

type Outcome = Arc<Mutex<Option<Result<Compacted>>>>;

/// Work under way.
pub(super) struct Job {
    /// Ends the work where the job is dropped.
    _task: Task,
    outcome: Outcome,
    basis: Basis,
}

/// What work relies on.
#[derive(Clone, Debug)]
struct Basis {
    /// The version at which columns or properties changed last, at the start.
    changed_at: u64,
    /// By which it knows the new file's keys.
    form: SharedForm,
}

/// Work that is done and not committed.
#[derive(Debug)]
pub(crate) struct Finished {
    done: Compacted,
    basis: Basis,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("basis", &self.basis).finish_non_exhaustive()
    }
}

/// What the work needs, apart from the table.
struct Work {
    store: Store,
    form: SharedForm,
    fields: Vec<Field>,
    partition_by: Vec<String>,
    inputs: Vec<Input>,
    /// Of the new file.
    id: String,
    /// Milliseconds since 1970-01-01 UTC.
    now: i64,
}

impl Upserts {
    /// Starts work where there is some and none is under way. `turn`: held while it is done.
    pub(crate) async fn start_compaction(
        &mut self,
        table: &Table,
        options: Options,
        turn: &Arc<Semaphore>,
    ) -> Result<()> {
        if self.job.is_some() {
            return Ok(());
        }
        let Some((work, basis)) = self.next_work(table, options, FILES_A_MERGE).await? else { return Ok(()) };
        let (outcome, turn) = (Outcome::default(), Arc::clone(turn));
        let answer = Arc::clone(&outcome);
        let run = async move {
            let done = match turn.acquire().await {
                Ok(_turn) => work.run().await,
                Err(closed) => Err(Error::bug(closed.to_string())),
            };
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        };
        let task = table.environment().spawn("delta compaction", run.boxed());
        self.job = Some(Job { _task: task, outcome, basis });
        Ok(())
    }

    /// Does the work that is worth most, for a caller that has nothing else to do. `None`: nothing is worth it.
    pub(crate) async fn compact_now(&mut self, table: &Table, options: Options) -> Result<Option<Finished>> {
        let Some((work, basis)) = self.next_work(table, options, 2).await? else { return Ok(None) };
        Ok(Some(Finished { done: work.run().await?, basis }))
    }

    /// `least`: files of about one size that are merged.
    async fn next_work(&mut self, table: &Table, options: Options, least: usize) -> Result<Option<(Work, Basis)>> {
        let (Some(state), Some(target)) = (table.state(), &mut self.target) else { return Ok(None) };
        let Some(files) = &state.files else { return Ok(None) };
        let all: Vec<Arc<Add>> = files.iter().cloned().collect();
        let chosen = choose(&all, options.target_size, least, target);
        if chosen.is_empty() {
            return Ok(None);
        }
        let mut reader = deletion_vectors::Reader::default();
        let mut inputs = Vec::with_capacity(chosen.len());
        for add in chosen {
            inputs.push(Input { gone: target.gone(&add, &mut reader).await?, add });
        }
        let work = Work {
            store: table.store().clone(),
            form: Arc::clone(&target.form),
            // Not those that the cut under way may add: they are not the table's yet.
            fields: state.schema.fields.clone(),
            partition_by: state.metadata.partition_columns.clone(),
            inputs,
            id: table.random_id(),
            now: table.now_millis(),
        };
        let basis = Basis { changed_at: state.changed_at, form: Arc::clone(&target.form) };
        Ok(Some((work, basis)))
    }

    /// The work that was started, once it is finished.
    pub(crate) fn finished_compaction(&mut self) -> Result<Option<Finished>> {
        let Some(job) = &self.job else { return Ok(None) };
        let Some(done) = job.outcome.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(None) };
        let basis = job.basis.clone();
        self.job = None;
        Ok(Some(Finished { done: done?, basis }))
    }

    /// What finished work asks of the log, for the table as it is now; `None` where its files are not the table's any more:
    /// where rows of them went meanwhile, a table without deletion vectors (`!vectors`) has other files. The answer is to
    /// be committed, then handed to [`Upserts::compacted`].
    pub(crate) async fn plan_compaction(
        &mut self,
        table: &Table,
        finished: &Finished,
        vectors: bool,
    ) -> Result<Option<Staged>> {
        let Finished { done, basis } = finished;
        let (Some(state), Some(target)) = (table.state(), &mut self.target) else { return Ok(None) };
        let files = state.files.as_ref();
        let present = |input: &Input| files.and_then(|f| f.get(&input.add.path)).cloned();
        let now: Option<Vec<Arc<Add>>> = done.inputs.iter().map(present).collect();
        let same = basis.changed_at == state.changed_at && Arc::ptr_eq(&basis.form, &target.form);
        let Some(now) = now.filter(|_| same) else { return Ok(None) };
        let unchanged = |(input, now): (&Input, &Arc<Add>)| input.add.deletion_vector == now.deletion_vector;
        if !vectors && !done.inputs.iter().zip(&now).all(unchanged) {
            return Ok(None);
        }
        done.plan(table, target, &now, state.files_changed_at).await.map(Some)
    }

    /// The table has what was planned.
    pub(crate) fn compacted(&mut self, table: &Table, staged: Staged) -> Result<()> {
        metrics::counter!("millrace_delta_compactions_total", "table" => table.place()).increment(1);
        self.note(table, staged)
    }
}

impl Compacted {
    /// `now`: the inputs as the table has them.
    async fn plan(&self, table: &Table, target: &mut Target, now: &[Arc<Add>], files_at: u64) -> Result<Staged> {
        let mut staged = Staged { files_at: Some(files_at), ..Staged::default() };
        let millis = table.now_millis();
        let mut reader = deletion_vectors::Reader::default();
        let mut gone = RoaringTreemap::new();
        for ((input, offset), add) in self.inputs.iter().zip(&self.offsets).zip(now) {
            let since = target.gone(add, &mut reader).await?.as_ref() - input.gone.as_ref();
            // Rows that went meanwhile, at their place in the new file: those before them that were gone are not in it.
            if !has(Mutant::VectorsGrewUnseen) {
                gone.extend(since.iter().map(|row| offset + row - input.gone.rank(row)));
            }
            staged.removes.push(Remove::of(add, millis, false));
        }
        let Some(file) = self.file.clone() else { return Ok(staged) };
        let add = Arc::new(file.add.clone());
        if gone.is_empty() {
            staged.adds.push(file.add.clone());
        } else {
            vectors::mark(table, target, vec![(add, gone)], &mut staged).await?;
            staged.removes.retain(|remove| remove.path != file.add.path);
        }
        staged.adds.iter_mut().for_each(|add| add.data_change = false);
        staged.new_files.push(file);
        Ok(staged)
    }
}

impl Work {
    async fn run(self) -> Result<Compacted> {
        let layout = Arc::new(Layout::whole(&self.fields, &self.partition_by));
        let key = self.inputs.first().map_or(Key::new(), |first| first.partition(&layout));
        let mut file = DataFile::create(&self.store, Arc::clone(&layout), key, &self.id)?;
        let mut pairs: Vec<(u64, u32)> = Vec::new();
        let mut offsets = Vec::with_capacity(self.inputs.len());
        let mut rows = 0u64;
        for input in &self.inputs {
            offsets.push(rows);
            rows += self.copy(input, &layout, &mut file, (rows, &mut pairs)).await?;
        }
        if rows == 0 {
            return Ok(Compacted { inputs: self.inputs, offsets, file: None });
        }
        let add = Add { data_change: false, ..file.finish(self.now).await? };
        let keys = tokio::task::spawn_blocking(move || FileKeys::build(pairs)).await;
        let keys = Arc::new(keys.map_err(|e| Error::bug(e.to_string()))?);
        Ok(Compacted { inputs: self.inputs, offsets, file: Some(NewFile { add, keys }) })
    }

    /// Copies what is left of a file; answers how many rows that is. `known`: rows before them, and their keys.
    async fn copy(
        &self,
        input: &Input,
        layout: &Layout,
        file: &mut DataFile,
        (first, pairs): (u64, &mut Vec<(u64, u32)>),
    ) -> Result<u64> {
        let mut copied = 0u64;
        let first = if has(Mutant::KeysMisplaced) { 0 } else { first };
        let mut rest = input.rest(&self.store, &self.form, layout).await?;
        while let Some((batch, keys)) = rest.try_next().await? {
            let at = u32::try_from(first + copied).map_err(|_| Error::bug("more than four billion rows in a file"))?;
            note_keys(pairs, &self.form, &keys, at);
            file.write(&batch).await?;
            copied += batch.num_rows() as u64;
        }
        Ok(copied)
    }
}

/// Values of partition columns, and the power of eight that sizes have.
type Tier<'a> = (&'a BTreeMap<String, Option<String>>, u32);

/// The files that are worth it most: one of which much is gone with others of its partition, or many of about one size.
fn choose(files: &[Arc<Add>], target_size: u64, least: usize, target: &mut Target) -> Vec<Arc<Add>> {
    let gone = |add: &Add| add.deletion_vector.as_ref().map_or(0, |dv| dv.cardinality.unsigned_abs());
    let mut tiers: BTreeMap<Tier<'_>, Vec<&Arc<Add>>> = BTreeMap::new();
    for add in files {
        let rows = target.facts(add).rows.unwrap_or(u64::MAX);
        if gone(add).saturating_mul(100) >= rows.saturating_mul(GONE_PERCENT) && add.size >= LEAST_SIZE {
            return vec![Arc::clone(add)];
        }
        if add.size < target_size / 2 {
            let tier = (add.size / LEAST_SIZE).max(1).ilog2() / FILES_A_MERGE.ilog2();
            tiers.entry((&add.partition_values, tier)).or_default().push(add);
        }
    }
    for mut tier in tiers.into_values().filter(|tier| tier.len() >= least) {
        tier.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
        let mut size = 0;
        let fits = tier.into_iter().take(MAX_FILES).take_while(|add| {
            size += add.size;
            size <= target_size
        });
        let chosen: Vec<Arc<Add>> = fits.cloned().collect();
        if chosen.len() > 1 {
            return chosen;
        }
    }
    Vec::new()
}
