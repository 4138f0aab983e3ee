//! From a pipeline file to a pipeline that can run: the only place that knows every crate.

mod letters;
mod observed;
pub mod plugins;
mod runtime;
mod stages;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millrace_connectors::file::FileConfig;
use millrace_connectors::generator::GeneratorConfig;
use millrace_connectors::null::NullConfig;
use millrace_connectors::postgres::{self, PostgresConfig};
use millrace_connectors::stdout::StdoutConfig;
use millrace_core::cut::BatchLimits;
use millrace_core::environment::Environment;
use millrace_core::pipeline::{ConfiguredStage, Parts, Pipeline, Settings};
use millrace_core::quarantine::Policy;
use millrace_core::record::RecordStore;
use millrace_core::sink::Sink;
use millrace_core::source::Source;
use millrace_core::stage::StageLoader;
use millrace_core::{Error, Result};
use millrace_delta::{DeltaConfig, DeltaSink, Mode, ObjectRecords};

use crate::config::Loaded;
use crate::config::model::{PipelineFile, SinkEntry, SourceEntry};
use crate::telemetry::Health;

pub use letters::NdjsonLetters;
pub use runtime::PluginRuntime;
pub use stages::{configure, configure_stage, load_for};
pub use verdict::check_plugins;

/// What all pipelines of a process share.
#[derive(Clone)]
pub struct Host {
    pub env: Arc<dyn Environment>,
    pub plugins: PluginRuntime,
    pub health: Health,
    /// Names this host in leases.
    pub instance: String,
    pub take_over: bool,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// A pipeline, ready to run under this host.
///
/// Errors: of kind `Config` where the file names what is not there; nothing has been connected yet.
pub fn build(loaded: &Loaded, host: &Host) -> Result<Pipeline> {
    let config = &loaded.config;
    let parts = parts(loaded, host.env.clone(), host.health.clone())?;
    if let SinkChoice::Delta(config) = &parts.sink {
        writable(sink_root(&config.path))?;
    }
    if let LettersChoice::Delta(config) = &parts.letters {
        writable(&config.path)?;
    }
    let records = records_of(&parts)?;
    let stages: Vec<ConfiguredStage> = configure(loaded, &loaded.config.stages)?;
    let loader: Arc<dyn StageLoader> = host.plugins.loader(&config.pipeline, &config.keys)?;
    Ok(Pipeline {
        name: config.pipeline.clone(),
        instance: host.instance.clone(),
        sink: parts.sink.identity(),
        parts: Arc::new(parts),
        records,
        loader,
        stages,
        settings: Settings { take_over: host.take_over, ..settings(config) },
        env: host.env.clone(),
    })
}

fn parts(loaded: &Loaded, env: Arc<dyn Environment>, health: Health) -> Result<WiredParts> {
    let config = &loaded.config;
    Ok(WiredParts {
        pipeline: config.pipeline.clone(),
        source: source_choice(&config.source)?,
        sink: sink_choice(&config.sink)?,
        letters: letters_choice(config, loaded),
        state_dir: state_dir(loaded),
        env,
        health,
    })
}

fn records_of(parts: &WiredParts) -> Result<Arc<dyn RecordStore>> {
    match parts.sink()?.records() {
        Some(records) => Ok(records),
        None => records_in(&parts.state_dir, &parts.pipeline, parts.env.clone()),
    }
}

/// The store of a pipeline's resume record, for verbs that do not run it.
///
/// Errors: as [`build`].
pub fn records(loaded: &Loaded, env: Arc<dyn Environment>) -> Result<Arc<dyn RecordStore>> {
    records_of(&parts(loaded, env, Health::default())?)
}

/// The Delta sink of a pipeline, for verbs that do not run it: without the folder for keys, which is the running host's.
///
/// Errors: `sink.no_lake` (config) where it writes to something else.
pub fn lake(loaded: &Loaded, env: Arc<dyn Environment>) -> Result<DeltaSink> {
    match sink_choice(&loaded.config.sink)? {
        SinkChoice::Delta(config) => {
            DeltaSink::new(DeltaConfig { index_dir: None, ..config }, &loaded.config.pipeline, env)
        }
        other => {
            let what =
                format!("pipeline {} writes to {}, not to Delta tables", loaded.config.pipeline, other.identity());
            Err(Error::config("sink.no_lake", what))
        }
    }
}

/// The table of a pipeline's dead letters.
///
/// Errors: `dlq.file` (config) where they go to a file.
pub fn letters_table(loaded: &Loaded) -> Result<DeltaConfig> {
    match letters_choice(&loaded.config, loaded) {
        LettersChoice::Delta(config) => Ok(*config),
        LettersChoice::File(path) => {
            let file = path.display();
            Err(Error::config("dlq.file", format!("the dead letters of {} go to a file", loaded.config.pipeline))
                .hint(format!("read it with any tool for JSON lines: {file}")))
        }
    }
}

/// Whether later changes of a key wait behind its letters.
pub fn has_quarantine(loaded: &Loaded) -> bool {
    quarantine(&loaded.config).is_some()
}

/// Whether the source comes to an end by itself.
pub fn is_bounded(source: &SourceEntry) -> bool {
    match &source.generator {
        Some(generator) => generator.events.is_some(),
        None => source.file.as_ref().is_some_and(|file| !file.follow),
    }
}

/// The folder for what has no place beside the sink.
pub fn state_dir(loaded: &Loaded) -> PathBuf {
    loaded.config.state_dir.clone().unwrap_or_else(|| loaded.folder.join(".millrace").join(&loaded.config.pipeline))
}

/// A local folder that can not be used would be tried for ever: a person has to mend it, so it is said at the start.
fn writable(path: &str) -> Result<()> {
    let local = path.strip_prefix("file://").unwrap_or(path);
    if local.contains("://") {
        return Ok(());
    }
    let folder = Path::new(local);
    let probe = || {
        std::fs::create_dir_all(folder)?;
        let probe = folder.join(format!(".millrace-probe-{}", std::process::id()));
        std::fs::write(&probe, b"")?;
        std::fs::remove_file(&probe)
    };
    probe().map_err(|e| {
        let reason = crate::config::reference::io_reason(&e);
        Error::config("store.unusable", format!("{}: {reason}", folder.display()))
            .hint("give the sink a folder that this user may write, with space left")
    })
}

fn records_in(folder: &Path, pipeline: &str, env: Arc<dyn Environment>) -> Result<Arc<dyn RecordStore>> {
    std::fs::create_dir_all(folder).map_err(|e| {
        let reason = crate::config::reference::io_reason(&e);
        Error::config("state_dir.unusable", format!("{}: {reason}", folder.display()))
            .hint("set `state_dir` to a folder that this user may write")
    })?;
    Ok(Arc::new(ObjectRecords::in_folder(&folder.to_string_lossy(), pipeline, env)?))
}

enum SourceChoice {
    Postgres(PostgresConfig),
    Generator(GeneratorConfig),
    File(FileConfig),
}

fn source_choice(entry: &SourceEntry) -> Result<SourceChoice> {
    let SourceEntry { postgres, generator, file } = entry;
    match (postgres, generator, file) {
        (Some(config), None, None) => Ok(SourceChoice::Postgres(config.clone())),
        (None, Some(config), None) => Ok(SourceChoice::Generator(config.clone())),
        (None, None, Some(config)) => Ok(SourceChoice::File(config.clone())),
        _ => Err(Error::config("config.choice", "`source` does not name exactly one component")),
    }
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "one a pipeline")]
enum SinkChoice {
    Delta(DeltaConfig),
    Stdout(StdoutConfig),
    Null(NullConfig),
}

impl SinkChoice {
    /// As [`Pipeline::sink`]. Without the root: the resume record lies there, and moves with the tables.
    fn identity(&self) -> String {
        match self {
            SinkChoice::Delta(config) => {
                let names = config.path.strip_prefix(sink_root(&config.path)).unwrap_or(&config.path);
                let mode = format!("{:?}", config.mode).to_lowercase();
                format!("delta, mode {mode}, tables {}", names.trim_start_matches('/'))
            }
            SinkChoice::Stdout(_) => "stdout".into(),
            SinkChoice::Null(_) => "null".into(),
        }
    }
}

fn sink_choice(entry: &SinkEntry) -> Result<SinkChoice> {
    let SinkEntry { delta, stdout, null } = entry;
    match (delta, stdout, null) {
        (Some(config), None, None) => Ok(SinkChoice::Delta(config.clone())),
        (None, Some(config), None) => Ok(SinkChoice::Stdout(config.clone())),
        (None, None, Some(config)) => Ok(SinkChoice::Null(config.clone())),
        _ => Err(Error::config("config.choice", "`sink` does not name exactly one component")),
    }
}

enum LettersChoice {
    Delta(Box<DeltaConfig>),
    File(PathBuf),
}

/// Beside the sink, unless the file says where.
fn letters_choice(config: &PipelineFile, loaded: &Loaded) -> LettersChoice {
    let sink = config.sink.delta.as_ref();
    let named = config.dead_letters.as_ref();
    if let Some(delta) = named.and_then(|l| l.delta.as_ref()) {
        let s3 = delta.s3.clone().or_else(|| sink.map(|s| s.s3.clone())).unwrap_or_default();
        return LettersChoice::Delta(Box::new(DeltaConfig { s3, ..DeltaConfig::new(delta.path.clone()) }));
    }
    if let Some(file) = named.and_then(|l| l.ndjson.as_ref()) {
        return LettersChoice::File(file.path.clone());
    }
    match sink {
        Some(sink) => {
            let path = format!("{}/_dead_letters", sink_root(&sink.path));
            LettersChoice::Delta(Box::new(DeltaConfig { s3: sink.s3.clone(), ..DeltaConfig::new(path) }))
        }
        None => LettersChoice::File(state_dir(loaded).join("dead_letters.ndjson")),
    }
}

/// The folder that all tables of a path template lie below.
fn sink_root(template: &str) -> &str {
    let fixed = template.find('{').map_or(template, |brace| &template[..brace]);
    let root = if fixed.len() < template.len() { fixed.rsplit_once('/').map_or(".", |(root, _)| root) } else { fixed };
    root.trim_end_matches('/')
}

/// A commit to a table of current rows writes anew what it knows of every file that it touches: ten a second would leave
/// millions of entries a day in the log. Between its commits and an object store lie more round trips than a disk has.
/// 10 s: what a mirror may lag behind where its commits are slow, or where its changes are few and the vectors large.
fn cut_intervals(sink: &SinkEntry) -> Option<(Duration, Duration)> {
    let delta = sink.delta.as_ref().filter(|delta| delta.mode == Mode::Upsert)?;
    let local = !delta.path.contains("://") || delta.path.starts_with("file://");
    Some((Duration::from_secs(if local { 1 } else { 5 }), Duration::from_secs(10)))
}

/// Keys wait behind their letters where a table holds the current row of each, and letters can be read back.
fn quarantine(config: &PipelineFile) -> Option<Policy> {
    let delta = config.sink.delta.as_ref().filter(|delta| delta.mode == Mode::Upsert)?;
    let letters = config.dead_letters.as_ref();
    if letters.is_some_and(|l| !l.quarantine) {
        return None;
    }
    if letters.is_some_and(|l| l.ndjson.is_some()) {
        // A file has no positions: it is not read back, and nothing would wait after a start.
        return None;
    }
    let max_letters = letters.and_then(|l| l.max_waiting).unwrap_or(Policy::MAX_LETTERS);
    Some(Policy { keys: delta.key.clone(), max_letters })
}

fn settings(config: &PipelineFile) -> Settings {
    let (entry, letters) = (&config.settings, config.dead_letters.as_ref());
    let default = Settings::default();
    let (cut_interval, cut_interval_max) =
        cut_intervals(&config.sink).unwrap_or((default.cut_interval, default.cut_interval_max));
    let default = Settings { cut_interval, cut_interval_max, ..default };
    let batch = BatchLimits {
        rows: entry.batch.rows.map_or(default.batch.rows, |r| r as usize),
        bytes: entry.batch.bytes.map_or(default.batch.bytes, |b| b.0 as usize),
    };
    let cut_interval = entry.cut.interval.map_or(default.cut_interval, |i| i.0);
    Settings {
        batch,
        cut_interval,
        cut_interval_max: default.cut_interval_max.max(cut_interval),
        cut_rows: entry.cut.max_rows.unwrap_or(default.cut_rows),
        cut_bytes: entry.cut.max_bytes.map_or(default.cut_bytes, |b| b.0),
        split_rows: entry.cut.split_rows.unwrap_or(default.split_rows),
        record_interval: entry.record.interval.map_or(default.record_interval, |i| i.0),
        held_log: entry.record.held_log.map_or(default.held_log, |b| b.0),
        keep_original: letters.is_some_and(|l| l.keep_original),
        quarantine: quarantine(config),
        ..default
    }
}

/// Connects a pipeline anew at every start.
struct WiredParts {
    pipeline: String,
    source: SourceChoice,
    sink: SinkChoice,
    letters: LettersChoice,
    state_dir: PathBuf,
    env: Arc<dyn Environment>,
    health: Health,
}

impl Parts for WiredParts {
    fn source(&self) -> Result<Box<dyn Source>> {
        let source: Box<dyn Source> = match &self.source {
            SourceChoice::Postgres(config) => postgres::build(config, &self.pipeline, &self.state_dir)?,
            SourceChoice::Generator(config) => Box::new(config.build()?),
            SourceChoice::File(config) => Box::new(config.build()?),
        };
        Ok(Box::new(observed::ObservedSource::new(source, &self.pipeline, self.health.clone())))
    }

    fn sink(&self) -> Result<Box<dyn Sink>> {
        Ok(match &self.sink {
            SinkChoice::Delta(config) => {
                let index_dir = config.index_dir.clone().or_else(|| Some(self.state_dir.join("index")));
                let config = DeltaConfig { index_dir, ..config.clone() };
                Box::new(DeltaSink::new(config, &self.pipeline, self.env.clone())?)
            }
            SinkChoice::Stdout(config) => Box::new(config.build()),
            SinkChoice::Null(config) => Box::new(config.build()),
        })
    }

    fn letters(&self) -> Result<Box<dyn Sink>> {
        Ok(match &self.letters {
            LettersChoice::Delta(config) => {
                Box::new(DeltaSink::single(*config.clone(), &self.pipeline, self.env.clone())?)
            }
            LettersChoice::File(path) => Box::new(NdjsonLetters::new(path.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_lie_beside_the_tables() {
        assert_eq!(sink_root("s3://lake/{namespace}/{table}"), "s3://lake");
        assert_eq!(sink_root("/data/lake/"), "/data/lake");
        assert_eq!(sink_root("/data/x/cdc_{table}"), "/data/x");
    }
}
