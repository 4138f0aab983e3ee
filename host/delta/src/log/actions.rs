//! The lines of a commit, as the Delta protocol spells them
//! (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions>).

use std::collections::BTreeMap;

use millrace_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::mutants::{Mutant, has};

/// How our commits name their writer; the version follows.
pub(crate) const ENGINE: &str = "Millrace";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitInfo {
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub timestamp: i64,
    #[serde(default)]
    pub operation: String,
    #[serde(default)]
    pub engine_info: Option<String>,
    /// Our random commit id: how an unknown outcome is told from a foreign commit.
    #[serde(default)]
    pub txn_id: Option<String>,
    /// The pipeline that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millrace_pipeline: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_blind_append: Option<bool>,
}

impl CommitInfo {
    /// Whether the commit turned the table's rows back or replaced it, which `txn` does not follow (delta#1813).
    pub(crate) fn rewinds(&self) -> bool {
        let operation = self.operation.to_ascii_uppercase();
        operation.contains("RESTORE") || operation.contains("REPLACE") || operation.contains("CLONE")
    }

    pub(crate) fn is_of(&self, pipeline: &str) -> bool {
        self.millrace_pipeline.as_deref() == Some(pipeline)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    #[serde(default)]
    pub partition_columns: Vec<String>,
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
    #[serde(default)]
    pub configuration: BTreeMap<String, Option<String>>,
}

impl Metadata {
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.configuration.get(name)?.as_deref()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, Option<String>>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".into(), options: BTreeMap::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub app_id: String,
    pub version: i64,
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A data file that the table refers to. Also what the manifest of a staged cut is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    /// Relative to the table, URL-encoded.
    pub path: String,
    #[serde(default)]
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: u64,
    /// Milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub modification_time: i64,
    pub data_change: bool,
    /// JSON text; others may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DvDescriptor>,
}

/// A file that the table no longer refers to; with its deletion vector, by which readers know which entry is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub path: String,
    /// Milliseconds since 1970-01-01 UTC, the real time: vacuum keeps the file for its retention from then on.
    #[serde(default)]
    pub deletion_timestamp: Option<i64>,
    #[serde(default)]
    pub data_change: bool,
    #[serde(default)]
    pub extended_file_metadata: Option<bool>,
    #[serde(default)]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DvDescriptor>,
}

impl Remove {
    /// Takes `add` out of the table. `now`: milliseconds since 1970-01-01 UTC.
    pub(crate) fn of(add: &Add, now: i64, data_change: bool) -> Self {
        Self {
            path: add.path.clone(),
            deletion_timestamp: Some(now),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(add.partition_values.clone()),
            size: Some(add.size),
            deletion_vector: add.deletion_vector.clone().filter(|_| !has(Mutant::RemovedWithoutVector)),
        }
    }
}

/// A file of the change data feed: the rows that its commit changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cdc {
    /// Relative to the table, URL-encoded.
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: u64,
    /// Always false: the table's rows are elsewhere.
    pub data_change: bool,
}

/// Where a deletion vector is
/// (<https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vector-descriptor-schema>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DvDescriptor {
    /// `u`: relative to the table, `p`: an absolute path, `i`: in the log itself.
    pub storage_type: String,
    pub path_or_inline_dv: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub size_in_bytes: i32,
    /// Rows that it removes.
    pub cardinality: i64,
}

impl DvDescriptor {
    /// By which the protocol tells two entries of one file apart.
    pub(crate) fn unique_id(&self) -> String {
        match self.offset {
            Some(offset) => format!("{}{}@{offset}", self.storage_type, self.path_or_inline_dv),
            None => format!("{}{}", self.storage_type, self.path_or_inline_dv),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Action {
    CommitInfo(CommitInfo),
    Protocol(Protocol),
    MetaData(Metadata),
    Txn(Txn),
    Add(Add),
    Remove(Remove),
    Cdc(Cdc),
}

/// The body of a commit: one action a line.
pub(crate) fn write_lines(actions: &[Action]) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(actions.len() * 256);
    for action in actions {
        serde_json::to_writer(&mut body, action)
            .map_err(|e| Error::bug(format!("a commit does not serialise: {e}")))?;
        body.push(b'\n');
    }
    Ok(body)
}

/// What we need to know of a line that anyone wrote.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
    protocol: Option<Protocol>,
    meta_data: Option<Metadata>,
    txn: Option<Txn>,
    add: Option<Add>,
    remove: Option<Remove>,
    sidecar: Option<Sidecar>,
}

/// A part of a checkpoint of the second form.
#[derive(Debug, Deserialize)]
pub(crate) struct Sidecar {
    pub path: String,
}

/// A commit as read back.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub info: Option<CommitInfo>,
    pub protocol: Option<Protocol>,
    pub metadata: Option<Metadata>,
    pub txns: Vec<Txn>,
    pub adds: Vec<Add>,
    pub removes: Vec<Remove>,
    pub sidecars: Vec<Sidecar>,
}

impl Entry {
    /// `place`: for the message.
    pub(crate) fn parse(place: &str, body: &[u8]) -> Result<Self> {
        let damaged = |why: String| {
            Error::halt("log.damaged", format!("{place}: {why}"))
                .hint("the commit is not a Delta log entry; restore the file")
        };
        let text = std::str::from_utf8(body).map_err(|e| damaged(e.to_string()))?;
        let mut entry = Entry::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|e| damaged(e.to_string()))?;
            entry.info = line.commit_info.or(entry.info);
            entry.protocol = line.protocol.or(entry.protocol);
            entry.metadata = line.meta_data.or(entry.metadata);
            entry.txns.extend(line.txn);
            entry.adds.extend(line.add);
            entry.removes.extend(line.remove);
            entry.sidecars.extend(line.sidecar);
        }
        Ok(entry)
    }

    pub(crate) fn has_id(&self, id: &str) -> bool {
        self.info.as_ref().is_some_and(|info| info.txn_id.as_deref() == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_survives_its_text_and_foreign_fields_are_skipped() {
        let info = CommitInfo {
            timestamp: 1,
            operation: "WRITE".into(),
            engine_info: Some("Millrace/0".into()),
            txn_id: Some("id".into()),
            millrace_pipeline: Some("shop".into()),
            is_blind_append: Some(true),
        };
        let txn = Txn { app_id: "a".into(), version: -3, last_updated: Some(2) };
        let mut body = write_lines(&[Action::CommitInfo(info), Action::Txn(txn.clone())]).unwrap();
        body.extend_from_slice(br#"{"domainMetadata":{"domain":"x","configuration":"","removed":false}}"#);
        let entry = Entry::parse("t", &body).unwrap();
        assert!(entry.has_id("id"));
        assert!(entry.info.as_ref().unwrap().is_of("shop"));
        assert_eq!(entry.txns, [txn]);
    }

    #[test]
    fn spark_metadata_with_nulls_is_read() {
        let body = br#"{"metaData":{"id":"1","name":null,"description":null,"format":{"provider":"parquet","options":{}},"schemaString":"{}","partitionColumns":[],"configuration":{"delta.x":"1"},"createdTime":5}}"#;
        let metadata = Entry::parse("t", body).unwrap().metadata.unwrap();
        assert_eq!(metadata.property("delta.x"), Some("1"));
    }

    #[test]
    fn a_damaged_entry_says_so() {
        assert_eq!(Entry::parse("t", b"{\"txn\":").unwrap_err().code, "log.damaged");
    }

    #[test]
    fn operations_that_turn_a_table_back_are_known() {
        for (operation, rewinds) in [
            ("RESTORE", true),
            ("CREATE OR REPLACE TABLE AS SELECT", true),
            ("REPLACE TABLE", true),
            ("CLONE", true),
            ("WRITE", false),
            ("OPTIMIZE", false),
            ("VACUUM START", false),
        ] {
            let info: CommitInfo = serde_json::from_value(serde_json::json!({ "operation": operation })).unwrap();
            assert_eq!(info.rewinds(), rewinds, "{operation}");
        }
    }
}
