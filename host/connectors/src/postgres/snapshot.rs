//! The rows that are there already, table by table, each at the consistent point of a temporary slot
//! (docs/adr/0002-snapshot.md).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::error::{Error, Result};
use millrace_core::position::SourceKey;

use super::changes::malformed;
use super::connection::{Connection, Purpose, quoted_name};
use super::fault::Fault;
use super::lsn::Lsn;
use super::relation::{Relation, RowWriter};
use super::settings::Settings;
use super::slot;

/// A table whose rows are to be read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Its index among the stream's tables.
    pub(super) table: usize,
    pub(super) source: SourceKey,
    pub(super) relation: Arc<Relation>,
    pub(super) partitioned: bool,
}

/// A table at its consistent point, its rows on the way.
struct Reading {
    wanted: Wanted,
    connection: Connection,
    /// Transactions that committed before are in it.
    at: Lsn,
    /// When, in microseconds since 1970-01-01 UTC.
    time: i64,
    rows: i64,
}

/// A snapshot that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    pub(super) table: usize,
    /// The stream's changes of the table that committed here or before are in it.
    pub(super) skip_through: i64,
}

type Preparing = Pin<Box<dyn Future<Output = Result<Reading>> + Send + Sync>>;

/// The snapshots that are still to be read, one after the other.
pub(super) struct Snapshots {
    settings: Settings,
    queue: VecDeque<Wanted>,
    preparing: Option<Preparing>,
    reading: Option<Reading>,
    writer: RowWriter,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Snapshots {
    pub(super) fn new(settings: Settings, wanted: Vec<Wanted>) -> Self {
        Self { settings, queue: wanted.into(), preparing: None, reading: None, writer: RowWriter::default() }
    }

    /// Reads on; `None`: there is no snapshot left. With [`Boundary::Snapshot`] comes what the stream must leave out.
    /// Cancel-safe: what an await waits for stays in `self`.
    pub(super) async fn read(&mut self, into: &mut CutBuilder) -> Result<Option<(Boundary, Option<Complete>)>> {
        loop {
            if let Some(reading) = &mut self.reading {
                if !reading.connection.await_row().await.map_err(|e| failed(e, &reading.wanted))? {
                    return Ok(self.complete());
                }
                if append(reading, &mut self.writer, into)? {
                    return Ok(Some((Boundary::Within, None)));
                }
            } else if let Some(preparing) = &mut self.preparing {
                let ready = preparing.await;
                self.preparing = None;
                self.reading = Some(ready?);
            } else if let Some(wanted) = self.queue.pop_front() {
                self.preparing = Some(Box::pin(prepare(self.settings.clone(), wanted)));
            } else {
                return Ok(None);
            }
        }
    }

    fn complete(&mut self) -> Option<(Boundary, Option<Complete>)> {
        let done = self.reading.take()?;
        // Ends the session, and with it the transaction and the temporary slot.
        done.connection.close();
        let order = done.at.order_before(done.rows);
        tracing::info!(table = %done.wanted.source.table, rows = done.rows, at = %done.at, "snapshot complete");
        let complete = Complete { table: done.wanted.table, skip_through: order.commit() };
        Some((Boundary::Snapshot { source: done.wanted.source, order }, Some(complete)))
    }
}

/// Appends the rows that are buffered; `true`: a batch is full.
fn append(reading: &mut Reading, writer: &mut RowWriter, into: &mut CutBuilder) -> Result<bool> {
    let Reading { wanted, connection, at, time, rows: read } = reading;
    while let Some(body) = connection.buffered_row().map_err(|e| failed(e, wanted))? {
        let rows = into.table(&wanted.source, &wanted.relation.schema, true)?;
        *read += 1;
        rows.begin_change(at.order_before(*read), *time);
        writer.data_row(&wanted.relation, body, rows).map_err(malformed)?;
        connection.next_row();
        if into.has_closed() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens a session of its own whose transaction sees exactly what committed before its slot's consistent point, and
/// asks for the table's rows. Creating the slot waits for the transactions that run just then.
async fn prepare(settings: Settings, wanted: Wanted) -> Result<Reading> {
    tracing::info!(table = %wanted.source.table, "snapshot begins");
    let mut connection = Connection::open(&settings, Purpose::Replication).await.map_err(|e| failed(e, &wanted))?;
    let (at, time) = match consistent(&mut connection).await {
        Ok(point) => point,
        Err(e) => return Err(failed(e, &wanted)),
    };
    let at = slot::consistent_point(&at)?;
    connection.send_query(&select(&wanted)).await.map_err(|e| failed(e, &wanted))?;
    Ok(Reading { wanted, connection, at, time, rows: 0 })
}

/// The consistent point and its time, microseconds since 1970-01-01 UTC.
async fn consistent(connection: &mut Connection) -> Result<(String, i64), Fault> {
    // A policy would leave rows out without a word: the server is to refuse.
    connection.query("SET row_security = off").await?;
    connection.query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ").await?;
    // The name needs only to be free in the cluster: so is a session's process id.
    let name = format!("millrace_snapshot_{}", connection.process_id());
    let command = format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT");
    let point = connection.query_one(&command).await?.text(1).to_owned();
    let row =
        connection.query_one("SELECT (extract(epoch FROM pg_catalog.transaction_timestamp()) * 1000000)::int8").await?;
    Ok((point, row.number(0)?))
}

fn select(wanted: &Wanted) -> String {
    let relation = &wanted.relation;
    // Rows of tables that inherit from it are their own; those of partitions are the table's.
    let only = if wanted.partitioned { "" } else { "ONLY " };
    let columns: Vec<String> = relation.shape.columns.iter().map(|c| quoted_name(&c.name)).collect();
    let table = format!("{}.{}", quoted_name(&relation.shape.namespace), quoted_name(&relation.shape.name));
    format!("SELECT {} FROM {only}{table}", columns.join(", "))
}

fn failed(fault: Fault, wanted: &Wanted) -> Error {
    let place = format!("snapshot of {}", wanted.source.table);
    match &fault {
        // Altered since its columns were read: they are read again.
        Fault::Server(e) if matches!(e.sqlstate.as_str(), "42703" | "42P01") => {
            Error::retry("postgres.table_changed", format!("{place}: {e}"))
        }
        _ => fault.at(place),
    }
}
