//! How long a plugin takes, and how much memory: `millrace plugin bench`.

use std::time::{Duration, Instant};

use millrace_core::batch::ChangeBatch;
use millrace_core::stage::{Stage, StageSpec};
use millrace_core::{Error, Result};
use serde::Serialize;

use crate::runtime::WasmRuntime;

/// Batches before those that count: the guest's runtime fills its caches, and grows its memory.
const WARM_UP: usize = 20;

/// What came of many runs of one batch.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Row images of the batch.
    pub rows: usize,
    pub batches: usize,
    /// Nanoseconds a row image, from Arrow to Arrow: of the batch in the middle, and of the fastest.
    pub median_ns: f64,
    pub least_ns: f64,
    /// Bytes of the instance's linear memory at the end.
    pub memory: usize,
}

impl WasmRuntime {
    /// Runs the plugin on the batch again and again, for about so long.
    ///
    /// # Errors
    /// Those of loading and of the stage; `plugin.bench` where the batch is empty.
    pub async fn measure(
        &self,
        spec: &StageSpec,
        artifact: &[u8],
        batch: &ChangeBatch,
        time: Duration,
    ) -> Result<Measured> {
        if batch.is_empty() {
            return Err(Error::config("plugin.bench", "there is no row to run the plugin on"));
        }
        let mut stage = self.stage(spec, artifact).await?;
        for _ in 0..WARM_UP {
            stage.apply(batch).await?;
        }
        let (start, mut took) = (Instant::now(), Vec::new());
        while took.is_empty() || start.elapsed() < time {
            let one = Instant::now();
            stage.apply(batch).await?;
            took.push(one.elapsed());
        }
        took.sort();
        let ns = |took: Duration| took.as_nanos() as f64 / batch.rows() as f64;
        Ok(Measured {
            rows: batch.rows(),
            batches: took.len(),
            median_ns: ns(took[took.len() / 2]),
            least_ns: ns(took[0]),
            memory: stage.memory(),
        })
    }
}
