//! A whole pipeline in this process: the real engine on the real clock, between parts of the bench's choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cpu_time::ProcessTime;
use millrace_connectors::null::NullConfig;
use millrace_core::batch::ChangeBatch;
use millrace_core::cut::Cut;
use millrace_core::environment::Environment;
use millrace_core::pipeline::{ConfiguredStage, Control, Parts, Pipeline, Settings, Summary, run};
use millrace_core::schema::TableName;
use millrace_core::sink::{Claim, Prepared, Sink, Stored};
use millrace_core::source::Source;
use millrace_core::stage::StageLoader as _;
use millrace_core::{Error, Result};
use millrace_delta::ObjectRecords;
use millrace_server::environment::TokioEnvironment;
use millrace_wasm::{Keys, RuntimeOptions, WasmRuntime};
use tokio::sync::mpsc;

type MakeSource = Box<dyn Fn() -> Result<Box<dyn Source>> + Send + Sync>;
type MakeSink = Box<dyn Fn(Arc<dyn Environment>) -> Result<Box<dyn Sink>> + Send + Sync>;

/// What runs, and when it is over.
pub struct Run {
    pub source: MakeSource,
    /// `None`: the null sink.
    pub sink: Option<MakeSink>,
    pub stages: Vec<ConfiguredStage>,
    /// Stop once so many row images are committed; `None`: the source ends by itself.
    pub until: Option<u64>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Run")
    }
}

/// What it took, from the start of the pipeline to its end.
#[derive(Clone, Debug)]
pub struct Took {
    pub cpu: Duration,
    pub wall: Duration,
    pub summary: Summary,
}

struct BenchParts {
    run: Run,
    env: Arc<dyn Environment>,
    seen: Arc<AtomicU64>,
}

impl Parts for BenchParts {
    fn source(&self) -> Result<Box<dyn Source>> {
        (self.run.source)()
    }

    fn sink(&self) -> Result<Box<dyn Sink>> {
        let inner = match &self.run.sink {
            Some(make) => make(self.env.clone())?,
            None => Box::new(NullConfig::default().build()),
        };
        Ok(Box::new(Watched { inner, pending: 0, seen: self.seen.clone() }))
    }

    fn letters(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(NullConfig::default().build()))
    }
}

/// Runs it once, on two worker threads.
pub fn measure(what: Run) -> Took {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let until = what.until;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let env: Arc<dyn Environment> = Arc::new(TokioEnvironment::new());
        let seen = Arc::new(AtomicU64::new(0));
        let stages = what.stages.clone();
        let options = RuntimeOptions {
            pipeline: "bench".into(),
            cache: None,
            keys: Keys::new([("pii".to_owned(), b"key".to_vec())]),
        };
        let loader = WasmRuntime::new(options).expect("the plugin runtime");
        // Compiling is not what is measured: the runtime keeps what is in use.
        let mut compiled = Vec::new();
        for stage in &stages {
            compiled.push(loader.load(&stage.spec, &stage.artifact).await.expect("the plugin loads"));
        }
        let pipeline = Pipeline {
            name: "bench".into(),
            instance: "bench".into(),
            sink: "bench".into(),
            parts: Arc::new(BenchParts { run: what, env: env.clone(), seen: seen.clone() }),
            records: Arc::new(
                ObjectRecords::in_folder(&folder.path().to_string_lossy(), "bench", env.clone()).expect("records"),
            ),
            loader: Arc::new(loader),
            stages,
            settings: Settings::default(),
            env: env.clone(),
        };
        let (control, told) = mpsc::channel(1);
        let (wall, cpu) = (Instant::now(), ProcessTime::now());
        let running = tokio::spawn(run(pipeline, told));
        let mut took = None;
        if let Some(until) = until {
            while seen.load(Ordering::Relaxed) < until && !running.is_finished() {
                env.sleep(Duration::from_millis(2)).await;
            }
            took = Some((cpu.elapsed(), wall.elapsed()));
            control.send(Control::Stop).await.expect("the pipeline runs");
        }
        let summary = running.await.expect("no panic").unwrap_or_else(|e: Error| panic!("{e}"));
        let (cpu, wall) = took.unwrap_or_else(|| (cpu.elapsed(), wall.elapsed()));
        drop(compiled);
        Took { cpu, wall, summary }
    })
}

/// Counts what is committed.
struct Watched {
    inner: Box<dyn Sink>,
    pending: u64,
    seen: Arc<AtomicU64>,
}

#[async_trait]
impl Sink for Watched {
    async fn fence(&mut self, claim: &Claim) -> Result<Stored> {
        self.inner.fence(claim).await
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        self.pending += batch.rows() as u64;
        self.inner.write(batch).await
    }

    async fn prepare(&mut self, cut: &Cut) -> Result<Prepared> {
        self.inner.prepare(cut).await
    }

    async fn commit(&mut self, cut: &Cut) -> Result<()> {
        self.inner.commit(cut).await?;
        self.seen.fetch_add(std::mem::take(&mut self.pending), Ordering::Relaxed);
        Ok(())
    }

    fn committed(&self) -> BTreeMap<TableName, u64> {
        self.inner.committed()
    }
}
