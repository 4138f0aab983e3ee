//! What a schema can not say: names that refer to each other, files that must be there, grants that do nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Loaded;
use super::model::{StageEntry, TestCase, TestChange};
use super::secret::redact;
use super::problem::{Place, Problems, alternatives, nearest};
use super::tree::Node;
use crate::wiring::plugins;

/// Every semantic problem of one file.
pub(super) fn check(loaded: &Loaded, problems: &mut Problems) {
    let look = Look { loaded, tree: &loaded.tree };
    look.components(problems);
    look.stages(problems);
    look.tests(problems);
    look.metrics(problems);
    look.letters(problems);
}

struct Look<'a> {
    loaded: &'a Loaded,
    tree: &'a Node,
}

impl Look<'_> {
    /// What the components themselves find wrong without connecting.
    fn components(&self, problems: &mut Problems) {
        let config = &self.loaded.config;
        let parts = [
            config.source.postgres.as_ref().map(|c| (["source", "postgres"], c.problems())),
            config.source.generator.as_ref().map(|c| (["source", "generator"], c.build().err().into_iter().collect())),
            config.source.file.as_ref().map(|c| (["source", "file"], c.build().err().into_iter().collect())),
            config.sink.delta.as_ref().map(|c| (["sink", "delta"], c.problems())),
        ];
        for (path, found) in parts.into_iter().flatten() {
            for error in found {
                problems.error(self.tree.key_place(&path), error.code, redact(&error.message), error.hint.unwrap_or_default());
            }
        }
    }

    fn stages(&self, problems: &mut Problems) {
        for (index, stage) in self.loaded.config.stages.iter().enumerate() {
            let at = index.to_string();
            let place = |path: &[&str]| self.tree.place_of(&[&["stages", &at], path].concat());
            if let Err(error) = plugins::find(&stage.plugin, &self.loaded.folder) {
                problems.error(place(&["plugin"]), error.code, error.message, error.hint.unwrap_or_default());
            }
            patterns(&stage.tables, |i| place(&["tables", i]), problems);
            self.grants(stage, &place, problems);
        }
    }

    fn grants(&self, stage: &StageEntry, place: &dyn Fn(&[&str]) -> Place, problems: &mut Problems) {
        let grant = &stage.grant;
        let keys = || self.loaded.config.keys.keys().map(String::as_str);
        for (i, name) in grant.crypto.iter().enumerate() {
            if !self.loaded.config.keys.contains_key(name) {
                let hint = match nearest(name, keys()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("add it to the file: `keys: {{ {name}: ${{env:NAME}} }}`"),
                };
                let message = format!("`crypto` grants the key `{name}`, which `keys` does not have");
                problems.error(place(&["grant", "crypto", &i.to_string()]), "grant.unknown_key", message, hint);
            }
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
        let (columns, read) = (&grant.columns, &grant.read);
        if columns.is_empty() && read.is_empty() && grant.write.is_empty() {
            let hint = "add `grant: { columns: [...] }` with the columns that it is for";
            let message = format!("the stage `{}` is granted no column: it can do nothing", stage.plugin);
            problems.warning(place(&[]), "grant.nothing", message, hint);
        }
    }

    fn metrics(&self, problems: &mut Problems) {
        let Some(metrics) = &self.loaded.config.metrics else { return };
        if metrics.listen.parse::<SocketAddr>().is_err() {
            let hint = "write an address and a port, such as 127.0.0.1:9464 or [::1]:9464";
            let message = format!("`{}` is no address to listen on", metrics.listen);
            problems.error(self.tree.place_of(&["metrics", "listen"]), "config.value", message, hint);
        }
    }

    fn letters(&self, problems: &mut Problems) {
        let Some(letters) = &self.loaded.config.dead_letters else { return };
        let place = self.tree.key_place(&["dead_letters"]);
        if letters.delta.is_some() && letters.ndjson.is_some() {
            problems.error(place, "config.choice", "`dead_letters` names more than one component", "name one: delta or ndjson");
        }
        if letters.ndjson.is_some() && self.loaded.config.sink.delta.is_some() {
            let message = "letters in a file have no position to compare: they may repeat after a crash";
            problems.warning(place, "letters.at_least_once", message, "use `delta` for letters exactly once");
        }
    }

    fn tests(&self, problems: &mut Problems) {
        let mut names = BTreeMap::new();
        for (index, case) in self.loaded.config.tests.iter().enumerate() {
            let at = index.to_string();
            let place = |path: &[&str]| self.tree.place_of(&[&["tests", &at], path].concat());
            if let Some(first) = names.insert(&case.name, index) {
                let message = format!("the name `{}` is also that of test {}", case.name, first + 1);
                problems.error(place(&["name"]), "test.duplicate_name", message, "give each test a name of its own");
            }
            changes("given", &case.given, &place, problems);
            changes("expect", &case.expect, &place, problems);
            test_tables(case, &place, problems);
        }
    }
}

fn patterns(tables: &[String], place: impl Fn(&str) -> Place, problems: &mut Problems) {
    for (i, pattern) in tables.iter().enumerate() {
        let body = pattern.strip_suffix('*').unwrap_or(pattern);
        if body.contains('*') {
            let message = format!("`{pattern}` has a `*` that is not at its end");
            problems.error(place(&i.to_string()), "stage.pattern", message, "write a name, or a prefix with `*` at its end");
        } else if tables[..i].contains(pattern) {
            problems.warning(place(&i.to_string()), "stage.pattern", format!("`{pattern}` is there twice"), "remove one");
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
    let allowed: &[&str] = if list == "given" { &["insert", "update", "delete"] } else { &["insert", "update", "delete", "reject"] };
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
            problems.error(place(&[list, &at, "table"]), "test.table", "a change belongs to one table", "write namespace.table");
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
