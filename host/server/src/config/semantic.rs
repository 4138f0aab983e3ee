//! What a schema can not say: names that refer to each other, files that must be there, grants that do nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use millrace_connectors::file::FileConfig;
use millrace_connectors::generator::GeneratorConfig;
use millrace_connectors::postgres::PostgresConfig;
use millrace_core::{Error, Result};
use millrace_delta::DeltaConfig;
use serde::de::DeserializeOwned;

use super::Loaded;
use super::model::{Grant, LettersEntry, MetricsEntry, TestCase, TestChange};
use super::problem::{Place, Problems, alternatives, nearest};
use super::secret::redact;
use super::tree::{Data, Node};
use crate::wiring::plugins;

/// Every semantic problem of one file. Each part is looked at by itself, so that what is wrong elsewhere hides nothing.
pub(super) fn check(tree: &Node, folder: &Path, problems: &mut Problems) {
    let look = Look { tree, folder };
    look.components(problems);
    for index in 0..look.length("stages") {
        look.stage(index, problems);
    }
    look.tests(problems);
    look.metrics(problems);
    look.letters(problems);
}

struct Look<'a> {
    tree: &'a Node,
    folder: &'a Path,
}

impl Look<'_> {
    /// A part of the file as its type; `None` where it is absent or wrong, which the schema has said.
    fn part<T: DeserializeOwned>(&self, path: &[&str]) -> Option<T> {
        T::deserialize(self.tree.at(path.iter().copied())?.to_json()).ok()
    }

    fn length(&self, list: &str) -> usize {
        match self.tree.get(list).map(|n| &n.data) {
            Some(Data::Sequence(items)) => items.len(),
            _ => 0,
        }
    }

    fn keys(&self, mapping: &str) -> Vec<&str> {
        match self.tree.get(mapping).map(|n| &n.data) {
            Some(Data::Mapping(entries)) => entries.iter().map(|(k, _)| k.name.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// What the components themselves find wrong without connecting.
    fn components(&self, problems: &mut Problems) {
        let parts = [
            (["source", "postgres"], self.part(&["source", "postgres"]).map(|c: PostgresConfig| c.problems())),
            (["source", "generator"], self.part(&["source", "generator"]).map(|c: GeneratorConfig| found(c.build()))),
            (["source", "file"], self.part(&["source", "file"]).map(|c: FileConfig| found(c.build()))),
            (["sink", "delta"], self.part(&["sink", "delta"]).map(|c: DeltaConfig| c.problems())),
        ];
        for (path, errors) in parts {
            if self.tree.at(path).is_some_and(Node::has_unresolved) {
                continue;
            }
            for error in errors.unwrap_or_default() {
                problems.error(
                    self.tree.key_place(&path),
                    error.code,
                    redact(&error.message),
                    error.hint.unwrap_or_default(),
                );
            }
        }
    }

    fn stage(&self, index: usize, problems: &mut Problems) {
        let at = index.to_string();
        let place = |path: &[&str]| self.tree.place_of(&[&["stages", &at], path].concat());
        let plugin: Option<String> = self.part(&["stages", &at, "plugin"]);
        if let Some(error) = plugin.as_ref().and_then(|name| plugins::find(name, self.folder).err()) {
            problems.error(place(&["plugin"]), error.code, error.message, error.hint.unwrap_or_default());
        }
        let tables: Vec<String> = self.part(&["stages", &at, "tables"]).unwrap_or_default();
        patterns(&tables, |i| place(&["tables", i]), problems);
        match (self.part(&["stages", &at, "grant"]), self.tree.at(["stages", &at, "grant"])) {
            (Some(grant), _) => self.grants(&grant, &place, problems),
            (None, None) => self.grants(&Grant::default(), &place, problems),
            (None, Some(_)) => {}
        }
    }

    fn grants(&self, grant: &Grant, place: &dyn Fn(&[&str]) -> Place, problems: &mut Problems) {
        let keys = self.keys("keys");
        for (i, name) in grant.crypto.iter().enumerate().filter(|(_, name)| !keys.contains(&name.as_str())) {
            let hint = match nearest(name, keys.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("add it to the file: `keys: {{ {name}: ${{env:NAME}} }}`"),
            };
            let message = format!("`crypto` grants the key `{name}`, which `keys` does not have");
            problems.error(place(&["grant", "crypto", &i.to_string()]), "grant.unknown_key", message, hint);
        }
        for (i, name) in grant.keys.iter().enumerate() {
            let writes = || grant.columns.iter().chain(&grant.write);
            if !writes().any(|w| w == name || w == "*") {
                let message = format!("`keys` names `{name}`, which the stage may not change");
                let hint = "name it in `columns` or `write` as well";
                problems.error(place(&["grant", "keys", &i.to_string()]), "grant.key_not_writable", message, hint);
            }
        }
        for (list, names) in [("columns", &grant.columns), ("read", &grant.read), ("write", &grant.write)] {
            column_names(names, |i| place(&["grant", list, i]), problems);
        }
        if grant.columns.is_empty() && grant.read.is_empty() && grant.write.is_empty() {
            let hint = "add `grant: { columns: [...] }` with the columns that it is for";
            problems.warning(place(&[]), "grant.nothing", "the stage is granted no column: it can do nothing", hint);
        }
    }

    fn metrics(&self, problems: &mut Problems) {
        let Some(metrics) = self.part::<MetricsEntry>(&["metrics"]) else { return };
        if metrics.listen.parse::<SocketAddr>().is_err() {
            let hint = "write an address and a port, such as 127.0.0.1:9464 or [::1]:9464";
            let message = format!("`{}` is no address to listen on", metrics.listen);
            problems.error(self.tree.place_of(&["metrics", "listen"]), "config.value", message, hint);
        }
    }

    fn letters(&self, problems: &mut Problems) {
        let Some(letters) = self.part::<LettersEntry>(&["dead_letters"]) else { return };
        let place = self.tree.key_place(&["dead_letters"]);
        if letters.delta.is_some() && letters.ndjson.is_some() {
            problems.error(
                place,
                "config.choice",
                "`dead_letters` names more than one component",
                "name one: delta or ndjson",
            );
        }
        let tables = self.part::<DeltaConfig>(&["sink", "delta"]).map(|sink| sink.path);
        if let (Some(letters), Some(tables)) = (&letters.delta, tables)
            && is_within_reach(&letters.path, &tables)
        {
            let message = format!("`{}` may be the folder of a table of the sink, or is the host's own", letters.path);
            let hint = "name a folder that no table can have, such as one with an underscore in front";
            problems.error(self.tree.place_of(&["dead_letters", "delta"]), "sink.path_collision", message, hint);
        }
        if letters.ndjson.is_some() && self.tree.at(["sink", "delta"]).is_some() {
            let message = "letters in a file have no position to compare: they may repeat after a crash";
            problems.warning(place, "letters.at_least_once", message, "use `delta` for letters exactly once");
        }
    }

    fn tests(&self, problems: &mut Problems) {
        let mut names = BTreeMap::new();
        for index in 0..self.length("tests") {
            let at = index.to_string();
            let Some(case) = self.part::<TestCase>(&["tests", &at]) else { continue };
            let place = |path: &[&str]| self.tree.place_of(&[&["tests", &at], path].concat());
            if let Some(first) = names.insert(case.name.clone(), index) {
                let message = format!("the name `{}` is also that of test {}", case.name, first + 1);
                problems.error(place(&["name"]), "test.duplicate_name", message, "give each test a name of its own");
            }
            changes("given", &case.given, &place, problems);
            changes("expect", &case.expect, &place, problems);
            test_tables(&case, &place, problems);
        }
    }
}

/// Whether a table of the template may have this folder, or it is among what the host keeps for itself.
fn is_within_reach(path: &str, template: &str) -> bool {
    let parts =
        |path: &str| path.trim_start_matches("./").trim_end_matches('/').split('/').map(str::to_owned).collect();
    let (path, template): (Vec<String>, Vec<String>) = (parts(path), parts(template));
    let may_be = |(part, of): (&String, &String)| match (of.find('{'), of.rfind('}')) {
        (Some(open), Some(close)) => {
            !part.starts_with('_') && part.starts_with(&of[..open]) && part.ends_with(&of[close + 1..])
        }
        _ => part == of,
    };
    let is_table = path.len() == template.len() && path.iter().zip(&template).all(may_be);
    is_table || path.iter().any(|part| part == "_millrace")
}

fn found<T>(built: Result<T>) -> Vec<Error> {
    built.err().into_iter().collect()
}

fn patterns(tables: &[String], place: impl Fn(&str) -> Place, problems: &mut Problems) {
    for (i, pattern) in tables.iter().enumerate() {
        let body = pattern.strip_suffix('*').unwrap_or(pattern);
        if body.contains('*') {
            let message = format!("`{pattern}` has a `*` that is not at its end");
            problems.error(
                place(&i.to_string()),
                "stage.pattern",
                message,
                "write a name, or a prefix with `*` at its end",
            );
        } else if tables[..i].contains(pattern) {
            problems.warning(
                place(&i.to_string()),
                "stage.pattern",
                format!("`{pattern}` is there twice"),
                "remove one",
            );
        }
    }
}

fn column_names(names: &[String], place: impl Fn(&str) -> Place, problems: &mut Problems) {
    for (i, name) in names.iter().enumerate() {
        let at = i.to_string();
        if name.contains('*') && name != "*" {
            let message = format!("`{name}`: columns are granted by their whole name");
            problems.error(place(&at), "grant.pattern", message, "name each column, or `*` for all");
        } else if names[..i].contains(name) {
            problems.warning(place(&at), "grant.duplicate", format!("`{name}` is there twice"), "remove one");
        }
    }
}

fn changes(list: &str, changes: &[TestChange], place: &dyn Fn(&[&str]) -> Place, problems: &mut Problems) {
    let allowed: &[&str] =
        if list == "given" { &["insert", "update", "delete"] } else { &["insert", "update", "delete", "reject"] };
    for (i, change) in changes.iter().enumerate() {
        let at = i.to_string();
        let present = [
            ("insert", change.insert.is_some()),
            ("update", change.update.is_some()),
            ("delete", change.delete.is_some()),
            ("reject", change.reject.is_some()),
        ];
        let named: Vec<&str> = present.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        if named.len() != 1 || !allowed.contains(&named[0]) {
            let message = match named.as_slice() {
                [] => "the change says not what happens".into(),
                [one] => format!("`{one}` has no place in `{list}`"),
                several => format!("the change is {} at once", several.join(" and ")),
            };
            let hint = format!("give it exactly one of {}", alternatives(allowed.iter().copied()));
            problems.error(place(&[list, &at]), "test.change", message, hint);
        }
        if change.table.trim().is_empty() || change.table.contains('*') {
            problems.error(
                place(&[list, &at, "table"]),
                "test.table",
                "a change belongs to one table",
                "write namespace.table",
            );
        }
    }
}

/// `tables` of a test has to mean tables and columns that its changes use.
fn test_tables(case: &TestCase, place: &dyn Fn(&[&str]) -> Place, problems: &mut Problems) {
    for (table, form) in &case.tables {
        if !case.given.iter().any(|c| c.table == *table) {
            let hint = match nearest(table, case.given.iter().map(|c| c.table.as_str())) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "name a table of `given`".into(),
            };
            problems.error(place(&["tables", table]), "test.table", format!("no given change is of `{table}`"), hint);
        }
        for (column, name) in &form.columns {
            if crate::examples::column_type(name).is_none() {
                let hint = "write one such as int64, decimal(10,2), text, timestamp-tz or uuid";
                let message = format!("`{name}` is no type of a column");
                problems.error(place(&["tables", table, "columns", column]), "test.type", message, hint);
            }
        }
    }
}

/// What must be apart between the files of one process.
pub(super) fn check_together(files: &[Loaded], problems: &mut [Problems]) {
    let mut names: BTreeMap<&str, &Loaded> = BTreeMap::new();
    for (loaded, problems) in files.iter().zip(problems) {
        if let Some(first) = names.insert(&loaded.config.pipeline, loaded) {
            let message = format!("the pipeline `{}` is also that of {}", loaded.config.pipeline, first.file.display());
            let hint = "give each pipeline a name of its own: its stored positions belong to it";
            problems.error(loaded.tree.place_of(&["pipeline"]), "pipeline.duplicate", message, hint);
        }
    }
}
