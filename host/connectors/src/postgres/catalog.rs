//! What the system catalogs say of tables and types.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use millrace_core::error::{Error, Result};

use super::connection::{Connection, Row, quoted_text};
use super::fault::Fault;
use super::relation::{Description, RawColumn, Relation, Shape};
use super::tables::Patterns;
use super::types::{PgType, Types};

/// A table that is to be read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) relation: Relation,
    /// `relkind = 'p'`: its rows are in partitions.
    pub(super) partitioned: bool,
}

/// The tables of the database that the patterns name, as they are now, by name.
///
/// Partitions are read through their root, unless one is named itself.
///
/// Errors: `postgres.table_missing` where a pattern names nothing; `postgres.table_unlogged`.
pub(super) async fn find_tables(connection: &mut Connection, patterns: &Patterns) -> Result<Vec<Found>> {
    const SQL: &str = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.relispartition, c.relpersistence \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 2, 3";
    let rows = connection.query(SQL).await.map_err(|e| e.at("listing the tables"))?;
    let mut chosen = Vec::new();
    for pattern in patterns.iter() {
        let mut matching = 0;
        for (index, row) in rows.iter().enumerate().filter(|(_, r)| pattern.matches(r.text(1), r.text(2))) {
            let exact = pattern.is_exact();
            if row.text(6) != "p" {
                if exact {
                    let message =
                        format!("table {} is unlogged: its changes are not in the write-ahead log", pattern.text());
                    return Err(Error::config("postgres.table_unlogged", message)
                        .hint(format!("ALTER TABLE {} SET LOGGED", pattern.text())));
                }
                continue;
            }
            matching += 1;
            if exact || !row.is_true(5) {
                chosen.push(index);
            }
        }
        if matching == 0 {
            return Err(no_table(&pattern.text(), &rows));
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    let chosen: Vec<&Row> = chosen.into_iter().map(|index| &rows[index]).collect();
    relations(connection, &chosen).await.map_err(|e| e.at("reading the tables' columns"))
}

/// A snapshot reads the tables as any query does; streaming needs no more than REPLICATION.
pub(super) async fn refuse_unreadable(connection: &mut Connection, tables: &[Found]) -> Result<()> {
    let oids = joined(tables.iter().map(|t| t.relation.shape.oid));
    let sql = format!(
        "SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c WHERE c.oid IN ({oids}) AND NOT \
         (pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'))"
    );
    let refused = connection.query(&sql).await.map_err(|e| e.at("looking at the privileges"))?;
    match refused.first() {
        None => Ok(()),
        Some(row) => {
            let name = row.text(0);
            Err(Error::config("postgres.privilege_missing", format!("the role may not read table {name}"))
                .hint(format!("GRANT SELECT ON {name} TO the role, and USAGE on its schema; or snapshot: never")))
        }
    }
}

fn no_table(pattern: &str, rows: &[Row]) -> Error {
    let table = pattern.rsplit('.').next().unwrap_or(pattern);
    let near = rows.iter().filter(|r| r.text(2).contains(table) || table.contains(r.text(2)));
    let near: Vec<String> = near.take(3).map(|r| format!("{}.{}", r.text(1), r.text(2))).collect();
    let hint = match near.as_slice() {
        [] => "check the schema and the database of the url; names are as in the catalog, lower case unless quoted"
            .to_owned(),
        names => format!("did you mean {}?", names.join(" or ")),
    };
    Error::config("postgres.table_missing", format!("no table matches `{pattern}`")).hint(hint)
}

async fn relations(connection: &mut Connection, tables: &[&Row]) -> Result<Vec<Found>, Fault> {
    let oids = joined(tables.iter().map(|row| row.text(0)));
    // The replica identity's columns as the server computes them: without INCLUDEd ones, and only of an index that
    // is checked at once.
    let sql = format!(
        "SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod), \
         c.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indimmediate \
         AND i.indisvalid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END \
         AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])), \
         EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary \
         AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         WHERE a.attrelid IN ({oids}) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
         ORDER BY a.attrelid, a.attnum"
    );
    let columns = connection.query(&sql).await?;
    let mut by_table: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &columns {
        by_table.entry(row.text(0)).or_default().push(row);
    }
    let mut type_oids = Vec::new();
    for row in &columns {
        type_oids.push(row.number(2)?);
    }
    let types = types(connection, &type_oids).await?;
    let mut found = Vec::with_capacity(tables.len());
    for table in tables {
        let columns = by_table.get(table.text(0)).map_or(&[][..], Vec::as_slice);
        let description = Description {
            type_names: columns.iter().map(|row| row.text(4).to_owned()).collect(),
            primary_key: columns.iter().filter(|row| row.is_true(6)).map(|row| row.text(1).to_owned()).collect(),
            types: types.clone(),
        };
        let relation = Relation::new(shape(table, columns)?, &description);
        found.push(Found { relation, partitioned: table.text(3) == "p" });
    }
    Ok(found)
}

fn shape(table: &Row, columns: &[&Row]) -> Result<Shape, Fault> {
    let column = |row: &&Row| {
        Ok(RawColumn {
            name: row.text(1).to_owned(),
            type_oid: row.number(2)?,
            typmod: row.number(3)?,
            identity: row.is_true(5),
        })
    };
    Ok(Shape {
        oid: table.number(0)?,
        namespace: table.text(1).to_owned(),
        name: table.text(2).to_owned(),
        replica_identity: table.text(4).bytes().next().unwrap_or(b'd'),
        columns: columns.iter().map(column).collect::<Result<_, Fault>>()?,
    })
}

/// What the stream does not say of a shape that it announced. The catalog may be ahead of the stream: a column or a
/// type that is gone by now is described as far as its numbers allow.
pub(super) async fn describe(connection: &mut Connection, shape: &Shape) -> Result<Description, Fault> {
    let type_oids: Vec<u32> = shape.columns.iter().map(|c| c.type_oid).collect();
    let types = types(connection, &type_oids).await?;
    let mut description = Description { types, ..Description::default() };
    if !shape.columns.is_empty() {
        let names = shape.columns.iter().map(|c| format!("pg_catalog.format_type({}, {})", c.type_oid, c.typmod));
        let row = connection.query_one(&format!("SELECT {}", joined(names))).await?;
        description.type_names = (0..shape.columns.len()).map(|i| row.text(i).to_owned()).collect();
    }
    let sql = format!(
        "SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid \
         WHERE i.indrelid = {} AND i.indisprimary AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])",
        shape.oid
    );
    description.primary_key = connection.query(&sql).await?.iter().map(|row| row.text(0).to_owned()).collect();
    Ok(description)
}

/// The types of these oids, and those that they are made of.
async fn types(connection: &mut Connection, oids: &[u32]) -> Result<Types, Fault> {
    if oids.is_empty() {
        return Ok(Types::new());
    }
    let oids = joined(oids.iter());
    let sql = format!(
        "WITH RECURSIVE t AS (SELECT p.* FROM pg_catalog.pg_type p WHERE p.oid IN ({oids}) UNION \
         SELECT p.* FROM pg_catalog.pg_type p JOIN t ON p.oid = t.typbasetype \
         OR (p.oid = t.typelem AND t.typcategory = 'A' AND t.typlen = -1)) \
         SELECT oid, typname, typtype, typcategory, typbasetype, typtypmod, \
         CASE WHEN typcategory = 'A' AND typlen = -1 THEN typelem ELSE 0 END, typdelim FROM t"
    );
    let mut types = Types::new();
    for row in connection.query(&sql).await? {
        let some_oid = |column: usize| row.number::<u32>(column).map(|oid| (oid != 0).then_some(oid));
        let base = match some_oid(4)? {
            Some(base) => Some((base, row.number(5)?)),
            None => None,
        };
        let byte = |column: usize| row.text(column).bytes().next().unwrap_or(b' ');
        let ty = PgType {
            name: row.text(1).to_owned(),
            kind: byte(2),
            category: byte(3),
            base,
            element: some_oid(6)?,
            delimiter: byte(7),
        };
        types.insert(row.number(0)?, ty);
    }
    Ok(types)
}

fn joined(parts: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let mut text = String::new();
    for part in parts {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String can not fail.
        write!(text, "{comma}{part}").unwrap_or_default();
    }
    text
}

/// The identity of the server's history: system id and timeline, which a restored copy or a promoted standby does not
/// share (I2).
pub(super) async fn incarnation(connection: &mut Connection) -> Result<String, Fault> {
    let row = connection.query_one("IDENTIFY_SYSTEM").await?;
    Ok(format!("{}/{}", row.text(0), row.text(1)))
}

/// One setting of the server.
pub(super) async fn setting(connection: &mut Connection, name: &str) -> Result<String, Fault> {
    let sql = format!("SELECT pg_catalog.current_setting({})", quoted_text(name));
    Ok(connection.query_one(&sql).await?.text(0).to_owned())
}
