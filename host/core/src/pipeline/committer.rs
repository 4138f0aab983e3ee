//! The last third of the way: prepare, letters, data, record, acknowledgement, in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::chain::{Passed, SharedQuarantine, diverged};
use super::keeper::Keeper;
use super::reader::Pace;
use super::resnapshot::{Ended, Taken};
use super::settings::{Mutant, Settings};
use super::stand::Halt;
use super::swap::Swapped;
use super::{Counts, Pipeline, Summary, SwapReport};
use crate::batch::{ChangeBatch, Reject};
use crate::cut::Cut;
use crate::environment::Environment;
use crate::error::{Error, Kind, Reaction, Result};
use crate::letters::{Refuser, letters};
use crate::position::{Order, Position, SourceKey};
use crate::quarantine;
use crate::record::Pending;
use crate::sink::{Prepared, Provenance, Refusal, Sink};

/// Where things are committed and recorded.
pub(super) struct Tables {
    pub sink: Box<dyn Sink>,
    pub letters: Box<dyn Sink>,
    pub keeper: Keeper,
}

/// The committer's ends of what it shares with the reader and the stages.
pub(super) struct Ends {
    pub acknowledge: watch::Sender<Option<Position>>,
    pub pace: Arc<Pace>,
    /// Up to where verdicts were settled at the start.
    pub settled: BTreeMap<SourceKey, Order>,
    pub quarantine: SharedQuarantine,
}

pub(super) struct Committer<'a> {
    sink: Box<dyn Sink>,
    letters: Box<dyn Sink>,
    keeper: Keeper,
    ends: Ends,
    /// Up to where each source table's verdicts are given, every cut of this start included: what a letters commit
    /// stores (I5).
    passed: BTreeMap<SourceKey, Order>,
    /// Letters wait for the end of the cut.
    has_letters: bool,
    /// Changes of the cut under way that wait behind what the sink refused, and how many they are.
    held_changes: BTreeSet<(SourceKey, Order)>,
    held_back: Counts,
    settings: Settings,
    env: Arc<dyn Environment>,
    summary: &'a mut Summary,
    /// When requests were looked for last.
    looked: Duration,
    /// A swap whose record the mutant writes too late.
    late: Option<Swapped>,
}

impl<'a> Committer<'a> {
    pub(super) fn new(pipeline: &Pipeline, tables: Tables, ends: Ends, summary: &'a mut Summary) -> Self {
        let Tables { sink, letters, keeper } = tables;
        Self {
            sink,
            letters,
            keeper,
            passed: ends.settled.clone(),
            ends,
            has_letters: false,
            held_changes: BTreeSet::new(),
            held_back: Counts::default(),
            settings: pipeline.settings.clone(),
            env: pipeline.env.clone(),
            summary,
            looked: Duration::ZERO,
            late: None,
        }
    }
}

impl Committer<'_> {
    /// Takes one thing from the stages. Answers whether the source has ended.
    pub(super) async fn take(&mut self, passed: Passed) -> Result<bool> {
        match passed {
            Passed::Rows(batch) => self.write(batch).await.map(|()| false),
            Passed::Letters(batch) => {
                self.has_letters = true;
                self.letters.write(batch).await.map(|()| false)
            }
            Passed::Cut { cut, counts, swapped, halts } => {
                let end = cut.end;
                self.commit(&cut, counts).await?;
                self.record(&cut, swapped, &halts).await?;
                if !end {
                    self.look_for_requests().await?;
                }
                Ok(end)
            }
            Passed::HaltedInSnapshot(halt) => Err(self.halt_in_snapshot(&halt).await?),
        }
    }

    /// Hands rows to the sink. Where that can not take them, their source table stands (I12), and everything starts again:
    /// a snapshot without it, the stream up to where the sink stopped.
    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (origin, first) = (Arc::clone(&batch.origin), batch.order(0));
        let error = match self.write_rows(batch).await {
            Err(error) if error.kind == Kind::HaltTable => error,
            answer => return answer,
        };
        let source = origin.source.clone();
        if origin.snapshot {
            return Err(self.halt_in_snapshot(&Halt { source, after: None, in_snapshot: true, error }).await?);
        }
        if self.ends.settled.get(&source).is_some_and(|settled| first <= *settled) {
            // A part of it is stored: what was begun under a version is finished by it (I4).
            return Err(Error { kind: Kind::Halt, ..error });
        }
        let reload = Error::reload("table.halted", format!("the sink can not take {source} beyond {first}"));
        self.summary.stops.note(source, first, error);
        Err(reload)
    }

    /// Nothing of the cut may be committed: answers why everything starts again.
    async fn halt_in_snapshot(&mut self, halt: &Halt) -> Result<Error> {
        tracing::error!(pipeline = %self.keeper.record().pipeline, table = %halt.source, error = %halt.error, "the table is halted; the others go on");
        self.keeper.halt(halt);
        self.write_record().await?;
        Ok(Error::reload("table.halted", format!("the snapshot of {} can not be taken", halt.source)))
    }

    /// Hands rows to the sink, less those that wait behind others.
    pub(super) async fn write_rows(&mut self, batch: ChangeBatch) -> Result<()> {
        match self.hold_back(batch).await? {
            Some(batch) => self.sink.write(batch).await,
            None => Ok(()),
        }
    }

    /// The order of a cut (design, section 3): nothing here may change places.
    async fn commit(&mut self, cut: &Cut, mut counts: Counts) -> Result<()> {
        let started = self.env.monotonic();
        for (source, order) in &cut.last {
            // Never back: what a snapshot holds is read again from the stream, and dropped.
            let passed = self.passed.entry(source.clone()).or_insert(*order);
            *passed = (*passed).max(*order);
        }
        if cut.rows > 0 || cut.is_snapshot() {
            let letters_cut = Cut { last: self.passed.clone(), ..cut.clone() };
            let (prepared, letters_prepared) = self.prepare(cut, &letters_cut, &mut counts).await?;
            self.record_intent(cut, prepared, letters_prepared).await?;
            if self.settings.mutant == Some(Mutant::LettersAfterData) {
                self.sink.commit(cut).await?;
                self.commit_letters(&letters_cut).await?;
            } else {
                self.commit_letters(&letters_cut).await?;
                self.sink.commit(cut).await?;
            }
            self.ends.pace.note_rewritten(self.sink.rewritten());
        }
        self.record_late_swap().await?;
        let took = self.env.monotonic().saturating_sub(started);
        self.ends.pace.note_time(took);
        self.book(cut, &counts, took);
        // A sink with records of its own keeps positions.
        if cut.rows > 0 && self.sink.records().is_some() {
            self.keeper.note_stored(self.sink.committed().into_keys());
        }
        Ok(())
    }

    async fn prepare(
        &mut self,
        cut: &Cut,
        letters_cut: &Cut,
        counts: &mut Counts,
    ) -> Result<(Prepared, Option<Prepared>)> {
        let mut prepared = self.sink.prepare(cut).await?;
        self.write_refused(std::mem::take(&mut prepared.refused), counts).await?;
        let letters = if self.has_letters { Some(self.letters.prepare(letters_cut).await?) } else { None };
        Ok((prepared, letters))
    }

    /// Stages a snapshot that is taken beside the stream; the next start commits it from its manifests (I9).
    pub(super) async fn stage(&mut self, cut: &Cut, mut counts: Counts) -> Result<Taken> {
        let (data, letters) = self.prepare(cut, cut, &mut counts).await?;
        let letters = letters.and_then(|letters| letters.manifest);
        let pending = Pending { snapshot: cut.snapshot.clone(), letters, data: data.manifest };
        Ok(Taken { pending, new_tables: data.new_tables, counts })
    }

    /// A snapshot beside the stream has ended. Staged, it is recorded here and committed by the start that follows; where it
    /// can not be taken the table goes on from where it stands.
    pub(super) async fn take_snapshot(&mut self, (source, ended): Ended) -> Result<()> {
        if !self.keeper.to_snapshot().any(|wanted| *wanted == source) {
            tracing::warn!(table = %source, "its new snapshot comes too late: it was let go of meanwhile");
            return Ok(());
        }
        match ended {
            Ok(Taken { pending, new_tables, counts }) => {
                self.keeper.add_tables(&new_tables);
                self.keeper.set_pending(Some(pending));
                self.summary.add(&counts);
            }
            Err(error) if error.kind == Kind::LetGo || error.kind.reaction() != Reaction::Stop => return Err(error),
            Err(error) => {
                tracing::error!(table = %source, %error, "no new snapshot: the table goes on from where it stands");
                self.keeper.stand_no_more(&source);
            }
        }
        self.keeper.write().await?;
        Err(Error::reload("table.resnapshot", format!("the new snapshot of {source} has ended")))
    }

    /// Tables of which somebody wants a new snapshot stand from here on; the start that follows takes it.
    async fn look_for_requests(&mut self) -> Result<()> {
        let now = self.env.monotonic();
        if now.saturating_sub(self.looked) < self.settings.record_interval {
            return Ok(());
        }
        self.looked = now;
        let requests = self.keeper.store().snapshot_requests().await?;
        if requests.is_empty() {
            return Ok(());
        }
        let mut stands = false;
        // What was begun under a version is finished by it first (I4).
        let requests: Vec<_> =
            requests.into_iter().filter(|table| self.keeper.is_over_of(table, &self.passed)).collect();
        if requests.is_empty() {
            return Ok(());
        }
        for table in &requests {
            match self.keeper.stand_for_snapshot(table) {
                Ok(()) => stands = true,
                Err(error) => {
                    tracing::error!(pipeline = %self.keeper.record().pipeline, %table, %error, "a request is refused");
                }
            }
        }
        self.keeper.write().await?;
        for table in &requests {
            self.keeper.store().withdraw_snapshot_request(table).await?;
        }
        match stands {
            true => Err(Error::reload("table.resnapshot", "a new snapshot is asked for")),
            false => Ok(()),
        }
    }

    /// What passed the stages before the sink refused an earlier change of its key waits behind that one (I15).
    async fn hold_back(&mut self, batch: ChangeBatch) -> Result<Option<ChangeBatch>> {
        let mut waits = self.ends.quarantine.lock().pass(&batch, &BTreeSet::new());
        let settled = self.ends.settled.get(&batch.origin.source);
        waits.retain(|change, _| settled.is_none_or(|settled| batch.origin.orders[*change as usize] > *settled));
        if waits.is_empty() {
            return Ok(Some(batch));
        }
        let (rest, held) = batch.partition(|change| !waits.contains_key(&change))?;
        let source = &batch.origin.source;
        self.held_back.images_out += held.rows() as u64;
        // Of a change that went to several tables one letter is enough.
        waits.retain(|change, _| self.held_changes.insert((source.clone(), batch.origin.orders[*change as usize])));
        let rejects: Vec<Reject> = waits.iter().map(quarantine::reject).collect();
        if !rejects.is_empty() {
            self.held_back.letters += rejects.len() as u64;
            let letters = self.sink_letters(&held, &rejects)?;
            self.has_letters = true;
            self.letters.write(letters).await?;
        }
        Ok((!rest.is_empty()).then_some(rest))
    }

    /// What the sink refuses becomes letters, before its cut's data (I5).
    async fn write_refused(&mut self, refused: Vec<Refusal>, counts: &mut Counts) -> Result<()> {
        let held = std::mem::take(&mut self.held_back);
        counts.images_out = counts.images_out.saturating_sub(held.images_out);
        counts.letter_images += held.images_out;
        counts.letters += held.letters;
        let mut seen = std::mem::take(&mut self.held_changes);
        for refusal in refused {
            let source = refusal.batch.origin.source.clone();
            let mut changes = refusal.batch.changes.clone();
            changes.dedup();
            self.ends.quarantine.lock().pass(&refusal.batch, &changes.iter().copied().collect());
            let images = refusal.batch.rows() as u64;
            counts.images_out = counts.images_out.saturating_sub(images);
            counts.letter_images += images;
            let mut rejects = Vec::new();
            for change in changes {
                let order = refusal.batch.origin.orders[change as usize];
                if self.ends.settled.get(&source).is_some_and(|settled| order <= *settled) {
                    return Err(diverged(&refusal.reason, &source, &order.to_string()));
                }
                if seen.insert((source.clone(), order)) {
                    let column = refusal.column.as_deref().map(Into::into);
                    rejects.push(Reject { change, code: refusal.code.into(), reason: refusal.reason.clone(), column });
                }
            }
            if rejects.is_empty() {
                continue;
            }
            counts.letters += rejects.len() as u64;
            let batch = self.sink_letters(&refusal.batch, &rejects)?;
            self.has_letters = true;
            self.letters.write(batch).await?;
        }
        Ok(())
    }

    fn sink_letters(&self, batch: &ChangeBatch, rejects: &[Reject]) -> Result<ChangeBatch> {
        let claim = self.keeper.claimed();
        let by = Refuser {
            pipeline: &claim.pipeline,
            incarnation: &claim.incarnation,
            stage: "sink",
            spec: None,
            later: &[],
        };
        letters(batch, rejects, &by)
    }

    /// What must be durable before anything of the cut is: names of new tables (I13), and how to finish a snapshot (I9).
    async fn record_intent(&mut self, cut: &Cut, data: Prepared, letters: Option<Prepared>) -> Result<()> {
        let mut needed = self.keeper.add_tables(&data.new_tables);
        let letters = letters.and_then(|l| l.manifest);
        let pending = cut.is_snapshot() && (data.manifest.is_some() || letters.is_some());
        if pending && self.settings.mutant != Some(Mutant::SnapshotWithoutManifest) {
            self.keeper.set_pending(Some(Pending { snapshot: cut.snapshot.clone(), letters, data: data.manifest }));
            needed = true;
        }
        if needed { self.keeper.write().await } else { Ok(()) }
    }

    async fn commit_letters(&mut self, cut: &Cut) -> Result<()> {
        if self.has_letters {
            self.letters.commit(cut).await?;
            self.has_letters = false;
        }
        Ok(())
    }

    /// Record, then acknowledgement (I3). A snapshot, new code and the end are recorded at once, the rest at its cadence.
    async fn record(&mut self, cut: &Cut, swapped: Option<Swapped>, halts: &[Halt]) -> Result<()> {
        // Before the place moves on: theirs is the one before this cut.
        for halt in halts {
            self.keeper.halt(halt);
            self.summary.stops.is_recorded(&halt.source);
        }
        if cut.is_snapshot() {
            self.keeper.complete_snapshot(&cut.snapshot);
        }
        if let Some(position) = &cut.position {
            self.keeper.advance(position);
            if self.settings.mutant == Some(Mutant::AcknowledgeBeforeRecord) {
                self.ends.acknowledge.send_replace(self.keeper.record().resume_position().cloned());
            }
        }
        match swapped {
            Some(swapped) if self.settings.mutant == Some(Mutant::SwapRecordedLate) => {
                self.late = Some(swapped);
                Ok(())
            }
            Some(swapped) => self.record_swap(swapped).await,
            None if cut.is_snapshot() || !halts.is_empty() || self.is_record_due() => self.write_record().await,
            None => Ok(()),
        }
    }

    fn is_record_due(&self) -> bool {
        self.keeper.is_due(self.settings.record_interval)
    }

    /// Called on a timer too, so that the lease is renewed and idle positions are acknowledged (I12).
    pub(super) async fn keep_record(&mut self) -> Result<()> {
        if self.is_record_due() {
            self.write_record().await?;
        }
        self.look_for_requests().await
    }

    async fn write_record(&mut self) -> Result<()> {
        self.keeper.let_go_of_log(self.settings.held_log);
        self.keeper.write().await?;
        let record = self.keeper.record();
        let position = match self.settings.mutant {
            Some(Mutant::AcknowledgePastHalted) => record.position.as_ref(),
            _ => record.resume_position(),
        };
        self.ends.acknowledge.send_replace(position.cloned());
        Ok(())
    }

    /// The code by digest, then the record with this cut's position, both before the first commit under it (I4).
    async fn record_swap(&mut self, swapped: Swapped) -> Result<()> {
        for stage in &swapped.configured {
            self.keeper.store().put_artifact(&stage.spec.digest, &stage.artifact).await?;
        }
        self.keeper.set_stages(swapped.configured.iter().map(|s| s.spec.clone()).collect());
        let stood = self.keeper.halted().next().is_some();
        self.keeper.try_again();
        self.summary.stops.forget();
        self.write_record().await?;
        self.note_provenance().await?;
        self.summary.swaps += 1;
        let report = SwapReport { record: self.keeper.number(), position: self.keeper.record().position.clone() };
        tracing::info!(pipeline = %self.keeper.record().pipeline, record = report.record, "new code is in force");
        if let Some(reply) = swapped.reply
            && reply.send(Ok(report)).is_err()
        {
            tracing::debug!("nobody waits for the answer to a swap any more");
        }
        self.summary.configured = Some(swapped.configured);
        match stood {
            true => Err(Error::reload("table.again", "tables that stand are tried again with the new code")),
            false => Ok(()),
        }
    }

    async fn record_late_swap(&mut self) -> Result<()> {
        match self.late.take() {
            Some(swapped) => self.record_swap(swapped).await,
            None => Ok(()),
        }
    }

    /// A line of the provenance table for what is in force now.
    pub(super) async fn note_provenance(&mut self) -> Result<()> {
        let record = self.keeper.record();
        let line = Provenance {
            pipeline: record.pipeline.clone(),
            incarnation: record.incarnation.clone().unwrap_or_default(),
            epoch: record.epoch,
            record: self.keeper.number(),
            after: record.position.as_ref().map(|p| p.order.to_sortable()).unwrap_or_default(),
            stages: serde_json::to_string(&record.stages).unwrap_or_default(),
            at: self.env.now(),
        };
        self.sink.provenance(&line).await
    }

    /// An orderly stop: the lease is given back.
    pub(super) async fn close(&mut self) -> Result<()> {
        self.keeper.release();
        self.write_record().await
    }

    /// What the sink says at the end.
    pub(super) fn report(&mut self) {
        self.summary.halted = self.keeper.halted_tables();
        self.summary.tables = self.sink.committed();
        for table in self.summary.tables.keys() {
            if let Some(location) = self.sink.location(table) {
                self.summary.locations.insert(table.clone(), location);
            }
        }
    }

    fn book(&mut self, cut: &Cut, counts: &Counts, took: Duration) {
        self.summary.add(counts);
        let pipeline = self.keeper.record().pipeline.clone();
        let label = || pipeline.clone();
        metrics::counter!("millrace_images_in_total", "pipeline" => label()).increment(counts.images_in);
        metrics::counter!("millrace_images_out_total", "pipeline" => label()).increment(counts.images_out);
        metrics::counter!("millrace_images_dropped_total", "pipeline" => label()).increment(counts.dropped);
        metrics::counter!("millrace_dead_letters_total", "pipeline" => label()).increment(counts.letters);
        metrics::counter!("millrace_cuts_total", "pipeline" => label()).increment(1);
        metrics::histogram!("millrace_cut_images", "pipeline" => label()).record(cut.rows as f64);
        metrics::histogram!("millrace_cut_bytes", "pipeline" => label()).record(cut.bytes as f64);
        metrics::histogram!("millrace_commit_seconds", "pipeline" => label()).record(took.as_secs_f64());
        if cut.commit_time > 0 {
            let lag = (self.env.now() - cut.commit_time).max(0) as f64 / 1e6;
            metrics::gauge!("millrace_lag_seconds", "pipeline" => label()).set(lag);
        }
        tracing::debug!(pipeline = %pipeline, cut = cut.number, images = cut.rows, position = ?cut.position.as_ref().map(|p| p.order.to_string()), "cut committed");
    }
}
