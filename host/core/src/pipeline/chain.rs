//! The second third of the way: the stages, in order; verdicts; and the swap of their code between two cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_buffer::BooleanBuffer;
use tokio::sync::mpsc;

use super::Counts;
use super::reader::Read;
use super::replay::Replay;
use super::settings::{Mutant, Settings};
use super::stand::{Halt, Stops};
use super::swap::{Swap, Swapped};
use crate::batch::{ChangeBatch, Changes, Reject};
use crate::cut::Cut;
use crate::environment::Environment;
use crate::error::{Error, Kind, Result};
use crate::letters::{Refuser, letters, may_mask};
use crate::position::{Order, SourceKey};
use crate::quarantine::{self, Quarantine, RowKeys};
use crate::schema::TableSchema;
use crate::stage::{OnFailure, Stage, StageOutput, StageSpec};

/// What moves from the stages to the committer.
pub(super) enum Passed {
    Rows(ChangeBatch),
    Letters(ChangeBatch),
    /// `swapped`: what follows was made by these stages; recorded before its first commit (I4). `halts`: tables that stand
    /// from this cut on (I12).
    Cut {
        cut: Cut,
        counts: Counts,
        swapped: Option<Swapped>,
        halts: Vec<Halt>,
    },
    /// A table has to stand of whose snapshot a part is staged: nothing of the cut may be committed.
    HaltedInSnapshot(Halt),
}

pub(super) struct Chain {
    pub stages: Vec<Box<dyn Stage>>,
    pub replay: Replay,
    pub incoming: mpsc::Receiver<Read>,
    pub swaps: mpsc::Receiver<Swap>,
    pub out: mpsc::Sender<Passed>,
    pub pipeline: String,
    pub incarnation: String,
    pub settings: Settings,
    pub env: Arc<dyn Environment>,
    /// The schema that each source table has now: what new code is planned against.
    pub live: BTreeMap<SourceKey, Arc<TableSchema>>,
    pub waiting: Option<Swap>,
    /// Put in force inside the cut, by a mutant.
    pub early: Option<Swapped>,
    pub counts: Counts,
    /// Source tables that stand: what comes of them is left for later (I12).
    pub halted: BTreeSet<SourceKey>,
    /// Those that stand since the cut under way.
    pub halts: Vec<Halt>,
    /// Where the sink of an earlier start could not go on.
    pub stops: Stops,
    /// How far each source table got. Over all cuts: the parts of a split transaction are stored before a record may name
    /// its end.
    pub passed: BTreeMap<SourceKey, Order>,
    pub quarantine: SharedQuarantine,
    /// Source tables without a key, as far as that was said.
    pub keyless: BTreeSet<SourceKey>,
}

/// Keys that wait (I15). The stages run ahead of the committer, whose sink refuses changes too: both see what the other
/// put there. Held for a batch's bookkeeping alone, never across an await.
#[derive(Clone, Default)]
pub(super) struct SharedQuarantine(Arc<Mutex<Quarantine>>);

impl SharedQuarantine {
    pub(super) fn new(quarantine: Quarantine) -> Self {
        Self(Arc::new(Mutex::new(quarantine)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Quarantine> {
        // Every step of its bookkeeping leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refusals met while a batch went through: what entered the failing stage, its index, and the changes.
#[derive(Default)]
struct Refusals {
    at: Vec<(Option<usize>, ChangeBatch, Vec<Reject>)>,
    changes: BTreeSet<u32>,
}

impl Chain {
    /// Passes batches and cuts on until the reader is done.
    pub(super) async fn run(mut self) -> Result<()> {
        while let Some(read) = self.incoming.recv().await {
            let open = match read {
                Read::Batch(batch) => self.pass(batch).await?,
                Read::Cut(cut) => self.end_cut(cut).await?,
            };
            if !open {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn send(&mut self, passed: Passed) -> bool {
        self.out.send(passed).await.is_ok()
    }

    /// One batch through all stages, and its letters.
    async fn pass(&mut self, batch: ChangeBatch) -> Result<bool> {
        if self.settings.mutant == Some(Mutant::SwapInsideCut) && self.early.is_none() {
            self.take_swap();
            self.early = self.swap().await;
        }
        let Some(batch) = self.replay.beyond_done(batch) else { return Ok(true) };
        if self.live.get(&batch.origin.source).is_none_or(|s| !Arc::ptr_eq(s, &batch.schema)) {
            self.live.insert(batch.origin.source.clone(), batch.schema.clone());
        }
        self.note_keys(&batch);
        let parts = self.replay.split(batch).into_iter();
        for part in parts.flat_map(|part| self.stops.split(part)).collect::<Vec<_>>() {
            if !self.pass_part(part).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Of a batch: what is read again after a restart, or what is new.
    async fn pass_part(&mut self, batch: ChangeBatch) -> Result<bool> {
        self.counts.images_in += batch.rows() as u64;
        metrics::histogram!("millrace_batch_images", "pipeline" => self.pipeline.clone()).record(batch.rows() as f64);
        if self.halted.contains(&batch.origin.source) {
            self.counts.held += batch.rows() as u64;
            return Ok(true);
        }
        let is_new = self.replay.is_new(&batch);
        if let Some(error) = self.stops.at(&batch) {
            self.counts.held += batch.rows() as u64;
            return self.halt(&batch.origin, error, is_new).await;
        }
        let before = self.counts;
        let (origin, images) = (batch.origin.clone(), batch.rows());
        let last = images.checked_sub(1).map(|last| batch.order(last));
        let mut refusals = Refusals::default();
        let entered = (is_new && self.settings.quarantine.is_some()).then(|| batch.clone());
        let passed = self.through_stages(batch, is_new, &mut refusals).await;
        let held_back = passed.and_then(|rows| self.hold_back(entered, &mut refusals).map(|()| rows));
        let mut rows = match held_back {
            Ok(rows) => rows,
            Err(error) if error.kind == Kind::HaltTable => {
                self.counts = before;
                self.counts.held += images as u64;
                return self.halt(&origin, error, is_new).await;
            }
            Err(error) => return Err(error),
        };
        if let Some(last) = last {
            self.passed.insert(origin.source.clone(), last);
        }
        if !refusals.changes.is_empty() {
            rows = self.without_refused(rows, &refusals.changes)?;
            for (stage, entered, rejects) in std::mem::take(&mut refusals.at) {
                let letters = self.letters_of(stage, &entered, &rejects)?;
                if !self.send(Passed::Letters(letters)).await {
                    return Ok(false);
                }
            }
        }
        for batch in rows {
            let Some(batch) = self.left_to_write(batch, is_new)? else { continue };
            self.counts.images_out += batch.rows() as u64;
            if !self.send(Passed::Rows(batch)).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The table stands from this batch on, and the others go on (I12). Answers whether they do: a snapshot is committed
    /// whole or not at all (I9), and with it everything starts again.
    async fn halt(&mut self, origin: &Changes, error: Error, is_new: bool) -> Result<bool> {
        if !is_new {
            // A part of it is stored: what was begun under a version is finished by it (I4).
            return Err(Error { kind: Kind::Halt, ..error });
        }
        let source = origin.source.clone();
        let after = self.passed.get(&source).copied().max(self.replay.done(&source));
        let position = after.map(|order| order.to_string());
        tracing::error!(pipeline = %self.pipeline, table = %source, position, %error, "the table is halted; the others go on");
        let halt = Halt { source: source.clone(), after, in_snapshot: origin.snapshot, error };
        if halt.in_snapshot {
            self.send(Passed::HaltedInSnapshot(halt)).await;
            return Ok(false);
        }
        self.halted.insert(source);
        self.halts.push(halt);
        Ok(true)
    }

    async fn through_stages(
        &mut self,
        batch: ChangeBatch,
        is_new: bool,
        refusals: &mut Refusals,
    ) -> Result<Vec<ChangeBatch>> {
        let mut flowing = vec![batch];
        if !flowing[0].origin.rejects.is_empty() {
            let batch = flowing.remove(0);
            let rejects = rejects_with_rows(&batch);
            let (rest, rejects) = self.refuse(None, &batch, rejects, is_new, refusals)?;
            let gone: BTreeSet<u32> = rejects.iter().map(|r| r.change).collect();
            flowing.extend(without(rest, &gone)?);
        }
        for index in 0..self.stages.len() {
            let mut next = Vec::with_capacity(flowing.len());
            for batch in flowing {
                if !self.stages[index].spec().sees(&batch.schema.name.to_string()) {
                    next.push(batch);
                    continue;
                }
                let output = self.apply(index, &batch, is_new).await?;
                self.counts.dropped += output.dropped;
                self.counts.emitted += output.emitted;
                if !output.rejects.is_empty() {
                    self.refuse(Some(index), &batch, output.rejects, is_new, refusals)?;
                }
                next.extend(output.batches);
            }
            flowing = next;
        }
        Ok(flowing)
    }

    /// Books refusals, each change once. A change whose verdict is settled is a letter where one is stored; one that was
    /// accepted before must not be refused now (I5).
    fn refuse(
        &mut self,
        stage: Option<usize>,
        batch: &ChangeBatch,
        rejects: Vec<Reject>,
        is_new: bool,
        refusals: &mut Refusals,
    ) -> Result<(ChangeBatch, Vec<Reject>)> {
        let mut fresh = Vec::new();
        for reject in &rejects {
            let order = batch.origin.orders[reject.change as usize];
            let source = &batch.origin.source;
            if !is_new && !self.replay.is_judged(source, order) {
                if self.settings.mutant == Some(Mutant::StoredLetterJudgedAgain) || self.replay.is_letter(source, order)
                {
                    refusals.changes.insert(reject.change);
                    continue;
                }
                return Err(diverged(&reject.reason, source, &order.to_string()));
            }
            if refusals.changes.insert(reject.change) {
                fresh.push(reject.clone());
            }
        }
        if let (Some(index), Some(first)) = (stage, fresh.first()) {
            halt_if_asked(self.stages[index].spec(), batch, first)?;
        }
        if !fresh.is_empty() {
            self.counts.letters += fresh.len() as u64;
            self.counts.letter_images += rows_of(batch, &fresh) as u64;
            refusals.at.push((stage, batch.clone(), fresh));
        }
        Ok((batch.clone(), rejects))
    }

    /// Notes the keys of a batch before the stages may change or drop them (I15).
    fn note_keys(&mut self, batch: &ChangeBatch) {
        let Some(policy) = self.settings.quarantine.as_ref().filter(|_| !batch.is_truncate()) else { return };
        let table = batch.schema.name.to_string();
        let masks = |column: &str| self.stages.iter().any(|stage| may_mask(stage.spec(), &table, column, true));
        let may_hide = |column: &str| !self.settings.keep_original && masks(column);
        match RowKeys::of(batch, policy, &self.incarnation, may_hide) {
            Some(keys) => {
                batch.origin.keys.get_or_init(|| keys);
            }
            None if self.keyless.insert(batch.origin.source.clone()) => {
                tracing::warn!(pipeline = %self.pipeline, %table, "the source table has no key: later changes do not wait behind its letters");
            }
            None => {}
        }
    }

    /// What comes after a letter of its key becomes a letter, whatever the stages made of it (I15).
    ///
    /// Errors: `key.quarantine_full` (the table is halted).
    fn hold_back(&mut self, entered: Option<ChangeBatch>, refusals: &mut Refusals) -> Result<()> {
        let (Some(policy), Some(entered)) = (&self.settings.quarantine, entered) else { return Ok(()) };
        let source = &entered.origin.source;
        let (waits, letters) = {
            let mut quarantine = self.quarantine.lock();
            (quarantine.pass(&entered, &refusals.changes), quarantine.letters(source))
        };
        if letters > policy.max_letters {
            let what = format!("{letters} changes of {source} are dead letters or wait behind one");
            return Err(Error::new(Kind::HaltTable, "key.quarantine_full", what).hint(
                "mend what refuses them and take a new snapshot (`millrace resnapshot`), or raise `dead_letters: { max_waiting }`",
            ));
        }
        if !waits.is_empty() {
            self.counts.letters += waits.len() as u64;
            refusals.changes.extend(waits.keys());
            refusals.at.push((None, entered, waits.iter().map(quarantine::reject).collect()));
        }
        Ok(())
    }

    /// A change is stored as a letter or as rows, never as both: what is refused in one table leaves the others too.
    fn without_refused(&mut self, rows: Vec<ChangeBatch>, refused: &BTreeSet<u32>) -> Result<Vec<ChangeBatch>> {
        let mut left = Vec::with_capacity(rows.len());
        for batch in rows {
            let before = batch.rows();
            let batch = without(batch, refused)?;
            let after = batch.as_ref().map_or(0, ChangeBatch::rows);
            self.counts.letter_images += (before - after) as u64;
            left.extend(batch);
        }
        Ok(left)
    }

    /// Without what is stored already, as letter or in the table.
    fn left_to_write(&mut self, batch: ChangeBatch, is_new: bool) -> Result<Option<ChangeBatch>> {
        if is_new {
            return Ok(Some(batch));
        }
        let before = batch.rows();
        let table = batch.schema.name.clone();
        let left = match self.replay.without_letters(batch)? {
            Some(batch) => self.replay.not_yet_in(&table, batch),
            None => None,
        };
        self.counts.already_stored += (before - left.as_ref().map_or(0, ChangeBatch::rows)) as u64;
        Ok(left)
    }

    /// Calls a stage; waits and asks again where it says so. A batch that it can not handle at all becomes letters, or
    /// stops the pipeline, as the file says. A replayed change that was accepted and is refused now is tried again (a
    /// time-out on a loaded machine) before it counts as diverged (I5).
    async fn apply(&mut self, index: usize, batch: &ChangeBatch, is_new: bool) -> Result<StageOutput> {
        let mut pause = Duration::from_millis(50);
        let mut tries = 0;
        loop {
            let result = self.stages[index].apply(batch).await;
            tries += 1;
            let again = tries <= self.settings.stage_retries;
            let error = match result {
                Ok(output) if is_new || !again || !self.diverges(batch, &output.rejects) => return Ok(output),
                Ok(_) => Error::retry("replay.refused", "a change that was accepted before a restart is refused now"),
                Err(error) => error,
            };
            let spec = self.stages[index].spec();
            metrics::counter!("millrace_stage_errors_total", "pipeline" => self.pipeline.clone(), "plugin" => spec.name.clone(), "code" => error.code).increment(1);
            if again && (error.kind == Kind::Retry || !is_new) {
                tracing::warn!(pipeline = %self.pipeline, plugin = %spec.name, table = %batch.schema.name, %error, "stage asks for time");
                self.env.sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
                continue;
            }
            if error.kind == Kind::Retry {
                return Err(error);
            }
            tracing::error!(pipeline = %self.pipeline, plugin = %spec.identity(), table = %batch.schema.name, position = %batch.order(0), %error, "stage failed on a batch");
            return match spec.on_failure {
                OnFailure::Halt => Err(Error { kind: Kind::Halt, ..error }),
                _ if error.kind == Kind::HaltTable => Err(error),
                OnFailure::HaltTable => Err(Error { kind: Kind::HaltTable, ..error }),
                OnFailure::DeadLetter => Ok(all_refused(batch, &error)),
            };
        }
    }

    /// Whether one of these refusals contradicts a settled verdict.
    fn diverges(&self, batch: &ChangeBatch, rejects: &[Reject]) -> bool {
        let source = &batch.origin.source;
        rejects
            .iter()
            .map(|r| batch.origin.orders[r.change as usize])
            .any(|order| !self.replay.is_judged(source, order) && !self.replay.is_letter(source, order))
    }

    fn letters_of(&self, stage: Option<usize>, entered: &ChangeBatch, rejects: &[Reject]) -> Result<ChangeBatch> {
        let first = stage.unwrap_or(0);
        let specs: Vec<&StageSpec> = self.stages[first.min(self.stages.len())..].iter().map(|s| s.spec()).collect();
        let by = Refuser {
            pipeline: &self.pipeline,
            incarnation: &self.incarnation,
            stage: stage.map_or("source", |i| &self.stages[i].spec().name),
            spec: stage.map(|i| self.stages[i].spec()),
            later: if self.settings.keep_original { &[] } else { &specs },
        };
        letters(entered, rejects, &by)
    }

    /// Ends the cut; where new code waits and the cut allows it, what follows is made by it (I4).
    async fn end_cut(&mut self, mut cut: Cut) -> Result<bool> {
        self.keep_what_passed(&mut cut);
        self.show_saturation();
        for (source, order) in &cut.snapshot {
            self.replay.note_snapshot(source.clone(), *order);
        }
        self.take_swap();
        let allowed = cut.position.as_ref().is_some_and(|p| self.replay.is_over(p)) && !cut.end;
        let swapped = match self.early.take() {
            Some(early) => Some(early),
            None if allowed => self.swap().await,
            None => None,
        };
        let counts = std::mem::take(&mut self.counts);
        let halts = std::mem::take(&mut self.halts);
        Ok(self.send(Passed::Cut { cut, counts, swapped, halts }).await)
    }

    /// How full the queues on both sides are: before what is slow they are full, behind it empty.
    fn show_saturation(&self) {
        let show = |queue: &'static str, free: usize, all: usize| {
            let fill = all.saturating_sub(free) as f64 / all.max(1) as f64;
            metrics::gauge!("millrace_queue_fill", "pipeline" => self.pipeline.clone(), "queue" => queue).set(fill);
        };
        show("stages", self.incoming.capacity(), self.incoming.max_capacity());
        show("sink", self.out.capacity(), self.out.max_capacity());
    }

    /// The cut says how far each source table is stored with it: one that stands as far as it got, and one that was only
    /// read again not at all.
    fn keep_what_passed(&mut self, cut: &mut Cut) {
        cut.last.retain(|source, last| {
            if self.halted.contains(source) {
                let Some(order) = self.passed.get(source) else { return false };
                *last = *order;
            }
            self.replay.front_of(source).is_none_or(|front| *last > front)
        });
    }
}

/// The source's own rejects, as far as their rows are still in the batch.
fn rejects_with_rows(batch: &ChangeBatch) -> Vec<Reject> {
    batch.origin.rejects.iter().filter(|r| batch.changes.binary_search(&r.change).is_ok()).cloned().collect()
}

fn without(batch: ChangeBatch, changes: &BTreeSet<u32>) -> Result<Option<ChangeBatch>> {
    let keep: BooleanBuffer = batch.changes.iter().map(|c| !changes.contains(c)).collect();
    let batch = batch.filter(&keep)?;
    Ok((!batch.is_empty()).then_some(batch))
}

fn rows_of(batch: &ChangeBatch, rejects: &[Reject]) -> usize {
    rejects
        .iter()
        .map(|r| batch.changes.partition_point(|c| *c <= r.change) - batch.changes.partition_point(|c| *c < r.change))
        .sum()
}

fn all_refused(batch: &ChangeBatch, error: &Error) -> StageOutput {
    let mut changes = batch.changes.clone();
    changes.dedup();
    let reject = |change| Reject { change, code: error.code.into(), reason: error.message.clone(), column: None };
    StageOutput { rejects: changes.into_iter().map(reject).collect(), ..StageOutput::default() }
}

/// Where the file says so, a refused change stops the pipeline, or its table, before anything of its cut is committed.
fn halt_if_asked(spec: &StageSpec, batch: &ChangeBatch, reject: &Reject) -> Result<()> {
    match spec.on_failure {
        OnFailure::DeadLetter => Ok(()),
        choice => {
            let order = batch.origin.orders[reject.change as usize];
            let Reject { code, reason, .. } = reject;
            let what = format!("{} refuses change {order} of {}: {code}: {reason}", spec.identity(), batch.schema.name);
            let (kind, set) = match choice {
                OnFailure::HaltTable => (Kind::HaltTable, "halt_table"),
                _ => (Kind::Halt, "halt"),
            };
            Err(Error::new(kind, "stage.refused", what).hint(format!(
                "`on_failure: {set}` is set for it; the change is read again with the plugin or rule that is there then"
            )))
        }
    }
}

/// A replayed change was accepted before and is refused now.
pub(super) fn diverged(reason: &str, source: &SourceKey, order: &str) -> Error {
    Error::halt(
        "replay.diverged",
        format!("change {order} of {source} was accepted before a restart and is refused now: {reason}"),
    )
    .hint("a plugin answered differently for the same row: it must not depend on time, chance or how batches are cut")
}
