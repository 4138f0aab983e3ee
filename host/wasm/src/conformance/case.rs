//! A case as its file has it; `sdk/conformance/README.md` says what each field means.

use millrace_core::stage::Grants;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

pub(super) type Row = Map<String, Json>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    #[serde(default = "transform")]
    pub(super) role: String,
    pub(super) config: Json,
    #[serde(default = "everything")]
    pub(super) grant: Grants,
    #[serde(default)]
    pub(super) limits: Json,
    /// Columns as `name type [key] [not-null]`.
    pub(super) table: Vec<String>,
    #[serde(default)]
    pub(super) given: Vec<Given>,
    /// The given changes over and over until there are this many, with ids from 0.
    #[serde(default)]
    pub(super) repeat: usize,
    /// The same table at a later schema, and its changes.
    #[serde(default)]
    pub(super) then: Vec<Later>,
    pub(super) expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Later {
    pub(super) table: Vec<String>,
    pub(super) given: Vec<Given>,
}

/// One change. A column that its row leaves out was not sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Given {
    Insert(Row),
    Update { before: Option<Row>, after: Row },
    Delete(Row),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// `[table, change type, number of the change from 1, cells]`
    pub(super) rows: Option<Vec<Json>>,
    /// `[number of the change, code, column]`; the code may be several, `a|b`
    pub(super) rejects: Option<Vec<Json>>,
    pub(super) dropped: Option<u64>,
    /// How many rows, where they are too many to be named.
    pub(super) count: Option<usize>,
    pub(super) reads: Option<Vec<String>>,
    pub(super) effects: Option<Vec<String>>,
    /// The columns of the output, as `table` has them.
    pub(super) output: Option<Vec<String>>,
    pub(super) log: Option<Vec<String>>,
    pub(super) error: Option<String>,
    /// What the error, or the reason of each reject, must contain.
    pub(super) says: Option<String>,
}

fn transform() -> String {
    "transform".to_string()
}

fn everything() -> Grants {
    let all = || vec!["*".to_string()];
    Grants { read: all(), write: all(), keys: Vec::new(), crypto: vec!["kit".to_string()] }
}
