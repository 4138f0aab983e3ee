//! What a table may ask of its writers, and which of it this sink honours. Spark does not check writers for us: a raw
//! commit that ignores a feature is accepted and breaks the table later.

use millrace_core::{Error, Result};

use super::actions::{Add, Metadata, Protocol};
use super::schema::{DeltaSchema, DeltaType, Field};
use crate::file::meta::CHANGE_TYPE;

/// Features that an appending writer honours by doing nothing: it never removes or rewrites rows, adds files without
/// deletion vectors, and vacuums nothing.
const HONOURED: &[&str] = &[
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "domainMetadata",
    "generatedColumns",
    "identityColumns",
    "allowColumnDefaults",
    "inCommitTimestamp",
    "invariants",
    "rowTracking",
    "timestampNtz",
    // Values of older files are cast to the column's type as they are read.
    "typeWidening",
    "v2Checkpoint",
    // delta-rs lists it in every new table with deletion vectors; no column of ours is a variant.
    "variantType",
    "vacuumProtocolCheck",
];

/// Why a table can not be written, in the table's own words.
fn reason(protocol: &Protocol, metadata: &Metadata, schema: &DeltaSchema) -> Option<String> {
    if protocol.min_writer_version > 7 || protocol.min_reader_version > 3 {
        let (reader, writer) = (protocol.min_reader_version, protocol.min_writer_version);
        return Some(format!("it asks for reader version {reader} and writer version {writer}"));
    }
    let listed = protocol.writer_features.iter().chain(&protocol.reader_features).flatten();
    if let Some(unknown) = listed.into_iter().find(|f| !HONOURED.contains(&f.as_str())) {
        return Some(format!("it has the writer feature `{unknown}`"));
    }
    let on = |name: &str| metadata.property(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    for property in ["delta.enableRowTracking", "delta.enableInCommitTimestamps"] {
        if on(property) {
            return Some(format!("it sets `{property}`"));
        }
    }
    if metadata.property("delta.setTransactionRetentionDuration").is_some() {
        return Some(
            "it sets `delta.setTransactionRetentionDuration`, by which our positions would be forgotten".into(),
        );
    }
    if metadata.property("delta.columnMapping.mode").is_some_and(|mode| mode != "none") {
        return Some("it maps its columns (`delta.columnMapping.mode`)".into());
    }
    if let Some(constraint) = metadata.configuration.keys().find(|k| k.starts_with("delta.constraints.")) {
        return Some(format!("it has the check `{constraint}`"));
    }
    schema.fields.iter().find_map(field_reason)
}

fn field_reason(field: &Field) -> Option<String> {
    let asks = |prefix: &str| field.metadata.keys().any(|k| k.starts_with(prefix));
    let what = if asks("delta.invariants") {
        "an invariant"
    } else if asks("delta.generationExpression") {
        "a generation expression"
    } else if asks("delta.identity.") {
        "an identity"
    } else if asks("CURRENT_DEFAULT") {
        "a default"
    } else {
        return None;
    };
    Some(format!("its column `{}` has {what}", field.name))
}

/// Refuses a table that this sink could break.
///
/// Errors: `table.unsupported` (halt).
pub(crate) fn check_writable(
    place: &str,
    protocol: &Protocol,
    metadata: &Metadata,
    schema: &DeltaSchema,
) -> Result<()> {
    match reason(protocol, metadata, schema) {
        None => Ok(()),
        Some(why) => Err(Error::halt("table.unsupported", format!("{place} can not be written: {why}"))
            .hint("remove that from the table, or give the pipeline another path")),
    }
}

/// In a table's properties: what its rows are, where they are no list of changes.
pub(crate) const MODE: &str = "millrace.mode";
pub(crate) const UPSERT: &str = "upsert";
pub(crate) const ENABLE_DELETION_VECTORS: &str = "delta.enableDeletionVectors";
const DELETION_VECTORS: &str = "deletionVectors";
pub(crate) const ENABLE_TYPE_WIDENING: &str = "delta.enableTypeWidening";
pub(crate) const ENABLE_CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";
const CHANGE_DATA_FEED: &str = "changeDataFeed";
const TYPE_WIDENING: &str = "typeWidening";
const TIMESTAMP_NTZ: &str = "timestampNtz";

/// Refuses a table in which rows can not be replaced. `vectors`: they have to be marked by deletion vectors, which are not
/// to be turned on. A table without columns of its own yet may become anything.
///
/// Errors: `table.no_deletion_vectors`, `table.other_mode`, `table.unsupported` (halt).
pub(crate) fn check_upsertable(
    place: &str,
    protocol: &Protocol,
    metadata: &Metadata,
    schema: &DeltaSchema,
    vectors: bool,
) -> Result<()> {
    let lists = |features: &Option<Vec<String>>| features.iter().flatten().any(|f| f == DELETION_VECTORS);
    let on = |name: &str| metadata.property(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    if schema.field(CHANGE_TYPE).is_some() {
        return Err(Error::halt(
            "table.other_mode",
            format!("{place} holds changes, and the mode `upsert` keeps current rows"),
        )
        .hint("give the pipeline another path, or the mode that the table was written in"));
    }
    let has_vectors =
        lists(&protocol.reader_features) && lists(&protocol.writer_features) && on(ENABLE_DELETION_VECTORS);
    if vectors && !has_vectors {
        return Err(Error::halt("table.no_deletion_vectors", format!("{place} does not allow deletion vectors"))
            .hint("set `upgrade_protocol: true` to turn them on (`delta.enableDeletionVectors`), or `deletion_vectors: false` to write its files anew instead"));
    }
    let why = if on("delta.appendOnly") {
        "it sets `delta.appendOnly`".to_owned()
    } else if protocol.writer_features.iter().flatten().any(|f| f == "rowTracking") {
        "it has the writer feature `rowTracking`".to_owned()
    } else if let Some(field) =
        schema.fields.iter().find(|f| matches!(f.ty, DeltaType::TextList | DeltaType::Foreign(_)))
    {
        format!("its column `{}` is {}, which rows that are written anew would lose", field.name, field.ty)
    } else {
        return Ok(());
    };
    Err(Error::halt("table.unsupported", format!("{place} can not be written: {why}"))
        .hint("remove that from the table, or give the pipeline another path"))
}

/// Refuses deletion vectors in a table that does not ask its readers to know them: some show the rows that are gone.
///
/// Errors: `log.damaged` (halt).
pub(crate) fn check_vectors<'a>(
    place: &str,
    protocol: &Protocol,
    mut adds: impl Iterator<Item = &'a Add>,
) -> Result<()> {
    let lists = |features: &Option<Vec<String>>| features.iter().flatten().any(|f| f == DELETION_VECTORS);
    if lists(&protocol.reader_features) && lists(&protocol.writer_features) {
        return Ok(());
    }
    match adds.find(|add| add.deletion_vector.is_some()) {
        None => Ok(()),
        Some(add) => Err(Error::halt(
            "log.damaged",
            format!(
                "{place}: `{}` has a deletion vector, and the table's protocol does not list `deletionVectors`",
                add.path
            ),
        )
        .hint("another writer broke the table: readers see rows that are gone; restore an earlier version")),
    }
}

/// Refuses to add changes to a table of current rows. Errors: `table.other_mode` (halt).
pub(crate) fn check_appendable(place: &str, metadata: &Metadata) -> Result<()> {
    if metadata.property(MODE) != Some(UPSERT) {
        return Ok(());
    }
    Err(Error::halt("table.other_mode", format!("{place} holds current rows, and this mode adds changes"))
        .hint("give the pipeline another path, or `mode: upsert`"))
}

/// What a table of these columns and properties asks of its writers, and whether of its readers too.
fn needed(metadata: &Metadata, schema: &DeltaSchema) -> Vec<(&'static str, bool)> {
    let on = |name: &str| metadata.property(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let features = [
        (on(ENABLE_DELETION_VECTORS), (DELETION_VECTORS, true)),
        (on(ENABLE_CHANGE_DATA_FEED), (CHANGE_DATA_FEED, false)),
        (on(ENABLE_TYPE_WIDENING), (TYPE_WIDENING, true)),
        (schema.needs_timestamp_ntz(), (TIMESTAMP_NTZ, true)),
    ];
    features.into_iter().filter(|(is_needed, _)| *is_needed).map(|(_, feature)| feature).collect()
}

/// The least that a new table asks of its readers and writers.
pub(crate) fn new_protocol(metadata: &Metadata, schema: &DeltaSchema) -> Protocol {
    let oldest =
        Protocol { min_reader_version: 1, min_writer_version: 2, reader_features: None, writer_features: None };
    let listed = Protocol { min_writer_version: 7, writer_features: Some(Vec::new()), ..oldest.clone() };
    upgraded_protocol(&listed, metadata, schema).unwrap_or(oldest)
}

/// The protocol that the table needs once its columns and properties are these; `None` where the present one does.
pub(crate) fn upgraded_protocol(present: &Protocol, metadata: &Metadata, schema: &DeltaSchema) -> Option<Protocol> {
    let mut writer = present.writer_features.clone().unwrap_or_else(|| implied_features(present.min_writer_version));
    let mut missing = needed(metadata, schema);
    missing.retain(|(name, _)| !writer.iter().any(|has| has == name));
    if missing.is_empty() {
        return None;
    }
    writer.extend(missing.iter().map(|(name, _)| (*name).to_owned()));
    let of_readers: Vec<String> =
        missing.iter().filter(|(_, of_readers)| *of_readers).map(|(name, _)| (*name).to_owned()).collect();
    let mut protocol = Protocol { min_writer_version: 7, writer_features: Some(writer), ..present.clone() };
    if !of_readers.is_empty() {
        let mut reader = present.reader_features.clone().unwrap_or_default();
        if present.min_reader_version == 2 {
            reader.push("columnMapping".into());
        }
        reader.extend(of_readers);
        (protocol.min_reader_version, protocol.reader_features) = (3, Some(reader));
    }
    Some(protocol)
}

/// What a writer version below 7 stands for; an upgrade has to list it.
fn implied_features(version: i32) -> Vec<String> {
    let by_version: [(i32, &[&str]); 5] = [
        (2, &["appendOnly", "invariants"]),
        (3, &["checkConstraints"]),
        (4, &["changeDataFeed", "generatedColumns"]),
        (5, &["columnMapping"]),
        (6, &["identityColumns"]),
    ];
    by_version
        .iter()
        .filter(|(v, _)| *v <= version)
        .flat_map(|(_, names)| names.iter().map(|n| (*n).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::actions::Format;

    fn metadata(property: Option<(&str, &str)>) -> Metadata {
        Metadata {
            id: "1".into(),
            name: None,
            description: None,
            format: Format::default(),
            schema_string: String::new(),
            partition_columns: vec![],
            created_time: None,
            configuration: property.into_iter().map(|(k, v)| (k.to_owned(), Some(v.to_owned()))).collect(),
        }
    }

    fn schema(ty: DeltaType) -> DeltaSchema {
        DeltaSchema { fields: vec![Field::new("c", ty)] }
    }

    #[test]
    fn what_can_not_be_honoured_is_refused_by_name() {
        let plain = schema(DeltaType::Long);
        let protocol = new_protocol(&metadata(None), &plain);
        assert!(check_writable("t", &protocol, &metadata(None), &plain).is_ok());
        for (property, value, named) in [
            ("delta.setTransactionRetentionDuration", "interval 1 day", "setTransactionRetentionDuration"),
            ("delta.enableRowTracking", "true", "enableRowTracking"),
            // A commit without its time bricks such a table for Spark.
            ("delta.enableInCommitTimestamps", "true", "enableInCommitTimestamps"),
            ("delta.columnMapping.mode", "name", "columnMapping"),
            ("delta.constraints.positive", "c > 0", "delta.constraints.positive"),
        ] {
            let error = check_writable("t", &protocol, &metadata(Some((property, value))), &plain).unwrap_err();
            assert_eq!(error.code, "table.unsupported");
            assert!(error.message.contains(named), "{error}");
        }
        let clustered =
            Protocol { writer_features: Some(vec!["clustering".into()]), min_writer_version: 7, ..protocol };
        let error = check_writable("t", &clustered, &metadata(None), &plain).unwrap_err();
        assert!(error.message.contains("clustering"), "{error}");
    }

    #[test]
    fn a_timestamp_without_zone_upgrades_an_old_table_and_keeps_what_it_had() {
        let none = metadata(None);
        let old = new_protocol(&none, &schema(DeltaType::Long));
        assert_eq!((old.min_reader_version, old.min_writer_version), (1, 2));
        let new = upgraded_protocol(&old, &none, &schema(DeltaType::TimestampNtz)).unwrap();
        assert_eq!((new.min_reader_version, new.min_writer_version), (3, 7));
        assert_eq!(new.writer_features.as_deref().unwrap(), ["appendOnly", "invariants", "timestampNtz"]);
        assert!(upgraded_protocol(&new, &none, &schema(DeltaType::TimestampNtz)).is_none());
        assert!(upgraded_protocol(&old, &none, &schema(DeltaType::Long)).is_none());
    }

    #[test]
    fn properties_and_columns_decide_what_a_new_table_asks_for() {
        let vectors = metadata(Some((ENABLE_DELETION_VECTORS, "true")));
        let both = new_protocol(&vectors, &schema(DeltaType::TimestampNtz));
        assert_eq!((both.min_reader_version, both.min_writer_version), (3, 7));
        for features in [both.reader_features, both.writer_features] {
            assert_eq!(features.unwrap(), ["deletionVectors", "timestampNtz"]);
        }
    }
}
