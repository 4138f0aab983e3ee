//! A deterministic executor: one seed decides which ready task is polled next, and time passes only when nothing
//! is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::environment::{Abort, Environment, Task};

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same everywhere.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Slot {
    host: u64,
    future: Option<BoxFuture<'static, ()>>,
}

#[derive(Default)]
struct Queues {
    tasks: BTreeMap<u64, Slot>,
    timers: BTreeMap<(Duration, u64), Waker>,
    now: Duration,
    next: u64,
}

/// Shared by the executor and the environments that it hands out.
#[derive(Clone)]
pub(super) struct Executor {
    queues: Arc<Mutex<Queues>>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    rng: Arc<Mutex<Rng>>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Executor")
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    pub(super) fn new(seed: u64) -> Self {
        Self { queues: Arc::default(), ready: Arc::default(), rng: Arc::new(Mutex::new(Rng::new(seed))) }
    }

    pub(super) fn random(&self) -> u64 {
        lock(&self.rng).next()
    }

    pub(super) fn one_in(&self, n: u64) -> bool {
        lock(&self.rng).one_in(n)
    }

    pub(super) fn now(&self) -> Duration {
        lock(&self.queues).now
    }

    pub(super) fn spawn(&self, host: u64, future: BoxFuture<'static, ()>) -> u64 {
        let mut queues = lock(&self.queues);
        queues.next += 1;
        let id = queues.next;
        queues.tasks.insert(id, Slot { host, future: Some(future) });
        lock(&self.ready).insert(id);
        id
    }

    /// Ends every task of a host where it stands.
    pub(super) fn kill(&self, host: u64) {
        let mut dropped = Vec::new();
        lock(&self.queues).tasks.retain(|_, slot| {
            let keep = slot.host != host;
            if !keep {
                dropped.extend(slot.future.take());
            }
            keep
        });
        // Dropping a task may abort others: not under the lock.
        drop(dropped);
    }

    fn abort(&self, id: u64) {
        let slot = lock(&self.queues).tasks.remove(&id);
        drop(slot);
    }

    /// Polls one ready task, or lets time pass. False where nothing will ever happen again.
    pub(super) fn step(&self) -> bool {
        let Some(id) = self.pick() else { return self.pass_time() };
        let future = lock(&self.queues).tasks.get_mut(&id).and_then(|slot| slot.future.take());
        let Some(mut future) = future else { return true };
        let waker = Waker::from(Arc::new(Ready { id, ready: self.ready.clone() }));
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => self.abort(id),
            Poll::Pending => {
                // Where it was aborted meanwhile, it is dropped here.
                if let Some(slot) = lock(&self.queues).tasks.get_mut(&id) {
                    slot.future = Some(future);
                }
            }
        }
        true
    }

    fn pick(&self) -> Option<u64> {
        let mut ready = lock(&self.ready);
        if ready.is_empty() {
            return None;
        }
        let index = lock(&self.rng).below(ready.len() as u64) as usize;
        let id = ready.iter().nth(index).copied()?;
        ready.remove(&id);
        Some(id)
    }

    fn pass_time(&self) -> bool {
        let mut queues = lock(&self.queues);
        let Some(((at, _), waker)) = queues.timers.pop_first() else { return false };
        queues.now = queues.now.max(at);
        drop(queues);
        waker.wake();
        true
    }

    fn timer(&self, at: Duration, waker: Waker) {
        let mut queues = lock(&self.queues);
        queues.next += 1;
        let id = queues.next;
        queues.timers.insert((at, id), waker);
    }
}

struct Ready {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).insert(self.id);
    }
}

struct Sleep {
    executor: Executor,
    until: Duration,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.until {
            return Poll::Ready(());
        }
        self.executor.timer(self.until, cx.waker().clone());
        Poll::Pending
    }
}

/// The environment of one simulated host.
#[derive(Clone, Debug)]
pub(super) struct SimEnvironment {
    pub(super) executor: Executor,
    pub(super) host: u64,
}

struct AbortTask {
    executor: Executor,
    id: u64,
}

impl Abort for AbortTask {
    fn abort(&self) {
        self.executor.abort(self.id);
    }
}

impl Environment for SimEnvironment {
    fn now(&self) -> i64 {
        self.executor.now().as_micros() as i64
    }

    fn monotonic(&self) -> Duration {
        self.executor.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(Sleep { executor: self.executor.clone(), until: self.executor.now() + duration })
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let id = self.executor.spawn(self.host, task);
        Task(Box::new(AbortTask { executor: self.executor.clone(), id }))
    }

    fn random(&self) -> u64 {
        self.executor.random()
    }
}
