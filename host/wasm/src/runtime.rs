//! What the server holds: it makes stages of components, and says what a component is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use millrace_core::stage::{Stage, StageLoader, StageSpec};
use millrace_core::{Error, Result};
use serde::Serialize;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::bindings::lifecycle::Info;
use crate::cache::Cache;
use crate::component::{Prepared, prepare};
use crate::host::{HostState, linker};
use crate::instance::Instance;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::log::{PluginLog, Tap};
use crate::stage::{Settings, WasmStage};
use crate::telemetry::Telemetry;

/// What a runtime is made with.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// The pipeline's name, which plugins are told.
    pub pipeline: String,
    /// Where compiled components are kept; none: they are compiled at each start. Made with mode 0700; a folder that others can
    /// enter is not used.
    pub cache: Option<PathBuf>,
    /// What `crypto` may hash with. A stage sees the names that it is granted.
    pub keys: Keys,
}

/// Loads components. Cheap to clone; all of a process share one engine.
#[derive(Clone, Debug)]
pub struct WasmRuntime(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<HostState>,
    cache: Cache,
    options: RuntimeOptions,
    tap: Option<Tap>,
    /// Components in use, by digest: two stages of one plugin share the code.
    prepared: Mutex<HashMap<String, Weak<Prepared>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmRuntime").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What `millrace plugin inspect` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    pub role: &'static str,
    pub name: String,
    pub version: String,
    pub description: String,
    /// Of `millrace:plugin`.
    pub wit_version: String,
    /// What it asks of the host.
    pub imports: Vec<String>,
    /// JSON Schema of its config; null: anything goes.
    pub config_schema: serde_json::Value,
    pub bytes: usize,
    /// SHA-256.
    pub digest: String,
    /// What it says that a batch of 1,000 rows needs at most; 0: nothing said.
    pub memory_mib: u32,
    pub milliseconds: u32,
}

impl WasmRuntime {
    /// # Errors
    /// `plugin.engine`: this machine can not run compiled wasm.
    pub fn new(options: RuntimeOptions) -> Result<Self> {
        Self::with_tap(options, None)
    }

    /// `tap` gets the lines that plugins log.
    pub(crate) fn with_tap(options: RuntimeOptions, tap: Option<Tap>) -> Result<Self> {
        let engine = crate::engine::engine()?;
        let linker = linker(&engine).map_err(|e| Error::bug(format!("the plugin host's functions: {e:#}")))?;
        let cache = Cache::new(options.cache.clone());
        Ok(Self(Arc::new(Inner { engine, linker, cache, options, tap, prepared: Mutex::default() })))
    }

    /// Compiles a component and says what it is. Runs nothing of it but `describe`.
    ///
    /// # Errors
    /// Those of loading: `plugin.not_a_component`, `plugin.contract`, `plugin.import_unsupported` …
    pub async fn inspect(&self, bytes: &[u8]) -> Result<Inspection> {
        let prepared = self.prepared(crate::digest(bytes), bytes).await?;
        let info = self.describe(&prepared, &Limits::default()).await?;
        Ok(Inspection {
            role: prepared.role.name(),
            config_schema: config_schema(&info)?.unwrap_or_default(),
            name: info.name,
            version: info.version,
            description: info.description,
            wit_version: prepared.wit_version.clone(),
            imports: prepared.imports.clone(),
            bytes: prepared.bytes,
            digest: prepared.digest.clone(),
            memory_mib: info.memory_mib,
            milliseconds: info.milliseconds,
        })
    }

    async fn describe(&self, prepared: &Prepared, limits: &Limits) -> Result<Info> {
        let log = PluginLog::new("inspected", limits.log_lines_per_second, None);
        let host = HostState::new(limits, log, Keys::default(), Vec::new());
        let failed =
            |fault: crate::instance::Fault| Error::config(fault.code(), format!("describe {fault}")).hint(fault.hint());
        let mut instance = Instance::new(prepared, host, limits).await.map_err(failed)?;
        instance.describe().await.map_err(failed)
    }

    /// The compiled component of these bytes: shared as long as somebody holds it, from the cache, or compiled now, beside what else
    /// this thread does.
    pub(crate) async fn prepared(&self, digest: String, bytes: &[u8]) -> Result<Arc<Prepared>> {
        let known = self.known().get(&digest).and_then(Weak::upgrade);
        if let Some(prepared) = known {
            return Ok(prepared);
        }
        let (inner, bytes) = (self.0.clone(), bytes.to_vec());
        let compile = move || prepare(&inner.engine, &inner.linker, &inner.cache, &bytes);
        let prepared = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(compile).await.map_err(|e| Error::bug(format!("compiling: {e}")))?,
            Err(_) => compile(),
        };
        let prepared = Arc::new(prepared?);
        let mut known = self.known();
        known.retain(|_, prepared| prepared.strong_count() > 0);
        known.insert(digest, Arc::downgrade(&prepared));
        Ok(prepared)
    }

    /// Never held across a call into a plugin.
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Prepared>>> {
        self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn stage(&self, spec: &StageSpec, artifact: &[u8]) -> Result<WasmStage> {
        let found = crate::digest(artifact);
        if found != spec.digest {
            let message = format!("the file has the digest {found}, not {}", spec.digest);
            return Err(Error::config("plugin.digest", message)
                .hint("it was changed or damaged: give the right file, or its digest"));
        }
        let limits = Limits::parse(&spec.limits)?;
        let keys = &self.0.options.keys;
        if let Some(unknown) = spec.grants.crypto.iter().find(|name| keys.get(name).is_none()) {
            return Err(Error::config(
                "plugin.unknown_key",
                format!("the key {unknown} is granted, but there is none"),
            )
            .hint(format!("give it under `keys: {{ {unknown}: ${{env:…}} }}` of the pipeline")));
        }
        let prepared = self.prepared(found, artifact).await?;
        let info = self.describe(&prepared, &limits).await?;
        check_config(&info, &spec.config)?;
        let settings = Settings {
            log: PluginLog::new(&spec.name, limits.log_lines_per_second, self.0.tap.clone()),
            telemetry: Telemetry::new(&spec.name, &spec.digest),
            spec: spec.clone(),
            prepared,
            limits,
            keys: keys.clone(),
            pipeline: self.0.options.pipeline.clone(),
        };
        let instance = settings.configured().await?;
        Ok(WasmStage::new(settings, instance))
    }
}

fn config_schema(info: &Info) -> Result<Option<serde_json::Value>> {
    if info.config_schema.trim().is_empty() {
        return Ok(None);
    }
    let schema = serde_json::from_str(&info.config_schema);
    schema.map(Some).map_err(|e| {
        Error::config("plugin.contract", format!("its config schema is no JSON: {e}")).hint("it is a bug of the plugin")
    })
}

/// Against the plugin's own schema, before it sees the config: all problems at once.
fn check_config(info: &Info, config: &str) -> Result<()> {
    let Some(schema) = config_schema(info)? else { return Ok(()) };
    let validator = jsonschema::validator_for(&schema)
        .map_err(|e| Error::config("plugin.contract", format!("its config schema is no JSON Schema: {e}")))?;
    let config = if config.trim().is_empty() { "{}" } else { config };
    let config =
        serde_json::from_str(config).map_err(|e| Error::config("plugin.invalid_config", format!("config: {e}")))?;
    let problems: Vec<String> = validator
        .iter_errors(&config)
        .map(|e| format!("config{}: {e}", e.instance_path().to_string().replace('/', ".")))
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::config("plugin.invalid_config", problems.join("; "))
        .hint("see `millrace plugin inspect` for the plugin's config"))
}

#[async_trait]
impl StageLoader for WasmRuntime {
    async fn load(&self, spec: &StageSpec, artifact: &[u8]) -> Result<Box<dyn Stage>> {
        let loaded = self.stage(spec, artifact).await;
        let stage = loaded.map_err(|e| match e.message.starts_with("plugin ") {
            true => e,
            false => e.context(format_args!("plugin {}", spec.identity())),
        })?;
        Ok(Box::new(stage))
    }
}
