//! The publication: created for the tables if absent, else held against what the pipeline needs.

use std::collections::BTreeSet;

use millrace_core::error::{Error, Result};

use super::catalog::Found;
use super::connection::{Connection, Row, quoted_name, quoted_text};

/// Makes sure that every change of every table is published, whole.
///
/// Must come before the slot: decoding sees the catalogs as they were, and fails where the publication was not there.
/// Answers the oids of the tables that were not published before: their changes until now are not in the stream.
pub(super) async fn ensure(connection: &mut Connection, name: &str, tables: &[Found]) -> Result<BTreeSet<u32>> {
    let sql = format!(
        "SELECT oid, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot \
         FROM pg_catalog.pg_publication WHERE pubname = {}",
        quoted_text(name)
    );
    let rows = connection.query(&sql).await.map_err(|e| e.at(format!("looking for publication `{name}`")))?;
    match rows.first() {
        None => create(connection, name, tables).await,
        Some(row) => {
            verify(connection, name, row, tables).await?;
            if row.is_true(1) { Ok(BTreeSet::new()) } else { extend(connection, name, tables).await }
        }
    }
}

async fn create(connection: &mut Connection, name: &str, tables: &[Found]) -> Result<BTreeSet<u32>> {
    let all: Vec<&Found> = tables.iter().collect();
    refuse_without_identity(&all)?;
    let sql = format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
        quoted_name(name),
        listed(&all)
    );
    change(connection, &sql, name).await?;
    tracing::info!(publication = name, tables = tables.len(), "created the publication");
    Ok(oids(&all))
}

/// Runs what changes a publication; a refusal says what an owner would have to run.
async fn change(connection: &mut Connection, sql: &str, name: &str) -> Result<()> {
    connection.query(sql).await.map(drop).map_err(|e| {
        let error = e.at(format!("preparing publication `{name}`"));
        match error.code {
            "postgres.privilege_missing" => error.hint(format!("let the tables' owner run: {sql}")),
            _ => error,
        }
    })
}

async fn verify(connection: &mut Connection, name: &str, row: &Row, tables: &[Found]) -> Result<()> {
    if !(2..=5).all(|column| row.is_true(column)) {
        let message = format!("publication `{name}` leaves out some of inserts, updates, deletes and truncates");
        return Err(Error::config("postgres.publication_narrow", message).hint(format!(
            "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
            quoted_name(name)
        )));
    }
    if !row.is_true(6)
        && let Some(table) = tables.iter().find(|t| t.partitioned)
    {
        let message =
            format!("publication `{name}` publishes the partitions of {} and not the table", full_name(table));
        return Err(Error::config("postgres.publication_partitions", message)
            .hint(format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true)", quoted_name(name))));
    }
    if connection.version() >= 150_000 {
        refuse_filters(connection, name, row.text(0)).await?;
    }
    Ok(())
}

/// With a row filter or a column list (PostgreSQL 15 on) the stream would not be what the snapshot is.
async fn refuse_filters(connection: &mut Connection, name: &str, oid: &str) -> Result<()> {
    let sql = format!(
        "SELECT prrelid::pg_catalog.regclass FROM pg_catalog.pg_publication_rel \
         WHERE prpubid = {oid} AND (prqual IS NOT NULL OR prattrs IS NOT NULL)"
    );
    let place = format!("reading publication `{name}`");
    let filtered = connection.query(&sql).await.map_err(|e| e.at(&place))?;
    if let Some(row) = filtered.first() {
        let message = format!("publication `{name}` has a row filter or a column list on {}", row.text(0));
        return Err(Error::config("postgres.publication_filtered", message)
            .hint("publish whole tables, and leave rows or columns out in a stage"));
    }
    if connection.version() >= 180_000 {
        let sql = format!("SELECT pubgencols <> 'n' FROM pg_catalog.pg_publication WHERE oid = {oid}");
        let row = connection.query_one(&sql).await.map_err(|e| e.at(&place))?;
        if row.is_true(0) {
            let message = format!("publication `{name}` publishes generated columns, which a snapshot does not read");
            return Err(Error::config("postgres.publication_filtered", message)
                .hint(format!("ALTER PUBLICATION {} SET (publish_generated_columns = none)", quoted_name(name))));
        }
    }
    Ok(())
}

async fn extend(connection: &mut Connection, name: &str, tables: &[Found]) -> Result<BTreeSet<u32>> {
    let sql = format!(
        "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = {}",
        quoted_text(name)
    );
    let rows = connection.query(&sql).await.map_err(|e| e.at(format!("reading publication `{name}`")))?;
    let published: BTreeSet<(&str, &str)> = rows.iter().map(|row| (row.text(0), row.text(1))).collect();
    let is_published =
        |t: &&Found| published.contains(&(t.relation.shape.namespace.as_str(), t.relation.shape.name.as_str()));
    let missing: Vec<&Found> = tables.iter().filter(|t| !is_published(t)).collect();
    if missing.is_empty() {
        return Ok(BTreeSet::new());
    }
    refuse_without_identity(&missing)?;
    change(connection, &format!("ALTER PUBLICATION {} ADD TABLE {}", quoted_name(name), listed(&missing)), name)
        .await?;
    tracing::info!(publication = name, tables = missing.len(), "added tables to the publication");
    Ok(oids(&missing))
}

fn oids(tables: &[&Found]) -> BTreeSet<u32> {
    tables.iter().map(|t| t.relation.shape.oid).collect()
}

/// Publishing the updates of a table without a replica identity makes the server refuse them to its own users.
fn refuse_without_identity(tables: &[&Found]) -> Result<()> {
    let bare = |t: &&&Found| !t.relation.shape.columns.iter().any(|c| c.identity);
    match tables.iter().find(bare) {
        None => Ok(()),
        Some(table) => {
            let name = full_name(table);
            let message = format!(
                "table {name} has no primary key and no replica identity: once published, its users could not update or delete"
            );
            Err(Error::config("postgres.replica_identity_missing", message)
                .hint(format!("give it a primary key, or: ALTER TABLE {name} REPLICA IDENTITY FULL")))
        }
    }
}

fn listed(tables: &[&Found]) -> String {
    tables.iter().map(|t| full_name(t)).collect::<Vec<_>>().join(", ")
}

fn full_name(table: &Found) -> String {
    let shape = &table.relation.shape;
    format!("{}.{}", quoted_name(&shape.namespace), quoted_name(&shape.name))
}
