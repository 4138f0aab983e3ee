//! From the `plugin` of a stage to the component's file.

use std::path::{Path, PathBuf};

use millrace_core::{Error, Result};

use crate::config::below;
use crate::config::problem::{alternatives, nearest};

/// The variable that names the folder of first-party plugins.
pub const FOLDER_VARIABLE: &str = "MILLRACE_PLUGINS";

/// Plugins that come with the host.
pub const FIRST_PARTY: [&str; 10] =
    ["mask", "rules", "cast-rename", "filter", "route", "flatten", "insert-field", "timestamp", "csv", "debezium"];

/// The file of a plugin: a path (with a `/` or `.wasm` at its end) counts from the pipeline file's folder; a name is
/// looked for among the first-party plugins.
pub fn find(plugin: &str, folder: &Path) -> Result<PathBuf> {
    if plugin.contains('/') || plugin.ends_with(".wasm") {
        return by_path(plugin, folder);
    }
    let places = first_party_folders();
    if let Some(found) = places.iter().map(|p| p.join(format!("{plugin}.wasm"))).find(|f| f.is_file()) {
        return Ok(found);
    }
    let error = Error::config("plugin.not_found", format!("there is no plugin `{plugin}`"));
    let looked = places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(error.hint(match nearest(plugin, FIRST_PARTY) {
        Some(known) if known == plugin => {
            format!("build the first-party plugins with `cargo xtask plugins`, or name their folder in {FOLDER_VARIABLE}; looked in {looked}")
        }
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write {}, or the path of a component (./{plugin}.wasm)", alternatives(FIRST_PARTY)),
    }))
}

fn by_path(plugin: &str, folder: &Path) -> Result<PathBuf> {
    let path = below(folder, plugin);
    if path.is_file() {
        return Ok(path);
    }
    let error = Error::config("plugin.not_found", format!("there is no file {}", path.display()));
    let siblings = path.parent().and_then(|p| std::fs::read_dir(p).ok());
    let names: Vec<String> = siblings
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".wasm"))
        .collect();
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    Err(error.hint(match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`, which is there?"),
        None => "the path counts from the pipeline file's folder".into(),
    }))
}

/// The variable's folder, `plugins/dist` below the working directory, and `plugins` beside the binary.
fn first_party_folders() -> Vec<PathBuf> {
    let named = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("plugins")));
    named.into_iter().chain([PathBuf::from("plugins/dist")]).chain(beside).collect()
}

/// As users see it in logs and metrics: the plugin's name, or the file's without its ending.
pub fn display_name(plugin: &str) -> String {
    let file = plugin.rsplit('/').next().unwrap_or(plugin);
    file.strip_suffix(".wasm").unwrap_or(file).to_owned()
}
