//! Clock, randomness and spawning behind a trait, so that the simulator runs the real engine on its own.

use std::time::Duration;

use futures::future::BoxFuture;

/// What the engine needs of the machine. Storage stands behind [`crate::record::RecordStore`] and the sinks.
pub trait Environment: Send + Sync + 'static {
    /// Microseconds since 1970-01-01 UTC. For people and lag, never for correctness.
    fn now(&self) -> i64;

    /// Time since some start; never goes back.
    fn monotonic(&self) -> Duration;

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `task` beside the caller until it ends or the answer is dropped.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task;

    /// Commit ids, instance ids, jitter.
    fn random(&self) -> u64;
}

/// A running task; dropping it ends the task at its next await.
pub struct Task(pub Box<dyn Abort>);

/// How an environment ends a task.
pub trait Abort: Send + Sync {
    fn abort(&self);
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
