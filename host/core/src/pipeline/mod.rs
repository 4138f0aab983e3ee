//! The pipeline loop: how a change gets from its source to its table, exactly once.

mod chain;
mod committer;
mod fence;
mod keeper;
mod reader;
mod replay;
mod resnapshot;
mod settings;
mod stand;
mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::settings::{Mutant, Settings};

use self::chain::{Chain, Passed, SharedQuarantine};
use self::committer::{Committer, Ends, Tables};
use self::fence::{fence, recall_quarantine};
use self::keeper::Keeper;
use self::reader::Reader;
use self::replay::Replay;
use self::resnapshot::{Ended, take_beside};
use self::stand::Stops;
use self::swap::{Code, Swap, load_beside, load_stages};
use crate::environment::{Environment, Task};
use crate::error::{Error, Kind, Reaction, Result};
use crate::position::{Position, SourceKey};
use crate::record::RecordStore;
use crate::schema::TableName;
use crate::sink::Sink;
use crate::source::{Opened, Source};
use crate::stage::{StageLoader, StageSpec};

/// Connects to the outside world; called at every start, so that nothing of a failed one lingers.
pub trait Parts: Send + Sync {
    fn source(&self) -> Result<Box<dyn Source>>;
    fn sink(&self) -> Result<Box<dyn Sink>>;
    /// The dead letters' sink.
    fn letters(&self) -> Result<Box<dyn Sink>>;
}

/// A stage with its code.
#[derive(Clone, Debug)]
pub struct ConfiguredStage {
    pub spec: StageSpec,
    pub artifact: Bytes,
}

/// Everything that a run needs.
#[derive(Clone)]
pub struct Pipeline {
    /// Stable id: positions belong to it.
    pub name: String,
    /// Names this host in the lease.
    pub instance: String,
    /// What decides which rows are in which tables, beside the stages (the sink's kind, mode and names of tables): it does
    /// not change under a pipeline's name.
    pub sink: String,
    pub parts: Arc<dyn Parts>,
    pub records: Arc<dyn RecordStore>,
    pub loader: Arc<dyn StageLoader>,
    pub stages: Vec<ConfiguredStage>,
    pub settings: Settings,
    pub env: Arc<dyn Environment>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.name).field("stages", &self.stages.len()).finish_non_exhaustive()
    }
}

/// What a running pipeline can be told.
#[derive(Debug)]
pub enum Control {
    /// Finish what is complete, and end.
    Stop,
    /// Put other code in force at the next cut that allows it. The reply is dropped unanswered where the pipeline starts
    /// anew before: ask again.
    Swap { stages: Vec<ConfiguredStage>, allow_schema_change: bool, reply: oneshot::Sender<Result<SwapReport>> },
}

#[derive(Clone, Debug)]
pub struct SwapReport {
    /// Number of the resume record that holds the swap.
    pub record: u64,
    /// What lies beyond is made by the new code.
    pub position: Option<Position>,
}

/// Row images of a cut: `images_in + emitted = images_out + dropped + letter_images + already_stored + held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub images_in: u64,
    pub images_out: u64,
    pub dropped: u64,
    pub emitted: u64,
    /// Changes.
    pub letters: u64,
    pub letter_images: u64,
    /// Read again after a restart, and left out.
    pub already_stored: u64,
    /// Of tables that stand (I12): left at the source for later.
    pub held: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub counts: Counts,
    pub swaps: u64,
    /// Starts beyond the first.
    pub restarts: u64,
    /// Row images committed, by table.
    pub tables: BTreeMap<TableName, u64>,
    /// Where each table is.
    pub locations: BTreeMap<TableName, String>,
    /// Source tables that stand at the end (I12).
    pub halted: BTreeMap<SourceKey, HaltedTable>,
    /// The stages that were put in force last.
    configured: Option<Vec<ConfiguredStage>>,
    /// Where the sink could not go on, for the stages of the next start.
    stops: Stops,
}

/// A source table that stands while the others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaltedTable {
    pub code: String,
    pub reason: String,
    /// The source holds its changes no more.
    pub needs_snapshot: bool,
}

impl Summary {
    fn add(&mut self, counts: &Counts) {
        let sum = &mut self.counts;
        sum.images_in += counts.images_in;
        sum.images_out += counts.images_out;
        sum.dropped += counts.dropped;
        sum.emitted += counts.emitted;
        sum.letters += counts.letters;
        sum.letter_images += counts.letter_images;
        sum.already_stored += counts.already_stored;
        sum.held += counts.held;
    }
}

/// Runs a pipeline until its source ends, it is told to stop, or a person is needed.
pub async fn run(mut pipeline: Pipeline, mut control: mpsc::Receiver<Control>) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut pause = pipeline.settings.retry_pause;
    // A process that starts tries tables again that stand (I12); one that recovers does not.
    let mut try_again = true;
    loop {
        let before = summary.counts;
        let mut stopping = false;
        let error = match start(&mut pipeline, &mut control, &mut summary, (&mut try_again, &mut stopping)).await {
            Ok(()) => return Ok(summary),
            Err(error) => error,
        };
        if let Some(configured) = summary.configured.take() {
            pipeline.stages = configured;
        }
        metrics::counter!("millrace_errors_total", "pipeline" => pipeline.name.clone(), "kind" => error.kind.name(), "code" => error.code).increment(1);
        if summary.counts != before {
            pause = pipeline.settings.retry_pause;
        }
        match error.kind.reaction() {
            Reaction::Stop => return Err(error),
            // A reload that repeats itself without progress must not spin.
            Reaction::RestartNow | Reaction::RestartAfterPause => {
                if stopping {
                    tracing::warn!(pipeline = %pipeline.name, %error, "stopped; the next start does again what was under way");
                    return Ok(summary);
                }
                tracing::warn!(pipeline = %pipeline.name, %error, pause_ms = pause.as_millis() as u64, "starting again from the resume record");
                if is_stopped_within(&pipeline, &mut control, pause).await {
                    return Ok(summary);
                }
                pause = (pause * 2).min(pipeline.settings.retry_pause_max);
            }
        }
        summary.restarts += 1;
    }
}

/// Pauses; true where a stop came meanwhile.
async fn is_stopped_within(pipeline: &Pipeline, control: &mut mpsc::Receiver<Control>, pause: Duration) -> bool {
    let mut over = pipeline.env.sleep(pause);
    loop {
        tokio::select! {
            biased;
            () = &mut over => return false,
            told = control.recv() => match told {
                Some(Control::Stop) => return true,
                // Unanswered: the sender asks again.
                Some(Control::Swap { .. }) => {}
                None => {
                    over.await;
                    return false;
                }
            }
        }
    }
}

/// One start, from the resume record to the end: the way of every change event. `try_again`: tables that stand; `stopping`:
/// whether a stop came, however this ends.
async fn start(
    pipeline: &mut Pipeline,
    control: &mut mpsc::Receiver<Control>,
    summary: &mut Summary,
    (try_again, stopping): (&mut bool, &mut bool),
) -> Result<()> {
    let mut source = pipeline.parts.source()?;
    let mut keeper = Keeper::open(pipeline, source.is_exclusive()).await?;
    if *try_again {
        keeper.try_again();
    }
    let opened = open_source(source.as_mut(), &keeper).await?;
    claim(pipeline, &mut keeper, &opened).await?;
    *try_again = false;
    let mut sink = pipeline.parts.sink()?;
    let mut letters = pipeline.parts.letters()?;
    let replay = fence(&mut keeper, sink.as_mut(), letters.as_mut(), pipeline.settings.mutant).await?;
    let quarantine = recall_quarantine(pipeline, &keeper, letters.as_mut()).await?;
    let code = load_stages(pipeline, &mut keeper, &replay).await?;

    let halted = keeper.halted().cloned().collect();
    // Beside new code that waits for its cut there is none: it is taken by the start under that code.
    let beside = if code.waiting.is_none() { take_beside(pipeline, &keeper) } else { None };
    let stops = summary.stops.clone().beyond(replay.settled());
    let ahead = Ahead { source, opened, code, replay, halted, stops, quarantine };
    let (mut running, ends) = spawn_ahead(pipeline, ahead);
    let mut committer = Committer::new(pipeline, Tables { sink, letters, keeper }, ends, summary);
    committer.note_provenance().await?;
    running.resnapshot = beside;
    let ended_with = running.until_the_end(pipeline, control, &mut committer).await;
    *stopping = *running.stop.borrow();
    ended_with?;
    committer.close().await?;
    committer.report();
    drop(committer);
    ended(&mut running.reader_done).await
}

/// The snapshot that is being taken; waits for ever where there is none.
async fn next_snapshot(taking: &mut Option<(Task, mpsc::Receiver<Ended>)>) -> Result<Ended> {
    let Some((_, snapshot)) = taking else { return std::future::pending().await };
    let taken = snapshot.recv().await;
    *taking = None;
    taken.ok_or_else(|| Error::new(Kind::Halt, "internal.panic", "a task of the pipeline panicked; see the log"))
}

/// The reader and the stages, ahead of the committer, each in a task of its own.
struct Running {
    from_stages: mpsc::Receiver<Passed>,
    swaps: mpsc::Sender<Swap>,
    stop: watch::Sender<bool>,
    reader_done: oneshot::Receiver<Result<()>>,
    stages_done: oneshot::Receiver<Result<()>>,
    /// Code that is being loaded beside the running one.
    loading: Vec<Task>,
    /// A new snapshot that is being taken beside the stream.
    resnapshot: Option<(Task, mpsc::Receiver<Ended>)>,
    _tasks: [Task; 2],
}

/// What they start with.
struct Ahead {
    source: Box<dyn Source>,
    opened: Opened,
    code: Code,
    replay: Replay,
    /// Source tables that stand.
    halted: BTreeSet<SourceKey>,
    stops: Stops,
    quarantine: SharedQuarantine,
}

fn spawn_ahead(pipeline: &Pipeline, ahead: Ahead) -> (Running, Ends) {
    let Ahead { source, opened, code, replay, halted, stops, quarantine } = ahead;
    let queue = pipeline.settings.queue;
    let (to_stages, from_source) = mpsc::channel(queue);
    let (to_committer, from_stages) = mpsc::channel(queue);
    // A few requests: the newest counts, and each is answered.
    let (swaps, swap_requests) = mpsc::channel(4);
    let (acknowledge, acknowledged) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let ends = Ends { acknowledge, pace: Arc::default(), settled: replay.settled().clone(), quarantine };
    let reader = Reader {
        source,
        out: to_stages,
        start: opened.start,
        acknowledge: acknowledged,
        stop: stopped,
        pace: ends.pace.clone(),
        settings: pipeline.settings.clone(),
        env: pipeline.env.clone(),
    };
    let chain = Chain {
        stages: code.stages,
        replay,
        incoming: from_source,
        swaps: swap_requests,
        out: to_committer,
        pipeline: pipeline.name.clone(),
        incarnation: opened.incarnation,
        settings: pipeline.settings.clone(),
        env: pipeline.env.clone(),
        live: BTreeMap::new(),
        waiting: code.waiting,
        early: None,
        counts: Counts::default(),
        halted,
        halts: Vec::new(),
        stops,
        passed: BTreeMap::new(),
        quarantine: ends.quarantine.clone(),
        keyless: BTreeSet::new(),
    };
    let (reader_done, reader) = spawn(pipeline, "reader", reader.run());
    let (stages_done, stages) = spawn(pipeline, "stages", chain.run());
    let tasks = [reader, stages];
    (
        Running {
            from_stages,
            swaps,
            stop,
            reader_done,
            stages_done,
            loading: Vec::new(),
            resnapshot: None,
            _tasks: tasks,
        },
        ends,
    )
}

impl Running {
    /// Commits what comes, and does what is told, until the source has ended or a stop has drained it.
    async fn until_the_end(
        &mut self,
        pipeline: &Pipeline,
        control: &mut mpsc::Receiver<Control>,
        committer: &mut Committer<'_>,
    ) -> Result<()> {
        let tick = pipeline.settings.record_interval.min(Duration::from_secs(1));
        let mut listening = true;
        loop {
            let timer = pipeline.env.sleep(tick);
            tokio::select! {
                // In this order, not by chance: the simulator replays what it saw.
                biased;
                told = control.recv(), if listening => listening = self.tell(pipeline, told),
                passed = self.from_stages.recv() => match passed {
                    Some(passed) => if committer.take(passed).await? { return Ok(()) },
                    // The reader or the stages are gone: for a reason, or since a stop found nothing complete.
                    None => {
                        ended(&mut self.stages_done).await?;
                        return if *self.stop.borrow() { Ok(()) } else { ended(&mut self.reader_done).await };
                    }
                },
                taken = next_snapshot(&mut self.resnapshot) => committer.take_snapshot(taken?).await?,
                () = timer => committer.keep_record().await?,
            }
        }
    }

    /// Answers whether there is anything more to listen for.
    fn tell(&mut self, pipeline: &Pipeline, told: Option<Control>) -> bool {
        match told {
            Some(Control::Swap { stages, allow_schema_change, reply }) => {
                self.loading.push(load_beside(pipeline, stages, allow_schema_change, reply, self.swaps.clone()));
                true
            }
            Some(Control::Stop) => {
                self.stop.send_replace(true);
                false
            }
            None => false,
        }
    }
}

/// Another host may record and acknowledge between our reading of the record and our opening of the source: a gap counts
/// only where the record is still the one that was read.
async fn open_source(source: &mut dyn Source, keeper: &Keeper) -> Result<Opened> {
    match source.open(&keeper.resume()).await {
        Err(error) if error.code == "position.gap" && !keeper.is_current().await? => {
            Err(Error::reload("record.moved", "another host advanced the record meanwhile"))
        }
        opened => opened,
    }
}

/// The next epoch is ours; the code of a first start is kept before its record names it.
async fn claim(pipeline: &Pipeline, keeper: &mut Keeper, opened: &Opened) -> Result<()> {
    if !keeper.was_found() {
        for stage in &pipeline.stages {
            keeper.store().put_artifact(&stage.spec.digest, &stage.artifact).await?;
        }
    }
    let specs: Vec<StageSpec> = pipeline.stages.iter().map(|s| s.spec.clone()).collect();
    keeper.claim(opened, &specs).await
}

/// Runs a third of the way in a task of its own.
fn spawn<F>(pipeline: &Pipeline, name: &'static str, work: F) -> (oneshot::Receiver<Result<()>>, Task)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (done, ended) = oneshot::channel();
    let task = pipeline.env.spawn(
        name,
        Box::pin(async move {
            if done.send(work.await).is_err() {
                tracing::debug!(task = name, "ended after the pipeline");
            }
        }),
    );
    (ended, task)
}

/// How a task ended; one that vanished without a word has panicked.
async fn ended(done: &mut oneshot::Receiver<Result<()>>) -> Result<()> {
    match done.await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Kind::Halt, "internal.panic", "a task of the pipeline panicked; see the log")),
    }
}
