//! Swapping plugins while the stream runs: watches the files, and asks the engine to put what changed in force.
//!
//! The engine loads and plans the new code beside the running one, and swaps at a complete cut. What does not load or
//! does not fit is refused there, and the old code goes on.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_core::pipeline::{ConfiguredStage, Control, SwapReport};
use millrace_core::stage::StageSpec;
use millrace_core::{Error, Result};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::config::model::StageEntry;
use crate::config::secret::redact;
use crate::config::{self, Loaded};
use crate::metric_names::{SWAPS, SWAPS_REFUSED};
use crate::wiring::{self, plugins};

/// Editors and compilers write a file in several steps; once nothing more has happened for this long, it is read.
const QUIET: Duration = Duration::from_millis(60);
/// ... but not later than this after the first step, so that a busy folder does not hold a swap back.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Watches the files of one pipeline.
pub struct HotReload {
    pipeline: String,
    file: PathBuf,
    /// Everything of the file but its stages: a change there needs a restart.
    fixed: Value,
    entries: Vec<StageEntry>,
    in_force: Vec<StageSpec>,
    /// What was asked for last, whatever the answer: it is not asked for again.
    tried: Vec<StageSpec>,
    /// What the log has said to be loaded.
    announced: Vec<StageSpec>,
    warned_of_restart: bool,
    allow_schema_change: bool,
    control: mpsc::Sender<Control>,
}

impl std::fmt::Debug for HotReload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotReload").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

struct Asked {
    specs: Vec<StageSpec>,
    answer: oneshot::Receiver<Result<SwapReport>>,
}

impl HotReload {
    pub fn new(loaded: &Loaded, running: &[ConfiguredStage], control: mpsc::Sender<Control>) -> Self {
        let in_force: Vec<StageSpec> = running.iter().map(|s| s.spec.clone()).collect();
        Self {
            pipeline: loaded.config.pipeline.clone(),
            file: loaded.file.clone(),
            fixed: loaded.fixed_part(),
            entries: loaded.config.stages.clone(),
            tried: in_force.clone(),
            in_force,
            announced: Vec::new(),
            warned_of_restart: false,
            allow_schema_change: loaded.config.hot_reload.allow_schema_change,
            control,
        }
    }

    /// Watches until the pipeline ends (its control is closed).
    ///
    /// Errors: `reload.watch` where the system has no watch left.
    pub async fn run(mut self) -> Result<()> {
        let (changed, mut changes) = mpsc::channel(1);
        let names = Names::default();
        let mut watcher = watcher(changed, names.clone())?;
        let mut folders = BTreeSet::new();
        self.watch_folders(&mut watcher, &mut folders, &names)?;
        let mut asked: Option<Asked> = None;
        loop {
            tokio::select! {
                () = self.control.closed() => return Ok(()),
                changed = changes.recv() => {
                    if changed.is_none() {
                        return Ok(());
                    }
                    settle(&mut changes).await;
                    if let Some(newer) = self.look().await {
                        asked = Some(newer);
                    }
                    self.watch_folders(&mut watcher, &mut folders, &names)?;
                }
                answer = answered(&mut asked) => {
                    let specs = asked.take().map(|a| a.specs).unwrap_or_default();
                    if self.take_answer(specs, answer) {
                        // The pipeline started anew before it answered: ask again, once it may be up.
                        tokio::time::sleep(LONGEST_WAIT).await;
                        asked = self.look().await;
                    }
                }
            }
        }
    }

    /// Folders, not files: a file that is replaced by a rename is another file.
    fn watch_folders(
        &self,
        watcher: &mut RecommendedWatcher,
        watched: &mut BTreeSet<PathBuf>,
        names: &Names,
    ) -> Result<()> {
        let base = self.file.parent().unwrap_or(Path::new("."));
        let plugins =
            self.entries.iter().filter(|e| e.digest.is_none()).filter_map(|e| plugins::find(&e.plugin, base).ok());
        for file in plugins.chain([self.file.clone()]) {
            names.add(&file);
            let folder = match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            if watched.contains(&folder) {
                continue;
            }
            watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(|e| watch_error(&folder, &e))?;
            watched.insert(folder);
        }
        Ok(())
    }

    /// Reads the files, and asks for a swap where they differ from what is in force or was tried.
    async fn look(&mut self) -> Option<Asked> {
        let loaded = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(problems) => {
                for problem in problems {
                    tracing::error!(pipeline = %self.pipeline, code = problem.code, "the pipeline file is wrong, the old one goes on: {}", redact(&problem.to_string()));
                }
                self.count_refusal("config.invalid");
                return None;
            }
        };
        if loaded.fixed_part() != self.fixed && !self.warned_of_restart {
            self.warned_of_restart = true;
            tracing::warn!(pipeline = %self.pipeline, "more than the stages of the file has changed: start the pipeline anew to put that in force");
        }
        let configured = match wiring::configure(&loaded, &loaded.config.stages) {
            Ok(configured) => configured,
            Err(error) => {
                self.refuse(&error);
                return None;
            }
        };
        self.entries.clone_from(&loaded.config.stages);
        let specs: Vec<StageSpec> = configured.iter().map(|s| s.spec.clone()).collect();
        if specs == self.tried {
            return None;
        }
        self.tried.clone_from(&specs);
        let (reply, answer) = oneshot::channel();
        let swap = Control::Swap { stages: configured, allow_schema_change: self.allow_schema_change, reply };
        let versions = identities(&specs);
        // While the pipeline can not answer it is asked again and again.
        if self.announced != specs {
            self.announced.clone_from(&specs);
            tracing::info!(pipeline = %self.pipeline, %versions, "a new version is loaded beside the running one");
        }
        self.control.send(swap).await.ok()?;
        Some(Asked { specs, answer })
    }

    /// True where it has to be asked again.
    fn take_answer(&mut self, specs: Vec<StageSpec>, answer: Option<Result<SwapReport>>) -> bool {
        match answer {
            Some(Ok(report)) => {
                metrics::counter!(SWAPS, "pipeline" => self.pipeline.clone()).increment(1);
                let position = report.position.map(|p| p.order.to_string());
                let versions = identities(&specs);
                tracing::info!(pipeline = %self.pipeline, %versions, position, record = report.record, "the new version is in force");
                self.in_force = specs;
            }
            Some(Err(error)) if error.code == "swap.overtaken" => {}
            Some(Err(error)) => self.refuse(&error),
            None if self.control.is_closed() => {}
            None => {
                self.tried.clone_from(&self.in_force);
                return true;
            }
        }
        false
    }

    fn refuse(&self, error: &Error) {
        self.count_refusal(error.code);
        let running = identities(&self.in_force);
        tracing::error!(pipeline = %self.pipeline, code = error.code, hint = error.hint, %running, "the new version is refused, the old one goes on: {}", error.message);
    }

    fn count_refusal(&self, code: &'static str) {
        metrics::counter!(SWAPS_REFUSED, "pipeline" => self.pipeline.clone(), "code" => code).increment(1);
    }
}

fn identities(specs: &[StageSpec]) -> String {
    specs.iter().map(StageSpec::identity).collect::<Vec<_>>().join(", ")
}

/// Waits while nothing is asked; `None`: the engine dropped the question.
async fn answered(asked: &mut Option<Asked>) -> Option<Result<SwapReport>> {
    match asked {
        Some(asked) => (&mut asked.answer).await.ok(),
        None => std::future::pending().await,
    }
}

/// Returns once the files have been quiet for a moment.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {} };
    if tokio::time::timeout(LONGEST_WAIT, quiet).await.is_err() {
        tracing::debug!("the watched folders are busy");
    }
}

/// Names of the files that matter, shared with the watch's own thread: other files of their folders wake nobody.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeSet<OsString>>>);

impl Names {
    fn add(&self, file: &Path) {
        if let Some(name) = file.file_name() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        }
    }

    /// A mounted Kubernetes volume replaces the link `..data`, and no file by its own name.
    fn concern(&self, event: &notify::Event) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let concerns = |name: &OsStr| names.contains(name) || name == "..data";
        event.need_rescan() || event.paths.iter().filter_map(|p| p.file_name()).any(concerns)
    }
}

fn watcher(changed: mpsc::Sender<()>, names: Names) -> Result<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| match event {
        Ok(event) if matches!(event.kind, EventKind::Access(_)) || !names.concern(&event) => {}
        // A full channel already says that something changed.
        Ok(_) => drop(changed.try_send(())),
        Err(error) => tracing::warn!(%error, "the file watch"),
    };
    notify::recommended_watcher(on_event).map_err(|e| watch_error(Path::new("."), &e))
}

fn watch_error(folder: &Path, error: &notify::Error) -> Error {
    Error::config("reload.watch", format!("{}: {error}", folder.display()))
        .hint("raise fs.inotify.max_user_watches, or set `hot_reload: { enabled: false }`")
}
