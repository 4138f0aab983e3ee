//! Pipeline files: from text to a configuration that can not be wrong, or to every problem at once.

pub mod check;
pub mod model;
pub mod problem;
pub mod quantity;
pub mod reference;
pub mod schema;
pub mod secret;
mod semantic;
pub mod tree;

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use model::PipelineFile;
use problem::{Place, Problem, Problems};
use reference::{Surroundings, io_reason};
use tree::{Data, Node};

/// A pipeline file that has been read and found right.
#[derive(Debug)]
pub struct Loaded {
    pub file: PathBuf,
    /// The file's folder, absolute: relative paths count from here.
    pub folder: PathBuf,
    pub config: PipelineFile,
    /// For the place of what is found wrong later.
    pub tree: Node,
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The document without what may change while the pipeline runs (`stages`, `tests`): equal means that no restart
    /// is needed.
    pub fn fixed_part(&self) -> Value {
        let mut document = self.tree.to_json();
        if let Value::Object(keys) = &mut document {
            keys.retain(|key, _| key != "stages" && key != "tests");
        }
        document
    }

    /// A problem at a path of this file.
    pub fn problem(&self, path: &[&str], error: &millrace_core::Error) -> Problem {
        let mut problems = Problems::new(&self.file);
        problems.error(
            self.tree.place_of(path),
            error.code,
            error.message.as_str(),
            error.hint.clone().unwrap_or_default(),
        );
        problems.into_sorted().remove(0)
    }
}

/// Reads one pipeline file.
pub fn load(file: &Path) -> Result<Loaded, Vec<Problem>> {
    load_all(std::slice::from_ref(&file.to_owned())).map(|mut files| files.remove(0))
}

/// Reads the pipeline files of one process; the problems of all of them at once.
pub fn load_all(files: &[PathBuf]) -> Result<Vec<Loaded>, Vec<Problem>> {
    let mut problems: Vec<Problems> = files.iter().map(|f| Problems::new(f)).collect();
    let read: Vec<Option<Loaded>> =
        files.iter().zip(&mut problems).map(|(file, problems)| read(file, problems)).collect();
    if read.iter().all(Option::is_some) {
        let loaded: Vec<Loaded> = read.into_iter().flatten().collect();
        semantic::check_together(&loaded, &mut problems);
        if !problems.iter().any(Problems::has_errors) {
            let with_warnings = loaded.into_iter().zip(problems);
            return Ok(with_warnings.map(|(l, p)| Loaded { warnings: p.into_sorted(), ..l }).collect());
        }
    }
    Err(problems.into_iter().flat_map(Problems::into_sorted).collect())
}

/// `None`: the text is too wrong to go on; `problems` says why.
fn read(file: &Path, problems: &mut Problems) -> Option<Loaded> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            problems.error(Place::START, "file.unreadable", io_reason(&error), "give the path of a pipeline file");
            return None;
        }
    };
    let folder = folder_of(file);
    let mut tree = tree::parse(&text, problems)?;
    reference::resolve(&mut tree, &Surroundings::of_process(&folder), problems);
    fill_empty_components(&mut tree);
    if let Err(error) = check::check(&mut tree, &[], &schema::pipeline_schema(), problems) {
        problems.error(Place::START, "internal.bug", format!("the schema of pipeline files: {error}"), "report it");
    }
    make_absolute(&mut tree, &folder);
    semantic::check(&tree, &folder, problems);
    let config = match PipelineFile::deserialize(tree.to_json()) {
        Ok(config) => config,
        Err(error) => {
            // The schema has said more exactly what is wrong; this is for what only the types know.
            if !problems.has_errors() {
                let message = secret::redact(&error.to_string()).into_owned();
                problems.error(Place::START, "config.invalid", message, "see the pipeline reference");
            }
            return None;
        }
    };
    Some(Loaded { file: file.to_owned(), folder, config, tree, warnings: Vec::new() })
}

/// Absolute, where that can be found out.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parent.canonicalize().unwrap_or_else(|_| parent.to_owned())
}

/// `stdout:` alone means the component with its defaults.
fn fill_empty_components(tree: &mut Node) {
    for part in ["source", "sink"] {
        let Some(Node { data: Data::Mapping(components), .. }) = tree.at_mut(&[part.to_owned()]) else { continue };
        for (_, node) in components {
            if matches!(node.data, Data::Scalar(Value::Null)) {
                node.data = Data::Mapping(Vec::new());
            }
        }
    }
}

/// Where paths stand in the file.
const PATHS: [&[&str]; 7] = [
    &["source", "file", "path"],
    &["source", "postgres", "sslrootcert"],
    &["source", "postgres", "spill_dir"],
    &["sink", "delta", "path"],
    &["dead_letters", "delta", "path"],
    &["dead_letters", "ndjson", "path"],
    &["state_dir"],
];

fn make_absolute(tree: &mut Node, folder: &Path) {
    for path in PATHS {
        let path: Vec<String> = path.iter().map(|s| (*s).to_owned()).collect();
        let Some(node) = tree.at_mut(&path) else { continue };
        let relative = node.as_str().filter(|text| !text.is_empty() && !text.contains("://") && !text.starts_with('/'));
        if let Some(text) = relative {
            node.data = Data::Scalar(Value::String(below(folder, text).to_string_lossy().into_owned()));
        }
    }
}

/// A relative path below a folder, without `.` and `..`: stores compare paths as text.
pub fn below(folder: &Path, relative: &str) -> PathBuf {
    let mut path = folder.to_owned();
    for part in Path::new(relative).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}
