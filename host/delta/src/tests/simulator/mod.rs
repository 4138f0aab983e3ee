//! The protocol of mirrors under a deterministic schedule: one seed says what the source sends, how it is cut, which requests
//! fail and how, when hosts die, when another host or another writer comes, when work beside the stream runs. The sink is
//! the real one, on a store in memory; the checks are in `check.rs`.

mod check;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use millrace_core::batch::ChangeBatch;
use millrace_core::environment::{Abort, Environment, Task};
use millrace_core::error::Kind;
use millrace_core::position::Order;
use millrace_core::sink::Sink;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use url::Url;

use self::check::{Foreign, Shown};
use self::store::Fault::{self, *};
use self::store::Link;
use super::mirror::{Dice, KeyKind, Source, shown};
use super::support::*;
use crate::config::{DeltaConfig, IndexKind, Mode};
use crate::mutants::{self, Mutant};
use crate::sink::DeltaSink;
use crate::store::Store;

/// Starts and cuts after which a schedule counts as stuck.
const MAX_TURNS: usize = 500;

/// Work beside the stream, run when the schedule says so.
struct Beside {
    name: &'static str,
    work: BoxFuture<'static, ()>,
    aborted: Arc<AtomicBool>,
}

struct Aborted(Arc<AtomicBool>);

impl Abort for Aborted {
    fn abort(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Time stands still but where it is moved, and chance is the seed's.
pub(super) struct SimEnvironment {
    millis: AtomicI64,
    numbers: AtomicU64,
    beside: Mutex<Vec<Beside>>,
}

impl Environment for SimEnvironment {
    fn now(&self) -> i64 {
        // Before anything that a store in memory dates: nothing is old enough to be cleaned up.
        1_700_000_000_000_000 + self.millis.load(Ordering::SeqCst) * 1_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst) as u64)
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn spawn(&self, name: &'static str, work: BoxFuture<'static, ()>) -> Task {
        let aborted = Arc::new(AtomicBool::new(false));
        self.beside.lock().unwrap().push(Beside { name, work, aborted: Arc::clone(&aborted) });
        Task(Box::new(Aborted(aborted)))
    }

    fn random(&self) -> u64 {
        Dice(self.numbers.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst)).next()
    }
}

/// A part of what the source sends; a cut ends with one or more of them.
pub(super) struct Step {
    batches: Vec<ChangeBatch>,
    commit: i64,
    /// The rows afterwards.
    expected: Vec<Shown>,
    /// Keys of its changes; `None`: all, by a truncate.
    touched: Option<BTreeSet<String>>,
}

/// What a schedule met: a fault that never occurs proves nothing.
#[derive(Debug, Default)]
struct Met {
    faults: BTreeMap<Fault, u64>,
    hosts: u64,
    let_go: u64,
    foreign: u64,
    beside: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
struct Shared {
    /// Requests so far, by what and where.
    counts: HashMap<String, u64>,
    faults_left: u64,
    foreign: Foreign,
    epoch: u64,
    /// A host that took over while another one was at work.
    owner: Option<Host>,
    story: Vec<String>,
    met: Met,
}

pub(super) struct World {
    seed: u64,
    objects: Arc<InMemory>,
    environment: Arc<SimEnvironment>,
    config: DeltaConfig,
    index_memory: Option<u64>,
    steps: Vec<Step>,
    names: Vec<String>,
    kind: KeyKind,
    keys: u64,
    shared: Mutex<Shared>,
    _folder: tempfile::TempDir,
}

struct Host {
    sink: DeltaSink,
    link: Arc<Link>,
    epoch: u64,
    /// Steps that the table has.
    done: usize,
}

fn hash(seed: u64, text: &str) -> u64 {
    text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let mut dice = Dice(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut config = DeltaConfig::new("/lake/{namespace}/{table}");
        config.mode = Mode::Upsert;
        config.vacuum = false;
        config.deletion_vectors = !dice.one_in(4);
        config.change_data_feed = dice.one_in(4);
        config.checkpoint_interval = [0, 0, 2, 7][dice.below(4) as usize];
        if dice.one_in(3) {
            config.index_dir = Some(folder.path().to_owned());
            config.index = if dice.one_in(2) { IndexKind::Exact } else { IndexKind::Files };
        }
        let index_memory = [None, Some(0), Some(512)][dice.below(3) as usize];
        let kind = if dice.one_in(3) { KeyKind::Text } else { KeyKind::Long };
        // With many keys files live long enough to be compacted.
        let keys = if dice.one_in(2) { 12 } else { 80 };
        let mut source = Source::new(kind, dice.next()).with_keys(keys);
        let mut steps = Vec::new();
        let changes = keys * (3 + dice.below(4));
        while source.mirror.commit < changes as i64 {
            let batches = source.batches(1 + dice.below(keys / 6));
            steps.push(step(batches, &source));
        }
        // The last changes meet every key, most likely: whatever an index missed is there twice then.
        let batches = source.batches(keys * 5);
        steps.push(step(batches, &source));
        let names = source.names().iter().map(|name| (*name).to_owned()).collect();
        let environment = Arc::new(SimEnvironment {
            millis: AtomicI64::new(0),
            numbers: AtomicU64::new(dice.next()),
            beside: Mutex::default(),
        });
        let shared = Shared { faults_left: dice.below(14), ..Shared::default() };
        let objects = Arc::new(InMemory::new());
        let shared = Mutex::new(shared);
        let _folder = folder;
        Arc::new(Self { seed, objects, environment, config, index_memory, steps, names, kind, keys, shared, _folder })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    fn note(&self, what: String) {
        self.lock().story.push(what);
    }

    /// Chance that depends on how often it was asked for the same, and on nothing else.
    fn dice(&self, what: &str) -> Dice {
        let mut shared = self.lock();
        let count = shared.counts.entry(what.to_owned()).or_default();
        *count += 1;
        Dice(hash(self.seed, &format!("{what} {count}")))
    }

    /// What happens to a request that meets one of `faults` once in `one_in` times.
    fn fault(&self, path: &str, faults: &[Fault], one_in: u64) -> Option<Fault> {
        let mut dice = self.dice(&format!("{path} {}", faults.len()));
        let fault = faults[dice.below(faults.len() as u64) as usize];
        let mut shared = self.lock();
        if shared.faults_left == 0 || !dice.one_in(one_in) {
            return None;
        }
        shared.faults_left -= 1;
        *shared.met.faults.entry(fault).or_default() += 1;
        shared.story.push(format!("{fault:?} at {path}"));
        Some(fault)
    }

    /// The table's folder, without faults.
    fn store(&self) -> Store {
        let url = Url::parse("memory:///lake").unwrap();
        let root = Arc::clone(&self.objects) as Arc<dyn ObjectStore>;
        Store::new(root, url).unwrap().at("public/orders").unwrap()
    }

    fn key_text(&self, id: u64) -> String {
        match self.kind {
            KeyKind::Text => format!("key {id}"),
            _ => (id as i64 * 7 - 50).to_string(),
        }
    }

    /// A host that knows nothing yet; `None` where it dies at once. Errors: what a start may not meet.
    async fn start(self: &Arc<Self>, quiet: bool) -> Result<Option<Host>, String> {
        let epoch = {
            let mut shared = self.lock();
            shared.epoch += 1;
            shared.met.hosts += 1;
            shared.epoch
        };
        let link = Arc::new(Link::new(Arc::clone(self), quiet));
        let root = Arc::clone(&link) as Arc<dyn ObjectStore>;
        let base = Store::new(root, Url::parse("memory:///lake").unwrap()).unwrap();
        let environment = Arc::clone(&self.environment) as Arc<dyn Environment>;
        let sink = DeltaSink::on_store(self.config.clone(), base, PIPELINE, environment).unwrap();
        let sink = match self.index_memory {
            Some(bytes) => sink.with_index_memory(bytes),
            None => sink,
        };
        let mut host = Host { sink, link, epoch, done: 0 };
        let claim = claim(epoch, &[orders()]);
        let fenced = alive(&host.link, host.sink.fence(&claim)).await;
        let Some(fenced) = fenced else { return Ok(None) };
        self.note(format!("host {epoch}: {:?}", fenced.as_ref().map_err(|e| e.code).map(|_| "starts")));
        match fenced {
            Ok(stored) => {
                let position = stored.get(&orders()).and_then(|table| table.get(&source())).map_or(0, Order::commit);
                host.done = self.steps.iter().take_while(|step| step.commit <= position).count();
                match self.steps[..host.done].last().map_or(0, |step| step.commit) {
                    at if at == position => Ok(Some(host)),
                    at => Err(format!("host {epoch} finds the position {position}, which is the end of no cut ({at})")),
                }
            }
            Err(error) => self.may_meet(epoch, error).map(|()| None),
        }
    }

    /// Whether a host of this epoch may meet this error.
    fn may_meet(&self, epoch: u64, error: millrace_core::Error) -> Result<(), String> {
        let mut shared = self.lock();
        match error.kind {
            Kind::Retry | Kind::Reload => Ok(()),
            Kind::LetGo if shared.epoch > epoch => {
                shared.met.let_go += 1;
                Ok(())
            }
            _ => Err(format!("host {epoch} stops: {error}")),
        }
    }

    /// Another host takes the table over, and may commit.
    async fn take_over(self: &Arc<Self>) {
        let started = Box::pin(self.start(true)).await;
        let mut host = started.unwrap().expect("a start without faults succeeds");
        if self.dice("takes over").one_in(2) && host.done < self.steps.len() {
            let committed = Box::pin(self.cut(&mut host)).await.unwrap();
            assert!(committed, "a cut without faults is committed");
        }
        host.link.trouble();
        self.lock().owner = Some(host);
    }

    /// Writes, prepares and commits the next steps. `false`: the host is no more.
    async fn cut(self: &Arc<Self>, host: &mut Host) -> Result<bool, String> {
        let mut dice = self.dice("cut");
        let steps = (1 + dice.below(3) as usize).min(self.steps.len() - host.done);
        let end = host.done + steps;
        let cut = cut_of(&[(source(), self.steps[end - 1].commit)]);
        for batch in self.steps[host.done..end].iter().flat_map(|step| &step.batches) {
            if let Err(error) = host.sink.write(batch.clone()).await {
                return self.may_meet(host.epoch, error).map(|()| false);
            }
        }
        let Some(prepared) = alive(&host.link, host.sink.prepare(&cut)).await else { return Ok(false) };
        match prepared {
            Ok(prepared) if prepared.refused.is_empty() => {}
            Ok(prepared) => return Err(format!("refused: {}", prepared.refused[0].reason)),
            Err(error) => return self.may_meet(host.epoch, error).map(|()| false),
        }
        if self.lock().faults_left > 0 && dice.one_in(4) {
            self.foreign_commit().await;
        }
        let Some(committed) = alive(&host.link, host.sink.commit(&cut)).await else { return Ok(false) };
        self.note(format!(
            "host {}: steps {}..{end}: {:?}",
            host.epoch,
            host.done,
            committed.as_ref().map_err(|e| e.code)
        ));
        match committed {
            Ok(()) => {
                host.done = end;
                Ok(true)
            }
            Err(error) => self.may_meet(host.epoch, error).map(|()| false),
        }
    }

    /// Runs some of the work beside the stream to its end.
    async fn beside(&self, host: &Host) -> bool {
        let mut dice = self.dice("beside");
        let waiting = std::mem::take(&mut *self.environment.beside.lock().unwrap());
        for beside in waiting {
            if beside.aborted.load(Ordering::SeqCst) {
                continue;
            }
            if dice.one_in(3) {
                self.environment.beside.lock().unwrap().push(beside);
                continue;
            }
            self.note(format!("beside: {}", beside.name));
            *self.lock().met.beside.entry(beside.name).or_default() += 1;
            if alive(&host.link, beside.work).await.is_none() {
                return false;
            }
        }
        true
    }

    async fn run(self: &Arc<Self>) -> Result<(), String> {
        let mut host: Option<Host> = None;
        for _ in 0..MAX_TURNS {
            let mut dice = self.dice("turn");
            self.environment.millis.fetch_add(1 + dice.below(20_000) as i64, Ordering::SeqCst);
            let Some(mut one) = host.take() else {
                let started = self.start(false).await?;
                host = started.or(self.lock().owner.take());
                continue;
            };
            if one.done == self.steps.len() {
                return self.check_log().await;
            }
            let lives = self.cut(&mut one).await? && self.beside(&one).await;
            let owner = self.lock().owner.take();
            if let Some(owner) = owner {
                // The former owner tries once more.
                if lives && one.done < self.steps.len() && self.cut(&mut one).await? {
                    return Err(format!("host {} commits after host {} took over", one.epoch, owner.epoch));
                }
                let newer = self.lock().owner.take();
                host = newer.or(Some(owner));
            } else if lives && !dice.one_in(10) {
                host = Some(one);
            }
        }
        Err("it comes to no end".into())
    }
}

/// What comes of `work`, `None` where the host dies meanwhile.
async fn alive<T>(link: &Link, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = link.died.notified() => None,
        answer = work => Some(answer),
    }
}

fn step(batches: Vec<ChangeBatch>, source: &Source) -> Step {
    let keys = |batch: &ChangeBatch| (0..batch.rows()).map(|row| shown(&batch.columns[0], row)).collect::<Vec<_>>();
    let truncates = batches.iter().any(ChangeBatch::is_truncate);
    let touched = (!truncates).then(|| batches.iter().flat_map(keys).collect());
    Step { commit: source.mirror.commit, touched, expected: source.expected(), batches }
}

/// The schedule of a seed. `Err`: what was violated. With the story of it.
fn schedule(seed: u64, mutant: Option<Mutant>) -> (Result<Met, String>, String) {
    mutants::seed(mutant);
    let world = World::new(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(world.run());
    mutants::seed(None);
    let mut shared = world.lock();
    shared.owner = None;
    let met = std::mem::take(&mut shared.met);
    (result.map(|()| met), shared.story.join("\n"))
}

/// `MILLRACE_SEED` replays one schedule; `MILLRACE_SCHEDULES` says how many to run.
#[allow(clippy::disallowed_methods, reason = "the test itself may read its variables")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    match number("MILLRACE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLRACE_SCHEDULES").unwrap_or(200),
    }
}

#[test]
fn every_schedule_of_a_mirror_stores_every_change_once_and_in_order() {
    let mut all = Met::default();
    let seeds = seeds();
    for seed in seeds.clone() {
        let (result, story) = schedule(seed, None);
        let met = result.unwrap_or_else(|violation| panic!("{story}\nseed {seed}: {violation}\n  replay: MILLRACE_SEED={seed} cargo test --release --workspace --lib every_schedule_of_a_mirror"));
        met.faults.into_iter().for_each(|(fault, count)| *all.faults.entry(fault).or_default() += count);
        met.beside.into_iter().for_each(|(name, count)| *all.beside.entry(name).or_default() += count);
        all.hosts += met.hosts;
        all.let_go += met.let_go;
        all.foreign += met.foreign;
    }
    let schedules = seeds.count() as u64;
    println!("result: {schedules} schedules of a mirror hold; {all:?}");
    let often = |count: Option<&u64>| count.is_some_and(|count| *count > schedules / 10);
    let faults = [DiesBefore, DiesWithin, DiesAfter, Refused, AnswerLost, PutTwice, ForeignFirst, TakenOver];
    // What never occurs proves nothing.
    assert!(schedules < 100 || faults.iter().all(|fault| often(all.faults.get(fault))), "{all:?}");
    assert!(schedules < 100 || often(all.beside.get("delta compaction")) && often(Some(&all.let_go)), "{all:?}");
}

fn is_caught(mutant: Mutant) {
    let caught = (0..3_000).find_map(|seed| schedule(seed, Some(mutant)).0.err().map(|violation| (seed, violation)));
    let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutant:?} survives"));
    println!("result: {mutant:?} is caught at seed {seed}: {violation}");
}

#[test]
fn a_deletion_vector_without_what_the_one_before_it_marked_is_caught() {
    is_caught(Mutant::OldVectorForgotten);
}

#[test]
fn a_commit_that_does_not_compare_the_head_is_caught() {
    is_caught(Mutant::HeadNotCompared);
}

#[test]
fn a_commit_that_does_not_look_for_foreign_files_is_caught() {
    is_caught(Mutant::ForeignFilesUnseen);
}

#[test]
fn a_compaction_that_keeps_rows_that_went_meanwhile_is_caught() {
    is_caught(Mutant::VectorsGrewUnseen);
}

#[test]
fn a_compaction_that_does_not_look_for_foreign_files_is_caught() {
    is_caught(Mutant::CompactionUnchecked);
}

#[test]
fn keys_of_a_compacted_file_at_other_rows_are_caught() {
    is_caught(Mutant::KeysMisplaced);
}

#[test]
fn a_removal_without_its_vector_is_caught() {
    is_caught(Mutant::RemovedWithoutVector);
}

#[test]
fn a_commit_without_its_position_is_caught() {
    is_caught(Mutant::PositionLeftOut);
}

#[test]
fn a_schedule_replays_by_its_seed() {
    for seed in 0..20 {
        let (one, two) = (schedule(seed, None).1, schedule(seed, None).1);
        assert_eq!(one, two, "seed {seed}");
    }
}
