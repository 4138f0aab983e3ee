//! The plugin runtime of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::stage::StageLoader;
use millrace_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::model::Limits;
use crate::config::quantity::{Interval, Size};
use crate::config::secret::Secret;

#[derive(Clone)]
pub struct PluginRuntime {}

impl std::fmt::Debug for PluginRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PluginRuntime")
    }
}

/// What `plugin inspect` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    pub name: String,
    pub version: String,
    pub description: String,
    pub roles: Vec<String>,
    /// Version of the plugin contract that it was built against.
    pub contract: String,
    pub imports: Vec<String>,
    /// SHA-256 in hexadecimal.
    pub digest: String,
    pub config_schema: Option<Value>,
}

impl PluginRuntime {
    pub fn start() -> Result<Self> {
        Ok(Self {})
    }

    pub fn loader(&self, _pipeline: &str, _keys: &BTreeMap<String, Secret>) -> Result<Arc<dyn StageLoader>> {
        Err(Error::bug("no plugins yet"))
    }

    pub async fn inspect(&self, _bytes: &[u8]) -> Result<Inspection> {
        Err(Error::bug("no plugins yet"))
    }
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
    let object: Map<String, Value> = set.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect();
    if object.is_empty() { String::new() } else { super::stages::canonical(&Value::Object(object)) }
}

/// The part of a stage that an error of loading it is about.
pub(super) fn blames(code: &str) -> &'static str {
    match code.split('.').next() {
        Some("grant") => "grant",
        Some("config") => "config",
        _ => "plugin",
    }
}
