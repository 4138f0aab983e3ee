//! The deterministic simulator: the real pipeline loop on a simulated source, sink, plugin, store, clock and scheduler.
//!
//! One seed is one schedule: which task runs next, how long each request takes, which get no answer, when hosts are
//! killed, when a second one starts, when code is swapped. The checks are in `check.rs`; docs/protocol/ is the
//! specification that it must agree with.

mod check;
mod executor;
mod sink;
mod source;
mod stage;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::executor::{Executor, Rng, SimEnvironment, lock};
use self::sink::SimSink;
use self::source::SimSource;
use self::stage::{SimLoader, configured, halts, sink_halts};
use self::world::{Link, SOURCES, SimRecords, World};
use crate::cut::BatchLimits;
use crate::error::{Kind, Result};
use crate::pipeline::{Control, Mutant, Parts, Pipeline, Settings, Summary, run as run_pipeline};
use crate::quarantine::Policy;
use crate::sink::Sink;
use crate::source::Source;

/// Polls after which a schedule counts as stuck: a hundred times the longest that ends.
const STEPS: u64 = 400_000;

/// What a schedule met; for the simulator's own tests: a fault that never occurs proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    pub kills: u64,
    pub second_hosts: u64,
    pub swaps: u64,
    pub restarts: u64,
    pub letters: u64,
    pub let_go: u64,
    /// Tables that stood when a host had read everything.
    pub halted: u64,
    /// Of them, those that needed a new snapshot.
    pub need_snapshot: u64,
    /// New snapshots that were taken beside the stream.
    pub resnapshots: u64,
}

impl Met {
    pub fn add(&mut self, other: &Met) {
        self.kills += other.kills;
        self.second_hosts += other.second_hosts;
        self.swaps += other.swaps;
        self.restarts += other.restarts;
        self.letters += other.letters;
        self.let_go += other.let_go;
        self.halted += other.halted;
        self.need_snapshot += other.need_snapshot;
        self.resnapshots += other.resnapshots;
    }
}

struct SimParts {
    link: Link,
    mutant: Option<Mutant>,
}

impl Parts for SimParts {
    fn source(&self) -> Result<Box<dyn Source>> {
        Ok(Box::new(SimSource::new(self.link.clone())))
    }

    fn sink(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(SimSink::new(self.link.clone(), self.mutant)))
    }

    fn letters(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(SimSink::new(self.link.clone(), self.mutant)))
    }
}

struct Host {
    id: u64,
    control: mpsc::Sender<Control>,
    result: Arc<Mutex<Option<Result<Summary>>>>,
}

struct Schedule {
    executor: Executor,
    world: Arc<Mutex<World>>,
    rng: Rng,
    mutant: Option<Mutant>,
    hosts: Vec<Host>,
    started: u64,
    version: i64,
    /// Kills, second hosts and swaps that are left.
    faults: u64,
    met: Met,
}

/// Runs the schedule of a seed to its end. `Err`: what was violated.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Result<Met, String> {
    schedule(seed, mutant).0
}

/// The same, with the records and tables as they were at the end: for whoever mends what a seed shows.
pub fn replay(seed: u64, mutant: Option<Mutant>) -> (Result<Met, String>, String) {
    let (result, world) = schedule(seed, mutant);
    let story = lock(&world).to_string();
    (result, story)
}

fn schedule(seed: u64, mutant: Option<Mutant>) -> (Result<Met, String>, Arc<Mutex<World>>) {
    let mut rng = Rng::new(seed);
    let world = Arc::new(Mutex::new(World::new(&mut rng)));
    let executor = Executor::new(rng.next());
    let faults = rng.below(7);
    let mut schedule = Schedule {
        executor,
        world,
        rng,
        mutant,
        hosts: Vec::new(),
        started: 0,
        version: 1,
        faults,
        met: Met::default(),
    };
    schedule.start();
    let result = schedule.run().and_then(|()| check::complete(&lock(&schedule.world)));
    schedule.met.resnapshots = check::resnapshots(&lock(&schedule.world));
    (result.map(|()| schedule.met), schedule.world)
}

impl Schedule {
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.world_moves();
            if self.faults > 0 {
                self.fault();
            } else if self.rng.one_in(500) {
                lock(&self.world).faults = false;
            }
            if !self.executor.step() && self.hosts.iter().all(|h| lock(&h.result).is_none()) {
                return Err("nothing moves any more".into());
            }
            if let Some(violation) = lock(&self.world).violation.take() {
                return Err(violation);
            }
            if self.reap()? {
                return Ok(());
            }
        }
        Err(format!("no end after {STEPS} steps"))
    }

    /// Transactions commit at the source while the hosts work.
    fn world_moves(&mut self) {
        if self.rng.one_in(60) {
            let mut world = lock(&self.world);
            world.head = (world.head + 1).min(world.transactions.len());
        }
    }

    fn fault(&mut self) {
        if !self.rng.one_in(150) {
            return;
        }
        self.faults -= 1;
        match self.rng.below(5) {
            0 | 1 => {
                let victim = self.rng.below(self.hosts.len() as u64) as usize;
                let host = self.hosts.swap_remove(victim);
                self.executor.kill(host.id);
                self.met.kills += 1;
                if self.rng.one_in(2) {
                    // The plugin file is replaced while no host runs.
                    self.version += 1;
                }
                self.start();
            }
            2 if self.hosts.len() < 2 => {
                self.met.second_hosts += 1;
                self.start();
            }
            3 => {
                let source = SOURCES[self.rng.below(3) as usize];
                lock(&self.world).requests.insert(source.into());
            }
            _ => self.swap(),
        }
    }

    fn swap(&mut self) {
        self.version += 1;
        for host in &self.hosts {
            let (reply, _) = oneshot::channel();
            let swap = Control::Swap { stages: vec![configured(self.version)], allow_schema_change: true, reply };
            if host.control.try_send(swap).is_ok() {
                self.met.swaps += 1;
            }
        }
    }

    fn start(&mut self) {
        self.started += 1;
        let env = SimEnvironment { executor: self.executor.clone(), host: self.started };
        let link = Link { world: self.world.clone(), env: env.clone() };
        let millis = Duration::from_millis;
        let quarantine = lock(&self.world).quarantine;
        let settings = Settings {
            batch: BatchLimits { rows: 1 + self.rng.below(4) as usize, bytes: 1 << 20 },
            cut_interval: millis(2 + self.rng.below(10)),
            cut_rows: 2 + self.rng.below(6),
            split_rows: 2 + self.rng.below(8),
            record_interval: millis(5 + self.rng.below(60)),
            held_log: 2_000 + self.rng.below(20_000),
            queue: 1 + self.rng.below(4) as usize,
            retry_pause: millis(5),
            retry_pause_max: millis(50),
            quarantine: quarantine.then(|| Policy { keys: BTreeMap::new(), max_letters: Policy::MAX_LETTERS }),
            take_over: true,
            mutant: self.mutant,
            ..Settings::default()
        };
        let pipeline = Pipeline {
            name: "sim".into(),
            instance: format!("host{}", self.started),
            sink: "sim".into(),
            parts: Arc::new(SimParts { link: link.clone(), mutant: self.mutant }),
            records: Arc::new(SimRecords(link)),
            loader: Arc::new(SimLoader(env.clone())),
            stages: vec![configured(self.version)],
            settings,
            env: Arc::new(env),
        };
        let (control, told) = mpsc::channel(4);
        let result = Arc::new(Mutex::new(None));
        let ended = result.clone();
        self.executor.spawn(
            self.started,
            Box::pin(async move {
                let end = run_pipeline(pipeline, told).await;
                *lock(&ended) = Some(end);
            }),
        );
        self.hosts.push(Host { id: self.started, control, result });
    }

    /// Takes note of hosts that ended. True where the last of them has read everything.
    fn reap(&mut self) -> Result<bool, String> {
        let mut finished = false;
        let mut index = 0;
        while index < self.hosts.len() {
            let Some(end) = lock(&self.hosts[index].result).take() else {
                index += 1;
                continue;
            };
            self.hosts.swap_remove(index);
            match end {
                Ok(summary) => {
                    self.met.restarts += summary.restarts;
                    self.met.letters += summary.counts.letters;
                    self.met.halted += summary.halted.len() as u64;
                    self.met.need_snapshot += summary.halted.values().filter(|h| h.needs_snapshot).count() as u64;
                    finished = summary.halted.is_empty();
                    if !finished {
                        // Somebody mends the plugin, and the stream goes on: a swap waits for a place beyond all snapshots.
                        self.version += i64::from(halts(self.version, 'h') || sink_halts(self.version, 'h'));
                        lock(&self.world).one_more();
                    }
                }
                Err(error) if error.kind == Kind::LetGo => self.met.let_go += 1,
                Err(error) => return Err(format!("a host stopped: {error}")),
            }
        }
        if self.hosts.is_empty() && !finished {
            self.start();
        }
        Ok(finished && self.hosts.is_empty())
    }
}
