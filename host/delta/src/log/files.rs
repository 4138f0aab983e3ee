//! The files that a table refers to, as of one version.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_core::{Error, Result};

use super::actions::{Add, DvDescriptor, Remove};

/// By path, as the log spells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    by_path: BTreeMap<Arc<str>, Arc<Add>>,
}

fn id(dv: Option<&DvDescriptor>) -> Option<String> {
    dv.map(DvDescriptor::unique_id)
}

impl Files {
    /// Of a checkpoint, which has been reconciled.
    pub(crate) fn new(adds: Vec<Add>) -> Self {
        let mut files = Self::default();
        adds.into_iter().for_each(|add| files.insert(add));
        files
    }

    fn insert(&mut self, add: Add) {
        self.by_path.insert(add.path.as_str().into(), Arc::new(add));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Add>> {
        self.by_path.values()
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Arc<Add>> {
        self.by_path.get(path)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Takes in a commit. An entry of the log is a path with a deletion vector, so a commit that gives a file another
    /// vector has to remove the entry with the old one: readers count rows twice where it does not.
    ///
    /// `place`: table and version, for the message. Errors: `log.damaged` (halt).
    pub(crate) fn apply(&mut self, place: &str, adds: Vec<Add>, removes: &[Remove]) -> Result<()> {
        let damaged = |path: &str, why: &str| {
            Err(Error::halt("log.damaged", format!("{place}: `{path}` {why}")).hint(
                "another writer broke the table: readers see rows twice or not at all; restore an earlier version",
            ))
        };
        let added: HashMap<&str, &Add> = adds.iter().map(|a| (a.path.as_str(), a)).collect();
        for remove in removes {
            let Some(present) = self.by_path.get(remove.path.as_str()) else { continue };
            if id(present.deletion_vector.as_ref()) != id(remove.deletion_vector.as_ref()) {
                return damaged(&remove.path, "is removed with another deletion vector than it has");
            }
            let again = added.get(remove.path.as_str());
            if again.is_some_and(|a| id(a.deletion_vector.as_ref()) == id(remove.deletion_vector.as_ref())) {
                return damaged(&remove.path, "is added and removed in one commit");
            }
            self.by_path.remove(remove.path.as_str());
        }
        for add in adds {
            let present = self.by_path.get(add.path.as_str());
            if present.is_some_and(|p| id(p.deletion_vector.as_ref()) != id(add.deletion_vector.as_ref())) {
                return damaged(&add.path, "gets a deletion vector and its entry with the old one stays");
            }
            self.insert(add);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(path: &str, dv: Option<&str>) -> Add {
        Add {
            path: path.into(),
            partition_values: BTreeMap::new(),
            size: 1,
            modification_time: 0,
            data_change: true,
            stats: None,
            tags: None,
            deletion_vector: dv.map(|text| DvDescriptor {
                storage_type: "u".into(),
                path_or_inline_dv: text.into(),
                offset: Some(1),
                size_in_bytes: 4,
                cardinality: 1,
            }),
        }
    }

    fn remove(path: &str, dv: Option<&str>) -> Remove {
        Remove::of(&add(path, dv), 1, true)
    }

    #[test]
    fn a_commit_moves_a_file_to_its_next_deletion_vector() {
        let mut files = Files::new(vec![add("a", None), add("b", Some("x"))]);
        files
            .apply("t", vec![add("a", Some("y")), add("c", None)], &[remove("a", None), remove("b", Some("x"))])
            .unwrap();
        let paths: Vec<&str> = files.iter().map(|a| a.path.as_str()).collect();
        assert_eq!(paths, ["a", "c"]);
        assert_eq!(files.get("a").unwrap().deletion_vector, add("a", Some("y")).deletion_vector);
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn commits_by_which_readers_would_disagree_are_refused() {
        let cases: [(Vec<Add>, Vec<Remove>); 3] = [
            (vec![add("a", Some("y"))], vec![]),
            (vec![add("a", Some("y"))], vec![remove("a", None)]),
            (vec![add("a", Some("x"))], vec![remove("a", Some("x"))]),
        ];
        let twice = Files::new(vec![add("a", None)]).apply("t", vec![add("a", None)], &[remove("a", None)]);
        assert_eq!(twice.unwrap_err().code, "log.damaged");
        for (adds, removes) in cases {
            let error = Files::new(vec![add("a", Some("x"))]).apply("t", adds, &removes).unwrap_err();
            assert_eq!(error.code, "log.damaged");
        }
    }
}
