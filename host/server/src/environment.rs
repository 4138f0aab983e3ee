//! The real clock, randomness and tasks behind the engine's [`Environment`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use millrace_core::environment::{Abort, Environment, Task};
use tokio::task::JoinHandle;

/// Runs the engine on tokio.
#[derive(Debug)]
pub struct TokioEnvironment {
    started: Instant,
}

impl TokioEnvironment {
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for TokioEnvironment {
    fn default() -> Self {
        Self::new()
    }
}

impl Environment for TokioEnvironment {
    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        Task(Box::new(Spawned(tokio::spawn(task))))
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

struct Spawned(JoinHandle<()>);

impl Abort for Spawned {
    fn abort(&self) {
        self.0.abort();
    }
}
