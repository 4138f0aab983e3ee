//! Stages of a pipeline file with their code.

use std::path::Path;

use millrace_core::pipeline::ConfiguredStage;
use millrace_core::stage::{Grants, Stage, StageLoader, StageSpec};
use millrace_core::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::plugins;
use crate::config::Loaded;
use crate::config::model::{Grant, StageEntry};
use crate::config::reference::io_reason;

/// Reads the components that the stages name.
///
/// Errors: `plugin.not_found`, `plugin.unreadable`, `plugin.digest`.
pub fn configure(loaded: &Loaded, entries: &[StageEntry]) -> Result<Vec<ConfiguredStage>> {
    entries.iter().map(|entry| configure_stage(entry, &loaded.folder)).collect()
}

/// Reads the component that one stage names; a path counts from `folder`.
///
/// Errors: as [`configure`].
pub fn configure_stage(entry: &StageEntry, folder: &Path) -> Result<ConfiguredStage> {
    let path = plugins::find(&entry.plugin, folder)?;
    let artifact = std::fs::read(&path).map_err(|e| {
        Error::config("plugin.unreadable", format!("{}: {}", path.display(), io_reason(&e)))
            .hint("make the file readable for this user")
    })?;
    let digest = hex(&Sha256::digest(&artifact));
    if let Some(pinned) = entry.digest.as_deref().map(|d| d.trim_start_matches("sha256:")).filter(|d| *d != digest) {
        let message = format!("{} is not the file that `digest` pins: it has {digest}, not {pinned}", path.display());
        return Err(Error::config("plugin.digest", message).hint("put the pinned file back, or change `digest`"));
    }
    let spec = StageSpec {
        name: plugins::display_name(&entry.plugin),
        digest,
        config: canonical(&Value::Object(entry.config.clone())),
        grants: grants(&entry.grant),
        tables: entry.tables.clone(),
        on_failure: entry.on_failure.into(),
        limits: super::runtime::limits(&entry.limits),
    };
    Ok(ConfiguredStage { spec, artifact: artifact.into() })
}

/// `columns` is short for both `read` and `write`.
fn grants(grant: &Grant) -> Grants {
    let both = |list: &[String]| {
        let mut names = grant.columns.clone();
        names.extend(list.iter().filter(|n| !grant.columns.contains(n)).cloned());
        names
    };
    Grants {
        read: both(&grant.read),
        write: both(&grant.write),
        keys: grant.keys.clone(),
        crypto: grant.crypto.clone(),
    }
}

/// JSON with sorted keys: the same configuration has one text, whatever its order in the file.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            let entries: Vec<String> =
                keys.iter().map(|k| format!("{}:{}", Value::from(k.as_str()), canonical(&object[*k]))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Fresh instances of all stages.
pub async fn load_for(loader: &dyn StageLoader, configured: &[ConfiguredStage]) -> Result<Vec<Box<dyn Stage>>> {
    let mut stages = Vec::with_capacity(configured.len());
    for stage in configured {
        let loaded = loader.load(&stage.spec, &stage.artifact).await;
        stages.push(loaded.map_err(|e| e.context(format!("stage {}", stage.spec.name)))?);
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_has_one_text_whatever_the_order_of_its_keys() {
        assert_eq!(
            canonical(&json!({"b": [1, {"d": null, "c": "x"}], "a": true})),
            r#"{"a":true,"b":[1,{"c":"x","d":null}]}"#
        );
    }

    #[test]
    fn columns_is_short_for_read_and_write() {
        let grant = Grant { columns: vec!["a".into()], read: vec!["b".into(), "a".into()], ..Grant::default() };
        let grants = grants(&grant);
        assert_eq!((grants.read, grants.write), (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned()]));
    }
}
