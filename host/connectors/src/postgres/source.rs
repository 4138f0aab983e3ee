//! The source: opens the session, reads the snapshots and then the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::cut::{Boundary, CutBuilder};
use millrace_core::error::{Error, Result};
use millrace_core::position::{Order, Position, SourceKey};
use millrace_core::source::{Opened, Resume, Source};

use super::catalog::{self, Found};
use super::changes::Changes;
use super::config::{Plan, SnapshotMode};
use super::connection::{Connection, Purpose, duration_setting, quoted_name, quoted_text};
use super::fault::GAP;
use super::lsn::Lsn;
use super::publication;
use super::slot;
use super::snapshot::{Snapshots, Wanted};
use super::socket::{Started, Stream};
use super::spill::Spill;
use super::stream::StreamReader;

/// Older servers are not refused for their age alone but for what they lack: `publish_via_partition_root` came with 13.
const OLDEST: u32 = 130_000;

/// Streamed transactions (protocol 2) came with 14.
const STREAMING_SINCE: u32 = 140_000;

/// A PostgreSQL database, read through one slot.
#[derive(Debug)]
pub(super) struct PostgresSource {
    plan: Plan,
    session: Option<Session>,
    /// A snapshot of one table, beside the stream that another reads.
    alone: Option<Alone>,
}

#[derive(Debug)]
struct Alone {
    snapshots: Snapshots,
    /// Where the engine is told that it ends.
    end: Position,
}

#[derive(Debug)]
struct Session {
    snapshots: Snapshots,
    stream: StreamReader,
}

impl PostgresSource {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, session: None, alone: None }
    }

    /// Sorts the tables into those whose snapshot is recorded and those that need one.
    ///
    /// Errors: `postgres.table_replaced` where a table misses changes and no snapshots are taken.
    fn tables(&self, found: Vec<Found>, resume: &Resume, unpublished: &BTreeSet<u32>) -> Result<Tables> {
        let mut tables = Tables::default();
        for Found { relation, partitioned } in found {
            let source = SourceKey::new(relation.schema.name.to_string());
            let oid = relation.shape.oid;
            let relation = Arc::new(relation);
            let table = tables.changes.add_table(source.clone(), relation.clone());
            let replaced = resume.tables.get(&source).is_some_and(|known| *known != oid.to_string());
            let gap = replaced || (resume.tables.contains_key(&source) && unpublished.contains(&oid));
            if gap {
                self.note_gap(&source)?;
                tables.gaps.insert(source.clone());
            }
            match resume.snapshots.get(&source) {
                // A table that stands keeps standing, whatever it misses.
                Some(order) if !gap || *order == Order::END => tables.changes.skip_through(table, order.commit()),
                _ if self.plan.snapshot == SnapshotMode::Initial => {
                    tables.wanted.push(Wanted { table, source: source.clone(), relation, partitioned });
                }
                _ => {}
            }
            tables.names.insert(source, oid.to_string());
        }
        Ok(tables)
    }

    fn note_gap(&self, source: &SourceKey) -> Result<()> {
        let what =
            format!("table {} was replaced by another of its name, or was not published for a while", source.table);
        if self.plan.snapshot == SnapshotMode::Initial {
            tracing::warn!(table = %source.table, "{what}: changes of it are missing, it gets a new snapshot");
            return Ok(());
        }
        Err(Error::halt("postgres.table_replaced", format!("{what}: changes of it are missing"))
            .hint("`snapshot: initial` takes a new snapshot of it; or leave it out of `tables` for one start, and so accept the gap"))
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| Error::bug("the postgres source is used before it is open"))
    }
}

/// The tables that are read.
#[derive(Default)]
struct Tables {
    changes: Changes,
    wanted: Vec<Wanted>,
    names: BTreeMap<SourceKey, String>,
    gaps: BTreeSet<SourceKey>,
}

/// What is known once the stream has started.
struct Prepared {
    unpublished: BTreeSet<u32>,
    incarnation: String,
    found: Vec<Found>,
    start: Lsn,
    version: u32,
    encrypted: bool,
}

/// Connects, prepares publication and slot, and starts the stream, which takes the slot: from here on nobody else
/// reads it.
async fn connect(plan: Plan, resume: Resume) -> Result<(Started, Prepared)> {
    let connecting = format!("connecting to {}", plan.settings.place());
    let opened = Connection::open(&plan.settings, Purpose::Replication).await;
    let mut connection = opened.map_err(|e| e.at(connecting))?;
    let prepared = prepare(&plan, &mut connection, &resume).await?;

    let place = format!("starting slot `{}`", plan.slot);
    let timeout = catalog::setting(&mut connection, "wal_sender_timeout").await.map_err(|e| e.at(&place))?;
    let streaming = plan.streaming && prepared.version >= STREAMING_SINCE;
    let options = if streaming { "proto_version '2', streaming 'on'" } else { "proto_version '1'" };
    let start = prepared.start;
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL {start} ({options}, publication_names {})",
        quoted_name(&plan.slot),
        quoted_text(&quoted_name(&plan.publication)),
    );
    let (socket, read) = connection.copy_both(&command).await.map_err(|e| e.at(&place))?;
    let sender_timeout = duration_setting(&timeout).unwrap_or_default();
    Ok((Started { socket, read, start, sender_timeout }, prepared))
}

/// Everything that comes before the stream, over one replication connection.
async fn prepare(plan: &Plan, connection: &mut Connection, resume: &Resume) -> Result<Prepared> {
    let place = plan.settings.place();
    let version = connection.version();
    if version < OLDEST {
        let message = format!("{place} is PostgreSQL {}", version / 10_000);
        return Err(Error::config("postgres.version", message).hint("versions 15 to 18 are supported"));
    }
    let incarnation = catalog::incarnation(connection).await.map_err(|e| e.at(&place))?;
    if let Some(recorded) = resume.incarnation.as_ref().filter(|recorded| **recorded != incarnation) {
        let message = format!(
            "{place} is system/timeline {incarnation}, and the resume record belongs to {recorded}: \
             another server, a restored copy, or a standby that was promoted"
        );
        return Err(Error::halt("position.gap", message).hint(GAP));
    }
    let found = catalog::find_tables(connection, &plan.tables).await?;
    if plan.snapshot == SnapshotMode::Initial {
        catalog::refuse_unreadable(connection, &found).await?;
    }
    let unpublished = publication::ensure(connection, &plan.publication, &found).await?;
    let start = slot::ensure(connection, &plan.slot, resume).await?;
    Ok(Prepared { unpublished, incarnation, found, start, version, encrypted: connection.is_encrypted() })
}

#[async_trait]
impl Source for PostgresSource {
    async fn open(&mut self, resume: &Resume) -> Result<Opened> {
        self.session = None;
        let (stream, prepared) = Stream::start(connect(self.plan.clone(), resume.clone())).await?;
        let Prepared { unpublished, incarnation, found, start, version, encrypted } = prepared;
        let settings = &self.plan.settings;
        let mut spill = Spill::new(self.plan.spill_dir.clone(), self.plan.spill_limit);
        spill.clear()?;
        let Tables { changes, wanted, names, gaps } = self.tables(found, resume, &unpublished)?;
        tracing::info!(
            server = %settings.place(), version, encrypted, slot = %self.plan.slot, position = %start, snapshots = wanted.len(),
            "reading PostgreSQL"
        );
        self.session = Some(Session {
            snapshots: Snapshots::new(settings.clone(), wanted),
            stream: StreamReader::new(&self.plan, stream, changes, spill, start),
        });
        Ok(Opened { incarnation, start: start.position(), holds_log: true, tables: Some(names), gaps })
    }

    async fn open_snapshot(&mut self, table: &SourceKey) -> Result<Opened> {
        let place = self.plan.settings.place();
        let opened = Connection::open(&self.plan.settings, Purpose::Replication).await;
        let mut connection = opened.map_err(|e| e.at(&place))?;
        let incarnation = catalog::incarnation(&mut connection).await.map_err(|e| e.at(&place))?;
        let mut found = catalog::find_tables(&mut connection, &self.plan.tables).await?;
        found.retain(|found| found.relation.schema.name.to_string() == *table.table);
        catalog::refuse_unreadable(&mut connection, &found).await?;
        connection.close();
        let Some(Found { relation, partitioned }) = found.pop() else {
            return Err(Error::config("postgres.no_table", format!("{place} has no table {} any more", table.table)));
        };
        let wanted = Wanted { table: 0, source: table.clone(), relation: Arc::new(relation), partitioned };
        let end = Lsn::default().position();
        let snapshots = Snapshots::new(self.plan.settings.clone(), vec![wanted]);
        self.alone = Some(Alone { snapshots, end: end.clone() });
        Ok(Opened { incarnation, start: end, holds_log: true, tables: None, gaps: BTreeSet::new() })
    }

    async fn read(&mut self, into: &mut CutBuilder) -> Result<Boundary> {
        if let Some(Alone { snapshots, end }) = &mut self.alone {
            let read = snapshots.read(into).await?;
            return Ok(read.map_or_else(|| Boundary::End(end.clone()), |(boundary, _)| boundary));
        }
        let Session { snapshots, stream } = self.session()?;
        match snapshots.read(into).await? {
            Some((boundary, complete)) => {
                if let Some(complete) = complete {
                    stream.changes.skip_through(complete.table, complete.skip_through);
                }
                Ok(boundary)
            }
            None => stream.read(into).await,
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let lsn = Lsn::from_token(&position.token)?;
        self.session()?.stream.acknowledge(lsn);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(session) = self.session.take() {
            session.stream.close().await;
        }
        Ok(())
    }

    /// A slot lets in one reader.
    fn is_exclusive(&self) -> bool {
        true
    }
}
