//! What the plugins of a file say of it: whether they load, and whether their configuration is right.

use millrace_connectors::file::Format;
use millrace_core::Error;
use millrace_wasm::Role;
use serde_json::Value;

use super::{PluginRuntime, configure, runtime};
use crate::config::model::SourceEntry;
use crate::config::problem::{Problem, Problems};
use crate::config::{Loaded, check};

/// Every problem, each at its place in the file.
pub async fn check_plugins(loaded: &Loaded, plugins: &PluginRuntime) -> Vec<Problem> {
    let mut found = Vec::new();
    for index in 0..loaded.config.stages.len() {
        found.extend(check_stage(loaded, index, plugins).await);
    }
    found
}

async fn check_stage(loaded: &Loaded, index: usize, plugins: &PluginRuntime) -> Vec<Problem> {
    let at = index.to_string();
    let entry = &loaded.config.stages[index];
    let configured = match configure(loaded, std::slice::from_ref(entry)) {
        Ok(mut configured) => configured.remove(0),
        Err(error) => return vec![loaded.problem(&["stages", &at, "plugin"], &error)],
    };
    let inspection = match plugins.inspect(&configured.artifact).await {
        Ok(inspection) => inspection,
        Err(error) => return vec![loaded.problem(&["stages", &at, "plugin"], &error)],
    };
    if inspection.role == Role::Parser.name() && !gives_raw_messages(&loaded.config.source) {
        let error =
            Error::config("stage.no_raw_source", "it is a parser, and the source gives changes, no raw messages")
                .hint("read raw messages: `source: { file: { format: lines } }`, or records");
        return vec![loaded.problem(&["stages", &at, "plugin"], &error)];
    }
    if inspection.config_schema.is_object() {
        let problems = config_problems(loaded, &at, &inspection.config_schema);
        if !problems.is_empty() {
            return problems;
        }
    }
    // The schema does not say everything: the plugin itself has the last word, and the grants are compared to its imports.
    let loader = match plugins.loader(&loaded.config.pipeline, &loaded.config.keys) {
        Ok(loader) => loader,
        Err(error) => return vec![loaded.problem(&["keys"], &error)],
    };
    match loader.load(&configured.spec, &configured.artifact).await {
        Ok(_) => Vec::new(),
        Err(error) => vec![loaded.problem(&["stages", &at, runtime::blames(error.code)], &error)],
    }
}

/// Whether a parser finds something to parse.
fn gives_raw_messages(source: &SourceEntry) -> bool {
    source.file.as_ref().is_some_and(|file| matches!(file.format, Format::Lines | Format::Records))
}

/// The stage's `config` against the schema that the plugin brings.
fn config_problems(loaded: &Loaded, at: &str, schema: &Value) -> Vec<Problem> {
    let mut problems = Problems::new(&loaded.file);
    let prefix: Vec<String> = ["stages", at, "config"].map(str::to_owned).to_vec();
    let mut tree = loaded.tree.clone();
    if tree.at_mut(&prefix).is_none() {
        return missing_config(loaded, at, schema);
    }
    if let Err(error) = check::check(&mut tree, &prefix, schema, &mut problems) {
        let place = loaded.tree.place_of(&["stages", at, "plugin"]);
        let hint = "the plugin brings a schema that is none; ask its author";
        problems.error(place, "plugin.config_schema", format!("the schema of the plugin's config: {error}"), hint);
    }
    problems.into_sorted()
}

/// A stage without `config` has an empty one.
fn missing_config(loaded: &Loaded, at: &str, schema: &Value) -> Vec<Problem> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut problems = Problems::new(&loaded.file);
    for key in required {
        let message = format!("`stages[{at}]` lacks the key `config.{key}`");
        problems.error(loaded.tree.place_of(&["stages", at]), "config.missing_key", message, "add it");
    }
    problems.into_sorted()
}
