//! Where Delta's kernel runs: on threads of its own.

use std::future::Future;
use std::sync::OnceLock;

use millrace_core::{Error, Result};
use tokio::runtime::{Builder, Runtime};

/// Runs what uses the kernel. It blocks one of the runtime's threads for blocking work while it waits for reads that need
/// another: on the pipelines' runtime, which has few of them, tables that took them all would wait for ever.
pub(crate) async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    // As many threads for blocking work as Tokio allows by default, 512: two for each table that starts at this moment.
    let build = || Builder::new_multi_thread().worker_threads(1).thread_name("delta-kernel").enable_all().build();
    let runtime = RUNTIME.get_or_init(build).as_ref();
    let runtime = runtime.map_err(|e| Error::retry("table.no_thread", format!("threads for Delta's kernel: {e}")))?;
    runtime.spawn(work).await.map_err(|e| Error::bug(format!("Delta's kernel: {e}")))
}
