//! The plugin runtime of this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::Result;
use millrace_core::batch::ChangeBatch;
use millrace_core::pipeline::ConfiguredStage;
use millrace_core::stage::StageLoader;
use millrace_wasm::conformance::Verdict;
use millrace_wasm::{Inspection, Keys, Measured, RuntimeOptions, WasmRuntime};
use serde_json::{Map, Value};

use crate::config::model::Limits;
use crate::config::quantity::{Interval, Size};
use crate::config::secret::Secret;

/// Makes stages of components. Compiled components are kept on disk between runs.
#[derive(Clone, Debug)]
pub struct PluginRuntime {
    cache: Option<PathBuf>,
    /// For looking at components; pipelines get runtimes with their own keys, on the same engine.
    inspector: WasmRuntime,
}

impl PluginRuntime {
    /// Errors: `plugin.engine` where this machine can not run compiled components.
    pub fn start() -> Result<Self> {
        let cache = cache_folder();
        let inspector = WasmRuntime::new(RuntimeOptions { cache: cache.clone(), ..RuntimeOptions::default() })?;
        Ok(Self { cache, inspector })
    }

    /// A loader of stages for one pipeline, with the secrets that it may grant.
    pub fn loader(&self, pipeline: &str, keys: &BTreeMap<String, Secret>) -> Result<Arc<dyn StageLoader>> {
        Ok(Arc::new(self.runtime(pipeline, keys)?))
    }

    /// Runs one stage on a batch again and again: how long it takes, and how much memory.
    pub async fn measure(
        &self,
        pipeline: &str,
        keys: &BTreeMap<String, Secret>,
        stage: &ConfiguredStage,
        batch: &ChangeBatch,
        time: Duration,
    ) -> Result<Measured> {
        self.runtime(pipeline, keys)?.measure(&stage.spec, &stage.artifact, batch, time).await
    }

    fn runtime(&self, pipeline: &str, keys: &BTreeMap<String, Secret>) -> Result<WasmRuntime> {
        let keys = keys.iter().map(|(name, secret)| (name.clone(), secret.expose().as_bytes().to_vec()));
        let options =
            RuntimeOptions { pipeline: pipeline.to_owned(), cache: self.cache.clone(), keys: Keys::new(keys) };
        WasmRuntime::new(options)
    }

    /// Runs the conformance kit on a component: the cases whose name contains `only`.
    pub async fn conformance(&self, bytes: &[u8], only: &str) -> Result<Vec<Verdict>> {
        millrace_wasm::conformance::run(bytes, self.cache.clone(), only).await
    }

    /// Says what a component is.
    pub async fn inspect(&self, bytes: &[u8]) -> Result<Inspection> {
        self.inspector.inspect(bytes).await
    }
}

/// Where the user's caches lie (XDG); none: components are compiled at each start.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("millrace").join("plugins"))
}

/// Limits in the runtime's own form: only what the file sets, so that a new default is no new version of a stage.
pub(super) fn limits(limits: &Limits) -> String {
    let mib = |size: Size| size.0.div_ceil(1 << 20);
    let ms = |time: Interval| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX);
    let set = [
        ("memory_mib", limits.memory.map(mib)),
        ("batch_ms", limits.batch_time.map(ms)),
        ("per_thousand_rows_ms", limits.time_per_1000_rows.map(ms)),
        ("setup_ms", limits.setup_time.map(ms)),
        ("answer_mib", limits.answer.map(mib)),
        ("poison_rows", limits.poison_rows.map(u64::from)),
        ("log_lines_per_second", limits.log_lines_per_second.map(u64::from)),
        ("calls_per_instance", limits.calls_per_instance.map(u64::from)),
    ];
    let object: Map<String, Value> =
        set.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    if object.is_empty() { String::new() } else { super::stages::canonical(&Value::Object(object)) }
}

/// The part of a stage that an error of loading it is about.
pub(super) fn blames(code: &str) -> &'static str {
    match code {
        "plugin.grant_missing" | "plugin.unknown_key" => "grant",
        "plugin.invalid_config" => "config",
        "plugin.limits" => "limits",
        _ => "plugin",
    }
}
